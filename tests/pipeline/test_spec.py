"""Pipeline files: includes, settings, every fault with its place, and the way back to YAML."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from onnxq import registry
from onnxq.errors import ConfigError, UnknownNameError
from onnxq.pipeline.base import Pass, Stage
from onnxq.pipeline.manager import Pipeline
from onnxq.pipeline.spec import build, load_pipeline
from onnxq.pipeline.write import to_yaml


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text: str, name: str = "p.yaml") -> str:
    Path(name).write_text(text)
    return name


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_pipeline(write(text))
    return str(caught.value).splitlines()


def names(pipeline: Pipeline) -> list[str]:
    return [step.name for step in pipeline.steps]


def test_everything_that_a_file_may_say() -> None:
    made = load_pipeline(
        write(
            "target: tensorrt\n"
            "calibration: {method: percentile, settings: {percentile: 99.5}, limit: 3, data: calib.npz}\n"
            'keep_float: ["head/*"]\n'
            "passes: [deduplicate-names, {fold-constants: {limit: 10}}, insert-qdq]\n"
        )
    )
    assert (made.target, made.keep_float, made.base) == ("tensorrt", ("head/*",), Path())
    assert (made.calibration.method, made.calibration.limit, made.calibration.data) == ("percentile", 3, "calib.npz")
    assert made.calibration.settings == {"percentile": 99.5}
    assert names(made) == ["deduplicate-names", "fold-constants", "insert-qdq"]
    assert made.steps[1].body.limit == 10  # type: ignore[attr-defined]


def test_includes_by_list_file_and_registered_name() -> None:
    Path("sub").mkdir()
    write("passes: [merge-transposes, include: near.yaml]", "sub/other.yaml")
    write("passes: [eliminate-dead]", "sub/near.yaml")
    made = load_pipeline(
        write(
            "pipelines:\n  clean: [deduplicate-names, fold-constants]\n  both: [{include: clean}, eliminate-identity]\n"
            "passes: [{include: both}, {include: sub/other.yaml}, {include: cpu}]\n"
        )
    )
    start = ["deduplicate-names", "fold-constants", "eliminate-identity", "merge-transposes", "eliminate-dead"]
    assert names(made) == start + names(load_pipeline("cpu"))
    assert made.target == "cpu", "that of the included pipeline, since the file names none"


def test_includes_in_a_list_of_a_job() -> None:
    write("passes: [eliminate-dead]", "other.yaml")
    made = build("job", [{"include": "other.yaml"}, {"include": "tensorrt"}], Path())
    assert names(made) == ["eliminate-dead", *names(load_pipeline("tensorrt"))]
    assert made.target == "tensorrt"


def test_every_fault_of_every_file_with_its_place() -> None:
    write("passes:\n  - eliminate-ded\n", "other.yaml")
    assert faults(
        "traget: cpu\n"
        "calibration: {method: percentil, setings: 1}\n"
        "pipelines:\n"
        "  clean:\n"
        "    - fold-constant\n"
        "passes:\n"
        "  - fold-constants: {limt: 3}\n"
        "  - share-initializers: {least_bytes: many}\n"
        "  - include: clan\n"
        "  - include: other.yaml\n"
        "  - include: missing.yaml\n"
    ) == [
        'p.yaml:1:1: the file has no key "traget": did you mean "target"?',
        'p.yaml:2:23: calibration.method: there is no method "percentil": did you mean "percentile"?',
        'p.yaml:2:34: calibration has no key "setings": did you mean "settings"?',
        'p.yaml:5:7: pipelines.clean[0]: there is no pass "fold-constant": did you mean "fold-constants"?',
        'p.yaml:7:22: fold-constants has no key "limt": did you mean "limit"?',
        'p.yaml:8:39: share-initializers.least_bytes takes a whole number, not the text "many"',
        'p.yaml:9:14: passes[2]: there is no pipeline "clan": did you mean "clean"?',
        "p.yaml:11:14: passes[4]: there is no file missing.yaml: check the path",
        'other.yaml:2:5: passes[0]: there is no pass "eliminate-ded": did you mean "eliminate-dead"?',
    ]


def test_cycles_through_lists_and_files() -> None:
    assert faults("pipelines:\n  a: [{include: b}]\n  b: [{include: a}]\npasses: [{include: a}]\n")[0] == (
        "p.yaml:2:17: pipelines.a[0] includes itself (p.yaml#b -> p.yaml#a -> p.yaml#b): take one of these includes out"
    )
    write("passes: [{include: p.yaml}]", "q.yaml")
    (line,) = faults("passes: [{include: q.yaml}]")
    assert line.startswith("q.yaml:1:20: passes[0] includes itself (p.yaml -> q.yaml -> p.yaml)")


def test_the_same_list_twice_is_no_cycle() -> None:
    made = load_pipeline(write("pipelines: {a: [eliminate-dead]}\npasses: [{include: a}, {include: a}]\n"))
    assert names(made) == ["eliminate-dead", "eliminate-dead"]


def test_an_included_pipeline_has_the_same_target() -> None:
    (line,) = faults("target: tensorrt\npasses: [{include: cpu}]")
    assert line == (
        "p.yaml:2:20: passes[0]: the pipeline cpu is for the target cpu, this one for tensorrt: "
        "include one for the same target"
    )
    assert load_pipeline(write("target: cpu\npasses: [{include: cpu}]")).target == "cpu"


def test_an_unknown_target() -> None:
    assert faults("target: cup\npasses: []") == ['p.yaml:1:9: there is no target "cup": did you mean "cpu"?']


def test_the_order_is_checked_without_a_model() -> None:
    (line,) = faults("passes: [insert-qdq, merge-transposes]")
    assert line == (
        'pipeline p.yaml: pass "merge-transposes" takes a graph in stage float, but behind "insert-qdq" it is in '
        "stage qdq: move the pass"
    )


def test_a_file_without_passes_or_with_another_form() -> None:
    assert faults("target: cpu") == ['p.yaml:1:1: the file lacks the key "passes": add it']
    assert faults("passes: fold-constants")[0].startswith("p.yaml:1:9: passes takes a list")
    assert faults("passes: [{include: [a]}]")[0].startswith("p.yaml:1:20: passes[0].include takes a text")
    assert "write {include: name}" in faults("passes: [include]")[0]


def test_unknown_pipelines() -> None:
    with pytest.raises(UnknownNameError, match='there is no pipeline "cup": did you mean "cpu"'):
        load_pipeline("cup")
    with pytest.raises(ConfigError, match=r"there is no pipeline file nowhere\.yaml"):
        load_pipeline("nowhere.yaml")


@pytest.mark.parametrize("name", registry.names(registry.PIPELINES))
def test_what_is_shown_is_the_same_pipeline(name: str) -> None:
    made = load_pipeline(name)
    again = load_pipeline(write(to_yaml(made)))
    assert replace(again, name=made.name, base=made.base) == made
    assert to_yaml(again) == to_yaml(made)


@dataclass(frozen=True, kw_only=True)
class Odd(Pass):
    """Settings that YAML could take for something else."""

    word: str = "no"
    number: str = "1e-3"
    ratio: float = 1e-7
    path: Path = Path("a/b")
    several: tuple[str, ...] = ("x: y", "ü")
    nothing: int | None = None


def test_settings_come_back_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    table: dict[str, Any] = {"odd": Odd}
    monkeypatch.setattr(registry, "load", lambda group, name: table[name])
    made = load_pipeline(write("passes: [odd, {odd: {word: 'yes', nothing: 3}}]"))
    again = load_pipeline(write(to_yaml(made)))
    assert [s.body for s in again.steps] == [Odd(), Odd(word="yes", nothing=3)]
    listed = build("job", [{"odd": {"word": "on", "number": "1e5"}}])
    assert listed.steps[0].body == Odd(word="on", number="1e5")
    assert Odd.takes is Stage.FLOAT
