"""What the planner decides, read from the plan, and checked in ONNX Runtime at every optimization level."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from quantized import Result, quantize_text

from onnxq.encoding import PerChannel, PerTensor, Scheme
from onnxq.numerics import affine
from onnxq.plan.plan import Placement, Use, Value
from onnxq.plan.planner import _within
from onnxq.runtime.session import Level

PADS = "<pads=[1,1,1,1]>"
W = "float[4,4,3,3] W = {0}"


def graph(
    body: str, *, ins: str = "float[1,4,8,8] x", outs: str = "float[1,4,8,8] y", inits: str = W, opset: int = 21
) -> str:
    head = f'<ir_version: 10, opset_import: ["": {opset}]>'
    return f"{head} g ({ins}) => ({outs}) <{inits}> {{ {body} }}"


def sqnr(exact: np.ndarray, other: np.ndarray) -> float:
    noise = float(((exact.astype(np.float64) - other) ** 2).sum())
    return float("inf") if noise == 0 else 10 * np.log10(float((exact.astype(np.float64) ** 2).sum()) / noise)


def assert_near(result: Result, *, decibels: float = 25.0, same_at_all_levels: bool = True) -> None:
    """The Q/DQ file is near the float model, and ORT's optimizer does not change what it means."""
    exact = result.run(original=True)
    literal = result.run(Level.OFF)
    for name, value in exact.items():
        assert sqnr(value, literal[name]) > decibels, name
    if same_at_all_levels:
        for level in (Level.BASIC, Level.EXTENDED, Level.ALL):
            for name, value in result.run(level).items():
                # one step of the output at most: integer kernels of Add, Mul and pools round once instead of twice
                assert sqnr(literal[name], value) > decibels + 5, (level, name)


def initializers(result: Result) -> dict[str, np.ndarray]:
    proto = onnx.load_from_string(result.file)
    return {i.name: numpy_helper.to_array(i) for i in proto.graph.initializer}


def test_relu_is_absorbed_and_the_bias_scale_is_exact() -> None:
    text = graph(f"c = Conv {PADS} (x, W, b) y = Relu(c)", inits=W + ", float[4] b = {0.1, -0.2, 0.3, 0}")
    result = quantize_text(text)
    assert Value((), "c") not in result.plan.values
    out = result.plan.values[Value((), "y")]
    assert (out.type, int(out.zero_point)) == ("uint8", 0)
    data, weight, bias = (result.plan.uses[Use((), "Conv_0", s)] for s in range(3))
    assert weight.granularity == PerChannel(0) == bias.granularity
    np.testing.assert_array_equal(bias.scale, data.scale * weight.scale)
    assert not bias.zero_point.any()
    assert_near(result)


def test_the_range_of_an_absorbed_clip_lies_inside_it_to_the_last_bit() -> None:
    """As float32 products, which is how ONNX Runtime looks: found by a random network (Clip from -3)."""
    beyond = 0
    for bound in np.linspace(0.1, 7, 200, dtype=np.float32).astype(float):
        for span in (1.3, 9.107, 40.0):
            plain = affine(-bound, span, Scheme(type="uint8", symmetric=False))
            beyond += bool(np.float32(-int(plain.zero_point)) * plain.scale < -bound)
            inside = _within(plain, (-float(bound), float("inf")))
            assert np.float32(-int(inside.zero_point)) * inside.scale >= -bound
            assert inside.scale >= plain.scale * (1 - 1 / max(int(plain.zero_point), 1))
    assert beyond > 100


@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (-1.0, 1.0), (-0.1, 0.05)])
def test_clip_is_absorbed_by_a_range_inside_its_bounds(low: float, high: float) -> None:
    text = graph(
        f"c = Conv {PADS} (x, W) y = Clip(c, lo, hi)", inits=f"{W}, float lo = {{{low}}}, float hi = {{{high}}}"
    )
    result = quantize_text(text)
    real = result.plan.values[Value((), "y")].real_range
    assert real[0] >= low * (1 + 1e-6) - 1e-9 and real[1] <= high * (1 + 1e-6)
    assert result.kernels()["Clip"] == 0
    assert_near(result, decibels=20)


