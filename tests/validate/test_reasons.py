"""For each reason: the cause keeps the operator in float; without it, ORT's own graph has it in an integer kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sentences import sentences, unsaid

from onnxq.validate import reasons
from onnxq.validate.coverage import coverage
from onnxq.validate.network import read
from onnxq.validate.reasons import NOT_QUANTIZED, UNKNOWN, Reasons

S8: dict[str, Any] = {"zero": 0, "dtype": "int8"}


def conv(n: Any, *, x: str = "", w: str = "", out: str = "y", q: bool = True, **attrs: Any) -> str:
    """DQ -> Conv (node "it") -> Q -> DQ."""
    n.op("Conv", x or n.pair("x", "xd"), w or n.int8(4, 4, 1, 1, name="w"), out="it", **attrs)
    return str(n.pair("it", out) if q else "it")


def case_float_weight(n: Any, broken: bool) -> None:
    w = n.weight(4, 6, name="w") if broken else n.int8(4, 6, name="w")
    n.op("MatMul", n.pair("x", "xd"), w, out="it")
    n.result(n.pair("it", "y"))


def case_output_not_quantized(n: Any, broken: bool) -> None:
    n.result(n.op("Sin", conv(n, q=not broken), out="z"))


def case_output_is_graph_output(n: Any, broken: bool) -> None:
    n.result(conv(n, q=not broken))


def case_also_graph_output(n: Any, broken: bool) -> None:
    n.result(conv(n))
    if broken:
        n.result("it")


def case_also_read_in_float(n: Any, broken: bool) -> None:
    n.result(conv(n))
    n.result(n.op("Sin", "it" if broken else "y", out="z"))


def case_two_quantizers(n: Any, broken: bool) -> None:
    n.result(conv(n))
    if broken:
        n.result(n.pair("it", "y2", scale=0.05))
    else:
        n.result(n.op("DequantizeLinear", "y_q", "y_s", "y_z", out="y2"))


def case_equal_quantizers(n: Any, broken: bool) -> None:
    n.result(conv(n))
    if broken:
        n.result(n.pair("it", "y2"))
    else:
        n.result(n.dq(n.op("QuantizeLinear", "it", "y_q_s", "y_q_z", out="other"), "y2"))


def case_input_not_quantized(n: Any, broken: bool) -> None:
    s = n.op("Sin", "x", out="s")
    n.result(conv(n, x=s if broken else n.pair(s, "sd")))


def case_weight_axis(n: Any, broken: bool) -> None:
    w = n.int8(6, 4, 1, 1, name="w", scale=[0.001] * (4 if broken else 6), axis=int(broken))
    n.op("Conv", n.pair("x", "xd"), w, n.weight(6, name="b"), out="it")
    n.result(n.pair("it", "y"))


def case_scale_per_channel(n: Any, broken: bool) -> None:
    how: dict[str, Any] = {"scale": [0.02] * 64, "axis": 1} if broken else {}
    n.op("Gemm", n.pair(n.op("Flatten", "x", out="f"), "fd", **how), n.int8(64, 8, name="w"), out="it")
    n.result(n.pair("it", "y"))


def case_output_scale_per_channel(n: Any, broken: bool) -> None:
    how: dict[str, Any] = {"scale": [0.02] * 8, "axis": 1} if broken else {}
    n.op("Gemm", n.pair(n.op("Flatten", "x", out="f"), "fd"), n.int8(64, 8, name="w"), bias32(n), out="it")
    n.result(n.pair("it", "y", **how))


def case_computed_scale(n: Any, broken: bool) -> None:
    s = n.op("ReduceMax", "x", out="s", keepdims=0) if broken else n.const(0.02, "s")
    z = n.const(128, "z", "uint8")
    a = n.op("DequantizeLinear", n.op("QuantizeLinear", "x", s, z, out="xq"), s, z, out="xd")
    n.op("Transpose", a, out="it", perm=[0, 2, 3, 1])
    b = n.op("DequantizeLinear", n.op("QuantizeLinear", "it", s, z, out="yq"), s, z, out="y")
    n.result(b)


def case_sixteen_bits(n: Any, broken: bool) -> None:
    how: dict[str, Any] = {"zero": 1000, "dtype": "uint16"} if broken else {}
    n.op("Add", n.pair("x", "xd", **how), n.pair("x", "xe", **how), out="it")
    n.result(n.pair("it", "y", **how))


def case_mixed_inputs(n: Any, broken: bool) -> None:
    how = S8 if broken else {}
    xq = n.q("x", "xq", **how)
    n.result(n.op("Sin", n.dq(xq, "branch", **how), out="z"))  # else ORT turns the int8 into uint8
    n.op("Add", n.pair(n.op("Cos", "x", out="c"), "cd"), n.dq(xq, "xd", **how), out="it")
    n.result(n.pair("it", "y"))


def case_mixed_output(n: Any, broken: bool) -> None:
    n.op("Sigmoid", n.pair("x", "xd"), out="it")
    yq = n.q("it", "yq", **(S8 if broken else {}))
    n.result(n.dq(yq, "y", **(S8 if broken else {})))
    n.result(n.op("Sin", n.dq(yq, "y2", **(S8 if broken else {})), out="z"))


def case_int8_input(n: Any, broken: bool) -> None:
    """A Q with two DQ: ORT's rewrite to uint8 does not apply."""
    how = S8 if broken else {}
    xq = n.q("x", "xq", **how)
    n.result(n.op("Sin", n.dq(xq, "branch", **how), out="z"))
    n.op("Conv", n.dq(xq, "xd", **how), n.int8(4, 4, 1, 1, name="w"), out="it")
    yq = n.q("it", "yq", **how)
    n.result(n.dq(yq, "y", **how))
    n.result(n.op("Cos", n.dq(yq, "y2", **how), out="z2"))


