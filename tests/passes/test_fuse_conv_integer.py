from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from fusing import DATA, Qdq
from numpy.typing import NDArray
from rewriting import keep, model, rewrite

from onnxq.ir import text
from onnxq.runtime.session import Level, Session
from onnxq.testing import check_pass, default_context
from onnxq_passes.fuse_conv_integer import FuseConvInteger

PASS = FuseConvInteger()
HEAD = """(float[1,1,3,3] x) => (float[1,2,2,2] y) <float s = {0.5}, uint8 z = {120}, int8[2,1,2,2] w = {1, -2, 30, 4, 5, 60, -7, 8},
    float[2] sw = {0.25, 0.5}, int8[2] zw = {3, 3}, float[2] b = {0.5, -1}, int32[2] bi = {7, -9}, float[2] sb = {0.125, 0.25}"""
MADE = ", int8 w_zero = {3}, float[2,1,1] c_scale = {0.125, 0.25}"
Q = "> { q = QuantizeLinear(x, s, z) "
DQ = "d = DequantizeLinear(q, s, z) wd = DequantizeLinear<axis = 0>(w, sw, zw) "
BEFORE = HEAD + Q + DQ
CONV = BEFORE + "[c] y = Conv(d, wd) }"
SUM = "[c_ConvInteger] y_sum = ConvInteger(q, w, z, w_zero) "


def test_contract() -> None:
    check_pass(FuseConvInteger)


def test_case_1_without_a_bias() -> None:
    """Scales are powers of two here, so that the float sums are exact, too: no bit differs."""
    after = "[c_Cast] y_cast = Cast<to = 1>(y_sum) [c_Mul] y = Mul(y_cast, c_scale) }"
    rewrite(PASS, CONV, HEAD + MADE + Q + SUM + after, rewrites=1, atol=0)


def test_case_2_a_float_bias() -> None:
    made = MADE + ", float[2,1,1] c_bias = {0.5, -1}"
    after = (
        "[c_Cast] y_cast = Cast<to = 1>(y_sum) [c_Mul] y_mul = Mul(y_cast, c_scale) [c_Add] y = Add(y_mul, c_bias) }"
    )
    rewrite(PASS, BEFORE + "[c] y = Conv(d, wd, b) }", HEAD + made + Q + SUM + after, rewrites=1, atol=0)


def test_case_2_an_int32_bias() -> None:
    made = MADE + ", int32[2,1,1] c_bias = {7, -9}"
    after = (
        "[c_Add] y_add = Add(y_sum, c_bias) [c_Cast] y_cast = Cast<to = 1>(y_add) [c_Mul] y = Mul(y_cast, c_scale) }"
    )
    before = BEFORE + "bd = DequantizeLinear<axis = 0>(bi, sb) [c] y = Conv(d, wd, bd) }"
    rewrite(PASS, before, HEAD + made + Q + SUM + after, rewrites=1, atol=0)


@pytest.mark.parametrize(("old", "new"), [("sb = {0.125", "sb = {0.5"), ("axis = 0>(bi, sb)", "axis = 0>(bi, sb, bz)")])
def test_case_2_near_miss_an_int32_bias_of_another_scale_or_with_a_zero_point(old: str, new: str) -> None:
    """It is added in float."""
    before = HEAD + ", int32[2] bz = {2, 2}" + Q + DQ
    before += "bd = DequantizeLinear<axis = 0>(bi, sb) [c] y = Conv(d, wd, bd) }"
    value = "{3.5, -2.25}" if "0.5" in new else "{0.625, -2.75}"
    after = (
        "[c_Cast] y_cast = Cast<to = 1>(y_sum) [c_Mul] y_mul = Mul(y_cast, c_scale) [c_Add] y = Add(y_mul, c_bias) }"
    )
    made = MADE + f", float[2,1,1] c_bias = {value}"
    assert old in before
    rewrite(PASS, before.replace(old, new), HEAD + made + Q + SUM + after, rewrites=1, atol=0)


SCALES = np.linspace(0.00213, 0.00437, 8).astype(np.float32)
INT32 = np.arange(8) * 40011 - 130000
FLOAT = np.linspace(-3, 3, 8).astype(np.float32)


