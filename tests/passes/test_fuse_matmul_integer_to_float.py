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


def test_case_2_and_3_what_is_read_beside_a_q() -> None:
    """An output of the graph is needed in float, whatever else quantizes it."""
    head = HEAD.replace("(float[2,2] y)", "(float[2,2] y, uint8[2,2] r)")
    rewrite(
        PASS,
        START.replace(HEAD, head) + "[mm] y = MatMul(d, wd) r = QuantizeLinear(y, s, z) }",
        Q.replace(HEAD, head)
        + "[mm_MatMulIntegerToFloat] y = com.microsoft.MatMulIntegerToFloat(q, w, s, sw, z, zw) r = QuantizeLinear(y, s, z) }",
        rewrites=1,
        atol=ATOL,
    )


def test_case_2_a_bias_with_leading_ones_is_flattened() -> None:
    more = HEAD.replace("float[2] b", "float[1,2] r = {0.5, -1}, float[2] b")
    after = "[mm_MatMulIntegerToFloat] y = com.microsoft.MatMulIntegerToFloat(q, w, s, sw, z, zw, r_bias) }"
    rewrite(
        PASS,
        START.replace(HEAD, more.replace("[2,3] x", "[2,3] x").replace("float s =", "uint8[2,3] q, float s =")) + "[mm] c = MatMul(d, wd) [a] y = Add(c, r) }",
        Q.replace(HEAD, more.replace("float[2] b", "float[2] r_bias = {0.5, -1}, float[2] b")) + after,
        rewrites=1,
        atol=ATOL,
    )  # fmt: skip


def test_case_2_a_bias_in_the_rank_of_the_data() -> None:
    """[1, 1, 24] adds no dimension to data of rank 3, nor to a weight of rank 3."""
    for data, weight in (((2, 6, 40), (40, 24)), ((6, 40), (3, 40, 24))):
        g = Qdq()
        c = g.op("MatMul", g.data(*data), g.weight(*weight, scale=0.00317))
        g.raw(g.op("Add", c, g.constant(np.linspace(-3, 3, 24).reshape(1, 1, 24))))
        made = g.fuse(PASS)
        assert (made.ops["MatMulIntegerToFloat"], made.ops["Add"]) == (1, 0)
        assert made.gap <= 1e-5


def test_case_2_near_miss_a_sum_of_vectors_has_no_column() -> None:
    """[40] x [40] is one number; what 40 numbers are added to has no columns."""
    g = Qdq()
    c = g.op("MatMul", g.data(40), g.weight(40, scale=0.00317))
    g.raw(g.op("Add", c, g.constant(np.linspace(-3, 3, 40))))
    made = g.fuse(PASS)
    assert made.ops["Add"] == 1
    assert made.gap <= 1e-5


def test_case_2_near_miss_the_sum_has_more_dimensions_than_the_product() -> None:
    """[40] x [40, 24] is [24]: an Add of [1, 24] makes [1, 24] of it."""
    for shape, kept in (((24,), 0), ((1, 24), 1)):
        g = Qdq()
        c = g.op("MatMul", g.data(40), g.weight(40, 24, scale=0.00317))
        g.raw(g.op("Add", c, g.constant(np.linspace(-3, 3, 24).reshape(shape))))
        made = g.fuse(PASS)
        assert (made.ops["MatMulIntegerToFloat"], made.ops["Add"]) == (1, kept)
        assert made.gap <= 1e-5


def test_case_2_near_miss_the_rank_of_the_data_is_not_known() -> None:
    more = HEAD.replace("float[2] b", "float[1,2] r = {0.5, -1}, float[2] b")
    after = "[mm_MatMulIntegerToFloat] c = com.microsoft.MatMulIntegerToFloat(q, w, s, sw, z, zw) y = Add(c, r) }"
    before = START.replace(HEAD, more) + "[mm] c = MatMul(d, wd) y = Add(c, r) }"
    rewrite(PASS, before, Q.replace(HEAD, more) + after, rewrites=1, atol=ATOL)


def test_case_2_near_misses_of_an_int32_bias() -> None:
    """Of 8 bits, or computed: the Add stays."""
    for kind in ("int8", "int32"):
        g = Qdq()
        c = g.op("MatMul", g.data(6, 40), g.weight(40, 24, scale=0.00317))
        given = g.constant(np.arange(24), kind)
        if kind == "int32":
            given = g.op("Neg", given)
        g.raw(g.op("Add", c, g.op("DequantizeLinear", given, g.constant(0.01))))
        assert g.fuse(PASS).ops["Add"] == 1


def test_case_2_near_miss_a_product_by_the_vector() -> None:
    after = "[mm_MatMulIntegerToFloat] c = com.microsoft.MatMulIntegerToFloat(q, w, s, sw, z, zw) y = Mul(c, b) }"
    rewrite(PASS, START + "[mm] c = MatMul(d, wd) y = Mul(c, b) }", Q + after, rewrites=1, atol=ATOL)


def test_case_2_near_miss_the_sum_is_in_a_body() -> None:
    bodies = "If(k) <then_branch = g () => (float[2,2] t) { t = Add(c, b) }, else_branch = h () => (float[2,2] e) { e = Neg(b) }> }"
    start, end = START.replace("(float[2,3] x)", "(bool k, float[2,3] x)"), bodies.replace("Neg(b)", "Add(b, b)")
    end = end.replace("e = Add(b, b)", "e = Concat<axis = 0>(f, f)")
    start, head = (text.replace(CONSTANTS, CONSTANTS + ", float[1,2] f = {1, 2}") for text in (start, HEAD))
    after = head.replace("(float[2,3] x)", "(bool k, float[2,3] x)") + "{ q = QuantizeLinear(x, s, z) "
    after += "[mm_MatMulIntegerToFloat] c = com.microsoft.MatMulIntegerToFloat(q, w, s, sw, z, zw) y = "
    rewrite(PASS, start + "[mm] c = MatMul(d, wd) y = " + end, after + end, rewrites=1, atol=ATOL)


def test_case_4_int8_data_by_name() -> None:
    after = "[mm_MatMulIntegerToFloat] y = com.microsoft.MatMulIntegerToFloat(q, w, s, sw, z, zw) }"
    before, after = (
        (p + a).replace("uint8 z = {120}", "int8 z = {12}")
        for p, a in ((START, "[mm] y = MatMul(d, wd) }"), (Q, after))
    )
    rewrite(FuseMatmulIntegerToFloat(native_int8=True), before, after, rewrites=1, atol=ATOL)


def test_case_2_near_miss_the_columns_are_not_known() -> None:
    source = f"(float[2,3] x, float[3,2] v) => (float[2,2] y) <{CONSTANTS}> {{ q = QuantizeLinear(x, s, z) r = QuantizeLinear(v, s, z) "
    before = "d = DequantizeLinear(q, s, z) e = DequantizeLinear(r, s, z) [mm] c = MatMul(d, e) y = Add(c, b) }"
    after = "[mm_MatMulIntegerToFloat] c = com.microsoft.MatMulIntegerToFloat(q, r, s, s, z, z) y = Add(c, b) }"
    rewrite(PASS, source + before, source + after, rewrites=1, atol=ATOL)