def case_no_zero_point(n: Any, broken: bool) -> None:
    how: dict[str, Any] = {"dtype": None} if broken else {"zero": 0}
    n.op("Transpose", n.pair("x", "xd", **how), out="it", perm=[0, 2, 3, 1])
    n.result(n.pair("it", "y", **how))


def case_no_zero_point_behind(n: Any, broken: bool) -> None:
    n.op("Transpose", n.pair("x", "xd", zero=0), out="it", perm=[0, 2, 3, 1])
    n.result(n.pair("it", "y", zero=0, dtype=None if broken else "uint8"))


def case_other_parameters(n: Any, broken: bool) -> None:
    n.op("Flatten", n.pair("x", "xd"), out="it")
    n.result(n.pair("it", "y", scale=0.03 if broken else 0.02))


def case_float_operand(n: Any, broken: bool) -> None:
    b = n.weight(1, 4, 1, 1, name="b")
    n.op("Add", n.pair("x", "xd"), b if broken else n.pair(b, "bd"), out="it")
    n.result(n.pair("it", "y"))


def case_relu_not_redundant(n: Any, broken: bool) -> None:
    conv(n, q=False)
    n.op("Relu", "it", out="r")
    n.result(n.pair("r", "y", zero=128 if broken else 0))


def case_clip_not_redundant(n: Any, broken: bool) -> None:
    conv(n, q=False)
    n.op("Clip", "it", n.const(0.0, "lo"), n.const(6.0, "hi"), out="r")
    n.result(n.pair("r", "y", zero=0, scale=0.05 if broken else 0.0235))


def case_relu_alone(n: Any, broken: bool) -> None:
    n.op("Relu", n.pair("x", "xd"), out="it")
    n.result(n.pair("it", "y", zero=7 if broken else 0))


def case_relu_behind_nothing(n: Any, broken: bool) -> None:
    n.op("Relu", n.pair("x", "xd"), out="it")
    n.result(n.op("Sin", "it" if broken else n.pair("it", "y", zero=0), out="z"))


def case_relu_also_read(n: Any, broken: bool) -> None:
    n.op("Relu", n.pair("x", "xd"), out="it")
    n.result(n.pair("it", "y", zero=0))
    n.result(n.op("Sin", "it" if broken else "y", out="z"))


def case_clip_bounds(n: Any, broken: bool) -> None:
    low = n.op("ReduceMin", "x", out="lo", keepdims=0) if broken else n.const(0.0, "lo")
    n.op("Clip", n.pair("x", "xd"), low, out="it")
    n.result(n.pair("it", "y", zero=0))


