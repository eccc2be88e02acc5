"""The one run over the data: every sample goes through the model once.

The normalised graph runs at ORT's ENABLE_ALL, memory planning off, with nodes behind the wanted tensors that find their
least and greatest values and, for distributions, slice out some of their elements (`onnxq.stats.reductions`). Only
where something is not finite, or an observer wants whole arrays, a second form of the graph gives the tensors
themselves, for that sample.

Optimizations stay on because they make the run 1.4 times faster than without; that fusions and layouts change the last
bits of an activation does not matter to a range. In turn, statistics are reproducible bit for bit on one instruction
set and one version of ORT, whatever the number of threads, and parts of a data set merge to the whole.

Memory: the elements of one sample. Whole arrays that take more than `budget` bytes are fetched in parts.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from numpy.typing import NDArray

from onnxq.data.sample import Dataset, Sample
from onnxq.errors import CalibrationError, did_you_mean
from onnxq.ir.hash import model_hash
from onnxq.ir.model import Model
from onnxq.ir.save import runnable, weight_bytes
from onnxq.ir.shapes import infer
from onnxq.ir.walk import graphs
from onnxq.progress import Progress, Silent
from onnxq.runtime.session import Level, Session
from onnxq.stats.bodies import Inside, inside
from onnxq.stats.collector import Collector
from onnxq.stats.forecasts import Forecast, elements, forecasts
from onnxq.stats.observers import SUBSET, Histogram, MinMax
from onnxq.stats.picks import EVERY, WHOLE, scattered
from onnxq.stats.probe import checked_run, element_types, observe_shapes
from onnxq.stats.reductions import Known, Reductions
from onnxq.stats.statistics import Shape, Statistics
from onnxq.stats.surroundings import surroundings
from onnxq.stats.taps import aliases, names_of, produced, with_outputs

__all__ = ["BUDGET", "collect", "observe_shapes"]

BUDGET = 100_000_000
"""Default bytes of whole arrays that are fetched at a time."""

MAP_FROM = 4_000_000
"""Bytes of weights above which ORT gets a file to map, and not a message that it copies."""

PREPACK_BELOW = 1 << 30
"""Weights of fewer bytes are prepacked by ORT (faster; doubles their memory)."""


def collect(
    model: Model,
    tensors: Sequence[str],
    data: Dataset,
    observers: Sequence[str] = (MinMax.name, Histogram.name),
    *,
    limit: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    feedback: Mapping[str, str] | None = None,
    allow_infinite: Collection[str] = (),
    shapes: Mapping[str, Shape] | None = None,
    subset: int | None = SUBSET,
    budget: int = BUDGET,
    start: int = 0,
    stop: int | None = None,
    hashed: str | None = None,
) -> Statistics:
    """Observe tensors.

    Least and greatest values are those of all elements of all samples, with one exception: for the output of a Relu, or
    of a Clip from 0, the least value is given as 0 even if every element was greater. Distributions are those of a
    choice of the elements of each array (`Histogram`).

    A tensor that only reorders another (Reshape, Transpose ...) gets the statistics of that one. Constants and
    tensors that are not floating point are left out. float16 and float64 values are observed as float32. Tensors inside
    If, Loop and Scan bodies may be made many times per sample: their distributions are of a choice of all that they
    held, at most `onnxq.stats.bodies.ROOM` elements per sample (`onnxq.stats.bodies`), which is what observers that
    want whole arrays get, too. Tensors that never held an element are listed in `unreached`.

    Args:
        model: normalised model; not changed.
        tensors: names to observe, of any graph of the model.
        data: samples; read once.
        observers: names; min-max is always among them.
        limit: samples to use at most.
        threads: of ORT; None is its default.
        progress: told of every sample.
        feedback: output name -> input name: from the second sample on, the input takes what the output was.
        allow_infinite: tensors in which infinite values are counted and left out; elsewhere they are an error. NaN is
            one everywhere.
        shapes: from `observe_shapes`, spares doing that again if the model leaves shapes open.
        subset: elements of one array that a histogram counts, see `Histogram`; None for all.
        budget: bytes of whole arrays that are fetched at a time.
        start, stop: only the samples of these positions (`Sample.index`), stop not included. Statistics of the parts
            of a data set, merged, equal those of the whole, bit for bit (with feedback, they start from other states).
        hashed: `model_hash` of the model, if it is known.

    Raises:
        CalibrationError: NaN or an infinity in a tensor (names it and the sample), no samples, an unknown tensor, a
            sample that ORT cannot run.
        UnknownNameError: unknown observer.
        ModelError: ORT cannot load the model.
    """
    whole = len(data) if limit is None else min(limit, len(data))
    root = aliases(model.graph)
    collector = Collector(observers, subset, {*allow_infinite, *(root.get(n, n) for n in allow_infinite)})
    engine = _Engine(
        model,
        list(dict.fromkeys(tensors)),
        collector,
        threads=threads,
        feedback=feedback or {},
        allow_infinite=allow_infinite,
        shapes=shapes or {},
        subset=subset,
        budget=budget,
    )
    total = len(range(start, whole if stop is None else min(stop, whole)))
    with (progress or Silent()).task("calibrating", total) as step:
        for sample in _samples(data, limit, start, stop):
            engine.run(sample)
            step(1)
    if not collector.samples:
        raise CalibrationError(f"there are no samples in {data.description}: calibration needs at least one")
    return engine.result(hashed or model_hash(model))


def _samples(data: Dataset, limit: int | None, start: int, stop: int | None) -> Iterator[Sample]:
    """The samples of a part of the data set; nothing behind the last one is read."""
    for sample in itertools.islice(iter(data), limit):
        if stop is not None and sample.index >= stop:
            return
        if sample.index >= start:
            yield sample
            if sample.index + 1 == stop:
                return


class _Engine:
    """The two forms of the model and what they are asked for; each is opened when the first sample needs it."""

    def __init__(
        self,
        model: Model,
        wanted: Sequence[str],
        collector: Collector,
        *,
        threads: int | None,
        feedback: Mapping[str, str],
        allow_infinite: Collection[str],
        shapes: Mapping[str, Shape],
        subset: int | None,
        budget: int,
    ) -> None:
        self._model, self._collector, self._threads, self._feedback = model, collector, threads, dict(feedback)
        self._allowed, self._shapes, self._budget = frozenset(allow_infinite), shapes, budget
        here = produced(model.graph)
        bodies = _known(model, wanted, here)
        root = aliases(model.graph)
        self._root = {n: root.get(n, n) for n in wanted}
        roots = set(self._root.values())
        candidates = [n for n in here if n in roots]
        self._known: dict[str, Known] = infer(model, declared=False)
        self._dtypes = element_types(model, candidates, self._known)
        self._taps = [t for t in candidates if self._dtypes[t].kind == "f"]
        given = set(names_of(model.graph.inputs))
        self._given = [t for t in self._taps if t in given]
        self._made = [t for t in self._taps if t not in given]
        masks = {root.get(n, n) for n in allow_infinite}
        self._masked = [t for t in self._made if t in masks]
        self._reduced = [t for t in self._made if t not in masks]
        floats = {n for n, (dtype, _) in self._known.items() if dtype is not None and dtype.kind == "f"}
        self._bodies = [n for n in bodies if n in floats]
        pick = subset if collector.distributions else 0
        self._inside: Inside = inside(model, self._bodies, floats, pick)
        known = {n: (self._dtypes.get(n, dtype), shape) for n, (dtype, shape) in self._known.items()}
        known.update((n, (d, None)) for n, d in self._dtypes.items() if n not in known)
        self._arrays = not collector.histograms_only  # some observer wants them whole
        picking = collector.distributions and not self._arrays
        self._forecasts: dict[str, Forecast] = {}
        if picking and subset and not self._bodies:
            shapes_of = {n: known.get(n, (None, None))[1] for n in (*given, *self._reduced)}
            open_ = [n for n in self._reduced if any(d is None for d in shapes_of[n] or ())]
            self._forecasts = forecasts(model, open_, {n: shapes_of[n] for n in given})
        self._foreseen = Counter(self._forecasts.values())
        self._reduce = partial(
            Reductions, self._inside.model.graph, self._reduced, known, (subset or WHOLE) if picking else None
        )
        self._reductions = self._reduce()
        self._slices = False  # what is forecast
        self._lean: Session | None = None
        self._full: tuple[int, Session] | None = None
        self._parts: list[list[str]] = []
        self._state: dict[str, NDArray[Any]] = {}

    def run(self, sample: Sample) -> None:
        """One sample."""
        collector = self._collector
        number = sample.index if collector.distributions else None
        inputs = {**sample.inputs, **self._state}
        collector.samples += 1
        collector.observe(sample, {t: inputs[t] for t in self._given if t in inputs}, number)
        few = self._prepare(inputs)
        assert self._lean is not None
        place = scattered(sample.index)
        fed = {**inputs, **self._reductions.feed(inputs, sample.index), **self._inside.feed(place)}
        try:
            found = self._run(self._lean, sample, fed, self._lean_outputs)
        except CalibrationError:
            if not self._slices:
                raise
            self._look(sample, inputs, number)  # a tensor may be much smaller than forecast; else this fails, too
            return
        numbers = self._reductions.read(inputs, found, sample.index, every=few)
        if numbers.suspect or self._arrays:
            state = self._state
            self._look(sample, inputs, number)
            self._state = state
        else:
            collector.reduced(self._reductions.taps, numbers, number)
            collector.observe(sample, {t: found[t] for t in self._masked}, number)
        collector.inner(sample, self._inside.read(found, place), self._allowed, number)

    def _prepare(self, inputs: Mapping[str, NDArray[Any]]) -> bool:
        """Open the lean form. Of so few elements that all are counted, fetching the tensors is cheaper than slicing
        them, and comes to the same; so what is forecast is sliced from the first sample that has more.

        Returns:
            Are the elements whose number is forecast so few?
        """
        few = bool(self._forecasts) and elements(self._foreseen, self._reductions.symbols(inputs)) <= EVERY
        if self._forecasts and not few and not self._slices:
            self._slices, self._lean, self._reductions = True, None, self._reduce(self._forecasts)
        if self._lean is None:
            base, more = self._inside.model, self._reductions
            self._lean_outputs = [*more.outputs, *self._masked, *self._inside.outputs]
            tapped = with_outputs(base, self._lean_outputs, more.nodes, more.inputs)
            self._lean = self._open(tapped, prepacking=weight_bytes(self._model) < PREPACK_BELOW)
        return few

    def result(self, hashed: str) -> Statistics:
        """When all samples ran."""
        found = self._collector.result(hashed, self._root, self._taps, self._bodies)
        return replace(found, around=surroundings(self._model.graph, sorted(self._root)))

    def _look(self, sample: Sample, inputs: Mapping[str, NDArray[Any]], number: int | None) -> None:
        """Observe the arrays themselves."""
        for part in range(len(self._split(sample))):
            self._collector.observe(sample, self._fetch(sample, inputs, part), number)

    def _fetch(self, sample: Sample, inputs: Mapping[str, NDArray[Any]], part: int) -> dict[str, NDArray[Any]]:
        """The arrays of one part of the tensors."""
        taps = self._split(sample)[part]
        if self._full is None or self._full[0] != part:
            self._full = None  # its memory, before the next one takes as much
            self._full = part, self._open(with_outputs(self._model, taps), prepacking=False)
        found = self._run(self._full[1], sample, inputs, taps)
        return {t: found[t] for t in taps}

    def _run(
        self, session: Session, sample: Sample, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]
    ) -> dict[str, NDArray[Any]]:
        found = checked_run(session, sample, inputs, list(dict.fromkeys([*outputs, *self._feedback])))
        self._state = {name: found[output] for output, name in self._feedback.items()}
        return found

    def _open(self, model: Model, *, prepacking: bool) -> Session:
        with runnable(model, embed_limit=MAP_FROM) as source:
            session = Session(
                source, level=Level.ALL, threads=self._threads, memory_pattern=False, prepacking=prepacking
            )
        _check_feedback(self._feedback, session)
        return session

    def _split(self, sample: Sample) -> list[list[str]]:
        """The tensors in parts of at most `budget` bytes, by the first sample for which that must be known."""
        if not self._parts:
            self._parts = split(self._made, self._sizes(sample), self._budget)
        return self._parts

    def _sizes(self, sample: Sample) -> dict[str, int]:
        """Bytes of each tensor: as inferred, as observed before, or else those of this sample."""
        found: dict[str, Sequence[int | str | None]] = {}
        for name in self._made:
            inferred = self._known.get(name, (None, None))[1]
            found[name] = inferred if inferred is not None and _is_known(inferred) else self._shapes.get(name, ("?",))
        if not all(map(_is_known, found.values())):
            found.update(observe_shapes(self._model, [sample], threads=self._threads))
        return {t: math.prod(d for d in found[t] if isinstance(d, int)) * self._dtypes[t].itemsize for t in self._made}


def _known(model: Model, wanted: Sequence[str], here: Collection[str]) -> list[str]:
    """Those of `wanted` that live in subgraphs; a name that is nowhere is an error."""
    missing = [n for n in wanted if n not in here]
    if not missing:
        return []
    found = [(path, graph) for path, graph in graphs(model.graph)]
    inner = {t.name for path, graph in found if path for t in graph.inputs}
    inner |= {name for path, graph in found if path for node in graph.nodes for name in names_of(node.outputs)}
    constants = {name for _, graph in found for node in graph.nodes for name in names_of(node.inputs)}
    for name in missing:
        if name not in inner and name not in constants:
            raise CalibrationError(f'the model has no tensor "{name}" to calibrate: {did_you_mean(name, here)}')
    return [n for n in missing if n in inner]


def _is_known(shape: Sequence[int | str | None]) -> bool:
    return all(isinstance(d, int) for d in shape)


def _check_feedback(feedback: Mapping[str, str], session: Session) -> None:
    inputs, outputs = [s.name for s in session.inputs], session.outputs
    for output, name in feedback.items():
        if output not in outputs:
            raise CalibrationError(
                f'feedback names the output "{output}", which the model lacks: {did_you_mean(output, outputs)}'
            )
        if name not in inputs:
            raise CalibrationError(
                f'feedback names the input "{name}", which the model lacks: {did_you_mean(name, inputs)}'
            )


def split(taps: Sequence[str], sizes: Mapping[str, int], budget: int) -> list[list[str]]:
    """Consecutive parts of at most `budget` bytes each (a single tensor may be larger); one part if all fits."""
    parts: list[list[str]] = [[]]
    used = 0
    for tap in taps:
        if parts[-1] and used + sizes.get(tap, 0) > budget:
            parts.append([])
            used = 0
        parts[-1].append(tap)
        used += sizes.get(tap, 0)
    return parts
