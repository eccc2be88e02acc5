"""`onnxq passes` lists what is registered and describes a pass by its dataclass fields."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from onnxq import registry
from onnxq.pipeline.base import Pass, Stage


@dataclass(frozen=True, kw_only=True)
class Polish(Pass):
    """Make it shine.

    More words that the list leaves out.
    """

    gives: ClassVar[Stage] = Stage.QDQ
    needs: ClassVar[frozenset[str]] = frozenset({"plan"})
    strength: float = 0.5
    ops: tuple[str, ...] = ("Relu",)


@dataclass(frozen=True, kw_only=True)
class Plain(Pass):
    """Nothing to set."""


@pytest.fixture
def two_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"polish": Polish, "plain": Plain}
    monkeypatch.setattr(registry, "names", lambda group: sorted(table) if group == registry.PASSES else [])
    monkeypatch.setattr(registry, "load", lambda group, name: table[name])
    monkeypatch.setattr(registry, "distribution", lambda group, name: "acme")


@pytest.mark.usefixtures("two_passes")
def test_the_list(onnxq: Any) -> None:
    outcome = onnxq("passes")
    assert outcome.code == 0
    assert outcome.out.splitlines() == ["plain   Nothing to set.  (acme)", "polish  Make it shine.  (acme)"]


@pytest.mark.usefixtures("two_passes")
def test_one_pass_with_its_settings(onnxq: Any) -> None:
    assert onnxq("passes", "polish").out.splitlines() == [
        "polish: Make it shine.",
        "from acme; takes float, gives qdq; needs plan",
        "  strength: float = 0.5",
        "  ops: tuple[str, ...] = ('Relu',)",
    ]
    assert onnxq("passes", "plain").out.splitlines()[-1] == "no settings"


@pytest.mark.usefixtures("two_passes")
def test_json(onnxq: Any) -> None:
    assert [p["name"] for p in json.loads(onnxq("passes", "--json").out)] == ["plain", "polish"]
    assert json.loads(onnxq("passes", "polish", "--json").out) == {
        "name": "polish",
        "summary": "Make it shine.",
        "package": "acme",
        "takes": "float",
        "gives": "qdq",
        "needs": ["plan"],
        "settings": [
            {"name": "strength", "type": "float", "default": "0.5"},
            {"name": "ops", "type": "tuple[str, ...]", "default": "('Relu',)"},
        ],
    }


def test_the_real_passes_are_listed(onnxq: Any) -> None:
    outcome = onnxq("passes")
    assert outcome.code == 0
    assert [line.split()[0] for line in outcome.out.splitlines()] == registry.names(registry.PASSES)
    assert all("(onnxq)" in line for line in outcome.out.splitlines() if line.startswith("eliminate-"))
