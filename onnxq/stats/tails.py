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
from onnxq.stats.picks import Counted, patterns

LONGEST = 128
"""Elements of a row, at most."""

SHORTEST = 16
"""Elements of a row, at least: with shorter ones, the greatest of each would be no less than a tensor itself."""


AXES_ARE_INPUTS = 18
"""Opset from which ReduceMax and ReduceMin take their axes as an input."""


Float32 = NDArray[np.float32]


class Tails(NamedTuple):
    """The tails of one tensor in one sample; a tail that was not asked for is `NO_TAIL`.

    Attributes:
        picked: the choice of elements that is counted besides.
        weight: how many elements each of these stands for.
        least: the least value of each row that was fetched for its least value, ascending, and the elements of these.
        greatest: likewise, descending.
    """

    name: str
    picked: Float32
    weight: int
    least: tuple[Float32, Float32]
    greatest: tuple[Float32, Float32]


NO_TAIL = np.empty(0, dtype=np.float32), np.empty(0, dtype=np.float32)
"""Of `Tails`: not asked for."""


def tail_nodes(
    rows: gs.Tensor, kind: str, top: gs.Tensor, flat: gs.Tensor, opset: int, label: str, new: Callable[[str], str]
) -> tuple[list[gs.Node], str, str]:
    """The nodes that find one tail.

    Args:
        rows: the tensor, [rows, length].
        kind: "min" or "max".
        top: how many rows to give, int64 [1].
        flat: the constant [-1].
        opset: of the graph.
        label: of the tensor.
        new: makes a name that is not taken yet.

    Returns:
        The nodes, and the names of the two parts of a tail of `Tails`, both of rank 1.
    """
    names = [new(f"{label}_{kind}_{what}") for what in ("of_row", "tops", "places", "chosen", "elements")]
    of_row, tops, places, chosen, elements = map(gs.Variable, names)
    inputs: list[gs.Tensor] = [gs.Variable(rows.name)]
    attrs: dict[str, Any] = {"keepdims": 0}
    if opset >= AXES_ARE_INPUTS:
        inputs.append(gs.Constant(new(f"{label}_{kind}_axis"), np.array([1], dtype=np.int64)))
    else:
        attrs["axes"] = [1]
    op = {"min": "ReduceMin", "max": "ReduceMax"}[kind]
    order = {"axis": 0, "largest": int(kind == "max")}
    gathered = [gs.Variable(rows.name), gs.Variable(places.name)]
    nodes = [
        gs.Node(op, of_row.name, attrs, inputs, [of_row]),
        gs.Node("TopK", tops.name, order, [gs.Variable(of_row.name), top], [tops, places]),
        gs.Node("Gather", chosen.name, {"axis": 0}, gathered, [chosen]),
        gs.Node("Reshape", elements.name, {}, [gs.Variable(chosen.name), flat], [elements]),
    ]
    return nodes, tops.name, elements.name


def beyond(tails: Sequence[Tails]) -> list[Counted]:
    """What is to be counted besides the choices of elements: the tails, less what is in both.

    Args:
        tails: of one sample. What is counted whole, with weight 1, is left as it is.
    """
    exact: list[Float32] = []
    doubled: list[Float32] = []
    shortened = [tail for tail in tails if tail.weight > 1]
    for _, picked, _, (least, low_rows), (greatest, high_rows) in shortened:
        low = least[-1] if least.size else -np.inf
        # rows of a constant each: what lies above the one limit and below the other must not count twice
        high = max(greatest[-1], low) if greatest.size else np.inf
        exact.append(low_rows[low_rows < low])
        exact.append(high_rows[high_rows > high])
        doubled.append(picked[(picked < low) | (picked > high)])
    names = tuple(tail.name for tail in shortened)
    back = np.array([-tail.weight for tail in shortened], dtype=np.int64)
    return [
        Counted(patterns=_each(exact), weights=np.ones(len(exact), dtype=np.int64), names=_twice(names)),
        Counted(patterns=_each(doubled), weights=back, names=names),
    ]


def _twice(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names for _ in range(2))


def _each(parts: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.uint16], ...]:
    """The patterns of each part, made of all at once: they are small and many."""
    if not parts:
        return ()
    together, ends = patterns(np.concatenate(parts)), np.cumsum([len(part) for part in parts]).tolist()
    return tuple(together[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True))


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