def sums(x: NDArray[Any], w: NDArray[Any], groups: int) -> NDArray[Any]:
    """Convolution of integers, stride 1, padded by 1, tap by tap in int64."""
    size, (many, each) = x.shape[2:], (w.shape[0] // groups, w.shape[1])
    x = np.pad(x, [(0, 0), (0, 0), *[(1, 1)] * len(size)])
    out = np.zeros((x.shape[0], w.shape[0], *size), np.int64)
    for o, tap in itertools.product(range(w.shape[0]), np.ndindex(*w.shape[2:])):
        first = o // many * each
        window = x[:, first : first + each, *(slice(t, t + s) for t, s in zip(tap, size, strict=True))]
        out[:, o] += np.tensordot(window, w[o, :, *tap], ([1], [0]))
    return out


@pytest.mark.parametrize("bias", ["", "float", "int32"])
@pytest.mark.parametrize(
    ("data", "kind", "dims", "groups", "zero"),
    [
        ("uint8", "int8", 2, 1, 0),
        ("uint8", "int8", 1, 2, 3),
        ("uint8", "uint8", 2, 4, 119),
        ("uint8", "int8", 3, 1, -5),
        ("int8", "int8", 2, 1, 0),
        ("int8", "uint8", 2, 2, 128),
    ],
)
def test_the_bound(data: str, kind: str, dims: int, groups: int, zero: int, bias: str) -> None:
    """Against float64: the sums are exact, and what is rounded is what the docstring says, on all pairs of types."""
    g = Qdq()
    shape = (8, 4 // groups, *[3] * dims)
    low = np.iinfo(kind).min
    w = np.random.default_rng(3).integers(low, low + 256, shape)
    weight = g.dq(g.constant(w, kind), SCALES, np.full(8, zero), kind)
    start = 120 if data == "uint8" else -7
    inputs = [g.data(2, 4, *[6] * dims, zero=start, kind=data), weight]
    if bias == "int32":
        steps = g.constant(np.float32(DATA) * SCALES)
        inputs.append(g.op("DequantizeLinear", g.constant(INT32, "int32"), steps, axis=0))
    elif bias == "float":
        inputs.append(g.constant(FLOAT))
    g.raw(g.op("Conv", *inputs, pads=[1] * 2 * dims, group=groups))
    made = g.fuse(FuseConvInteger(native_int8=True))
    assert made.ops == {"QuantizeLinear": 1, "ConvInteger": 1, "Cast": 1, "Mul": 1} | ({"Add": 1} if bias else {})
    assert made.spread() > 90

    limits = np.iinfo(data)
    q = np.clip(np.rint(g.feeds["x0"] / np.float32(DATA)) + start, limits.min, limits.max).astype(np.int64) - start
    column = (8, *[1] * dims)
    product = sums(q, w - zero, groups) + (INT32.reshape(column) if bias == "int32" else 0)
    product = product * (np.float64(np.float32(DATA)) * SCALES.astype(np.float64)).reshape(column)
    exact = product + (FLOAT.astype(np.float64).reshape(column) if bias == "float" else 0)
    (got,) = Session(made.file, level=Level.OFF, threads=1).run(g.feeds).values()
    bound = 2.0**-24 * (3 * np.abs(product) + (np.abs(exact) if bias == "float" else 0)) * (1 + 1e-6)
    assert (np.abs(got - exact) <= bound).all()


def test_the_sums_of_a_float_conv_are_further_off() -> None:
    """Why the pass is not exact, and that it is on the better side."""
    g = Qdq()
    w = np.random.default_rng(3).integers(-127, 128, (4, 64, 3, 3))
    g.raw(g.op("Conv", g.data(1, 64, 8, 8), g.dq(g.constant(w, "int8"), 0.00317, 0, "int8"), pads=[1, 1, 1, 1]))
    made = g.fuse(PASS)
    q = np.clip(np.rint(g.feeds["x0"] / np.float32(DATA)) + 120, 0, 255).astype(np.int64) - 120
    exact = sums(q, w, 1) * (np.float64(np.float32(DATA)) * np.float64(np.float32(0.00317)))
    (ours,) = Session(made.file, level=Level.OFF, threads=1).run(g.feeds).values()
    (theirs,) = made.outputs.values()
    assert np.abs(ours - exact).max() < np.abs(theirs - exact).max()


def test_near_misses() -> None:
    keep(PASS, CONV.replace("zw = {3, 3}", "zw = {3, 4}"), "different zero points, ConvInteger has one")
    keep(PASS, CONV.replace("uint8 z = {120}", "int8 z = {12}"), "int8 data")
    keep(PASS, CONV.replace("[c] y = Conv(d, wd)", "n = Neg(wd) [c] y = Conv(d, n)"), "n is float")
    keep(PASS, CONV.replace("[c] y = Conv(d, wd)", "n = Neg(d) [c] y = Conv(n, wd)"), "n is float")
    keep(PASS, BEFORE + "n = Neg(b) [c] y = Conv(d, wd, n) }", "its bias n is computed in the graph")
    quantized = "[c] t = Conv(d, wd) r = QuantizeLinear(t, s, z) y = DequantizeLinear(r, s, z) }"
    keep(PASS, BEFORE + quantized, "QLinearConv is its form")
    unread = "t = Conv(d, wd) k = MaxPool<kernel_shape = [2, 2]>(x) y = Concat<axis = 1>(k, k) }"
    keep(PASS, BEFORE + unread, "nobody reads its output")


def test_near_miss_scales_of_another_axis() -> None:
    g = Qdq()
    weight = g.weight(4, 4, 3, 3, scale=SCALES[:4], axis=1)
    g.raw(g.op("Conv", g.data(1, 4, 6, 6), weight))
    made = g.fuse(PASS)
    assert made.ops["ConvInteger"] == 0
    assert "axis 1, one per output channel is axis 0" in made.reasons[0]


@pytest.mark.parametrize(("terms", "fused"), [(33025, 1), (33026, 0)])
def test_case_4_sums_that_leave_int32(terms: int, fused: int) -> None:
    """255 * 255 * 33,025 is the last one below 2**31."""
    g = Qdq()
    weight = g.dq(g.constant(np.full((1, terms, 1), 127), "int8"), 0.01, -128, "int8")
    g.raw(g.op("Conv", g.data(1, terms, 1, zero=255, fill=-100.0), weight))
    made = g.fuse(PASS)
    assert made.ops["ConvInteger"] == fused
    if fused:
        (got,) = Session(made.file, level=Level.OFF, threads=1).run(g.feeds).values()
        exact = -255 * 255 * terms * np.float64(np.float32(DATA)) * np.float64(np.float32(0.01))
        assert got.item() == pytest.approx(exact, rel=3 * 2.0**-24)
    else:
        assert made.reasons == ["its sums may leave int32"]


def test_case_4_a_bias_that_leaves_int32() -> None:
    g = Qdq()
    weight = g.dq(g.constant(np.full((1, 1, 1), 1), "int8"), 0.01, 0, "int8")
    steps = g.constant(np.float32(DATA) * np.float32(0.01))
    for last in (0, 1):
        bias = g.op("DequantizeLinear", g.constant([2**31 - 136 + last], "int32"), steps)
        g.raw(g.op("Conv", g.data(1, 1, 4), weight, bias))
    made = g.fuse(PASS)
    assert (made.ops["ConvInteger"], made.ops["Conv"]) == (1, 1)
    assert made.reasons == ["its sums may leave int32"]


@pytest.mark.parametrize(("scale", "fused"), [(1e-36, 1), (1e-37, 0)])
def test_case_4_scales_without_a_normal_product(scale: float, fused: int) -> None:
    g = Qdq()
    g.raw(g.op("Conv", g.data(1, 1, 4), g.dq(g.constant(np.ones((1, 1, 1)), "int8"), scale, 0, "int8")))
    made = g.fuse(PASS)
    assert made.ops["ConvInteger"] == fused
    assert made.reasons == ([] if fused else ["the product of its scales is no normal float32"])


def test_a_computed_weight() -> None:
    g = Qdq()
    data = g.data(1, 4, 6, 6)
    g.raw(g.op("Conv", data, g.data(8, 4, 3, 3, scale=0.02, zero=128)))
    made = g.fuse(PASS)
    assert made.ops == {"QuantizeLinear": 2, "ConvInteger": 1, "Cast": 1, "Mul": 1}
    assert made.gap <= 1e-5


def test_case_1_one_scale_keeps_the_zero_point_of_the_file() -> None:
    head = """(float[1,1,3,3] x) => (float[1,2,2,2] y) <float s = {0.5}, uint8 z = {120}, int8[2,1,2,2] w = {1, -2, 30, 4, 5, 60, -7, 8},
        float sw = {0.25}, int8 zw = {3}"""
    nodes = "> { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) wd = DequantizeLinear(w, sw, zw) [c] y = Conv(d, wd) }"
    after = "[c_ConvInteger] y_sum = ConvInteger(q, w, z, zw) [c_Cast] y_cast = Cast<to = 1>(y_sum) [c_Mul] y = Mul(y_cast, c_scale) }"
    rewrite(PASS, head + nodes, head + ", float c_scale = {0.125}" + Q + after, rewrites=1, atol=0)


def test_case_1_the_axis_may_be_counted_from_the_end() -> None:
    after = "[c_Cast] y_cast = Cast<to = 1>(y_sum) [c_Mul] y = Mul(y_cast, c_scale) }"
    rewrite(PASS, CONV.replace("axis = 0>(w", "axis = -4>(w"), HEAD + MADE + Q + SUM + after, rewrites=1, atol=0)


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_case_2_a_bias_of_8_bits_is_added_in_float(kind: str) -> None:
    before = HEAD + f", {kind}[2] b8 = {{7, 9}}" + Q + DQ
    before += "bd = DequantizeLinear<axis = 0>(b8, sw) [c] y = Conv(d, wd, bd) }"
    made = MADE + ", float[2,1,1] c_bias = {1.75, 4.5}"
    after = (
        "[c_Cast] y_cast = Cast<to = 1>(y_sum) [c_Mul] y_mul = Mul(y_cast, c_scale) [c_Add] y = Add(y_mul, c_bias) }"
    )
    rewrite(PASS, before, HEAD + made + Q + SUM + after, rewrites=1, atol=0)


def test_case_2_a_scale_that_is_off_by_more_than_rounding() -> None:
    """0.12501 is no 0.125: 8e-5 of it apart, and 1e-5 apart."""
    before = BEFORE + "bd = DequantizeLinear<axis = 0>(bi, sb) [c] y = Conv(d, wd, bd) }"
    g = before.replace("sb = {0.125, 0.25}", "sb = {0.12501, 0.25}")
    graph = text.parse(model(g)).graph
    assert PASS.run(graph, default_context()).rewrites == 1
    assert [n.op for n in graph.nodes] == ["QuantizeLinear", "ConvInteger", "Cast", "Mul", "Add"]


def test_case_2_a_bias_that_is_computed_in_integers() -> None:
    g = Qdq()
    g.raw(g.op("Conv", g.data(1, 4, 6, 6), g.weight(3, 4, 2, 2), g.data(3)))
    made = g.fuse(PASS)
    assert made.ops["ConvInteger"] == 0
    assert "is computed in the graph" in made.reasons[0]


def test_case_4_each_channel_has_its_own_sum() -> None:
    g = Qdq()
    weight = g.dq(g.constant(np.full((2, 20000, 1), 127), "int8"), 0.01, -128, "int8")
    g.raw(g.op("Conv", g.data(1, 20000, 1, zero=255), weight))
    assert g.fuse(PASS).ops["ConvInteger"] == 1


def test_near_miss_a_weight_of_unknown_rank() -> None:
    source = """(float[1,1,3,3] x, float[1,1,3,3] v) => (float[1,1,1,1] y) <float s = {0.5}, uint8 z = {120}> {
        q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) r = QuantizeLinear(v, s, z) e = DequantizeLinear(r, s, z) y = Conv(d, e) }"""
    keep(PASS, source, "the rank of its weight is not known")
