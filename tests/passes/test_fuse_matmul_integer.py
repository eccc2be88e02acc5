from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from fusing import DATA, Qdq
from rewriting import keep, model, rewrite

from onnxq.ir import load, text
from onnxq.runtime.session import Level, Session
from onnxq.testing import check_pass, default_context
from onnxq_passes.fuse_matmul_integer import FuseMatmulInteger

PASS = FuseMatmulInteger()
HEAD = """(float[2,3] x) => (float[2,2] y) <float s = {0.5}, uint8 z = {120}, int8[3,2] w = {1, -2, 30, 4, 5, 60},
    float[2] sw = {0.25, 0.5}, int8[2] zw = {3, -4}, int32[2] bi = {7, -9}, float[2] sb = {0.125, 0.25}, float[2] b = {0.5, -1}"""
MADE = ", float[2] mm_scale = {0.125, 0.25}"
Q = "> { q = QuantizeLinear(x, s, z) "
BEFORE = HEAD + Q + "d = DequantizeLinear(q, s, z) wd = DequantizeLinear<axis = 1>(w, sw, zw) "
SUM = "[mm_MatMulInteger] {}_sum = MatMulInteger(q, w, z, zw) "
END = "[mm_Cast] {0}_cast = Cast<to = 1>({0}_sum) [mm_Mul] {0} = Mul({0}_cast, mm_scale) "


def test_contract() -> None:
    check_pass(FuseMatmulInteger)


def test_case_1() -> None:
    """Scales are powers of two here, so that the float sums are exact, too: no bit differs."""
    after = HEAD + MADE + Q + SUM.format("y") + END.format("y") + "}"
    rewrite(PASS, BEFORE + "[mm] y = MatMul(d, wd) }", after, rewrites=1, atol=0)


@pytest.mark.parametrize("sum_", ["Add(c, {})", "Add({}, c)"])
def test_case_2_an_int32_bias(sum_: str) -> None:
    before = BEFORE + "bd = DequantizeLinear<axis = 0>(bi, sb) [mm] c = MatMul(d, wd) y = " + sum_.format("bd") + " }"
    after = HEAD + MADE + ", int32[2] mm_bias = {7, -9}" + Q + SUM.format("y") + "[mm_Add] y_add = Add(y_sum, mm_bias) "
    rewrite(PASS, before, after + END.format("y").replace("(y_sum)", "(y_add)") + "}", rewrites=1, atol=0)


NO_BIAS = {
    "float": ("", "y = Add(c, b)"),
    "another scale": ("bd = DequantizeLinear<axis = 0>(bi, sw)", "y = Add(c, bd)"),
    "a zero point": ("bd = DequantizeLinear<axis = 0>(bi, sb, bi)", "y = Add(c, bd)"),
    "one per row": ("bd = DequantizeLinear<axis = 0>(bc, s)", "y = Add(c, bd)"),
    "read twice": ("bd = DequantizeLinear<axis = 0>(bi, sb)", "t = Add(c, bd) y = Add(t, c)"),
    "computed": ("", "n = Neg(b) y = Add(c, n)"),
}


@pytest.mark.parametrize("case", NO_BIAS)
def test_case_2_near_misses_keep_the_add(case: str) -> None:
    made, tail = NO_BIAS[case]
    more = ", int32[2,1] bc = {7, -9}"
    before = (BEFORE + f"{made} [mm] c = MatMul(d, wd) {tail} }}").replace("> {", more + "> {", 1)
    after = HEAD + more + MADE + Q + f"{made} " + SUM.format("c") + END.format("c") + f"{tail} }}"
    rewrite(PASS, before, after, rewrites=1, atol=0)


