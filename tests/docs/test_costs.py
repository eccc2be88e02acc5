"""The blocks of docs/costs.md are run as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import tiny

from onnxq.costs import files
from onnxq.workbench import costs

PAGE = (Path(__file__).parents[2] / "docs/costs.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, onnxq: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONNXQ_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(costs, "_RUNS", (2, 2))
    tiny.save_classifier(Path("model.onnx"))
    tiny.save_samples(Path("calib.npz"))
    for command in (c for block in blocks("sh") for c in block.splitlines()):
        words = shlex.split(command)
        assert words[0] == "onnxq"
        done = onnxq(*words[1:])
        assert done.code == 0, done.err
    assert {k.threads for k in files.load(Path("both.json")).costs} == {1, 2}
    for block in blocks("python"):
        exec(compile(block, "docs/costs.md", "exec"), {})


def test_the_page_names_the_schema() -> None:
    assert f'"schema": "{files.SCHEMA}"' in PAGE
    assert f'"version": {files.VERSION}' in PAGE