@pytest.mark.parametrize("form", ["file int32", "file float"])
def test_a_bias_that_overflows_int32_is_repaired(form: str) -> None:
    """onnxruntime #22020, #21645: a tiny weight scale makes bias / (sx * sw) overflow."""
    weights = np.random.default_rng(0).normal(0, 0.1, (4, 4, 3, 3)).astype(np.float32)
    weights[1] *= 1e-9
    weights[2] = 0
    text = graph(f"y = Conv {PADS} (x, W, b)", inits=W + ", float[4] b = {5.0, 5.0, -7.0, 0.5}")
    result = quantize_text(text, constants={"W": weights}, target="cpu" if form == "file int32" else "tensorrt")
    assert any("would overflow int32" in n for n in result.plan.notes)
    assert_near(result)
    text = graph(f"y = Conv {PADS} (x, W, b)", inits=W + ", float[4] b = {0.1, 0.1, 0.1, 0.1}")
    assert not quantize_text(text).plan.notes


def test_gemm_keeps_a_float_output_with_an_int32_bias() -> None:
    for trans, shape in ((0, "8,4"), (1, "4,8")):
        text = graph(
            f"y = Gemm <transB={trans}> (x, W, b)",
            ins="float[2,8] x",
            outs="float[2,4] y",
            inits=f"float[{shape}] W = {{0}}, float[4] b = {{1, 2, 3, 4}}",
        )
        result = quantize_text(text)
        assert Value((), "y") not in result.plan.values
        assert result.plan.uses[Use((), "Gemm_0", 1)].granularity == PerChannel(1 - trans)
        assert result.kernels()["QGemm"] == 1
        assert_near(result)


@pytest.mark.parametrize(("dim", "kernel"), [("2", "QGemm"), ("n", "MatMulIntegerToFloat")])
def test_matmul_with_a_bias_is_integer_with_static_and_dynamic_shapes(dim: str, kernel: str) -> None:
    text = graph(
        "m = MatMul(x, W) a = Add(m, b) y = Erf(a)",
        ins=f"float[{dim},3,8] x",
        outs=f"float[{dim},3,8] y",
        inits="float[8,8] W = {0}, float[8] b = {1,2,3,4,5,6,7,8}",
    )
    result = quantize_text(text)
    assert result.kernels()[kernel] == 1, result.kernels()
    assert_near(result)


def test_a_weight_vector_is_integer_with_one_scale() -> None:
    text = graph("m = MatMul(x, W) y = Neg(m)", ins="float[2,8] x", outs="float[2] y", inits="float[8] W = {0}")
    result = quantize_text(text)
    assert result.plan.uses[Use((), "MatMul_0", 1)].granularity == PerTensor()
    assert result.kernels()["MatMulIntegerToFloat"] == 1
    assert_near(result)


def test_one_output_channel_has_one_scale_of_rank_0() -> None:
    """Per channel and per tensor are the same there, and ONNX Runtime looks for redundant Clips by rank 0."""
    inits = "float[1,4,3,3] W = {0}, float[1] b = {0.5}"
    result = quantize_text(graph(f"[c] y = Conv {PADS} (x, W, b)", outs="float[1,1,8,8] y", inits=inits))
    assert result.plan.uses[Use((), "c", 1)].granularity == PerTensor()
    scales = [v for v in initializers(result).values() if v.dtype == np.float32]
    assert scales
    assert all(v.ndim == 0 for v in scales)
    assert result.kernels()["QLinearConv"] == 1
    assert_near(result)


