from __future__ import annotations

import numpy as np
import pytest
from fusing import Qdq
from rewriting import keep, rewrite

from onnxq.testing import check_pass
from onnxq_passes.fuse_dynamic_quantize_matmul import FuseDynamicQuantizeMatmul

PASS = FuseDynamicQuantizeMatmul()
HEAD = """(float[2,3] x) => (float[2,2] y) <int8[3,2] w = {1, -2, 30, 4, 5, 60}, float[2] sw = {0.01, 0.02}, int8[2] zw = {0, 1}, float[2] b = {3, -4}> { """
START = (
    HEAD + "q, s, z = DynamicQuantizeLinear(x) [mm] i = MatMulInteger(q, w, z, zw) f = Cast<to = 1>(i) m = Mul(s, sw) "
)
FUSED = HEAD + "[mm_DynamicQuantizeMatMul] y = com.microsoft.DynamicQuantizeMatMul(x, w, sw, zw"
ATOL = 1e-5


def test_contract() -> None:
    check_pass(FuseDynamicQuantizeMatmul)


def test_case_1_without_a_bias() -> None:
    rewrite(PASS, START + "y = Mul(f, m) }", FUSED + ") }", rewrites=1, atol=ATOL)
    swapped = (START + "y = Mul(m, f) }").replace("Mul(s, sw)", "Mul(sw, s)")
    rewrite(PASS, swapped, FUSED + ") }", rewrites=1, atol=ATOL)


@pytest.mark.parametrize("order", ["p, b", "b, p"])
def test_case_3_with_a_bias(order: str) -> None:
    rewrite(PASS, START + f"p = Mul(f, m) y = Add({order}) }}", FUSED + ", b) }", rewrites=1, atol=ATOL)


def test_a_bias_without_a_zero_point() -> None:
    rewrite(
        PASS,
        (START + "p = Mul(f, m) y = Add(p, b) }").replace(", zw)", ")"),
        HEAD + "[mm_DynamicQuantizeMatMul] y = com.microsoft.DynamicQuantizeMatMul(x, w, sw,, b) }",
        rewrites=1,
        atol=ATOL,
    )


def test_a_data_tensor_with_several_products() -> None:
    g = Qdq()
    x = g.data(2, 5, 40)
    q, s, z = g.op("DynamicQuantizeLinear", x, outs=3)
    for n in (8, 16):
        w = g.constant(np.random.default_rng(n).integers(-127, 128, (40, n)), "int8")
        i = g.op("MatMulInteger", q, w, z, g.constant(0, "int8"))
        g.raw(g.op("Mul", g.op("Cast", i, to=1), g.op("Mul", s, g.constant(0.01))))
    made = g.fuse(PASS)
    assert made.ops == {"QuantizeLinear": 1, "DequantizeLinear": 1, "DynamicQuantizeMatMul": 2}
    assert made.gap <= 1e-5
    assert made.spread() > 30


def test_near_miss_an_add_that_is_no_bias() -> None:
    rewrite(
        PASS,
        START + "p = Mul(f, m) y = Add(p, p) }",
        FUSED.replace("y =", "p =") + ") y = Add(p, p) }",
        rewrites=1,
        atol=ATOL,
    )


NEAR = {
    "cast read twice": ("y = Mul(f, m)", "n = Neg(f) y = Mul(f, m)", "not multiplied with the scales alone"),
    "product read twice": ("f = Cast", "n = Cast<to = 1>(i) f = Cast", "not cast to float alone"),
    "another zero point": ("w, z, zw)", "w, k, zw)", "zero point is not that of its data"),
    "another scale": ("m = Mul(s, sw)", "m = Mul(t, sw)", "not multiplied with the scale of its data"),
    "computed scale": ("m = Mul(s, sw)", "n = Neg(sw) m = Mul(s, n)", "scale of its weight is no constant"),
    "shapes differ": ("int8[2] zw = {0, 1}", "int8 zw = {0}", "different shapes"),
    "computed zero point": (
        "[mm] i = MatMulInteger(q, w, z, zw)",
        "n = Identity(zw) [mm] i = MatMulInteger(q, w, z, n)",
        "zero point of its weight is no constant",
    ),
    "a scale per row": ("float[2] sw = {0.01, 0.02}", "float[2,1] sw = {0.01, 0.02}", "not one per column"),
}


