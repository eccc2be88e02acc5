from __future__ import annotations

import numpy as np
import pytest
import random_float
import random_passes
import recipes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rewriting import keep, model, rewrite

from onnxq.errors import ConfigError, PassError
from onnxq.ir import text
from onnxq.pipeline.spec import load_pipeline
from onnxq.pipeline.write import to_yaml
from onnxq.testing import check_pass, default_context
from onnxq_passes.smooth_activations import SmoothActivations

PASS = SmoothActivations()
# reach 4 * gamma = {16, 4}; rows {2, 8} of the weights: s = sqrt(16 / 2), sqrt(4 / 8), over their mean: {2, 0.5}
NORM = "float[2] g = {4, 1}, float[2] b = {0, 0}, float[2,2] w = {2, 1, -8, 4}"
DONE = "float[2] g = {2, 2}, float[2] b = {0, 0}, float[2,2] w = {4, 2, -4, 2}"
HEAD = "(float[1,3,2] x) => (float[1,3,2] y)"
LN = "[norm] n = LayerNormalization(x, g, b)"


def test_contract() -> None:
    check_pass(SmoothActivations)


def test_case_1_a_norm_in_front_of_a_product() -> None:
    rewrite(
        PASS,
        f"{HEAD} <{NORM}> {{ {LN} [mm] y = MatMul(n, w) }}",
        f"{HEAD} <{DONE}> {{ {LN} [mm] y = MatMul(n, w) }}",
        rewrites=1,
        atol=1e-5,
    )


def test_case_1_several_products_share_the_scales() -> None:
    rewrite(
        PASS,
        f"(float[3,2] x) => (float[3,2] y, float[3,1] z) <{NORM}, float[1,2] v = {{1, 3}}>"
        f" {{ {LN} y = MatMul(n, w) z = Gemm<transB = 1>(n, v) }}",
        f"(float[3,2] x) => (float[3,2] y, float[3,1] z) <{DONE}, float[1,2] v = {{2, 1.5}}>"
        f" {{ {LN} y = MatMul(n, w) z = Gemm<transB = 1>(n, v) }}",
        rewrites=1,
        atol=1e-5,
    )


def test_case_1_the_shift_counts_and_is_divided() -> None:
    rewrite(
        PASS,
        f"{HEAD} <float[2] g = {{3, 0}}, float[2] b = {{4, -4}}, float[2,2] w = {{2, 1, -8, 4}}> {{ {LN} y = MatMul(n, w) }}",
        f"{HEAD} <float[2] g = {{1.5, 0}}, float[2] b = {{2, -8}}, float[2,2] w = {{4, 2, -4, 2}}> {{ {LN} y = MatMul(n, w) }}",
        rewrites=1,
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("op", "extra"),
    [
        ("n = com.microsoft.SkipLayerNormalization(x, x, g, b)", ", float[2] b = {0, 0}"),
        ("n = com.microsoft.SkipSimplifiedLayerNormalization(x, x, g)", ""),
        ("n = SimplifiedLayerNormalization<axis = -1>(x, g)", ""),
        ("n = LayerNormalization(x, g)", ""),
        ("n = RMSNormalization(x, g)", ""),
    ],
)
def test_case_1_the_norms(op: str, extra: str) -> None:
    before, after = (
        text.parse(
            model(f"{HEAD} <float[2] g = {{{g}}}{extra}, float[2,2] w = {{{w}}}> {{ {op} y = MatMul(n, w) }}", 23)
        )
        for g, w in (("4, 1", "2, 1, -8, 4"), ("2, 2", "4, 2, -4, 2"))
    )
    assert PASS.run(before.graph, default_context()).rewrites == 1
    assert text.text(before.graph) == text.text(after.graph)


def test_case_1_a_channel_that_no_weight_reads_comes_down_to_the_others() -> None:
    found = text.parse(model(f"{HEAD} <{NORM.replace('2, 1, -8, 4', '0, 0, -8, 4')}> {{ {LN} y = MatMul(n, w) }}"))
    PASS.run(found.graph, default_context())
    (norm,) = (n for n in found.graph.nodes if n.op == "LayerNormalization")
    np.testing.assert_allclose(norm.inputs[1].values, [1, 1])


