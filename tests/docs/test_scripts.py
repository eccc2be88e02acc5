"""The scripts beside the pages and the models are no part of the package, and no type checker reads them: whatever
they import from it is there."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted([*ROOT.glob("docs/*.py"), *ROOT.glob("models/*.py")])
OURS = ("onnxq", "onnxq_passes", "onnxq_calibration")


def missing(source: str) -> list[str]:
    """Names that the script imports from our packages and that are not there."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ImportFrom) or (node.module or "").split(".")[0] not in OURS:
            continue
        try:
            module = importlib.import_module(node.module or "")
        except ModuleNotFoundError:
            found.append(node.module or "")
            continue
        for name in node.names:
            if not hasattr(module, name.name):
                try:
                    importlib.import_module(f"{node.module}.{name.name}")
                except ModuleNotFoundError:
                    found.append(f"{node.module}.{name.name}")
    return found


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_a_script_imports_is_there(script: Path) -> None:
    assert missing(script.read_text(encoding="utf-8")) == []


def test_what_is_gone_is_named() -> None:
    lines = (
        "from onnxq.workbench.planning import ready, open_source",
        "from onnxq.no import x",
        "from onnxq.ir import walk",
    )
    assert missing("\n".join(lines)) == ["onnxq.workbench.planning.open_source", "onnxq.no"]
