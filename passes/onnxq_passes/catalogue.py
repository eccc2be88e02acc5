"""The page that describes every registered pass: `python -m onnxq_passes.catalogue > passes/README.md`."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from onnxq import registry

_HEAD = """# Passes

One file per pass in `onnxq_passes/`; a pass is a frozen dataclass whose fields are its settings. Pipelines
(`onnxq_passes/pipelines/*.yaml`) name passes by the names below, which `pyproject.toml` registers under `onnxq.passes`.
This page is generated: `python -m onnxq_passes.catalogue > passes/README.md`.
"""


def catalogue() -> str:
    """Markdown: one section per pass of this package, by name, with its rule, stages and settings."""
    parts = [_HEAD]
    for name in registry.names(registry.PASSES):
        pass_class = registry.load(registry.PASSES, name)
        if pass_class.__module__.startswith("onnxq_passes."):
            parts.append(_section(name, pass_class))
    return "\n".join(parts)


def _section(name: str, pass_class: Any) -> str:
    rule = inspect.cleandoc(pass_class.__doc__ or "").split("\n\nAttributes:")[0]
    settings = ", ".join(f"`{f.name}={f.default!r}`" for f in dataclasses.fields(pass_class)) or "none"
    stages = f"{pass_class.takes.value} -> {pass_class.gives.value}"
    return f"## {name}\n\n{rule}\n\nStage: {stages}. Settings: {settings}.\n"


if __name__ == "__main__":
    print(catalogue(), end="")
