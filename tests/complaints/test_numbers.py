"""Public complaints about wrong numbers from other tools, each with the test that makes it impossible here.

| complaint | test |
|---|---|
| explicit Q/DQ is slow in TensorRT, placed wrongly (TensorRT #3492, #4366, #4365, #4412, #3197) | test_tensorrt_placement_of_a_residual_block |
| detection heads collapse (onnxruntime #14233, #10787, #9598, #17410) | test_the_wide_tail_of_a_detector_stays_float |
| MobileNet, EfficientNet, hard-swish collapse (onnxruntime #11415, Model-Optimizer #869) | test_hard_swish_and_depthwise_keep_their_accuracy |
| the int32 bias overflows where a weight scale is tiny (onnxruntime #22020, #21645, #25278, #24815) | test_a_bias_that_would_overflow |
| wrong per-channel axis (onnxruntime #19694, #26456; onnxruntime-qnn #815) | test_axis_of_output_channels, test_axis_of_conv_transpose |
| fused integer kernels differ from the simulation (onnxruntime #32132, #9365, #16105) | test_fused_kernels_equal_the_literal_form, tests/properties |
| u8 x s8 saturates without VNNI, unseen on the developer's machine (onnxruntime #5849) | test_reduced_range_cannot_saturate |
"""  # noqa: E501

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import whole
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from onnxq.quantization import Quantized
from onnxq.runtime.session import Level, optimized
from onnxq.targets.hardware import Cpu
from onnxq.targets.target import load_target

X = {"x": (1, 4, 8, 8)}


def _w(*shape: int, seed: int = 1, scale: float = 0.3) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32)


def _integer(made: Quantized, op: str) -> list[bool]:
    return [d.integer for d in made.plan.decisions.values() if d.op == op]


def _axes(out: onnx.ModelProto) -> dict[str, int]:
    """Quantized constant -> axis of its DQ."""
    return {
        n.input[0]: a.i
        for n in out.graph.node
        if n.op_type == "DequantizeLinear"
        for a in n.attribute
        if a.name == "axis"
    }


def test_tensorrt_placement_of_a_residual_block() -> None:
    """TensorRT wants Q on the inputs of weighted ops and on the shortcut; not behind the convolution that it fuses with
    the Add, nor int32 biases, nor zero points.
    """
    model = whole.model(
        "(float[1,4,8,8] x) => (float[1,4,8,8] y) { s = Conv(x, w, b) r = Relu(s) c = Conv(r, v, b) a = Add(c, r) "
        "p = Relu(a) y = Conv(p, w, b) }",
        {"w": _w(4, 4, 1, 1), "v": _w(4, 4, 1, 1, seed=2), "b": _w(4)},
    )
    out = onnx.load_from_string(whole.file(whole.quantized(model, whole.normal(4, **X), "tensorrt")))
    made_by = {o: n for n in out.graph.node for o in n.output}
    add = next(n for n in out.graph.node if n.op_type == "Add")
    assert [made_by[i].op_type for i in add.input] == ["Conv", "DequantizeLinear"]
    assert [made_by[n.input[0]].op_type for n in out.graph.node if n.op_type == "Conv"] == ["DequantizeLinear"] * 3
    arrays = {i.name: numpy_helper.to_array(i) for i in out.graph.initializer}
    for node in out.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = arrays[node.input[2]]
            assert zero.dtype == np.int8 and not zero.any()
            assert bool(node.attribute) == (zero.ndim == 1)  # the parser takes axis 0 where none is written
    assert all(n.input[2] == "b" for n in out.graph.node if n.op_type == "Conv")
    assert not {n.op_type for n in out.graph.node} & {"QLinearConv", "QLinearAdd"}


HEAD = (
    "(float[1,4,8,8] x) => (float[1,8,8,8] y) { f = Conv<pads = [1,1,1,1]>(x, w) h = Relu(f) "
    "s0 = Conv(h, ws) s = Sigmoid(s0) b0 = Conv(h, wb) b = Mul(b0, stride) "
    "j = Concat<axis = 1>(b, s) "
)


