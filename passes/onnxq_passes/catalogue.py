"""The page that describes every registered pass: `python -m onnxq_passes.catalogue > passes/README.md`.

Each pass has an example: `examples/<name>.txt` holds a graph in the syntax of onnx.parser, without its name and head.
The page shows it before and after the real pass, which runs when the page is made.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from onnxq import registry
from onnxq.errors import UsageError
from onnxq.workbench.example import example

_HEAD = """# Passes

One file per pass in `onnxq_passes/`; a pass is a frozen dataclass whose fields are its settings. Pipelines
(`onnxq_passes/pipelines/*.yaml`) name passes by the names below, which `pyproject.toml` registers under `onnxq.passes`.
This page is generated: `python -m onnxq_passes.catalogue > passes/README.md`. Each example is a graph of
`onnxq_passes/examples/` before and after the pass, which ran when the page was made.
"""


def catalogue() -> str:
    """Markdown: one section per pass of this package, by name, with its rule, stages, settings and example."""
    parts = [_HEAD]
    for name in registry.names(registry.PASSES):
        pass_class = registry.load(registry.PASSES, name)
        if pass_class.__module__.startswith("onnxq_passes."):
            parts.append(_section(name, pass_class))
    return "\n".join(parts)


def _section(name: str, pass_class: Any) -> str:
    made = example(name)
    if made is None:
        raise UsageError(
            f'the pass "{name}" has no example: write a graph of 3 to 8 lines that it rewrites, in the syntax of '
            f"onnx.parser, into passes/onnxq_passes/examples/{name}.txt"
        )
    rule = inspect.cleandoc(str(pass_class.__doc__)).split("\n\nAttributes:")[0]
    settings = ", ".join(f"`{f.name}={f.default!r}`" for f in dataclasses.fields(pass_class)) or "none"
    stages = f"{pass_class.takes.value} -> {pass_class.gives.value}"
    shown = f"```text\nbefore: {made.before}\nafter:  {made.after}```"
    return f"## {name}\n\n{rule}\n\nStage: {stages}. Settings: {settings}.\n\n{shown}\n"


if __name__ == "__main__":
    print(catalogue(), end="")
