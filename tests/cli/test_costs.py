"""`onnxq costs`: what is looked at is what was measured and said, not how long it took."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tiny import save_classifier, save_samples

from onnxq.costs import files
from onnxq.costs.key import CostKey
from onnxq.costs.measure import Case
from onnxq.costs.table import Cost, CostTable, Machine, this_machine
from onnxq.workbench import costs

ELSEWHERE = Machine(cpu="Another CPU", family="x86_64", features=(), onnxruntime="1.99")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    save_classifier(tmp_path / "m.onnx")
    save_samples(tmp_path / "s.npz", 8)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONNXQ_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(costs, "_RUNS", (2, 2))
    return tmp_path


def kinds(path: Path) -> set[str]:
    return set(files.load(path).by_kind)


@pytest.mark.parametrize("calib", [(), ("--calib", "s.npz")])
def test_a_float_model_is_measured_in_both_worlds(place: Path, onnxq: Any, calib: tuple[str, ...]) -> None:
    done = onnxq("costs", "measure", "m.onnx", *calib, "-o", "c.json")
    assert done.code == 0, done.err
    assert kinds(place / "c.json") >= {"Conv", "QLinearConv", "QuantizeLinear", "Gemm", "QGemm"}
    rows = re.findall(r"^(as it is|normalised|int8) +([\d.]+) +([\d.]+) +([\d.]+) +\d+% +2$", done.out, re.MULTILINE)
    assert [row[0] for row in rows] == ["as it is", "normalised", "int8"]
    assert all(float(number) > 0 for row in rows for number in row[1:])
    table = files.load(place / "c.json")
    assert f"c.json: {len(table)} kernels measured on {this_machine()}" in done.out
    assert files.load_cached() == table


def test_the_prediction_of_a_file_beside_what_is_measured(place: Path, onnxq: Any) -> None:
    assert onnxq("costs", "measure", "m.onnx", "-o", "c.json", "--no-cache").code == 0
    done = onnxq("costs", "measure", "m.onnx", "--against", "c.json")
    assert done.code == 0, done.err
    assert len(re.findall(r" 100% +2$", done.out, re.MULTILINE)) == 3
    save(place / "e.json", ELSEWHERE, 1e-6)
    assert "measured elsewhere (Another CPU" in onnxq("costs", "measure", "m.onnx", "--against", "e.json").out


def test_threads_are_part_of_the_keys(place: Path, onnxq: Any) -> None:
    assert onnxq("costs", "measure", "m.onnx", "--threads", 2, "-o", "c.json", "--no-cache").code == 0
    assert {key.threads for key in files.load(place / "c.json").costs} == {2}
    assert files.load_cached() is None


def test_without_a_file_the_cache_holds_it(place: Path, onnxq: Any) -> None:
    done = onnxq("costs", "measure", "m.onnx")
    assert done.code == 0
    assert str(files.cache_file()) in done.out
    assert files.load_cached() is not None


@pytest.mark.parametrize("calib", [(), ("--calib", "s.npz")])
def test_a_quantized_model_is_measured_as_it_is(place: Path, onnxq: Any, calib: tuple[str, ...]) -> None:
    made = onnxq("quantize", "m.onnx", "--calib", "s.npz", "--no-validate", "--placement", "rules", "-o", "q.onnx")
    assert made.code == 0, made.err
    done = onnxq("costs", "measure", "q.onnx", *calib, "-o", "c.json")
    assert done.code == 0, done.err
    assert "q.onnx is quantized already: only its own kernels were measured" in done.out
    assert "normalised" not in done.out
    assert "QLinearConv" in kinds(place / "c.json")


def test_common_ops(place: Path, onnxq: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "cases", lambda: [Case(op="Add", shapes=((4,), (4,)), out=(4,))])
    done = onnxq("costs", "measure", "--common", "-o", "c.json")
    assert done.code == 0, done.err
    assert kinds(place / "c.json") == {"Add", "QLinearAdd", "QuantizeLinear", "DequantizeLinear"}
    assert all(cost.alone and not cost.context for cost in files.load(place / "c.json").costs.values())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name what to measure: either a MODEL or --common"),
        (("m.onnx", "--common"), "name what to measure: either a MODEL or --common"),
        (("m.onnx", "--no-cache"), "nothing would be kept: give -o FILE, or leave --no-cache out"),
        (("none.onnx",), "none.onnx does not exist"),
        (("m.onnx", "-o", "none/c.json"), "the folder none does not exist"),
        (("m.onnx", "--calib", "none"), "none"),
    ],
)
def test_what_cannot_be_measured(place: Path, onnxq: Any, arguments: tuple[str, ...], said: str) -> None:
    done = onnxq("costs", "measure", *arguments)
    assert done.code == 2
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1


def save(path: Path, machine: Machine, *seconds: float) -> None:
    keys = [CostKey(op=f"Op{i}", inputs=(), outputs=()) for i in range(len(seconds))]
    table = CostTable(machine=machine, costs={k: Cost(context=(s,)) for k, s in zip(keys, seconds, strict=True)})
    files.save(table, path)


def test_show(place: Path, onnxq: Any) -> None:
    save(place / "c.json", this_machine(), *(i * 1e-6 for i in range(1, 36)))
    done = onnxq("costs", "show", "c.json")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0] == f"35 kernels, measured on {this_machine()}"
    assert lines[2].split()[:4] == ["35.00", "0.00", "1", "1"]
    assert lines[-1] == "5 more: --all"
    assert len(onnxq("costs", "show", "c.json", "--all").out.splitlines()) == 2 + 35


def test_show_as_json_and_from_elsewhere(place: Path, onnxq: Any) -> None:
    save(place / "c.json", ELSEWHERE, 1e-6, 2e-6)
    assert "measured elsewhere (Another CPU, ONNX Runtime 1.99)" in onnxq("costs", "show", "c.json").out
    plain = json.loads(onnxq("costs", "show", "c.json", "--json").out)
    assert plain["machine"]["cpu"] == "Another CPU"
    assert plain["foreign"]
    assert [entry["seconds"] for entry in plain["costs"]] == [2e-6, 1e-6]


def test_merge(place: Path, onnxq: Any) -> None:
    save(place / "a.json", ELSEWHERE, 1e-6)
    save(place / "b.json", ELSEWHERE, 3e-6, 2e-6)
    done = onnxq("costs", "merge", "a.json", "b.json", "-o", "c.json")
    assert done.code == 0
    assert "c.json: 2 kernels" in done.out
    a, b, c = (files.load(place / f"{name}.json") for name in "abc")
    assert c == a.merge(b)
    assert c.costs[CostKey(op="Op0", inputs=(), outputs=())].context == (1e-6, 3e-6)


def test_merge_of_two_machines(place: Path, onnxq: Any) -> None:
    save(place / "a.json", ELSEWHERE, 1e-6)
    save(place / "b.json", this_machine(), 1e-6)
    done = onnxq("costs", "merge", "a.json", "b.json", "-o", "c.json")
    assert done.code == 2
    assert "costs of different machines" in done.err
    assert not (place / "c.json").exists()


def test_a_file_that_is_none(place: Path, onnxq: Any) -> None:
    for arguments in (("show", "s.npz"), ("merge", "s.npz", "-o", "c.json"), ("show", "none.json")):
        done = onnxq("costs", *arguments)
        assert done.code == 2
        assert len(done.err.strip().splitlines()) == 1
