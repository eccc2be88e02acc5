from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fusing import DATA, Qdq
from rewriting import keep, model, rewrite
from unfusing import unfuse

from onnxq.ir import text
from onnxq.testing import check_pass, default_context
from onnxq_passes.fuse_conv_integer import FuseConvInteger
from onnxq_passes.fuse_dynamic_quantize_matmul import FuseDynamicQuantizeMatmul
from onnxq_passes.fuse_matmul_integer import FuseMatmulInteger
from onnxq_passes.unfuse_integer_product import UnfuseIntegerProduct

PASS = UnfuseIntegerProduct()
DYNAMIC = UnfuseIntegerProduct(dynamic=True)
K = "float s = {0.02}, uint8 z = {120}, int8[3,2] w = {1, -2, 30, 4, 5, 60}, float sw = {0.25}, float both = {0.005}, int8 zw = {3}"
HEAD = f"(float[2,3] x) => (float[2,2] y) <{K}> "
Q = "{ [q] a = QuantizeLinear(x, s, z) "
BEHIND = " [c] f = Cast<to = 1>(p) [m] y = Mul(f, both) }"


def test_contract() -> None:
    check_pass(UnfuseIntegerProduct)


def test_case_1_a_factor_that_was_multiplied_before() -> None:
    after = (
        f"(float[2,3] x) => (float[2,2] y) <{K}, float both_weight = {{0.25}}, int8 w_zero_point = {{3}}> "
        "{ [q] a = QuantizeLinear(x, s, z) [a_dequantized_DequantizeLinear] a_dequantized = DequantizeLinear(a, s, z) "
        "[w_DequantizeLinear] w_dequantized = DequantizeLinear(w, both_weight, w_zero_point) [p] y = MatMul(a_dequantized, w_dequantized) }"
    )
    rewrite(PASS, HEAD + Q + "[p] p = MatMulInteger(a, w, z, zw)" + BEHIND, after, rewrites=1, atol=1e-5)


@pytest.mark.parametrize("channels", [True, False])
@pytest.mark.parametrize("op", ["MatMul", "Conv"])
def test_case_1_numbers(op: str, channels: bool) -> None:
    """The factor is multiplied in the graph, as ONNX Runtime's quantizer writes it."""
    scale: Any = np.linspace(0.00213, 0.00437, 8).astype(np.float32) if channels else np.float32(0.00317)
    random = np.random.default_rng(2)
    g = Qdq()
    conv = op == "Conv"
    shape, weight = ((2, 5, 7, 7), (8, 5, 3, 3)) if conv else ((2, 6, 40), (40, 8))
    g.data(*shape)
    data = g.nodes[0].output[0]
    g.nodes.pop()  # the DQ
    zero = g.nodes[0].input[2]
    inputs = [data, g.constant(random.integers(-127, 128, weight), "int8"), zero]
    sums = g.op("Cast", g.op(f"{op}Integer", *inputs), to=1)
    along = np.reshape(scale, (1, 8, 1, 1)) if conv and channels else scale
    g.raw(g.op("Mul", sums, g.op("Mul", g.nodes[0].input[1], g.constant(along))))
    made = unfuse(g, PASS)
    assert made.rewrites == 1
    assert made.ops == {"QuantizeLinear": 1, "DequantizeLinear": 2, op: 1}
    assert made.gap < 1e-4
    assert made.spread > 50


def test_case_2_names_and_constants() -> None:
    head = f"(float[2,3] x) => (float[2,2] y) <{K}, int32[2] b = {{7, 9}}"
    after = (
        head.replace(", int32[2] b = {7, 9}", "")
        + ", float both_weight = {0.25}, int8 w_zero_point = {3}, int32[2] b_bias = {7, 9}, float b_bias_scale = {0.005}, int32 b_bias_zero_point = {0}> "
        "{ [q] a = QuantizeLinear(x, s, z) [a_dequantized_DequantizeLinear] a_dequantized = DequantizeLinear(a, s, z) "
        "[w_DequantizeLinear] w_dequantized = DequantizeLinear(w, both_weight, w_zero_point) "
        "[b_bias_DequantizeLinear] b_bias_dequantized = DequantizeLinear(b_bias, b_bias_scale, b_bias_zero_point) "
        "[p] y_product = MatMul(a_dequantized, w_dequantized) [p_Add] y = Add(y_product, b_bias_dequantized) }"
    )
    before = (
        head
        + "> "
        + Q
        + "[p] p = MatMulInteger(a, w, z, zw) [i] i = Add(p, b) [c] f = Cast<to = 1>(i) [m] y = Mul(f, both) }"
    )
    rewrite(PASS, before, after, rewrites=1, atol=1e-5)