def case_resize_mode(n: Any, broken: bool) -> None:
    mode = "linear" if broken else "nearest"
    n.op("Resize", n.pair("x", "xd"), "", n.const([1, 1, 2, 2], "sc"), out="it", mode=mode)
    n.result(n.pair("it", "y"))


def gemm(n: Any, bias: str, *, q: bool, **attrs: Any) -> None:
    n.op("Flatten", "x", out="f")
    n.op("Gemm", n.pair("f", "fd"), n.int8(64, 8, name="w"), bias, out="it", **attrs)
    n.result(n.pair("it", "y") if q else n.op("Sin", "it", out="z"))


def bias32(n: Any) -> str:
    return str(n.dq(n.const([3] * 8, "b", "int32"), "bd", scale=0.02 * 0.001, zero=0, dtype="int32"))


def case_gemm_bias(n: Any, broken: bool) -> None:
    gemm(n, n.weight(8, name="b") if broken else bias32(n), q=False)


def case_gemm_bias_type(n: Any, broken: bool) -> None:
    gemm(n, n.int8(8, name="bi") if broken else bias32(n), q=True)


def case_gemm_alpha(n: Any, broken: bool) -> None:
    gemm(n, bias32(n), q=True, alpha=0.5 if broken else 1.0)


def case_matmul_axis(n: Any, broken: bool) -> None:
    w = n.int8(4, 6, name="w", scale=[0.001] * (4 if broken else 6), axis=0 if broken else 1)
    n.op("Gemm", n.pair(n.op("Flatten", "x", out="f", axis=3), "fd"), w, out="it")
    n.result(n.pair("it", "y"))


def case_matmul_add(n: Any, broken: bool) -> None:
    n.op("MatMul", n.pair("x", "xd"), n.int8(4, 6, name="w"), out="it")
    n.op("Add", "it", n.weight(6, name="b"), out="a")
    n.result(n.op("Sin", "a" if broken else n.pair("a", "y"), out="z"))


def case_weight_at_run_time(n: Any, broken: bool) -> None:
    w = n.op("Reshape", n.op("Sin", "x", out="s"), n.const([4, 4, 4, 1], "shape", "int64"), out="w")
    n.op("Conv", n.pair("x", "xd"), w if broken else n.pair(w, "wd"), out="it")
    n.result(n.pair("it", "y"))


def case_input_is_graph_input(n: Any, broken: bool) -> None:
    n.result(conv(n, x="x" if broken else ""))


def case_nobody_reads_it(n: Any, broken: bool) -> None:
    conv(n, q=False)
    n.result(n.op("Sin", "x", out="z") if broken else n.pair("it", "y"))


def case_scale_per_block(n: Any, broken: bool) -> None:
    values = n.const(n.rng.integers(-127, 128, (64, 6)), "w_v", "int8")
    how: dict[str, Any] = {"scale": [[0.001] * 6] * 4, "axis": 0, "block_size": 16} if broken else {"scale": 0.001}
    w = n.dq(values, "w", zero=0, dtype="int8", **how)
    n.op("Gemm", n.pair(n.op("Flatten", "x", out="f"), "fd"), w, out="it")
    n.result(n.pair("it", "y"))


def case_gemm_int8_by_uint8(n: Any, broken: bool) -> None:
    """A Q with two DQ, as above; with an int8 weight there is a kernel for that."""
    xq = n.q(n.op("Flatten", "x", out="f"), "xq", **S8)
    n.result(n.op("Sin", n.dq(xq, "branch", **S8), out="z"))
    if broken:
        w = n.dq(n.const(n.rng.integers(0, 256, (64, 8)), "w_v", "uint8"), "w", scale=0.001)
    else:
        w = n.int8(64, 8, name="w")
    n.op("Gemm", n.dq(xq, "xd", **S8), w, out="it")
    n.result("it")


