"""The manager keeps passes to their word."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from onnxq.errors import ConfigError, ModelError, PassError
from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq.pipeline.manager import Pipeline, Step, check_order, run_pipeline
from onnxq.pipeline.spec import build, load_pipeline
from onnxq.plan.plan import Plan
from onnxq.targets.target import load_target
from onnxq.trial import FLOAT, INTEGER


def _graph() -> gs.Graph:
    x, y = gs.Variable("x", np.float32, (1,)), gs.Variable("y", np.float32, (1,))
    return gs.Graph([gs.Node("Relu", "r", {}, [x], [y])], [x], [y], opset=21)


def _context() -> Context:
    return Context(target=load_target("cpu", reduce_range=False))


@dataclass(frozen=True, kw_only=True)
class Rename(Pass):
    """Rename the op."""

    to: str = "Abs"
    claim: int = 1

    def run(self, graph: gs.Graph, context: Context) -> Report:
        graph.nodes[0].op = self.to
        report = Report(rewrites=self.claim, notes=["renamed"], renamed={self.to: "r"})
        report.refuse("r", "only once")
        return report


@dataclass(frozen=True, kw_only=True)
class Quantizes(Pass):
    """Claims to give Q/DQ."""

    gives: ClassVar[Stage] = Stage.QDQ
    needs: ClassVar[frozenset[str]] = frozenset({"plan"})


@dataclass(frozen=True, kw_only=True)
class Idle(Pass):
    """Asks for a plan, does nothing and claims a rewrite."""

    needs: ClassVar[frozenset[str]] = frozenset({"plan"})

    def run(self, graph: gs.Graph, context: Context) -> Report:
        return Report(rewrites=1)


@dataclass(frozen=True, kw_only=True)
class Fails(Pass):
    """Raises."""

    error: type[Exception] = ZeroDivisionError

    def run(self, graph: gs.Graph, context: Context) -> Report:
        raise self.error("boom")


def _pipeline(*bodies: Pass) -> Pipeline:
    return Pipeline("test", tuple(Step(f"p{i}", b) for i, b in enumerate(bodies)))


def test_reports_are_gathered_and_names_followed_back() -> None:
    seen: list[str] = []
    run = run_pipeline(_graph(), _pipeline(Rename()), _context(), [lambda step, graph, result: seen.append(step.name)])
    assert [s.name for s in run.steps] == ["p0"] == seen
    assert run.notes == ["renamed"]
    assert run.steps[0].report.reasons == {"only once": 1}
    assert run.original("Abs") == "r"
    assert run.original("other") == "other"


def test_a_change_without_a_reported_rewrite_is_an_error() -> None:
    with pytest.raises(PassError, match=r"in pass 'p0', the first pass: it changed the graph but reports no rewrite"):
        run_pipeline(_graph(), _pipeline(Rename(claim=0)), _context())


def test_a_reported_rewrite_without_a_change_is_an_error() -> None:
    with pytest.raises(PassError, match=r"after \['p0'\]: it reports 1 rewrites but the graph is unchanged"):
        run_pipeline(_graph(), _pipeline(Rename(), Rename()), _context())


def test_what_a_hook_changes_is_not_laid_on_the_next_pass() -> None:
    def hook(step: Step, graph: gs.Graph, _result: object) -> None:
        graph.nodes[0].name = f"behind {step.name}"

    run = run_pipeline(_graph(), _pipeline(Rename(), Rename(to="Abs", claim=0)), _context(), [hook])
    assert [s.report.rewrites for s in run.steps] == [1, 0]


def test_what_a_provider_changes_is_not_laid_on_its_pass() -> None:
    def provide(graph: gs.Graph, context: Context) -> None:
        graph.nodes[0].name = "provided"
        context.plan = Plan(values={}, uses={}, decisions={})

    context = replace(_context(), providers={"plan": provide})
    with pytest.raises(PassError, match=r"in pass 'p1', after .*: it reports 1 rewrites but the graph is unchanged"):
        run_pipeline(_graph(), _pipeline(Rename(), Idle()), context)


def test_a_crash_names_the_pass() -> None:
    with pytest.raises(PassError, match="in pass 'p0', the first pass: ZeroDivisionError: boom"):
        run_pipeline(_graph(), _pipeline(Fails()), _context())


def test_errors_of_the_user_keep_their_type() -> None:
    with pytest.raises(ModelError, match="boom"):
        run_pipeline(_graph(), _pipeline(Fails(error=ModelError)), _context())
    with pytest.raises(PassError, match="in pass 'p0', the first pass: boom"):
        run_pipeline(_graph(), _pipeline(Fails(error=PassError)), _context())


def test_the_order_is_checked_before_anything_runs() -> None:
    graph = _graph()
    with pytest.raises(
        ConfigError, match='pass "p1" takes a graph in stage float, but behind "p0" it is in stage qdq: move the pass'
    ):
        run_pipeline(graph, _pipeline(Quantizes(), Rename()), _context())
    assert graph.nodes[0].op == "Relu"
    assert check_order(_pipeline(Rename(), Quantizes())) is Stage.QDQ


def test_a_need_without_provider_is_said() -> None:
    with pytest.raises(ConfigError, match='pass "p0" needs a plan'):
        run_pipeline(_graph(), _pipeline(Quantizes()), _context())


def test_pipelines_are_files_and_all_faults_are_told_at_once() -> None:
    assert [s.name for s in load_pipeline("cpu").steps][-len(INTEGER + FLOAT) :] == [*INTEGER, *FLOAT]
    with pytest.raises(ConfigError) as caught:
        build("mine", ["fold-constant", {"eliminate-dead": {"speed": 1}}, ["x"]])
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert 'did you mean "fold-constants"?' in lines[0]
    assert lines[1].startswith('mine:2:23: eliminate-dead has no key "speed"')
    assert lines[2] == "mine:3:3: passes[0] takes a text, not a list of 1"


def test_settings_reach_the_pass() -> None:
    with pytest.raises(ConfigError, match="no pipeline file"):
        load_pipeline("missing.yaml")