@pytest.mark.parametrize("tail", ["y = Identity(j) }", "y = Conv(j, wj) }"])
def test_the_wide_tail_of_a_detector_stays_float(tail: str) -> None:
    """onnxruntime #14233, #10787, #9598, #17410: boxes in pixels and scores below 1 share one 8-bit scale, and every
    score becomes 0. Where a convolution reads the joined tensor it must be 8 bits, but its weights can tell.
    """
    weights = {
        "w": _w(4, 4, 3, 3), "ws": _w(4, 4, 1, 1, seed=2), "wb": _w(4, 4, 1, 1, seed=3),
        "stride": np.float32(300.0), "wj": _w(8, 8, 1, 1, seed=4),
    }  # fmt: skip
    if "wj" not in tail:
        del weights["wj"]
    model = whole.model(HEAD + tail, weights)
    samples = whole.normal(6, **X)
    made = whole.quantized(model, samples)
    concat = next(d for d in made.plan.decisions.values() if d.op == "Concat")
    assert not concat.integer and concat.reason
    exact = whole.run(model, samples)
    out = whole.file(made)
    for level in Level:
        got = whole.run(out, samples, level)
        if "wj" not in tail:
            for part in (slice(0, 4), slice(4, 8)):
                a, b = ([{"y": s["y"][:, part]} for s in outputs] for outputs in (exact, got))
                assert whole.sqnr(a, b, "y") > 25, (part, level)
        assert whole.sqnr(exact, got, "y") > 25


def test_hard_swish_and_depthwise_keep_their_accuracy() -> None:
    """onnxruntime #11415, onnx2tf #683, Model-Optimizer #869: a MobileNetV3 block whose depthwise channels differ in
    size by a factor of 100, with a BatchNormalization that is not folded.
    """
    sizes = np.geomspace(0.05, 5, 8).astype(np.float32)
    model = whole.model(
        "(float[1,4,8,8] x) => (float[1,4,8,8] y) <float three = {3}, float zero = {0}, float six = {6}> { "
        "e = Conv(x, we) n = BatchNormalization(e, g, o, o, v) p = Add(n, three) c = Clip(p, zero, six) "
        "m = Mul(n, c) h = Div(m, six) d = Conv<group = 8, pads = [1,1,1,1]>(h, wd) "
        "q = Add(d, three) r = Clip(q, zero, six) t = Mul(d, r) i = Div(t, six) z = Conv(i, wp) y = Add(z, x) }",
        {
            "we": _w(8, 4, 1, 1), "g": 1 + _w(8), "o": _w(8), "v": 1 + np.abs(_w(8)),
            "wd": _w(8, 1, 3, 3, seed=2) * sizes.reshape(8, 1, 1, 1), "wp": _w(4, 8, 1, 1, seed=3),
        },
    )  # fmt: skip
    samples = whole.normal(6, **X)
    made = whole.quantized(model, samples)
    assert _integer(made, "Conv") == [True, True, True]
    out = whole.file(made)
    for level in Level:
        assert whole.sqnr(whole.run(model, samples), whole.run(out, samples, level), "y") > 28