def case_matmul_scaled(n: Any, broken: bool) -> None:
    """ORT makes one FusedMatMul of a MatMul and the factor of its input."""
    a = n.pair("x", "xd")
    n.op("MatMul", n.op("Mul", a, n.const(0.5, "k"), out="half") if broken else a, n.int8(4, 6, name="w"), out="it")
    n.result(n.pair("it", "y"))


def relu(n: Any) -> str:
    return str(n.op("Relu", n.pair("x", "xd"), out="it"))


def clip(n: Any) -> str:
    return str(n.op("Clip", n.pair("x", "xd"), n.const(0.0, "lo"), n.const(6.0, "hi"), out="it"))


def case_relu_is_output(n: Any, broken: bool) -> None:
    n.result(n.pair(relu(n), "y", zero=0))
    if broken:
        n.result("it")


def case_relu_two_quantizers(n: Any, broken: bool) -> None:
    n.result(n.pair(relu(n), "y", zero=0))
    if broken:
        n.result(n.pair("it", "y2", zero=0, scale=0.05))


def case_relu_equal_quantizers(n: Any, broken: bool) -> None:
    n.result(n.pair(relu(n), "y", zero=0))
    if broken:
        n.result(n.pair("it", "y2", zero=0))
    else:
        n.result(n.dq(n.op("QuantizeLinear", "it", "y_q_s", "y_q_z", out="other"), "y2", zero=0))


def case_relu_scale_per_channel(n: Any, broken: bool) -> None:
    how: dict[str, Any] = {"scale": [0.02] * 4, "axis": 1} if broken else {}
    n.result(n.pair(relu(n), "y", zero=0, **how))


def case_relu_no_zero_point(n: Any, broken: bool) -> None:
    n.result(n.pair(relu(n), "y", zero=0, dtype=None if broken else "uint8"))


def case_clip_computed_scale(n: Any, broken: bool) -> None:
    scale = n.op("ReduceMax", "x", out="s", keepdims=0) if broken else n.const(0.02, "s")
    quantized = n.op("QuantizeLinear", clip(n), scale, n.const(0, "z", "uint8"), out="q")
    n.result(n.op("DequantizeLinear", quantized, scale, "z", out="y"))


def case_clip_scale_rank(n: Any, broken: bool) -> None:
    n.result(n.pair(clip(n), "y", zero=0, scale=[0.02] if broken else 0.02))


