"""The calibration engine: `collect` with a cache, checkpoints and workers around it. The statistics are the same
whichever of these are used, bit for bit.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from onnxq.data.sample import Dataset
from onnxq.errors import CalibrationError
from onnxq.ir.hash import model_hash
from onnxq.ir.model import Model
from onnxq.progress import Progress, Silent
from onnxq.stats.cache import Cache, changed_since, default_folder, digest, files_digest
from onnxq.stats.checkpoint import SECONDS, Piece, Pieces
from onnxq.stats.collect import collect
from onnxq.stats.observers import SUBSET, Histogram, MinMax
from onnxq.stats.parallel import Pool, Task, pickled, run_all, run_task, shared_file, slots_of, split, threads_each
from onnxq.stats.statistics import Shape, Statistics

OVERHEAD = 10.0
"""Least ratio of the time that a piece runs to the time that it takes to begin one."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """With what, and not what, is calculated: no field of this changes a bit of the statistics.

    Attributes:
        cache: None: nothing is stored, and nothing of a killed run is left.
        pool: None: in this process.
        seconds: between two checkpoints; 0: one behind each sample.
    """

    cache: Cache | None = None
    pool: Pool | None = None
    seconds: float = SECONDS


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Statistics and how they were come by.

    Attributes:
        statistics: of all samples; `shapes` holds those that were given, too.
        ran: samples that went through the model in this run.
        resumed: samples of an earlier run that was killed.
        cached: all of it came from the cache.
        seconds: of this run, the look into the cache included.
        key: of the cache; None: not stored.
        notes: sentences for the user.
    """

    statistics: Statistics
    ran: int
    resumed: int = 0
    cached: bool = False
    seconds: float = 0.0
    key: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def rate(self) -> float:
        """Samples per second, of those that ran."""
        return self.ran / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class _What:
    """What is to be collected: everything that changes a bit."""

    model: Model
    tensors: tuple[str, ...]
    observers: tuple[str, ...]
    length: int
    feedback: Mapping[str, str]
    allow_infinite: tuple[str, ...]
    shapes: Mapping[str, Shape]
    threads: int | None = field(default=None)


def calibrate(
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
    cache: Cache | None = None,
    executor: Executor | Pool | None = None,
    seconds: float = SECONDS,
) -> Outcome:
    """Statistics of tensors over all samples, from the cache if they are there.

    With `feedback`, and with data of which bad files are left out while reading, all samples run in one go in this
    process: there the state, here the number of a sample depends on those before it.

    Args:
        model, tensors, data, observers, limit, threads, progress, feedback, allow_infinite, shapes: see `collect`;
            `threads` is divided among the workers of this machine.
        cache: see `onnxq.stats.cache`; checkpoints lie there, too.
        executor: whose workers can import onnxq and read the model's and the samples' files; it is left open.
        seconds: between two checkpoints; 0: one behind each sample.

    Raises:
        CalibrationError: see `collect`; a worker that died.
        UsageError: the samples cannot be opened by other processes.
    """
    begun, date = time.monotonic(), time.time()
    hashed = model_hash(model)
    identity = data_digest(data) if cache is not None else None
    what = _What(
        model=model,
        tensors=tuple(dict.fromkeys(tensors)),
        observers=tuple(sorted({*observers, MinMax.name})),
        length=len(data) if limit is None else min(limit, len(data)),
        feedback=dict(feedback or {}),
        allow_infinite=tuple(sorted(allow_infinite)),
        shapes=dict(shapes or {}),
        threads=threads,
    )
    key = None
    if cache is not None and identity is not None:
        options = [sorted(what.tensors), what.observers, what.length, what.feedback, what.allow_infinite, SUBSET]
        shown = {name: list(shape) for name, shape in what.shapes.items()}
        key = cache.key("statistics", hashed, identity, options, shown)
        found = cache.get(key)
        if found is not None:
            return Outcome(statistics=found, ran=0, cached=True, seconds=time.monotonic() - begun, key=key)
    if not what.length:
        raise CalibrationError(f"there are no samples in {data.description}: calibration needs at least one")
    pieces = Pieces(what.length, cache.partial(key) if cache is not None and key is not None else None)
    notes: list[str] = []
    whole = _in_one_go(what, data)
    if whole:
        pieces = Pieces(what.length, None)
        if executor is not None:
            notes.append(f"All samples ran in one process, one after the other: {whole}.")
    with (progress or Silent()).task("calibrating", what.length - pieces.resumed) as step:
        if executor is not None and not whole and pieces.gaps():
            _spread(what, data, pieces, step, executor, cache)
        else:
            _serial(what, data, pieces, step, None if whole else seconds, hashed)
    total = pieces.whole()
    total = replace(total, model_hash=hashed, shapes=dict(sorted({**what.shapes, **total.shapes}.items())))
    if cache is not None and key is not None:
        identity_now: Any = getattr(data, "identity", None)
        if identity_now is not None and changed_since(date, identity_now()[1]):
            key = None
            notes.append("Samples changed while they were read: nothing was kept in the cache.")
        else:
            cache.put(key, total)
        pieces.clear()
    return Outcome(
        statistics=total,
        ran=total.samples - pieces.resumed,
        resumed=pieces.resumed,
        seconds=time.monotonic() - begun,
        key=key,
        notes=tuple(notes),
    )


