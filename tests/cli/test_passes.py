"""`onnxq passes` lists what is registered and describes a pass by its dataclass fields."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from onnxq import registry
from onnxq.pipeline.base import Pass, Report, Stage
from onnxq.workbench.example import Example


@dataclass(frozen=True, kw_only=True)
class Polish(Pass):
    """Make it shine.

    More words that the list leaves out.

    Attributes:
        strength, ops: how much it shines,
            and where.
    """

    gives: ClassVar[Stage] = Stage.QDQ
    needs: ClassVar[frozenset[str]] = frozenset({"plan"})
    strength: float = 0.5
    ops: tuple[str, ...] = ("Relu",)


@dataclass(frozen=True, kw_only=True)
class Plain(Pass):
    """Nothing to set."""


def example(name: str) -> Example | None:
    """Only one of the two passes has an example."""
    return Example("graph a\n", "graph b\n", Report()) if name == "polish" else None


@pytest.fixture
def two_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"polish": Polish, "plain": Plain}
    monkeypatch.setattr(registry, "names", lambda group: sorted(table) if group == registry.PASSES else [])
    monkeypatch.setattr(registry, "load", lambda group, name: table[name])
    monkeypatch.setattr(registry, "distribution", lambda group, name: "acme")
    monkeypatch.setattr("onnxq.workbench.example.example", example)


@pytest.mark.usefixtures("two_passes")
def test_the_list(onnxq: Any) -> None:
    outcome = onnxq("passes")
    assert outcome.code == 0
    assert outcome.out.splitlines() == ["plain   Nothing to set.  (acme)", "polish  Make it shine.  (acme)"]


@pytest.mark.usefixtures("two_passes")
def test_one_pass_with_rule_settings_and_example(onnxq: Any) -> None:
    assert onnxq("passes", "polish").out.splitlines() == [
        "polish: Make it shine.",
        "from acme; takes float, gives qdq; needs plan",
        "  strength: float = 0.5  # how much it shines, and where.",
        "  ops: tuple[str, ...] = ('Relu',)  # how much it shines, and where.",
        "",
        "More words that the list leaves out.",
        "",
        "before: graph a",
        "",
        "after: graph b",
    ]


@pytest.mark.usefixtures("two_passes")
def test_a_pass_without_example_says_nothing_about_it(onnxq: Any) -> None:
    assert onnxq("passes", "plain").out.splitlines() == [
        "plain: Nothing to set.",
        "from acme; takes float, gives float",
        "no settings",
    ]
    assert "example" not in json.loads(onnxq("passes", "plain", "--json").out)


@pytest.mark.usefixtures("two_passes")
def test_json(onnxq: Any) -> None:
    assert [p["name"] for p in json.loads(onnxq("passes", "--json").out)] == ["plain", "polish"]
    about = "how much it shines, and where."
    assert json.loads(onnxq("passes", "polish", "--json").out) == {
        "name": "polish",
        "summary": "Make it shine.",
        "rule": "More words that the list leaves out.",
        "package": "acme",
        "takes": "float",
        "gives": "qdq",
        "needs": ["plan"],
        "settings": [
            {"name": "strength", "type": "float", "default": "0.5", "about": about},
            {"name": "ops", "type": "tuple[str, ...]", "default": "('Relu',)", "about": about},
        ],
        "example": {"before": "graph a\n", "after": "graph b\n"},
    }


def test_the_real_passes_are_listed(onnxq: Any) -> None:
    outcome = onnxq("passes")
    assert outcome.code == 0
    assert [line.split()[0] for line in outcome.out.splitlines()] == registry.names(registry.PASSES)
    assert all("(onnxq)" in line for line in outcome.out.splitlines() if line.startswith("eliminate-"))


OURS = [n for n in registry.names(registry.PASSES) if registry.distribution(registry.PASSES, n) == "onnxq"]


@pytest.mark.parametrize("name", OURS)
def test_every_pass_of_ours_is_described(name: str, onnxq: Any) -> None:
    """With its rule, a word about each setting, and the example that the catalogue shows."""
    page = (Path(__file__).parents[2] / "passes" / "README.md").read_text(encoding="utf-8")
    described = json.loads(onnxq("passes", name, "--json").out)
    assert described["rule"] and described["rule"] in page
    assert all(setting["about"] for setting in described["settings"])
    assert f"before: {described['example']['before']}\nafter:  {described['example']['after']}" in page
    shown = onnxq("passes", name).out
    assert described["example"]["before"] in shown and described["example"]["after"] in shown


@dataclass(frozen=True, kw_only=True)
class Broken(Pass):
    """Fails on every graph."""

    def run(self, graph: object, context: object) -> Report:
        """Fail."""
        raise ValueError("no such wire")


def test_an_example_that_does_not_run_is_a_sentence(
    onnxq: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fragile" / "examples").mkdir(parents=True)
    (tmp_path / "fragile" / "__init__.py").touch()
    (tmp_path / "fragile" / "examples" / "broken.txt").write_text("(float[2] x) => (float[2] y) { y = Relu(x) }")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(Broken, "__module__", "fragile.passes")
    monkeypatch.setattr(registry, "load", lambda group, name: Broken)
    monkeypatch.setattr(registry, "distribution", lambda group, name: "acme")
    assert onnxq("passes", "broken").sentence == (
        f'the example {tmp_path / "fragile" / "examples" / "broken.txt"} of the pass "broken" does not run '
        "(ValueError: no such wire): repair it, or report it to the makers of acme"
    )
