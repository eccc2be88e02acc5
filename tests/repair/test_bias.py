"""Bias correction: the mean error of every channel goes, wherever a bias is free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import tiny
from numpy.typing import NDArray
from switched import RESIDUAL, inserted, planned, res8
from whole import Arrays

from onnxq.encoding import PerChannel
from onnxq.ir import text
from onnxq.ir.model import Model
from onnxq.ir.save import runnable
from onnxq.plan.plan import Plan, Use
from onnxq.repair.bias import LITERAL, ROOM, Correction, activations, rounded, shrunk, sites
from onnxq.runtime.session import Level, Session
from onnxq.stats.taps import with_outputs

Vector = NDArray[np.float64]

IMAGES = [{"image": np.random.default_rng(i).uniform(0, 3, (1, *tiny.SHAPE)).astype(np.float32)} for i in range(12)]

TOKENS = """<ir_version: 8, opset_import: ["": 17]>
g (float["N",5,4] x) => (float["N",5,6] y)
<float[4,6] w = {1,2,3,4,-1,0.5,0.25,2,0.1,0.2,0.3,0.4,-2,-3,1,1,0.7,0.6,0.5,0.4,0.3,0.2,0.1,1},
 float[6] b = {0.1,0.2,0.3,0.4,0.5,0.6}> {
    [product] p = MatMul(x, w)
    [sum] s = Add(BIAS)
    [tail] y = Sin(s)
}"""
ROWS = [{"x": np.random.default_rng(i).uniform(0, 2, (2, 5, 4)).astype(np.float32)} for i in range(8)]


def correction(model: Model, samples: Sequence[Arrays]) -> Correction:
    return Correction(model, samples, inserted, int32=True, threads=1)


def coarse(plan: Plan) -> Plan:
    """The plan with weights of a few levels, so that they are far off."""
    factor = np.float32(25)
    uses = {u: replace(e, scale=e.scale * factor) if e.type in ("int8", "int32") else e for u, e in plan.uses.items()}
    return replace(plan, uses=uses)


def means(model: Model, plan: Plan | None, name: str, samples: Sequence[Arrays], axes: tuple[int, ...]) -> Vector:
    """Of one tensor over all samples."""
    made = model if plan is None else inserted(model, plan)
    with runnable(with_outputs(made, [name])) as source:
        session = Session(source, threads=1)
    found = [session.run(s, [name])[name].astype(np.float64).mean(axis=axes) for s in samples]
    return np.asarray(np.mean(found, axis=0), np.float64)


def test_the_mean_error_of_every_channel_goes() -> None:
    model, plan = planned(tiny.classifier(), IMAGES)
    plan = coarse(plan)
    corrected, count = correction(model, IMAGES).fit(plan)
    assert count == 2 and {u.node for u in corrected.biases} == {"conv", "gemm"}
    for tensor, axes in (("r", (0, 2, 3)), ("scores", (0,))):  # behind the Relu: nobody sees what it cuts off
        wanted = means(model, None, tensor, IMAGES, axes)
        before = np.abs(means(model, plan, tensor, IMAGES, axes) - wanted)
        after = np.abs(means(model, corrected, tensor, IMAGES, axes) - wanted)
        assert after.max() < 0.3 * before.max()
    assert plan.biases == {}  # the plan that was given stays


def test_later_layers_are_corrected_for_what_is_left_of_the_error_not_for_all_of_it() -> None:
    """All at once, the Gemm would take off what the correction of the Conv takes off already."""
    model, plan = planned(tiny.classifier(), IMAGES)
    plan = coarse(plan)
    corrected, _ = correction(model, IMAGES).fit(plan)
    wanted = means(model, None, "scores", IMAGES, (0,))
    at_once = wanted - means(model, plan, "scores", IMAGES, (0,))
    gemm = Use((), "gemm", 2)
    naive = {**corrected.biases, gemm: type(corrected.biases[gemm])((_bias(model) + at_once).astype(np.float32))}
    left = np.abs(means(model, corrected, "scores", IMAGES, (0,)) - wanted).max()
    over = np.abs(means(model, replace(corrected, biases=naive), "scores", IMAGES, (0,)) - wanted).max()
    assert left < 0.5 * over


def _bias(model: Model) -> Vector:
    gemm = next(n for n in model.graph.nodes if n.name == "gemm")
    return np.asarray(gemm.inputs[2].values)


def test_a_convolution_without_a_bias_gets_one() -> None:
    samples = [{"x": np.random.default_rng(i).uniform(-1, 2, (1, 4, 6, 6)).astype(np.float32)} for i in range(8)]
    model, plan = planned(RESIDUAL, samples)
    third = Use((), "third", 2)
    assert third not in plan.uses
    plan = coarse(plan)
    corrected, count = correction(model, samples).fit(plan)
    assert count == 3
    encoding = corrected.uses[third]
    assert (encoding.type, encoding.granularity) == ("int32", PerChannel(0))
    scale = plan.uses[Use((), "third", 0)].scale * plan.uses[Use((), "third", 1)].scale
    assert np.array_equal(encoding.scale, scale.astype(np.float32))
    nodes = {n.name: n for n in inserted(model, corrected).graph.nodes}
    assert [len(nodes[n].inputs) for n in ("first", "third")] == [3, 3]
    assert nodes["third"].inputs[2].inputs[0].inputs[0].values.dtype == np.int32


def test_a_bias_that_two_ops_share_is_corrected_for_each() -> None:
    samples = [{"x": np.random.default_rng(i).uniform(-1, 2, (1, 4, 6, 6)).astype(np.float32)} for i in range(8)]
    model, plan = planned(RESIDUAL, samples)
    corrected, _ = correction(model, samples).fit(coarse(plan))
    one, two = (corrected.biases[Use((), n, 2)].array for n in ("first", "second"))
    assert not np.array_equal(one, two)


@pytest.mark.parametrize("inputs", ["p, b", "b, p"])
def test_the_row_that_an_add_puts_on_a_product(inputs: str) -> None:
    model, plan = planned(TOKENS.replace("BIAS", inputs), ROWS)
    (site,) = sites(model.graph, lambda n: n.op == "MatMul")
    assert (site.node, site.output, site.channels, site.spatial) == ("product", "s", 6, False)
    assert site.use == Use((), "sum", 1 if inputs == "p, b" else 0)
    plan = coarse(plan)
    corrected, count = correction(model, ROWS).fit(plan)
    assert count == 1
    wanted = means(model, None, "s", ROWS, (0, 1))
    before = np.abs(means(model, plan, "s", ROWS, (0, 1)) - wanted).max()
    assert np.abs(means(model, corrected, "s", ROWS, (0, 1)) - wanted).max() < 0.1 * before


@pytest.mark.parametrize(
    ("source", "integer"),
    [
        (TOKENS.replace("BIAS", "p, b"), {"Add", "MatMul"}),  # an integer Add rounds its constant to 8 bits
        (TOKENS.replace("BIAS", "p, p"), {"MatMul"}),  # no constant
        (TOKENS.replace("BIAS", "p, b").replace("float[6] b", "float[1] b").replace("{0.1,0.2,0.3,0.4,0.5,0.6}", "{1}"),
         {"MatMul"}),  # not one number per channel
        (TOKENS.replace("BIAS", "p, b").replace("float[\"N\",5,6] y)", "float[\"N\",5,6] y, float[\"N\",5,6] p)"),
         {"MatMul"}),  # the caller sees the product
        (TOKENS.replace("BIAS", "p, b"), set()),  # float
    ],
)  # fmt: skip
def test_where_no_bias_is_free(source: str, integer: set[str]) -> None:
    assert sites(text.parse(source).graph, lambda n: n.op in integer) == []


GEMM = """<ir_version: 8, opset_import: ["": 17]>
g (float["N",4] x) => (float["N",2] y)
<float[2,4] w = {1,2,3,4,-1,0.5,0.25,2}, float[2] b = {0.1,0.2}, float[1] one = {1}> {
    [gemm] y = Gemm <transB = 1, beta = BETA> (INPUTS)
}"""


@pytest.mark.parametrize(("beta", "inputs", "found"), [("0.5", "x, w, b", 1), ("0.0", "x, w, b", 0), ("1.0", "x, w", 1),
                                                      ("1.0", "x, w, one", 0)])  # fmt: skip
def test_gemm(beta: str, inputs: str, found: int) -> None:
    graph = text.parse(GEMM.replace("BETA", beta).replace("INPUTS", inputs)).graph
    here = sites(graph, lambda _: True)
    assert len(here) == found
    for site in here:
        assert (site.channels, site.factor, site.use) == (2, float(beta), Use((), "gemm", 2))


def test_a_bias_that_would_leave_int32_stays() -> None:
    model, plan = planned(tiny.classifier(), IMAGES)
    plan = coarse(plan)
    use = Use((), "conv", 2)
    bias = np.asarray(next(n for n in model.graph.nodes if n.name == "conv").inputs[2].values)
    narrow = plan.uses[use].scale.copy()
    narrow[3] = abs(bias[3]) / ROOM / 4
    tight = replace(plan, uses={**plan.uses, use: replace(plan.uses[use], scale=narrow)})
    found = correction(model, IMAGES).fit(tight)[0].biases[use].array
    assert found[3] == bias[3]
    assert (found != bias).sum() >= 6


def test_shrinking_takes_chance_off() -> None:
    random = np.random.default_rng(0)
    noise = random.standard_normal((16, 2000))
    assert np.abs(shrunk(noise)).mean() < 0.5 * np.abs(noise.mean(axis=0)).mean()
    assert np.allclose(shrunk(noise + 10), (noise + 10).mean(axis=0), atol=0.02)
    assert not shrunk(noise[:1]).any()
    assert not shrunk(np.zeros((4, 3))).any()


def test_rounded_constants_are_what_dequantize_gives() -> None:
    model, plan = planned(tiny.classifier(), IMAGES)
    plan = coarse(plan)
    made = {n.name: n for n in rounded(model, plan).graph.nodes}
    weight, scale = made["conv"].inputs[1].values, plan.uses[Use((), "conv", 1)].scale
    levels = weight / scale[:, None, None, None]
    assert np.allclose(levels, np.rint(levels), atol=1e-4) and np.abs(levels).max() <= 127
    assert made["conv"].inputs[2].name == "b1"  # 32 bits are as good as float


def test_equal_samples_give_equal_bytes() -> None:
    model, plan = planned(tiny.classifier(), IMAGES)
    one, two = (correction(model, IMAGES).fit(coarse(plan))[0] for _ in range(2))
    assert one.key == two.key and one.to_json() == two.to_json()
    assert '"biases"' in one.to_json() and '"biases"' not in plan.to_json()
    assert one.key != coarse(plan).key


def test_on_a_real_model_the_shift_of_the_outputs_goes() -> None:
    model, plan, data, _ = res8()
    samples = [s.inputs for s, _ in zip(data, range(24), strict=False)]
    plan = coarse(plan)
    corrected, count = correction(model, samples).fit(plan)
    assert count == 10
    wanted = means(model, None, "logits", samples, (0,))
    before, after = (np.square(means(model, p, "logits", samples, (0,)) - wanted).sum() for p in (plan, corrected))
    assert after < 0.5 * before


ACTIVE = """<ir_version: 8, opset_import: ["": 17]>
g (float[1,2,4,4] x) => (float[1,2,4,4] y, float[1,2,4,4] z)
<float[2,2,1,1] w = {1,-0.5,0.25,1}, float[2] b = {-0.5,-1}, float low = {0}, float high = {6}> {
    [conv] c = Conv(x, w, b)
    [cut] a = ACTIVATION
    [next] y = Conv(a, w)
    [other] z = Sin(OTHER)
}"""


@pytest.mark.parametrize(
    ("activation", "other", "seen"),
    [
        ("Relu(c)", "x", "a"),
        ("Clip(c, low, high)", "x", "a"),
        ("Relu(c)", "c", "c"),  # somebody sees what the Relu cuts off
        ("LeakyRelu(c)", "x", "c"),  # nothing is cut off
    ],
)
def test_where_all_that_is_seen_stands_behind_an_activation(activation: str, other: str, seen: str) -> None:
    graph = text.parse(ACTIVE.replace("ACTIVATION", activation).replace("OTHER", other)).graph
    site = sites(graph, lambda n: n.name == "conv")[0]
    assert (site.output, site.seen, site.activation) == ("c", seen, "cut" if seen == "a" else None)


@pytest.mark.parametrize("activation", ["Relu(c)", "Clip(c, low, high)"])
def test_means_behind_an_activation_are_what_becomes_right(activation: str) -> None:
    samples = [{"x": np.random.default_rng(i).uniform(-1, 2, (1, 2, 4, 4)).astype(np.float32)} for i in range(24)]
    model, plan = planned(ACTIVE.replace("ACTIVATION", activation).replace("OTHER", "x"), samples)
    plan = coarse(plan)
    corrected, _ = correction(model, samples).fit(plan)
    wanted = means(model, None, "a", samples, (0, 2, 3))
    before, after = (np.abs(means(model, p, "a", samples, (0, 2, 3)) - wanted).max() for p in (plan, corrected))
    assert after < 0.3 * before


def test_the_graph_with_rounded_weights_is_run_as_it_says() -> None:
    """With ONNX Runtime's fusions for Q/DQ, the outputs would be others than with optimizations off."""
    model, plan, data, _ = res8()
    inputs = next(iter(data)).inputs
    made = rounded(model, plan)
    with runnable(inserted(made, activations(plan, made.graph))) as source:
        wanted, literal, fused = (
            Session(source, threads=1, level=level, config=config).run(inputs)["logits"]
            for level, config in ((Level.OFF, {}), (Level.ALL, LITERAL), (Level.ALL, {}))
        )
    assert np.abs(literal - wanted).max() < 0.25 * np.abs(fused - wanted).max()
