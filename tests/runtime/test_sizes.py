"""Typical times: over samples of several sizes, and of a machine that is disturbed at times."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from onnxq.runtime.sizes import Sizes, calm


def shaped(*lengths: int) -> list[dict[str, np.ndarray]]:
    return [{"ids": np.zeros((1, n), np.int64), "mask": np.ones((1, n), np.int64)} for n in lengths]


def test_samples_whose_inputs_have_the_same_shapes_are_of_one_size() -> None:
    sizes = Sizes.of(shaped(5, 9, 5, 7, 9))
    assert sizes.each == (0, 1, 0, 3, 1) and sizes.count == 3
    assert sizes.runs(7).tolist() == [0, 1, 0, 3, 1, 0, 1]


def test_each_sample_counts_with_the_middle_of_its_size() -> None:
    sizes = Sizes.of(shaped(5, 9, 5))
    runs = [1.0, 10.0, 1.2, 1.4, 30.0, 8.0, 1.0, 11.0]
    assert sizes.typical(runs, statistics.median, sizes.runs(8).tolist()) == pytest.approx((2 * 1.2 + 11.0) / 3)
    assert sizes.typical([4.0], max, [1]) == 4.0  # nothing is known of the other


def test_turns_that_were_slow_for_most_do_not_count() -> None:
    times = np.ones((20, 3))
    times[4:8] *= 2.4  # cores were apart
    times[12, 0] = 9.0  # one session alone
    found = calm(times, np.zeros(20, np.int64))
    assert np.flatnonzero(~found).tolist() == [4, 5, 6, 7]


def test_a_long_sample_is_no_disturbance() -> None:
    sizes = Sizes.of(shaped(5, 50))
    times = np.where(sizes.runs(12) == 1, 10.0, 1.0)[:, None] * np.ones(2)
    assert calm(times, sizes.runs(12)).all()
    times[5] *= 1.3
    assert np.flatnonzero(~calm(times, sizes.runs(12))).tolist() == [5]


def test_the_calmest_tenth_always_counts() -> None:
    times = np.geomspace(1.0, 1e9, 31)[:, None]
    assert np.flatnonzero(calm(times, np.zeros(31, np.int64))).tolist() == [0, 1, 2, 3]
