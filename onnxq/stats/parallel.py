"""Pieces of the data on other processes, here or on a Dask cluster: any `concurrent.futures.Executor` will do.

A task names a range of positions and everything else by path or as a small value: the model lies in a file that all
workers map, and each opens the samples for itself. Results are merged by position, and merging is exact, so neither the
number of workers nor the order in which they end changes a bit.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol, TypeVar

from onnxq.data.sample import Dataset
from onnxq.errors import CalibrationError, UsageError
from onnxq.ir.load import load
from onnxq.ir.model import Model
from onnxq.ir.save import runnable, save
from onnxq.runtime.session import physical_threads
from onnxq.stats.checkpoint import Piece
from onnxq.stats.collect import collect
from onnxq.stats.statistics import Shape, Statistics

TASKS_PER_WORKER = 4
"""Tasks for each worker: more of them lose less when one dies and end more evenly, but each loads the model again."""

RETRIES = 3
"""Times that Dask runs a failed task again."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Workers that are started when they are needed.

    Attributes:
        workers: processes on this machine.
        cluster: address of a Dask scheduler, `tcp://scheduler:8786`, whose workers are used instead.
    """

    workers: int = 1
    cluster: str | None = None

    @contextlib.contextmanager
    def open(self) -> Iterator[tuple[Executor, int]]:
        """The executor and the number of tasks that it runs at a time.

        Raises:
            UsageError: the extra `onnxq[dask]` is not installed, or no scheduler answers.
        """
        if self.cluster is None:
            # spawn: a forked process would inherit the locks of ONNX Runtime's threads
            with ProcessPoolExecutor(
                self.workers, mp_context=get_context("spawn"), initializer=_ignore_interrupts
            ) as pool:
                yield pool, self.workers
            return
        with contextlib.closing(_client(self.cluster)) as client:
            slots = sum(client.nthreads().values())
            if not slots:
                raise UsageError(f"the Dask scheduler at {self.cluster} has no worker: start some with dask worker")
            executor: Executor = client.get_executor(retries=RETRIES, pure=False)
            with executor:
                yield executor, slots


def _client(address: str) -> Any:
    try:
        import distributed
    except ImportError as error:
        raise UsageError("--cluster needs Dask: pip install onnxq[dask]") from error
    try:
        connect: Any = distributed.Client  # untyped
        return connect(address, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"no Dask scheduler answers at {address} ({error}): check the address") from error


def _ignore_interrupts() -> None:
    """Ctrl-C reaches every process of the terminal; the parent ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One piece of the data.

    Attributes:
        model: a file that the worker can read.
        tensors, observers, allow_infinite, shapes, threads: as `collect` takes them.
        data: pickled Dataset, or function that opens it.
        start, stop: positions.
    """

    model: Path
    tensors: tuple[str, ...]
    observers: tuple[str, ...]
    allow_infinite: tuple[str, ...]
    shapes: Mapping[str, Shape]
    threads: int | None
    data: bytes
    start: int
    stop: int


def run_task(task: Task) -> Statistics:
    """What a worker does.

    Raises:
        CalibrationError: the worker does not see the model's file; whatever `collect` raises.
    """
    visible(task.model)
    return collect(
        _model(task.model),
        task.tensors,
        Piece(opened(task.data), task.start, task.stop),
        task.observers,
        threads=task.threads,
        allow_infinite=task.allow_infinite,
        shapes=task.shapes,
    )


@functools.lru_cache(maxsize=1)
def _model(path: Path) -> Model:
    return load(path)


def visible(model: Path) -> None:
    """Can this worker read the model?

    Raises:
        CalibrationError: it does not see the file.
    """
    if not model.is_file():
        raise CalibrationError(
            f"the worker on {socket.gethostname()} does not see {model}: let ONNXQ_CACHE_DIR name a folder that "
            "all machines share"
        )


@functools.lru_cache(maxsize=1)
def opened(pickled: bytes) -> Dataset:
    """The data set that `pickled` packed, on a worker."""
    found: Any = pickle.loads(pickled)
    made: Any = found() if callable(found) else found
    dataset: Dataset = made
    return dataset


def pickled(data: Dataset) -> bytes:
    """The data set as other processes can open it.

    Raises:
        UsageError: it cannot be sent.
    """
    try:
        return pickle.dumps(getattr(data, "recipe", None) or data)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{data.description} cannot be opened by other processes ({error}): name a file or module:function, or "
            "leave --workers out"
        ) from error


@contextlib.contextmanager
def shared_file(model: Model, folder: Path | None) -> Iterator[Path]:
    """The model as a file for the time of the run; in `folder`, if other machines must see it."""
    if folder is None:
        with runnable(model, embed_limit=0) as path:
            assert isinstance(path, Path)
            yield path
        return
    folder.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="model-", dir=folder))
    try:
        save(model, place / "model.onnx")
        yield place / "model.onnx"
    finally:
        shutil.rmtree(place, ignore_errors=True)


def split(gaps: Sequence[tuple[int, int]], slots: int) -> list[tuple[int, int]]:
    """Gaps cut into pieces of about equal length, `TASKS_PER_WORKER` for each slot.

    >>> split([(0, 10)], 1)
    [(0, 3), (3, 6), (6, 9), (9, 10)]
    """
    total = sum(stop - start for start, stop in gaps)
    size = max(1, -(-total // (TASKS_PER_WORKER * max(1, slots))))
    return [(at, min(at + size, stop)) for start, stop in gaps for at in range(start, stop, size)]


class Span(Protocol):
    """What any task says of itself: its positions in the data."""

    @property
    def start(self) -> int: ...

    @property
    def stop(self) -> int: ...


T = TypeVar("T", bound=Span)
R = TypeVar("R")


def run_all(
    executor: Executor,
    tasks: Sequence[T],
    add: Callable[[int, int, R], None],
    step: Callable[[int], None],
    run: Callable[[T], R],
    *,
    slots: int,
) -> None:
    """`run` all tasks on the workers and `add(start, stop, found)` as they end.

    Raises:
        CalibrationError: a worker process died, or what a task raised. What ended before is kept.
    """
    waiting = list(reversed(tasks))
    running: dict[Future[R], T] = {}
    try:
        # a few at a time: one that fails should not wait for all others
        while waiting or running:
            while waiting and len(running) < 2 * slots:
                task = waiting.pop()
                running[executor.submit(run, task)] = task
            done = next(as_completed(running))
            task = running.pop(done)
            add(task.start, task.stop, done.result())
            step(task.stop - task.start)
    except BrokenExecutor as error:
        raise CalibrationError(
            "a worker process died, perhaps for want of memory: try fewer --workers; with the cache on, the next run "
            "goes on from here"
        ) from error
    finally:
        for future in running:
            future.cancel()


def threads_each(threads: int | None, slots: int) -> int:
    """ORT threads of each of so many workers on one machine."""
    return max(1, (threads or physical_threads()) // slots)


def slots_of(executor: Executor) -> int:
    """Tasks that an executor of the standard library runs at a time."""
    return int(getattr(executor, "_max_workers", None) or os.cpu_count() or 1)
