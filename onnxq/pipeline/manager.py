"""Runs passes in order, times them, and checks that each keeps its promise."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from onnxq.errors import ConfigError, OnnxqError, PassError
from onnxq.ir.hash import structural
from onnxq.pipeline.base import Context, Pass, Report, Stage

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs


@dataclass(frozen=True)
class Step:
    """A pass with its settings, under its registered name."""

    name: str
    body: Pass


@dataclass(frozen=True)
class Pipeline:
    """An ordered list of passes; `name` is for messages."""

    name: str
    steps: tuple[Step, ...]


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


def check_order(pipeline: Pipeline) -> Stage:
    """The stage at the end, without a model.

    Raises:
        ConfigError: a pass takes another stage than the one before it gives.
    """
    stage = Stage.FLOAT
    previous = "the start"
    for step in pipeline.steps:
        if step.body.takes is not stage:
            raise ConfigError(
                f'pipeline {pipeline.name}: pass "{step.name}" takes a graph in stage '
                f"{step.body.takes.value}, but behind {previous} it is in "
                f"stage {stage.value}: move the pass"
            )
        stage = step.body.gives
        previous = f'"{step.name}"'
    return stage


def run_pipeline(graph: gs.Graph, pipeline: Pipeline, context: Context, hooks: Sequence[Hook] = ()) -> Run:
    """Run every pass on `graph`, in place.

    Raises:
        ConfigError: the order is wrong; nothing was run.
        PassError: a pass failed or broke its promise; names the pass and those before it.
    """
    check_order(pipeline)
    run = Run()
    done: list[str] = []
    for step in pipeline.steps:
        for need in sorted(step.body.needs):
            _provide(need, step, graph, context)
        before = structural(graph)
        start = time.perf_counter()
        try:
            report = step.body.run(graph, context)
        except OnnxqError as error:
            if isinstance(error, PassError):
                raise PassError(_where(step, done, str(error))) from error
            raise
        except Exception as error:
            raise PassError(_where(step, done, f"{type(error).__name__}: {error}")) from error
        seconds = time.perf_counter() - start
        changed = structural(graph) != before
        if changed and report.rewrites == 0:
            raise PassError(_where(step, done, "it changed the graph but reports no rewrite"))
        if not changed and report.rewrites > 0:
            raise PassError(_where(step, done, f"it reports {report.rewrites} rewrites but the graph is unchanged"))
        result = StepResult(step.name, report, seconds, len(graph.nodes))
        run.steps.append(result)
        for hook in hooks:
            hook(step, graph, result)
        done.append(step.name)
    return run


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
