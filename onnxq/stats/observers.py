"""Observers: small mergeable summaries of every value a tensor took, whatever the number of samples.

An observer never keeps the arrays it saw. `merge` is associative and commutative to the bit, so samples can be
observed anywhere in any order; `state` is a dict of arrays from which `from_state` makes an equal observer.

Observers take finite float32 arrays. What is not finite is the business of `onnxq.stats.collect`, which knows the
tensor and the sample.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from onnxq.errors import CalibrationError, UnknownNameError, did_you_mean
from onnxq.stats.tally import Dense, occupied, tally

Float32 = NDArray[np.float32]

SUBSET = 8192
"""Default number of elements that `Histogram` keeps of one array, at most."""

_UPPER = 1 if sys.byteorder == "little" else 0

_FLUSH = 1 << 16


class Observer(Protocol):
    """What `collect` asks of an observer; third-party observers implement the same five names.

    An observer whose class has `share: ClassVar[tuple[int, int]]` = (k, n) sees, of the samples that get a distribution
    only those whose position leaves k when divided by n.
    """

    name: ClassVar[str]

    def update(self, array: Float32) -> None:
        """Observe one finite float32 array of any shape (empty arrays too)."""
        ...

    def merge(self, other: Self) -> Self:
        """A new observer that has seen what both saw.

        Raises:
            CalibrationError: the two were made with different settings.
        """
        ...

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything needed to go on later, as one-dimensional numeric arrays; equal observers have equal states."""
        ...

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> Self:
        """The inverse of `state`.

        Raises:
            KeyError: an array is missing.
            ValueError: an array has the wrong length.
        """
        ...


class _Equality:
    """Observers are equal if their states are, to the bit."""

    def state(self) -> dict[str, NDArray[Any]]:
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        mine, theirs = self.state(), other.state()
        return mine.keys() == theirs.keys() and all(
            mine[k].dtype == theirs[k].dtype and mine[k].tobytes() == theirs[k].tobytes() for k in mine
        )

    __hash__ = None  # type: ignore[assignment]  # mutable


