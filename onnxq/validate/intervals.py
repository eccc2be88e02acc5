"""What an interval is, and those that need no metric: of a median, and how many samples would decide."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A two-sided interval of `level` (0.95); `method` says by which rule: bootstrap, tango, median."""

    low: float
    high: float
    level: float = 0.95
    method: str = "bootstrap"

    def negated(self) -> Interval:
        """Of the value with the other sign."""
        return Interval(low=0.0 - self.high, high=0.0 - self.low, level=self.level, method=self.method)


def median_interval(values: NDArray[np.float64], *, level: float = 0.95) -> Interval:
    """Interval of the median that asks nothing of the distribution: from the k-th smallest to the k-th greatest value.

    k is the greatest for which the binomial distribution B(n, 1/2) has at most (1 - level) / 2 below k (Conover,
    Practical Nonparametric Statistics, chapter 3.2). Below 6 values no k will do for 95 %: the interval is unbounded.
    """
    from scipy.special import bdtr  # scipy.stats takes most of a second to import

    ordered = np.sort(values)
    n = len(ordered)
    tail = (1 - level) / 2
    k = int(np.searchsorted(bdtr(np.arange((n + 1) // 2), n, 0.5), tail, side="right"))
    if k < 1:
        return Interval(low=-math.inf, high=math.inf, level=level, method="median")
    return Interval(low=float(ordered[k - 1]), high=float(ordered[n - k]), level=level, method="median")


def samples_by_width(point: float, interval: Interval, limit: float, n: int) -> int | None:
    """How many samples would take the limit out of the interval, if the estimate stays and the width shrinks as
    1 / sqrt(n):

        n' = n (w / |limit - point|)^2,  w = from the estimate to the end of the interval on the limit's side.

    None: the estimate is the limit itself, or something is not finite.
    """
    gap = abs(limit - point)
    width = interval.high - point if point < limit else point - interval.low
    if not (math.isfinite(gap) and math.isfinite(width)) or gap <= 1e-12 or width <= 0:
        return None
    needed = math.ceil(n * (width / gap) ** 2)
    return max(needed, n + 1) if needed < 10**9 else None
