"""From a loaded model and samples to the Q/DQ graph: convert, normalise, calibrate, plan, insert. The stages know nothing of each other."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq import registry
from onnxq.data.sample import Dataset, Sample
from onnxq.encoding import Scheme
from onnxq.errors import ConfigError, DataError, ModelError, did_you_mean
from onnxq.ir.load import is_quantized, load
from onnxq.ir.model import Model
from onnxq.ir.opset import convert
from onnxq.ir.save import runnable
from onnxq.pipeline.base import Context
from onnxq.pipeline.manager import Hook, Pipeline, Run, run_pipeline
from onnxq.plan.plan import Plan
from onnxq.plan.planner import make_plan, wanted
from onnxq.progress import Progress, Silent
from onnxq.runtime.session import Level, Session
from onnxq.stats.calibrator import Calibrator
from onnxq.stats.collect import collect, observe_shapes
from onnxq.stats.statistics import Statistics
from onnxq.stats.taps import mask_tensors
from onnxq.stats.weights import WeightMethod, weight_range
from onnxq.targets.target import Target

DECISIONS = "onnxq.decisions"
"""Metadata property of a written model: JSON, node name -> reason why it is float."""


@dataclass
class Timing:
    """Seconds by stage, in the order they ran."""

    seconds: dict[str, float] = field(default_factory=dict)

    def stage(self, name: str) -> _Stage:
        """`with timing.stage("calibrate"): ...`"""
        return _Stage(self, name)


class _Stage:
    def __init__(self, timing: Timing, name: str) -> None:
        self.timing, self.name = timing, name

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.timing.seconds[self.name] = self.timing.seconds.get(self.name, 0.0) + time.perf_counter() - self.start


@dataclass(frozen=True, kw_only=True)
class Options:
    """What quantization itself is told (the job says more: where files lie, how to validate).

    Attributes:
        target: as loaded.
        pipeline: passes to run.
        calibrator: turns statistics into ranges.
        weight_method: range of weights, `max` or `mse`.
        keep_float: shell patterns on node names, op types and output names.
        keep_overridable: leave initializers that are graph inputs overridable.
        calib_limit: calibration samples at most.
        threads: of ORT while calibrating.
    """

    target: Target
    pipeline: Pipeline
    calibrator: Calibrator
    weight_method: WeightMethod = "max"
    keep_float: tuple[str, ...] = ()
    keep_overridable: bool = False
    calib_limit: int | None = None
    threads: int | None = None


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """A Q/DQ model in memory and how it came about."""

    model: Model
    plan: Plan
    statistics: Statistics
    run: Run
    timing: Timing
    notes: tuple[str, ...]


class CalibratedRanges:
    """What planning asks of calibration: statistics seen through a calibrator."""

    def __init__(self, statistics: Statistics, calibrator: Calibrator, weight_method: WeightMethod) -> None:
        self.statistics = statistics
        self.calibrator = calibrator
        self.weight_method: WeightMethod = weight_method
        self._cache: dict[tuple[str, Scheme], tuple[float, float]] = {}

    def range(self, tensor: str, scheme: Scheme) -> tuple[float, float] | None:
        found = self.statistics.tensors.get(tensor)
        if found is None:
            return None
        key = (tensor, scheme)
        if key not in self._cache:
            self._cache[key] = self.calibrator.range(found, scheme)
        return self._cache[key]

    def weight_range(self, weight: NDArray[Any], scheme: Scheme) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return weight_range(weight, scheme, self.weight_method)


def load_float(path: Path, *, keep_overridable: bool) -> Model:
    """Load a model that is to be quantized.

    Raises:
        ModelError: it cannot be read, or is quantized already.
    """
    model = load(path, keep_overridable=keep_overridable)
    found = is_quantized(model.graph)
    if found:
        raise ModelError(
            f"{path} is quantized already (it has {', '.join(found)}): give the float model, or look at this one with onnxq inspect"
        )
    return model


def make_calibrator(method: str, settings: Mapping[str, Any]) -> Calibrator:
    """A registered calibrator with settings.

    Raises:
        UnknownNameError, ConfigError: no such method or setting.
    """
    cls = registry.load(registry.CALIBRATORS, method)
    known = [f.name for f in dataclasses.fields(cls)]
    for key in settings:
        if key not in known:
            raise ConfigError(f'method "{method}" has no setting "{key}": {did_you_mean(key, known)}')
    calibrator: Calibrator = cls(**settings)
    return calibrator


def quantize_model(
    model: Model,
    data: Dataset,
    options: Options,
    *,
    progress: Progress | None = None,
    hooks: Sequence[Hook] = (),
) -> Quantized:
    """Quantize a float model, in place.

    Args:
        model: from `load_float`.
        data: calibration samples.

    Raises:
        OnnxqError: whatever a stage finds wrong.
    """
    progress = progress or Silent()
    timing = Timing()
    target = options.target
    first = _first_samples(data, 2)
    with timing.stage("convert"):
        model = convert(model, target.opset, target.ir_version, first[0].inputs, _run_literally)
    if model.opset < 10:
        raise ModelError(
            f"the model stays at opset {model.opset}, because its converted form differs or cannot be made, but QuantizeLinear needs "
            f"opset 10: export it again at opset 13 or later"
        )
    collected: list[Statistics] = []

    def provide_plan(graph: gs.Graph, context: Context) -> None:
        with timing.stage("calibrate"):
            shapes = observe_shapes(model, first)
            annotate(graph, shapes)
            tensors = wanted(graph, target, shapes, options.keep_float)
            statistics = collect(
                model,
                tensors,
                data,
                options.calibrator.observers,
                limit=options.calib_limit,
                threads=options.threads,
                progress=progress,
                allow_infinite=mask_tensors(graph),
            )
            collected.append(statistics)
        with timing.stage("plan"):
            ranges = CalibratedRanges(statistics, options.calibrator, options.weight_method)
            context.plan = make_plan(graph, target, ranges, shapes, options.keep_float)

    context = Context(
        target=target,
        keep_float=options.keep_float,
        keep_overridable=options.keep_overridable,
        providers={"plan": provide_plan},
    )
    with timing.stage("passes"):
        run = run_pipeline(model.graph, options.pipeline, context, hooks)
    timing.seconds["passes"] -= timing.seconds.get("calibrate", 0.0) + timing.seconds.get("plan", 0.0)
    if context.plan is None:
        raise ConfigError(f"pipeline {options.pipeline.name} never asks for a plan: add the pass insert-qdq")
    reasons = {name: d.reason for name, d in sorted(context.plan.decisions.items()) if not d.integer}
    model.meta.metadata[DECISIONS] = json.dumps(reasons, ensure_ascii=False)
    unreached = collected[0].unreached
    notes = [*model.notes, *run.notes, *context.plan.notes]
    if unreached:
        notes.append(f"{len(unreached)} tensors were never reached by a sample, their ops stay float: {', '.join(unreached[:5])}")
    return Quantized(
        model=model, plan=context.plan, statistics=collected[0], run=run, timing=timing, notes=tuple(notes)
    )


def annotate(graph: gs.Graph, shapes: Mapping[str, tuple[int | str, ...]]) -> None:
    """Write observed ranks and dimensions where the graph declares none, so that passes and planner may read them."""
    for node in graph.nodes:
        for tensor in node.outputs:
            if tensor.shape is None and tensor.name in shapes:
                tensor.shape = shapes[tensor.name]


def _first_samples(data: Dataset, count: int) -> list[Sample]:
    out: list[Sample] = []
    for sample in data:
        out.append(sample)
        if len(out) == count:
            break
    if not out:
        raise DataError(f"there is no sample in {data.description}: give a folder or file with samples")
    return out


def _run_literally(model: Model, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """One run in ORT with optimizations off: the reference semantics."""
    with runnable(model) as source:
        return Session(source, level=Level.OFF, threads=1, prepacking=False).run(inputs)

