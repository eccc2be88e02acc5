from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onnxq.blocks import in_blocks

BITS = pytest.mark.parametrize("bits", [4, 8])
MATRICES: Any = arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 70)),
    elements=st.floats(-100, 100, width=32, allow_subnormal=False),
)


def energy(x: Any) -> float:
    return float(np.square(np.asarray(x, dtype=np.float64)).sum())


@given(w=MATRICES, bits=st.sampled_from([4, 8]), size=st.sampled_from([16, 32]), symmetric=st.booleans())
def test_no_number_is_further_away_than_its_step_allows(w: Any, bits: int, size: int, symmetric: bool) -> None:
    made = in_blocks(w, bits=bits, size=size, symmetric=symmetric, search=False)
    scale = np.repeat(made.scale, size, axis=1)[:, : w.shape[1]]
    # half a step for rounding, and half a one where the zero point was rounded and the end of the range lies outside
    assert np.all(np.abs(made.real - w) <= (0.5 if symmetric else 1.0) * scale * 1.001 + 1e-6)


@given(w=MATRICES, size=st.sampled_from([16, 64]), symmetric=st.booleans())
def test_a_search_never_loses(w: Any, size: int, symmetric: bool) -> None:
    plain, found = (in_blocks(w, bits=4, size=size, symmetric=symmetric, search=s) for s in (False, True))
    assert energy(found.real - w) <= energy(plain.real - w) * (1 + 1e-4) + 1e-12


def test_a_search_clips_what_stands_alone() -> None:
    w = np.random.default_rng(0).normal(0, 1, (16, 128)).astype(np.float32)
    plain, found = (in_blocks(w, bits=4, size=128, symmetric=True, search=s) for s in (False, True))
    assert energy(found.real - w) < 0.85 * energy(plain.real - w)


@BITS
@pytest.mark.parametrize("symmetric", [False, True])
def test_zero_is_exact_and_padding_stands_for_it(bits: int, symmetric: bool) -> None:
    w = np.array([[3, 0, -1, 0, 0.5]], dtype=np.float32)
    made = in_blocks(w, bits=bits, size=16, symmetric=symmetric, search=False)
    assert made.real.shape == (1, 5)
    assert (made.real[w == 0] == 0).all()
    zero = 1 << (bits - 1) if made.zero is None else int(made.zero[0, 0])
    assert (made.levels[0, 5:] == zero).all()
    assert (made.zero is None) == symmetric


def test_all_zeros() -> None:
    made = in_blocks(np.zeros((2, 16), np.float32), bits=4, size=16, symmetric=False, search=True)
    assert (made.real == 0).all()
    assert (made.scale > 0).all()


def test_packing_puts_the_first_number_low() -> None:
    w = np.arange(-8, 8, dtype=np.float32)[None]
    made = in_blocks(w, bits=4, size=16, symmetric=False, search=False)
    assert made.levels.tolist() == [list(range(16))]
    assert made.packed.tolist() == [[[0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE]]]
    assert made.zero is not None and made.zero.tolist() == [[8]]
    assert made.packed_zero is not None and made.packed_zero.tolist() == [[8]]  # an odd count is filled up


def test_rows_without_what_fills_up() -> None:
    w = np.arange(40, dtype=np.float32).reshape(2, 20)
    four = in_blocks(w, bits=4, size=16, symmetric=True, search=False)
    eight = in_blocks(w, bits=8, size=16, symmetric=True, search=False)
    assert (four.rows.shape, four.packed.shape) == ((2, 10), (2, 2, 8))
    assert (eight.rows.shape, eight.packed.shape) == ((2, 20), (2, 2, 16))
    assert (four.packed_zero, eight.packed_zero) == (None, None)


def test_rows_are_searched_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    w = np.random.default_rng(1).normal(0, 1, (7, 48)).astype(np.float32)
    whole = in_blocks(w, bits=4, size=16, symmetric=False, search=True)
    monkeypatch.setattr("onnxq.blocks._CHUNK", 100)
    parts = in_blocks(w, bits=4, size=16, symmetric=False, search=True)
    assert (whole.levels == parts.levels).all()
    assert (whole.scale == parts.scale).all()
    assert whole.zero is not None and parts.zero is not None and (whole.zero == parts.zero).all()