NEEDS = "its output is not quantized ({}), and its integer kernel needs a QuantizeLinear right behind"
CASES: list[tuple[Callable[[Any, bool], None], str]] = [
    (case_float_weight, "its weight is float"),
    (case_output_not_quantized, NEEDS.format("it is read by Sin")),
    (case_output_is_graph_output, NEEDS.format("it is an output of the graph")),
    (case_also_graph_output, "its output is quantized, but is also an output of the graph in float"),
    (case_also_read_in_float, "its output is quantized, but is also read in float by Sin"),
    (case_two_quantizers, "its output is quantized by 2 QuantizeLinear with different parameters"),
    (case_equal_quantizers, "its output is quantized by 2 QuantizeLinear with equal parameters in different tensors"),
    (case_input_not_quantized, "its input 0, from Sin, is not quantized"),
    (case_weight_axis, "its weight has its scales along axis 1, and ONNX Runtime wants axis 0"),
    (case_scale_per_channel, "its input 0 has one scale per channel, which only weights may have"),
    (case_output_scale_per_channel, "its output has one scale per channel or a scale that is not constant"),
    (case_computed_scale, "the scale of its input 0 is not a constant"),
    (case_sixteen_bits, "its input is uint16: ONNX Runtime has integer kernels for 8 bits only"),
    (case_mixed_inputs, "its inputs have different types (int8 and uint8)"),
    (case_mixed_output, "its input is uint8, but its output int8"),
    (case_int8_input, "its input is int8, and ONNX Runtime on x86 has fast kernels for uint8 inputs only"),
    (case_no_zero_point, "the DequantizeLinear of its input 0 has no zero point"),
    (case_no_zero_point_behind, "the QuantizeLinear behind it has no zero point"),
    (case_other_parameters, "the QuantizeLinear behind it has other parameters than the DequantizeLinear before it"),
    (case_float_operand, 'its constant operand "b" is float'),
    (
        case_relu_not_redundant,
        "the Relu behind it stays: the QuantizeLinear behind the Relu covers -2.56 to 2.54, which goes beyond 0 to inf",
    ),
    (
        case_clip_not_redundant,
        "the Clip behind it stays: the QuantizeLinear behind the Clip covers 0 to 12.75, which goes beyond 0 to 6",
    ),
    (case_relu_alone, "the QuantizeLinear behind the Relu covers -0.14 to 4.96, which goes beyond 0 to inf"),
    (case_relu_behind_nothing, "no QuantizeLinear behind the Relu makes it redundant"),
    (case_relu_also_read, "the output of the Relu is also read in float"),
    (case_clip_bounds, "the bounds of the Clip are not constants"),
    (case_resize_mode, "ONNX Runtime has no integer kernel for Resize with interpolation"),
    (case_gemm_bias, "its bias is float and no QuantizeLinear follows: one of the two must be quantized"),
    (case_gemm_bias_type, "its bias is int8 and must be int32"),
    (case_gemm_alpha, "it has a bias and an alpha or beta other than 1"),
    (case_matmul_axis, "its weight has its scales along axis 0, and ONNX Runtime wants axis 1"),
    (case_matmul_add, "ONNX Runtime merged it with the float Add behind it into a float Gemm"),
    (case_weight_at_run_time, "its weight, computed at run time by Reshape, is not quantized"),
    (case_input_is_graph_input, 'its input 0 "x" is not quantized'),
    (case_nobody_reads_it, NEEDS.format("nobody reads it")),
    (case_scale_per_block, "its weight has one scale per block"),
    (case_gemm_int8_by_uint8, "its input is int8 and its weight uint8"),
    (case_matmul_scaled, "its input 0, from Mul, is not quantized"),
    (case_relu_is_output, "the output of the Relu is also an output of the graph in float"),
    (case_relu_two_quantizers, "the output of the Relu is quantized by 2 QuantizeLinear with different parameters"),
    (
        case_relu_equal_quantizers,
        "the output of the Relu is quantized by 2 QuantizeLinear with equal parameters in different tensors",
    ),
    (case_relu_scale_per_channel, "the QuantizeLinear behind the Relu has one scale per channel"),
    (case_relu_no_zero_point, "the QuantizeLinear behind the Relu has no zero point"),
    (case_clip_computed_scale, "the scale of the QuantizeLinear behind the Clip is not a constant"),
    (case_clip_scale_rank, "the scale of the QuantizeLinear behind the Clip is not a scalar"),
]

INSIDE = 'its input 0 "x" is not quantized (it stands inside If_2/then_branch)'
OUTSIDE = "the DequantizeLinear of its input 0 stands outside of If_2/else_branch"
NO_KERNEL = "ONNX Runtime has no integer kernel for {}"


@pytest.mark.parametrize(("case", "reason"), CASES, ids=[c.__name__[5:] for c, _ in CASES])
def test_cause_and_cure(net: Any, saved: Any, case: Callable[[Any, bool], None], reason: str) -> None:
    found = {}
    for broken in (True, False):
        n = net(1, 4, 4, 4)
        case(n, broken)
        ops = coverage(saved(n.model())).ops
        found[broken] = next(o for o in ops if o.name == "it")
    assert not found[True].integer
    assert reason == found[True].reason
    assert found[False].integer, found[False].reason
    assert found[False].reason == ""


def test_no_integer_kernel_and_a_neighbour_that_has_one(net: Any, saved: Any) -> None:
    n = net(1, 4, 4, 4)
    for op in ("Tanh", "Sigmoid"):
        n.op(op, n.pair("x", f"{op}_d"), out=op)
        n.result(n.pair(op, f"{op}_y"))
    tanh, sigmoid = coverage(saved(n.model())).ops
    assert (tanh.integer, tanh.reason) == (False, NO_KERNEL.format("Tanh"))
    assert (sigmoid.integer, sigmoid.kernel) == (True, "QLinearSigmoid")


def space_to_depth(n: Any) -> None:
    n.op("SpaceToDepth", n.pair("x", "xd"), out="it", blocksize=2)


