"""Statistics of a model as files: collect, turn into ranges, merge, compare."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

from onnxq import registry
from onnxq.config.cache import resources
from onnxq.config.job import Job
from onnxq.data.open import open_dataset
from onnxq.data.sample import Dataset
from onnxq.errors import CalibrationError, UsageError
from onnxq.gathering import Gathering
from onnxq.ir.files import check_writable
from onnxq.ir.load import external_files
from onnxq.jobs import job_pipeline, open_source
from onnxq.pipeline.calibration import over
from onnxq.pipeline.manager import Pipeline
from onnxq.progress import Progress, Silent
from onnxq.stats.cache import Cache, Request, changed_since, digest, file_digest, folder_digest
from onnxq.stats.calibrator import AUTO, make_calibrators
from onnxq.stats.checkpoint import SECONDS
from onnxq.stats.engine import Outcome
from onnxq.stats.ranges import RangeTable, make_ranges
from onnxq.stats.statistics import Statistics
from onnxq.targets.target import load_target
from onnxq.workbench.planning import ready


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """What `onnxq calibrate` found.

    Attributes:
        outcome: statistics, and how they were come by.
        data: the samples in words.
        seconds: of all, loading included.
        notes: sentences for the user.
    """

    outcome: Outcome
    data: str
    seconds: float
    notes: tuple[str, ...]


def calibrate(
    job: Job, output: Path | None, *, progress: Progress | None = None, seconds: float = SECONDS
) -> Calibrated:
    """Statistics of every tensor whose range the plan for the job's target may ask for, after the same normalising
    passes as `onnxq quantize`, so that its names and its hash fit.

    Args:
        job: model, samples, target, pipeline, calibration.
        output: where the statistics go; None: only into the cache.
        seconds: between two checkpoints.

    Raises:
        OnnxqError: one sentence for whatever the user can mend.
    """
    begun, date = time.monotonic(), time.time()
    source = job.data.calib
    if source is None:
        raise UsageError("there is nothing to calibrate with: give --calib DATA, or data.calib in the job file")
    if output is not None:
        check_writable(output)
    # a pipeline of the user's own may include files that nobody lists
    direct = job.pipeline is None or job.pipeline in registry.names(registry.PIPELINES)
    pipeline = job_pipeline(job)
    calibration = over(job.calibration, pipeline.calibration)
    job = replace(job, calibration=replace(job.calibration, feedback=calibration.feedback))
    means = replace(resources(calibration), seconds=seconds)
    asked = means.cache.key("calibrate", _asked(job)) if means.cache is not None and direct else None
    known = _recall(job, means.cache, asked)
    if known is not None:
        if output is not None:
            known.save(output)
        cached = Outcome(statistics=known, ran=0, cached=True)
        return Calibrated(outcome=cached, data=source.path, seconds=time.monotonic() - begun, notes=())
    data = open_source(job, source, calibration.limit)
    begin = ready(job, data, pipeline, calibration, means, progress or Silent(), Gathering)
    begin.provider.gather(begin.graph)
    outcome = begin.provider.outcome
    assert outcome is not None
    if output is not None:
        outcome.statistics.save(output)
    if means.cache is not None and asked is not None and outcome.key is not None:
        request = _request(job, pipeline, data, outcome.key, date)
        if request is not None:
            means.cache.remember(asked, request)
    return Calibrated(
        outcome=outcome, data=data.description, seconds=time.monotonic() - begun, notes=(*begin.notes, *data.skipped)
    )


# the same command again


def _asked(job: Job) -> list[str]:
    """Everything that the job says about a calibration, in words."""
    heart = replace(job, output=None, base=Path(), gate=type(job.gate)(), validate=type(job.validate)())
    calibration = replace(job.calibration, threads=None, workers=None, cluster=None)
    return [repr(replace(heart, calibration=calibration, model=job.model.resolve())), str(job.base.resolve())]


def _request(job: Job, pipeline: Pipeline, data: Dataset, entry: str, date: float) -> Request | None:
    """What the command read. None if that changed since the command began, or cannot be told."""
    assert job.data.calib is not None
    path = (job.base / Path(job.data.calib.path).expanduser()).resolve()
    told: Any = data
    files = {job.model.resolve(), *(f.resolve() for f in external_files(job.model)), *_code(pipeline)}
    functions: dict[str, str] = {}
    try:
        if hasattr(data, "identity"):
            files.update(file.resolve() for file in told.identity()[1])
        elif hasattr(data, "digest"):
            functions[job.data.calib.path] = _function_digest(job)
        else:
            return None
        if changed_since(date, files):
            return None
        return Request(
            files={str(file): file_digest(file) for file in sorted(files)},
            folders={str(path): folder_digest(path)} if path.is_dir() else {},
            functions=functions,
            entry=entry,
        )
    except OSError:
        return None


def _recall(job: Job, cache: Cache | None, asked: str | None) -> Statistics | None:
    """The statistics of this very command, if everything that it read is as it was."""
    found = cache.recall(asked) if cache is not None and asked is not None else None
    if cache is None or found is None or not found.holds():
        return None
    if any(_function_digest(job) != seen for seen in found.functions.values()):
        return None
    return cache.get(found.entry)


def _function_digest(job: Job) -> str:
    source = job.data.calib
    assert source is not None
    limits = [n for n in (source.limit, job.calibration.limit) if n is not None]
    made: Any = open_dataset(source.path, (), base=job.base, limit=min(limits, default=None))
    return digest("function", made.digest())


def _code(pipeline: Pipeline) -> list[Path]:
    """The source of onnxq and of every package whose passes and calibrators take part."""
    import importlib

    bodies = [type(step.body) for step in pipeline.steps]
    bodies += [registry.load(registry.CALIBRATORS, name) for name in registry.names(registry.CALIBRATORS)]
    out: list[Path] = []
    for name in sorted({"onnxq", *(body.__module__.partition(".")[0] for body in bodies)}):
        file = importlib.import_module(name).__file__
        if file is not None:
            at = Path(file).resolve()
            package = [p for kind in ("*.py", "*.yaml") for p in at.parent.rglob(kind)]
            out += package if at.name == "__init__.py" else [at]
    return out


# files of statistics and ranges


def ranges(
    statistics: Path, method: str, settings: Mapping[str, Any], target: str, *, reduce_range: bool | None = None
) -> tuple[RangeTable, list[str]]:
    """The ranges that a method chooses for the activations of a target, and sentences for the user.

    Raises:
        UsageError: the method is auto.
        OnnxqError: one sentence for whatever the user can mend.
    """
    if method == AUTO:
        raise UsageError("the method auto compares models on samples: name one method, such as --method mixed")
    (calibrator,) = make_calibrators(method, settings).values()
    scheme = load_target(target, reduce_range=reduce_range).activation
    found, notes = Statistics.load(statistics), []
    if found.tensors and not found.around:
        notes.append(
            f"{statistics} does not tell what stands around its tensors, so onnxq quantize may take other ranges: "
            "collect it again with onnxq calibrate."
        )
    return make_ranges(found, method, settings, calibrator, scheme), notes


def merge(parts: Sequence[Path], output: Path) -> Statistics:
    """Statistics of all samples of several files, as if they had been collected in one run.

    Raises:
        CalibrationError: they belong to different models, or hold different observers.
        OutputError: the result cannot be written.
    """
    check_writable(output)

    def add(one: Statistics, path: Path) -> Statistics:
        other = Statistics.load(path)
        try:
            return one.merge(other)
        except CalibrationError as error:
            raise CalibrationError(f"{path} does not fit to {parts[0]}: {error}") from error

    merged = reduce(add, parts[1:], Statistics.load(parts[0]))
    merged.save(output)
    return merged
