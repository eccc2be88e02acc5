"""Ranges of weights, per tensor and per channel, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxq.encoding import PerBlock, PerChannel, PerTensor, Scheme
from onnxq.errors import UnknownNameError
from onnxq.numerics import affine, dequantize, quantize
from onnxq.stats.weights import SHARES, weight_range

S8 = Scheme(type="int8", symmetric=True, granularity=PerChannel(0))


def weights() -> NDArray[np.float32]:
    w = np.random.default_rng(0).standard_normal((6, 16, 9, 9)).astype(np.float32)
    w[1] *= 1e-3
    w[2, 0, 0, 0] = 6.5  # an outlier
    w[3] = 0
    w[4] = np.abs(w[4])
    return w


def error(row: NDArray[np.float32], low: float, high: float, scheme: Scheme) -> float:
    flat = Scheme(type=scheme.type, symmetric=scheme.symmetric, reduce_range=scheme.reduce_range)
    encoding = affine(low, high, flat)
    return float(((dequantize(quantize(row, encoding), encoding).astype(np.float64) - row) ** 2).sum())


def test_max_is_the_greatest_magnitude_of_each_channel() -> None:
    w = weights()
    low, high = weight_range(w, S8)
    assert np.array_equal(high, np.abs(w).max(axis=(1, 2, 3)))
    assert np.array_equal(low, -high)
    assert high[3] == 0


@pytest.mark.parametrize(("axis", "same"), [(1, (0, 2, 3)), (-1, (0, 1, 2))])
def test_other_axes(axis: int, same: tuple[int, ...]) -> None:
    w = weights()
    _, high = weight_range(w, Scheme(type="int8", symmetric=True, granularity=PerChannel(axis)))
    assert np.array_equal(high, np.abs(w).max(axis=same))


def test_per_tensor_and_asymmetric() -> None:
    w = weights()
    low, high = weight_range(w, Scheme(type="uint8", symmetric=False, granularity=PerTensor()))
    assert (low.shape, high.shape) == ((), ())
    assert (low, high) == (w.min(), w.max())
    low, high = weight_range(w, Scheme(type="uint8", symmetric=False, granularity=PerChannel(0)))
    assert np.array_equal(low, w.min(axis=(1, 2, 3)))


@pytest.mark.parametrize(
    "scheme",
    [
        S8,
        Scheme(type="int8", symmetric=True, granularity=PerChannel(0), reduce_range=True),
        Scheme(type="uint8", symmetric=False, granularity=PerChannel(0)),
    ],
)
def test_mse_is_the_best_share_by_brute_force(scheme: Scheme) -> None:
    w = weights()
    full_low, full_high = weight_range(w, scheme)
    low, high = weight_range(w, scheme, "mse")
    for c, row in enumerate(w):
        errors = [error(row, full_low[c] * s, full_high[c] * s, scheme) for s in SHARES]
        assert error(row, low[c], high[c], scheme) == pytest.approx(min(errors), rel=1e-4, abs=1e-12)
    assert error(w[5], low[5], high[5], scheme) <= error(w[5], full_low[5], full_high[5], scheme)


def test_mse_clips_where_that_pays() -> None:
    many = np.random.default_rng(2).standard_normal((1, 200_000)).astype(np.float32)
    few = many[:, :20]
    assert 0.7 < (weight_range(many, S8, "mse")[1] / weight_range(many, S8)[1])[0] < 0.95
    assert weight_range(few, S8, "mse")[1] == weight_range(few, S8)[1]


def test_many_channels_are_searched_like_one() -> None:
    w = np.random.default_rng(1).standard_normal((700, 500)).astype(np.float32)  # more than one chunk
    low, high = weight_range(w, S8, "mse")
    for c in (0, 523, 699):
        alone = weight_range(w[c : c + 1], S8, "mse")
        assert (low[c], high[c]) == (alone[0][0], alone[1][0])


def test_small_and_empty_weights() -> None:
    assert [v.tolist() for v in weight_range(np.float32(3.0).reshape(()), Scheme(type="int8", symmetric=True))] == [
        -3.0,
        3.0,
    ]
    low, high = weight_range(np.zeros((3, 0), np.float32), S8, "mse")
    assert low.tolist() == high.tolist() == [0, 0, 0]
    assert weight_range(np.ones((2, 2), np.float16), S8, "mse")[1] == pytest.approx([1, 1])


def test_what_is_refused() -> None:
    with pytest.raises(UnknownNameError, match='there is no weight method "msee": did you mean "mse"'):
        weight_range(weights(), S8, "msee")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weights are not finite"):
        weight_range(np.array([[1.0, np.nan]], np.float32), S8)
    with pytest.raises(ValueError, match="per tensor or per channel"):
        weight_range(weights(), Scheme(type="int8", symmetric=True, granularity=PerBlock(0, 32)))
