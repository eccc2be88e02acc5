from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rewriting import model

from onnxq.ir import text
from onnxq.ir.model import Model
from onnxq.ir.save import to_bytes
from onnxq.repair import smooth as module
from onnxq.repair.channels import Channels
from onnxq.repair.smooth import BRANCH, GAIN, product_error, smooth
from onnxq.runtime.session import Level, Session

K, N = 16, 8


def listed(values: NDArray[Any]) -> str:
    return "{" + ", ".join(str(v) for v in np.asarray(values, np.float32).ravel()) + "}"


def net(outlier: float, nodes: str = "y = MatMul(n, w)", outputs: str = "(float[b,5,8] y)") -> Model:
    """A norm whose first channel reaches so many times what the others do."""
    random = np.random.default_rng(0)
    gamma = np.ones(K)
    gamma[0] = outlier
    w, v = random.normal(0, 1, (K, N)), random.normal(0, 1, (K, K))
    constants = (
        f"float[{K}] g = {listed(gamma)}, float[{K}] h = {listed(np.zeros(K))}, "
        f"float[{K},{N}] w = {listed(w)}, float[{K},{K}] v = {listed(v)}"
    )
    source = f"(float[b,5,{K}] x) => {outputs} <{constants}> {{ [norm] n = LayerNormalization(x, g, h) {nodes} }}"
    return text.parse(model(source))


def samples(count: int = 16) -> list[dict[str, NDArray[np.float32]]]:
    random = np.random.default_rng(1)
    return [{"x": random.normal(0, 1, (2, 5, K)).astype(np.float32)} for _ in range(count)]


def run(some: Model) -> dict[str, NDArray[np.float32]]:
    return Session(to_bytes(some), level=Level.OFF, threads=1).run(samples(1)[0])


def test_an_outlier_moves_into_the_weights() -> None:
    before = net(50)
    written = text.text(before.graph)
    after, (site,) = smooth(before, iter(samples()), threads=1)
    assert text.text(before.graph) == written != text.text(after.graph)
    assert (site.tensor, site.source, len(site.products), site.branch) == ("n", "norm", 1, False)
    assert site.alpha is not None
    assert site.after < 0.3 * site.before
    want, got = run(before)["y"], run(after)["y"]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())
    assert smooth(after, samples(), threads=1)[1][0].alpha is None  # nothing is left to gain


def test_even_channels_stay() -> None:
    before = net(1)
    after, (site,) = smooth(before, samples(), threads=1)
    assert site.alpha is None
    assert site.after == site.before > 0
    assert text.text(after.graph) == text.text(before.graph)


def test_a_mul_must_gain_more_than_what_is_free() -> None:
    """Some outlier gains less than a Mul must, and enough without one."""
    outliers = (1.3, 1.4, 1.5, 1.6)
    free = [smooth(net(o), samples(), threads=1)[1][0] for o in outliers]
    between = [o for o, s in zip(outliers, free, strict=True) if BRANCH * s.before < s.after < GAIN * s.before]
    assert between
    for outlier in between:
        nodes = "y = MatMul(n, w) z = Neg(n)"
        (site,) = smooth(net(outlier, nodes, f"(float[b,5,8] y, float[b,5,{K}] z)"), samples(), threads=1)[1]
        assert site.alpha is None


def test_the_exponent_with_the_least_error_is_taken() -> None:
    alphas = (0.3, 0.5, 0.7)
    alone = {alpha: smooth(net(50), samples(), threads=1, alphas=(alpha,))[1][0].after for alpha in alphas}
    _, (site,) = smooth(net(50), samples(), threads=1, alphas=alphas)
    assert site.after == min(alone.values())
    assert site.alpha == min(alphas, key=lambda alpha: alone[alpha])


def test_of_wide_weights_some_columns_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    widths = []
    measured = module.product_error

    def watched(seen: Channels, weights: Sequence[NDArray[Any]], *rest: Any) -> float:
        widths.append([w.shape for w in weights])
        return measured(seen, weights, *rest)

    monkeypatch.setattr(module, "product_error", watched)
    monkeypatch.setattr(module, "COLUMNS", 5)
    (site,) = smooth(net(50), samples(), threads=1, alphas=(0.5,))[1]
    assert widths == [[(K, 5)]] * 2
    assert site.alpha == 0.5


def test_products_that_share_a_norm_share_the_scales() -> None:
    before = net(50, "y = MatMul(n, w) z = MatMul(n, v)", f"(float[b,5,8] y, float[b,5,{K}] z)")
    after, (site,) = smooth(before, samples(), threads=1)
    assert len(site.products) == 2
    want, got = run(before), run(after)
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-5, atol=1e-5 * np.abs(value).max())


def test_a_branch_only_where_it_is_asked_for() -> None:
    before = net(50, "m = MatMul(n, v) y = Add(m, n)", f"(float[b,5,{K}] y)")
    same, none = smooth(before, iter([]), threads=1, branches="refuse")
    assert (same, none) == (before, ())
    after, (site,) = smooth(before, samples(), threads=1)
    assert site.branch
    assert site.after < BRANCH * site.before
    assert [n.op for n in after.graph.nodes] == ["LayerNormalization", "Mul", "MatMul", "Add"]
    want, got = run(before)["y"], run(after)["y"]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


def test_no_branch_where_nothing_is_gained() -> None:
    before = net(1, "m = MatMul(n, v) y = Add(m, n)", f"(float[b,5,{K}] y)")
    after, (site,) = smooth(before, samples(), threads=1)
    assert (site.alpha, site.branch) == (None, False)
    assert [n.op for n in after.graph.nodes] == ["LayerNormalization", "MatMul", "Add"]


def test_a_tensor_in_a_body_is_left_out() -> None:
    body = "[norm] n = LayerNormalization(x, g) [mm] t = MatMul(n, w)"
    source = (
        "(bool c, float[2,2] x) => (float[2,2] y) <float[2] g = {100, 1}, float[2,2] w = {1, 2, 3, 4}> "
        f"{{ y = If(c) <then_branch = a () => (float[2,2] t) {{ {body} }}, "
        "else_branch = b () => (float[2,2] e) { e = Neg(x) }> }"
    )
    before = text.parse(model(source))
    assert smooth(before, iter([]), threads=1) == (before, ())


def test_the_error_of_a_product() -> None:
    """Data on the grid of its scale and weights on theirs: none; else what rounding the data costs."""
    weight = np.array([[127.0, 1.0], [-3.0, -127.0]])
    data = np.array([[0.0, 255.0], [7.0, 1.0]], np.float32)
    seen = Channels(low=data.min(axis=0), high=data.max(axis=0), rows=data)
    exact = [data @ weight]
    assert product_error(seen, [weight], exact, np.ones(2)) == pytest.approx(0, abs=1e-12)
    s = np.array([1.0, 100.0])
    step, steps = 7 / 255, np.abs(weight * s[:, None]).max(axis=0) / 127
    rounded = np.rint(data / s / step) * step @ (np.rint(weight * s[:, None] / steps) * steps)
    wanted = ((rounded - exact[0]) ** 2).sum() / (exact[0] ** 2).sum()
    assert product_error(seen, [weight], exact, s) == pytest.approx(wanted, rel=1e-4)
    assert wanted > 1e-6
    assert product_error(seen, [weight, weight], [*exact, exact[0] + 1], np.ones(2)) == pytest.approx(
        4 / ((exact[0] + 1) ** 2).sum() / 2, rel=1e-4
    )
