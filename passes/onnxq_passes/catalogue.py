"""The page that describes every registered pass: `python -m onnxq_passes.catalogue > passes/README.md`.

Each pass has an example: `examples/<name>.txt` holds a graph in the syntax of onnx.parser, without its name and head.
The page shows it before and after the real pass, which runs when the page is made.
"""

from __future__ import annotations

import dataclasses
import inspect
from importlib.resources import files
from typing import Any

from numpy.typing import NDArray

from onnxq import registry
from onnxq.encoding import Scheme
from onnxq.errors import UsageError
from onnxq.ir import text
from onnxq.ir.model import Model
from onnxq.pipeline.base import Context, Report
from onnxq.plan.planner import make_plan
from onnxq.stats.weights import weight_range
from onnxq.targets.target import load_target

_HEAD = """# Passes

One file per pass in `onnxq_passes/`; a pass is a frozen dataclass whose fields are its settings. Pipelines
(`onnxq_passes/pipelines/*.yaml`) name passes by the names below, which `pyproject.toml` registers under `onnxq.passes`.
This page is generated: `python -m onnxq_passes.catalogue > passes/README.md`. Each example is a graph of
`onnxq_passes/examples/` before and after the pass, which ran when the page was made.
"""
_MODEL = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]> main '


def catalogue() -> str:
    """Markdown: one section per pass of this package, by name, with its rule, stages, settings and example."""
    parts = [_HEAD]
    for name in registry.names(registry.PASSES):
        pass_class = registry.load(registry.PASSES, name)
        if pass_class.__module__.startswith("onnxq_passes."):
            parts.append(_section(name, pass_class))
    return "\n".join(parts)


def example(name: str) -> tuple[str, str, Report]:
    """A pass of this package on its example: the text before, the text behind, and what the pass reports.

    Raises:
        UsageError: there is no example.
    """
    before, after = _graph(name), _graph(name)
    pass_ = registry.load(registry.PASSES, name)()
    context = Context(target=load_target("cpu"))
    if "plan" in pass_.needs:
        context.plan = make_plan(after.graph, context.target, _Unit(), {})
    report = pass_.run(after.graph, context)
    return text.text(before.graph), text.text(after.graph), report


class _Unit:
    """For passes that need a plan: every activation goes from -1 to 1, the range of a weight is that of its values."""

    def range(self, tensor: str, scheme: Scheme) -> tuple[float, float]:
        return -1.0, 1.0

    def weight_range(self, weight: NDArray[Any], scheme: Scheme) -> tuple[NDArray[Any], NDArray[Any]]:
        return weight_range(weight, scheme)


def _graph(name: str) -> Model:
    file = files("onnxq_passes").joinpath("examples", f"{name}.txt")
    if not file.is_file():
        raise UsageError(
            f'the pass "{name}" has no example: write a graph of 3 to 8 lines that it rewrites, in the syntax of '
            f"onnx.parser, into passes/onnxq_passes/examples/{name}.txt"
        )
    return text.parse(_MODEL + file.read_text(encoding="utf-8"))


def _section(name: str, pass_class: Any) -> str:
    rule = inspect.cleandoc(pass_class.__doc__ or "").split("\n\nAttributes:")[0]
    settings = ", ".join(f"`{f.name}={f.default!r}`" for f in dataclasses.fields(pass_class)) or "none"
    stages = f"{pass_class.takes.value} -> {pass_class.gives.value}"
    before, after, _ = example(name)
    shown = f"```text\nbefore: {before}\nafter:  {after}```"
    return f"## {name}\n\n{rule}\n\nStage: {stages}. Settings: {settings}.\n\n{shown}\n"


if __name__ == "__main__":
    print(catalogue(), end="")
