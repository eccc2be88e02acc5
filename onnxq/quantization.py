"""From a loaded model and samples to the Q/DQ graph: convert, normalise, calibrate, plan, insert. The stages know
nothing of each other.
"""

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
from onnxq.errors import ConfigError, DataError, ModelError, PassError, UnknownNameError, did_you_mean
from onnxq.ir import walk
from onnxq.ir.load import is_quantized, load
from onnxq.ir.model import Model
from onnxq.ir.opset import convert
from onnxq.ir.save import runnable
from onnxq.ir.shapes import infer
from onnxq.pipeline.base import Context
from onnxq.pipeline.manager import Hook, Pipeline, Run, run_pipeline
from onnxq.plan.plan import Plan
from onnxq.plan.planner import make_plan, wanted
from onnxq.plan.reasons import matches
from onnxq.progress import Progress, Silent
from onnxq.runtime.session import Level, Session
from onnxq.stats.calibrator import AUTO, Calibrator
from onnxq.stats.collect import collect, observe_shapes
from onnxq.stats.statistics import Statistics
from onnxq.stats.taps import mask_tensors
from onnxq.stats.weights import WeightMethod, weight_range
from onnxq.targets.target import Target
from onnxq.trial import choose

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
        calibrators: by method name; with several, the one whose model comes nearest to the float outputs is taken.
        weight_method: range of weights, `max` or `mse`.
        keep_float: shell patterns on node names, op types and output names.
        keep_overridable: leave initializers that are graph inputs overridable.
        calib_limit: calibration samples at most.
        threads: of ORT while calibrating.
    """

    target: Target
    pipeline: Pipeline
    calibrators: Mapping[str, Calibrator]
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
    method: str
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
            f"{path} is quantized already (it has {', '.join(found)}): give the float model, or look at "
            "this one with onnxq inspect"
        )
    return model


CANDIDATES = ("minmax", "percentile", "mse", "entropy")
"""What `auto` tries: no single method wins on every model."""


def make_calibrators(method: str, settings: Mapping[str, Any]) -> dict[str, Calibrator]:
    """A registered calibrator by its name, or all candidates of `auto`.

    Raises:
        UnknownNameError, ConfigError: no such method or setting.
    """
    if method != AUTO:
        if method not in registry.names(registry.CALIBRATORS):
            known = [AUTO, *registry.names(registry.CALIBRATORS)]
            raise UnknownNameError(f'there is no method "{method}": {did_you_mean(method, known)}')
        return {method: _make_calibrator(method, settings)}
    if settings:
        raise ConfigError("the method auto has no settings: name one method to give it some")
    return {name: _make_calibrator(name, {}) for name in CANDIDATES}


def _make_calibrator(method: str, settings: Mapping[str, Any]) -> Calibrator:
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
    unused = unmatched(model.graph, options.keep_float)
    with timing.stage("convert"):
        model = convert(model, target.opset, target.ir_version, first[0].inputs, _run_literally)
    exact = _run_literally(model, first[0].inputs)
    describe(model.graph, infer(model))
    if options.keep_overridable:
        hide_overridable(model)
    if model.opset < 10:
        raise ModelError(
            f"the model stays at opset {model.opset}, because its converted form differs or cannot be "
            "made, but QuantizeLinear needs "
            f"opset 10: export it again at opset 13 or later"
        )
    collected: list[Statistics] = []
    chosen: list[str] = []
    trial_notes: list[str] = []

    def provide_plan(graph: gs.Graph, context: Context) -> None:
        with timing.stage("check passes"):
            _check_normalised(exact, _run_literally(model, first[0].inputs), first[0].name)
        with timing.stage("calibrate"):
            shapes = observe_shapes(model, first)
            annotate(graph, shapes)
            trial_notes.extend(_check_patterns([p for p in unmatched(graph, options.keep_float) if p in unused], graph))
            tensors = wanted(graph, target, shapes, options.keep_float)
            statistics = collect(
                model,
                tensors,
                data,
                sorted({o for c in options.calibrators.values() for o in c.observers}),
                limit=options.calib_limit,
                threads=options.threads,
                progress=progress,
                allow_infinite=mask_tensors(graph),
                shapes=shapes,
            )
            collected.append(statistics)
        with timing.stage("plan"):
            plans = {
                name: make_plan(
                    graph, target, CalibratedRanges(statistics, c, options.weight_method), shapes, options.keep_float
                )
                for name, c in options.calibrators.items()
            }
        with timing.stage("choose method"):
            name, notes = choose(model, plans, context, data, options.threads)
            chosen.append(name)
            trial_notes.extend(notes)
            context.plan = plans[name]

    context = Context(
        target=target,
        keep_float=options.keep_float,
        keep_overridable=options.keep_overridable,
        providers={"plan": provide_plan},
    )
    with timing.stage("passes"):
        run = run_pipeline(model.graph, options.pipeline, context, hooks)
    inside = ("check passes", "calibrate", "plan", "choose method")
    timing.seconds["passes"] -= sum(timing.seconds.get(stage, 0.0) for stage in inside)
    if context.plan is None:
        raise ConfigError(f"pipeline {options.pipeline.name} never asks for a plan: add the pass insert-qdq")
    reasons = {name: d.reason for name, d in sorted(context.plan.decisions.items()) if not d.integer}
    model.meta.metadata[DECISIONS] = json.dumps(reasons, ensure_ascii=False)
    unreached = collected[0].unreached
    notes = [*model.notes, *run.notes, *trial_notes, *context.plan.notes]
    if unreached:
        notes.append(
            f"{len(unreached)} tensors were never reached by a sample, their ops stay float: {', '.join(unreached[:5])}"
        )
    return Quantized(
        model=model,
        plan=context.plan,
        method=chosen[0],
        statistics=collected[0],
        run=run,
        timing=timing,
        notes=tuple(notes),
    )


def unmatched(graph: gs.Graph, patterns: Sequence[str]) -> list[str]:
    """The keep-float patterns that fit no node of the graph or of the bodies in it."""
    nodes = [node for _, inner in walk.graphs(graph) for node in inner.nodes]
    return [p for p in patterns if not any(matches(node, [p]) for node in nodes)]


def _check_patterns(unused: Sequence[str], graph: gs.Graph) -> list[str]:
    """Notes on wildcards that fit nothing in this model.

    Raises:
        UnknownNameError: a plain name fits nothing, which is a slip of the pen.
    """
    for name in unused:
        if not any(c in name for c in "*?["):
            nodes = [node for _, inner in walk.graphs(graph) for node in inner.nodes]
            known = {n for node in nodes for n in (node.name, node.op, *(t.name for t in node.outputs)) if n}
            guess = did_you_mean(name, known)
            hint = guess if guess.startswith("did you mean") else "onnxq inspect shows the names"
            raise UnknownNameError(f'--keep-float "{name}" is no node, op type or output of the model: {hint}')
    return [f'The keep-float pattern "{p}" fits no node, op type or output of this model.' for p in unused]


def hide_overridable(model: Model) -> None:
    """Let every overridable initializer look like a tensor of unknown value, so that no pass folds it and nothing of
    it is quantized.

    Saving writes it as initializer and input again.
    """
    for constant in model.meta.overridable_constants:
        open_tensor = gs.Variable(constant.name, dtype=constant.dtype, shape=constant.shape)
        for _, inner in walk.graphs(model.graph):
            for node in inner.nodes:
                for slot, tensor in enumerate(node.inputs):
                    if tensor is constant:
                        walk.set_input(node, slot, open_tensor)


NORMALISED = 1e-3
"""Greatest difference that normalising passes may make on an output, relative to its largest magnitude: folding
reorders float sums."""


def _check_normalised(exact: Mapping[str, Any], got: Mapping[str, Any], sample: str) -> None:
    """The passes before the plan keep what the model computes.

    Raises:
        PassError: they do not, on this sample.
    """
    for name, a in exact.items():
        b = got.get(name)
        if not isinstance(a, np.ndarray) or a.dtype.kind != "f" or not a.size:
            continue
        loose = 30 if a.dtype == np.float16 else 1  # float16 graphs are computed in float32 from here on
        with np.errstate(invalid="ignore"):
            same = isinstance(b, np.ndarray) and b.shape == a.shape
            gap = np.abs(a.astype(np.float64) - np.asarray(b, dtype=np.float64)) if same else np.array(np.inf)
            peak = float(np.max(np.abs(a[np.isfinite(a)]), initial=1e-6))
        if float(np.nanmax(gap)) > NORMALISED * loose * peak:
            raise PassError(
                f"the normalising passes changed output {name} of {sample} by {float(np.nanmax(gap)):.3g} "
                f"(largest value {peak:.3g}): "
                "this is a fault of onnxq, report it with the model, and go on with a pipeline that leaves passes out"
            )


def describe(graph: gs.Graph, known: Mapping[str, tuple[Any, Any]]) -> None:
    """Write inferred types and shapes where the file declares none; sizes that depend on the sample stay symbolic."""
    for _, inner in walk.graphs(graph):
        for node in inner.nodes:
            for tensor in node.outputs:
                if tensor.name not in known or not isinstance(tensor, gs.Variable):
                    continue
                dtype, shape = known[tensor.name]
                tensor.dtype = tensor.dtype if tensor.dtype is not None else dtype
                tensor.shape = tensor.shape if tensor.shape is not None else shape


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
