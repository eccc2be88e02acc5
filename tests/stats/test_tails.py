"""Tails are counted element by element, whatever part of the elements is looked at otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from onnxq.ir.text import parse
from onnxq.stats.collect import collect
from onnxq.stats.observers import Histogram
from onnxq.stats.statistics import Statistics
from onnxq.stats.tails import ABSENT, Tails, beyond, row_length
from tests.stats.test_collect import HEAD, Data

Float32 = NDArray[np.float32]


def heavy(index: int, *shape: int) -> Float32:
    """A few elements of a hundred times the others."""
    return np.random.default_rng(index).standard_t(2, shape).astype(np.float32)


def every(arrays: list[Float32]) -> Histogram:
    seen = Histogram(subset=None)
    for array in arrays:
        seen.update(array)
    return seen


def assert_ends_agree(found: Histogram, all_of_them: Histogram, count: int) -> None:
    """The bins of the `count` greatest and least elements hold as many as they should; of all, few others do."""
    for side in (1, -1):
        (_, _, some), (_, _, full) = found.bins(), all_of_them.bins()
        bins = int(np.searchsorted(np.cumsum(full[::side]), count))
        assert bins > 3
        assert some[::side][:bins].tolist() == full[::side][:bins].tolist()
    assert found.total == pytest.approx(all_of_them.total, rel=0.02)
    assert found != all_of_them


def taken(source: str, arrays: list[Float32], subset: int, name: str = "y") -> Statistics:
    data = Data(lambda i: {"x": arrays[i]}, len(arrays))
    return collect(parse(source), [name], data, threads=1, subset=subset)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "head", [HEAD, '<ir_version: 10, opset_import: ["": 20]>', '<ir_version: 8, opset_import: ["": 11]>']
)
def test_the_ends_of_the_distribution_are_exact(head: str) -> None:
    arrays = [heavy(i, 1, 8, 64, 64) for i in range(3)]
    found = taken(head + "g (float[1,8,64,64] x) => (float[1,8,64,64] y) { y = Neg(x) }", arrays, 2048)
    assert_ends_agree(found.tensors["y"].histogram, every([-a for a in arrays]), 10)
    assert found.tensors["y"].min == min(float((-a).min()) for a in arrays)
    assert found.tensors["y"].max == max(float((-a).max()) for a in arrays)


def test_sizes_that_differ_between_samples() -> None:
    arrays = [heavy(i, 1, length, 384) for i, length in enumerate((200, 90, 1, 150))]
    found = taken(HEAD + "g (float[1,S,384] x) => (float[1,S,384] y) { y = Neg(x) }", arrays, 2048)
    assert_ends_agree(found.tensors["y"].histogram, every([-a for a in arrays]), 8)


def test_of_an_output_that_is_never_negative_the_upper_end() -> None:
    arrays = [heavy(i, 1, 200, 384) for i in range(2)]
    found = taken(HEAD + "g (float[1,200,384] x) => (float[1,200,384] y) { y = Relu(x) }", arrays, 2048)
    some, full = found.tensors["y"].histogram, every([np.maximum(a, 0) for a in arrays])
    assert some.bins()[2][-5:].tolist() == full.bins()[2][-5:].tolist()
    assert (found.tensors["y"].min, some.bins()[0][0]) == (0, 0)


def test_a_constant_tensor_is_counted_once() -> None:
    arrays = [np.full((1, 8, 64, 64), 3, np.float32)]
    found = taken(HEAD + "g (float[1,8,64,64] x) => (float[1,8,64,64] y) { y = Neg(x) }", arrays, 2048)
    assert found.tensors["y"].histogram.total == pytest.approx(8 * 64 * 64, rel=0.01)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12), st.integers(1, 5))
def test_no_element_counts_twice_and_none_is_lost(seed: int, rows: int, top: int, step: int) -> None:
    """Of a choice that leaves nothing out, what the tails count is what they take back, ties or not."""
    top = min(top, rows)
    array = np.random.default_rng(seed).integers(-step, step + 1, (rows, 16)).astype(np.float32)
    sides = []
    for sign, ends in ((1, array.min(axis=1)), (-1, array.max(axis=1))):
        order = np.argsort(sign * ends, kind="stable")[:top]
        sides.append((ends[order], array[order].reshape(-1)))
    (least, low), (greatest, high) = sides
    parts = [least, low, array.reshape(-1), greatest, high]
    vector, stop = np.concatenate(parts), np.cumsum([len(part) for part in parts])
    for below, above in (((0, 1), (3, 4)), ((ABSENT, ABSENT), (3, 4)), ((0, 1), (ABSENT, ABSENT))):
        tails = Tails(*(np.array([place]) for place in (2, *below, *above)))
        exact, doubled = beyond(vector, stop - [len(part) for part in parts], stop, tails)
        assert (len(exact), len(doubled)) == (2, 1)
        assert sorted(np.concatenate(exact)) == sorted(np.concatenate(doubled))


def test_what_is_counted_whole_needs_no_tails() -> None:
    source = HEAD + "g (float[1,S,384] x) => (float[1,S,384] y) { y = Neg(x) }"
    arrays = [heavy(0, 1, 5, 384)]
    found = taken(source, arrays, 8192)
    some, full = found.tensors["y"].histogram, every([-a for a in arrays])
    assert [part.tolist() for part in some.bins()] == [part.tolist() for part in full.bins()]


def test_tensors_without_rows_have_no_tails() -> None:
    assert row_length(("n", 7)) == 0
    assert row_length((1, 7, 13)) == 91
    assert row_length((None, 384)) == 128