def conv_transpose(n: Any) -> None:
    n.op("ConvTranspose", n.pair("x", "xd"), n.int8(4, 4, 1, 1, name="w"), out="it")


def layer_norm(n: Any) -> None:
    n.op("LayerNormalization", n.pair("x", "xd"), n.int8(4, name="w"), out="it")


def lstm(n: Any) -> None:
    rows = n.op("Reshape", "x", n.const([4, 1, 16], "sh", "int64"), out="rows")
    n.op("LSTM", n.pair(rows, "xd"), n.int8(1, 8, 16, name="w"), n.int8(1, 8, 2, name="r"), out="it", hidden_size=2)


@pytest.mark.parametrize("case", [space_to_depth, conv_transpose, layer_norm, lstm], ids=lambda c: c.__name__)
def test_no_integer_kernel_has_no_cure(net: Any, saved: Any, case: Callable[[Any], None]) -> None:
    """With nothing wrong around it, today's ORT runs the operator in float all the same."""
    n = net(1, 4, 4, 4)
    case(n)
    n.result(n.pair("it", "y"))
    (it,) = [o for o in coverage(saved(n.model())).ops if o.name == "it"]
    assert (it.integer, it.reason) == (False, NO_KERNEL.format(it.op))


def test_float_model_and_its_quantized_form(net: Any, saved: Any) -> None:
    n = net(1, 4, 4, 4)
    n.result(n.op("Conv", "x", n.weight(4, 4, 1, 1, name="w"), out="it"))
    (it,) = coverage(saved(n.model())).ops
    assert (it.integer, it.kernel, it.reason) == (False, "Conv", NOT_QUANTIZED)
    n = net(1, 4, 4, 4)
    case_input_not_quantized(n, broken=False)
    assert [o.reason for o in coverage(saved(n.model())).ops if o.name == "it"] == [""]


BODY = """g (bool c, float[1,4] x) => (float[1,4] y) {
  q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)
  y = If(c) <then_branch = t () => (float[1,4] a) { a = Sigmoid(x) }, else_branch = e () => (float[1,4] b) {
    k = Sigmoid(d)  kq = QuantizeLinear(k, s, z)  b = DequantizeLinear(kq, s, z) }> }"""


def test_inside_a_body(build: Any, saved: Any) -> None:
    values = {"s": np.array(0.02, np.float32), "z": np.array(128, np.uint8)}
    left, right = coverage(saved(build(BODY, **values))).ops
    assert left.path == ("If_2/then_branch",)
    assert left.reason == INSIDE
    assert right.reason == OUTSIDE
    cured = BODY.replace("k = Sigmoid(d)", "d2 = DequantizeLinear(q, s, z) k = Sigmoid(d2)")
    assert [o.integer for o in coverage(saved(build(cured, **values))).ops] == [False, True]
    cured = cured.replace("a = Sigmoid(x)", "e = DequantizeLinear(q, s, z) f = Sigmoid(e) g = QuantizeLinear(f, s, z)")
    cured = cured.replace("g = QuantizeLinear(f, s, z)", "g = QuantizeLinear(f, s, z) a = DequantizeLinear(g, s, z)")
    assert [o.integer for o in coverage(saved(build(cured, **values))).ops] == [True, True]


def test_an_operator_with_nothing_wrong_about_it_is_unknown(net: Any, saved: Any) -> None:
    """ORT makes each of these integer, so nobody asks; asked all the same, onnxq owns up to not knowing."""
    for case in (case_float_weight, case_relu_alone, case_clip_scale_rank, case_other_parameters):
        n = net(1, 4, 4, 4)
        case(n, broken=False)
        file = read(saved(n.model()))
        assert Reasons(file).reason(file.nodes["it"][1], None) == UNKNOWN


def test_every_reason_has_a_case() -> None:
    """A reason that is added to the module without its cause and cure above fails here."""
    proven = [reason for _, reason in CASES] + [INSIDE, OUTSIDE, NO_KERNEL.format("Tanh"), NOT_QUANTIZED, UNKNOWN]
    assert unsaid(sentences(reasons), proven) == []
    assert unsaid(sentences(reasons), proven[1:]) == [r"its\ weight\ is\ float"]
