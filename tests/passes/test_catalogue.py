from __future__ import annotations

import functools
from pathlib import Path

import pytest

from onnxq import registry
from onnxq.errors import UsageError
from onnxq.workbench.example import example
from onnxq_passes import catalogue as page
from onnxq_passes.catalogue import catalogue

PASSES = Path(__file__).parents[2] / "passes"
PAGE = PASSES / "README.md"
OURS = [n for n in registry.names(registry.PASSES) if registry.distribution(registry.PASSES, n) == "onnxq"]
LINES = 22
"""Of an example, with its constants: more is no example."""


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == catalogue(), "run python -m onnxq_passes.catalogue > passes/README.md"


def test_every_pass_of_ours_is_on_it() -> None:
    assert len(OURS) >= 12
    page = catalogue()
    for name in OURS:
        assert f"## {name}\n" in page


@pytest.mark.parametrize("name", OURS)
def test_the_example_fires(name: str) -> None:
    made = example(name)
    assert made is not None, f"write passes/onnxq_passes/examples/{name}.txt"
    refusals = made.report.refusals
    assert made.report.rewrites > 0, f"{name} leaves passes/onnxq_passes/examples/{name}.txt alone: {refusals}"
    assert made.before != made.after
    assert max(len(made.before.splitlines()), len(made.after.splitlines())) <= LINES
    assert made.before in catalogue_text() and made.after in catalogue_text()


@functools.cache
def catalogue_text() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_no_example_without_a_pass() -> None:
    assert sorted(OURS) == sorted(f.stem for f in (PASSES / "onnxq_passes" / "examples").glob("*.txt"))


def test_a_missing_example_says_what_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "example", lambda name: None)
    with pytest.raises(UsageError, match=rf"passes/onnxq_passes/examples/{OURS[0]}\.txt"):
        catalogue()


def test_names_are_the_kebab_case_of_the_classes_and_of_the_files() -> None:
    for name in registry.names(registry.PASSES):
        if registry.distribution(registry.PASSES, name) == "onnxq":
            pass_class = registry.load(registry.PASSES, name)
            assert pass_class.__module__ == f"onnxq_passes.{name.replace('-', '_')}"
            assert pass_class.__name__.lower() == name.replace("-", "")
