"""What every command reads out of a job: its pipeline, its samples, and what quantization is told about both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onnxq.config.job import Job, Source
from onnxq.data.sample import Dataset, InputSpec
from onnxq.data.state import open_stateful
from onnxq.ir.load import declared_inputs
from onnxq.options import Options
from onnxq.pipeline.calibration import PipelineCalibration
from onnxq.pipeline.manager import Pipeline
from onnxq.pipeline.spec import load_pipeline
from onnxq.runtime.session import Level, Session
from onnxq.stats.calibrator import make_calibrators
from onnxq.stats.engine import Resources
from onnxq.targets.target import Target


def job_pipeline(job: Job) -> Pipeline:
    """The pipeline that a job names or lists, else that of its target.

    Raises:
        ConfigError, UnknownNameError: it cannot be read, or a pass of it is unknown.
    """
    named = list(job.pipeline) if isinstance(job.pipeline, tuple) else job.pipeline or job.target
    return load_pipeline(named, job.base)


def job_options(
    job: Job, target: Target, pipeline: Pipeline, calibration: PipelineCalibration, means: Resources
) -> Options:
    """What calibration and planning are told.

    Args:
        pipeline: the job's.
        calibration: the job's over the pipeline's.
        means: cache and workers.

    Raises:
        UsageError, UnknownNameError: faults of the method or its settings.
    """
    return Options(
        target=target,
        pipeline=pipeline,
        calibrators=make_calibrators(calibration.method, calibration.settings),
        weight_method=calibration.weights,
        keep_float=(*pipeline.keep_float, *job.keep_float),
        keep_overridable=job.keep_overridable,
        calib_limit=calibration.limit,
        threads=calibration.threads,
        feedback=calibration.feedback,
        resources=means,
    )


def input_specs(model: Path) -> tuple[InputSpec, ...]:
    """What a model takes, as its file says; ONNX Runtime is asked, which takes longer, where that leaves it open.

    Raises:
        ModelError: the file cannot be read.
    """
    declared = declared_inputs(model)
    if declared is not None:
        return tuple(InputSpec(name=name, dtype=dtype, shape=shape) for name, dtype, shape in declared)
    return Session(model, level=Level.OFF, threads=1, prepacking=False).inputs


def open_source(job: Job, source: Source, limit: int | None, specs: Sequence[InputSpec] | None = None) -> Dataset:
    """The samples of a source; of two limits the lower one. Opening with it spreads the samples, which are often
    sorted by class.

    Args:
        specs: what the samples have to fit; None: the job's model.

    Raises:
        DataError: they do not fit.
    """
    limits = [n for n in (source.limit, limit) if n is not None]
    return open_stateful(
        source.path,
        input_specs(job.model) if specs is None else specs,
        job.data.preprocess_of(source),
        state=job.calibration.feedback.values(),
        base=job.base,
        skip_bad=job.data.skip_bad,
        limit=min(limits, default=None),
    )