def test_square_matmul_weights_are_scaled_along_the_columns() -> None:
    """onnxruntime accepts scales along the rows of a square weight and computes something else, silently."""
    weights = np.random.default_rng(0).normal(0, 1, (8, 8)).astype(np.float32) * np.logspace(-2, 1, 8, dtype=np.float32)
    text = graph(
        "m = MatMul(x, W) y = MatMul(m, V)",
        ins="float[2,8] x",
        outs="float[2,4] y",
        inits="float[8,8] W = {0}, float[8,4] V = {0}",
    )
    result = quantize_text(text, constants={"W": weights})
    assert result.plan.uses[Use((), "MatMul_0", 1)].granularity == PerChannel(1)
    assert_near(result, decibels=20)


def test_residual_block_has_one_encoding_per_tensor() -> None:
    text = graph(
        f"a = Conv {PADS} (x, W) r = Relu(a) b = Conv {PADS} (r, W) s = Add(b, r) t = Relu(s) y = Conv {PADS} (t, W)"
    )
    result = quantize_text(text)
    assert set(result.kernels()) <= {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearAdd", "Transpose"}
    assert (
        result.plan.uses[Use((), "Conv_2", 0)]
        == result.plan.uses[Use((), "Add_3", 1)]
        == result.plan.values[Value((), "r")]
    )
    assert_near(result)


def test_movement_keeps_the_encoding() -> None:
    text = graph(
        f"a = Conv {PADS} (x, W) p = MaxPool <kernel_shape=[2,2], strides=[2,2]> (a) y = Conv {PADS} (p, W)",
        outs="float[1,4,4,4] y",
    )
    result = quantize_text(text)
    assert result.plan.values[Value((), "p")] == result.plan.values[Value((), "a")]
    assert result.kernels()["NhwcMaxPool"] == 1
    assert_near(result)


def test_tied_weights_are_written_once() -> None:
    """onnxruntime #21277: shared weights break other tools."""
    result = quantize_text(graph(f"a = Conv {PADS} (x, W) y = Conv {PADS} (a, W)"))
    assert [n for n in initializers(result) if n.startswith("W")] == ["W_quantized", "W_scale", "W_zero_point"]
    assert_near(result)


def test_a_graph_output_in_the_middle_keeps_name_and_type() -> None:
    text = graph(f"a = Conv {PADS} (x, W) y = Conv {PADS} (a, W)", outs="float[1,4,8,8] a, float[1,4,8,8] y")
    result = quantize_text(text)
    assert result.kernels()["QLinearConv"] == 2
    assert list(result.run()) == ["a", "y"]
    assert_near(result)


def test_float_weights_between_dq_and_q_stay_float() -> None:
    """ONNX Runtime would quantize them per tensor at load, in spite of keep_float."""
    for op in ("Conv", "ConvTranspose"):
        weights = np.random.default_rng(0).normal(0, 0.1, (4, 4, 3, 3)).astype(np.float32)
        weights[0] *= 300
        text = graph(
            f"a = Conv {PADS} (x, W) [keep] b = {op} {PADS} (a, V) c = Relu(b) y = Conv {PADS} (c, W)",
            inits=W + ", float[4,4,3,3] V = {0}",
        )
        result = quantize_text(text, keep_float=["keep"], constants={"V": weights})
        assert isinstance(result.plan.uses[Use((), "keep", 0)].granularity, PerChannel)
        assert_near(result)


def test_below_opset_13_weights_have_one_scale() -> None:
    """onnxruntime's tool writes DequantizeLinear with an axis at opset 9, which is invalid."""
    result = quantize_text(graph(f"y = Conv {PADS} (x, W)", opset=12))
    assert result.plan.uses[Use((), "Conv_0", 1)].granularity == PerTensor()
    assert_near(result)


def test_reduced_range_uses_seven_bits() -> None:
    result = quantize_text(graph(f"y = Conv {PADS} (x, W)"), reduce_range=True)
    weights = initializers(result)["W_quantized"]
    assert np.abs(weights).max() == 63
    assert any("7 bits" in n for n in result.plan.notes)


class TestTensorRT:
    def test_only_inputs_of_weighted_ops_are_quantized(self) -> None:
        text = graph(
            f"a = Conv {PADS} (x, W, b) r = Relu(a) y = Conv {PADS} (r, W)", inits=W + ", float[4] b = {1,2,3,4}"
        )
        result = quantize_text(text, target="tensorrt")
        assert set(result.plan.values) == {Value((), "x"), Value((), "r")}
        for encoding in (*result.plan.values.values(), *result.plan.uses.values()):
            assert encoding.type == "int8" and not encoding.zero_point.any()
        assert Use((), "Conv_0", 2) not in result.plan.uses
        assert_near(result)

    def test_the_shortcut_of_a_residual_add_is_quantized_and_not_the_convolution(self) -> None:
        text = graph(f"a = Conv {PADS} (x, W) b = Conv {PADS} (a, W) y = Add(b, a)")
        result = quantize_text(text, target="tensorrt")
        assert result.plan.use((), "Add_2", 1) == result.plan.values[Value((), "a")]
        assert Use((), "Add_2", 0) not in result.plan.uses
        assert_near(result)

    def test_an_add_without_convolution_is_left_alone(self) -> None:
        text = graph(f"a = Sin(x) b = Cos(x) s = Add(a, b) y = Conv {PADS} (s, W)")
        assert not [u for u in quantize_text(text, target="tensorrt").plan.uses if u.node == "Add_2"]

    def test_conv_transpose_is_scaled_along_its_output_channels(self) -> None:
        """onnxruntime #19694: the wrong axis."""
        result = quantize_text(graph("y = ConvTranspose <pads=[1,1,1,1]> (x, W)"), target="tensorrt")
        assert result.plan.uses[Use((), "ConvTranspose_0", 1)].granularity == PerChannel(1)
        axes = {a.i for n in onnx.load_from_string(result.file).graph.node for a in n.attribute if a.name == "axis"}
        assert axes == {1}
        assert_near(result)


def test_the_plan_is_readable_and_deterministic() -> None:
    text = graph(f"a = Conv {PADS} (x, W) y = Sin(a)")
    first, second = (quantize_text(text).plan.to_json() for _ in range(2))
    assert first == second
    plan = json.loads(first)
    assert plan["decisions"]["Sin_1"] == {
        "op": "Sin",
        "integer": False,
        "reason": "cpu has no integer kernel for Sin",
        "heavy": False,
    }
    assert [v["tensor"] for v in plan["values"]] == ["a", "x"]
    assert {u["slot"] for u in plan["uses"]} == {0, 1}


def test_a_table_that_is_read_in_8_bits_stays_float() -> None:
    """A Gather of a constant has no data with a range; an eager placement, which pulls moves in, asks for none."""
    text = graph(
        "g = Gather(e, i) y = MatMul(g, w)",
        ins="int64[3] i",
        outs="float[3,4] y",
        inits="float[2,4] e = {0}, float[4,4] w = {0}",
    )
    result = quantize_text(text, placement=Placement(eager=True), inputs={"i": np.array([1, 0, 1])})
    gather, product = result.plan.decisions["Gather_0"], result.plan.decisions["MatMul_1"]
    assert not gather.integer and product.integer
    assert_near(result)


@pytest.mark.parametrize(("axis", "least"), [(1, 0.5), (3, 0.25)])
def test_the_result_of_a_softmax_has_a_scale_that_its_kernel_stands(axis: int, least: float) -> None:
    """QLinearSoftmax wraps around below (e - 1) / (255 n); even shares of n elements ask for 1 / (255 n)."""
    body = f"k = Mul(x, small) s = Conv {PADS} (k, W) p = Softmax <axis = {axis}> (s) y = Conv {PADS} (p, W)"
    text = graph(body, inits=W + ", float small = {0.001}")
    result = quantize_text(text)
    assert "QLinearSoftmax" in result.kernels()
    assert result.plan.values[Value((), "p")].scale * 255 == pytest.approx(least, rel=1e-3)
    assert_near(result)
