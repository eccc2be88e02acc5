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

from onnxq import registry
from onnxq.data.sample import Dataset, Sample
from onnxq.errors import ConfigError, DataError, ModelError, PassError, UnknownNameError, did_you_mean
from onnxq.ir import walk
from onnxq.ir.load import is_quantized, load
from onnxq.ir.model import Model
from onnxq.pipeline.base import Context
from onnxq.pipeline.crash import Crash
from onnxq.pipeline.manager import Hook, Pipeline, Run, run_pipeline
from onnxq.pipeline.prepare import annotate, prepare, run_literally
from onnxq.plan.calibrated import CalibratedRanges
from onnxq.plan.plan import Plan
from onnxq.plan.planner import make_plan, wanted
from onnxq.plan.reasons import matches
from onnxq.plan.surroundings import surroundings
from onnxq.progress import Progress, Silent
from onnxq.stats.calibrator import AUTO, Calibrator
from onnxq.stats.collect import collect, observe_shapes
from onnxq.stats.statistics import Statistics
from onnxq.stats.taps import mask_tensors
from onnxq.stats.weights import WeightMethod
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


def load_float(path: Path, *, keep_overridable: bool) -> Model:
    """Load a model that is to be quantized.

    Raises:
        ModelError: it cannot be read, or is quantized already.
    """
    model = load(path, keep_overridable=keep_overridable)
    found = is_quantized(model.graph)
    if found:
        raise ModelError(
            f"{path} is quantized already (it has {', '.join(found)}): give the float model, look at this one with "
            f"onnxq inspect, or let passes work on it with onnxq run import {path} -o out.onnx"
        )
    return model


CANDIDATES = ("minmax", "mixed", "mse", "percentile", "entropy")
"""What `auto` tries, in the order of how much they clip: no single method wins on every model."""


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


