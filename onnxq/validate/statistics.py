"""Paired statistics: is the difference of two scores on the same samples more than chance?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from onnxq.validate import proportions
from onnxq.validate.intervals import Interval, samples_by_width
from onnxq.validate.metrics.base import Metric
from onnxq.validate.proportions import mcnemar, mcnemar_mid

__all__ = ["Interval", "difference_interval", "mcnemar", "mcnemar_mid", "paired_bootstrap", "samples_to_decide"]

Rows = NDArray[np.float64]

FEW = 5
"""Up to so many differing samples the bootstrap has seen too little, and the interval is widened by a bound."""
_CHUNK = 4_000_000  # drawn indices held at once: 32 MB


def difference_interval(
    metric: Metric,
    reference: Rows,
    candidate: Rows,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of score(reference) - score(candidate) that a verdict may rest on.

    * Rows of one 0 or 1 whose mean is the score: Tango's interval of paired shares.
    * Else the bootstrap with expanded percentiles. Where at most FEW samples differ between the models, both ends move
      out by (u - m/n) * span: u is Clopper-Pearson's bound for the share m/n of differing samples, and span the widest
      that one sample can move the score by (the metric's `bounds`, else the magnitude of the score). So no interval
      has the width zero, whatever the samples say.

    Args:
        reference: rows of the float model, [n, k].
        candidate: rows of the quantized model on the same samples, [n, k].
        resamples: draws of the bootstrap; fewer if the metric says so (`max_resamples`); with 0 the ends are NaN.
        level: of the interval.
        seed: of the draws.
    """
    n = len(reference)
    if right_or_wrong(metric, reference, candidate):
        b, c = proportions.discordant(reference[:, 0] > 0, candidate[:, 0] > 0)
        return proportions.paired_interval(b, c, n, level=level)
    resamples = min(resamples, int(getattr(metric, "max_resamples", resamples)))
    interval = paired_bootstrap(metric, reference, candidate, resamples=resamples, level=level, seed=seed, expand=True)
    if math.isnan(interval.low):
        return interval
    differing = int((~np.all((reference == candidate) | (np.isnan(reference) & np.isnan(candidate)), axis=1)).sum())
    if differing > FEW:
        return interval
    more = (proportions.share_bound(differing, n, level) - differing / n) * _span(metric, reference)
    return Interval(low=interval.low - more, high=interval.high + more, level=level, method="bootstrap")


