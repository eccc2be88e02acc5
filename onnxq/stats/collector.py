"""What was seen of each tensor while the data runs, and the checks that every value is finite."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.data.sample import Sample
from onnxq.errors import CalibrationError
from onnxq.stats.bodies import Seen
from onnxq.stats.groups import REMEMBERED
from onnxq.stats.observers import Histogram, MinMax, Observer, make_observer, observer_class
from onnxq.stats.picks import Counted
from onnxq.stats.statistics import Shape, Statistics, TensorStatistics, merge_shapes
from onnxq.stats.stream import Found
from onnxq.stats.tally import Dense, tally

WAITING = 1 << 19
"""Bytes of elements per tensor that are gathered, on average, before they are counted, but `WAITING_AT_MOST` in all."""

WAITING_AT_MOST = 20_000_000


class Collector:
    """Observers by tensor.

    Args:
        observers: names; the first time one is met, an unknown one is an error.
        subset: of histograms.
        allow_infinite: tensors in which infinite values are counted and left out.
    """

    def __init__(self, observers: Sequence[str], subset: int | None, allow_infinite: Collection[str]) -> None:
        self.kinds = tuple(dict.fromkeys((MinMax.name, *observers)))
        for kind in self.kinds:
            observer_class(kind)  # an unknown name is an error before any run
        self.samples = 0
        self._subset = subset
        self._allow = frozenset(allow_infinite)
        self._seen: dict[str, dict[str, Observer]] = {}
        self._shapes: dict[str, Shape] = {}
        self._taps: tuple[str, ...] = ()
        self._shaped: set[tuple[tuple[int, ...], ...]] = set()
        self._low = self._high = np.empty(0, dtype=np.float32)
        self._count = np.empty(0, dtype=np.int64)
        self._waiting: dict[tuple[str, ...], list[Counted]] = {}
        self._bytes = 0

    @property
    def distributions(self) -> bool:
        """Does any observer want more than least and greatest value?"""
        return len(self.kinds) > 1

    @property
    def histograms_only(self) -> bool:
        """Is a choice of the elements all that the observers want?"""
        return all(issubclass(observer_class(kind), (MinMax, Histogram)) for kind in self.kinds)

    def observe(self, sample: Sample, arrays: dict[str, NDArray[Any]], number: int | None) -> None:
        """Observe whole arrays of a sample, emptying the dict: each array is freed before the next is touched.

        Args:
            number: position of the sample in the data set; None: it gets no distribution.

        Raises:
            CalibrationError: NaN or an infinity; the first array that has one is named.
        """
        for name in list(arrays):
            array = arrays.pop(name)
            self._shape(name, array.shape)
            if array.size:
                self._update(name, array, sample, number)

    def reduced(self, taps: tuple[str, ...], found: Found, number: int | None) -> None:
        """Observe what was found in the graph, all of it finite; always the same taps.

        Args:
            number: of the sample, for its elements; None: it gets no distribution.
        """
        if not self._taps:
            self._taps = taps
            self._low = np.full(len(taps), np.inf, dtype=np.float32)
            self._high = np.full(len(taps), -np.inf, dtype=np.float32)
            self._count = np.zeros(len(taps), dtype=np.int64)
        np.minimum(self._low, found.low, out=self._low)
        np.maximum(self._high, found.high, out=self._high)
        self._count += found.count
        if found.shapes not in self._shaped:
            if len(self._shaped) >= REMEMBERED:
                self._shaped.clear()
            self._shaped.add(found.shapes)
            for name, shape in zip(taps, found.shapes, strict=True):
                self._shape(name, shape)
        if number is not None:
            kinds = tuple(
                k for k in self.kinds if k != MinMax.name and shared(number, getattr(observer_class(k), "share", None))
            )
            # a tensor costs 0.05 ms, however few elements there are: gather those of some samples first
            self._waiting.setdefault(kinds, []).extend(found.picked)
            self._bytes += sum(part.bytes for part in found.picked)
            if self._bytes >= min(WAITING * len(taps), WAITING_AT_MOST):
                self._flush()

    def inner(self, sample: Sample, found: Mapping[str, Seen], allowed: Collection[str], number: int | None) -> None:
        """Observe tensors in bodies.

        Args:
            number: as for `observe`.

        Raises:
            CalibrationError: NaN, or an infinity in a tensor that is not among `allowed`.
        """
        for name, seen in found.items():
            infinite = bool(
                np.isinf(seen.low) or np.isinf(seen.high)
            )  # of both signs, they have a sum that is NaN, too
            if infinite and name in allowed:
                continue
            if np.isnan(seen.low) or np.isnan(seen.high) or (seen.nan and not infinite):
                raise _not_finite(name, "NaN", sample)
            if infinite:
                raise _not_finite(name, "an infinite value", sample)
            self._minmax(name).add(seen.low, seen.high, seen.count)
            if number is not None and seen.elements is not None:
                self._distribute(name, seen.elements, number)

    def result(
        self, model_hash: str, root: Mapping[str, str], taps: Collection[str], bodies: Collection[str]
    ) -> Statistics:
        """Everything that was seen.

        Args:
            root: tensor that was asked for -> tensor that was observed for it.
            taps: what was observed in the main graph.
            bodies: what was observed in bodies.
        """
        for name, low, high, count in zip(self._taps, self._low, self._high, self._count, strict=True):
            if count:
                self._minmax(name).add(low, high, int(count))
        self._flush()
        self._taps = ()
        self._low = self._high = self._low[:0]
        self._count = self._count[:0]
        tensors = {
            name: TensorStatistics(name=name, observers=self._seen[tap])
            for name, tap in sorted(root.items())
            if tap in self._seen and self._minmax(tap).count
        }
        unreached = [n for n, tap in root.items() if (tap in taps or n in bodies) and n not in tensors]
        return Statistics(
            model_hash=model_hash,
            samples=self.samples,
            tensors=tensors,
            shapes=dict(sorted(self._shapes.items())),
            unreached=tuple(sorted(unreached)),
        )

    def _flush(self) -> None:
        """Count what waits."""
        waiting, self._waiting, self._bytes = self._waiting, {}, 0
        cut = {kinds: by_tensor(parts) for kinds, parts in waiting.items()}
        for name in dict.fromkeys(name for parts in cut.values() for name in parts):
            totals: dict[str, list[Dense]] = {}
            for kinds, parts in cut.items():
                found = tally(parts.get(name, {}))
                for kind in kinds:
                    totals.setdefault(kind, []).append(found)
            own = self._observers(name)
            for kind, counts in totals.items():
                histogram = own[kind]
                assert isinstance(histogram, Histogram)
                histogram.add(*counts)

    def _shape(self, name: str, shape: tuple[int, ...]) -> None:
        known = self._shapes.get(name)
        if known != shape:
            self._shapes[name] = merge_shapes(known, shape)

    def _observers(self, name: str) -> dict[str, Observer]:
        observers = self._seen.get(name)
        if observers is None:
            observers = self._seen[name] = {n: make_observer(n, subset=self._subset) for n in self.kinds}
        return observers

    def _minmax(self, name: str) -> MinMax:
        minmax = self._observers(name)[MinMax.name]
        assert isinstance(minmax, MinMax)
        return minmax

    def _update(self, name: str, array: NDArray[Any], sample: Sample, number: int | None) -> None:
        with np.errstate(over="ignore"):  # float64 above the range of float32 becomes infinite and is reported so
            values = np.asarray(array, dtype=np.float32)
        minmax = self._minmax(name)
        low, high = values.min(), values.max()
        if not (np.isfinite(low) and np.isfinite(high)):
            if np.isnan(low) or name not in self._allow:
                raise _not_finite(name, "NaN" if np.isnan(low) else "an infinite value", sample)
            finite = values[np.isfinite(values)]
            minmax.infinite += values.size - finite.size
            if not finite.size:
                return
            values, low, high = finite, finite.min(), finite.max()
        minmax.add(low, high, values.size)
        if number is not None:
            self._distribute(name, values, number)

    def _distribute(self, name: str, values: NDArray[np.float32], number: int) -> None:
        for kind, observer in self._observers(name).items():
            if kind != MinMax.name and shared(number, getattr(observer, "share", None)):
                observer.update(values)


Cut = dict[int, list[NDArray[np.uint16]]]
"""Weight -> patterns that have it."""


def by_tensor(parts: Sequence[Counted]) -> dict[str, Cut]:
    """What is to be counted, by tensor."""
    cut: dict[str, Cut] = {}
    for part in parts:
        for name, some, weight in zip(part.names, part.patterns, part.weights.tolist(), strict=True):
            if some.size:
                cut.setdefault(name, {}).setdefault(weight, []).append(some)
    return cut


def shared(number: int, share: tuple[int, int] | None) -> bool:
    """Does an observer with this `share` (k, n) see the sample of this number: number % n == k; None sees all."""
    return share is None or number % share[1] == share[0]


def _not_finite(name: str, what: str, sample: Sample) -> CalibrationError:
    return CalibrationError(
        f'tensor "{name}" has {what} in sample {sample.index} ({sample.name}): leave that sample out, '
        "or find out where the float model makes it"
    )