def test_case_1_a_dead_channel_keeps_its_weights() -> None:
    keep(
        PASS,
        f"{HEAD} <float[2] g = {{4, 0}}, float[2] b = {{0, 0}}, float[2,2] w = {{2, 1, -8, 4}}> {{ {LN} y = MatMul(n, w) }}",
    )


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        (f"{LN} m = MatMul(n, w) y = Add(m, n)", 'also read by Add "'),
        (f"{LN} y = MatMul(n, w) [r] z = Relu(n)", 'also read by Relu "r"'),
        (f"{LN} e = Sigmoid(n) y = MatMul(e, w)", "Sigmoid in front is not positively homogeneous"),
        (f"{LN} e = Transpose<perm = [0, 2, 1]>(n) f = Transpose<perm = [0, 2, 1]>(e) y = MatMul(f, w)", "Transpose in front"),
        (f"{LN} m = MatMul(n, w) y = MatMul(m, w)", "shared with another op"),
        ("h = Abs(g) n = LayerNormalization(x, h, b) y = MatMul(n, w)", "no constants of one number per channel"),
        ("n = Mul(x, g) y = MatMul(n, w)", "only known from samples"),
    ],
)  # fmt: skip
def test_case_3_and_4_near_misses(nodes: str, reason: str) -> None:
    outputs = "(float[1,3,2] x) => (float[1,3,2] y, float[1,3,2] z)" if "z =" in nodes else HEAD
    twice = (reason,) * (2 if "shared" in reason else 1)
    keep(PASS, f"{outputs} <{NORM}> {{ {nodes} }}", *twice)


def test_case_3_an_output_of_the_graph() -> None:
    keep(
        PASS, f"(float[1,3,2] x) => (float[1,3,2] y, float[1,3,2] n) <{NORM}> {{ {LN} y = MatMul(n, w) }}", "an output"
    )


def test_case_3_a_branch_gets_a_mul() -> None:
    rewrite(
        SmoothActivations(branches="mul"),
        f"{HEAD} <{NORM}> {{ {LN} [mm] m = MatMul(n, w) [add] y = Add(m, n) }}",
        f"{HEAD} <float[2] n_factor = {{0.5, 2}}, float[2] g = {{4, 1}}, float[2] b = {{0, 0}}, float[2,2] w = {{4, 2, -4, 2}}>"
        f" {{ {LN} [norm_smooth] n_smoothed = Mul(n, n_factor) [mm] m = MatMul(n_smoothed, w) [add] y = Add(m, n) }}",
        rewrites=1,
        refused=(),
        atol=1e-5,
    )


def test_case_3_what_nothing_can_divide_gets_a_mul_where_scales_are_given() -> None:
    before = f"{HEAD} <float[2,2] w = {{1, 2, 3, 4}}> {{ [act] e = Sigmoid(x) [mm] y = MatMul(e, w) }}"
    after = (
        f"{HEAD} <float[2] e_factor = {{0.5, 2}}, float[2,2] w = {{2, 4, 1.5, 2}}>"
        " { [act] e = Sigmoid(x) [act_smooth] e_smoothed = Mul(e, e_factor) [mm] y = MatMul(e_smoothed, w) }"
    )
    keep(PASS, before, "Sigmoid in front is not positively homogeneous")
    keep(SmoothActivations(branches="mul"), before, "only known from samples")
    some, made = SmoothActivations(branches="mul", scales={"e": np.array([2.0, 0.5])}), text.parse(model(before))
    (site,) = some.sites(made.graph)
    assert (site.source, site.branch) == ("act", True)
    assert some.run(made.graph, default_context()).rewrites == 1
    assert text.text(made.graph) == text.text(text.parse(model(after)).graph)