COLUMNS: Any = np.linspace(0.00213, 0.00437, 24).astype(np.float32)
INT32 = np.arange(24) * 911 - 7000


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("data", ["uint8", "int8"])
@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize(
    ("left", "right", "columns"),
    [
        ((6, 40), (40, 24), True),
        ((2, 3, 5, 40), (40, 24), True),
        ((2, 3, 5, 40), (3, 40, 24), False),
        ((40,), (40, 24), True),
        ((5, 40), (40,), False),
    ],
)
def test_the_bound(
    data: str, kind: str, left: tuple[int, ...], right: tuple[int, ...], columns: bool, bias: bool
) -> None:
    """Against float64: the sums are exact, and what is rounded is what the docstring says, on all pairs of types."""
    g = Qdq()
    low, count = np.iinfo(kind).min, 24 if columns else 1
    w = np.random.default_rng(3).integers(low, low + 256, right)
    scale = COLUMNS if columns else np.float32(0.00317)
    zeros = np.arange(count).reshape(np.shape(scale)) + low + 100
    start = 120 if data == "uint8" else -7
    product = g.op(
        "MatMul", g.data(*left, zero=start, kind=data), g.dq(g.constant(w, kind), scale, zeros, kind, axis=1)
    )
    fits = bias and right[-1] == 24
    if fits:
        steps = g.constant(np.float32(DATA) * scale)
        given = g.op("DequantizeLinear", g.constant(INT32, "int32"), steps, axis=0)
        product = g.op("Add", product, given)
    g.raw(product)
    made = g.fuse(FuseMatmulInteger(native_int8=True))
    assert made.ops == {"QuantizeLinear": 1, "MatMulInteger": 1, "Cast": 1, "Mul": 1} | ({"Add": 1} if fits else {})
    assert made.spread() > 4

    limits = np.iinfo(data)
    q = np.clip(np.rint(g.feeds["x0"] / np.float32(DATA)) + start, limits.min, limits.max).astype(np.int64) - start
    sums = np.matmul(q, w - zeros) + (INT32 if fits else 0)
    exact = sums * (np.float64(np.float32(DATA)) * scale.astype(np.float64))
    (got,) = Session(made.file, level=Level.OFF, threads=1).run(g.feeds).values()
    assert (np.abs(got - exact) <= 2.0**-24 * 3 * np.abs(exact) * (1 + 1e-6)).all()


def test_two_activations() -> None:
    g = Qdq()
    g.raw(g.op("MatMul", g.data(2, 3, 5, 40), g.data(2, 3, 40, 6)))
    made = g.fuse(PASS)
    assert made.ops == {"QuantizeLinear": 2, "MatMulInteger": 1, "Cast": 1, "Mul": 1}
    assert made.gap <= 2e-5


@pytest.mark.parametrize(("terms", "fused"), [(33025, 1), (33026, 0)])
@pytest.mark.parametrize("constant", [True, False])
def test_case_4_sums_that_leave_int32(terms: int, fused: int, constant: bool) -> None:
    """255 * 255 * 33,025 is the last one below 2**31."""
    g = Qdq()
    data = g.data(1, terms, zero=255, fill=-100.0)
    if constant:
        weight = g.dq(g.constant(np.full((terms, 1), 127), "int8"), 0.01, -128, "int8")
    else:
        weight = g.data(terms, 1, zero=0, scale=0.01, fill=100.0)
    g.raw(g.op("MatMul", data, weight))
    made = g.fuse(PASS)
    assert made.ops["MatMulInteger"] == fused
    if fused:
        (got,) = Session(made.file, level=Level.OFF, threads=1).run(g.feeds).values()
        exact = -255 * 255 * terms * np.float64(np.float32(DATA)) * np.float64(np.float32(0.01))
        assert got.item() == pytest.approx(exact, rel=3 * 2.0**-24)
    else:
        assert made.reasons == ["its sums may leave int32"]


def test_case_4_a_bias_that_leaves_int32() -> None:
    for last, reasons in ((0, []), (1, ["its sums may leave int32"])):
        g = Qdq()
        product = g.op("MatMul", g.data(3, 1), g.dq(g.constant([[1]], "int8"), 0.01, 0, "int8"))
        steps = g.constant(np.float32(DATA) * np.float32(0.01))
        bias = g.constant([2**31 - 136 + last], "int32")
        g.raw(g.op("Add", product, g.op("DequantizeLinear", bias, steps)))
        made = g.fuse(PASS)
        assert (made.ops["MatMulInteger"], made.reasons) == (not reasons, reasons)


