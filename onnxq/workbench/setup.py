"""From what a command was told to a loaded model, a pipeline and a context: what run, explain and bisect begin with."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from onnxq.config.cache import resources
from onnxq.data.preprocess import Preprocess
from onnxq.data.sample import Dataset
from onnxq.data.state import open_stateful
from onnxq.errors import DataError, ModelError, UsageError
from onnxq.gathering import unmatched
from onnxq.ir.load import is_quantized, load
from onnxq.ir.model import Model
from onnxq.ir.shapes import infer
from onnxq.options import Options, Timing
from onnxq.pipeline.base import Context, Stage
from onnxq.pipeline.calibration import CalibrationSection, over
from onnxq.pipeline.manager import Pipeline, Step
from onnxq.pipeline.prepare import describe, made_up_inputs, prepare
from onnxq.pipeline.spec import load_pipeline
from onnxq.pipeline.write import DEFAULT_TARGET
from onnxq.progress import Progress, Silent
from onnxq.provider import PlanProvider
from onnxq.runtime.session import Level, Session
from onnxq.stats.calibrator import make_calibrators
from onnxq.targets.target import Target, load_target

SAMPLES = 2
"""Calibration samples that passes are verified on."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a command was told; what it was not told, the pipeline says.

    Attributes:
        pipeline: registered name or file.
        model: the file.
        calib: samples to calibrate with, relative to the current folder; None: those that the pipeline names.
        target: None: the pipeline's.
        calibration: method, weights, limit, threads.
        preprocess: single settings over the pipeline's.
        keep_float: patterns, besides the pipeline's.
        keep_overridable: leave initializers that are also graph inputs overridable.
        skip_bad: leave damaged files out.
    """

    pipeline: str
    model: Path
    calib: str | None = None
    target: str | None = None
    calibration: CalibrationSection = field(default_factory=CalibrationSection)
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    keep_float: tuple[str, ...] = ()
    keep_overridable: bool = False
    skip_bad: bool = False


@dataclass(kw_only=True)
class Work:
    """Everything is there and no pass has run.

    Attributes:
        model: whose graph the passes edit.
        pipeline: with what the command said put over it.
        context: for the passes.
        provider: of the plan; None without calibration samples.
        samples: inputs to compare on: calibration samples, else made-up ones.
        timing: so far `load` and `convert`.
        reproduce: makes the same model again.
    """

    model: Model
    pipeline: Pipeline
    context: Context
    provider: PlanProvider | None
    samples: list[Mapping[str, NDArray[Any]]]
    timing: Timing
    reproduce: Callable[[], Model]


def read_pipeline(request: Request, *, plan: bool = True) -> tuple[Pipeline, Target]:
    """The pipeline with the request over it, and its target; reads no model.

    Args:
        plan: passes that need a plan will run, so samples must be named.

    Raises:
        ConfigError, UnknownNameError: faults of the pipeline.
        UsageError: it needs calibration samples, and nobody names any.
    """
    pipeline = load_pipeline(request.pipeline)
    calibration = over(request.calibration, pipeline.calibration)
    if request.calib is not None:
        calibration = replace(calibration, data=request.calib)
        pipeline = replace(pipeline, base=Path())
    if request.preprocess:
        given = Preprocess.from_mapping(request.preprocess)
        changed = {name: getattr(given, name) for name in request.preprocess}
        calibration = replace(calibration, preprocess=replace(calibration.preprocess, **changed))
    if plan and "plan" in pipeline.needs and calibration.data is None:
        first = next(step.name for step in pipeline.steps if "plan" in step.body.needs)
        raise UsageError(f'pass "{first}" needs a plan, which is made from samples: give --calib DATA')
    name = request.target or pipeline.target or DEFAULT_TARGET
    keep = (*pipeline.keep_float, *request.keep_float)
    return replace(pipeline, calibration=calibration, keep_float=keep, target=name), load_target(name)


def set_up(request: Request, *, steps: tuple[Step, ...] | None = None, progress: Progress | None = None) -> Work:
    """Read the pipeline, then the model, then open the samples.

    Args:
        steps: instead of the pipeline's.

    Raises:
        OnnxqError: one sentence for whatever the user can mend.
    """
    pipeline, target = read_pipeline(request, plan=steps is None)
    if steps is not None:
        pipeline = replace(pipeline, steps=steps)
    timing = Timing()
    with timing.stage("load"):
        model = load(request.model, keep_overridable=request.keep_overridable)
    found = is_quantized(model.graph)
    _check_stage(pipeline, request.model, found)
    data = _open(request, pipeline)
    samples = [s.inputs for s in itertools.islice(iter(data), SAMPLES)] if data is not None else _made_up(model)
    unused = unmatched(model.graph, pipeline.keep_float)

    def ready(loaded: Model) -> Model:
        if found:  # the converter does not know all quantized forms
            describe(loaded.graph, infer(loaded))
            return loaded
        first = samples[0] if samples else None
        return prepare(loaded, target, first, keep_overridable=request.keep_overridable)

    with timing.stage("convert"):
        model = ready(model)
    context = Context(target=target, keep_float=pipeline.keep_float, keep_overridable=request.keep_overridable)
    provider: PlanProvider | None = None
    if data is not None and "plan" in pipeline.needs:
        options = Options(
            target=target,
            pipeline=pipeline,
            calibrators=make_calibrators(pipeline.calibration.method, pipeline.calibration.settings),
            weight_method=pipeline.calibration.weights,
            keep_float=pipeline.keep_float,
            keep_overridable=request.keep_overridable,
            calib_limit=pipeline.calibration.limit,
            threads=pipeline.calibration.threads,
            feedback=pipeline.calibration.feedback,
            resources=resources(pipeline.calibration),
        )
        provider = PlanProvider(model, data, options, unused=unused, timing=timing, progress=progress or Silent())
        context.providers = {"plan": provider}
    return Work(
        model=model,
        pipeline=pipeline,
        context=context,
        provider=provider,
        samples=samples,
        timing=timing,
        reproduce=lambda: ready(load(request.model, keep_overridable=request.keep_overridable)),
    )


def _check_stage(pipeline: Pipeline, model: Path, found: list[str]) -> None:
    if not pipeline.steps:
        return
    starts = pipeline.starts
    first = pipeline.steps[0]
    if found and set(starts) == {Stage.FLOAT}:
        refusing = next((s for s in pipeline.steps if set(s.body.stages()) == {Stage.FLOAT}), first)
        raise ModelError(
            f"{model} is quantized already (it has {', '.join(found)}), and the pass {refusing.name} takes a float "
            "model: give the float model, or a pipeline for quantized ones, like import"
        )
    if not found and starts and Stage.FLOAT not in starts:
        refusing = next((s for s in pipeline.steps if Stage.FLOAT not in s.body.stages()), first)
        raise ModelError(
            f"{model} is a float model, and the first pass, {refusing.name}, takes a quantized one "
            f"(stage {refusing.body.takes.value}): give a quantized model, or put insert-qdq first"
        )


def _open(request: Request, pipeline: Pipeline) -> Dataset | None:
    calibration = pipeline.calibration
    if calibration.data is None:
        return None
    try:
        return open_stateful(
            calibration.data,
            Session(request.model, level=Level.OFF, threads=1, prepacking=False).inputs,
            calibration.preprocess,
            state=calibration.feedback.values(),
            base=pipeline.base,
            skip_bad=request.skip_bad,
            limit=calibration.limit,
        )
    except DataError:
        if "plan" in pipeline.needs or request.calib is not None:
            raise
        return None  # the passes can do without


def _made_up(model: Model) -> list[Mapping[str, NDArray[Any]]]:
    try:
        return [made_up_inputs(model)]
    except ValueError:
        return []
