"""The intervals hold what they promise: checked by simulation (seeded) and against scipy."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy import optimize, stats

from onnxq.validate.intervals import Interval, median_interval, samples_by_width
from onnxq.validate.metrics.classification import MacroF1, Top1
from onnxq.validate.metrics.fidelity import Cosine, Sqnr
from onnxq.validate.metrics.text import Cer
from onnxq.validate.proportions import (
    mcnemar,
    mcnemar_mid,
    paired_interval,
    samples_needed,
    share_bound,
    share_interval,
    tango,
)
from onnxq.validate.statistics import (
    difference_interval,
    paired_bootstrap,
    samples_to_decide,
    score_interval,
    score_samples_to_decide,
)

SIMULATIONS = 1000


class Mean:
    """A mean of any numbers, without bounds."""

    higher_is_better: ClassVar[bool] = True

    def record(self, outputs: Any, label: Any) -> list[float]:
        raise AssertionError

    def score(self, records: Any) -> float:
        return float(records[:, 0].mean())


def correct(b: int, c: int, n: int, both: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of right (1) and wrong (0): b only by the first, c only by the second, `both` by both."""
    one = np.array([1.0] * b + [0.0] * c + [1.0] * both + [0.0] * (n - b - c - both))
    two = np.array([0.0] * b + [1.0] * c + [1.0] * both + [0.0] * (n - b - c - both))
    return one[:, None], two[:, None]


@pytest.mark.parametrize(
    ("n", "only_first", "only_second"),
    [(2000, 0.02, 0.01), (500, 0.03, 0.03), (200, 0.05, 0.03), (50, 0.1, 0.05), (20, 0.15, 0.1), (20, 0.25, 0.1)],
)
def test_paired_shares_cover_the_true_difference(n: int, only_first: float, only_second: float) -> None:
    """95 % intervals of 1,000 data sets hold the true difference in 93 to 97 % of them, at 20 samples as at 2,000."""
    draws = np.random.default_rng(0).multinomial(
        n, [only_first, only_second, 1 - only_first - only_second], SIMULATIONS
    )
    low, high = tango(draws[:, 0], draws[:, 1], n)
    truth = only_first - only_second
    assert 0.93 <= ((low <= truth) & (truth <= high)).mean() <= 0.97


def test_where_models_hardly_ever_disagree_the_interval_is_on_the_safe_side() -> None:
    """One disagreement in 100 on 20 samples: most data sets have none, and the interval must hold the truth anyway."""
    for n, p in ((20, 0.01), (20, 0.1), (100, 0.02)):
        counts = np.random.default_rng(1).binomial(n, p, SIMULATIONS)
        bounds = {b: paired_interval(b, 0, n) for b in sorted(set(counts.tolist()))}
        held = np.mean([bounds[b].low <= p <= bounds[b].high for b in counts.tolist()])
        assert held >= 0.93, (n, p)


def draw(kind: str, rng: np.random.Generator, n: int) -> np.ndarray:
    return {"normal": rng.normal(0.5, 1, n), "skewed": rng.gamma(2, 0.25, n)}[kind]


@pytest.mark.parametrize(("n", "kind"), [(20, "normal"), (50, "skewed"), (200, "normal"), (200, "skewed")])
def test_bootstrap_covers_the_true_mean(n: int, kind: str) -> None:
    held = 0
    for seed in range(SIMULATIONS):
        rng = np.random.default_rng(seed)
        reference = rng.normal(0, 3, n)
        candidate = reference - draw(kind, rng, n)
        got = difference_interval(Mean(), reference[:, None], candidate[:, None], resamples=500, seed=seed)
        held += got.low <= 0.5 <= got.high
    assert 930 <= held <= 970


def test_without_expanded_percentiles_small_samples_would_be_too_narrow() -> None:
    held = [0, 0]
    for seed in range(400):
        rng = np.random.default_rng(seed)
        one, two = rng.normal(0.5, 1, (10, 1)), np.zeros((10, 1))
        for i, expand in enumerate((False, True)):
            got = paired_bootstrap(Mean(), one, two, resamples=400, seed=seed, expand=expand)
            held[i] += got.low <= 0.5 <= got.high
    assert held[0] < 0.93 * 400 <= held[1]


def test_bootstrap_agrees_with_scipy() -> None:
    rng = np.random.default_rng(7)
    one, two = rng.normal(1, 1, 80), rng.normal(0.8, 1, 80)
    ours = paired_bootstrap(Mean(), one[:, None], two[:, None], resamples=20000)
    theirs = stats.bootstrap(
        (one, two), lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis), paired=True, vectorized=True,
        method="percentile", n_resamples=20000, rng=np.random.default_rng(3),
    ).confidence_interval  # fmt: skip
    width = theirs.high - theirs.low
    assert abs(ours.low - theirs.low) < 0.03 * width and abs(ours.high - theirs.high) < 0.03 * width


