"""What the calibrators share: the histogram of a tensor as a piecewise uniform density on its exact range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxq.encoding import LEVELS, Scheme
from onnxq.stats.observers import Histogram
from onnxq.stats.statistics import TensorStatistics

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Counts of values, uniform within a bin.

    Attributes:
        lower, upper: bin edges, ascending, within the exact [min, max] of the tensor; the bin of zero is [0, 0].
        counts: elements per bin, float64.
    """

    lower: Array
    upper: Array
    counts: Array

    @property
    def total(self) -> float:
        return float(self.counts.sum())

    @property
    def centers(self) -> Array:
        return (self.lower + self.upper) / 2

    def without_zero(self) -> Distribution:
        """The same without the elements that are exactly zero: every encoding represents those exactly."""
        kept = (self.lower != 0) | (self.upper != 0)
        return Distribution(lower=self.lower[kept], upper=self.upper[kept], counts=self.counts[kept])

    def quantile(self, share: float) -> float:
        """The value below which `share` of the elements lie, linear within a bin (numpy's "linear" within a bin's
        width)."""
        below = np.concatenate([[0.0], np.cumsum(self.counts)])
        rank = share * below[-1]
        at = int(np.clip(np.searchsorted(below, rank, side="right") - 1, 0, len(self.counts) - 1))
        inside = (rank - below[at]) / self.counts[at]
        return float(self.lower[at] + min(inside, 1.0) * (self.upper[at] - self.lower[at]))

    def rebin(self, edges: Array) -> Array:
        """Elements between consecutive `edges` (ascending, [n + 1]) -> [n]; what lies outside is left out."""
        # the cumulative count is linear within a bin and flat between bins; a bin of no width is a step
        points = np.stack([self.lower, self.upper], axis=1).reshape(-1)
        height = np.cumsum(self.counts)
        heights = np.stack([height - self.counts, height], axis=1).reshape(-1)
        return np.diff(np.interp(edges, points, heights, left=0.0, right=height[-1]))


def distribution(statistics: TensorStatistics) -> Distribution:
    """The distribution of a tensor, its bins cut to the exact [min, max].

    The bins of min and max are never empty: where the histogram counted a subset of the elements that missed them, they
    get the weight of one element.

    Args:
        statistics: with at least one element, and a histogram.
    """
    low, high = statistics.min, statistics.max
    lower, upper, number = statistics.histogram.bins()
    counts = number.astype(np.float64)
    ends = Histogram(subset=None)
    ends.update(np.array([low, high], dtype=np.float32))
    first, last, _ = ends.bins()
    missed = ~np.isin(first, lower)
    if missed.any():
        weight = counts.sum() / statistics.count
        lower, upper = np.append(lower, first[missed]), np.append(upper, last[missed])
        counts = np.append(counts, np.full(missed.sum(), weight))
        order = np.argsort(lower, kind="stable")
        lower, upper, counts = lower[order], upper[order], counts[order]
    return Distribution(lower=np.clip(lower, low, high), upper=np.clip(upper, low, high), counts=counts)


def levels(scheme: Scheme) -> int:
    """Number of steps between the ends of the range: 255 for uint8, 254 for symmetric int8 (-127 ... 127).

    >>> levels(Scheme(type="uint8", symmetric=False)), levels(Scheme(type="int8", symmetric=True))
    (255, 254)
    """
    qmin, qmax = LEVELS[scheme.type]
    if scheme.reduce_range:
        qmin, qmax = -(-qmin // 2), qmax // 2
    return 2 * qmax if is_mirrored(scheme) else qmax - qmin


def is_mirrored(scheme: Scheme) -> bool:
    """True if the encoding is [-amax, amax] whatever the range: symmetric and signed."""
    return scheme.symmetric and LEVELS[scheme.type][0] < 0


def unless_empty(low: float, high: float, statistics: TensorStatistics) -> tuple[float, float]:
    """The range, or the whole one if it holds nothing but zero although the tensor does not.

    Tensors that are zero almost everywhere have their percentiles at zero: cutting there would erase the tensor.
    """
    if min(low, 0.0) == max(high, 0.0):
        return statistics.min, statistics.max
    return low, high