class PlanProvider:
    """Makes the plan when the first pass asks for it: checks what the passes did so far, calibrates, plans, chooses.

    Args:
        model: prepared; its graph is what the passes edit.
        data: calibration samples.
        unused: patterns of nodes to keep float that fitted nothing in the model as it was loaded.
    """

    def __init__(
        self,
        model: Model,
        data: Dataset,
        options: Options,
        *,
        unused: Sequence[str] = (),
        timing: Timing | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.model, self.data, self.options, self.unused = model, data, options, unused
        self.timing, self.progress = timing or Timing(), progress or Silent()
        self.first = _first_samples(data, 2)
        self.exact = run_literally(model, self.first[0].inputs)
        self.shapes: Mapping[str, tuple[int | str, ...]] = {}
        self.statistics: Statistics | None = None
        self.check = True  # bisect looks for the pass that does not pass this check
        self.method = ""
        self.notes: list[str] = []

    def __call__(self, graph: gs.Graph, context: Context) -> None:
        options, timing = self.options, self.timing
        with timing.stage("check passes"):
            if self.check and not is_random(graph):  # two runs differ by themselves
                _check_normalised(self.exact, run_literally(self.model, self.first[0].inputs), self.first[0].name)
        with timing.stage("calibrate"):
            self.shapes = observe_shapes(self.model, self.first)
            annotate(graph, self.shapes)
            unused = [p for p in unmatched(graph, options.keep_float) if p in self.unused]
            self.notes.extend(_check_patterns(unused, graph))
            self.statistics = collect(
                self.model,
                wanted(graph, options.target, self.shapes, options.keep_float),
                self.data,
                sorted({o for c in options.calibrators.values() for o in c.observers}),
                limit=options.calib_limit,
                threads=options.threads,
                progress=self.progress,
                allow_infinite=mask_tensors(graph),
                shapes=self.shapes,
            )
        with timing.stage("plan"):
            plans = {name: self.plan(graph, name, options.keep_float) for name in options.calibrators}
        with timing.stage("choose method"):
            self.method, notes = choose(self.model, plans, context, self.data, options.threads)
            self.notes.extend(notes)
            context.plan = plans[self.method]

    def plan(self, graph: gs.Graph, method: str, keep_float: Sequence[str]) -> Plan:
        """A plan from the statistics that were collected."""
        assert self.statistics is not None
        around = surroundings(graph, self.statistics.tensors)
        calibrator = self.options.calibrators[method]
        ranges = CalibratedRanges(self.statistics, calibrator, self.options.weight_method, around)
        return make_plan(graph, self.options.target, ranges, self.shapes, keep_float)


def quantize_model(
    model: Model,
    data: Dataset,
    options: Options,
    *,
    progress: Progress | None = None,
    hooks: Sequence[Hook] = (),
    crash: Path | None = None,
) -> Quantized:
    """Quantize a float model, in place.

    Args:
        model: from `load_float`.
        data: calibration samples.
        crash: where a failing pass leaves the model before it and the rest of the pipeline; needs `model.source`.

    Raises:
        OnnxqError: whatever a stage finds wrong.
    """
    timing = Timing()
    source = model.source
    first = _first_samples(data, 1)[0]
    unused = unmatched(model.graph, options.keep_float)
    with timing.stage("convert"):
        model = prepare(model, options.target, first.inputs, keep_overridable=options.keep_overridable)
    if model.opset < 10:
        raise ModelError(
            f"the model stays at opset {model.opset}, because its converted form differs or cannot be "
            "made, but QuantizeLinear needs "
            f"opset 10: export it again at opset 13 or later"
        )
    provider = PlanProvider(model, data, options, unused=unused, timing=timing, progress=progress)
    context = Context(
        target=options.target,
        keep_float=options.keep_float,
        keep_overridable=options.keep_overridable,
        providers={"plan": provider},
    )

    def reproduce() -> Model:
        assert source is not None
        again = load_float(source, keep_overridable=options.keep_overridable)
        return prepare(again, options.target, first.inputs, keep_overridable=options.keep_overridable)

    leave = Crash(crash, options.pipeline, context, reproduce) if crash is not None and source is not None else None
    with timing.stage("passes"):
        run = run_pipeline(model.graph, options.pipeline, context, hooks, failed=leave)
    inside = ("check passes", "calibrate", "plan", "choose method")
    timing.seconds["passes"] -= sum(timing.seconds.get(stage, 0.0) for stage in inside)
    if context.plan is None or provider.statistics is None:
        raise ConfigError(f"pipeline {options.pipeline.name} never asks for a plan: add the pass insert-qdq")
    write_decisions(model, context.plan)
    unreached = provider.statistics.unreached
    notes = [*model.notes, *run.notes, *provider.notes, *context.plan.notes]
    if unreached:
        notes.append(
            f"{len(unreached)} tensors were never reached by a sample, their ops stay float: {', '.join(unreached[:5])}"
        )
    return Quantized(
        model=model,
        plan=context.plan,
        method=provider.method,
        statistics=provider.statistics,
        run=run,
        timing=timing,
        notes=tuple(notes),
    )


def write_decisions(model: Model, plan: Plan) -> None:
    """Let the file say why its float ops are float."""
    reasons = {name: d.reason for name, d in sorted(plan.decisions.items()) if not d.integer}
    model.meta.metadata[DECISIONS] = json.dumps(reasons, ensure_ascii=False)


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


RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
"""Ops whose results change from run to run (Dropout does so in training only)."""


def is_random(graph: gs.Graph) -> bool:
    """Does any op of the graph or of the bodies in it draw random numbers?"""
    return any(
        node.op in RANDOM or (node.op == "Dropout" and len(node.inputs) > 2)
        for _, inner in walk.graphs(graph)
        for node in inner.nodes
    )


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
            gaps = np.abs(a.astype(np.float64) - np.asarray(b, dtype=np.float64)) if same else np.array(np.inf)
            peak = float(np.max(np.abs(a[np.isfinite(a)]), initial=1e-6))
        if same:
            gaps = gaps[np.isfinite(a)]  # what is NaN or infinite stays out, but must not become so
        gap = np.inf if np.isnan(gaps).any() else float(np.max(gaps, initial=0.0))
        if gap > NORMALISED * loose * peak:
            raise PassError(
                f"the normalising passes changed output {name} of {sample} by {gap:.3g} "
                f"(largest value {peak:.3g}): "
                "this is a fault of a pass: find it with onnxq run --verify-each, leave it out and report it"
            )


def _first_samples(data: Dataset, count: int) -> list[Sample]:
    out: list[Sample] = []
    for sample in data:
        out.append(sample)
        if len(out) == count:
            break
    if not out:
        raise DataError(f"there is no sample in {data.description}: give a folder or file with samples")
    return out
