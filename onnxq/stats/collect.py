"""The one run over the data: every sample goes through the model once, every array is observed and let go.

How it runs: the normalised graph with the wanted tensors as further outputs, at ORT's ENABLE_ALL, memory planning
off. Optimizations stay on because they make the run 1.4 times faster than without; that fusions and layouts change
the last bits of an activation does not matter to a range. In turn, statistics are reproducible bit for bit on one
instruction set and one version of ORT, whatever the number of threads, and `collect(a).merge(collect(b))` equals
`collect(a + b)`.

Memory: the arrays of one sample. If those take more than `budget` bytes, the taps are split and the data is read once
per part.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.data.sample import Dataset, Sample
from onnxq.errors import CalibrationError, ModelError, did_you_mean
from onnxq.ir.hash import model_hash
from onnxq.ir.model import Model
from onnxq.ir.save import runnable, weight_bytes
from onnxq.ir.walk import graphs
from onnxq.progress import Progress, Silent
from onnxq.runtime.session import Level, Session
from onnxq.stats.observers import SUBSET, Histogram, MinMax, Observer, make_observer, observer_class
from onnxq.stats.sampling import rank, shared
from onnxq.stats.statistics import Shape, Statistics, TensorStatistics, merge_shapes
from onnxq.stats.taps import aliases, names_of, produced, with_outputs

BUDGET = 300_000_000
"""Default bytes of fetched arrays of one sample."""

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
    length: int | None = None,
) -> Statistics:
    """Observe tensors of the main graph on all samples.

    A tensor that only reorders another (Reshape, Transpose ...) gets the statistics of that one. Constants and
    tensors that are not floating point are left out. float16 and float64 values are observed as float32. Tensors
    inside If, Loop and Scan bodies, and tensors that never held an element, are listed in `unreached`.

    Args:
        model: normalised model; not changed.
        tensors: names to observe, of any graph of the model.
        data: samples; read once (once per part if `budget` is exceeded).
        observers: names; min-max is always among them.
        limit: samples to use at most.
        threads: of ORT; None is its default.
        progress: told of every sample.
        feedback: output name -> input name: from the second sample on, the input takes what the output was.
        allow_infinite: tensors in which infinite values are counted and left out; elsewhere they are an error. NaN is
            one everywhere.
        shapes: from `observe_shapes`, spares doing that again if the model leaves shapes open.
        subset: elements of one array that a histogram counts, see `Histogram`; None for all.
        budget: bytes of fetched arrays of one sample.
        start, stop: only the samples of these positions (`Sample.index`), stop not included. Statistics of the parts
            of a data set, merged, equal those of the whole, bit for bit.
        length: samples of the whole data set, on which the choice of samples that get a distribution depends, see
            `onnxq.stats.sampling`; None: `len(data)`, or `limit` if that is less.

    Raises:
        CalibrationError: NaN or an infinity in a tensor (names it and the sample), no samples, an unknown tensor, a
            sample that ORT cannot run.
        UnknownNameError: unknown observer.
        ModelError: ORT cannot load the model.
    """
    wanted = list(dict.fromkeys(tensors))
    here = produced(model.graph)
    inner = _known(model, wanted, here)
    root = aliases(model.graph)
    roots = {root.get(n, n) for n in wanted}
    taps = [n for n in here if n in roots]
    allowed = {root.get(n, n) for n in allow_infinite}
    collector = _Collector((MinMax.name, *observers), subset, {*allow_infinite, *allowed})
    session = _open(model, taps, threads)
    specs = {s.name: s for s in (*session.inputs, *session.output_specs)}
    taps = [t for t in taps if specs[t].dtype.kind == "f"]
    parts = _split(taps, _sizes(session, model, taps, data, shapes=shapes or {}, threads=threads), budget)
    whole = len(data) if limit is None else min(limit, len(data))
    whole_length = whole if length is None else length
    chunk = range(start, whole if stop is None else stop)
    samples = 0
    for number, part in enumerate(parts):
        label = "calibrating" if len(parts) == 1 else f"calibrating, part {number + 1} of {len(parts)}"
        if len(parts) > 1:
            del session  # its memory, before the next one takes as much
            session = _open(model, part, threads)
        samples = 0
        with (progress or Silent()).task(label, min(len(chunk), whole)) as step:
            samples_ = _samples(data, limit, start, stop)
            for sample, arrays in _run(session, model, part, samples_, feedback=feedback):
                collector.observe(sample, arrays, rank(sample.index, whole_length))
                samples += 1
                step(1)
    if not samples:
        raise CalibrationError(f"there are no samples in {data.description}: calibration needs at least one")
    return collector.result(model_hash(model), samples, {n: root.get(n, n) for n in wanted}, set(taps), inner)


class _Collector:
    """Observers by tensor while the data runs."""

    def __init__(self, observers: Sequence[str], subset: int | None, allow_infinite: Collection[str]) -> None:
        self._kinds = tuple(dict.fromkeys(observers))
        for kind in self._kinds:
            observer_class(kind)  # an unknown name is an error before any run
        self._subset = subset
        self._allow = frozenset(allow_infinite)
        self._seen: dict[str, dict[str, Observer]] = {}
        self._shapes: dict[str, Shape] = {}

    def observe(self, sample: Sample, arrays: dict[str, NDArray[Any]], number: int | None) -> None:
        """Observe all arrays of a sample, emptying the dict: each array is freed before the next is touched."""
        while arrays:
            name, array = arrays.popitem()
            self._shapes[name] = merge_shapes(self._shapes.get(name), array.shape)
            if array.size:
                self._update(name, array, sample, number)

    def _update(self, name: str, array: NDArray[Any], sample: Sample, number: int | None) -> None:
        observers = self._seen.get(name)
        if observers is None:
            observers = self._seen[name] = {n: make_observer(n, subset=self._subset) for n in self._kinds}
        with np.errstate(over="ignore"):  # float64 above the range of float32 becomes infinite and is reported so
            values = np.asarray(array, dtype=np.float32)
        minmax = observers[MinMax.name]
        assert isinstance(minmax, MinMax)
        low, high = values.min(), values.max()
        if not (np.isfinite(low) and np.isfinite(high)):
            if np.isnan(low) or name not in self._allow:
                what = "NaN" if np.isnan(low) else "an infinite value"
                raise CalibrationError(
                    f'tensor "{name}" has {what} in sample {sample.index} ({sample.name}): leave that sample out, '
                    "or find out where the float model makes it"
                )
            finite = values[np.isfinite(values)]
            minmax.infinite += values.size - finite.size
            if not finite.size:
                return
            values, low, high = finite, finite.min(), finite.max()
        minmax.add(low, high, values.size)
        for kind, observer in observers.items():
            if kind != MinMax.name and number is not None and shared(number, getattr(observer, "share", None)):
                observer.update(values)

    def result(
        self, hashed: str, samples: int, root: Mapping[str, str], taps: Collection[str], inner: Sequence[str]
    ) -> Statistics:
        tensors = {
            name: TensorStatistics(name=name, observers=self._seen[tap])
            for name, tap in sorted(root.items())
            if tap in self._seen and self._seen[tap][MinMax.name].count  # type: ignore[attr-defined]
        }
        unreached = [n for n, tap in root.items() if tap in taps and n not in tensors]
        shapes = dict(sorted(self._shapes.items()))
        return Statistics(
            model_hash=hashed,
            samples=samples,
            tensors=tensors,
            shapes=shapes,
            unreached=tuple(sorted({*unreached, *inner})),
        )


def observe_shapes(model: Model, samples: Sequence[Sample], *, threads: int | None = None) -> dict[str, Shape]:
    """Shapes of all tensors of the main graph, seen by running the model on the first two samples.

    For models without (or with wrong) shape inference. What is no tensor (sequences, maps, optionals) is left out.
    Fetches shapes only, so it needs no more memory than a plain run.

    Args:
        model: any model that ORT runs; not changed.
        samples: one or two suffice; further ones are ignored. Dimensions that differ between the two become "?".

    Raises:
        CalibrationError: no sample, or ORT cannot run one.
        ModelError: ORT cannot load the model.
    """
    if not samples:
        raise CalibrationError("there are no samples to observe shapes on: calibration needs at least one")
    here = produced(model.graph)
    given = names_of(model.graph.inputs)
    names = [n for n in here if n not in given]
    opened = _reference(with_outputs(model, names), threads)
    # strings are objects, too, and have shapes that nobody quantizes
    tensors = {s.name for s in opened.output_specs if s.dtype.kind != "O"}
    proper = [n for n in names if n in tensors]
    del opened
    probes = {f"onnxq_shape_{i}": n for i, n in enumerate(proper)}
    # last tensor first: in file order ONNX Runtime would run all probes at the end and keep every tensor until then;
    # variables of the same names, not the tensors themselves: those would list the probes among their consumers
    nodes = [
        gs.Node(op="Shape", name=p, inputs=[gs.Variable(n)], outputs=[gs.Variable(p)])
        for p, n in reversed(probes.items())
    ]
    session = _reference(with_outputs(model, list(probes), nodes), threads)
    shapes: dict[str, Shape] = {}
    for sample in samples[:2]:
        found = _checked_run(session, sample, sample.inputs, list(probes))
        for probe, name in probes.items():
            shapes[name] = merge_shapes(shapes.get(name), tuple(int(d) for d in found[probe]))
        for name in given:
            if name in sample.inputs:
                shapes[name] = merge_shapes(shapes.get(name), sample.inputs[name].shape)
    return shapes


def _known(model: Model, wanted: Sequence[str], here: Collection[str]) -> list[str]:
    """Those of `wanted` that live in subgraphs; a name that is nowhere is an error."""
    missing = [n for n in wanted if n not in here]
    if not missing:
        return []
    found = [(path, node) for path, graph in graphs(model.graph) for node in graph.nodes]
    inner = {name for path, node in found if path for name in names_of(node.outputs)}
    constants = {name for _, node in found for name in names_of(node.inputs)}
    for name in missing:
        if name not in inner and name not in constants:
            raise CalibrationError(f'the model has no tensor "{name}" to calibrate: {did_you_mean(name, here)}')
    return [n for n in missing if n in inner]


def _open(model: Model, taps: Sequence[str], threads: int | None) -> Session:
    prepacking = weight_bytes(model) < PREPACK_BELOW
    given = set(names_of(model.graph.inputs))
    with runnable(with_outputs(model, [t for t in taps if t not in given])) as source:
        return Session(source, level=Level.ALL, threads=threads, memory_pattern=False, prepacking=prepacking)


def _reference(model: Model, threads: int | None) -> Session:
    with runnable(model) as source:
        return Session(source, level=Level.OFF, threads=threads, memory_pattern=False, prepacking=False)


def _sizes(
    session: Session,
    model: Model,
    taps: Sequence[str],
    data: Dataset,
    *,
    shapes: Mapping[str, Shape],
    threads: int | None,
) -> dict[str, int]:
    """Bytes of each tap: from the shapes that ORT infers, those observed before, or else those of the first sample."""
    specs = {s.name: s for s in (*session.inputs, *session.output_specs)}
    inferred = {t: specs[t].shape for t in taps}
    found = {t: s if _known_shape(s) else shapes.get(t, ("?",)) for t, s in inferred.items()}
    if not all(map(_known_shape, found.values())):
        first = list(itertools.islice(iter(data), 1))
        found.update(observe_shapes(model, first, threads=threads) if first else {})
    return {t: math.prod(d for d in found[t] if isinstance(d, int)) * specs[t].dtype.itemsize for t in taps}


def _known_shape(shape: Sequence[int | str | None]) -> bool:
    return all(isinstance(d, int) for d in shape)


def _run(
    session: Session,
    model: Model,
    taps: Sequence[str],
    samples: Iterator[Sample],
    *,
    feedback: Mapping[str, str] | None,
) -> Iterator[tuple[Sample, dict[str, NDArray[Any]]]]:
    given = set(names_of(model.graph.inputs))
    back = dict(feedback or {})
    _check_feedback(back, session)
    fetched = [t for t in taps if t not in given]
    outputs = list(dict.fromkeys([*fetched, *back]))
    state: dict[str, NDArray[Any]] = {}
    for sample in samples:
        inputs = {**sample.inputs, **state}
        found = _checked_run(session, sample, inputs, outputs) if outputs else {}
        state = {back[o]: found[o] for o in back}
        arrays = {t: found[t] for t in fetched}
        arrays.update((t, inputs[t]) for t in taps if t in given and t in inputs)
        found.clear()
        yield sample, arrays


def _samples(data: Dataset, limit: int | None, start: int, stop: int | None) -> Iterator[Sample]:
    """The samples of a part of the data set; nothing behind the last one is read."""
    for sample in itertools.islice(iter(data), limit):
        if stop is not None and sample.index >= stop:
            return
        if sample.index >= start:
            yield sample
            if sample.index + 1 == stop:
                return


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


def _checked_run(
    session: Session, sample: Sample, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]
) -> dict[str, NDArray[Any]]:
    try:
        return session.run(inputs, outputs)
    except ModelError as error:
        raise CalibrationError(f"sample {sample.index} ({sample.name}): {error}") from error


def _split(taps: Sequence[str], sizes: Mapping[str, int], budget: int) -> list[list[str]]:
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