def test_case_3_a_q_without_zero_point() -> None:
    head = f"(float[2,3] x) => (float[2,2] y) <{K}"
    after = (
        head + ", float both_weight = {0.25}, int8 w_zero_point = {3}> "
        "{ [q] a = QuantizeLinear(x, s) [a_dequantized_DequantizeLinear] a_dequantized = DequantizeLinear(a, s) "
        "[w_DequantizeLinear] w_dequantized = DequantizeLinear(w, both_weight, w_zero_point) [p] y = MatMul(a_dequantized, w_dequantized) }"
    )
    for zero in ("", "none"):
        constants = "" if zero == "" else ", uint8 none = {0}"
        before = f"{head}{constants}> {{ [q] a = QuantizeLinear(x, s) [p] p = MatMulInteger(a, w, {zero}, zw)" + BEHIND
        rewrite(PASS, before, after, rewrites=1, atol=1e-5)


def biased(op: str, channels: bool, bias: Any, *, numbers: Any = 0.0213571 * 0.00317) -> Qdq:
    """ConvInteger or MatMulInteger, Add of an int32 constant, Cast, Mul, as our own fusion writes them."""
    random = np.random.default_rng(2)
    g = Qdq()
    conv = op == "Conv"
    shape, weight = ((2, 5, 7, 7), (8, 5, 3, 3)) if conv else ((2, 6, 40), (40, 8))
    g.data(*shape)
    g.nodes.pop()  # the DQ
    inputs = [g.nodes[0].output[0], g.constant(random.integers(-127, 128, weight), "int8"), g.nodes[0].input[2]]
    sums = g.op("Add", g.op(f"{op}Integer", *inputs), g.constant(bias, "int32"))
    if channels:
        numbers = np.linspace(1, 2, 8).reshape((1, 8, 1, 1) if conv else 8) * numbers
    g.raw(g.op("Mul", g.op("Cast", sums, to=1), g.constant(numbers)))
    return g


COLUMNS = np.arange(8) * 2500 - 9000


@pytest.mark.parametrize("channels", [True, False])
@pytest.mark.parametrize(
    ("op", "bias", "counts"),
    [
        ("MatMul", COLUMNS, {"MatMul": 1, "Add": 1}),
        ("MatMul", COLUMNS.reshape(1, 8), {"MatMul": 1, "Add": 1}),
        ("MatMul", COLUMNS.reshape(1, 1, 8), {"MatMul": 1, "Add": 1}),
        ("MatMul", 7000, {"MatMul": 1, "Add": 1}),
        ("MatMul", [7000], {"MatMul": 1, "Add": 1}),
        ("Conv", COLUMNS.reshape(1, 8, 1, 1), {"Conv": 1}),
        ("Conv", COLUMNS.reshape(8, 1, 1), {"Conv": 1}),
        ("Conv", 7000, {"Conv": 1}),
    ],
)
def test_case_2_an_int32_bias(op: str, bias: Any, counts: dict[str, int], channels: bool) -> None:
    made = unfuse(biased(op, channels, bias), PASS)
    assert made.rewrites == 1
    assert made.ops == {"QuantizeLinear": 1, "DequantizeLinear": 3, **counts}
    assert made.gap < 2e-4
    assert made.spread > 50


@pytest.mark.parametrize(
    ("op", "bias", "reason"),
    [
        ("MatMul", np.arange(12).reshape(2, 6, 1), "not one number per channel"),
        ("MatMul", np.arange(8).reshape(1, 1, 1, 8), "not one number per channel"),
        ("MatMul", [[[[5]]]], "not one number per channel"),
        ("Conv", np.arange(5), "not one number per channel"),
        ("Conv", np.arange(2).reshape(2, 1, 1, 1), "not one number per channel"),
    ],
)
def test_case_2_what_is_no_bias_stays(op: str, bias: Any, reason: str) -> None:
    made = unfuse(biased(op, False, bias), PASS)
    assert made.rewrites == 0
    assert len(made.reasons) == 1 and reason in made.reasons[0]