def test_near_misses() -> None:
    tail = "[mm] y = MatMul(d, wd) }"
    keep(
        PASS,
        BEFORE + "c = MatMul(d, wd) r = QuantizeLinear(c, s, z) y = DequantizeLinear(r, s, z) }",
        "is quantized: QLinearMatMul is",
    )
    keep(PASS, BEFORE.replace("uint8 z = {120}", "int8 z = {12}") + tail, "int8 data")
    keep(PASS, BEFORE.replace("uint8 z", "uint16 z") + tail, "is uint16")
    keep(PASS, BEFORE + "n = Neg(wd) y = MatMul(d, n) }", "n is float")
    keep(PASS, BEFORE + "t = MatMul(d, wd) n = Neg(wd) y = MatMul(x, n) }", "nobody reads its output")
    square = BEFORE.replace("[3,2] w", "[2,2] w").replace(", 5, 60", "").replace("[2,3] x", "[2,2] x")
    keep(PASS, square.replace("axis = 1", "axis = 0") + tail, "wants axis 1")
    small = BEFORE.replace("float s = {0.5}", "float s = {2e-38}") + tail
    keep(PASS, small, "the product of its scales is no normal float32")


def test_near_miss_terms_that_are_not_known() -> None:
    source = """(float[2,n] x, float[n,2] v) => (float[2,2] y) <float s = {0.02}, uint8 z = {120}> {
        q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) r = QuantizeLinear(v, s, z)
        e = DequantizeLinear(r, s, z) y = MatMul(d, e) }"""
    keep(PASS, source, "the number of terms of its sums is not known")


def test_case_2_near_miss_another_op_with_the_vector() -> None:
    made = "bd = DequantizeLinear<axis = 0>(bi, sb) "
    after = HEAD + MADE + Q + made + SUM.format("c") + END.format("c") + "y = Mul(c, bd) }"
    rewrite(PASS, BEFORE + made + "[mm] c = MatMul(d, wd) y = Mul(c, bd) }", after, rewrites=1, atol=0)


def test_case_2_near_miss_one_per_row_in_the_right_steps() -> None:
    made = "bd = DequantizeLinear(bc, sc) "
    head = HEAD.replace("sw = {0.25, 0.5}", "sw = {0.25, 0.25}") + ", int32[2,1] bc = {7, -9}, float sc = {0.125}"
    scale = ", float[2] mm_scale = {0.125, 0.125}"
    rewrite(
        PASS,
        head + BEFORE.removeprefix(HEAD) + made + "[mm] c = MatMul(d, wd) y = Add(c, bd) }",
        head + scale + Q + made + SUM.format("c") + END.format("c") + "y = Add(c, bd) }",
        rewrites=1,
        atol=0,
    )


def test_case_2_near_miss_a_scale_that_is_off_by_more_than_rounding() -> None:
    """0.12501 is no 0.125: 8e-5 of it apart, and 1e-5 apart."""
    before = BEFORE + "bd = DequantizeLinear<axis = 0>(bi, sb) [mm] c = MatMul(d, wd) y = Add(c, bd) }"
    graph = text.parse(model(before.replace("sb = {0.125, 0.25}", "sb = {0.12501, 0.25}"))).graph
    assert PASS.run(graph, default_context()).rewrites == 1
    assert [n.op for n in graph.nodes][-4:] == ["MatMulInteger", "Cast", "Mul", "Add"]


def test_case_2_near_miss_the_sum_of_a_vector_has_no_columns() -> None:
    g = Qdq()
    bias = g.op("DequantizeLinear", g.constant(np.arange(40), "int32"), g.constant(np.float32(DATA) * np.float32(0.01)))
    g.raw(g.op("Add", g.op("MatMul", g.data(40, 40), g.weight(40)), bias))
    made = g.fuse(PASS)
    assert (made.ops["MatMulInteger"], made.ops["Add"], made.ops["DequantizeLinear"]) == (1, 1, 1)


@pytest.mark.parametrize(("terms", "fused"), [(33025, 1), (33026, 0)])
def test_case_4_the_terms_of_a_batched_weight(terms: int, fused: int) -> None:
    g = Qdq()
    weight = g.dq(g.constant(np.full((2, terms, 1), 127), "int8"), 0.01, -128, "int8")
    g.raw(g.op("MatMul", g.data(2, 1, terms, zero=255), weight))
    assert g.fuse(PASS).ops["MatMulInteger"] == fused