def test_score_from_sums_gives_the_draws_of_the_score() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.random((30, 2)) + 1, rng.random((30, 2)) + 1

    class Slow(Sqnr):
        of_sums = None  # type: ignore[assignment]

        def score(self, records: Any) -> float:
            return float(Sqnr().of_sums(records.sum(axis=0)))

    fast, slow = (paired_bootstrap(m, one, two, resamples=200) for m in (Sqnr(), Slow()))
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), abs=1e-9)


@pytest.mark.parametrize(("b", "c", "n"), [(12, 2, 50), (2, 7, 20), (30, 25, 400)])
def test_tango_against_a_likelihood_that_scipy_maximises(b: int, c: int, n: int) -> None:
    """At both ends the score statistic, with the share q as likely as it can be under D, is a normal quantile."""
    for d, z in zip(tango(b, c, n), (stats.norm.ppf(0.975), stats.norm.ppf(0.025)), strict=True):
        least, most = max(0.0, -float(d)) + 1e-12, (1 - float(d)) / 2 - 1e-12

        def unlikely(q: float, d: float = float(d)) -> float:
            return -(b * math.log(q + d) + c * math.log(q) + (n - b - c) * math.log(1 - 2 * q - d))

        q = optimize.minimize_scalar(unlikely, bounds=(least, most), method="bounded", options={"xatol": 1e-12}).x
        assert (b - c - n * d) / math.sqrt(n * (2 * q + d * (1 - d))) == pytest.approx(z, abs=1e-4)


def test_ends_are_where_the_score_statistic_is_a_normal_quantile() -> None:
    """For no sample that only the second gets right, q = 0 at the upper end: (b - nD)^2 = z^2 n D (1 - D), Wilson's."""
    wilson = stats.binomtest(6, 40).proportion_ci(method="wilson")
    assert float(tango(6, 0, 40)[1]) == pytest.approx(wilson.high, abs=1e-9)


@pytest.mark.parametrize("n", [1, 5, 20, 100, 2000])
def test_no_disagreement_has_the_bound_of_clopper_and_pearson_or_wider(n: int) -> None:
    interval = paired_interval(0, 0, n)
    exact = stats.binomtest(0, n).proportion_ci(method="exact").high
    assert share_bound(0, n) == pytest.approx(exact)
    assert interval.high >= exact * (1 - 1e-9)
    assert interval.low == pytest.approx(-interval.high)
    assert n < 100 or interval.high < 4 / n


def test_share_bound_is_scipys() -> None:
    for hits, n in ((3, 20), (19, 20), (20, 20)):
        assert share_bound(hits, n) == pytest.approx(stats.binomtest(hits, n).proportion_ci(method="exact").high)


def test_zero_lies_outside_where_mcnemars_statistic_is_large() -> None:
    """(b - c)^2 / (b + c) against the quantile of chi square with one degree."""
    for b, c in ((8, 1), (9, 2), (10, 3), (11, 4), (10, 2), (5, 0), (4, 0), (3, 0)):
        significant = (b - c) ** 2 / (b + c) > stats.chi2.ppf(0.95, 1)
        assert (paired_interval(b, c, 300).low > 0) == significant, (b, c)


def test_mid_p_is_the_exact_one_less_the_chance_of_what_was_seen() -> None:
    one, two = (rows[:, 0].astype(bool) for rows in correct(10, 3, 40, 20))
    exact = stats.binomtest(10, 13).pvalue
    assert mcnemar(one, two) == pytest.approx(exact)
    assert mcnemar_mid(one, two) == pytest.approx(exact - stats.binom.pmf(10, 13, 0.5))
    assert mcnemar_mid(one, one) == 1.0
    even = [rows[:, 0].astype(bool) for rows in correct(4, 4, 40, 20)]
    assert 0.7 < mcnemar_mid(*even) < 1.0 == mcnemar(*even)


def test_mid_p_keeps_its_level() -> None:
    """Where both are equally often right, p < 0.05 comes up in at most about 5 % of the data sets."""
    rng = np.random.default_rng(2)
    counts = rng.multinomial(200, [0.05, 0.05, 0.9], SIMULATIONS)
    table = {(b, c): mcnemar_mid(*(r[:, 0].astype(bool) for r in correct(b, c, 200))) for b, c, _ in counts.tolist()}
    rejected = np.mean([table[b, c] < 0.05 for b, c, _ in counts.tolist()])
    assert 0.03 <= rejected <= 0.06


@pytest.mark.parametrize(
    ("b", "c", "n", "limit"), [(0, 0, 20, 0.01), (2, 1, 100, 0.05), (12, 2, 50, 0.1), (3, 9, 99, 0.01)]
)
def test_samples_needed_is_the_least_number_that_decides(b: int, c: int, n: int, limit: float) -> None:
    needed = samples_needed(b, c, n, limit)
    assert needed is not None

    def holds(size: int) -> bool:
        got = paired_interval(b * size / n, c * size / n, size)
        return got.low <= limit < got.high

    assert not holds(needed)
    assert holds(needed - 1) or needed == n