@pytest.mark.parametrize(
    ("inputs", "sums", "reason"),
    [
        (", int32[2] e", "p, e", "added to its sums is computed at run time"),
        ("", "p, p", "not cast to float and scaled"),
    ],
)
def test_case_2_sums_with_other_numbers_stay(inputs: str, sums: str, reason: str) -> None:
    head = f"(float[2,3] x{inputs}) => (float[2,2] y) <{K}> "
    body = f"[p] p = MatMulInteger(a, w, z) [i] i = Add({sums}) [c] f = Cast<to = 1>(i) [m] y = Mul(f, both) }}"
    keep(PASS, head + Q + body, reason)


def test_case_2_a_bias_of_dynamic_data_stays() -> None:
    graph = (
        "(float[2,3] x) => (float[2,2] y) <int8[3,2] w = {1, -2, 30, 4, 5, 60}, float sw = {0.25}, int32[2] b = {7, 9}> "
        "{ [q] a, s, z = DynamicQuantizeLinear(x) [p] p = MatMulInteger(a, w, z) [i] i = Add(p, b) "
        "[c] f = Cast<to = 1>(i) [k] k = Mul(s, sw) [m] y = Mul(f, k) }"
    )
    keep(DYNAMIC, graph, "in steps that are computed at run time")


def test_case_2_both_ways() -> None:
    """What fuse-matmul-integer and fuse-conv-integer make of an int32 bias comes back as it was."""
    for op, fuse in (("MatMul", FuseMatmulInteger()), ("Conv", FuseConvInteger())):
        g = Qdq()
        conv = op == "Conv"
        x = g.data(*((2, 5, 7, 7) if conv else (2, 6, 40)))
        w = g.weight(*((8, 5, 3, 3) if conv else (40, 8)), scale=0.0037, axis=0)
        scale = g.constant(np.float32(DATA) * np.float32(0.0037))
        b = g.op("DequantizeLinear", g.constant(COLUMNS, "int32"), scale)
        g.raw(g.op(op, x, w, b) if conv else g.op("Add", g.op(op, x, w), b))
        fused = g.fuse(fuse)
        assert fused.ops[f"{op}Integer"] == fused.ops["Add"] == 1
        made = unfuse(g, PASS, fused=[fuse])
        assert made.ops == {"QuantizeLinear": 1, "DequantizeLinear": 3, op: 1, **({} if conv else {"Add": 1})}
        assert made.gap < 2e-4


def test_integer_products_of_others() -> None:
    """Data that no Q of the standard made, an operator of another domain, a factor without the scale of the data."""
    elsewhere = "(float[2,3] x, float e) => (float[2,2] y) <" + K + "> "
    product = "[p] p = MatMulInteger(a, w, z, zw)" + BEHIND
    keep(PASS, elsewhere + "{ [k] a = Cast<to = 2>(x) " + product, "nothing tells the scale")
    keep(PASS, elsewhere + "{ [k] a = com.microsoft.QuantizeLinear(x, s, z) " + product, "nothing tells the scale")
    keep(PASS, "(float[2,3] x) => (float[2,3] y) { [a] y = com.microsoft.Gelu(x) }")
    factor = "[p] p = MatMulInteger(a, w, z, zw) [c] f = Cast<to = 1>(p) [k] k = Mul(e, sw) [m] y = Mul(f, k) }"
    keep(PASS, elsewhere + Q + factor, "is not the scale of its data")
    keep(PASS, elsewhere + Q + factor.replace("e, sw", "sw, e"), "is not the scale of its data")
    computed = "{ [q] a = QuantizeLinear(x, e, z) [p] p = MatMulInteger(a, w, z, zw)" + BEHIND
    keep(PASS, elsewhere + computed, "is not the scale of its data")
    weight = "(float[2,3] x, int8 e) => (float[2,2] y) <" + K + "> " + Q + "[p] p = MatMulInteger(a, w, z, e)" + BEHIND
    keep(PASS, weight, "zero points are computed")


