"""The one place where a scale and a zero point are made.

Affine quantization as ONNX defines it (operator specification of QuantizeLinear and DequantizeLinear, opset 13):

    q    = saturate(round_half_even(x / scale) + zero_point)
    real = (q - zero_point) * scale

From a range [low, high] that is first widened to contain 0, so that zero padding and ReLU are exact:

    asymmetric:  scale = (high - low) / (qmax - qmin),  zero_point = round(qmin - low / scale)
    symmetric:   scale = max(|low|, |high|) / qmax,     zero_point = 0      (signed types: 127, not 128, on both sides)

Source: Jacob et al. 2018 (arXiv 1712.05877), section 2.1; Nagel et al. 2021 (arXiv 2106.08295), section 2.2.
The scale is computed in float64 and rounded to float32 once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnxq.encoding import LEVELS, Affine, PerBlock, PerChannel, PerTensor, Scheme

TINY = 2.0**-100
"""Least scale that is written: far above the float32 subnormals, so that 1/scale is finite; also that of an all-zero
tensor.
"""


def affine(low: ArrayLike, high: ArrayLike, scheme: Scheme) -> Affine:
    """The encoding of a range.

    Args:
        low, high: real bounds; scalars for PerTensor, shape [C] for PerChannel.
        scheme: type, symmetry, granularity, reduced range.

    Raises:
        ValueError: bounds that are not finite or low > high.
    """
    lo = np.minimum(np.asarray(low, dtype=np.float64), 0.0)
    hi = np.maximum(np.asarray(high, dtype=np.float64), 0.0)
    if not (np.isfinite(lo).all() and np.isfinite(hi).all()):
        raise ValueError(f"range [{lo}, {hi}] is not finite")
    if np.any(np.asarray(low) > np.asarray(high)):
        raise ValueError(f"range [{low!r}, {high!r}] is empty")
    qmin, qmax = LEVELS[scheme.type]
    if scheme.symmetric and qmin < 0:
        top = qmax // 2 if scheme.reduce_range else qmax
        scale = np.maximum(np.maximum(-lo, hi) / top, TINY).astype(np.float32)
        zero = np.zeros_like(scale, dtype=scheme.type)
    else:
        if scheme.reduce_range:
            qmin, qmax = qmin // 2, qmax // 2
        span = hi - lo
        scale = np.where(span > 0, np.maximum(span / (qmax - qmin), TINY), 1.0 / (qmax - qmin)).astype(np.float32)
        zero = np.clip(np.rint(qmin - lo / scale.astype(np.float64)), qmin, qmax).astype(scheme.type)
    return Affine(type=scheme.type, granularity=scheme.granularity, scale=scale, zero_point=zero)


def _expand(parameters: NDArray[Any], encoding: Affine, shape: tuple[int, ...]) -> NDArray[Any]:
    match encoding.granularity:
        case PerTensor():
            return parameters
        case PerChannel(axis):
            view = [1] * len(shape)
            view[axis] = -1
            return parameters.reshape(view)
        case PerBlock(axis, size):
            return np.repeat(parameters, size, axis=axis)[tuple(slice(0, d) for d in shape)]


_CHUNK = 1 << 22
"""Elements that are quantized at a time: what lies between takes 20 bytes for each."""


def quantize(x: NDArray[Any], encoding: Affine, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """QuantizeLinear in numpy, bit for bit as ONNX Runtime computes it (float32 division, ties to even, saturation).

    Args:
        out: where the result goes, of the shape of `x` and the encoding's type; None: a new array.
    """
    scale = _expand(encoding.scale, encoding, x.shape)
    zero = _expand(encoding.zero_point, encoding, x.shape)
    if out is None and x.size <= _CHUNK:
        return _levels(x, scale, zero, encoding)
    levels = np.empty(x.shape, dtype=encoding.type) if out is None else out
    if not x.ndim:
        levels[...] = _levels(x, scale, zero, encoding)
        return levels
    rows = max(1, _CHUNK * x.shape[0] // max(x.size, 1))
    for start in range(0, x.shape[0], rows):
        part = slice(start, start + rows)
        s, z = (p[part] if p.ndim and p.shape[0] == x.shape[0] > 1 else p for p in (scale, zero))
        levels[part] = _levels(x[part], s, z, encoding)
    return levels


def _levels(x: NDArray[Any], scale: NDArray[Any], zero: NDArray[Any], encoding: Affine) -> NDArray[Any]:
    qmin, qmax = LEVELS[encoding.type]
    # int32 levels do not fit float32: widen before the clip, after the float32 division
    with np.errstate(over="ignore"):  # a quotient beyond float32 saturates like any other
        steps = np.rint((np.asarray(x, dtype=np.float32) / scale).astype(np.float64)) + zero.astype(np.float64)
    # numpy turns arrays of rank 0 into scalars on the way
    levels: NDArray[Any] = np.asarray(np.clip(steps, qmin, qmax).astype(encoding.type))
    return levels


def dequantize(q: NDArray[Any], encoding: Affine) -> NDArray[np.float32]:
    """DequantizeLinear in numpy: float32((q - zero_point) * scale)."""
    scale = _expand(encoding.scale, encoding, q.shape)
    zero = _expand(encoding.zero_point, encoding, q.shape)
    real = (q.astype(np.int64) - zero.astype(np.int64)).astype(np.float32) * scale
    return np.asarray(real, dtype=np.float32)