def test_case_4_weights_that_would_not_be_finite() -> None:
    huge = "float[2] g = {1e30, 1e-30}, float[2] b = {0, 0}, float[2,2] w = {1e38, 1, 1, 1e-30}"
    keep(SmoothActivations(alpha=1), f"{HEAD} <{huge}> {{ {LN} y = MatMul(n, w) }}", "would not be finite")


BEHIND = "(float[1,2] x) => (float[1,2] y)"


@pytest.mark.parametrize(
    ("constants", "nodes", "before", "after"),
    [
        ("", "n = Mul(g, x)", "float[2] g = {4, 1}", "float[2] g = {2, 2}"),
        ("", "m = MatMul(x, g) n = Relu(m)", "float[2,2] g = {4, 1, 8, -2}", "float[2,2] g = {2, 2, 4, -4}"),
        ("", "n = Gemm(x, g, b)", "float[2,2] g = {4, 1, 8, 2}, float[2] b = {2, 1}", "float[2,2] g = {2, 2, 4, 4}, float[2] b = {1, 2}"),
        ("", "m = Mul(x, g) n = Add(b, m)", "float[2] g = {4, 1}, float b = {1}", "float[2] g = {2, 2}, float[2] b = {0.5, 2}"),
        ("float[2] p = {0.1, 0.2}", "m = Mul(x, g) n = PRelu(m, p)", "float[2] g = {4, 1}", "float[2] g = {2, 2}"),
    ],
)  # fmt: skip
def test_case_2_given_scales_go_further(constants: str, nodes: str, before: str, after: str) -> None:
    some = SmoothActivations(scales={"n": np.array([2.0, 0.5])})
    made, wanted = (
        text.parse(model(f"{BEHIND} <{', '.join(filter(None, [constants, c]))}, float[2,2] w = {{{w}}}> {{ {nodes} y = MatMul(n, w) }}"))
        for c, w in ((before, "1, 2, 3, 4"), (after, "2, 4, 1.5, 2"))
    )  # fmt: skip
    assert some.run(made.graph, default_context()).rewrites == 1
    assert text.text(made.graph) == text.text(wanted.graph)


def test_case_2_other_tensors_stay_and_unknown_ones_are_an_error() -> None:
    source = f"{HEAD} <{NORM}> {{ {LN} y = MatMul(n, w) }}"
    keep(SmoothActivations(scales={}), source)
    with pytest.raises(PassError, match="scales for nn, which is no site"):
        SmoothActivations(scales={"nn": np.ones(2)}).run(text.parse(model(source)).graph, default_context())


def test_sites() -> None:
    nodes = f"{LN} [a] p = MatMul(n, w) [b] q = Gemm<transB = 1>(n, v) z = Add(p, q)"
    source = f"(float[3,2] x) => (float[3,2] z) <{NORM}, float[2,2] v = {{1, 3, 5, 7}}> {{ {nodes} }}"
    (site,) = PASS.sites(text.parse(model(source)).graph)
    assert (site.tensor, site.source, site.products, site.branch) == ("n", "norm", ("a", "b"), False)
    assert [w.tolist() for w in site.weights] == [[[2, 1], [-8, 4]], [[1, 5], [3, 7]]]
    read = source.replace("z = Add(p, q)", "r = Add(p, q) z = Add(r, n)")
    assert PASS.sites(text.parse(model(read)).graph) == ()
    (site,) = SmoothActivations(branches="mul").sites(text.parse(model(read)).graph)
    assert site.branch


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(recipes.FLOAT, st.integers(0, 9))
def test_any_scales_keep_what_random_graphs_compute(recipe: random_float.Recipe, seed: int) -> None:
    """Powers of 2 from 1/8 to 8 are exact in each factor: only sums may round in another order."""
    before = text.parse(random_float.build(recipe))
    random = np.random.default_rng(seed)
    found = SmoothActivations(branches="mul").sites(before.graph)
    scales = {s.tensor: 2.0 ** random.integers(-3, 4, s.weights[0].shape[0]) for s in found}
    after = before.copy()
    report = SmoothActivations(branches="mul", scales=scales).run(after.graph, default_context())
    assert report.rewrites == sum(bool((s != 1).any()) for s in scales.values())
    feeds = random_float.inputs()
    half = random_float.halves(recipe)
    for name, value in random_passes.run(before, feeds).items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            got = random_passes.run(after, feeds)[name]
            np.testing.assert_allclose(got, value, rtol=0, atol=(2e-2 if half else 1e-5) * max(1, np.abs(value).max()))