def test_the_scale_of_the_data_may_be_computed() -> None:
    """If it is one, and the factor is its product with a constant."""
    body = "{ [q] a = QuantizeLinear(x, e, z) [p] p = MatMulInteger(a, w, z, zw) [c] f = Cast<to = 1>(p) [k] k = Mul(e, sw) [m] y = Mul(f, k) }"
    head = "(float[2,3] x, float[size] e) => (float[2,2] y) <" + K
    after = (
        head.replace("size", "1").replace("sw =", "w_scale =") + ", int8 w_zero_point = {3}> "
        "{ [q] a = QuantizeLinear(x, e, z) [a_dequantized_DequantizeLinear] a_dequantized = DequantizeLinear(a, e, z) "
        "[w_DequantizeLinear] w_dequantized = DequantizeLinear(w, w_scale, w_zero_point) [p] y = MatMul(a_dequantized, w_dequantized) }"
    )
    feeds: Any = {"e": np.asarray([0.02], np.float32)}
    rewrite(PASS, head.replace("size", "1") + "> " + body, after, rewrites=1, atol=1e-5, inputs=feeds)
    for size in ("2", "n"):
        graph = text.parse(model(head.replace("size", size) + "> " + body)).graph
        reasons = [r.reason for r in PASS.run(graph, default_context()).refusals]
        assert len(reasons) == 1 and "its data has a scale per channel" in reasons[0]


def test_data_with_a_scale_per_channel_stays() -> None:
    graph = (
        f"(float[2,3] x) => (float[2,2] y) <{K}, float[2] sr = {{0.02, 0.03}}, uint8[2] zr = {{120, 120}}, float[2,1] k = {{0.005, 0.0075}}> "
        "{ [q] a = QuantizeLinear<axis = 0>(x, sr, zr) [p] p = MatMulInteger(a, w, z) [c] f = Cast<to = 1>(p) [m] y = Mul(f, k) }"
    )
    keep(PASS, graph, "its data has a scale per channel")


def test_case_4_dynamic_products() -> None:
    g = Qdq()
    g.data(4, 40)
    source = g.inputs[0].name
    g.nodes.clear()
    data, scale, zero = g.op("DynamicQuantizeLinear", source, outs=3)
    weight = g.constant(np.random.default_rng(2).integers(-127, 128, (40, 8)), "int8")
    sums = g.op("Cast", g.op("MatMulInteger", data, weight, zero), to=1)
    steps = g.constant(np.linspace(0.00213, 0.00437, 8))
    g.raw(g.op("Mul", sums, g.op("Mul", scale, steps)))
    kept = unfuse(g, PASS)
    assert (kept.rewrites, len(kept.reasons)) == (0, 1) and "dynamically" in kept.reasons[0]
    made = unfuse(g, DYNAMIC)
    assert made.ops == {"DynamicQuantizeLinear": 1, "DequantizeLinear": 2, "MatMul": 1}
    assert made.gap < 1e-4
    fused = unfuse(g, DYNAMIC, fused=[FuseDynamicQuantizeMatmul()])
    assert fused.ops == made.ops
    assert fused.gap < 1e-4
    assert "dynamically" in unfuse(g, PASS, fused=[FuseDynamicQuantizeMatmul()]).reasons[0]


@pytest.mark.parametrize("zero", ["", "uint8 zw = {3}"])
@pytest.mark.parametrize("bias", ["", "b"])
def test_case_4_dynamic_quantize_matmul(zero: str, bias: str) -> None:
    """A zero point and a bias are both free to be left out; the new tensors have names that tell what they are."""
    constants = "uint8[3,2] w = {1, 2, 30, 4, 5, 60}, float sw = {0.25}" + (", float[2] b = {1, -1}" if bias else "")
    head = f"(float[2,3] x) => (float[2,2] y) <{constants}"
    node = f"com.microsoft.DynamicQuantizeMatMul(x, w, sw, {'zw' if zero else ''}, {bias})"
    before = head + (f", {zero}" if zero else "") + f"> {{ [p] y = {node} }}"
    added = f", float w_scale = {{0.25}}, uint8 w_zero_point = {{{3 if zero else 0}}}> "
    product = "[p] {} = MatMul(x_dequantized, w_dequantized) "
    after = (
        head.replace(", float sw = {0.25}", "")
        + added
        + "{ [p_DynamicQuantizeLinear] x_quantized, x_scale, x_zero_point = DynamicQuantizeLinear(x) "
        "[p_DequantizeLinear] x_dequantized = DequantizeLinear(x_quantized, x_scale, x_zero_point) "
        "[w_DequantizeLinear] w_dequantized = DequantizeLinear(w, w_scale, w_zero_point) "
        + (product.format("y_product") + "[p_Add] y = Add(y_product, b) }" if bias else product.format("y") + "}")
    )
    rewrite(DYNAMIC, before, after, rewrites=1, atol=1e-5)


