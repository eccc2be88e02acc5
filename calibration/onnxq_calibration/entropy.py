"""Entropy: the range whose quantized distribution tells most about the original one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxq.encoding import Scheme
from onnxq.errors import UsageError
from onnxq.stats.statistics import TensorStatistics
from onnxq_calibration._distribution import Array, Distribution, distribution, is_mirrored, levels

SLACK = 0.1
"""Share of the least divergence within which two thresholds are as good as each other: as much as it jumps from one
threshold to the next, because the borders of groups fall elsewhere."""

COUNTED = 1 << 21
"""Elements of a tensor whose sampling noise is allowed for besides: 8,192 of each of 256 samples. A divergence that is
estimated from n elements in b bins is too large by (b - 1) / 2n (Miller 1955, "Note on the bias of information
estimates"). A constant, so that the same thresholds count as equal however many were counted."""

SMOOTH = 1e-4
"""Count given to a bin that the reference fills and the quantized distribution does not, so that the divergence is
finite."""


@dataclass(frozen=True, kw_only=True)
class Entropy:
    """The thresholds with the least Kullback-Leibler divergence between the values and the quantized values.

    Migacz, "8-bit inference with TensorRT" (GTC 2017): `bins` equal bins over the range; for each threshold, the
    reference P is the histogram up to it with the outliers added to its last bin; Q is the histogram up to it
    (outliers left out) merged into as many groups as there are levels, each spread evenly over its non-empty bins;
    the threshold with the least KL(P || Q) wins. Values that are exactly zero do not count, since every encoding
    represents them.

    Two things differ, because the least of a flat and jagged function is chance. The histogram is averaged over one
    step of the whole range to each side: what counts differ from bin to bin within a step is noise, and it is most
    of the divergence otherwise. And what is taken is the middle of the thresholds that are as good as the best one, to
    a tenth and the noise of two million elements, weighted by how much less is lost.

    Magnitudes are searched for symmetric signed types (128 levels a side) and for tensors of one sign (all levels).
    Else both ends are searched in turn, each with the other fixed, beginning with the whole range, until neither moves.

    It matches shapes and knows no distances: it may cut rare large values that the network needs (transformers lose
    many points to it), so `keep` limits what may be cut off on a side. 16-bit types keep their whole range.

    Attributes:
        bins: equal bins over the range, at least 2,048.
        keep: share in percent of the values (zeros not counted) that stays inside on each side, whatever the
            divergence.
        candidates: thresholds tried per side and round.
    """

    bins: int = 4096
    keep: float = 99.9
    candidates: int = 256

    observers: ClassVar[tuple[str, ...]] = ("minmax", "histogram")

    def __post_init__(self) -> None:
        if self.bins < 2048:
            raise UsageError(f"entropy has {self.bins} bins: it needs at least 2,048")
        if not 0 <= self.keep <= 100:
            raise UsageError(f"keep is {self.keep}: it is a share in percent, from 0 to 100")
        if self.candidates < 2:
            raise UsageError(f"entropy has {self.candidates} candidates: it needs at least 2")

    def range(self, statistics: TensorStatistics, scheme: Scheme) -> tuple[float, float]:
        low, high = statistics.min, statistics.max
        seen = distribution(statistics).without_zero()
        groups = levels(scheme) + 1
        if low == high or not seen.total or groups > self.bins // 2:
            return low, high
        if is_mirrored(scheme) or low >= 0 or high <= 0:
            amax = max(-low, high)
            groups = groups // 2 + 1 if is_mirrored(scheme) else groups
            edge = self._one_side(_folded(seen), amax, groups)
            return max(-edge, low), min(edge, high)
        return self._two_sides(seen, low, high, groups)

    def _one_side(self, seen: Distribution, amax: float, groups: int) -> float:
        edges = np.linspace(0.0, amax, self.bins + 1)
        counts = seen.rebin(edges)
        return float(edges[best_end(smooth(counts, groups), 0, self._ends(counts, groups), groups)])

    def _two_sides(self, seen: Distribution, low: float, high: float, groups: int) -> tuple[float, float]:
        edges = np.linspace(low, high, self.bins + 1)
        counts = seen.rebin(edges)
        zero = int(np.clip(np.searchsorted(edges, 0.0), 1, self.bins - 1))  # the range always contains 0
        start, end = 0, self.bins
        ends, starts = self._ends(counts, groups), self._ends(counts[::-1], groups)
        counts = smooth(counts, groups)
        for _ in range(4):
            before = start, end
            end = best_end(counts, start, ends[ends >= max(zero, start + groups)], groups) or end
            # the same search on the mirrored histogram
            flipped = self.bins - end
            found = best_end(
                counts[::-1], flipped, starts[starts >= max(self.bins - zero + 1, flipped + groups)], groups
            )
            start = self.bins - found if found else start
            if (start, end) == before:
                break
        return float(edges[start]), float(edges[end])

    def _ends(self, counts: Array, groups: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Candidate thresholds as numbers of bins, evenly over the range: from `keep` (and no fewer bins than groups)
        to all. The same ones wherever `keep` lies, so that a slight shift of it does not shift them all."""
        kept = int(np.searchsorted(np.cumsum(counts), self.keep / 100 * counts.sum())) + 1
        grid = np.unique(np.linspace(0, self.bins, self.candidates + 1).astype(np.int64))
        return grid[grid >= min(max(kept, groups), self.bins)]


def _folded(seen: Distribution) -> Distribution:
    """The distribution of the magnitudes."""
    negative = seen.upper <= 0
    if not negative.any():
        return seen
    lower = np.where(negative, -seen.upper, seen.lower)
    upper = np.where(negative, -seen.lower, seen.upper)
    order = np.argsort(lower, kind="stable")
    lower, upper, counts = lower[order], upper[order], seen.counts[order]
    # x and -x share a bin: the edges agree except at the exact min and max, where the wider one counts
    first = np.concatenate([[True], lower[1:] != lower[:-1]])
    group = np.cumsum(first) - 1
    return Distribution(
        lower=lower[first],
        upper=np.maximum.reduceat(upper, np.flatnonzero(first)),
        counts=np.bincount(group, weights=counts).astype(np.float64),
    )


def smooth(counts: Array, groups: int) -> Array:
    """The mean over one step of the whole range to each side of a bin; beyond the ends, the histogram is mirrored.

    >>> smooth(np.array([0.0, 0, 6, 0, 0, 0]), 6).tolist()
    [0.0, 2.0, 2.0, 2.0, 0.0, 0.0]
    """
    reach = len(counts) // groups
    total = np.cumsum(np.pad(counts, (reach + 1, reach), mode="symmetric"))
    mean: Array = (total[2 * reach + 1 :] - total[: -2 * reach - 1]) / (2 * reach + 1)
    return mean


def best_end(counts: Array, start: int, ends: np.ndarray[tuple[int], np.dtype[np.int64]], groups: int) -> int:
    """The middle of the ends whose divergence is hardly above the least, weighted by how much less it is; 0 if there is
    no candidate, and the widest if none has a finite divergence."""
    if not ends.size:
        return 0
    found = divergence(counts, start, ends, groups)
    least = float(found.min())
    if not np.isfinite(least):
        return int(ends[-1])
    weight = np.maximum(0.0, least * (1 + SLACK) + len(counts) / (2 * COUNTED) - found)
    return round(float((weight * ends).sum() / weight.sum()))


def divergence(counts: Array, start: int, ends: np.ndarray[tuple[int], np.dtype[np.int64]], groups: int) -> Array:
    """KL(P || Q) of every range [start, end) of bins.

    All ends at once: group g of a range takes bins start + floor(g * n / groups) up to the next one's, its mass m and
        its number z
    of non-empty bins come from prefix sums, Q is m / z on each of those, so that with N all elements and M those
    within the range

        KL = (sum of p log p  -  sum over groups of m log(m / z)  -  outliers * log(Q of the last bin)) / N  +  log(M
        / N)

    where p is the count of a bin, in the last one with the outliers. What lies left of `start` is an outlier that no
    `end`
    changes: it is added to the first bin in the same way.

    Args:
        counts: elements per bin, [bins].
        start: first bin of the range.
        ends: [candidates] bins behind the range, each >= start + groups.
        groups: levels of the quantized distribution.

    Returns:
        [candidates], each >= 0.
    """
    filled = counts > 0
    mass = np.concatenate([[0.0], np.cumsum(counts)])
    number = np.concatenate([[0], np.cumsum(filled)])
    entropy = np.concatenate([[0.0], np.cumsum(_xlogx(counts))])
    total = mass[-1]
    size = (ends - start)[:, None]
    bounds = start + np.arange(groups + 1)[None, :] * size // groups
    m = np.diff(mass[bounds], axis=1)
    z = np.diff(number[bounds], axis=1).astype(np.float64)
    left, right = mass[start], total - mass[ends]
    first, last = counts[start], counts[ends - 1]
    # an outlier fills a bin of P that may be empty in Q: it shares in the mass of its group then
    z[:, 0] += (left > 0) & (first == 0)
    z[:, -1] += (right > 0) & (last == 0)
    q = np.maximum(m / np.maximum(z, 1.0), SMOOTH)
    within = mass[ends] - mass[start]
    p_log_p = entropy[ends] - entropy[start]
    p_log_p = p_log_p - _xlogx(first) + _xlogx(first + left) - _xlogx(last) + _xlogx(last + right)
    p_log_q = (m * np.log(q)).sum(axis=1) + left * np.log(q[:, 0]) + right * np.log(q[:, -1])
    with np.errstate(divide="ignore"):
        found: Array = (p_log_p - p_log_q) / total + np.log(within / total)
    return np.where(within > 0, np.maximum(found, 0.0), np.inf)


def _xlogx(x: Array) -> Array:
    result: Array = x * np.log(np.maximum(x, np.finfo(np.float64).tiny))
    return result
