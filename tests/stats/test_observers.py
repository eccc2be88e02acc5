"""Observers: merging is associative and commutative to the bit, bins hold what they say, the extremes are exact."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from onnxq.errors import CalibrationError, UnknownNameError
from onnxq.stats import Histogram, MinMax, Observer, make_observer
from onnxq.stats.observers import OBSERVERS, stride

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
ARRAYS = arrays(np.float32, st.integers(0, 300), elements=FLOATS)
NAMES = st.sampled_from(sorted(OBSERVERS))

EDGE_CASES = np.array([0.0, -0.0, 1e-45, -1e-45, 1e-40, 1.17e-38, 3.4028235e38, -3.4028235e38, 1.0, -1.0], np.float32)


def saw(name: str, *seen: NDArray[Any], subset: int | None = 100) -> Any:
    observer = make_observer(name, subset=subset)
    for array in seen:
        observer.update(array)
    return observer


@given(NAMES, ARRAYS, ARRAYS, ARRAYS)
def test_merge_is_associative_and_commutative(
    name: str, a: NDArray[np.float32], b: NDArray[np.float32], c: NDArray[np.float32]
) -> None:
    x, y, z = saw(name, a), saw(name, b), saw(name, c)
    assert x.merge(y) == y.merge(x)
    assert x.merge(y).merge(z) == x.merge(y.merge(z)) == saw(name, c, a, b)


@given(NAMES, st.lists(ARRAYS, max_size=4))
def test_state_gives_an_equal_observer_that_goes_on_equally(name: str, seen: list[NDArray[np.float32]]) -> None:
    observer = saw(name, *seen)
    again = type(observer).from_state(observer.state())
    assert again == observer
    for one in (observer, again):
        one.update(EDGE_CASES)
    assert again == observer


def test_observers_that_saw_different_things_differ() -> None:
    one = np.array([1.0], np.float32)
    for name in OBSERVERS:
        assert saw(name, one) != saw(name, one * 2)
        assert saw(name, one) != saw(name, one, one)
    assert saw("minmax", one) != saw("histogram", one)


def test_sign_of_zero_does_not_depend_on_the_order() -> None:
    zero = np.zeros(1, np.float32)
    one, other = saw("minmax", zero, -zero), saw("minmax", -zero, zero)
    assert one == other
    assert math.copysign(1, one.min) == math.copysign(1, one.max) == 1


@given(ARRAYS)
def test_min_and_max_are_exact(array: NDArray[np.float32]) -> None:
    seen = saw("minmax", array)
    assert seen.count == array.size
    if array.size:
        assert (seen.min, seen.max) == (array.min(), array.max())
    else:
        assert (seen.min, seen.max) == (np.inf, -np.inf)


@given(ARRAYS)
@settings(max_examples=200)
def test_every_element_lies_in_its_bin(array: NDArray[np.float32]) -> None:
    lower, upper, counts = saw("histogram", array, subset=None).bins()
    assert counts.sum() == array.size
    assert np.all(counts > 0)
    assert np.all(lower[1:] >= upper[:-1])
    values = np.where(np.abs(array) < 2.0**-133, 0, array.astype(np.float64))
    for low, high, count in zip(lower, upper, counts, strict=True):
        if low == high:
            found = values == 0
        elif low > 0:
            found = (values >= low) & (values < high)
        else:
            found = (values > low) & (values <= high)
        assert found.sum() == count


def test_bins_are_narrow_wherever_float32_is_normal() -> None:
    magnitudes = np.geomspace(1.2e-38, 3.4e38, 5000).astype(np.float32)
    lower, upper, _ = saw("histogram", magnitudes, subset=None).bins()
    assert np.max(upper / lower) <= 1 + 2**-7


def test_edge_cases_have_bins() -> None:
    seen = saw("histogram", EDGE_CASES)
    lower, upper, counts = seen.bins()
    assert (upper[-1], lower[0]) == (2.0**128, -(2.0**128))
    assert counts[(lower == 0) & (upper == 0)] == [4]  # both zeros, both of the smallest subnormals
    assert np.array_equal(seen.centers(), (lower + upper) / 2)
    assert np.all(np.diff(seen.centers()) > 0)
    assert np.array_equal(seen.edges()[0], lower)


def test_any_memory_layout_is_observed() -> None:
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    for view in (array.T, array[::2], array[:, ::-1], np.asfortranarray(array), array[0, 0]):
        assert saw("histogram", view) == saw("histogram", np.ascontiguousarray(view))


def test_memory_is_occupied_bins_only() -> None:
    seen = saw("histogram", *[np.full(5000, i / 8, np.float32) for i in range(50)], subset=None)
    assert seen.total == 250_000
    assert len(seen.keys) == len(seen.counts) == 50


@given(st.integers(1, 10**7), st.integers(1, 10**5))
def test_stride_visits_every_channel_and_stays_below_the_subset(size: int, subset: int) -> None:
    step = stride(size, subset)
    assert step == 1 or math.gcd(step, size) == 1
    assert -(-size // step) <= subset
    assert step == stride(size, subset)


def test_stride_is_one_up_to_the_subset_and_where_it_is_switched_off() -> None:
    assert (stride(100, 100), stride(101, 100), stride(10**9, None)) == (1, 2, 1)


def test_the_subset_of_an_image_covers_all_channels_evenly() -> None:
    channels = np.repeat(np.arange(1, 65, dtype=np.float32), 56 * 56).reshape(1, 64, 56, 56)
    for array in (channels, channels.transpose(0, 2, 3, 1)):
        seen = saw("histogram", array, subset=16_384)
        assert len(seen.keys) == 64
        assert seen.counts.max() - seen.counts.min() <= stride(array.size, 16_384)


def test_a_percentile_of_the_subset_is_near_that_of_all() -> None:
    array = np.random.default_rng(0).standard_normal((64, 64, 28, 28)).astype(np.float32)
    some = saw("histogram", *array, subset=16_384)
    every = saw("histogram", *array, subset=None)
    assert some.total == pytest.approx(every.total, rel=1e-3)
    assert some.counts.min() == stride(64 * 28 * 28, 16_384) > 3
    highs = []
    for seen in (some, every):
        below = np.cumsum(seen.bins()[2])
        highs.append(seen.centers()[np.searchsorted(below, 0.9999 * below[-1])])
    assert highs[0] == pytest.approx(highs[1], rel=0.01)


def test_histograms_of_different_subsets_do_not_merge() -> None:
    with pytest.raises(CalibrationError, match="histograms that count 10 and 20 elements of an array cannot be merged"):
        Histogram(10).merge(Histogram(20))
    assert Histogram(10).merge(Histogram(10)).subset == 10


@pytest.mark.parametrize("subset", [0, -1])
def test_a_subset_of_nothing_is_refused(subset: int) -> None:
    with pytest.raises(ValueError, match=f"subset is {subset}, it must be at least 1 or None"):
        Histogram(subset)


@pytest.mark.parametrize(("keys", "counts"), [([2, 1], [1, 1]), ([1, 1], [1, 1]), ([1, 2], [1, 0]), ([1], [1, 1])])
def test_a_state_that_is_no_histogram_is_refused(keys: list[int], counts: list[int]) -> None:
    state = {"keys": np.array(keys), "counts": np.array(counts), "subset": np.array([5])}
    with pytest.raises(ValueError, match="keys must ascend"):
        Histogram.from_state(state)


def test_unknown_observer_proposes_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match='there is no observer "histogramm": did you mean "histogram"'):
        make_observer("histogramm")


def test_observers_follow_the_protocol() -> None:
    kinds: list[Observer] = [MinMax(), Histogram()]
    assert [k.name for k in kinds] == ["minmax", "histogram"]
    assert MinMax() != 3
    with pytest.raises(TypeError, match="unhashable"):
        hash(MinMax())