@pytest.mark.parametrize("product", ["static", "dynamic"])
@pytest.mark.parametrize("scales", ["1", "2"])
def test_columns_of_a_matrix_of_unknown_rank(product: str, scales: str) -> None:
    """One scale needs no axis; for several nobody knows where the columns are."""
    several = {"1": "{0.25}", "2": "{0.25, 0.5}"}[scales]
    head = f"(float[2,3] x) => (y) <float s = {{0.02}}, uint8 z = {{120}}, float[{scales}] sw = {several}, int8 zw = {{3}}> "
    nodes = (
        "{ w = elsewhere.Weights(x) [q] a = QuantizeLinear(x, s, z) "
        + {
            "static": "k = Mul(s, sw) [p] p = MatMulInteger(a, w, z, zw) [c] f = Cast<to = 1>(p) [m] y = Mul(f, k) }",
            "dynamic": "[p] y = com.microsoft.DynamicQuantizeMatMul(x, w, sw, zw) }",
        }[product]
    )
    report = DYNAMIC.run(text.parse(model(head + nodes)).graph, default_context())
    assert report.rewrites == (1 if scales == "1" else 0)
    assert [r.reason for r in report.refusals] == ([] if scales == "1" else ["the rank of its weight is not known"])


def test_case_5_a_dynamic_conv_stays() -> None:
    graph = (
        "(float[1,1,3,3] x) => (float[1,1,2,2] y) <int8[1,1,2,2] w = {1, -2, 30, 4}, float sw = {0.25}> "
        "{ [q] a, s, z = DynamicQuantizeLinear(x) [p] p = ConvInteger(a, w, z) [c] f = Cast<to = 1>(p) [k] b = Mul(s, sw) [m] y = Mul(f, b) }"
    )
    keep(DYNAMIC, graph, "dynamically")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("[p] p = MatMulInteger(a, w, zero)" + BEHIND, "not that of its data"),
        ("[p] p = MatMulInteger(a, w)" + BEHIND, "not that of its data"),
        ("[p] p = MatMulInteger(a, w, z) [c] f = Cast<to = 1>(p) [m] y = Add(f, both) }", "not cast to float and scaled"),
        ("[p] p = MatMulInteger(a, w, z) [c] f = Cast<to = 1>(p) [m] y = Mul(f, rows) }", "not one per channel"),
        ("[p] p = MatMulInteger(a, w, z) [c] f = Cast<to = 1>(p) [m] y = Mul(f, deep) }", "not one per channel"),
        ("[p] p = MatMulInteger(a, w, z) [c] f = Cast<to = 1>(p) [m] y = Mul(f, e) }", "is not the scale of its data"),
    ],
)  # fmt: skip
def test_what_stays(body: str, reason: str) -> None:
    head = f"(float[2,3] x, float e) => (float[2,2] y) <{K}, uint8 zero = {{7}}, float[2,1] rows = {{0.1, 0.2}}, float[1,1,2] deep = {{0.1, 0.2}}> "
    keep(PASS, head + Q + body, reason)


def test_case_3_integers_that_nobody_explains() -> None:
    graph = f"(uint8[2,3] a) => (float[2,2] y) <{K}> {{ [p] p = MatMulInteger(a, w, z)" + BEHIND
    keep(PASS, graph, "nothing tells the scale")


def test_a_missing_zero_point_is_zero() -> None:
    graph = f"(float[2,3] x) => (float[2,2] y) <{K.replace('120', '0')}> " + Q + "[p] p = MatMulInteger(a, w)" + BEHIND
    assert PASS.run(text.parse(model(graph)).graph, default_context()).rewrites == 1


def test_a_factor_and_a_scale_of_rank_0() -> None:
    """Found by random graphs: numpy makes a scalar, which is no array, of the quotient of two arrays of rank 0."""
    g = Qdq()
    q, zero = g.q(g.data(2, 6, 40), 0.0413, 117), g.constant(117, "uint8")
    w = g.constant(np.random.default_rng(3).integers(-127, 128, (40, 8)), "int8")
    g.raw(g.op("Mul", g.op("Cast", g.op("MatMulInteger", q, w, zero), to=1), g.constant(0.0413 * 0.004)))
    made = g.fuse(PASS)
    assert made.reports[0].rewrites == 1
    assert made.gap < 1e-4
