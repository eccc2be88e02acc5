"""Calibrators against brute force, numpy and the facts that each promises."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from onnxq import registry
from onnxq.encoding import Scheme
from onnxq.errors import UsageError
from onnxq.numerics import affine, dequantize, quantize
from onnxq.stats import Calibrator, TensorStatistics, make_observer
from onnxq.testing import check_calibrator
from onnxq_calibration import entropy
from onnxq_calibration._distribution import distribution, levels
from onnxq_calibration.entropy import Entropy
from onnxq_calibration.minmax import MinMax
from onnxq_calibration.mse import Mse
from onnxq_calibration.percentile import Percentile

NAMES = ["entropy", "minmax", "mixed", "mse", "percentile"]
U8 = Scheme(type="uint8", symmetric=False)
S8 = Scheme(type="int8", symmetric=True)
SCHEMES = [U8, S8, dataclasses.replace(U8, type="int8"), dataclasses.replace(U8, reduce_range=True)]
BIN = 2**-7


def seen(values: Any, subset: int | None = None) -> TensorStatistics:
    made = {o: make_observer(o, subset=subset) for o in ("minmax", "histogram", "heldout")}
    for observer in made.values():
        observer.update(np.asarray(values, dtype=np.float32))
    return TensorStatistics("t", made)


def normal(size: int = 100_000, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


def gelu(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return (x / (1 + np.exp(-1.702 * x))).astype(np.float32)


def cost(values: NDArray[np.float32], low: float, high: float, scheme: Scheme) -> float:
    """Mean squared error of quantizing the values themselves."""
    encoding = affine(low, high, scheme)
    return float(np.mean((dequantize(quantize(values, encoding), encoding).astype(np.float64) - values) ** 2))


TENSORS = {
    "normal": normal(),
    "relu": np.maximum(normal(), 0),
    "negative": -np.abs(normal()),
    "gelu": gelu(2 * normal()),
    "heavy tails": (normal() ** 3).astype(np.float32),
    "one outlier": np.append(normal(), np.float32(60)),
    "far from zero": normal() + 100,
    "sparse": np.append(np.zeros(100_000, np.float32), [5.0, 6.0]).astype(np.float32),
    "constant": np.full(50, -3.25, np.float32),
    "zero": np.zeros(50, np.float32),
    "two values": np.array([-1, 2], np.float32),
    "one element": np.array([0.1], np.float32),
    "subnormal": np.array([1e-42, -3e-43], np.float32),
    "tiny": normal(1000) * np.float32(1e-30),
    "huge": np.array([3.4e38, -3.4e38, 1, 0], np.float32),
}


def test_all_are_registered_under_their_names() -> None:
    assert set(NAMES) <= set(registry.names(registry.CALIBRATORS))
    for name in NAMES:
        kind = registry.load(registry.CALIBRATORS, name)
        assert kind.__module__ == f"onnxq_calibration.{name}"
        assert isinstance(kind(), Calibrator)


@pytest.mark.parametrize("name", NAMES)
def test_contract(name: str) -> None:
    check_calibrator(registry.load(registry.CALIBRATORS, name))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("title", TENSORS)
@pytest.mark.parametrize("scheme", SCHEMES, ids=["u8", "s8 symmetric", "s8", "u8 reduced"])
def test_ranges_are_sound(name: str, title: str, scheme: Scheme) -> None:
    values = TENSORS[title]
    low, high = registry.load(registry.CALIBRATORS, name)().range(seen(values), scheme)
    assert np.isfinite([low, high]).all()
    assert low <= high
    assert min(values.min(), 0) <= low
    assert high <= max(values.max(), 0)
    if title not in ("zero",):
        assert max(abs(low), abs(high)) > 0.2 * np.quantile(np.abs(values), 0.5)


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float32, st.integers(1, 60), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)),
    st.sampled_from(NAMES),
    st.sampled_from(SCHEMES),
)
def test_any_values_give_a_sound_range(values: NDArray[np.float32], name: str, scheme: Scheme) -> None:
    low, high = registry.load(registry.CALIBRATORS, name)().range(seen(values), scheme)
    assert min(values.min(), 0) <= low <= high <= max(values.max(), 0)


def test_minmax_is_exact() -> None:
    for values in TENSORS.values():
        assert MinMax().range(seen(values), U8) == (values.min(), values.max())


# ------------------------------------------------------------------------------------------------- percentile


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9, 99.99])
@pytest.mark.parametrize("title", ["normal", "relu", "negative", "gelu", "heavy tails", "far from zero"])
def test_percentile_is_that_of_numpy_within_a_bin(percentile: float, title: str) -> None:
    values = TENSORS[title]
    low, high = Percentile(percentile=percentile).range(seen(values), U8)
    expected = np.percentile(values.astype(np.float64), [100 - percentile, percentile])
    assert low == pytest.approx(expected[0], rel=2 * BIN, abs=1e-4)
    assert high == pytest.approx(expected[1], rel=2 * BIN, abs=1e-4)


def test_percentile_100_is_minmax_and_less_cuts() -> None:
    found = seen(TENSORS["one outlier"])
    assert Percentile(percentile=100).range(found, U8)[1] == 60
    assert Percentile().range(found, U8)[1] < 5


def test_percentile_keeps_a_tensor_that_is_zero_almost_everywhere() -> None:
    assert Percentile().range(seen(TENSORS["sparse"]), U8) == (0, 6)


# -------------------------------------------------------------------------------------------------------- mse


def brute_force(values: NDArray[np.float32], scheme: Scheme) -> float:
    """Least error over a fine grid of pairs, computed on the values themselves."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    shares = np.linspace(0.02, 1, 50)
    if scheme.symmetric:
        return min(cost(values, -s * max(-low, high), s * max(-low, high), scheme) for s in shares)
    return min(cost(values, a * low, b * high, scheme) for a in shares for b in shares)


