"""Mixed: for each tensor the method that loses least on samples that it did not see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxq import registry
from onnxq.encoding import Scheme
from onnxq.errors import UsageError
from onnxq.numerics import affine, dequantize, quantize
from onnxq.stats.calibrator import Calibrator, Reader
from onnxq.stats.observers import Histogram, MinMax
from onnxq.stats.statistics import TensorStatistics
from onnxq.stats.surroundings import linear
from onnxq_calibration._distribution import Array, Distribution, distribution, levels
from onnxq_calibration.mse import Mse

METHODS = ("minmax", "mse", "percentile")
"""In the order of how much they clip: of equal losses the first one counts. Entropy knows no distances, so it loses
more by this measure, and takes longest. `_Felt` comes after them."""


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """Per tensor, the method whose range loses least on a held-out share of the samples.

    Each method proposes a range from three quarters of the samples; its loss is that on the last quarter,

        loss = sum over readers f of  sum (f(q(x)) - f(x))^2 / sum f(x)^2

    with q quantization to the proposed encoding and f what the op behind the tensor makes of its values: the identity
    for a Conv or MatMul, a sigmoid or a softmax for ops that do not feel what lies in their flat parts. Where such an
    op reads the tensor, one more range is proposed: that of mse with each value weighted by the slope of f. The method
    with the least loss is then applied to all samples. One that clips more is taken only if it is better by `margin`:
    the tails of four times as many samples are longer than those of the ones at hand.

    With fewer than four samples there is nothing to hold out and the loss is that on the samples themselves.

    Attributes:
        margin: share by which a method that clips more must be better, at least 0.
    """

    margin: float = 0.02

    observers: ClassVar[tuple[str, ...]] = ("minmax", "histogram", "heldout")

    def __post_init__(self) -> None:
        if not self.margin >= 0:
            raise UsageError(f"margin is {self.margin}: it must be at least 0")

    def range(self, statistics: TensorStatistics, scheme: Scheme) -> tuple[float, float]:
        return self.range_felt(statistics, scheme, ())

    def range_felt(
        self, statistics: TensorStatistics, scheme: Scheme, readers: Sequence[Reader]
    ) -> tuple[float, float]:
        """See `onnxq.stats.calibrator.FeelingCalibrator`."""
        if statistics.min == statistics.max:
            return statistics.min, statistics.max
        methods: list[Calibrator] = [registry.load(registry.CALIBRATORS, name)() for name in METHODS]
        if any(f is not linear for f in readers):  # else it is mse
            methods.append(_Felt(tuple(readers), statistics.max))
        fit, heldout = _parts(statistics)
        seen = distribution(heldout)
        chosen, least = methods[0], np.inf
        known: dict[tuple[float, float], float] = {}
        for method in methods:
            bounds = method.range(fit, scheme)
            if bounds not in known:
                known[bounds] = _loss(seen.centers, seen.counts, bounds, scheme, readers, statistics.max)
            if known[bounds] < least * (1 - self.margin):
                chosen, least = method, known[bounds]
        return chosen.range(statistics, scheme)


@dataclass(frozen=True)
class _Felt:
    """The range of least squared error behind the readers, to first order: an error of dx at x counts (f'(x) dx)^2."""

    readers: tuple[Reader, ...]
    peak: float

    observers: ClassVar[tuple[str, ...]] = ("minmax", "histogram")

    def range(self, statistics: TensorStatistics, scheme: Scheme) -> tuple[float, float]:
        low, high = statistics.min, statistics.max
        seen = distribution(statistics)
        width = seen.upper - seen.lower
        weights = np.zeros_like(seen.counts)
        for f in self.readers:
            signal = float((seen.counts * f(seen.centers, self.peak) ** 2).sum())
            rise = f(seen.upper, self.peak) - f(seen.lower, self.peak)
            slope = np.divide(rise, width, out=np.ones_like(rise), where=width > 0)
            weights += seen.counts * slope**2 / (signal if signal > 0 else 1.0)
        if low == high or levels(scheme) > 1 << 12 or not weights.sum():
            return low, high
        return Mse().search(Distribution(lower=seen.lower, upper=seen.upper, counts=weights), low, high, scheme)


def _parts(statistics: TensorStatistics) -> tuple[TensorStatistics, TensorStatistics]:
    """The statistics of all but the held-out samples and those of the held-out ones; all, twice, if either is empty."""
    whole, aside = statistics.histogram, statistics.observers.get("heldout")
    if not isinstance(aside, Histogram):
        return statistics, statistics
    rest, held = _with(statistics, _difference(whole, aside)), _with(statistics, aside)
    return (statistics, statistics) if rest is None or held is None else (rest, held)


def _difference(whole: Histogram, part: Histogram) -> Histogram:
    """What `whole` counted and `part`, which counted some of the same arrays, did not."""
    state, taken = whole.state(), part.state()
    counts = state["counts"].copy()
    counts[np.searchsorted(state["keys"], taken["keys"])] -= taken["counts"]
    left = counts > 0
    return Histogram.from_state({**state, "keys": state["keys"][left], "counts": counts[left]})


def _with(statistics: TensorStatistics, histogram: Histogram) -> TensorStatistics | None:
    """Statistics of a share of the samples; its extremes are those of its bins, cut to the tensor's own."""
    lower, upper, counts = histogram.bins()
    if not counts.size:
        return None
    ends = MinMax()
    low = np.float32(max(float(lower.min()), statistics.min))
    high = np.float32(min(float(upper.max()), statistics.max))
    ends.add(low, high, int(counts.sum()))
    return TensorStatistics(statistics.name, {MinMax.name: ends, Histogram.name: histogram})


def _loss(
    x: Array, counts: Array, bounds: tuple[float, float], scheme: Scheme, readers: Sequence[Reader], peak: float
) -> float:
    """Noise over signal behind each reader, added up; `x` [bins] are the centres of the bins of `counts`."""
    encoding = affine(*bounds, scheme)
    with np.errstate(over="ignore"):  # beside the largest float32 the last level may lie beyond it
        rounded = np.nan_to_num(dequantize(quantize(x.astype(np.float32), encoding), encoding)).astype(np.float64)
    total = 0.0
    for exact, got in [(f(x, peak), f(rounded, peak)) for f in readers] or [(x, rounded)]:
        signal = float((counts * exact**2).sum())
        total += float((counts * (got - exact) ** 2).sum()) / signal if signal > 0 else 0.0
    return total
