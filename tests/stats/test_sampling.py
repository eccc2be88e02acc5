"""Which samples get a distribution: one of each stretch, by position and length alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.stats.sampling import rank, shared


@given(length=st.integers(1, 3000), keep=st.integers(1, 80))
def test_one_of_each_stretch(length: int, keep: int) -> None:
    ranks = [rank(i, length, keep) for i in range(length)]
    chosen = [i for i, r in enumerate(ranks) if r is not None]
    assert [r for r in ranks if r is not None] == list(range(min(length, keep)))
    if length > keep:
        assert all(i * length // keep <= p < (i + 1) * length // keep for i, p in enumerate(chosen))


def test_the_choice_is_not_periodic() -> None:
    chosen = [i for i in range(4096) if rank(i, 4096, 64) is not None]
    assert len({p % 64 for p in chosen}) > 30  # a data set with a period of 64 would show one phase only


def test_everything_without_a_limit() -> None:
    assert [rank(i, 500, None) for i in (0, 17, 499)] == [0, 17, 499]


def test_positions_beyond_a_short_data_set_are_counted() -> None:
    assert rank(70, 5) == 70  # part of a data set that keeps the positions of the whole


@pytest.mark.parametrize(("number", "share", "sees"), [(3, (3, 4), True), (4, (3, 4), False), (4, None, True)])
def test_shares(number: int, share: tuple[int, int] | None, sees: bool) -> None:
    assert shared(number, share) is sees
