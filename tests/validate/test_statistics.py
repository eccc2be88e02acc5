from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
from scipy import stats

from onnxq.validate.metrics.classification import Top1
from onnxq.validate.metrics.correlation import Pearson
from onnxq.validate.metrics.fidelity import Sqnr
from onnxq.validate.statistics import is_mean, mcnemar, paired_bootstrap


class SlowMean(Top1):
    """Hides that it is a mean from `is_mean` by a second, unused column."""


class Median:
    higher_is_better: ClassVar[bool] = True

    def record(self, outputs: Any, label: Any) -> list[float]:
        raise AssertionError

    def score(self, records: Any) -> float:
        return float(np.median(records[:, 0]))


def answers(seed: int, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    reference = rng.random(n) < 0.9
    candidate = np.where(rng.random(n) < 0.05, rng.random(n) < 0.5, reference)
    return reference[:, None].astype(float), candidate[:, None].astype(float)


def test_mean_is_seen_and_other_scores_are_not() -> None:
    rows = np.arange(9.0)[:, None]
    assert is_mean(Top1(), rows)
    assert not is_mean(Median(), rows)
    assert not is_mean(Sqnr(), np.ones((3, 2)))


def test_equal_records_have_the_interval_zero() -> None:
    rows = answers(0)[0]
    interval = paired_bootstrap(Top1(), rows, rows)
    assert (interval.low, interval.high, interval.level) == (0.0, 0.0, 0.95)


def test_fast_and_generic_way_give_the_same_interval() -> None:
    one, two = answers(3)
    fast = paired_bootstrap(Top1(), one, two, resamples=500)
    pad = np.zeros_like(one)
    slow = paired_bootstrap(SlowMean(), np.hstack([one, pad]), np.hstack([two, pad]), resamples=500)
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), abs=1e-12)
    assert fast.low < fast.high


def test_interval_is_reproducible_and_seeded() -> None:
    one, two = answers(4)
    assert paired_bootstrap(Top1(), one, two) == paired_bootstrap(Top1(), one, two)
    noisy = one + np.random.default_rng(0).normal(size=one.shape)
    assert paired_bootstrap(Top1(), noisy, two) != paired_bootstrap(Top1(), noisy, two, seed=1)


def test_interval_covers_the_true_difference() -> None:
    """True drop: 5 % of the answers are redrawn with p = 1/2, so 0.05 * (0.9 - 0.5) = 0.02."""
    hits = 0
    for seed in range(200):
        interval = paired_bootstrap(Top1(), *answers(seed), resamples=300)
        hits += interval.low <= 0.02 <= interval.high
    assert 180 <= hits <= 198  # 95 % of 200 is 190, standard deviation 3


def test_chunks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = answers(5)
    whole = paired_bootstrap(Top1(), one, two, resamples=50)
    monkeypatch.setattr("onnxq.validate.statistics._CHUNK", 3 * len(one))
    assert paired_bootstrap(Top1(), one, two, resamples=50) == whole


def test_infinite_scores_do_not_become_nan() -> None:
    one, two = np.array([[4.0, 0.0]] * 5), np.array([[4.0, 1.0]] * 5)
    interval = paired_bootstrap(Sqnr(), one, two, resamples=20)
    assert (interval.low, interval.high) == (np.inf, np.inf)
    same = paired_bootstrap(Sqnr(), one, one, resamples=20)
    assert (same.low, same.high) == (0.0, 0.0)


def test_generic_interval_of_a_correlation() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    one, two = np.stack([x, x], 1), np.stack([x + rng.normal(size=60), x], 1)
    interval = paired_bootstrap(Pearson(), one, two, resamples=200)
    assert interval.low < 1 - Pearson().score(two) < interval.high


def test_nan_scores_give_a_nan_interval() -> None:
    rows = np.full((4, 1), np.nan)
    assert np.isnan(paired_bootstrap(Top1(), rows, rows, resamples=5).low)


def test_mcnemar_against_the_binomial_test() -> None:
    reference = np.array([1] * 10 + [0] * 3 + [1] * 20, bool)
    candidate = np.array([0] * 10 + [1] * 3 + [1] * 20, bool)
    assert mcnemar(reference, candidate) == pytest.approx(stats.binomtest(10, 13, 0.5).pvalue)
    assert mcnemar(reference, reference) == 1.0
