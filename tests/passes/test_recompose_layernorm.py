from __future__ import annotations

import pytest
from rewriting import keep, model, rewrite

from onnxq.ir import text
from onnxq.pipeline.base import Context
from onnxq.testing import check_pass, default_context
from onnxq_passes.recompose_layernorm import RecomposeLayernorm

PASS = RecomposeLayernorm()
ATOL = 2e-6  # rounding of float32 at magnitude 4
HEAD = "(float[2,3,4] x) => (float[2,3,4] y)"
CONSTANTS = (
    "int64[1] last = {-1}, float e = {1e-5}, float two = {2}, float p = {0.5}, float one = {1}, "
    "float[4] g = {1, 2, 3, 4}, float[4] b = {4, 3, 2, 1}"
)
MEAN = "m = ReduceMean(x, last) d = Sub(x, m) "
VARIANCE = "q = Pow(d, two) v = ReduceMean(q, last) a = Add(v, e) "
SHORT = MEAN + VARIANCE + "s = Sqrt(a) "
AFTER = (
    HEAD
    + " <float[4] g = {1, 2, 3, 4}, float[4] b = {4, 3, 2, 1}> { [z_LayerNormalization] y = LayerNormalization<axis = -1, epsilon = 1e-5>(x, g, b) }"
)


def test_contract() -> None:
    check_pass(RecomposeLayernorm)


@pytest.mark.parametrize(
    "ops",
    [
        SHORT + "n = Div(d, s) k = Mul(n, g) [z] y = Add(k, b)",
        SHORT + "n = Div(d, s) k = Mul(g, n) [z] y = Add(b, k)",
        MEAN
        + "q = Mul(d, d) v = ReduceMean(q, last) a = Add(e, v) s = Sqrt(a) n = Div(d, s) k = Mul(n, g) [z] y = Add(k, b)",
        MEAN + VARIANCE + "s = Pow(a, p) n = Div(d, s) k = Mul(n, g) [z] y = Add(k, b)",
        SHORT + "r = Reciprocal(s) n = Mul(d, r) k = Mul(n, g) [z] y = Add(k, b)",
        SHORT + "r = Reciprocal(s) n = Mul(r, d) k = Mul(n, g) [z] y = Add(k, b)",
        MEAN + VARIANCE + "s = Sqrt(a) t = Sub(x, m) n = Div(t, s) k = Mul(n, g) [z] y = Add(k, b)",
    ],
)
def test_cases_1_and_2_every_form(ops: str) -> None:
    report = rewrite(PASS, f"{HEAD} <{CONSTANTS}> {{ {ops} }}", AFTER, rewrites=1, atol=ATOL)
    assert report.renamed == {"z_LayerNormalization": "z"}


def test_case_1_axes_as_attribute() -> None:
    ops = SHORT.replace("ReduceMean(x, last)", "ReduceMean<axes = [2]>(x)").replace(
        "ReduceMean(q, last)", "ReduceMean<axes = [-1]>(q)"
    )
    rewrite(
        PASS,
        f"{HEAD} <{CONSTANTS}> {{ {ops} n = Div(d, s) k = Mul(n, g) [z] y = Add(k, b) }}",
        AFTER,
        rewrites=1,
        atol=ATOL,
        opset=17,
    )


def test_case_1_two_axes() -> None:
    rewrite(
        PASS,
        f"{HEAD} <{CONSTANTS.replace('int64[1] last = {-1}', 'int64[2] last = {1, 2}')}> {{ {SHORT} [z] y = Div(d, s) }}",
        HEAD
        + " <float[3,4] z_scale = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}> { [z_LayerNormalization] y = LayerNormalization<axis = -2, epsilon = 1e-5>(x, z_scale) }",
        rewrites=1,
        atol=ATOL,
    )


def test_case_2_only_a_scale() -> None:
    rewrite(
        PASS,
        f"{HEAD} <{CONSTANTS}> {{ {SHORT} n = Div(d, s) [z] k = Mul(n, g) y = Mul(k, two) }}",
        HEAD
        + " <float[4] g = {1, 2, 3, 4}, float two = {2}> { [z_LayerNormalization] k = LayerNormalization<axis = -1, epsilon = 1e-5>(x, g) y = Mul(k, two) }",
        rewrites=1,
        atol=2 * ATOL,
    )


