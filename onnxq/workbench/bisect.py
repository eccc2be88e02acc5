"""`onnxq bisect`: which pass costs most accuracy, and which node of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.data.open import open_dataset
from onnxq.ir.model import Model
from onnxq.ir.save import runnable
from onnxq.pipeline.manager import Pipeline, Step, StepResult, run_pipeline
from onnxq.pipeline.prepare import run_literally
from onnxq.progress import Progress, Silent
from onnxq.runtime.session import Level, Session
from onnxq.stats.taps import produced, with_outputs
from onnxq.validate.metrics.fidelity import decibels
from onnxq.validate.outputs import OutputSums
from onnxq.workbench.setup import Request, Work, set_up

Inputs = Mapping[str, NDArray[Any]]

CHANGED = 1e-6
"""A result differs if it moves by more than this part of its largest magnitude."""


@dataclass(frozen=True, kw_only=True)
class PassEffect:
    """A pass that changed the graph, and the mean SQNR (dB) of the outputs against the float model behind it."""

    name: str
    position: int
    sqnr_db: float

    @property
    def noise(self) -> float:
        """Noise energy / signal energy."""
        return math.pow(10.0, -self.sqnr_db / 10.0)


@dataclass(frozen=True, kw_only=True)
class NodeEffect:
    """A node of the guilty pass.

    Attributes:
        name, op: of the node, by the user's name.
        sqnr_db: of the outputs with this node left in float; of its own result, where the pass has no plan.
        gain_db: over the SQNR with nothing left in float; None where the pass has no plan.
    """

    name: str
    op: str
    sqnr_db: float
    gain_db: float | None


@dataclass(frozen=True, kw_only=True)
class Bisection:
    """What was found.

    Attributes:
        passes: those that changed the graph, in order.
        worst: the one that added most noise; None if none did.
        nodes: its nodes, the most harmful first.
        left_out: nodes that were not tried, because of the limit.
    """

    passes: tuple[PassEffect, ...]
    worst: PassEffect | None
    nodes: tuple[NodeEffect, ...] = ()
    left_out: int = 0


@dataclass
class _Measure:
    """SQNR against the float model; as a hook, behind each pass that rewrote something."""

    model: Model
    samples: Sequence[Inputs]
    exact: Sequence[Mapping[str, Any]]
    found: list[PassEffect] = field(default_factory=list)
    position: int = 0

    def __call__(self, step: Step, _graph: gs.Graph, result: StepResult) -> None:
        if result.report.rewrites:
            self.found.append(PassEffect(name=step.name, position=self.position, sqnr_db=self.of(self.model)))
        self.position += 1

    def of(self, model: Model) -> float:
        with runnable(model) as source:
            session = Session(source, level=Level.OFF, threads=1)
            return _sqnr(self.exact, [session.run(s) for s in self.samples])


def bisect(
    request: Request, data: str, *, samples: int = 8, limit: int = 32, progress: Progress | None = None
) -> Bisection:
    """Run the pipeline, measure behind every pass, and look into the one that hurts most.

    Args:
        data: samples to measure on; also to calibrate with, if the request and the pipeline name none.
        samples: of them, at most.
        limit: nodes to try.

    Raises:
        OnnxqError: one sentence for whatever the user can mend.
    """
    progress = progress or Silent()
    if request.calib is None:
        request = replace(request, calib=data)
    work = set_up(request, progress=progress)
    if work.provider is not None:
        work.provider.check = False
    session = Session(request.model, level=Level.OFF, threads=1, prepacking=False)
    preprocess = work.pipeline.calibration.preprocess
    opened = open_dataset(data, session.inputs, preprocess, base=Path(), skip_bad=request.skip_bad, limit=samples)
    inputs = [s.inputs for s in itertools.islice(iter(opened), samples)]
    measure = _Measure(work.model, inputs, [session.run(i) for i in inputs])
    run = run_pipeline(work.model.graph, work.pipeline, work.context, [measure])
    if not measure.found:
        return Bisection(passes=(), worst=None)
    noises = [0.0, *(effect.noise for effect in measure.found)]
    added = [after - before for before, after in itertools.pairwise(noises)]
    worst = measure.found[int(np.argmax(added))]
    if max(added) <= 0.0:
        return Bisection(passes=tuple(measure.found), worst=None)
    step = work.pipeline.steps[worst.position]
    before = _before(work, worst.position)
    if "plan" in step.body.needs:
        nodes, left = _one_by_one(work, measure, before, step, worst, limit, progress)
    else:
        nodes, left = _moved(work, before, step, inputs[0], limit)
    nodes = [replace(n, name=run.original(n.name)) for n in nodes]
    return Bisection(passes=tuple(measure.found), worst=worst, nodes=tuple(nodes), left_out=left)


def _before(work: Work, position: int) -> Model:
    """The model as the pass at this position got it."""
    model = work.reproduce()
    first = Pipeline(work.pipeline.name, work.pipeline.steps[:position])
    run_pipeline(model.graph, first, work.context)
    return model


def _one_by_one(
    work: Work, measure: _Measure, before: Model, step: Step, worst: PassEffect, limit: int, progress: Progress
) -> tuple[list[NodeEffect], int]:
    """Leave one integer op at a time in float; what comes back is what it costs."""
    plan, provider = work.context.plan, work.provider
    assert plan is not None and provider is not None
    integer = [n for n in before.graph.nodes if n.name in plan.decisions and plan.decisions[n.name].integer]
    order = sorted(integer, key=lambda n: not plan.decisions[n.name].heavy)  # stable: file order within
    found: list[NodeEffect] = []
    with progress.task("trying nodes", len(order[:limit])) as tick:
        for node in order[:limit]:
            keep = (*work.context.keep_float, node.name)
            trial = before.copy()
            other = provider.plan(before.graph, provider.method, keep)
            step.body.run(trial.graph, replace(work.context, plan=other))
            sqnr = measure.of(trial)
            found.append(NodeEffect(name=node.name, op=node.op, sqnr_db=sqnr, gain_db=sqnr - worst.sqnr_db))
            tick(1)
    found.sort(key=lambda n: -(n.gain_db or 0.0))
    return found, max(len(order) - limit, 0)


def _moved(work: Work, before: Model, step: Step, inputs: Inputs, limit: int) -> tuple[list[NodeEffect], int]:
    """Nodes whose result the pass moved, in the order of the graph: the first is where it begins."""
    after = before.copy()
    step.body.run(after.graph, work.context)
    makers = {t.name: node for node in after.graph.nodes for t in node.outputs}
    shared = [name for name in produced(before.graph) if name in makers]
    old, new = (run_literally(with_outputs(model, shared), inputs) for model in (before, after))
    found: list[NodeEffect] = []
    for name in shared:
        a, b = old[name], new[name]
        if not isinstance(a, np.ndarray) or a.dtype.kind != "f" or a.shape != b.shape or not a.size:
            continue
        finite = np.isfinite(a) & np.isfinite(b)
        x = a[finite].astype(np.float64)
        gap = np.abs(x - b[finite])
        if float(gap.max(initial=0.0)) > CHANGED * float(np.abs(x).max(initial=1e-30)):
            sqnr = decibels(float(x @ x), float(gap @ gap))
            found.append(NodeEffect(name=makers[name].name, op=makers[name].op, sqnr_db=sqnr, gain_db=None))
    return found[:limit], max(len(found) - limit, 0)


def _sqnr(exact: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> float:
    """Mean SQNR (dB) over the float outputs; without any, of the share of unequal elements as noise."""
    values: list[float] = []
    unequal: list[float] = []
    for name in exact[0]:
        sums = OutputSums()
        for number, (a, b) in enumerate(zip(exact, other, strict=True)):
            sums.add(a[name], b[name], str(number), None)
        result = sums.result(name)
        if result.mismatched or result.nonfinite:
            return -math.inf
        if result.sqnr_db is not None:
            values.append(result.sqnr_db)
        elif result.agreement is not None:
            unequal.append(1.0 - result.agreement)
    if values:
        return float(np.mean(values))
    return decibels(1.0, float(np.mean(unequal))) if unequal else math.inf
