"""Runs passes in order, times them, and checks that each keeps its promise."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from onnxq.errors import ConfigError, OnnxqError, PassError
from onnxq.ir.hash import structural
from onnxq.ir.protobuf import paused_gc
from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq.pipeline.calibration import PipelineCalibration

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs


@dataclass(frozen=True)
class Step:
    """A pass with its settings, under its registered name."""

    name: str
    body: Pass


@dataclass(frozen=True)
class Pipeline:
    """An ordered list of passes and what goes with it.

    Attributes:
        name: for messages.
        steps: the passes.
        target: registered target; None: the command decides.
        calibration: how ranges are found, where the command does not say.
        keep_float: patterns of nodes that stay float, besides those of the command.
        base: the folder that `calibration.data` is relative to.
    """

    name: str
    steps: tuple[Step, ...]
    target: str | None = None
    calibration: PipelineCalibration = field(default_factory=PipelineCalibration)
    keep_float: tuple[str, ...] = ()
    base: Path = Path()

    @property
    def starts(self) -> tuple[Stage, ...]:
        """The stages of models with which its order fits."""
        first = self.steps[0].body.stages() if self.steps else (Stage.FLOAT,)
        return tuple(stage for stage in first if isinstance(_follow(self, stage), Stage))

    @property
    def needs(self) -> frozenset[str]:
        """What its passes need, all together."""
        return frozenset().union(*(step.body.needs for step in self.steps))


@dataclass(frozen=True)
class StepResult:
    """What one pass did: its report, its time in seconds, the node count behind it."""

    name: str
    report: Report
    seconds: float
    nodes: int


@dataclass
class Run:
    """What the whole pipeline did."""

    steps: list[StepResult] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """All notes, in order."""
        return [note for step in self.steps for note in step.report.notes]

    def original(self, node: str) -> str:
        """The user's name of a node, followed back through every renaming."""
        for step in reversed(self.steps):
            node = step.report.renamed.get(node, node)
        return node


Hook = Callable[[Step, "gs.Graph", StepResult], None]
"""Called behind each pass: timing tables, printing, verification hang here."""

Failed = Callable[[int, str], str]
"""Called when the pass at a position has failed, with the message; gives the rest of the sentence."""


def check_order(pipeline: Pipeline) -> Stage:
    """The stage at the end, without a model.

    Raises:
        ConfigError: a pass takes another stage than the one before it gives.
    """
    first = pipeline.steps[0].body.takes if pipeline.steps else Stage.FLOAT
    ends = [_follow(pipeline, start) for start in pipeline.starts or (first,)]
    if isinstance(ends[0], str):
        raise ConfigError(ends[0])
    return ends[0]


def _follow(pipeline: Pipeline, stage: Stage) -> Stage | str:
    """The stage at the end of a model that comes in `stage`, or which pass does not take what comes to it."""
    previous = "the start"
    for step in pipeline.steps:
        if stage not in step.body.stages():
            return (
                f'pipeline {pipeline.name}: pass "{step.name}" takes a graph in stage '
                f"{step.body.takes.value}, but behind {previous} it is in "
                f"stage {stage.value}: move the pass"
            )
        stage = step.body.behind(stage)
        previous = f'"{step.name}"'
    return stage


def run_pipeline(
    graph: gs.Graph,
    pipeline: Pipeline,
    context: Context,
    hooks: Sequence[Hook] = (),
    *,
    failed: Failed | None = None,
) -> Run:
    """Run every pass on `graph`, in place.

    Args:
        failed: told of a pass that fails, breaks its promise or is refused by a hook.

    Raises:
        ConfigError: the order is wrong; nothing was run.
        PassError: a pass failed or broke its promise; names the pass and those before it.
    """
    check_order(pipeline)
    run = Run()
    done: list[str] = []
    known: str | None = None  # the hash of the graph behind the last pass, while nobody else had it in hand
    for position, step in enumerate(pipeline.steps):
        for need in sorted(step.body.needs):
            _provide(need, step, graph, context)
        if hooks or step.body.needs:
            known = None
        try:
            result, known = _run_step(step, graph, context, known)
            run.steps.append(result)
            for hook in hooks:
                hook(step, graph, result)
        except PassError as error:
            message = _where(step, done, str(error))
            raise PassError(message + (failed(position, message) if failed is not None else "")) from error
        done.append(step.name)
    return run


def _run_step(step: Step, graph: gs.Graph, context: Context, known: str | None) -> tuple[StepResult, str]:
    with paused_gc():
        return _run_checked(step, graph, context, known)


def _run_checked(step: Step, graph: gs.Graph, context: Context, known: str | None) -> tuple[StepResult, str]:
    """What the pass did, and the hash of the graph behind it; `known` is the hash before it, if that is known."""
    before = known if known is not None else structural(graph)
    start = time.perf_counter()
    try:
        report = step.body.run(graph, context)
    except OnnxqError:
        raise
    except Exception as error:
        raise PassError(f"{type(error).__name__}: {error}") from error
    seconds = time.perf_counter() - start
    after = structural(graph)
    changed = after != before
    if changed and report.rewrites == 0:
        raise PassError("it changed the graph but reports no rewrite")
    if not changed and report.rewrites > 0:
        raise PassError(f"it reports {report.rewrites} rewrites but the graph is unchanged")
    return StepResult(step.name, report, seconds, len(graph.nodes)), after


def _provide(need: str, step: Step, graph: gs.Graph, context: Context) -> None:
    if getattr(context, need, None) is not None:
        return
    provider = context.providers.get(need)
    if provider is None:
        raise ConfigError(f'pass "{step.name}" needs a {need}, and this command cannot make one: give --calib')
    provider(graph, context)


def _where(step: Step, done: list[str], what: str) -> str:
    behind = f", after {done}" if done else ", the first pass"
    return f"in pass '{step.name}'{behind}: {what}"
