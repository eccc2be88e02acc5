"""Products of two operands: their columns, their bias in steps of the sums, and what is added behind them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from rewriting import keep, model, rewrite

from onnxq.ir import text
from onnxq.pipeline.base import Report
from onnxq.testing import default_context
from onnxq_passes._unfuse import CannotUnfuseError
from onnxq_passes._unfuse_factor import bias_of
from onnxq_passes.unfuse_qlinear import UnfuseQlinear

PASS = UnfuseQlinear()
NUMBERS = "float s = {0.5}, uint8 z = {120}"
DATA = "float a_scale = {0.5}, uint8 a_zero_point = {120}"
Q = "{ [q] a = QuantizeLinear(x, s, z) "
DQ = "[a_DequantizeLinear] a_dequantized = DequantizeLinear(a, a_scale, a_zero_point) "


def run(graph: str) -> tuple[gs.Graph, Report]:
    """For what ONNX Runtime does not load."""
    parsed = text.parse(model(graph)).graph
    return parsed, PASS.run(parsed, default_context())


# QGemm


def test_a_gemm_with_a_factor_and_a_bias() -> None:
    """One step of the bias is the product of all three."""
    weight = "int8[2,3] w = {1, -2, 30, 4, 5, 60}"
    head = f"(float[2,3] x) => (float[2,2] y) <{NUMBERS}, {weight}, "
    given = "float[2] sw = {0.25, 0.5}, int8[2] zw = {3, 4}, int32[2] b = {70, -90}> "
    node = "[g] y = com.microsoft.QGemm<alpha = 0.5, transB = 1>(a, s, z, w, sw, zw, b) }"
    made = (
        f"{DATA}, float[2] w_scale = {{0.25, 0.5}}, int8[2] w_zero_point = {{3, 4}}, int32[2] b = {{70, -90}}, "
        "float[2] b_scale = {0.0625, 0.125}, int32[2] b_zero_point = {0, 0}> "
    )
    after = (
        f"{DQ}[w_DequantizeLinear] w_dequantized = DequantizeLinear<axis = 0>(w, w_scale, w_zero_point) "
        "[b_DequantizeLinear] b_dequantized = DequantizeLinear<axis = 0>(b, b_scale, b_zero_point) "
        "[g] y = Gemm<alpha = 0.5, transB = 1>(a_dequantized, w_dequantized, b_dequantized) }"
    )
    rewrite(PASS, head + given + Q + node, head + made + Q + after, rewrites=1, atol=1e-5)


@pytest.mark.parametrize("attribute", ["", "<transB = 0>"])
def test_the_columns_of_a_gemm_that_is_not_turned(attribute: str) -> None:
    weight = "int8[3,2] w = {1, -2, 30, 4, 5, 60}"
    head = f"(float[2,3] x) => (float[2,2] y) <{NUMBERS}, {weight}, "
    given = "float[2] sw = {0.25, 0.5}, int8[2] zw = {3, 4}> "
    node = f"[g] y = com.microsoft.QGemm{attribute}(a, s, z, w, sw, zw) }}"
    made = f"{DATA}, float[2] w_scale = {{0.25, 0.5}}, int8[2] w_zero_point = {{3, 4}}> "
    after = (
        f"{DQ}[w_DequantizeLinear] w_dequantized = DequantizeLinear<axis = 1>(w, w_scale, w_zero_point) "
        f"[g] y = Gemm{attribute}(a_dequantized, w_dequantized) }}"
    )
    rewrite(PASS, head + given + Q + node, head + made + Q + after, rewrites=1, atol=1e-5)


@pytest.mark.parametrize(
    ("scales", "bias", "reason"),
    [
        ("[2] sw = {0.25, 0.5}", "[1,2]", "its bias is no vector"),
        ("[2] sw = {0.25, 0.5}", "[2]", None),
        ("[1] sw = {0.25}", "[1,2]", None),
        ("[1] sw = {0.25}", "[2]", None),
    ],
)
def test_only_a_vector_has_a_scale_for_each_element(scales: str, bias: str, reason: str | None) -> None:
    zeros = scales.replace("0.25, 0.5", "3, 4").replace("0.25", "3").replace("sw", "zw")
    graph = (
        f"(float[2,3] x) => (float[2,2] y) <{NUMBERS}, int8[3,2] w = {{1, -2, 30, 4, 5, 60}}, "
        f"float{scales}, int8{zeros}, int32{bias} b = {{70, -90}}> {Q}[g] y = com.microsoft.QGemm(a, s, z, w, sw, zw, b) }}"
    )
    _, report = run(graph)
    assert (report.rewrites, [r.reason for r in report.refusals]) == ((0, [reason]) if reason else (1, []))


def test_a_bias_of_unknown_shape_has_one_scale_at_most() -> None:
    graph = (
        f"(float[2,3] x) => (float[2,2] y) <{NUMBERS}, int8[3,2] w = {{1, -2, 30, 4, 5, 60}}, float[2] sw = {{0.25, 0.5}}, "
        f"int8[2] zw = {{3, 4}}> {{ b = elsewhere.Bias(x) [q] a = QuantizeLinear(x, s, z) "
        "[g] y = com.microsoft.QGemm(a, s, z, w, sw, zw, b) }"
    )
    _, report = run(graph)
    assert [r.reason for r in report.refusals] == ["its bias is no vector"]


def test_a_quantized_result_without_zero_point() -> None:
    graph = (
        f"(float[2,3] x) => (uint8[2,2] y) <{NUMBERS}, int8[3,2] w = {{1, -2, 30, 4, 5, 60}}, float sw = {{0.25}}, "
        f"int8 zw = {{3}}> {Q}[g] y = com.microsoft.QGemm(a, s, z, w, sw, zw, , s) }}"
    )
    parsed, report = run(graph)
    assert report.rewrites == 1
    last = parsed.nodes[-1]
    assert (last.op, last.inputs[2].values.dtype, int(last.inputs[2].values)) == ("QuantizeLinear", np.uint8, 0)


# Columns of matrices


@pytest.mark.parametrize(
    "product", ["QLinearMatMul(a, s, z, w, sw, zw, s, z)", "com.microsoft.MatMulIntegerToFloat(a, w, s, sw, z, zw)"]
)
@pytest.mark.parametrize("several", [True, False])
def test_columns_of_a_matrix_of_unknown_rank(product: str, several: bool) -> None:
    scales = "float[2] sw = {0.25, 0.5}" if several else "float sw = {0.25}"
    graph = (
        f"(float[2,3] x) => (y) <{NUMBERS}, {scales}, int8 zw = {{3}}> {{ w = elsewhere.Weights(x) "
        f"[q] a = QuantizeLinear(x, s, z) [p] y = {product} }}"
    )
    _, report = run(graph)
    wanted = (0, ["the rank of its weight is not known"]) if several else (1, [])
    assert (report.rewrites, [r.reason for r in report.refusals]) == wanted


# MatMulIntegerToFloat


MATRIX = "int8[3,2] w = {1, -2, 30, 4, 5, 60}"


def test_a_float_result_with_a_bias_on_the_steps() -> None:
    head = f"(float[2,3] x) => (float[2,2] y) <{NUMBERS}, {MATRIX}, "
    given = "float[2] sw = {0.25, 0.5}, int8[2] zw = {3, 4}, float[2] b = {1.25, -0.75}> "
    node = "[p] y = com.microsoft.MatMulIntegerToFloat(a, w, s, sw, z, zw, b) }"
    made = (
        f"{DATA}, float[2] w_scale = {{0.25, 0.5}}, int8[2] w_zero_point = {{3, 4}}, int32[2] b_int32 = {{10, -3}}, "
        "float[2] b_int32_scale = {0.125, 0.25}, int32[2] b_int32_zero_point = {0, 0}> "
    )
    after = (
        "[b_int32_DequantizeLinear] b_int32_dequantized = DequantizeLinear<axis = 0>(b_int32, b_int32_scale, b_int32_zero_point) "
        f"{DQ}[w_DequantizeLinear] w_dequantized = DequantizeLinear<axis = 1>(w, w_scale, w_zero_point) "
        "[p] y_product = MatMul(a_dequantized, w_dequantized) [p_Add] y = Add(y_product, b_int32_dequantized) }"
    )
    rewrite(PASS, head + given + Q + node, head + made + Q + after, rewrites=1, atol=1e-5)


@pytest.mark.parametrize(
    ("scale", "bias", "integer"),
    [
        ("float sw = {0.25}", "float[2] b = {1.25, -0.75}", True),  # one scale, a bias for each column
        ("float sw = {0.25}", "float[1,2] b = {1.25, -0.75}", False),
        ("float[2] sw = {0.25, 0.5}", "float[1,2] b = {1.25, -0.75}", False),
        ("float[2] sw = {0.25, 0.5}", "float[1] b = {1.25}", False),
        ("float sw = {0.25}", "float[2] b = {268435456, 0}", False),  # 2 ** 31 steps
        ("float sw = {0.25}", "float[2] b = {nan, 0}", False),
        ("float sw = {3e38}", "float[2] b = {0, 0}", False),  # times 2
    ],
)
def test_which_bias_becomes_integers(scale: str, bias: str, integer: bool) -> None:
    infinite = "3e38" in scale
    numbers = NUMBERS.replace("0.5", "2") if infinite else NUMBERS
    zeros = "int8[2] zw = {3, 4}" if "[2]" in scale else "int8 zw = {3}"
    graph = (
        f"(float[2,3] x) => (float[2,2] y) <{numbers}, {MATRIX}, {scale}, {zeros}, {bias.replace('nan', '0')}> "
        f"{Q}[p] y = com.microsoft.MatMulIntegerToFloat(a, w, s, sw, z, zw, b) }}"
    )
    parsed = text.parse(model(graph)).graph
    if "nan" in bias:
        parsed.nodes[-1].inputs[6].values = np.asarray([np.nan, 0], np.float32)
    assert PASS.run(parsed, default_context()).rewrites == 1
    add = parsed.nodes[-1]
    assert (add.op, add.inputs[1].name) == ("Add", "b_int32_dequantized" if integer else "b")


def test_a_bias_that_is_computed_stays_float() -> None:
    head = f"(float[2,3] x, float[2] b) => (float[2,2] y) <{NUMBERS}, {MATRIX}, "
    node = "[p] y = com.microsoft.MatMulIntegerToFloat(a, w, s, sw, z, zw, b) }"
    made = f"{DATA}, float w_scale = {{0.25}}, int8 w_zero_point = {{3}}> "
    after = (
        f"{DQ}[w_DequantizeLinear] w_dequantized = DequantizeLinear(w, w_scale, w_zero_point) "
        "[p] y_product = MatMul(a_dequantized, w_dequantized) [p_Add] y = Add(y_product, b) }"
    )
    given = "float sw = {0.25}, int8 zw = {3}> "
    rewrite(PASS, head + given + Q + node, head + made + Q + after, rewrites=1, atol=1e-5)


def test_zero_points_that_are_left_out_have_the_types_of_their_operands() -> None:
    head = f"(float[2,3] x) => (float[2,2] y) <float s = {{0.5}}, {MATRIX}, "
    start = "{ [q] a = QuantizeLinear(x, s) "
    node = "[p] y = com.microsoft.MatMulIntegerToFloat(a, w, s, sw) }"
    made = "float a_scale = {0.5}, uint8 a_zero_point = {0}, float w_scale = {0.25}, int8 w_zero_point = {0}> "
    after = (
        f"{DQ}[w_DequantizeLinear] w_dequantized = DequantizeLinear(w, w_scale, w_zero_point) "
        "[p] y = MatMul(a_dequantized, w_dequantized) }"
    )
    rewrite(PASS, head + "float sw = {0.25}> " + start + node, head + made + start + after, rewrites=1, atol=1e-5)


def test_steps_of_the_sums_that_are_no_float32() -> None:
    graph = (
        "(float[1,1,2,2] x) => (float[1,1,2,2] y) <float s = {2}, uint8 z = {120}, int8[1,1,1,1] w = {1}, float sw = {3e38}, "
        f"int8 zw = {{0}}, int32[1] b = {{7}}> {Q}[c] r = QLinearConv(a, s, z, w, sw, zw, s, z, b) y = DequantizeLinear(r, s, z) }}"
    )
    keep(PASS, graph, "no positive float32")


# What is added to sums


def product(op: str, weight: Any, result: Any = None) -> gs.Node:
    inputs = [gs.Variable("a"), gs.Variable("w", shape=weight)]
    return gs.Node(op, inputs=inputs, outputs=[gs.Variable("y", shape=result)])


def added(*shape: int) -> gs.Constant:
    return gs.Constant("b", np.arange(5, 5 + int(np.prod(shape)), dtype=np.int32).reshape(shape))


@pytest.mark.parametrize(
    ("node", "shape", "channels", "wanted"),
    [
        (product("MatMulInteger", (40, 8)), (), 1, ()),
        (product("MatMulInteger", (40, 8)), (1,), 1, ()),
        (product("MatMulInteger", (40, 8)), (8,), 1, (8,)),
        (product("MatMulInteger", (40, 8)), (8,), 8, (8,)),
        (product("MatMulInteger", (40, 2)), (), 2, (2,)),
        (product("MatMulInteger", (40, 8), (2, 6, 8)), (1, 1, 8), 8, (8,)),
        (product("MatMulInteger", (3, 40, 8)), (1, 8), 1, (8,)),
        (product("MatMulInteger", None), (1,), 1, ()),
        (product("ConvInteger", (8, 5, 3, 3)), (), 1, (8,)),
        (product("ConvInteger", (8, 5, 3, 3)), (1, 1, 1, 1), 8, (8,)),
        (product("ConvInteger", (8, 5, 3, 3)), (8, 1, 1), 8, (8,)),
        (product("ConvInteger", (8, 5, 3)), (1, 8, 1), 8, (8,)),
    ],
)
def test_a_bias_of_the_sums(node: gs.Node, shape: Any, channels: int, wanted: Any) -> None:
    values = bias_of(node, added(*shape), channels)
    assert (values.shape, values.reshape(-1).tolist()) == (
        wanted,
        list(range(5, 13)) if 8 in shape else [5] * int(np.prod(wanted)),
    )
    assert values.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize(
    ("node", "shape", "reason"),
    [
        (product("MatMulInteger", (40, 8)), (1, 8), "not one number"),  # of a vector it would make a matrix
        (product("MatMulInteger", (8,)), (1,), "not one number"),  # of a number a vector
        (product("MatMulInteger", (8,), (2, 6)), (6,), "not one number"),  # one for each row
        (product("MatMulInteger", (40, 1), (6, 1)), (8,), "not one number"),  # more columns
        (product("MatMulInteger", (40, 8), (8, 8)), (8, 1), "not one number"),
        (product("MatMulInteger", (3, 40, 8)), (1, 1, 8), "not one number"),
        (product("MatMulInteger", None), (8,), "not one number"),
        (product("MatMulInteger", None), (1, 1), "not one number"),
        (product("MatMulInteger", None, (2, 8)), (8,), "not one number"),
        (product("ConvInteger", (8, 5, 3, 3)), (1, 1, 8, 1, 1), "not one number"),
        (product("ConvInteger", (8, 5, 3, 3), (1, 8, 8, 8)), (8,), "not one number"),  # along the width
        (product("ConvInteger", ("n", 5, 3, 3)), (8, 1, 1), "not one number"),
        (product("ConvInteger", ("n", 5, 3, 3)), (), "how many channels it has is not known"),
        (product("ConvInteger", None), (), "how many channels it has is not known"),
    ],
)
def test_what_is_no_bias_of_the_sums(node: gs.Node, shape: Any, reason: str) -> None:
    with pytest.raises(CannotUnfuseError, match=reason):
        bias_of(node, added(*shape), 1)
