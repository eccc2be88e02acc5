from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fusing import DATA, Qdq
from rewriting import keep, rewrite

from onnxq.testing import check_pass
from onnxq_passes.fuse_matmul_integer_to_float import FuseMatmulIntegerToFloat

PASS = FuseMatmulIntegerToFloat()
ATOL = 1e-5
CONSTANTS = """float s = {0.02}, uint8 z = {120}, int8[3,2] w = {1, -2, 30, 4, 5, 60}, float[2] sw = {0.01, 0.02}, int8[2] zw = {0, 0},
    float[2] b = {0.5, -1}"""
HEAD = f"(float[2,3] x) => (float[2,2] y) <{CONSTANTS}> "
START = HEAD + "{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) wd = DequantizeLinear<axis = 1>(w, sw, zw) "
Q = HEAD + "{ q = QuantizeLinear(x, s, z) "


def test_contract() -> None:
    check_pass(FuseMatmulIntegerToFloat)


def test_case_1_no_bias() -> None:
    after = "[mm_MatMulIntegerToFloat] y = com.microsoft.MatMulIntegerToFloat(q, w, s, sw, z, zw) }"
    rewrite(PASS, START + "[mm] y = MatMul(d, wd) }", Q + after, rewrites=1, atol=ATOL)


@pytest.mark.parametrize("sum_", ["Add(c, b)", "Add(b, c)"])
def test_case_2_a_float_bias(sum_: str) -> None:
    after = "[mm_MatMulIntegerToFloat] y = com.microsoft.MatMulIntegerToFloat(q, w, s, sw, z, zw, b) }"
    rewrite(PASS, START + f"[mm] c = MatMul(d, wd) [a] y = {sum_} }}", Q + after, rewrites=1, atol=ATOL)


def _model(*shape: int, bias: str = "") -> Qdq:
    g = Qdq()
    scale: Any = np.linspace(0.00213, 0.00437, 24).astype(np.float32)
    c = g.op("MatMul", g.data(*shape), g.weight(40, 24, scale=scale, axis=1))
    if bias:
        steps = g.constant(np.float32(DATA) * scale)
        given = g.op("DequantizeLinear", g.constant(np.arange(24) * 911 - 7000, "int32"), steps, axis=0)
        c = g.op("Add", c, given)
    if bias == "read twice":
        g.raw(g.op("Neg", c))
    g.raw(g.op("Neg", c))
    return g


@pytest.mark.parametrize("bias", ["", "int32", "read twice"])
@pytest.mark.parametrize("shape", [(6, 40), (2, 3, 5, 40)])
def test_equal_up_to_the_rounding_of_float(shape: tuple[int, ...], bias: str) -> None:
    made = _model(*shape, bias=bias).fuse(PASS)
    assert made.ops == {"QuantizeLinear": 1, "MatMulIntegerToFloat": 1, "Neg": 2 if bias == "read twice" else 1}
    assert made.gap <= 1e-5
    assert made.spread() > 15


@pytest.mark.parametrize(("shape", "kept"), [((1, 24), 0), ((1, 1, 24), 1), ((6, 24), 1), ((1,), 1)])
def test_case_2_the_shape_of_the_bias(shape: tuple[int, ...], kept: int) -> None:
    """Leading ones go; what adds dimensions, or differs by row, stays an Add."""
    g = Qdq()
    c = g.op("MatMul", g.data(6, 40), g.weight(40, 24, scale=0.00317))
    g.raw(g.op("Add", c, g.constant(np.linspace(-3, 3, int(np.prod(shape))).reshape(shape))))
    made = g.fuse(PASS)
    assert (made.ops["MatMulIntegerToFloat"], made.ops["Add"]) == (1, kept)
    assert made.gap <= 1e-5


def test_two_activations() -> None:
    g = Qdq()
    g.raw(g.op("MatMul", g.data(2, 3, 5, 40), g.data(2, 3, 40, 6)))
    made = g.fuse(PASS)
    assert made.ops == {"QuantizeLinear": 2, "MatMulIntegerToFloat": 1}
    assert made.gap <= 2e-5


def test_near_miss_the_sum_is_no_bias() -> None:
    """One number per row, or a product that something else reads, too: the product is fused, the Add stays."""
    for bias, extra in (("[[1], [2]]", ""), ("b", "n = Neg(c)")):
        constant = "float[2,1] r = {1, 2}, " if bias != "b" else ""
        head = HEAD.replace("float s =", constant + "float s =")
        name = "r" if constant else "b"
        rewrite(
            PASS,
            START.replace(HEAD, head) + f"[mm] c = MatMul(d, wd) {extra} y = Add(c, {name}) }}",
            Q.replace(HEAD, head)
            + f"[mm_MatMulIntegerToFloat] c = com.microsoft.MatMulIntegerToFloat(q, w, s, sw, z, zw) {extra} y = Add(c, {name}) }}",
            rewrites=1,
            atol=ATOL,
        )


def test_case_3_a_quantized_result_is_left_to_qlinearmatmul() -> None:
    keep(
        PASS,
        START + "[mm] c = MatMul(d, wd) r = QuantizeLinear(c, s, z) y = DequantizeLinear(r, s, z) }",
        "QLinearMatMul is its form",
    )


def test_near_misses() -> None:
    tail = "[mm] y = MatMul(d, wd) }"
    keep(
        PASS,
        START.replace("axis = 1", "axis = 0")
        .replace("[3,2] w", "[2,2] w")
        .replace(", 5, 60", "")
        .replace("[2,3] x", "[2,2] x")
        + tail,
        "wants axis 1",
    )
    keep(PASS, START.replace("uint8 z", "int8 z") + tail, "int8 data")
    keep(PASS, START.replace("uint8 z", "uint16 z") + tail, "is uint16")
    keep(PASS, START + "n = Neg(wd) y = MatMul(d, n) }", "n is float")
    keep(
        PASS,
        START.replace("wd = Deq", "ss = Abs(s) wd = Deq")
        .replace("d = DequantizeLinear(q, s,", "d = DequantizeLinear(q, t,")
        .replace("q = Q", "t = Abs(s) q = Q")
        + tail,
        "is no constant",
    )