def test_case_2_only_a_bias() -> None:
    rewrite(
        PASS,
        f"{HEAD} <{CONSTANTS}> {{ {SHORT} n = Div(d, s) [z] y = Add(n, b) }}",
        HEAD
        + " <float[4] z_scale = {1, 1, 1, 1}, float[4] b = {4, 3, 2, 1}> { [z_LayerNormalization] y = LayerNormalization<axis = -1, epsilon = 1e-5>(x, z_scale, b) }",
        rewrites=1,
        atol=ATOL,
    )


def test_case_2_constants_with_leading_ones_are_flattened() -> None:
    source = f"{HEAD} <{CONSTANTS.replace('float[4] g', 'float[1,1,4] g')}> {{ {SHORT} n = Div(d, s) k = Mul(n, g) [z] y = Add(k, b) }}"
    rewrite(PASS, source, AFTER.replace(" g = ", " g_flat = ").replace("x, g,", "x, g_flat,"), rewrites=1, atol=ATOL)


def test_case_2_near_miss_a_scalar_scale_stays_behind() -> None:
    rewrite(
        PASS,
        f"{HEAD} <{CONSTANTS}> {{ {SHORT} [z] n = Div(d, s) y = Mul(n, two) }}",
        HEAD
        + " <float[4] z_scale = {1, 1, 1, 1}, float two = {2}> { [z_LayerNormalization] n = LayerNormalization<axis = -1, epsilon = 1e-5>(x, z_scale) y = Mul(n, two) }",
        rewrites=1,
        atol=2 * ATOL,
    )


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("int64[1] last = {-1}", "int64[1] last = {1}", "not normalize over the last axes"),
        ("int64[1] last = {-1}", "int64[2] last = {0, 2}", "not normalize over the last axes"),
        ("m = ReduceMean(x, last)", "f = Identity(last) m = ReduceMean(x, f)", "not normalize over the last axes"),
        ("d = Sub(x, m)", "d = Sub(m, x)", "mean is not subtracted before squaring"),
        ("d = Sub(x, m)", "d = Identity(x) w = Sub(x, m)", "mean is not subtracted before squaring"),
        ("n = Div(d, s)", "n = Div(x, s)", "x - mean is not divided by the root"),
        ("n = Div(d, s)", "n = Div(s, d)", "x - mean is not divided by the root"),
        ("n = Div(d, s)", "o = Div(d, s) n = Add(o, d)", "result of its Sub is also read elsewhere"),
        ("n = Div(d, s)", "o = Div(d, s) n = Add(o, m)", "result of its ReduceMean is also read elsewhere"),
    ],
)
def test_case_3_near_misses(old: str, new: str, reason: str) -> None:
    source = f"{HEAD} <{CONSTANTS}> {{ {SHORT} n = Div(d, s) k = Mul(n, g) y = Add(k, b) }}"
    assert old in source
    keep(PASS, source.replace(old, new), reason)


def test_case_3_unknown_size() -> None:
    source = f"(float[2,3,n] x) => (float[2,3,n] y) <{CONSTANTS}> {{ {SHORT} y = Div(d, s) }}"
    keep(PASS, source, "size of the normalized dimensions is not known")


def test_case_3_near_miss_a_size_seen_while_calibrating() -> None:
    context = Context(target=default_context().target, observed_shapes={"x": (2, 3, 4)})
    graph = text.parse(model(f"(float[2,3,n] x) => (float[2,3,n] y) <{CONSTANTS}> {{ {SHORT} y = Div(d, s) }}")).graph
    assert PASS.run(graph, context).rewrites == 1


def test_case_3_opset_and_type() -> None:
    source = f"{HEAD} <{CONSTANTS}> {{ {SHORT} y = Div(d, s) }}"
    old = source.replace("ReduceMean(x, last)", "ReduceMean<axes = [2]>(x)").replace(
        "ReduceMean(q, last)", "ReduceMean<axes = [2]>(q)"
    )
    keep(PASS, old, "LayerNormalization needs opset 17", opset=16)
    keep(PASS, source.replace("float", "double"), "only float tensors")