def score_interval(
    metric: Metric, rows: Rows, *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Interval of score(rows) itself, for limits on the candidate's own score.

    * Rows of one 0 or 1 whose mean is the score: Clopper and Pearson's, which never holds its level too loosely.
    * Else the bootstrap as in `difference_interval`. Where it has no width, the lower end is what the score would be if
      as many samples were as bad as can be as n good ones cannot exclude: by the metric's `at_worst(rows, share)`, else
      share * span below.
    """
    n = len(rows)
    if rows.shape[1] == 1 and bool(np.isin(rows, (0, 1)).all()) and is_mean(metric, rows):
        return proportions.share_interval(int(rows.sum()), n, level=level)
    resamples = min(resamples, int(getattr(metric, "max_resamples", resamples)))
    found = _percentiles(_draw_scores(metric, rows, resamples, seed), n, level, expand=True)
    if found.low != found.high:
        return found
    share = proportions.share_bound(0, n, level)
    at_worst = getattr(metric, "at_worst", None)
    if at_worst is not None:
        return Interval(low=float(at_worst(rows, share)), high=found.high, level=level)
    more = share * _span(metric, rows)
    better = metric.higher_is_better
    return Interval(low=found.low - more * better, high=found.high + more * (not better), level=level)


def score_samples_to_decide(metric: Metric, rows: Rows, interval: Interval, limit: float) -> int | None:
    """As `samples_to_decide`, for a limit on the score of one model."""
    n = len(rows)
    if interval.method == "clopper-pearson":
        return proportions.share_samples_needed(int(rows.sum()), n, limit, level=interval.level)
    return samples_by_width(float(metric.score(rows)), interval, limit, n)


def _span(metric: Metric, rows: Rows) -> float:
    """The widest that one sample, of all, can move the score by."""
    bounds = getattr(metric, "bounds", None)
    if bounds is not None:
        return float(bounds[1] - bounds[0])
    score = abs(float(metric.score(rows)))
    return score if 0 < score < math.inf else 1.0


def right_or_wrong(metric: Metric, reference: Rows, candidate: Rows) -> bool:
    """Every row of both is a single 0 or 1, and the score is the mean of them."""
    both = np.concatenate([reference, candidate])
    return (
        both.shape[1] == 1
        and bool(np.isin(both, (0, 1)).all())
        and is_mean(metric, reference)
        and is_mean(metric, both)
    )


def samples_to_decide(metric: Metric, reference: Rows, candidate: Rows, interval: Interval, limit: float) -> int | None:
    """How many samples like these would take `limit` (on the difference reference - candidate) out of the interval.

    For shares: the least n at which Tango's interval at the same rates no longer holds the limit. Else by the width,
    which shrinks as 1 / sqrt(n); where no sample differs, by the bound, which shrinks as 1 / n. At the same rates: on
    new samples the rates move, so that this number decides about every other time, and twice the number mostly.
    """
    n = len(reference)
    if interval.method == "tango":
        b, c = proportions.discordant(reference[:, 0] > 0, candidate[:, 0] > 0)
        return proportions.samples_needed(b, c, n, limit, level=interval.level)
    point = minus(metric.score(reference), metric.score(candidate))
    if np.array_equal(reference, candidate):
        return math.ceil(n * interval.high / abs(limit)) if 0 < abs(limit) < interval.high else None
    return samples_by_width(point, interval, limit, n)


def paired_bootstrap(
    metric: Metric,
    reference: Rows,
    candidate: Rows,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    expand: bool = False,
) -> Interval:
    """Interval of score(reference) - score(candidate), from resampled samples (the same draw for both models).

    Percentile bootstrap: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. Where the score is
    the mean of one column or a function of column sums, draws are scored at once; any other is computed for each draw.

    Args:
        reference: rows of the float model, [n, k].
        candidate: rows of the quantized model on the same samples, [n, k].
        expand: widen the percentiles as Student's t widens the normal interval: Phi(sqrt(n / (n - 1)) t(n - 1)) for the
            tail (Hesterberg, The American Statistician 69:371, 2015), without which small samples give too narrow
            intervals.
    """
    return _percentiles(_scores(metric, reference, candidate, resamples, seed), len(reference), level, expand=expand)


def _percentiles(draws: NDArray[np.float64], n: int, level: float, *, expand: bool) -> Interval:
    draws = draws[~np.isnan(draws)]
    if not draws.size or (expand and n < 2):
        return Interval(low=np.nan, high=np.nan, level=level)
    tail = _expanded((1 - level) / 2, n) if expand else (1 - level) / 2
    # "inverted_cdf" takes a drawn value, so infinite scores do not turn into NaN by interpolation
    low, high = np.quantile(draws, [tail, 1 - tail], method="inverted_cdf")
    return Interval(low=float(low), high=float(high), level=level)


def _expanded(tail: float, n: int) -> float:
    from scipy.special import ndtr, stdtrit

    return float(ndtr(math.sqrt(n / (n - 1)) * stdtrit(n - 1, tail)))


def _scores(metric: Metric, reference: Rows, candidate: Rows, resamples: int, seed: int) -> NDArray[np.float64]:
    """The difference of the scores for each draw."""
    n = len(reference)
    if not resamples:
        return np.empty(0)
    if is_mean(metric, reference) and is_mean(metric, candidate):
        difference = reference[:, 0] - candidate[:, 0]
        return np.concatenate([difference[index].mean(axis=1) for index in _draws(n, resamples, seed)])
    one, two = (_draw_scores(metric, rows, resamples, seed) for rows in (reference, candidate))
    with np.errstate(invalid="ignore"):
        return np.where(one == two, 0.0, one - two)


def _draw_scores(metric: Metric, rows: Rows, resamples: int, seed: int) -> NDArray[np.float64]:
    """The score of each draw."""
    of_sums: Callable[[Rows], NDArray[np.float64]] | None = getattr(metric, "of_sums", None)
    found: list[NDArray[np.float64]] = []
    for index in _draws(len(rows), resamples, seed):
        if of_sums is not None:
            sums = np.stack([rows[:, k][index].sum(axis=1) for k in range(rows.shape[1])], axis=1)
            found.append(np.asarray(of_sums(sums), dtype=np.float64))
        else:
            found.append(np.array([metric.score(rows[row]) for row in index], dtype=np.float64))
    return np.concatenate(found)


def is_mean(metric: Metric, records: NDArray[np.float64]) -> bool:
    """True if the score is the mean of the only column, tested on these rows and on three random draws of them."""
    if records.ndim != 2 or records.shape[1] != 1 or not len(records):
        return False
    rng = np.random.default_rng(1)
    trials = [records, *(records[rng.integers(0, len(records), len(records))] for _ in range(3))]
    return all(np.isclose(metric.score(t), t[:, 0].mean(), rtol=1e-12, atol=1e-15) for t in trials)


def minus(first: float, second: float) -> float:
    """Difference in which two equal infinities cancel."""
    return 0.0 if first == second else first - second


def _draws(n: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Sample indices [some, n], `resamples` rows in all; the same for equal n and seed."""
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // max(n, 1))
    for start in range(0, resamples, step):
        yield rng.integers(0, n, size=(min(step, resamples - start), n))
