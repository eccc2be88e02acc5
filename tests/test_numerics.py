"""Scales and zero points: the formulas, their edges, and bit equality with ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from onnxq.encoding import Affine, PerBlock, PerChannel, PerTensor, Scheme
from onnxq.numerics import TINY, affine, dequantize, quantize
from onnxq.runtime.session import Level, Session

U8 = Scheme(type="uint8", symmetric=False)
S8 = Scheme(type="int8", symmetric=True)


def test_asymmetric_range_maps_its_ends_to_the_end_levels() -> None:
    encoding = affine(-1.0, 3.0, U8)
    assert encoding.scale == np.float32(4 / 255)
    assert encoding.zero_point == 64
    assert quantize(np.array([-1.0, 0.0, 3.0], np.float32), encoding).tolist() == [0, 64, 255]


def test_one_sided_ranges_are_widened_to_contain_zero() -> None:
    assert affine(2.0, 6.0, U8).zero_point == 0
    assert affine(-6.0, -2.0, U8).zero_point == 255


def test_symmetric_uses_127_on_both_sides_and_zero_point_0() -> None:
    encoding = affine(-2.0, 1.0, S8)
    assert encoding.scale == np.float32(2 / 127)
    assert quantize(np.array([-2.0, 2.0], np.float32), encoding).tolist() == [-127, 127]


def test_reduced_range_leaves_one_bit() -> None:
    encoding = affine(-2.0, 2.0, Scheme(type="int8", symmetric=True, reduce_range=True))
    assert quantize(np.array([-2.0, 2.0], np.float32), encoding).tolist() == [-63, 63]


def test_per_channel_scales_broadcast_along_the_axis() -> None:
    encoding = affine([-1, -10], [1, 10], Scheme(type="int8", symmetric=True, granularity=PerChannel(1)))
    x = np.array([[1, 10], [-1, 5]], np.float32)
    assert quantize(x, encoding).tolist() == [[127, 127], [-127, 64]]
    np.testing.assert_allclose(dequantize(quantize(x, encoding), encoding), x, atol=10 / 127 / 2 * 1.01)


def test_constant_zero_tensor_gets_a_finite_scale() -> None:
    for scheme in (U8, S8):
        encoding = affine(0.0, 0.0, scheme)
        assert encoding.scale >= TINY
        assert dequantize(quantize(np.zeros(3, np.float32), encoding), encoding).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("low", "high", "says"), [(np.nan, 1, "not finite"), (0, np.inf, "not finite"), (2, 1, "empty")]
)
def test_senseless_ranges_are_refused(low: float, high: float, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        affine(low, high, U8)


def _ort(x: np.ndarray, encoding: Affine, axis: int = 0) -> tuple[np.ndarray, np.ndarray]:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(encoding.type))
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=axis),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=axis),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [
            helper.make_tensor_value_info("q", kind, x.shape),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, x.shape),
        ],
        [onnx.numpy_helper.from_array(encoding.scale, "s"), onnx.numpy_helper.from_array(encoding.zero_point, "z")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    out = Session(model.SerializeToString(), level=Level.OFF, threads=1).run({"x": x})
    return out["q"], out["y"]


@settings(max_examples=60, deadline=None)
@given(
    low=st.floats(-1e4, 0, width=32),
    high=st.floats(0, 1e4, width=32),
    kind=st.sampled_from(["uint8", "int8", "uint16", "int16"]),
    seed=st.integers(0, 2**16),
)
def test_quantize_is_bit_equal_to_onnxruntime(low: float, high: float, kind: str, seed: int) -> None:
    encoding = affine(low, high, Scheme(type=kind, symmetric=kind.startswith("int")))  # type: ignore[arg-type]
    rng = np.random.default_rng(seed)
    ties = (np.arange(-8, 8) + 0.5).astype(np.float32) * encoding.scale
    odd = np.array([0.0, -0.0, np.inf, -np.inf, 1e30, -1e30, low, high], np.float32)
    x = np.concatenate([rng.normal(0, max(high, -low, 1e-3), 64).astype(np.float32), ties, odd])
    q, y = _ort(x, encoding)
    np.testing.assert_array_equal(quantize(x, encoding), q)
    np.testing.assert_array_equal(dequantize(q, encoding), y)


def test_per_channel_is_bit_equal_to_onnxruntime() -> None:
    x = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    scheme = Scheme(type="int8", symmetric=True, granularity=PerChannel(1))
    encoding = affine(x.min(axis=(0, 2)), x.max(axis=(0, 2)), scheme)
    q, y = _ort(x, encoding, axis=1)
    np.testing.assert_array_equal(quantize(x, encoding), q)
    np.testing.assert_array_equal(dequantize(q, encoding), y)


def test_blocks_repeat_their_scale() -> None:
    encoding = Affine(
        type="int8",
        granularity=PerBlock(0, 2),
        scale=np.array([[1.0], [2.0]], np.float32),
        zero_point=np.zeros((2, 1), np.int8),
    )
    x = np.array([[2.0], [2.0], [2.0], [2.0]], np.float32)
    assert quantize(x, encoding).reshape(-1).tolist() == [2, 2, 1, 1]


def test_int32_bias_is_exact_to_half_a_step() -> None:
    scale = np.float32(1e-7)
    encoding = Affine(
        type="int32", granularity=PerChannel(0), scale=np.full(3, scale), zero_point=np.zeros(3, np.int32)
    )
    bias = np.array([3.0, -100.0, 1e-7], np.float32)
    back = dequantize(quantize(bias, encoding), encoding)
    np.testing.assert_allclose(back, bias, rtol=2e-7)


def test_a_scalar_stays_an_array() -> None:
    """numpy gives scalars for arrays of rank 0, and a scalar is no initializer."""
    encoding = affine(0.0, 2.0, Scheme(type="uint8", symmetric=False))
    levels = quantize(np.asarray(np.float32(2.0)), encoding)
    back = dequantize(levels, encoding)
    assert isinstance(levels, np.ndarray) and levels.shape == () and levels.dtype == np.uint8
    assert isinstance(back, np.ndarray) and back.shape == () and back.dtype == np.float32


@pytest.mark.parametrize(
    "granularity", [PerTensor(), PerChannel(0), PerChannel(1), PerBlock(0, 4)], ids=lambda g: type(g).__name__
)
def test_large_arrays_are_quantized_piece_by_piece_with_the_same_result(
    granularity: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.random.default_rng(0).standard_normal((32, 32, 3)).astype(np.float32)
    shape = {"PerTensor": (), "PerChannel": (32,), "PerBlock": (8, 32, 3)}[type(granularity).__name__]
    scale = np.random.default_rng(1).uniform(0.01, 0.1, shape).astype(np.float32)
    encoding = Affine(type="int8", granularity=granularity, scale=scale, zero_point=np.zeros(shape, np.int8))
    whole = quantize(x, encoding)
    monkeypatch.setattr("onnxq.numerics._CHUNK", 500)  # 5 rows, the last piece has 2
    out = np.empty(x.shape, np.int8)
    assert quantize(x, encoding, out) is out
    assert np.array_equal(out, whole)
    assert np.array_equal(quantize(x, encoding), whole)
