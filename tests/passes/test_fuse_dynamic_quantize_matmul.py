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
