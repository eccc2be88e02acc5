"""docs/kinds.md: its command is run, its settings are those of the code, its tables those that the script prints."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import onnx
import pages
import pytest
import tiny

from onnxq.targets.target import load_target

PAGE = pages.page("kinds.md")
sys.path.insert(0, str(pages.DOCS))


def test_the_commands_make_weights_of_4_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, onnxq: Any) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.save_classifier(Path("model.onnx"))
    pages.follow(PAGE, onnxq)
    assert {n.op_type for n in onnx.load("weights4.onnx").graph.node} & {"MatMulNBits"}


def test_every_kind_of_the_cpu_is_on_the_page() -> None:
    named = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", PAGE, flags=re.MULTILINE))))
    assert named == set(load_target("cpu").kinds)


def test_the_tables_are_those_of_the_script() -> None:
    """Forms and facts that do not depend on the clock."""
    script: Any = importlib.import_module("measure_kinds")
    for form in list(script.FORMS)[1:]:
        assert f"| {form} |" in PAGE
    for row in script.wide():
        assert f"| {' | '.join(row)} |" in PAGE
