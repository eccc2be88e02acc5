"""A pass on its example: a small graph that its package keeps beside it, before and after the pass."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from numpy.typing import NDArray

from onnxq import registry
from onnxq.encoding import Scheme
from onnxq.errors import PassError
from onnxq.ir import text
from onnxq.ir.model import Model
from onnxq.pipeline.base import Context, Pass, Report
from onnxq.plan.planner import make_plan
from onnxq.stats.weights import weight_range
from onnxq.targets.target import load_target

_MODEL = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]> main '


@dataclass(frozen=True)
class Example:
    """The text of a graph before and behind a pass, and what the pass reports."""

    before: str
    after: str
    report: Report


def example(name: str) -> Example | None:
    """A pass on the graph in `examples/<name>.txt` of the package that holds it, without the head of the model, in the
    syntax of onnx.parser; None if there is no such file.

    Raises:
        UnknownNameError: there is no such pass.
        PassError: the example does not run.
    """
    pass_class = registry.load(registry.PASSES, name)
    package = pass_class.__module__.rpartition(".")[0]
    file = files(package).joinpath("examples", f"{name}.txt") if package else None  # a lone module has no files
    if file is None or not file.is_file():
        return None
    try:
        source = _MODEL + file.read_text(encoding="utf-8")
        before, after = text.parse(source), text.parse(source)
        report = pass_class().run(after.graph, _context(pass_class, after))
    except Exception as error:  # pass and graph may be anybody's
        raise PassError(
            f'the example {file} of the pass "{name}" does not run ({type(error).__name__}: {error}): '
            f"repair it, or report it to the makers of {registry.distribution(registry.PASSES, name)}"
        ) from error
    return Example(text.text(before.graph), text.text(after.graph), report)


def _context(pass_class: type[Pass], model: Model) -> Context:
    context = Context(target=load_target("cpu"))
    if "plan" in pass_class.needs:
        context.plan = make_plan(model.graph, context.target, _Unit(), {})
    return context


class _Unit:
    """For passes that need a plan: every activation goes from -1 to 1, the range of a weight is that of its values."""

    def range(self, tensor: str, scheme: Scheme) -> tuple[float, float]:  # noqa: ARG002  what the planner calls
        return -1.0, 1.0

    def weight_range(self, weight: NDArray[Any], scheme: Scheme) -> tuple[NDArray[Any], NDArray[Any]]:
        return weight_range(weight, scheme)
