"""What leaves the graph: one vector for all numbers and elements of all taps, and where each part of it lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxq.stats.picks import Counted, patterns, scattered
from onnxq.stats.tails import ABSENT, Tails, beyond

Float32 = NDArray[np.float32]

KINDS = ("min", "max", "sum", "picked", "tops_min", "tops_max", "tops_sum", "rows_min", "rows_max")
"""What leaves the graph: numbers, elements, and of tails the ends and the elements of rows."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What follows from the shapes of the inputs, all int64 [taps], or [groups] of taps.

    Attributes:
        sizes: elements of what is sliced.
        steps: of the slices.
        weights: elements of the tensor for each that is sliced out.
        tops: rows that are fetched of each tail.
        lengths: of these rows.
    """

    sizes: NDArray[np.int64]
    steps: NDArray[np.int64]
    weights: NDArray[np.int64]
    tops: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def at(self, places: NDArray[np.int64]) -> Layout:
        """What it says at these places."""
        return Layout(**{name: numbers[places] for name, numbers in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one run says of the taps, in their order.

    Attributes:
        low, high: float32 [taps]; of a tensor without elements +inf and -inf.
        shapes: of the tensors.
        count: int64 [taps], elements.
        suspect: NaN or an infinity is somewhere: which tensor has it, the arrays must say.
        picked: elements that a histogram counts, if elements were asked for.
    """

    low: Float32
    high: Float32
    shapes: tuple[tuple[int, ...], ...]
    count: NDArray[np.int64]
    suspect: bool
    picked: Sequence[Counted]


class Stream:
    """The parts in their order.

    Args:
        taps: names.

    Attributes:
        tensors: names of the tensors of rank 1 that make up the vector.
    """

    def __init__(self, taps: Sequence[str]) -> None:
        self.taps = tuple(taps)
        self.tensors: list[str] = []
        self._kinds: list[str] = []
        self._of: list[int] = []
        self.places = np.empty(0, dtype=np.int64)  # part -> tap
        self.at: Mapping[str, NDArray[np.int64]] = {}  # kind -> parts
        self.tails = Tails(*[np.empty(0, dtype=np.int64)] * len(Tails._fields))
        self._index()

    def add(self, kinds: Sequence[str], tap: int, tensor: str) -> None:
        """One more tensor, and which parts it holds, of the tap with this number."""
        self._kinds.extend(kinds)
        self._of.extend(tap for _ in kinds)
        self.tensors.append(tensor)

    def parts(self, vector: Float32, laid: Layout | None, position: int) -> Parts:
        """The vector of one sample.

        Args:
            laid: None if there are numbers only.
            position: of the sample.
        """
        if len(self.places) != len(self._of):
            self._index()
        lengths = np.ones(len(self._kinds), dtype=np.int64)
        if laid is not None:
            at = self.at["picked"]
            tap = self.places[at]
            lengths[at] = -((scattered(position) % laid.steps[tap] - laid.sizes[tap]) // laid.steps[tap])
            for kind in ("min", "max"):
                tops, rows = self.at[f"tops_{kind}"], self.at[f"rows_{kind}"]
                lengths[tops] = laid.tops[self.places[tops]]
                lengths[rows] = laid.tops[self.places[rows]] * laid.lengths[self.places[rows]]
        return Parts(self, vector, np.cumsum(lengths), lengths)

    def _index(self) -> None:
        self.places = np.array(self._of, dtype=np.int64)
        self.at = {kind: np.flatnonzero([k == kind for k in self._kinds]) for kind in KINDS}
        part = {(kind, tap): i for i, (kind, tap) in enumerate(zip(self._kinds, self._of, strict=True))}
        tailed = dict.fromkeys(self._of[i] for i in np.concatenate((self.at["rows_min"], self.at["rows_max"])).tolist())
        kinds = ("picked", "tops_min", "rows_min", "tops_max", "rows_max")
        self.tails = Tails(*(np.array([part.get((k, tap), ABSENT) for tap in tailed], dtype=np.int64) for k in kinds))


class Parts:
    """The vector of one sample, cut up."""

    def __init__(self, stream: Stream, vector: Float32, ends: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
        self._stream, self._vector, self._lengths = stream, vector, lengths
        self._starts, self._ends = ends - lengths, ends

    def fits(self) -> bool:
        """Is the vector as long as its parts?"""
        return len(self._vector) == (self._ends[-1] if self._ends.size else 0)

    def numbers(self) -> dict[str, Float32]:
        """Least value, greatest value and sum, [taps] each; 0 where it was not asked for or there is no element."""
        values: dict[str, Float32] = {}
        for kind in ("min", "max", "sum"):
            values[kind] = np.zeros(len(self._stream.taps), dtype=np.float32)
            own = np.concatenate([self._stream.at[kind], self._stream.at[f"tops_{kind}"]])
            own = own[self._lengths[own] > 0]
            values[kind][self._stream.places[own]] = self._vector[self._starts[own]]
        return values

    def picked(self, laid: Layout) -> list[Counted]:
        """The elements that are counted."""
        stream, vector = self._stream, self._vector
        chosen = stream.at["picked"]
        if not chosen.size:
            return []
        start, end = self._starts[chosen].tolist(), self._ends[chosen].tolist()
        # all at once, and nothing else: what waits to be counted keeps what it is a part of
        together = patterns(np.concatenate([vector[i:j] for i, j in zip(start, end, strict=True)]))
        stop = np.cumsum(self._lengths[chosen]).tolist()
        each = [together[i:j] for i, j in zip([0, *stop[:-1]], stop, strict=True)]
        out = self._counted(chosen, each, laid.weights)
        tails = Tails(*(parts[laid.weights[stream.places[stream.tails.picked]] > 1] for parts in stream.tails))
        if not tails.picked.size:
            return [out]
        exact, doubled = beyond(vector, self._starts, self._ends, tails)
        twice = self._counted(np.repeat(tails.picked, 2), exact, np.ones_like(laid.weights))
        return [out, twice, self._counted(tails.picked, doubled, -laid.weights)]

    def _counted(
        self, parts: NDArray[np.int64], elements: Sequence[NDArray[np.uint16]], weights: NDArray[np.int64]
    ) -> Counted:
        """Elements of the taps of these parts.

        Args:
            weights: [taps].
        """
        of = self._stream.places[parts]
        names = tuple(self._stream.taps[tap] for tap in of.tolist())
        return Counted(patterns=tuple(elements), weights=weights[of], names=names)
