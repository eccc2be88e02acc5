"""What hangs on the manager's hook for people: the graph as text behind passes."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from onnxq.ir.text import text

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

    from onnxq.pipeline.manager import Step, StepResult

Echo = Callable[[str], None]
"""Takes text without the last line end."""


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "rewrite"), counted(2, "pass")
    ('1 rewrite', '2 passes')
    """
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{ending}"


class PrintAfter:
    """Prints the canonical text of the graph behind the passes of some names."""

    def __init__(self, names: Collection[str], echo: Echo) -> None:
        self.names, self.echo = names, echo

    def __call__(self, step: Step, graph: gs.Graph, _result: StepResult) -> None:
        """The hook."""
        if step.name in self.names:
            self.echo(f"# after {step.name}\n{text(graph).rstrip()}")


class PrintChanged:
    """Prints what each pass changed, as a diff of canonical text.

    Args:
        graph: before the first pass.
    """

    def __init__(self, graph: gs.Graph, echo: Echo) -> None:
        self.echo = echo
        self.before = text(graph).splitlines()

    def __call__(self, step: Step, graph: gs.Graph, result: StepResult) -> None:
        """The hook."""
        if not result.report.rewrites:
            self.echo(f"# {step.name} changed nothing")
            return
        after = text(graph).splitlines()
        diff = difflib.unified_diff(self.before, after, "before", "after", lineterm="", n=1)
        self.echo("\n".join([f"# {step.name}: {counted(result.report.rewrites, 'rewrite')}", *list(diff)[2:]]))
        self.before = after
