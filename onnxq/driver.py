"""Puts the stages together for each command: opens files, runs the stages, gathers one `Result`. Prints nothing."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from onnxq.config.cache import resources
from onnxq.config.job import Job, Source
from onnxq.config.placing import Judged
from onnxq.data.sample import Dataset, InputSpec
from onnxq.details import with_details
from onnxq.errors import OutputError, UsageError, VerdictError
from onnxq.gathering import made_up_samples
from onnxq.ir.files import check_writable
from onnxq.ir.load import external_files, load_float
from onnxq.ir.model import Model
from onnxq.ir.save import save
from onnxq.jobs import input_specs, job_options, job_pipeline, open_source
from onnxq.judging import accounts, by_labels, check_met, forms, units
from onnxq.options import Options
from onnxq.pipeline.calibration import PipelineCalibration, over
from onnxq.pipeline.manager import Pipeline
from onnxq.placement.effort import EFFORTS
from onnxq.plan.plan import MEASURED
from onnxq.progress import Progress, Silent
from onnxq.quantization import Quantized, quantize_model
from onnxq.runtime.session import physical_threads
from onnxq.stats.ranges import RangeTable
from onnxq.stats.statistics import Statistics
from onnxq.targets.target import Target, load_target
from onnxq.validate.accuracy import Accuracy, compare
from onnxq.validate.coverage import coverage
from onnxq.validate.denormals import denormals
from onnxq.validate.gate import Sizes
from onnxq.validate.latency import Latency, measure
from onnxq.validate.metrics import Metric, load_metric
from onnxq.validate.remarks import elsewhere, lost, slow
from onnxq.validate.result import Result, environment, file_bytes
from onnxq.validate.summary import summarize

LATENCY_SAMPLES = 4
"""Sets of inputs that a latency measurement takes in turn."""

THIS_MACHINE = "cpu"
"""The target whose speed and kernels can be looked at here."""


def quantize(job: Job, *, detail: bool = False, progress: Progress | None = None) -> Result:
    """The main job: load, normalise, calibrate, plan, insert, save, validate.

    The file appears under its name when everything is done; until then it lies in a temporary folder beside it.
    With `detail`, the result says layer by layer what was lost, and what it was made of.

    Raises:
        OnnxqError: one sentence for whatever the user can mend; nothing is written then.
        VerdictError: `strict`, and a heavy op stayed float.
    """
    progress = progress or Silent()
    calib_source = job.data.calib
    if calib_source is None and job.statistics is None and job.ranges is None:
        raise UsageError("there is nothing to calibrate with: give --calib DATA, or data.calib in the job file")
    given = read_given(job)
    output = job.output or job.model.with_name(f"{job.model.stem}.int8.onnx")
    if output.resolve() == job.model.resolve():
        raise UsageError(f"the output {output} is the model itself: give another path with -o")
    check_writable(output)
    weights = {file.resolve() for file in external_files(job.model)} if job.model.is_file() else set()
    for written in (output, output.with_name(f"{output.name}.data")):
        if written.resolve() in weights:
            raise UsageError(
                f"the output would replace {written}, which holds the model's weights: give another with -o"
            )
    target = load_target(job.target, reduce_range=job.reduce_range, float_type=job.float_type)
    options, calibration = make_options(job, target)
    job = replace(job, calibration=replace(job.calibration, feedback=calibration.feedback))
    options = replace(options, pipeline=_complete(options.pipeline, job, calib_source, calibration), given=given)
    metric = job_metric(job)
    model = load_float(job.model, keep_overridable=job.keep_overridable)
    specs = input_specs(job.model)
    calib = open_source(job, calib_source, calibration.limit, specs) if calib_source is not None else None
    labelled = job.data.eval
    evaluation = open_source(job, labelled, job.validate.limit, specs) if labelled is not None else None
    options = replace(options, judge=_judge(job, metric, specs), sweep=detail)
    made = quantize_model(model, calib, options, progress=progress, crash=output.with_name(f"{output.name}.crash"))
    try:
        folder = tempfile.TemporaryDirectory(prefix=".onnxq-", dir=output.parent)
    except OSError as error:
        raise OutputError(
            f"nothing can be written in {output.parent} ({error.strerror}): give another path with -o"
        ) from error
    with folder as name:
        file = Path(name) / output.name
        with made.timing.stage("save"):
            _save(made.model, file, output)
        result = replace(_checked(job, file, made, calib, evaluation, metric, progress), candidate=output)
        if detail:
            data = evaluation if evaluation is not None else calib
            samples = first_inputs(data) if data is not None else []
            result = with_details(
                result, job, samples, file=file, calib=calib, evaluation=evaluation, pipeline=options.pipeline,
                statistics=made.statistics,
            )  # fmt: skip
        result = replace(result, pareto=forms(made), placement=units(made), account=accounts(made, result.latency))
        result = replace(result, repairs=made.repaired)
        unmet = job.placement.stated and made.met is not None and not made.met.holds
        if unmet and not job.placement.keep_best:
            check_met(made)
        # weights first: a model without its weights is the worse of the two to find after a crash
        for part in sorted(Path(name).iterdir(), key=lambda p: p == file):
            part.replace(output.parent / part.name)
    if unmet:
        check_met(made)
    return result


def _judge(job: Job, metric: Metric | None, specs: Sequence[InputSpec]) -> Callable[[Model], Judged] | None:
    """By labels, where there are some and the effort allows it."""
    labelled = job.data.eval
    if metric is None or labelled is None or (job.placement.effort == "fast" and job.placement.max_drop is None):
        if job.placement.max_drop is not None:
            raise UsageError("a limit on the drop needs labelled samples and a metric: give --eval DATA and --metric")
        return None
    return by_labels(job, metric, lambda limit: open_source(job, labelled, limit or job.validate.limit, specs))


def make_options(job: Job, target: Target) -> tuple[Options, PipelineCalibration]:
    """What quantization is told, from the job and its pipeline, and how ranges are found.

    Raises:
        UsageError, ConfigError, UnknownNameError: faults of the pipeline, the method or its settings.
    """
    pipeline = job_pipeline(job)
    if pipeline.target not in (None, job.target):
        raise UsageError(
            f"the pipeline {pipeline.name} is for the target {pipeline.target}, the job for {job.target}: "
            f"give --target {pipeline.target}"
        )
    calibration = over(job.calibration, pipeline.calibration)
    placing = job.placement.placing(target.name, job.validate.threads)
    options = replace(
        job_options(job, target, pipeline, calibration, resources(calibration)),
        placing=placing,
        budget=job.placement.budget(),
        smallest=job.placement.optimize == "size",
        repairing=job.repair.repairing(job.placement.effort, by_cost=placing is not None),
    )
    return options, calibration


def read_given(job: Job) -> Statistics | RangeTable | None:
    """The statistics or ranges that stand in for a calibration.

    Raises:
        UsageError, CalibrationError, ConfigError: both; ranges and a method; a file that cannot be read.
    """
    if job.statistics is not None and job.ranges is not None:
        raise UsageError("statistics and ranges are both given: leave --statistics or --ranges out")
    if job.statistics is not None:
        return Statistics.load(job.statistics)
    if job.ranges is None:
        return None
    if job.calibration.method is not None:
        raise UsageError(
            f"{job.ranges} holds ranges, which no method changes: leave --method out, or give --statistics"
        )
    return RangeTable.load(job.ranges)


def _save(model: Model, file: Path, output: Path) -> None:
    """Save to a temporary file; an error names the output, which is what the user knows."""
    try:
        save(model, file)
    except OutputError as error:
        raise OutputError(str(error).replace(str(file.parent), str(output.parent))) from error


def _complete(pipeline: Pipeline, job: Job, calib: Source | None, calibration: PipelineCalibration) -> Pipeline:
    """The pipeline with all that the job says, as a crash folder must hold it."""
    told = calibration
    if calib is not None:
        limits = [n for n in (calib.limit, calibration.limit) if n is not None]
        told = replace(told, data=calib.path, preprocess=job.data.preprocess_of(calib), limit=min(limits, default=None))
    keep = (*pipeline.keep_float, *job.keep_float)
    return replace(pipeline, target=job.target, calibration=told, keep_float=keep, base=job.base)


def _checked(
    job: Job,
    file: Path,
    made: Quantized,
    calib: Dataset | None,
    evaluation: Dataset | None,
    metric: Metric | None,
    progress: Progress,
) -> Result:
    """Coverage, accuracy and speed of a file that was just written."""
    data = evaluation if evaluation is not None else _compared(job, calib, metric)
    samples = first_inputs(data) if data is not None else [s.inputs for s in made_up_samples(made.model)]
    with made.timing.stage("coverage"):
        found = coverage(file, sample=samples[0] if samples else None)
    stuck = [op for op in found.heavy_float if not op.reason.startswith(MEASURED)]
    if job.strict and stuck:
        first = stuck[0]
        raise VerdictError(
            f"--strict: {len(stuck)} of {found.heavy_total} heavy ops stay float, the first "
            f"is {first.op} {first.name} "
            f"({first.reason}): mend the reason, or leave --strict out"
        )
    accuracy: Accuracy | None = None
    latency: tuple[Latency, ...] = ()
    if job.validate.enabled and data is not None:
        with made.timing.stage("validate"):
            accuracy = job_accuracy(job, job.model, file, data, metric, progress)
    if job.validate.enabled and job.validate.speed and samples:
        with made.timing.stage("measure speed"):
            latency = job_latency(job, job.model, file, samples, progress)
    notes = [*made.notes, *(calib.skipped if calib is not None else ())]
    if latency:
        notes.extend(denormals(job.model, latency, samples[0]))
    if data is None and job.validate.enabled:
        notes.append("No samples were given: nothing was compared with the float model; give --eval or --calib.")
    if evaluation is None and accuracy is not None:
        notes.append(
            "There is no evaluation data: accuracy was measured on the calibration samples, which flatters it."
        )
    return Result(
        command="quantize",
        reference=job.model,
        candidate=file,
        target=job.target,
        method=made.method,
        calibration=_told(job, calib),
        sizes=Sizes(reference=file_bytes(job.model), candidate=file_bytes(file)),
        accuracy=accuracy,
        latency=latency,
        coverage=found,
        notes=(
            *notes,
            *lost(accuracy),
            *(slow(latency, found) if job.target == THIS_MACHINE else elsewhere(job.target)),
        ),
        passes=tuple((s.name, s.report.rewrites, dict(s.report.reasons)) for s in made.run.steps),
        seconds=dict(made.timing.seconds),
        environment=environment(),
    )


def validate(
    reference: Path, candidate: Path, job: Job, *, detail: bool = False, progress: Progress | None = None
) -> Result:
    """Two forms of one model side by side: accuracy, speed, size, coverage; with `detail` as `quantize`.

    Raises:
        OnnxqError: one sentence for whatever the user can mend.
    """
    progress = progress or Silent()
    metric = job_metric(job)
    data = evaluation_data(job, reference)
    samples = first_inputs(data)
    accuracy = job_accuracy(job, reference, candidate, data, metric, progress)
    latency = job_latency(job, reference, candidate, samples, progress) if job.validate.speed else ()
    notes = (*lost(accuracy), *denormals(reference, latency, samples[0]))
    found = coverage(candidate, sample=samples[0])
    result = Result(
        command="validate",
        reference=reference,
        candidate=candidate,
        sizes=Sizes(reference=file_bytes(reference), candidate=file_bytes(candidate)),
        accuracy=accuracy,
        latency=latency,
        coverage=found,
        notes=(*notes, *slow(latency, found)),
        environment=environment(),
    )
    return with_details(result, job, samples, evaluation=data) if detail else result


def inspect(path: Path, *, progress: Progress | None = None) -> Result:  # noqa: ARG001 (same form as the others)
    """What a model is made of; for a quantized one, what is int8 and what is float, and why.

    Raises:
        ModelError: it cannot be read.
    """
    return Result(command="inspect", reference=path, model=summarize(path), environment=environment())


def evaluation_data(job: Job, model: Path) -> Dataset:
    """The samples to judge with, in the form that `model` takes.

    Raises:
        UsageError: the job names none.
        DataError: they do not fit the model.
    """
    if job.data.eval is None:
        raise UsageError("there is nothing to compare the models on: give --data DATA, or data.eval in the job file")
    return open_source(job, job.data.eval, job.validate.limit, input_specs(model))


def job_metric(job: Job) -> Metric | None:
    """The labelled score that the job names, if any."""
    return None if job.validate.metric is None else load_metric(job.validate.metric, job.base)


def _compared(job: Job, calib: Dataset | None, metric: Metric | None) -> Dataset | None:
    """What is compared on without evaluation data: the calibration data, or as much of it as the effort asks for."""
    few = EFFORTS[job.placement.effort].checked_samples
    whole = calib is None or metric is not None or job.calibration.feedback or few is None or len(calib) <= few
    return calib if whole or job.data.calib is None else open_source(job, job.data.calib, few)


def _told(job: Job, calib: Dataset | None) -> str:
    given = job.statistics or job.ranges
    if given is not None:
        return f"{'statistics' if job.statistics else 'ranges'} of {given}"
    return "" if calib is None else _described(calib)


def _described(data: Dataset) -> str:
    """What the samples are, and how pictures and texts were prepared, since that is half of a good calibration."""
    summary = data.preprocess_summary
    plain = summary.startswith(("arrays as", "tensors as", "as the"))
    return data.description if plain else f"{data.description} ({summary})"


def first_inputs(data: Dataset) -> list[Mapping[str, NDArray[Any]]]:
    """Inputs of the first few samples, LATENCY_SAMPLES at most."""
    return [s.inputs for s in itertools.islice(iter(data), LATENCY_SAMPLES)]


def job_accuracy(
    job: Job, reference: Path, candidate: Path, data: Dataset, metric: Metric | None, progress: Progress
) -> Accuracy:
    """Both models over the samples, as the job's validate section says."""
    return compare(
        reference,
        candidate,
        data,
        metric,
        metric_name=job.validate.metric or "",
        threads=job.validate.threads,
        limit=job.validate.limit,
        progress=progress,
    )


def job_latency(
    job: Job, reference: Path, candidate: Path, samples: Sequence[Mapping[str, NDArray[Any]]], progress: Progress
) -> tuple[Latency, ...]:
    """With the threads that were asked for, else with one and with all."""
    asked = job.validate.threads
    counts = [asked] if asked is not None else sorted({1, physical_threads()})
    out: list[Latency] = []
    with progress.task("measuring speed", len(counts)) as step:
        for threads in counts:
            out.append(
                measure(
                    reference,
                    candidate,
                    samples,
                    threads=threads,
                    runs=job.validate.runs,
                    warmup=job.validate.warmup,
                    budget_seconds=EFFORTS[job.placement.effort].speed_seconds,
                )
            )
            step(1)
    return tuple(out)