@pytest.mark.parametrize(
    "ops",
    [
        "m = ReduceMean(x, last) y = Sub(x, m)",
        "q = Mul(x, x) v = ReduceMean(q, last) y = Div(x, v)",
        SHORT + "n = Div(d, s) y = Add(n, v)",
    ],
)
def test_other_means_are_no_sites(ops: str) -> None:
    keep(PASS, f"{HEAD} <{CONSTANTS}> {{ {ops} }}")


def test_case_1_a_vector_is_normalized_along_axis_0() -> None:
    source = f"(float[4] x) => (float[4] y) <{CONSTANTS.replace('{-1}', '{0}')}> {{ {SHORT} n = Div(d, s) k = Mul(n, g) [z] y = Add(k, b) }}"
    rewrite(PASS, source, AFTER.replace("[2,3,4]", "[4]"), rewrites=1, atol=ATOL)


def test_case_2_constants_with_one_leading_one_are_flattened() -> None:
    source = f"{HEAD} <{CONSTANTS.replace('float[4] g', 'float[1,4] g')}> {{ {SHORT} n = Div(d, s) k = Mul(n, g) [z] y = Add(k, b) }}"
    rewrite(PASS, source, AFTER.replace(" g = ", " g_flat = ").replace("x, g,", "x, g_flat,"), rewrites=1, atol=ATOL)


@pytest.mark.parametrize(
    "shape", ["float[1] k = {2}", "float[3,1] k = {1, 2, 3}", "float[2,1,4] k = {1, 2, 3, 4, 5, 6, 7, 8}"]
)
def test_case_2_near_misses_constants_of_other_shapes_stay_behind(shape: str) -> None:
    rewrite(
        PASS,
        f"{HEAD} <{CONSTANTS}, {shape}> {{ {SHORT} [z] n = Div(d, s) y = Mul(n, k) }}",
        f"{HEAD} <float[4] z_scale = {{1, 1, 1, 1}}, {shape}> {{ [z_LayerNormalization] n = LayerNormalization<axis = -1, epsilon = 1e-5>(x, z_scale) y = Mul(n, k) }}",
        rewrites=1,
        atol=8 * ATOL,
    )


def test_case_3_a_single_element_is_a_size_and_none_is_not() -> None:
    source = f"(float[2,{{0}}] x) => (float[2,{{0}}] y) <{CONSTANTS.replace('{', '{{').replace('}', '}}')}> {{{{ {SHORT} [z] y = Div(d, s) }}}}"
    rewrite(
        PASS,
        source.format(1),
        "(float[2,1] x) => (float[2,1] y) <float[1] z_scale = {1}> { [z_LayerNormalization] y = LayerNormalization<axis = -1, epsilon = 1e-5>(x, z_scale) }",
        rewrites=1,
        atol=ATOL,
    )
    graph = text.parse(model(source.format(0))).graph
    report = PASS.run(graph, default_context())
    assert [r.reason for r in report.refusals] == ["the size of the normalized dimensions is not known"]


def test_case_3_a_shape_that_is_not_known() -> None:
    source = f"{HEAD} <{CONSTANTS}> {{ w = Relu(x) {SHORT.replace('(x,', '(w,')} y = Div(d, s) }}"
    keep(PASS, source, "size of the normalized dimensions is not known")


def test_case_3_means_that_are_not_kept() -> None:
    """[4, 4] less a mean of shape [4] is another thing, with the same shapes."""
    ops = SHORT.replace("ReduceMean(", "ReduceMean<keepdims = 0>(") + "y = Div(d, s)"
    keep(PASS, f"(float[4,4] x) => (float[4,4] y) <{CONSTANTS}> {{ {ops} }}", "over the last axes, keeping them")
    kept = SHORT.replace("ReduceMean(", "ReduceMean<keepdims = 1>(") + "n = Div(d, s) k = Mul(n, g) [z] y = Add(k, b)"
    rewrite(PASS, f"{HEAD} <{CONSTANTS}> {{ {kept} }}", AFTER, rewrites=1, atol=ATOL)


def test_case_3_a_twin_with_another_mean() -> None:
    ops = "o = ReduceMean(x, first) t = Sub(x, o) n = Div(t, s) k = Mul(n, g) y = Add(k, b)"
    source = f"{HEAD} <{CONSTANTS}, int64[1] first = {{0}}> {{ {SHORT} {ops} }}"
    keep(PASS, source, "x - mean is not divided by the root")


