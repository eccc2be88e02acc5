"""The tails of a distribution, counted exactly although only a choice of the elements is looked at.

A range is chosen by the rarest values, of which a choice of the elements holds few: of one value in 10,000, one in a
sample. So the greatest value of a tensor is found in two steps, row by row and then of all rows, and the elements of
the rows with the greatest are given, too. Every element above the greatest value of the last of these rows is in
them. What lies above is counted from the rows, each element once; what lies below from the choice, each element for
all those that were passed over. The least values likewise. Both parts are whole numbers and depend on the sample alone,
so that parts of a data set still merge to the same bits.

Not for outputs of Relu and Clip from 0 in pictures: these stay in the layout of the convolutions, which has no rows
(`onnxq.stats.reductions`), and a bound most often ends their tail.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.stats.guards import Shape
from onnxq.stats.picks import patterns

LONGEST = 128
"""Elements of a row, at most."""

SHORTEST = 16
"""Elements of a row, at least: with shorter ones, the greatest of each would be no less than a tensor itself."""


BLOCK = 1 << 16
"""Elements that are compared at a time, about."""

AXES_ARE_INPUTS = 18
"""Opset from which ReduceMax and ReduceMin take their axes as an input."""


Float32 = NDArray[np.float32]
Places = NDArray[np.int64]


class Tails(NamedTuple):
    """Where the tails of some tensors lie in the vector of a sample: numbers of its parts, int64 [tensors], or ABSENT.

    Attributes:
        picked: the choice of elements that is counted besides.
        least: the least value of each row that was fetched for its least value, ascending.
        low_rows: the elements of these rows.
        greatest, high_rows: likewise, descending.
    """

    picked: Places
    least: Places
    low_rows: Places
    greatest: Places
    high_rows: Places


ABSENT = -1
"""Of `Tails`: the lower or the upper tail was not asked for."""


def tail_nodes(
    rows: gs.Tensor,
    kinds: Sequence[str],
    top: gs.Tensor,
    flat: gs.Tensor,
    opset: int,
    label: str,
    new: Callable[[str], str],
) -> tuple[list[gs.Node], list[str], str]:
    """The nodes that find the tails of a tensor.

    Args:
        rows: the tensor, [rows, length].
        kinds: "min", "max" or both.
        top: how many rows to give for each, int64 [1].
        flat: the constant [-1].
        opset: of the graph.
        label: of the tensor.
        new: makes a name that is not taken yet.

    Returns:
        The nodes, and the names of tensors of rank 1: the ends of the rows for each kind, and the elements of the rows
        of all kinds.
    """
    nodes: list[gs.Node] = []
    ends: list[str] = []
    places: list[gs.Variable] = []
    for kind in kinds:
        of_row, tops, place = (gs.Variable(new(f"{label}_{kind}_{what}")) for what in ("of_row", "tops", "places"))
        inputs: list[gs.Tensor] = [gs.Variable(rows.name)]
        attrs: dict[str, Any] = {"keepdims": 0}
        if opset >= AXES_ARE_INPUTS:
            inputs.append(gs.Constant(new(f"{label}_{kind}_axis"), np.array([1], dtype=np.int64)))
        else:
            attrs["axes"] = [1]
        op = {"min": "ReduceMin", "max": "ReduceMax"}[kind]
        order = {"axis": 0, "largest": int(kind == "max")}
        nodes.append(gs.Node(op, of_row.name, attrs, inputs, [of_row]))
        nodes.append(gs.Node("TopK", tops.name, order, [gs.Variable(of_row.name), top], [tops, place]))
        ends.append(tops.name)
        places.append(gs.Variable(place.name))
    if len(places) > 1:  # one node is cheaper than to gather twice
        both = gs.Variable(new(f"{label}_places"))
        nodes.append(gs.Node("Concat", both.name, {"axis": 0}, places, [both]))
        places = [gs.Variable(both.name)]
    chosen, elements = (gs.Variable(new(f"{label}_{what}")) for what in ("chosen", "rows_elements"))
    nodes.append(gs.Node("Gather", chosen.name, {"axis": 0}, [gs.Variable(rows.name), *places], [chosen]))
    nodes.append(gs.Node("Reshape", elements.name, {}, [gs.Variable(chosen.name), flat], [elements]))
    return nodes, ends, elements.name


def beyond(
    vector: Float32, starts: Places, ends: Places, tails: Tails
) -> tuple[list[NDArray[np.uint16]], list[NDArray[np.uint16]]]:
    """What is to be counted besides the choices of elements: the tails, less what is in both.

    Args:
        vector: of one sample.
        starts, ends: of its parts, [parts].
        tails: what to look at.

    Returns:
        Patterns to count, the lower and the upper tail of each tensor in turn; and of each, what its choice of elements
        has of them.
    """
    low, high = np.full(len(starts), -np.inf, np.float32), np.full(len(starts), np.inf, np.float32)
    bottom = _last(vector, starts, ends, tails.least, -np.inf)
    # rows of a constant each: what lies above the one limit and below the other must not count twice
    top = np.maximum(_last(vector, starts, ends, tails.greatest, np.inf), bottom)
    for limits, values, rows in ((low, bottom, tails.low_rows), (high, top, tails.high_rows)):
        limits[rows[rows != ABSENT]] = values[rows != ABSENT]
        limits[tails.picked] = values
    at = _outside(vector, low, high, starts, ends)
    found = patterns(vector[at])
    begin, end = np.searchsorted(at, starts).tolist(), np.searchsorted(at, ends).tolist()

    def of(parts: Sequence[int]) -> list[NDArray[np.uint16]]:
        return [found[:0] if part == ABSENT else found[begin[part] : end[part]] for part in parts]

    both = np.stack((tails.low_rows, tails.high_rows), axis=1).reshape(-1)
    return of(both.tolist()), of(tails.picked.tolist())


def _outside(vector: Float32, low: Float32, high: Float32, starts: Places, ends: Places) -> Places:
    """Positions of the elements that lie outside the limits of their part, ascending."""
    if not ends.size:
        return np.empty(0, dtype=np.int64)
    # not part by part, which are small and many, and not all at once, which does not stay in the cache
    cuts = np.unique(np.searchsorted(ends, np.arange(0, int(ends[-1]), BLOCK)))
    found = []
    for first, last in zip(cuts.tolist(), [*cuts[1:].tolist(), len(ends)], strict=True):
        some, lengths = slice(first, last), ends[first:last] - starts[first:last]
        values = vector[starts[first] : ends[last - 1]]
        outside = (values < np.repeat(low[some], lengths)) | (values > np.repeat(high[some], lengths))
        found.append(np.flatnonzero(outside) + starts[first])
    return np.concatenate(found)


def _last(vector: Float32, starts: Places, ends: Places, parts: Places, default: float) -> Float32:
    """The last element of each part; where it is absent or empty, the default."""
    there = (parts != ABSENT) & (ends[parts] > starts[parts])
    out = np.full(len(parts), default, np.float32)
    out[there] = vector[ends[parts[there]] - 1]
    return out


def rows_of(length: int, size: int) -> int:
    """Rows to fetch for one tail: the elements of one row of 16, from 16 to 256 rows, or all there are.

    One value in 10,000 is beyond the percentile that is cut by default, of 64 rows of 128 not one; but a few samples
    hold most of them, close together.

    >>> rows_of(128, 8192 * 4), rows_of(128, 128 * 1600), rows_of(128, 10**7), rows_of(128, 128 * 3)
    (16, 100, 256, 3)
    """
    return min(max(16, min(256, size // (16 * length))), size // length)


def row_length(shape: Shape) -> int:
    """Length of the rows into which a tensor is cut: the greatest up to LONGEST that divides what is known of its
    elements; 0 if that is less than SHORTEST.

    >>> row_length((1, 24, 56, 56)), row_length(("batch", "length", 384)), row_length((1, 1000)), row_length(("n", 7))
    (128, 128, 125, 0)
    """
    known = math.prod(d for d in shape if isinstance(d, int))
    found = next(length for length in range(min(LONGEST, max(known, 1)), 0, -1) if known % length == 0)
    return found if found >= SHORTEST else 0
