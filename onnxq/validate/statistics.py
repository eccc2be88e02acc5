"""Paired statistics: is the difference of two scores on the same samples more than chance?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxq.validate.metrics.base import Metric

_CHUNK = 4_000_000  # drawn indices held at once: 32 MB


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A two-sided percentile interval of `level` (0.95)."""

    low: float
    high: float
    level: float = 0.95


def paired_bootstrap(
    metric: Metric,
    reference: NDArray[np.float64],
    candidate: NDArray[np.float64],
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of score(reference) - score(candidate), from resampled samples (the same draw for both models).

    Percentile bootstrap: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. Where the score is
    the mean of one column, draws are averaged at once; any other score is computed for each draw.

    Args:
        reference: rows of the float model, [n, k].
        candidate: rows of the quantized model on the same samples, [n, k].
    """
    n = len(reference)
    if is_mean(metric, reference) and is_mean(metric, candidate):
        difference = reference[:, 0] - candidate[:, 0]
        draws = np.concatenate([difference[index].mean(axis=1) for index in _draws(n, resamples, seed)])
    else:
        draws = np.array(
            [
                _minus(metric.score(reference[row]), metric.score(candidate[row]))
                for index in _draws(n, resamples, seed)
                for row in index
            ]
        )
    draws = draws[~np.isnan(draws)]
    if not draws.size:
        return Interval(low=np.nan, high=np.nan, level=level)
    # "inverted_cdf" takes a drawn value, so infinite scores do not turn into NaN by interpolation
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return Interval(low=float(low), high=float(high), level=level)


def is_mean(metric: Metric, records: NDArray[np.float64]) -> bool:
    """True if the score is the mean of the only column, tested on these rows and on three random draws of them."""
    if records.ndim != 2 or records.shape[1] != 1 or not len(records):
        return False
    rng = np.random.default_rng(1)
    trials = [records, *(records[rng.integers(0, len(records), len(records))] for _ in range(3))]
    return all(np.isclose(metric.score(t), t[:, 0].mean(), rtol=1e-12, atol=1e-15) for t in trials)


def mcnemar(reference: NDArray[np.bool_], candidate: NDArray[np.bool_]) -> float:
    """Exact two-sided McNemar test of paired right/wrong answers: p that both models are equally often right.

    Under the null each sample on which the two disagree is a fair coin: a binomial test on the disagreements
    (McNemar 1947; exact form as in Fagerland, Lydersen, Laake, BMC Med Res Methodol 13:91, 2013).
    """
    from scipy.stats import binomtest

    only_reference = int((reference & ~candidate).sum())
    only_candidate = int((candidate & ~reference).sum())
    total = only_reference + only_candidate
    return float(binomtest(only_reference, total, 0.5).pvalue) if total else 1.0


def _draws(n: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Sample indices [some, n], `resamples` rows in all; the same for equal n and seed."""
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // max(n, 1))
    for start in range(0, resamples, step):
        yield rng.integers(0, n, size=(min(step, resamples - start), n))


def _minus(first: float, second: float) -> float:
    """Difference in which two equal infinities cancel."""
    return 0.0 if first == second else first - second
