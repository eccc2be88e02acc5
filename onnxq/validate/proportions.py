"""Right or wrong, twice: intervals and tests for the difference of two shares that were counted on the same samples."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnxq.validate.intervals import Interval

_STEPS = 60  # halvings of [-1, 1]: more than a double can tell apart
_MOST = 10**9


def mcnemar(reference: NDArray[np.bool_], candidate: NDArray[np.bool_]) -> float:
    """Exact two-sided McNemar test of paired right/wrong answers: p that both models are equally often right.

    Under the null each sample on which the two disagree is a fair coin: a binomial test on the disagreements
    (McNemar 1947; exact form as in Fagerland, Lydersen, Laake, BMC Med Res Methodol 13:91, 2013).
    """
    from scipy.special import bdtr

    pair = discordant(reference, candidate)
    return min(1.0, 2.0 * float(bdtr(min(pair), sum(pair), 0.5))) if sum(pair) else 1.0


def mcnemar_mid(reference: NDArray[np.bool_], candidate: NDArray[np.bool_]) -> float:
    """McNemar's test with the mid-p value: the exact one less the probability of what was seen; not conservative.

    Recommended by Fagerland, Lydersen, Laake (2013) for all sample sizes. Without a disagreement it is 1/2 of the two
    sides, which is 1.
    """
    only_reference, only_candidate = discordant(reference, candidate)
    total = only_reference + only_candidate
    return mcnemar(reference, candidate) - math.comb(total, only_reference) / 2**total if total else 1.0


def discordant(reference: NDArray[np.bool_], candidate: NDArray[np.bool_]) -> tuple[int, int]:
    """Samples that only the first, and only the second gets right."""
    return int((reference & ~candidate).sum()), int((candidate & ~reference).sum())


def share_bound(hits: int, n: int, level: float = 0.95) -> float:
    """Upper end of the two-sided Clopper-Pearson interval of a share; for 0 of n it is 1 - ((1 - level) / 2)^(1/n).

    >>> round(share_bound(0, 20), 4)
    0.1684
    """
    from scipy.special import betaincinv

    return 1.0 if hits >= n else float(betaincinv(hits + 1, n - hits, (1 + level) / 2))


def share_interval(hits: int, n: int, *, level: float = 0.95) -> Interval:
    """Clopper and Pearson's interval of a share, which holds at least its level for every n.

    >>> [round(v, 4) for v in (share_interval(20, 20).low, share_interval(20, 20).high)]
    [0.8316, 1.0]
    """
    return Interval(
        low=1.0 - share_bound(n - hits, n, level),
        high=share_bound(hits, n, level),
        level=level,
        method="clopper-pearson",
    )


def share_samples_needed(hits: int, n: int, limit: float, *, level: float = 0.95) -> int | None:
    """As `samples_needed`, for one share; scaled hits are rounded."""
    if math.isclose(hits / n, limit, abs_tol=1e-12):
        return None

    def decides(size: int) -> bool:
        interval = share_interval(round(hits * size / n), size, level=level)
        return interval.low >= limit or interval.high < limit

    return _least(decides, n)


def paired_interval(only_reference: float, only_candidate: float, n: float, *, level: float = 0.95) -> Interval:
    """Interval of share(reference) - share(candidate), from the numbers of samples that only one gets right.

    Tango's score interval (Statistics in Medicine 17:891, 1998), which holds its level for small n, too (compared in
    Newcombe, Statistics in Medicine 17:2635, 1998). Where the two models never disagree it still has a width: the
    interval then reaches as far as Clopper-Pearson's bound for 0 of n, whichever of the two is wider.
    """
    low, high = (float(bound) for bound in tango(only_reference, only_candidate, n, level=level))
    if only_reference + only_candidate == 0:
        bound = -math.expm1(math.log((1 - level) / 2) / n)  # share_bound(0, n), for n that is no whole number, too
        low, high = min(low, -bound), max(high, bound)
    return Interval(low=low, high=high, level=level, method="tango")


def tango(
    only_reference: ArrayLike, only_candidate: ArrayLike, n: ArrayLike, *, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both ends of Tango's interval, for arrays of counts at once (they are broadcast).

    The ends are the differences D at which the score statistic

        T(D) = (b - c - n D) / sqrt(n (2 q + D (1 - D)))

    is +z and -z; q, the share of samples that only the second gets right, is the likeliest under D: the root of
    2n q^2 - (b + c - (2n - b + c) D) q - c D (1 - D) = 0. T falls with D, so halving finds them.
    """
    from scipy.special import ndtri

    b, c, size = np.broadcast_arrays(*(np.asarray(v, dtype=np.float64) for v in (only_reference, only_candidate, n)))
    z = float(ndtri((1 + level) / 2))
    point = (b - c) / size

    def statistic(d: NDArray[np.float64]) -> NDArray[np.float64]:
        middle = -b - c + (2 * size - b + c) * d
        root = np.sqrt(np.maximum(middle * middle + 8 * size * c * d * (1 - d), 0))
        q = (root - middle) / (4 * size)
        spread = np.sqrt(np.maximum(size * (2 * q + d * (1 - d)), 0))
        gap = b - c - size * d
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(spread > 0, gap / spread, np.sign(gap) * np.inf), dtype=np.float64)

    low = _fall(lambda d: statistic(d) - z, np.full_like(point, -1.0), point)
    high = _fall(lambda d: statistic(d) + z, point, np.full_like(point, 1.0))
    return low, high


def _fall(
    function: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Where a falling function goes through zero."""
    for _ in range(_STEPS):
        middle = (low + high) / 2
        above = function(middle) > 0
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return (low + high) / 2


def samples_needed(
    only_reference: int, only_candidate: int, n: int, limit: float, *, level: float = 0.95
) -> int | None:
    """The least number of samples whose interval no longer holds `limit`, if the shares stay as they are.

    None: the difference is the limit itself, so that no number decides.
    """
    if math.isclose((only_reference - only_candidate) / n, limit, abs_tol=1e-12):
        return None

    def decides(size: int) -> bool:
        scale = size / n
        interval = paired_interval(only_reference * scale, only_candidate * scale, size, level=level)
        return interval.high <= limit or interval.low > limit

    return _least(decides, n)


def _least(decides: Callable[[int], bool], n: int) -> int | None:
    """The least number from n on that decides, if all greater ones do."""
    high = n
    while not decides(high):
        high *= 2
        if high > _MOST:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high