@pytest.mark.parametrize(
    "title", ["normal", "relu", "negative", "gelu", "heavy tails", "one outlier", "two values", "constant"]
)
@pytest.mark.parametrize("scheme", [U8, S8], ids=["u8", "s8"])
def test_mse_is_as_good_as_brute_force(title: str, scheme: Scheme) -> None:
    values = TENSORS[title][::20] if len(TENSORS[title]) > 10_000 else TENSORS[title]
    low, high = Mse().range(seen(values), scheme)
    floor = 1e-9 * float(np.mean(values.astype(np.float64) ** 2))
    assert cost(values, low, high, scheme) <= 1.05 * brute_force(values, scheme) + floor


@pytest.mark.parametrize("title", ["normal", "gelu", "heavy tails", "relu"])
def test_mse_beats_the_other_methods_at_its_own_game(title: str) -> None:
    values = TENSORS[title]
    found = seen(values)
    mine = cost(values, *Mse().range(found, U8), U8)
    for other in (MinMax(), Percentile(), Entropy()):
        assert mine <= 1.02 * cost(values, *other.range(found, U8), U8)


def test_mse_searches_both_ends() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.exponential(1.0, 200_000), -rng.exponential(0.1, 200_000)]).astype(np.float32)
    low, high = Mse().range(seen(values), U8)
    assert values.min() < low < 0 < high < values.max()


# ---------------------------------------------------------------------------------------------------- entropy


