"""The one door for plugins: looked up by name, imported when used, a sentence for whatever is wrong."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import onnxq_calibration
import onnxq_passes
from onnxq import registry
from onnxq.errors import UnknownNameError, UsageError
from onnxq.pipeline.base import Pass


class Package(Distribution):
    """An installed package of this name."""

    def __init__(self, name: str) -> None:
        self._text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"

    def read_text(self, filename: str) -> str | None:
        return self._text if filename == "METADATA" else None

    def locate_file(self, path: Any) -> Any:
        raise AssertionError("nobody asks for files")


Register = Callable[..., None]


def point(name: str, value: str, package: str | None = None) -> EntryPoint:
    made = EntryPoint(name=name, value=value, group=registry.METRICS)
    if package is not None:
        vars(made)["dist"] = Package(package)
    return made


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Iterator[Register]:
    """`register(point(...), ...)`: these entry points are installed and no others."""

    def install(*points: EntryPoint) -> None:
        def entry_points(*, group: str) -> Sequence[EntryPoint]:
            return [p for p in points if p.group == group]

        monkeypatch.setattr(registry, "entry_points", entry_points)
        registry._table.cache_clear()

    yield install
    registry._table.cache_clear()


def test_names_are_sorted_and_nothing_is_imported(register: Register) -> None:
    register(point("zeta", "no.such.module:Z"), point("alpha", "no.such.module:A"))
    assert registry.names(registry.METRICS) == ["alpha", "zeta"]
    assert registry.names(registry.PASSES) == []


def test_load_gives_the_object(register: Register) -> None:
    register(point("decimal", "decimal:Decimal", "acme"))
    assert registry.load(registry.METRICS, "decimal").__name__ == "Decimal"
    assert registry.distribution(registry.METRICS, "decimal") == "acme"


def test_a_point_without_package_is_named_by_its_value(register: Register) -> None:
    register(point("decimal", "decimal:Decimal"))
    assert registry.distribution(registry.METRICS, "decimal") == "decimal:Decimal"


def test_an_unknown_name_proposes_the_nearest(register: Register) -> None:
    register(point("top1", "a:B"))
    with pytest.raises(UnknownNameError, match=r'^there is no metric "topl": did you mean "top1"\?$'):
        registry.load(registry.METRICS, "topl")


def test_a_clash_names_both_packages(register: Register) -> None:
    register(point("top1", "a:B", "onnxq"), point("top1", "c:D", "acme"))
    with pytest.raises(
        UsageError, match=r'^two packages register the metric "top1" \(acme and onnxq\): uninstall one$'
    ):
        registry.names(registry.METRICS)


def test_the_same_point_found_twice_is_no_clash(register: Register) -> None:
    register(point("top1", "a:B", "onnxq"), point("top1", "a:B", "onnxq"))
    assert registry.names(registry.METRICS) == ["top1"]


@pytest.mark.parametrize("value", ["no_such_module_at_all:Thing", "decimal:NoSuchThing"])
def test_a_plugin_that_cannot_be_imported_is_named_with_its_package(register: Register, value: str) -> None:
    register(point("broken", value, "acme"))
    with pytest.raises(
        UsageError, match=r'^the metric "broken" of acme cannot be imported \(\w+: .*\): repair or uninstall acme$'
    ):
        registry.load(registry.METRICS, "broken")


def test_resource_is_a_file_in_the_package() -> None:
    path = registry.resource(registry.TARGETS, "cpu")
    assert path.name == "cpu.yaml" and path.is_file()


def test_every_registered_name_of_ours_can_be_loaded() -> None:
    for group in (registry.PASSES, registry.CALIBRATORS, registry.METRICS, registry.DATA):
        for name in registry.names(group):
            assert registry.load(group, name) is not None
    for group in (registry.PIPELINES, registry.TARGETS):
        for name in registry.names(group):
            assert registry.resource(group, name).is_file(), name


def test_every_pass_on_disk_is_registered_under_the_name_of_its_file() -> None:
    on_disk = {
        m.removeprefix("onnxq_passes.").replace("_", "-"): c
        for m, c in classes(onnxq_passes)
        if issubclass(c, Pass) and not m.startswith("onnxq_passes._")  # bases that passes share
    }
    assert {n: registry.load(registry.PASSES, n) for n in ours(registry.PASSES)} == on_disk


def test_every_calibrator_on_disk_is_registered() -> None:
    on_disk = {c for _, c in classes(onnxq_calibration) if hasattr(c, "observers") and hasattr(c, "range")}
    assert {registry.load(registry.CALIBRATORS, n) for n in ours(registry.CALIBRATORS)} == on_disk


def classes(package: ModuleType) -> Iterator[tuple[str, type[Any]]]:
    """(module, class) for each public class that a module of the package defines."""
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        for name, cls in inspect.getmembers(importlib.import_module(found.name), inspect.isclass):
            if cls.__module__ == found.name and not name.startswith("_"):
                yield found.name, cls


def ours(group: str) -> list[str]:
    return [n for n in registry.names(group) if registry.distribution(group, n) == "onnxq"]


def test_reference_to_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def score(): return 7\n")
    assert registry.load_reference("mine.py:score", tmp_path, "metric")() == 7


def test_reference_to_a_module(tmp_path: Path) -> None:
    assert registry.load_reference("decimal:Decimal", tmp_path, "metric").__name__ == "Decimal"


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("score", r'^metric "score" is not of the form module:name or file\.py:name$'),
        ("nowhere.py:score", r'^metric "nowhere\.py:score": there is no file .*nowhere\.py$'),
        (
            "no_such_module_at_all:x",
            r'^metric "no_such_module_at_all:x": module no_such_module_at_all cannot be imported',
        ),
        ("mine.py:scor", r'^metric "mine\.py:scor": mine\.py has no "scor", did you mean "score"\?$'),
        (
            "broken.py:x",
            r'^metric "broken\.py:x": broken\.py cannot be imported \(ZeroDivisionError: division by zero\)$',
        ),
    ],
)
def test_references_that_lead_nowhere(tmp_path: Path, reference: str, sentence: str) -> None:
    (tmp_path / "mine.py").write_text("def score(): return 7\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    for _ in range(2):  # a file that failed once fails again
        with pytest.raises(UsageError, match=sentence):
            registry.load_reference(reference, tmp_path, "metric")
