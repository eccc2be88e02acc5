"""Ranges of weights: their values are known, so no statistics are needed.

max   the greatest magnitude (or the extremes), per channel: no weight is clipped
mse   per channel, the share of that range with the least squared error of quantization, rounding and clipping together
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from onnxq.encoding import LEVELS, PerChannel, PerTensor, Scheme
from onnxq.errors import UnknownNameError, did_you_mean
from onnxq.numerics import affine, dequantize, quantize

WeightMethod = Literal["max", "mse"]

SHARES = tuple(round(1.0 - 0.02 * i, 2) for i in range(36))
"""Shares of the full range that the mse search tries: 1 down to 0.3."""

_CHUNK = 1 << 18


def weight_range(
    array: NDArray[Any], scheme: Scheme, method: WeightMethod = "max"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The range of each channel of a constant.

    Args:
        array: weights, finite floating point, any shape.
        scheme: PerTensor or PerChannel (negative axes count from the end).
        method: "max" or "mse".

    Returns:
        (low, high), each of shape [C] for PerChannel(axis), C = array.shape[axis], and of shape () for PerTensor.
        Symmetric signed schemes get low == -high. A channel without elements, or all zero, gets [0, 0].

    Raises:
        UnknownNameError: unknown method.
        ValueError: values that are not finite, or granularity PerBlock.
    """
    if method not in get_args(WeightMethod):
        raise UnknownNameError(f'there is no weight method "{method}": {did_you_mean(method, get_args(WeightMethod))}')
    match scheme.granularity:
        case PerChannel(axis):
            rows = np.moveaxis(array, axis, 0)
            rows = rows.reshape(rows.shape[0], -1) if array.size else np.zeros((rows.shape[0], 1))
        case PerTensor():
            rows = array.reshape(1, -1) if array.size else np.zeros((1, 1))
        case _:
            raise ValueError(f"weight ranges are per tensor or per channel, not {scheme.granularity}")
    rows = rows.astype(np.float32, copy=False)
    low, high = rows.min(axis=1).astype(np.float64), rows.max(axis=1).astype(np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError("weights are not finite")
    if scheme.symmetric and LEVELS[scheme.type][0] < 0:
        high = np.maximum(-low, high)
        low = -high
    if method == "mse":
        low, high = _search(rows, low, high, scheme)
    if isinstance(scheme.granularity, PerTensor):
        return low.reshape(()), high.reshape(())
    return low, high


def _search(
    rows: NDArray[np.float32], low: NDArray[np.float64], high: NDArray[np.float64], scheme: Scheme
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The best share of [low, high] per row, all rows at once; of equal errors the widest range."""
    by_row = Scheme(
        type=scheme.type, symmetric=scheme.symmetric, granularity=PerChannel(0), reduce_range=scheme.reduce_range
    )
    best = np.ones(len(rows))
    # a few rows at a time, so that the temporaries stay in the cache
    step = max(1, _CHUNK // rows.shape[1])
    for start in range(0, len(rows), step):
        some = slice(start, start + step)
        part = rows[some]
        least = np.full(len(part), np.inf)
        for share in SHARES:
            encoding = affine(low[some] * share, high[some] * share, by_row)
            with np.errstate(over="ignore"):  # weights beside the largest float32
                error = dequantize(quantize(part, encoding), encoding) - part
                squared = np.einsum("ij,ij->i", error, error, dtype=np.float64)
            better = squared < least
            least = np.where(better, squared, least)
            best[some] = np.where(better, share, best[some])
    return low * best, high * best