TINY = np.float32(1e-9)
OVERFLOW = {
    "Conv": ("(float[1,4,8,8] x) => (float[1,4,8,8] y) { y = Conv(x, w, b) }", (4, 4, 1, 1), 0, X),
    "Conv and Relu": ("(float[1,4,8,8] x) => (float[1,4,8,8] y) { c = Conv(x, w, b) y = Relu(c) }", (4, 4, 1, 1), 0, X),
    "Gemm": ("(float[2,8] x) => (float[2,4] y) { y = Gemm(x, w, b) }", (8, 4), 1, {"x": (2, 8)}),
    "Gemm transB": ("(float[2,8] x) => (float[2,4] y) { y = Gemm<transB = 1>(x, w, b) }", (4, 8), 0, {"x": (2, 8)}),
    "two Gemms": (
        "(float[2,4] x) => (float[2,4] y) { h = Gemm(x, w, b) y = Gemm(h, w, b) }", (4, 4), 1, {"x": (2, 4)},
    ),
    "MatMul and Add": (
        "(float[2,3,8] x) => (float[2,3,4] y) { m = MatMul(x, w) y = Add(m, b) }", (8, 4), 1, {"x": (2, 3, 8)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OVERFLOW)
@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
def test_a_bias_that_would_overflow(case: str, target: str) -> None:
    """onnxruntime #22020, #21645, #25278, #24815: a dead channel with a bias. ORT quantizes a bias that is float in
    the file on load, too (target tensorrt), and lets it wrap.
    """
    text, shape, axis, inputs = OVERFLOW[case]
    weight = _w(*shape)
    weight[tuple(0 if i == axis else slice(None) for i in range(len(shape)))] *= TINY
    bias = np.array([5.0, -0.5, 0.25, 1.0], np.float32)
    model = whole.model(text, {"w": weight, "b": bias})
    samples = whole.normal(4, **inputs)
    made = whole.quantized(model, samples, target)
    out = whole.file(made)
    exact = whole.run(model, samples)
    assert any("would overflow int32" in note for note in made.notes)
    for level in Level:
        for a, b in zip(exact, whole.run(out, samples, level), strict=True):
            np.testing.assert_allclose(b["y"], a["y"], rtol=0, atol=0.08, err_msg=level.name)


def test_a_bias_that_fits_widens_nothing() -> None:
    text, shape, _, inputs = OVERFLOW["Conv"]
    made = whole.quantized(whole.model(text, {"w": _w(*shape), "b": _w(4)}), whole.normal(4, **inputs))
    assert not any("overflow" in note for note in made.notes)


AXES = {
    "Conv": ("(float[1,4,8,8] x) => (float[1,4,8,8] y) { y = Conv(x, w) }", (4, 4, 1, 1), 0, X),
    "Gemm": ("(float[2,4] x) => (float[2,4] y) { y = Gemm(x, w) }", (4, 4), 1, {"x": (2, 4)}),
    "Gemm transB": ("(float[2,4] x) => (float[2,4] y) { y = Gemm<transB = 1>(x, w) }", (4, 4), 0, {"x": (2, 4)}),
    "MatMul": ("(float[2,4] x) => (float[2,4] y) { y = MatMul(x, w) }", (4, 4), 1, {"x": (2, 4)}),
}


@pytest.mark.parametrize("case", AXES)
@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
def test_axis_of_output_channels(case: str, target: str) -> None:
    """onnxruntime #19694, #26456: with as many inputs as outputs ORT computes wrong numbers on the wrong axis, and no
    shape gives it away. Channels that differ in size by 1,000 do.
    """
    text, shape, axis, inputs = AXES[case]
    _check_axis(text, shape, axis, inputs, target)


def _check_axis(text: str, shape: tuple[int, ...], axis: int, inputs: Any, target: str) -> None:
    view = [1] * len(shape)
    view[axis] = -1
    weight = _w(*shape) * np.geomspace(1e-3, 1, shape[axis]).astype(np.float32).reshape(view)
    model = whole.model(text, {"w": weight})
    samples = whole.normal(6, **inputs)
    out = whole.file(whole.quantized(model, samples, target))
    assert _axes(onnx.load_from_string(out))["w_quantized"] == axis
    exact = whole.run(model, samples)
    channel = (lambda y, i: y[:, i]) if len(shape) == 4 else (lambda y, i: y[..., i])
    for level in Level:
        got = whole.run(out, samples, level)
        # an 8-bit output has one scale: its smallest channels are below it, on the inputs' side none is
        for index in range(4) if target == "tensorrt" or "Conv" not in text else [3]:
            a, b = ([{"y": channel(s["y"], index)} for s in outputs] for outputs in (exact, got))
            assert whole.sqnr(a, b, "y") > 25, (index, level)


@pytest.mark.parametrize("groups", [1, 2])
def test_axis_of_conv_transpose(groups: int) -> None:
    """onnxruntime-qnn #815: the output channels of ConvTranspose are on axis 1."""
    op = f"ConvTranspose<strides = [2,2], group = {groups}>"
    text = f"(float[1,4,8,8] x) => (float[1,4,16,16] y) {{ y = {op}(x, w) }}"
    if groups == 1:
        _check_axis(text, (4, 4, 2, 2), 1, X, "tensorrt")
        return
    model = whole.model(text, {"w": _w(4, 2, 2, 2)})
    samples = whole.normal(4, **X)
    out = whole.file(whole.quantized(model, samples, "tensorrt"))
    for level in Level:
        assert whole.sqnr(whole.run(model, samples), whole.run(out, samples, level), "y") > 25


def test_fused_kernels_equal_the_literal_form() -> None:
    """onnxruntime #32132, #9365, #16105. The sums of integer kernels are exact, only rounding at a tie may differ: by
    one step of the output's scale.
    """
    model = whole.model(
        "(float[1,4,8,8] x) => (float[1,4] y) { a = Conv<pads = [1,1,1,1]>(x, w, k) b = Relu(a) "
        "m = MaxPool<kernel_shape = [3,3], pads = [1,1,1,1]>(b) c = Conv(m, v) s = Add(c, b) "
        "j = Concat<axis = 1>(s, m) l = LeakyRelu(j) p = GlobalAveragePool(l) f = Flatten(p) "
        "g = Gemm(f, u, k) y = Gemm(g, t) }",
        {"w": _w(4, 4, 3, 3), "v": _w(4, 4, 1, 1), "u": _w(8, 4), "t": _w(4, 4, seed=5), "k": _w(4)},
    )
    samples = whole.normal(16, **X)
    out = whole.file(whole.quantized(model, samples))
    kernels = {n.op_type for n in onnx.load_from_string(optimized(out)).graph.node}
    assert kernels >= {
        "QLinearConv", "QLinearAdd", "QLinearConcat", "QLinearLeakyRelu", "QLinearGlobalAveragePool", "QGemm",
    }  # fmt: skip
    literal = whole.run(out, samples)
    scales = {n.output[0]: n.input[1] for n in onnx.load_from_string(out).graph.node if n.op_type == "QuantizeLinear"}
    arrays = {i.name: numpy_helper.to_array(i) for i in onnx.load_from_string(out).graph.initializer}
    step = float(arrays[scales["g_quantized"]])
    for level in (Level.BASIC, Level.EXTENDED, Level.ALL):
        for a, b in zip(literal, whole.run(out, samples, level), strict=True):
            # one step of g through the last Gemm
            reach = step * np.abs(_w(4, 4, seed=5)).sum(axis=0) * 1.01
            assert np.all(np.abs(a["y"] - b["y"]) <= reach), level


def test_reduced_range_cannot_saturate() -> None:
    """onnxruntime #5849 and Intel's own table: pairs of u8 x s8 products exceed int16 where the CPU has no VNNI, and
    a check on a machine with VNNI never sees it. 2 * 255 * 64 = 32,640 fits.
    """
    model = whole.model(
        "(float[1,4,8,8] x) => (float[1,4,8,8] y) { y = Conv(x, w) }", {"w": _w(4, 4, 3, 3)[:, :, :1, :1]}
    )
    samples = whole.normal(4, **X)
    for reduce, least, most in ((True, 63, 64), (False, 127, 128)):
        made = whole.quantized(model, samples, reduce_range=reduce)
        weights = [
            numpy_helper.to_array(i)
            for i in onnx.load_from_string(whole.file(made)).graph.initializer
            if i.data_type == TensorProto.INT8 and len(i.dims) == 4
        ]
        greatest = max(int(np.abs(w.astype(int)).max()) for w in weights)
        assert least <= greatest <= most
        assert any("weights use 7 bits" in n for n in made.notes) == reduce


@pytest.mark.parametrize(
    ("features", "family", "reduced"),
    [
        ({"avx2"}, "x86_64", True),
        ({"avx2", "avx512bw"}, "x86_64", True),
        ({"avx2", "avx_vnni"}, "x86_64", False),
        ({"avx512bw", "avx512_vnni"}, "x86_64", False),
        ({"asimd", "asimddp"}, "aarch64", False),
    ],
)
def test_the_machine_decides_about_the_range(features: set[str], family: str, reduced: bool) -> None:
    target = load_target("cpu", cpu=Cpu(name="this one", family=family, features=frozenset(features)))
    assert target.reduce_range == target.weight.reduce_range == reduced
    assert ("this one has neither AVX512-VNNI nor AVX-VNNI" in target.note) == reduced
