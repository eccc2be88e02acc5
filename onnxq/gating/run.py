"""One run of the gate: measure what the limits ask for, and judge it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.config.gate import DriftLimit
from onnxq.config.job import Job
from onnxq.data.sample import Dataset
from onnxq.details import with_details
from onnxq.driver import evaluation_data, first_inputs
from onnxq.errors import DataError, UsageError
from onnxq.gating import accuracy, portability, resources, speed, structure
from onnxq.gating import baseline as baseline_file
from onnxq.gating.baseline import Baseline, Score
from onnxq.gating.causes import causes
from onnxq.ir.hash import model_hash
from onnxq.ir.load import load
from onnxq.progress import Progress, Silent
from onnxq.runtime.session import SIDE_BY_SIDE, Level, Session
from onnxq.validate.accuracy import Accuracy, Comparison, run_both
from onnxq.validate.coverage import Coverage, coverage
from onnxq.validate.gate import Check, Sizes, at_most, verdict
from onnxq.validate.latency import Latency, measure
from onnxq.validate.layers import Layers, layers
from onnxq.validate.result import Result, environment, file_bytes

Inputs = Mapping[str, NDArray[Any]]

DRIFT_DB = 3.0
"""Tolerated fall of a tensor's SQNR where a committed baseline is named and no limit: twice the noise."""

DRIFT_SAMPLES = 8
"""That tensors are compared on, where no limit says how many."""

LITERAL_SAMPLES = 4
"""Samples on which the fused candidate is compared with what its Q/DQ mean literally."""


@dataclass
class Run:
    """What one run of the gate holds together; each part is measured when it is asked for."""

    baseline: Path
    candidate: Path
    job: Job
    progress: Progress
    statistics: accuracy.Statistics
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    accuracy: Accuracy | None = None
    comparison: Comparison | None = None
    latency: tuple[Latency, ...] = ()

    @cached_property
    def data(self) -> Dataset:
        """The samples to judge with.

        Raises:
            UsageError: the job names none.
            DataError: they do not fit the model.
        """
        return evaluation_data(self.job, self.baseline)

    @cached_property
    def samples(self) -> list[Inputs]:
        """Inputs of the first few samples.

        Raises:
            UsageError, DataError: as for `data`; there is none.
        """
        found = first_inputs(self.data)
        if not found:
            raise DataError(f"{self.data.description} holds no sample to judge with: name another folder")
        return found

    @property
    def samples_if_any(self) -> list[Inputs]:
        """The same, or none if the job names no data."""
        return self.samples if self.job.data.eval is not None else []


def gate(
    baseline: Path,
    candidate: Path,
    job: Job,
    *,
    detail: bool = False,
    compare: Path | None = None,
    update_baseline: Path | None = None,
    progress: Progress | None = None,
) -> Result:
    """Judge a candidate against the limits of the job's gate section; measures only what they ask for.

    Args:
        baseline: the model to compare with, as a rule the float one.
        candidate: the model to judge.
        job: its data, validate and gate sections count.
        detail: the result also says layer by layer what was lost, and what it was made of.
        compare: a committed baseline to look for drift against, instead of the job's.
        update_baseline: where to write what was measured, for later runs to compare with.
        progress: shown meanwhile.

    Raises:
        OnnxqError: one sentence for whatever the user can mend.
        UsageError: no limit is given.
    """
    if not job.gate.demands:
        raise UsageError(
            "the gate has no limit to check: give --max-drop X, or --config with a file of limits or a job file that "
            "has a gate section"
        )
    run = Run(baseline, candidate, job, progress or Silent(), accuracy.Statistics.of(job.gate))
    given = run.samples_if_any  # data that was given must fit, even if no limit needs any
    sizes = Sizes(reference=file_bytes(baseline), candidate=file_bytes(candidate))
    if accuracy.asks_accuracy(job.gate):
        _accuracy(run)
    _speed(run)
    run.checks.extend(_size(run, sizes))
    _resources(run)
    committed = _committed(run, compare, update_baseline)
    covered = _coverage(run, committed, always=update_baseline is not None)
    if job.gate.structure is not None:
        run.checks.extend(structure.judge(baseline, candidate, job.gate.structure))
    if job.gate.portability is not None:
        variants = portability.judge(
            candidate, job, job.gate.portability, run.data, run.statistics, run.progress, run.notes
        )
        run.checks.extend(variants)
    now = _drift(run, committed, always=update_baseline is not None)
    if update_baseline is not None:
        _update(run, update_baseline, sizes, covered, now)
    why = causes(baseline, candidate, run.data, run.checks) if given else ()
    result = Result(
        command="gate",
        reference=baseline,
        candidate=candidate,
        sizes=sizes,
        accuracy=run.accuracy,
        latency=run.latency,
        coverage=covered,
        verdict=verdict(run.checks, why),
        notes=tuple(run.notes),
        environment=environment(),
    )
    return with_details(result, job, given, evaluation=run.data if given else None) if detail else result