@pytest.mark.parametrize("case", NEAR)
def test_near_misses(case: str) -> None:
    old, new, reason = NEAR[case]
    graph = (START + "y = Mul(f, m) }").replace(
        "float[2] b = {3, -4}", "float[2] b = {3, -4}, float t = {0.5}, uint8 k = {7}"
    )
    assert old in graph
    keep(PASS, graph.replace(old, new), reason)


def test_near_miss_static_data() -> None:
    source = """(float[2,3] x) => (int32[2,2] y) <int8[3,2] w = {1, -2, 30, 4, 5, 60}, float s = {0.1}, uint8 z = {7}> {
        q = QuantizeLinear(x, s, z) y = MatMulInteger(q, w, z) }"""
    keep(PASS, source)


def test_case_1_without_a_zero_point() -> None:
    before = (START + "y = Mul(f, m) }").replace(", zw)", ")")
    rewrite(PASS, before, FUSED.replace(", zw", "") + ") }", rewrites=1, atol=ATOL)


def test_case_2_one_scale_of_rank_1() -> None:
    head = HEAD.replace("float[2] sw = {0.01, 0.02}, int8[2] zw = {0, 1}", "float[1] sw = {0.01}, int8[1] zw = {1}")
    before, after = ((t + end).replace(HEAD, head) for t, end in ((START, "y = Mul(f, m) }"), (FUSED, ") }")))
    rewrite(PASS, before, after, rewrites=1, atol=ATOL)


@pytest.mark.parametrize(
    ("more", "made", "bias"),
    [
        (", float[1] k = {3}", "", "k"),
        (", float[2,1] k = {3, 4}", "", "k"),
        (", float[1,2] k = {3, 4}", "", "k"),
        (", float[2] n", "[n] n = Neg(b) ", "n"),
    ],
)
def test_case_3_near_misses_keep_the_add(more: str, made: str, bias: str) -> None:
    head = HEAD.replace("float[2] b", f"{more.removeprefix(', ')}, float[2] b")
    before = (START + f"p = Mul(f, m) {made}y = Add(p, {bias}) }}").replace(HEAD, head)
    after = FUSED.replace(HEAD, head).replace("y =", "p =") + f") {made}y = Add(p, {bias}) }}"
    rewrite(PASS, before, after, rewrites=1, atol=ATOL)


@pytest.mark.parametrize(("shape", "kept"), [((3, 40, 8), 0), ((40,), 1)])
def test_case_3_the_bias_of_several_matrices_and_of_a_vector(shape: tuple[int, ...], kept: int) -> None:
    """A vector has no columns: what the 40 numbers are added to is one number."""
    g = Qdq()
    q, s, z = g.op("DynamicQuantizeLinear", g.data(5, 40) if len(shape) > 1 else g.data(40), outs=3)
    w = g.constant(np.random.default_rng(5).integers(-127, 128, shape), "int8")
    i = g.op("MatMulInteger", q, w, z, g.constant(0, "int8"))
    p = g.op("Mul", g.op("Cast", i, to=1), g.op("Mul", s, g.constant(0.01)))
    g.raw(g.op("Add", p, g.constant(np.linspace(-3, 3, shape[-1]))))
    made = g.fuse(PASS)
    assert (made.ops["DynamicQuantizeMatMul"], made.ops["Add"]) == (1, kept)
    assert made.gap <= 1e-4


def test_case_2_near_miss_a_scale_per_column_of_several_matrices() -> None:
    graph = (START + "y = Mul(f, m) }").replace(", zw)", ")").replace("int8[3,2] w", "int8[1,3,2] w")
    keep(PASS, graph.replace("(float[2,2] y)", "(float[1,2,2] y)"), "not one per column of a matrix")


def test_case_2_near_miss_a_scale_per_element() -> None:
    source = """(float[1,2,2] x) => (float[1,2,2] y) <int8[1,2,2] w = {1, -2, 30, 4}, float[2,2] sw = {0.01, 0.02, 0.03, 0.04}> { q, s, z = DynamicQuantizeLinear(x)
        i = MatMulInteger(q, w, z) f = Cast<to = 1>(i) m = Mul(s, sw) y = Mul(f, m) }"""
    keep(PASS, source, "not one per column of a matrix")


def test_a_quantizer_whose_scale_is_an_output_stays() -> None:
    before = (START + "y = Mul(f, m) }").replace("y)", "y, float s)", 1)
    after = FUSED.replace("y)", "y, float s)", 1).replace("{ [mm_", "{ q, s, z = DynamicQuantizeLinear(x) [mm_") + ") }"
    rewrite(PASS, before, after, rewrites=1, atol=ATOL)