def test_case_4_each_column_has_its_own_sum_and_bias() -> None:
    g = Qdq()
    product = g.op("MatMul", g.data(3, 1), g.dq(g.constant([[1, 1]], "int8"), 0.01, 0, "int8"))
    bias = g.constant([2**31 - 136, 0], "int32")
    steps = g.constant(np.float32(DATA) * np.float32(0.01))
    g.raw(g.op("Add", product, g.op("DequantizeLinear", bias, steps)))
    made = g.fuse(PASS)
    assert (made.ops["MatMulInteger"], made.reasons) == (1, [])


def test_near_miss_a_weight_of_unknown_rank() -> None:
    source = """(float[2,3] x, float[3,2] v) => (float[2,2] y) <float s = {0.02}, uint8 z = {120}> {
        q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) r = QuantizeLinear(v, s, z) e = DequantizeLinear(r, s, z) y = MatMul(d, e) }"""
    keep(PASS, source, "the number of terms of its sums is not known")


def test_case_4_terms_that_have_a_name_only() -> None:
    source = """(float[2,n] x, float[n,2] v) => (float[2,2] y) <float s = {0.02}, uint8 z = {120}, uint8[n,2] r> {
        q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) r = QuantizeLinear(v, s, z)
        e = DequantizeLinear(r, s, z) y = MatMul(d, e) }"""
    keep(PASS, source, "the number of terms of its sums is not known")


@pytest.mark.parametrize(("terms", "fused"), [(33025, 1), (33026, 0)])
def test_case_4_zero_points_per_column(terms: int, fused: int) -> None:
    g = Qdq()
    weight = g.dq(g.constant(np.full((terms, 2), 127), "int8"), [0.01, 0.02], [-128, 127], "int8", axis=1)
    g.raw(g.op("MatMul", g.data(1, terms, zero=255), weight))
    assert g.fuse(PASS).ops["MatMulInteger"] == fused


@pytest.mark.parametrize(("terms", "fused"), [(33025, 1), (33026, 0)])
@pytest.mark.parametrize("zero", [127, -128])
def test_case_4_the_reach_of_signed_data(terms: int, fused: int, zero: int) -> None:
    """From either end of int8 the other one is 255 away."""
    g = Qdq()
    weight = g.dq(g.constant(np.full((terms, 1), 127), "int8"), 0.01, -128, "int8")
    g.raw(g.op("MatMul", g.data(1, terms, zero=zero, kind="int8"), weight))
    assert g.fuse(FuseMatmulInteger(native_int8=True)).ops["MatMulInteger"] == fused


@pytest.mark.parametrize(
    ("data", "weight", "fused"),
    [
        (2.0**-63, 2.0**-63, 1),
        (2.0**-63, 2.0**-64, 0),
        (1.0, float(np.finfo(np.float32).max), 1),
        (2.0, float(np.finfo(np.float32).max), 0),
    ],
)
def test_case_4_the_ends_of_float32(data: float, weight: float, fused: int) -> None:
    source = f"(float[1,1] x) => (float[1,1] y) <float s = {{{data!r}}}, uint8 z = {{120}}, int8[1,1] w = {{1}}, float sw = {{{weight!r}}}, int8 zw = {{0}}> "
    source += "{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) wd = DequantizeLinear(w, sw, zw) y = MatMul(d, wd) }"
    assert PASS.run(text.parse(model(source)).graph, default_context()).rewrites == fused


def test_the_types_between() -> None:
    graph = text.parse(model(BEFORE + "[mm] y = MatMul(d, wd) }")).graph
    PASS.run(graph, default_context())
    types = {t.name: np.dtype(t.dtype).name for n in graph.nodes for t in n.outputs if t.name.startswith("y")}
    assert types == {"y_sum": "int32", "y_cast": "float32", "y": "float32"}


def test_a_product_without_columns() -> None:
    g = Qdq()
    weight = g.dq(g.constant(np.zeros((3, 0)), "int8"), np.zeros(0), np.zeros(0), "int8", axis=1)
    bias = g.op("DequantizeLinear", g.constant(np.zeros(0), "int32"), g.constant(np.zeros(0)), axis=0)
    g.raw(g.op("Add", g.op("MatMul", g.data(2, 3), weight), bias))
    assert (
        PASS.run(load.from_proto(onnx.shape_inference.infer_shapes(g.model())).graph, default_context()).rewrites == 1
    )
