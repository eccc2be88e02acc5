from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.repair import scales
from onnxq.repair.scales import migration, moves, rows

FINITE = st.floats(2**-20, 2**20)


def test_examples() -> None:
    assert doctest.testmod(scales).failed == 0


@given(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=8), st.floats(0, 1))
def test_what_was_migrated_stays(pairs: list[tuple[float, float]], alpha: float) -> None:
    """A second run, with the ranges that the first one leaves, finds nothing to do; the mean factor is 1."""
    a, w = np.array(pairs).T
    s = migration(a, w, alpha)
    assert np.log(s).mean() == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(migration(a / s, w * s, alpha), 1, rtol=1e-9)


def test_alpha_says_who_is_equal() -> None:
    a, w = np.array([8.0, 2.0, 1.0]), np.array([1.0, 3.0, 5.0])
    assert np.ptp(a / migration(a, w, 1.0)) == pytest.approx(0)
    assert np.ptp(w * migration(a, w, 0.0)) == pytest.approx(0)


def test_channels_without_range() -> None:
    assert migration([0.0, 16.0, 1.0], [7.0, 1.0, 1.0], 0.5).tolist() == [1.0, 2.0, 0.5]  # always 0
    # a / s of the others is 8 and 2: a channel that no weight reads comes down to 8, one below stays
    assert migration([80.0, 16.0, 1.0, 5.0], [0.0, 1.0, 1.0, 0.0], 0.5).tolist() == [10.0, 2.0, 0.5, 1.0]
    assert migration([0.0, 3.0], [1.0, 0.0], 0.5).tolist() == [1.0, 1.0]


def test_rows_over_several_matrices() -> None:
    assert rows([np.array([[1.0, -5.0], [2.0, 3.0]]), np.array([[4.0], [-9.0]])]).tolist() == [5.0, 9.0]


def test_what_counts_as_a_move() -> None:
    assert not moves(np.array([1.0, 1.009, 0.991]))
    assert moves(np.array([1.0, 1.011]))
    assert moves(np.array([0.98, 1.0]))