def test_settings() -> None:
    made = load_pipeline([{"smooth-activations": {"alpha": 0.75, "branches": "mul"}}])
    assert made.steps[0].body == SmoothActivations(alpha=0.75, branches="mul")
    assert to_yaml(made).endswith('- smooth-activations:\n      alpha: 0.75\n      branches: "mul"\n')
    with pytest.raises(ConfigError, match="scales"):
        load_pipeline([{"smooth-activations": {"scales": {"n": [1, 2]}}}])
    for bad, said in (
        ({"alpha": 1.5}, "alpha must be 0 to 1, not 1.5"),
        ({"branches": "add"}, "branches must be refuse or mul"),
    ):
        with pytest.raises(ConfigError, match=said):
            SmoothActivations(**bad)  # type: ignore[arg-type]


def test_alpha_may_be_0() -> None:
    """Then the weights alone say: rows {2, 8}."""
    found = text.parse(model(f"{HEAD} <{NORM}> {{ {LN} y = MatMul(n, w) }}"))
    assert SmoothActivations(alpha=0).run(found.graph, default_context()).rewrites == 1
    (product,) = (n for n in found.graph.nodes if n.op == "MatMul")
    rows = np.abs(product.inputs[1].values).max(axis=1)
    np.testing.assert_allclose(rows[0], rows[1])


def test_sites_are_named_by_who_divides_and_lie_outside_of_bodies() -> None:
    behind = f"{HEAD} <float[2] b = {{1, 2}}, float[2,2] w = {{1, 2, 3, 4}}> {{ [mul] m = Mul(x, b) [add] n = Add(m, b) y = MatMul(n, w) }}"
    (site,) = PASS.sites(text.parse(model(behind)).graph)
    assert site.source == "mul"
    inside = f"""(bool c, float[1,3,2] x) => (float[1,3,2] z) <{NORM}> {{ z = If(c) <
        then_branch = t () => (float[1,3,2] y) {{ {LN} y = MatMul(n, w) }}, else_branch = e () => (float[1,3,2] q) {{ q = Abs(x) }}> }}"""
    assert PASS.sites(text.parse(model(inside)).graph) == ()


def test_each_site_counts_and_a_mul_is_named_after_who_makes_its_input() -> None:
    nodes = "[norm] n = LayerNormalization(x, g, b) p = MatMul(n, w) [other] o = LayerNormalization(p, h, b) q = MatMul(o, v) r = Add(p, n) s = Add(q, o) y = Add(r, s)"
    constants = NORM.replace("float[2] b", "float[2] h = {4, 1}, float[2] b").replace(
        "float[2,2] w", "float[2,2] v = {2, 1, -8, 4}, float[2,2] w"
    )
    found = text.parse(model(f"{HEAD} <{constants}> {{ {nodes} }}"))
    report = SmoothActivations(branches="mul").run(found.graph, default_context())
    assert report.rewrites == 2
    assert report.renamed == {"norm_smooth": "norm", "other_smooth": "other"}


@pytest.mark.parametrize(
    "norm",
    [
        "[norm] n = LayerNormalization(x, wide, b)",
        "h = Abs(g) [norm] n = LayerNormalization(x, h, b)",
        "h = Abs(b) [norm] n = LayerNormalization(x, g, h)",
    ],
)
def test_case_1_scale_and_shift_are_constants_of_one_number_per_channel(norm: str) -> None:
    """Even where a computed one says that it has as many."""
    found = text.parse(model(f"{HEAD} <{NORM}, float[1] wide = {{1}}, float[2] h> {{ {norm} y = MatMul(n, w) }}"))
    (refusal,) = PASS.run(found.graph, default_context()).refusals
    assert "LayerNormalization in front are no constants of one number per channel" in refusal.reason