@pytest.mark.parametrize(
    "ops",
    [
        SHORT.replace("v = ReduceMean", "v = ReduceSum") + "y = Div(d, s)",
        MEAN + "q = Mul(d, x) v = ReduceMean(q, last) a = Add(v, e) s = Sqrt(a) y = Div(d, s)",
        MEAN + "q = Pow(d, two) v = ReduceMean(q, last) a = Add(v, x) s = Sqrt(a) y = Div(d, s)",
        MEAN + VARIANCE + "y = Div(d, a)",
        MEAN + VARIANCE + "s = Pow(a, one) y = Div(d, s)",
    ],
)
def test_other_roots_and_squares_are_no_sites(ops: str) -> None:
    keep(PASS, f"{HEAD} <{CONSTANTS}> {{ {ops} }}")


KERAS = SHORT.replace("Pow(d, two)", "Mul(d, d)") + "r = Reciprocal(s) "
FOLDED = KERAS + "f = Mul(r, g) u = Mul(x, f) w = Mul(m, f) h = Sub(b, w) [z] y = Add(u, h)"


@pytest.mark.parametrize(
    "ops",
    [
        FOLDED,
        FOLDED.replace("Mul(r, g)", "Mul(g, r)").replace("Mul(x, f)", "Mul(f, x)").replace("Add(u, h)", "Add(h, u)"),
        FOLDED.replace("Mul(m, f)", "Mul(f, m)"),
    ],
)
def test_case_4_what_tensorflow_writes(ops: str) -> None:
    """x * m + (bias - mean * m)."""
    rewrite(PASS, f"{HEAD} <{CONSTANTS}> {{ {ops} }}", AFTER, rewrites=1, atol=2e-5)


def test_case_4_a_bias_with_more_dimensions() -> None:
    bias = "float[4] b = {4, 3, 2, 1}"
    assert bias in CONSTANTS and bias in AFTER
    after = AFTER.replace(bias, bias.replace(" b ", " b_flat ")).replace("(x, g, b)", "(x, g, b_flat)")
    before = CONSTANTS.replace(bias, bias.replace("float[4]", "float[1,4]"))
    rewrite(PASS, f"{HEAD} <{before}> {{ {FOLDED} }}", after, rewrites=1, atol=2e-5)


def test_case_4_without_a_scale() -> None:
    ops = KERAS + "u = Mul(x, r) w = Mul(m, r) h = Sub(b, w) [z] y = Add(u, h)"
    after = AFTER.replace("float[4] g = {1, 2, 3, 4}", "float[4] z_scale = {1, 1, 1, 1}").replace(
        "(x, g, b)", "(x, z_scale, b)"
    )
    rewrite(PASS, f"{HEAD} <{CONSTANTS}> {{ {ops} }}", after, rewrites=1, atol=2e-5)


@pytest.mark.parametrize(
    ("ops", "reason"),
    [
        (FOLDED.replace("Sub(b, w)", "Sub(w, b)"), "not divided by the root"),
        (FOLDED.replace("Mul(m, f)", "Mul(d, f)"), "not divided by the root"),
        (FOLDED.replace("Mul(x, f)", "Mul(d, f)"), "not divided by the root"),
        (FOLDED.replace("Mul(m, f)", "Add(m, f)"), "not divided by the root"),
        (FOLDED.replace("Mul(r, g)", "Mul(r, d)"), "ReduceMean is also read elsewhere"),
        (FOLDED.replace("Add(u, h)", "Add(x, h)"), "not divided by the root"),
        (FOLDED.replace("Sub(b, w)", "Sub(one, w)"), "not constants of the size"),
        (FOLDED.replace("Mul(r, g)", "Mul(r, two)"), "not constants of the size"),
        (FOLDED + " [o] z = Neg(h)", "not divided by the root"),
        (FOLDED + " [o] z = Neg(u)", "also read elsewhere"),
    ],
)
def test_case_4_near_misses(ops: str, reason: str) -> None:
    head = HEAD.replace("y)", "y, float[2,3,4] z)") if "[o]" in ops else HEAD
    keep(PASS, f"{head} <{CONSTANTS}> {{ {ops} }}", reason)
