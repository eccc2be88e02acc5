from __future__ import annotations

from pathlib import Path

from onnxq import registry
from onnxq_passes.catalogue import catalogue

PAGE = Path(__file__).parents[2] / "passes" / "README.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == catalogue(), "run python -m onnxq_passes.catalogue > passes/README.md"


def test_every_pass_of_ours_is_on_it() -> None:
    names = [n for n in registry.names(registry.PASSES) if registry.distribution(registry.PASSES, n) == "onnxq"]
    assert len(names) >= 12
    for name in names:
        assert f"## {name}\n" in catalogue()


def test_names_are_the_kebab_case_of_the_classes_and_of_the_files() -> None:
    for name in registry.names(registry.PASSES):
        if registry.distribution(registry.PASSES, name) == "onnxq":
            pass_class = registry.load(registry.PASSES, name)
            assert pass_class.__module__ == f"onnxq_passes.{name.replace('-', '_')}"
            assert pass_class.__name__.lower() == name.replace("-", "")