def divergence_by_definition(counts: NDArray[np.float64], start: int, end: int, groups: int) -> float:
    """Migacz 2017, bin by bin, with outliers of both sides in the outermost bins."""
    p = counts[start:end].copy()
    p[0] += counts[:start].sum()
    p[-1] += counts[end:].sum()
    q = np.zeros_like(p)
    bounds = [g * (end - start) // groups for g in range(groups + 1)]
    for a, b in itertools.pairwise(bounds):
        filled = p[a:b] > 0
        if filled.any():
            q[a:b][filled] = max(counts[start + a : start + b].sum() / filled.sum(), entropy.SMOOTH)
    within = counts[start:end].sum()
    used = p > 0
    return float(np.sum(p[used] / p.sum() * np.log((p[used] / p.sum()) / (q[used] / within))))


@pytest.mark.parametrize("start", [0, 7])
@pytest.mark.parametrize("groups", [2, 5, 16])
def test_divergence_is_the_definition(start: int, groups: int) -> None:
    rng = np.random.default_rng(groups)
    counts = rng.poisson(1.5, 60).astype(np.float64) * rng.integers(0, 2, 60)
    ends = np.arange(start + groups, 61)
    found = entropy.divergence(counts, start, ends, groups)
    assert found == pytest.approx([divergence_by_definition(counts, start, int(e), groups) for e in ends], abs=1e-9)


def test_divergence_of_an_exact_representation_is_zero() -> None:
    counts = np.array([3.0, 1, 4, 1, 5, 0, 0, 0])
    assert entropy.divergence(counts, 0, np.array([5]), 5) == pytest.approx([0.0])
    assert entropy.divergence(counts, 0, np.array([4]), 4)[0] > 0  # the 5 outliers are missing in Q
    assert entropy.divergence(np.array([0.0, 0, 1]), 0, np.array([2]), 2).tolist() == [np.inf]


def smoothed(counts: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """The mean over so many bins to each side, bin by bin."""
    whole = np.concatenate([counts[:reach][::-1], counts, counts[-reach:][::-1]])
    return np.array([whole[i : i + 2 * reach + 1].mean() for i in range(len(counts))])


def test_smoothing_is_the_mean_of_the_bins_around() -> None:
    counts = np.random.default_rng(0).poisson(2, 96).astype(np.float64)
    assert entropy.smooth(counts, 16) == pytest.approx(smoothed(counts, 6))
    assert entropy.smooth(counts, 96).sum() != pytest.approx(entropy.smooth(counts, 16)[:40].sum())


@pytest.mark.parametrize("title", ["normal", "relu", "heavy tails"])
def test_entropy_threshold_is_near_that_of_the_definition(title: str) -> None:
    """The search by definition on magnitudes, every eighth threshold."""
    values = TENSORS[title]
    _, high = Entropy(bins=2048, keep=0).range(seen(values), S8)
    magnitudes = np.abs(values[values != 0]).astype(np.float64)
    counts, edges = np.histogram(magnitudes, bins=2048, range=(0, magnitudes.max()))
    even = smoothed(counts.astype(float), 16)
    costs = [divergence_by_definition(even, 0, end, 128) for end in range(128, 2049, 8)]
    mine = divergence_by_definition(even, 0, int(np.searchsorted(edges, high * (1 - 1e-9))), 128)
    # the histogram's bins are wider than these: the curve is flat around the minimum, so compare its height
    assert mine - min(costs) <= 0.15 * (costs[-1] - min(costs)) + entropy.SLACK * min(costs) + 1e-3


@pytest.mark.parametrize("title", ["normal", "relu", "gelu"])
def test_entropy_of_a_few_of_the_elements_is_that_of_all(title: str) -> None:
    """The least divergence of noisy counts is chance: the middle of what is as good is not."""
    values = TENSORS[title]
    ends = seen(values).observers["minmax"]
    few = TensorStatistics("t", {"minmax": ends, "histogram": seen(values[::10]).histogram})
    whole, some = Entropy().range(seen(values), U8), Entropy().range(few, U8)
    assert some == pytest.approx(whole, abs=0.025 * (whole[1] - whole[0]))


def test_entropy_clips_an_outlier_and_keeps_a_uniform_tensor() -> None:
    assert Entropy().range(seen(TENSORS["one outlier"]), U8)[1] < 20
    uniform = np.random.default_rng(0).uniform(-1, 1, 100_000)
    low, high = Entropy().range(seen(uniform), U8)
    assert low < -0.97
    assert high > 0.97


def test_entropy_searches_both_ends_of_an_asymmetric_tensor() -> None:
    low, high = Entropy().range(seen(np.append(TENSORS["one outlier"], -40)), U8)
    assert -20 < low < -2.5
    assert 2.5 < high < 20
    lobe = TENSORS["gelu"]
    low, high = Entropy().range(seen(lobe), U8)
    assert low < 0.9 * lobe.min()  # a narrow lobe with many values is not cut


def test_entropy_keeps_the_share_that_it_is_told() -> None:
    values = TENSORS["heavy tails"]
    narrow = Entropy(keep=0).range(seen(values), S8)[1]
    wide = Entropy(keep=99.99).range(seen(values), S8)[1]
    assert wide >= np.quantile(np.abs(values), 0.9999) * (1 - 2 * BIN)
    assert narrow <= wide


def test_sixteen_bits_keep_the_whole_range() -> None:
    found = seen(TENSORS["one outlier"])
    for calibrator in (Entropy(), Mse()):
        assert calibrator.range(found, Scheme(type="uint16", symmetric=False))[1] == 60
        assert calibrator.range(found, U8)[1] <= 60


# ------------------------------------------------------------------------------------------------------- rest


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Percentile(percentile=50), "percentile is 50: it must be above 50 and at most 100"),
        (lambda: Percentile(percentile=100.1), r"percentile is 100\.1"),
        (lambda: Entropy(bins=1024), "entropy has 1024 bins: it needs at least 2,048"),
        (lambda: Entropy(keep=101), "keep is 101"),
        (lambda: Entropy(candidates=1), "entropy has 1 candidates"),
        (lambda: Mse(candidates=1), "mse has 1 candidates and 24 finalists"),
        (lambda: Mse(finalists=0), "mse has 128 candidates and 0 finalists"),
    ],
)
def test_settings_that_make_no_sense(make: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_extremes_that_the_subset_missed_weigh_one_element() -> None:
    values = np.zeros(100_000, np.float32)
    values[1:] = 1.0
    values[31], values[77_777] = 50.0, -50.0
    found = seen(values, subset=1000)
    assert len(found.histogram.keys) < 4
    got = distribution(found)
    assert (got.lower[0], got.upper[-1]) == (-50, 50)
    assert got.counts[-1] == pytest.approx(found.histogram.total / found.count)
    assert got.total == pytest.approx(found.histogram.total, rel=1e-3)


def test_rebin_keeps_the_mass() -> None:
    got = distribution(seen(TENSORS["heavy tails"]))
    edges = np.linspace(got.lower[0], got.upper[-1], 2049)
    counts = got.rebin(edges)
    assert counts.sum() == pytest.approx(got.total)
    expected = np.histogram(TENSORS["heavy tails"], bins=edges)[0]
    assert np.abs(np.cumsum(counts) - np.cumsum(expected)).max() < 0.01 * got.total


def test_levels() -> None:
    assert [levels(s) for s in SCHEMES] == [255, 254, 255, 127]
    assert levels(dataclasses.replace(S8, reduce_range=True)) == 126
    assert levels(Scheme(type="uint8", symmetric=True)) == 255