def test_nothing_decides_where_the_difference_is_the_limit() -> None:
    assert samples_needed(2, 1, 100, 0.01) is None
    assert samples_by_width(0.5, Interval(low=0.4, high=0.6), 0.5, 100) is None
    assert samples_by_width(0.5, Interval(low=-math.inf, high=math.inf), 0.6, 3) is None


def test_samples_by_width() -> None:
    """A limit at a tenth of the half-width needs a hundred times the samples."""
    assert samples_by_width(0.0, Interval(low=-2.0, high=1.0), 0.1, 50) == 5000
    assert samples_by_width(0.0, Interval(low=-2.0, high=1.0), -0.1, 50) == 20000


def test_equal_records_never_have_an_interval_of_width_zero() -> None:
    rng = np.random.default_rng(0)
    for metric, rows in (
        (Top1(), np.ones((20, 1))),
        (MacroF1(), np.stack([np.arange(20.0) % 4] * 2, axis=1)),
        (Mean(), rng.normal(5, 1, (20, 1))),
        (Mean(), np.zeros((20, 1))),
        (Cosine(), np.full((20, 1), 0.5)),
    ):
        interval = difference_interval(metric, rows, rows, resamples=50)
        assert interval.low < -0.1 and interval.high > 0.1, type(metric).__name__
        needed = samples_to_decide(metric, rows, rows, interval, 0.01)
        assert needed is not None and needed > 300


def test_a_score_of_its_own_has_a_width_too() -> None:
    right = score_interval(Top1(), np.ones((20, 1)))
    exact = stats.binomtest(20, 20).proportion_ci(method="exact")
    assert (right.low, right.high) == pytest.approx((exact.low, exact.high))
    assert score_samples_to_decide(Top1(), np.ones((20, 1)), right, 0.99) == 368
    equal = score_interval(Sqnr(), np.tile([4.0, 0.0], (20, 1)), resamples=50)
    assert equal.low == pytest.approx(-10 * math.log10(share_bound(0, 20))) and equal.high == math.inf
    flat = score_interval(Cosine(), np.full((20, 1), 0.5), resamples=50)
    assert flat.low == pytest.approx(0.5 - 2 * share_bound(0, 20)) and flat.high == 0.5
    lower = score_interval(Cer(), np.tile([1.0, 4.0], (20, 1)), resamples=50)
    assert lower.low == 0.25 and lower.high == pytest.approx(0.25 + share_bound(0, 20))
    assert score_samples_to_decide(Top1(), np.ones((20, 1)), right, 1.0) is None
    assert share_interval(0, 20).low == 0.0


@pytest.mark.parametrize(("n", "p"), [(20, 0.7), (200, 0.9)])
def test_own_shares_are_covered(n: int, p: float) -> None:
    """Clopper and Pearson's never hold less than 95 %."""
    counts = np.random.default_rng(0).binomial(n, p, SIMULATIONS)
    table = {k: share_interval(k, n) for k in set(counts.tolist())}
    assert np.mean([table[k].low <= p <= table[k].high for k in counts.tolist()]) >= 0.945


def test_without_draws_there_is_no_interval() -> None:
    """Who wants the scores alone asks for none."""
    rows = np.random.default_rng(0).random((30, 2))
    assert math.isnan(difference_interval(Sqnr(), rows, rows + 1, resamples=0).low)
    assert math.isnan(difference_interval(Mean(), rows[:, :1], rows[:, :1] + 1, resamples=0).high)
    assert difference_interval(Top1(), *correct(3, 1, 30), resamples=0).high < 1


def test_one_differing_sample_is_not_taken_for_the_whole_truth() -> None:
    """F1 of 20 samples of which one differs: the share of such samples may be as high as 25 %."""
    one = np.stack([np.arange(20.0) % 2] * 2, axis=1)
    two = one.copy()
    two[0, 0] = 1 - two[0, 0]
    assert difference_interval(MacroF1(), one, two, resamples=100).high > share_bound(1, 20) - 0.05
    many = paired_bootstrap(MacroF1(), one, two, resamples=100, expand=True)
    assert many.high < 0.2


@pytest.mark.parametrize("n", [8, 25, 100])
def test_median_interval_covers_the_true_median(n: int) -> None:
    values = np.random.default_rng(0).exponential(1.0, (SIMULATIONS, n))
    held = np.mean([i.low <= math.log(2) <= i.high for i in map(median_interval, values)])
    k = int(stats.binom.ppf(0.025, n, 0.5))
    k -= stats.binom.cdf(k - 1, n, 0.5) > 0.025
    promised = 1 - 2 * stats.binom.cdf(k - 1, n, 0.5)
    assert promised >= 0.95
    assert abs(held - promised) < 0.02


def test_median_of_too_few_values_is_unbounded() -> None:
    assert median_interval(np.arange(5.0)).high == math.inf
    assert median_interval(np.arange(6.0)) == Interval(low=0.0, high=5.0, method="median")