class MinMax(_Equality):
    """Exact least and greatest value (float32; -0 counts as 0) and the number of elements.

    Attributes:
        min, max: +inf and -inf before the first element.
        count: elements seen.
        infinite: elements that the collector left out because they were infinite (attention masks), see
            `collect(allow_infinite=)`.

    >>> seen = MinMax()
    >>> seen.update(np.array([1.0, -2.0], dtype=np.float32))
    >>> seen.min, seen.max, seen.count
    (-2.0, 1.0, 2)
    """

    name: ClassVar[str] = "minmax"

    def __init__(self) -> None:
        self._min = np.float32(np.inf)
        self._max = np.float32(-np.inf)
        self.count = 0
        self.infinite = 0

    @property
    def min(self) -> float:
        return float(self._min)

    @property
    def max(self) -> float:
        return float(self._max)

    def update(self, array: Float32) -> None:
        if not array.size:
            return
        self.add(array.min(), array.max(), array.size)

    def add(self, low: np.float32, high: np.float32, count: int) -> None:
        """Observe `count` elements that lie between `low` and `high`, both of which occur."""
        # + 0 turns -0 into 0: else the sign of a zero bound would depend on the order of the samples
        self._min = min(self._min, low + np.float32(0))
        self._max = max(self._max, high + np.float32(0))
        self.count += count

    def merge(self, other: Self) -> Self:
        new = type(self)()
        new._min, new._max = min(self._min, other._min), max(self._max, other._max)
        new.count, new.infinite = self.count + other.count, self.infinite + other.infinite
        return new

    def state(self) -> dict[str, NDArray[Any]]:
        return {
            "bounds": np.array([self._min, self._max], dtype=np.float32),
            "count": np.array([self.count, self.infinite], dtype=np.int64),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> Self:
        new = cls()
        new._min, new._max = state["bounds"].astype(np.float32)
        new.count, new.infinite = (int(c) for c in state["count"])
        return new


class Histogram(_Equality):
    """Counts of values by the upper 16 bits of their float32 form, which is the bit pattern of a bfloat16.

    A bin is a sign, an exponent and the 7 leading bits of the mantissa: it holds the magnitudes [p, p + step) with
        step/p at most 2^-7 (0.8 %),
    whatever the range of the tensor, so no range must be known beforehand and any two histograms merge by adding
    counts. Bin 0 (and the negative one beside it) holds zero and the subnormals below 9.2e-41.

    Only occupied bins are kept: a tensor costs a few kilobytes, however many samples it saw.

    Sampling: of an array with more than `subset` elements, every k-th is looked at and counts for k, where k is the
    least stride >= size / subset without a common divisor with the size. Such a stride visits every channel, row and
    column evenly, and depends on nothing but the size, so the statistics do not depend on the order of the samples.
    `onnxq.stats.reductions` chooses inside the graph (`onnxq.stats.picks`) and counts the tails exactly
    (`onnxq.stats.tails`). Min and max are the business of `MinMax`, which sees every element.
    `tests/stats/test_sampled.py` measures that a percentile moves by less than 1 % of the range.

    Args:
        subset: elements counted of one array, at most; None counts all.
    """

    name: ClassVar[str] = "histogram"

    def __init__(self, subset: int | None = SUBSET) -> None:
        if subset is not None and subset < 1:
            raise ValueError(f"subset is {subset}, it must be at least 1 or None")
        self.subset = subset
        self._keys: NDArray[np.int32] = np.empty(0, dtype=np.int32)
        self._counts: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._pending: dict[int, list[NDArray[np.uint16]]] = {}  # stride -> what waits to be counted
        self._waiting = 0

    @property
    def keys(self) -> NDArray[np.int32]:
        """Bit patterns of the occupied bins, ascending (the negative ones, from 0x8000 on, last)."""
        self._flush()
        return self._keys

    @property
    def counts(self) -> NDArray[np.int64]:
        """Elements per occupied bin, > 0, same order as `keys`."""
        self._flush()
        return self._counts

    @property
    def total(self) -> int:
        """Elements observed; those that the stride passed over are counted with the ones that it met."""
        return int(self.counts.sum())

    def update(self, array: Float32) -> None:
        flat = np.ascontiguousarray(array, dtype=np.float32).reshape(-1)
        step = stride(flat.size, self.subset)
        patterns = flat.view(np.uint16)[_UPPER :: 2 * step].copy()
        # counting costs about 0.1 ms however few elements there are: gather some first
        self._pending.setdefault(step, []).append(patterns)
        self._waiting += patterns.size
        if self._waiting >= _FLUSH:
            self._flush()

    def add(self, *found: Dense) -> None:
        """Observe elements that were counted by bit pattern; a negative count takes elements back."""
        self._flush()
        self._keys, self._counts = occupied(found, self._keys, self._counts)

    def merge(self, other: Self) -> Self:
        if self.subset != other.subset:
            raise CalibrationError(
                f"histograms that count {self.subset} and {other.subset} elements of an array cannot be merged: "
                "collect both with the same setting"
            )
        new = type(self)(self.subset)
        theirs = np.zeros(int(other.keys[-1]) + 1 if other.keys.size else 0, dtype=np.int64)
        theirs[other.keys] = other.counts
        new._keys, new._counts = occupied([theirs], self.keys, self.counts)
        return new

    def state(self) -> dict[str, NDArray[Any]]:
        return {
            "keys": self.keys,
            "counts": self.counts,
            "subset": np.array([-1 if self.subset is None else self.subset], dtype=np.int64),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> Self:
        (subset,) = state["subset"]
        new = cls(None if subset < 0 else int(subset))
        new._keys, new._counts = state["keys"].astype(np.int32), state["counts"].astype(np.int64)
        if new._keys.shape != new._counts.shape or np.any(np.diff(new._keys) <= 0) or np.any(new._counts <= 0):
            raise ValueError("keys must ascend, and counts be positive and as many as keys")
        return new

    def bins(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """(lower edges, upper edges, counts) of the occupied bins as real numbers, ascending, all of shape [bins].

        The two bins around zero are one, [0, 0]: subnormals below 9.2e-41 count as zero.
        """
        keys, counts = self.keys, self.counts
        magnitude = (keys & 0x7FFF).astype(np.uint32)
        near, far = (_value(magnitude), _value(magnitude + 1))
        zero = magnitude == 0
        negative = (keys >= 0x8000) & ~zero
        positive = (keys < 0x8000) & ~zero
        at_zero = [0.0] if zero.any() else []
        lower = np.concatenate([-far[negative][::-1], at_zero, near[positive]])
        upper = np.concatenate([-near[negative][::-1], at_zero, far[positive]])
        number = np.concatenate(
            [counts[negative][::-1], counts[zero].sum(keepdims=True)[: len(at_zero)], counts[positive]]
        )
        return lower, upper, number.astype(np.int64)

    def edges(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper edges of the occupied bins, ascending, see `bins`."""
        lower, upper, _ = self.bins()
        return lower, upper

    def centers(self) -> NDArray[np.float64]:
        """Middle of each occupied bin, ascending, see `bins`."""
        lower, upper, _ = self.bins()
        return (lower + upper) / 2

    def _flush(self) -> None:
        if not self._pending:
            return
        pending, self._pending, self._waiting = self._pending, {}, 0
        self.add(tally(pending))


class Heldout(Histogram):
    """The distribution in every fourth of the samples that `Histogram` counts: `Histogram` less this is what a range
    can be fitted on, this what it can be judged by. Empty if fewer than four samples were counted."""

    name: ClassVar[str] = "heldout"
    share: ClassVar[tuple[int, int]] = (3, 4)


def stride(size: int, subset: int | None) -> int:
    """The least stride >= size / subset without a common divisor with `size`.

    >>> stride(1000, 100), stride(100, 100), stride(2**20, 2**16), stride(10**6, None)
    (11, 1, 17, 1)
    """
    if subset is None or size <= subset:
        return 1
    step = -(-size // subset)
    while math.gcd(step, size) != 1:
        step += 1
    return step


def _value(patterns: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Magnitude whose upper 16 bits are given; the one above the largest finite bin is 2^128."""
    with np.errstate(over="ignore"):
        values = (patterns.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
    return np.where(np.isinf(values), 2.0**128, values)


OBSERVERS: dict[str, Callable[[], Observer]] = {
    MinMax.name: MinMax,
    Histogram.name: Histogram,
    Heldout.name: Heldout,
}
"""Name -> class of the observers that `collect` and `Statistics.load` know."""


def observer_class(name: str) -> Any:
    """The class behind an observer's name.

    Raises:
        UnknownNameError: there is none; the message proposes the nearest name.
    """
    if name not in OBSERVERS:
        raise UnknownNameError(f'there is no observer "{name}": {did_you_mean(name, OBSERVERS)}')
    return OBSERVERS[name]


def make_observer(name: str, *, subset: int | None = SUBSET) -> Observer:
    """A fresh observer.

    Args:
        name: one of OBSERVERS.
        subset: of histograms.

    Raises:
        UnknownNameError: there is no such observer.
    """
    kind = observer_class(name)
    observer: Observer = kind(subset) if issubclass(kind, Histogram) else kind()
    return observer