def _accuracy(run: Run) -> None:
    """Both models as they are deployed, once over the samples, for all metrics."""
    job = run.job
    threads = job.validate.threads
    first, second = (Session(m, threads=threads, config=SIDE_BY_SIDE) for m in (run.baseline, run.candidate))
    sample = run.samples[0]
    value = next(iter(sample.values()), None)
    batch = int(value.shape[0]) if value is not None and np.ndim(value) else None
    plan = accuracy.plan(job, first.run(sample), batch)
    found = run_both(
        first,
        second,
        run.data,
        plan.metrics,
        limit=job.validate.limit,
        literal=Session(run.candidate, threads=threads, level=Level.OFF, config=SIDE_BY_SIDE),
        literal_samples=LITERAL_SAMPLES,
        progress=run.progress,
    )
    checks, results = accuracy.judge(plan, found, run.statistics)
    run.checks.extend(checks)
    run.comparison = found
    run.accuracy = found.accuracy(results[0] if results else None)


def _speed(run: Run) -> None:
    limit = run.job.gate.speed_limit
    if limit is None:
        return
    threads = limit.threads or run.job.validate.threads or 1
    with run.progress.task("measuring speed", 1) as step:
        latency = measure(
            run.baseline,
            run.candidate,
            run.samples,
            threads=threads,
            runs=limit.runs or run.job.validate.runs,
            warmup=limit.warmup,
            budget_seconds=limit.seconds,
            level=run.statistics.level,
        )
        step(1)
    run.latency = (latency,)
    run.checks.extend(speed.judge(latency, limit))


def _size(run: Run, sizes: Sizes) -> Iterator[Check]:
    limit = run.job.gate.size_limit
    if limit is None:
        return
    if limit.max_ratio is not None:
        yield at_most("size ratio", sizes.ratio, limit.max_ratio, " of the baseline's file", group="size")
    if limit.max_bytes is not None:
        yield at_most("size", sizes.candidate, limit.max_bytes, " bytes", group="size")


def _resources(run: Run) -> None:
    section = run.job.gate
    if section.memory is None and section.load is None:
        return
    probes = resources.measure(
        run.baseline,
        run.candidate,
        run.samples[0],
        section.load,
        threads=run.job.validate.threads or 1,
    )
    run.checks.extend(resources.judge(probes, section.memory, section.load, level=run.statistics.level))


def _committed(run: Run, compare: Path | None, update: Path | None) -> Baseline | None:
    """The committed baseline that the command line or the job names; none if it is about to be written anew."""
    limit = run.job.gate.drift
    path = compare or (limit.baseline if limit is not None else None)
    if path is None or (update is not None and path.resolve() == update.resolve()):
        return None
    return baseline_file.load(path)


def _coverage(run: Run, committed: Baseline | None, *, always: bool) -> Coverage | None:
    limit = run.job.gate.coverage
    if limit is None and not always:
        return None
    sample = next(iter(run.samples_if_any), None)
    found = coverage(run.candidate, sample=sample)
    if limit is not None:
        reference = coverage(run.baseline, sample=sample) if limit.no_new_float else None
        run.checks.extend(baseline_file.coverage_checks(found, limit, reference=reference, committed=committed))
    return found


def _drift(run: Run, committed: Baseline | None, *, always: bool) -> Layers | None:
    """Layers of this run, and their drift."""
    limit = run.job.gate.drift
    if limit is None and committed is not None:
        limit = DriftLimit(max_sqnr_drop_db=DRIFT_DB)
    if limit is None and not always:
        return None
    many = limit.samples if limit is not None else DRIFT_SAMPLES
    # a limit on samples spreads them: the same few are wanted whatever --samples says, or each number had its own drift
    whole = replace(run.job, validate=replace(run.job.validate, limit=None))
    data = evaluation_data(whole, run.baseline)
    samples = [s.inputs for s in itertools.islice(iter(data), many)]
    now = layers(run.baseline, run.candidate, samples, worst=0)
    run.notes.extend(now.notes)
    if limit is not None and committed is not None:
        run.checks.extend(baseline_file.drift(committed, now, _scores(run), limit))
    elif limit is not None and not always:
        raise UsageError(
            "the gate limits drift, but there is no committed baseline: give drift.baseline or --compare, and write "
            "the file with --update-baseline"
        )
    return now


def _scores(run: Run) -> dict[str, Score]:
    """Scores of the candidate."""
    if run.comparison is None:
        return {}
    return {
        name: Score(
            score=float(records.metric.score(records.arrays()[1])),
            samples=run.comparison.samples,
            higher_is_better=records.metric.higher_is_better,
        )
        for name, records in run.comparison.records.items()
    }


def _update(run: Run, path: Path, sizes: Sizes, covered: Coverage | None, now: Layers | None) -> None:
    assert covered is not None and now is not None
    baseline_file.save(
        Baseline(
            schema=baseline_file.SCHEMA,
            candidate=run.candidate.name,
            model_hash=model_hash(load(run.candidate, keep_overridable=True)),
            samples=run.comparison.samples if run.comparison is not None else 0,
            size=sizes.candidate,
            scores=_scores(run),
            tensors=baseline_file.tensors(now),
            integer_ops=tuple(o.name for o in covered.ops if o.integer),
            integer_macs=covered.mac_share,
            packages=dict(environment().packages),
        ),
        path,
    )
