"""The samples on other processes: each task is some of them and all trials, and gives rows for each sample."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from onnxq.data.sample import Dataset
from onnxq.errors import UsageError
from onnxq.ir.load import load
from onnxq.sensitivity.forward import Forward
from onnxq.sensitivity.measure import Rows, Trial, choose, measure
from onnxq.sensitivity.switches import Instrumented
from onnxq.stats.cache import default_folder
from onnxq.stats.parallel import (
    Pool,
    opened,
    pickled,
    run_all,
    shared_file,
    slots_of,
    split,
    threads_each,
    visible,
)
from onnxq.validate.metrics import Metric, load_metric


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """A metric, and where a worker finds it.

    Attributes:
        metric: as loaded.
        name: as the user wrote it.
        base: folder that the name is relative to.
    """

    metric: Metric
    name: str
    base: Path = Path()

    def sent(self) -> bytes:
        """For `_metric`: by value, or by name where the class lives in a file that is no module.

        Raises:
            UsageError: it can be sent neither way.
        """
        if ".py:" in self.name:
            return pickle.dumps((self.name, self.base.resolve()))
        try:
            return pickle.dumps(self.metric)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise UsageError(
                f'metric "{self.name}" cannot be used by other processes ({error}): name it module:Class, or leave '
                "--workers out"
            ) from error


@dataclass(frozen=True, kw_only=True)
class Task:
    """Some samples.

    Attributes:
        model: the instrumented model, a file that the worker can read.
        rest: pickled, everything else of it.
        trials, threads: as `measure` takes them.
        data: pickled Dataset, or function that opens it.
        positions: in the data.
        start, stop: in the list of all positions.
        scoring: pickled metric or reference, and its name.
    """

    model: Path
    rest: bytes
    trials: tuple[Trial, ...]
    threads: int | None
    data: bytes
    positions: tuple[int, ...]
    start: int
    stop: int
    scoring: tuple[bytes, str] | None


def run_task(task: Task) -> Rows:
    """What a worker does.

    Raises:
        CalibrationError: the worker does not see the model's file.
        OnnxqError: whatever `measure` raises.
    """
    visible(task.model)
    made = _instrumented(task.model, task.rest)
    return measure(
        made,
        task.trials,
        choose(opened(task.data), task.positions),
        metric=None if task.scoring is None else _metric(task.scoring[0]),
        metric_name="" if task.scoring is None else task.scoring[1],
        forward=_forward(task.model, task.rest, task.threads),
    )


@functools.lru_cache(maxsize=1)
def _instrumented(path: Path, rest: bytes) -> Instrumented:
    return Instrumented(model=load(path, keep_overridable=True), **pickle.loads(rest))


@functools.lru_cache(maxsize=1)
def _forward(path: Path, rest: bytes, threads: int | None) -> Forward:
    return Forward(_instrumented(path, rest), threads=threads)


@functools.lru_cache(maxsize=1)
def _metric(sent: bytes) -> Metric:
    found: Any = pickle.loads(sent)
    metric: Metric = load_metric(*found) if isinstance(found, tuple) else found
    return metric


def measure_elsewhere(
    made: Instrumented,
    trials: Sequence[Trial],
    data: Dataset,
    positions: Sequence[int],
    executor: Executor | Pool,
    *,
    scoring: Scoring | None = None,
    threads: int | None = None,
    folder: Path | None = None,
    tick: Callable[[int], None] = lambda _: None,
) -> Rows:
    """`measure` of the samples at these positions, by workers; the same to the bit, however many there are.

    Args:
        folder: where other machines see the model; None: the cache's default.

    Raises:
        UsageError: the samples or the metric cannot be opened by other processes.
        CalibrationError: a worker died.
    """
    everywhere = isinstance(executor, Pool) and executor.cluster is not None
    seen = (folder or default_folder()) / "models" if everywhere else None
    pool_of = executor.open() if isinstance(executor, Pool) else nullcontext((executor, slots_of(executor)))
    rest = pickle.dumps({f.name: getattr(made, f.name) for f in fields(made) if f.name != "model"})
    sent = pickled(data)
    judge = None if scoring is None else (scoring.sent(), scoring.name)
    found: dict[int, Rows] = {}
    with shared_file(made.model, seen) as path, pool_of as (pool, slots):
        tasks = [
            Task(
                model=path.resolve(),
                rest=rest,
                trials=tuple(trials),
                # Dask gives each of a worker's threads a task
                threads=threads or 1 if everywhere else threads_each(threads, slots),
                data=sent,
                positions=tuple(positions[start:stop]),
                start=start,
                stop=stop,
                scoring=judge,
            )
            for start, stop in split([(0, len(positions))], slots)
        ]
        run_all(
            pool,
            tasks,
            lambda start, _stop, rows: found.__setitem__(start, rows),
            lambda samples: tick(samples * len(trials)),
            run_task,
            slots=slots,
        )
    return Rows.join([found[start] for start in sorted(found)])
