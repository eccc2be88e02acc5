"""Counting patterns, with weights."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.stats.tally import FEW, occupied, tally


def counted(cut: dict[int, list[np.ndarray]]) -> np.ndarray:
    """One by one."""
    found = np.zeros(1 << 16, dtype=np.int64)
    for weight, parts in cut.items():
        for part in parts:
            for pattern in part.tolist():
                found[pattern] += weight
    return found


WEIGHTS = st.sampled_from([1, 3, -1, -7])
PARTS = st.lists(st.lists(st.integers(0, (1 << 16) - 1), max_size=6), min_size=1, max_size=3)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(WEIGHTS, PARTS, max_size=4))
def test_each_pattern_counts_as_often_as_its_weight_says(drawn: dict[int, list[list[int]]]) -> None:
    cut = {w: [np.array(part, dtype=np.uint16) for part in parts] for w, parts in drawn.items()}
    found = tally(cut)
    assert np.array_equal(np.pad(found, (0, (1 << 16) - len(found))), counted(cut))


def test_many_and_few_elements_count_alike() -> None:
    rng = np.random.default_rng(0)
    many = rng.integers(0, 300, FEW + 1).astype(np.uint16)
    more = rng.integers(200, 900, FEW + 7).astype(np.uint16)
    few = rng.integers(500, 60_000, 40).astype(np.uint16)
    cut = {2: [many], 5: [few], 3: [more[:9], more[9:]]}
    found = tally(cut)
    assert len(found) == int(few.max()) + 1  # no longer than what occurs
    assert np.array_equal(np.pad(found, (0, (1 << 16) - len(found))), counted(cut))


def test_what_is_taken_back_is_no_bin() -> None:
    part = np.array([5, 5, 9], dtype=np.uint16)
    keys, counts = occupied([tally({4: [part]}), tally({-4: [part[:2]]})])
    assert (keys.tolist(), counts.tolist()) == ([9], [4])


def test_bins_are_added_to_those_there_and_parts_stay_as_they_are() -> None:
    one, other = tally({1: [np.array([1, 700], dtype=np.uint16)]}), tally({1: [np.array([2], dtype=np.uint16)]})
    before = one.copy(), other.copy()
    keys, counts = occupied([one, other], np.array([2, 60_000], dtype=np.int32), np.array([10, 20]))
    assert (keys.tolist(), counts.tolist()) == ([1, 2, 700, 60_000], [1, 11, 1, 20])
    assert np.array_equal(one, before[0])
    assert np.array_equal(other, before[1])
    assert occupied([])[0].size == 0