def data_digest(data: Dataset) -> str | None:
    """A hash of what the samples are; None if the data set does not tell, and nothing can be cached.

    Of files, their bytes and the settings count. Of a function, the arrays that it makes: what it reads is not known.
    """
    identity: Any = getattr(data, "identity", None)
    if identity is not None:
        settings, files = identity()
        try:
            return digest("files", settings, files_digest(files))
        except OSError:
            return None  # the run itself says what is wrong with the file
    made: Any = getattr(data, "digest", None)
    return None if made is None else digest("function", made())


def _in_one_go(what: _What, data: Dataset) -> str:
    """Why the data cannot be cut into pieces; empty if it can."""
    if what.feedback:
        return "the feedback makes each depend on the one before"
    part: Any = getattr(data, "part", None)
    if part is not None and part(0, 0) is None:
        return "with --skip-bad, the number of a sample is known when all before it were read"
    return ""


def _serial(
    what: _What, data: Dataset, pieces: Pieces, step: Callable[[int], None], seconds: float | None, hashed: str
) -> None:
    for start, end in pieces.gaps():
        at, pause = start, seconds
        while at < end:
            piece = Piece(data, at, end, seconds=pause) if seconds is not None else data
            begun = time.monotonic()
            found = collect(
                what.model,
                what.tensors,
                piece,
                what.observers,
                limit=None if seconds is not None else what.length,
                threads=what.threads,
                progress=_Onward(step),
                feedback=what.feedback,
                allow_infinite=what.allow_infinite,
                shapes=what.shapes,
                hashed=hashed,
            )
            stop = piece.stop if isinstance(piece, Piece) else end
            if seconds and isinstance(piece, Piece):  # a model that is slow to load gets longer pieces
                pause = max(seconds, OVERHEAD * (time.monotonic() - begun - piece.running))
            pieces.add(at, stop, found)
            at = stop


def _spread(
    what: _What,
    data: Dataset,
    pieces: Pieces,
    step: Callable[[int], None],
    executor: Executor | Pool,
    cache: Cache | None,
) -> None:
    everywhere = isinstance(executor, Pool) and executor.cluster is not None
    # other machines see what is in the shared folder, whether or not statistics are kept there
    seen = (cache.folder if cache is not None else default_folder()) / "models" if everywhere else None
    opened = executor.open() if isinstance(executor, Pool) else contextlib.nullcontext((executor, slots_of(executor)))
    sent = pickled(data)
    with shared_file(what.model, seen) as path, opened as (pool, slots):
        # Dask gives each of a worker's threads a task
        threads = what.threads or 1 if everywhere else threads_each(what.threads, slots)
        tasks = [
            Task(
                model=path.resolve(),
                tensors=what.tensors,
                observers=what.observers,
                allow_infinite=what.allow_infinite,
                shapes=what.shapes,
                threads=threads,
                data=sent,
                start=start,
                stop=stop,
            )
            for start, stop in split(pieces.gaps(), slots)
        ]
        run_all(pool, tasks, pieces.add, step, run_task, slots=slots)


class _Onward:
    """Passes steps on to a task that is shown already."""

    def __init__(self, step: Callable[[int], None]) -> None:
        self._step = step

    @contextmanager
    def task(self, label: str, total: int | None) -> Iterator[Callable[[int], None]]:  # noqa: ARG002
        yield self._step
