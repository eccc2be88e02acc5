"""Every command end to end on a model of five nodes: what it prints, what it writes, its exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import tiny

QUANTIZE = ("quantize", "model.onnx", "--calib", "calib.npz", "--threads", "1", "--config", "quick.yaml")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and samples, which is the current one."""
    monkeypatch.chdir(tmp_path)
    tiny.save_classifier(Path("model.onnx"))
    tiny.save_samples(Path("calib.npz"))
    Path("quick.yaml").write_text("model: model.onnx\nplacement: {by: rules}\nvalidate: {runs: 3, warmup: 0}\n")
    return tmp_path


@pytest.fixture
def int8(here: Path, onnxq: Any) -> Path:
    """The quantized model."""
    outcome = onnxq(*QUANTIZE, "--no-validate")
    assert outcome.code == 0, outcome.err
    return here / "model.int8.onnx"


def test_quantize_writes_beside_the_model(here: Path, onnxq: Any) -> None:
    Path("sub").mkdir()
    tiny.save_classifier(Path("sub/net.v2.onnx"))
    outcome = onnxq("quantize", "sub/net.v2.onnx", "--calib", "calib.npz", "--threads", "1", "--no-validate")
    assert outcome.code == 0, outcome.err
    assert sorted(p.name for p in Path("sub").iterdir()) == ["net.v2.int8.onnx", "net.v2.onnx"]


def test_quantize_prints_a_report_and_nothing_else(onnxq: Any) -> None:
    outcome = onnxq(*QUANTIZE, "--metric", "top1")
    assert outcome.code == 0, outcome.err
    assert outcome.complaints == []
    assert "top1" in outcome.out
    assert "model.int8.onnx" in outcome.out
    assert "\x1b" not in outcome.out


def test_quantize_for_machines(onnxq: Any) -> None:
    outcome = onnxq(*QUANTIZE, "--metric", "top1", "--json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert result["command"] == "quantize"
    assert result["candidate"] == "model.int8.onnx"
    assert result["accuracy"]["metric"]["samples"] == 16
    assert result["sizes"]["candidate"] == Path("model.int8.onnx").stat().st_size


def test_the_report_goes_to_a_file_too(onnxq: Any) -> None:
    outcome = onnxq(*QUANTIZE, "--no-validate", "--report", "report.json")
    assert outcome.code == 0, outcome.err
    assert json.loads(Path("report.json").read_text())["command"] == "quantize"
    assert not outcome.out.startswith("{")


def test_a_report_that_cannot_be_written_is_refused_before_the_work(onnxq: Any) -> None:
    outcome = onnxq(*QUANTIZE, "--report", "no/such/report.json")
    assert outcome.code == 2
    assert outcome.sentence.startswith("no/such/report.json cannot be written: ")
    assert not Path("model.int8.onnx").exists()


def test_no_validate_compares_nothing(onnxq: Any) -> None:
    result = json.loads(onnxq(*QUANTIZE, "--no-validate", "--json").out)
    assert (result["accuracy"], result["latency"]) == (None, [])


def test_strict_passes_where_all_heavy_ops_are_int8(onnxq: Any) -> None:
    outcome = onnxq(*QUANTIZE, "--strict", "--no-validate")
    assert outcome.code == 0, outcome.err


def test_strict_fails_with_exit_code_1(onnxq: Any) -> None:
    outcome = onnxq(*QUANTIZE, "--strict", "--no-validate", "--keep-float", "conv")
    assert outcome.code == 1
    assert outcome.sentence.startswith("--strict: 1 of 2 heavy ops stay float, the first is Conv conv (")
    assert not Path("model.int8.onnx").exists()


def test_keep_float_keeps_float(onnxq: Any) -> None:
    result = json.loads(onnxq(*QUANTIZE, "--no-validate", "--keep-float", "conv", "--json").out)
    assert [op["name"] for op in result["coverage"]["ops"] if op["heavy"] and not op["integer"]] == ["conv"]


def test_two_runs_give_the_same_bytes(here: Path, onnxq_process: Any) -> None:
    files = []
    for seed in ("1", "2"):
        arguments = (*QUANTIZE, "--no-validate", "-o", f"{seed}.onnx")
        outcome = onnxq_process(*arguments, env={"PYTHONHASHSEED": seed}, cwd=here)
        assert outcome.code == 0, outcome.err
        files.append(Path(f"{seed}.onnx").read_bytes())
    assert files[0] == files[1]


def test_a_job_file_does_the_same(here: Path, onnxq: Any, int8: Path) -> None:
    Path("jobs").mkdir()
    Path("jobs/job.yaml").write_text(
        "model: ../model.onnx\noutput: ../job.onnx\ndata: {calib: {path: ../calib.npz}}\n"
        "calibration: {threads: 1}\nplacement: {by: rules}\nvalidate: {enabled: false}\n"
    )
    outcome = onnxq("quantize", "--config", "jobs/job.yaml")
    assert outcome.code == 0, outcome.err
    assert Path("job.onnx").read_bytes() == int8.read_bytes()


def test_inspect_a_float_model(onnxq: Any) -> None:
    model = json.loads(onnxq("inspect", "model.onnx", "--json").out)["model"]
    assert (model["opset"], model["ir_version"], model["quantized"]) == (17, 8, False)
    assert model["inputs"] == [{"name": "image", "dtype": "float32", "shape": ["N", 3, 8, 8]}]
    assert model["nodes"]["Conv"] == 1
    assert model["parameters"] == 8 * 27 + 8 + 8 * 4 + 4


def test_inspect_says_why_an_op_is_float(onnxq: Any) -> None:
    assert onnxq(*QUANTIZE, "--no-validate", "--keep-float", "conv").code == 0
    page = onnxq("inspect", "model.int8.onnx")
    assert page.code == 0
    (op,) = [
        o
        for o in json.loads(onnxq("inspect", "model.int8.onnx", "--json").out)["model"]["coverage"]["ops"]
        if o["name"] == "conv"
    ]
    assert not op["integer"]
    assert op["reason"]
    assert op["reason"].split(":")[0] in page.out


def test_inspect_what_is_no_model(onnxq: Any) -> None:
    assert onnxq("inspect", "calib.npz").code == 2


def test_validate(onnxq: Any, int8: Path) -> None:
    arguments = ("validate", "model.onnx", int8, "--data", "calib.npz", "--metric", "top1", "--samples", "8")
    outcome = onnxq(*arguments, "--threads", "1", "--json", "--config", "quick.yaml")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert result["command"] == "validate"
    assert result["accuracy"]["metric"]["samples"] == 8
    assert len(result["latency"]) >= 1


def test_validate_without_data(onnxq: Any, int8: Path) -> None:
    outcome = onnxq("validate", "model.onnx", int8)
    assert outcome.code == 2
    assert "--data" in outcome.sentence


def gate(onnxq: Any, candidate: str, *more: str) -> Any:
    options = ("--data", "calib.npz", "--metric", "cosine", "--threads", "1")
    return onnxq("gate", "--baseline", "model.onnx", "--candidate", candidate, *options, *more)


def test_gate_passes(onnxq: Any, int8: Path) -> None:
    outcome = gate(onnxq, "model.int8.onnx", "--max-drop", "0.1")
    assert outcome.code == 0, outcome.err
    assert json.loads(gate(onnxq, "model.int8.onnx", "--max-drop", "0.1", "--json").out)["verdict"]["passed"]


def test_gate_fails_with_exit_code_1(onnxq: Any) -> None:
    onnx.save(tiny.classifier(seed=5), "other.onnx")
    outcome = gate(onnxq, "other.onnx", "--max-drop", "0.1")
    assert outcome.code == 1
    assert "cosine" in outcome.out
    assert outcome.complaints == []


def test_gate_without_a_limit(onnxq: Any) -> None:
    assert gate(onnxq, "model.onnx").code == 2


def test_gate_with_a_limit_that_is_no_number(onnxq: Any) -> None:
    outcome = gate(onnxq, "model.onnx", "--max-drop", "little")
    assert outcome.code == 2
    assert "little" in outcome.sentence


def test_gate_limits_from_a_job_file(onnxq: Any) -> None:
    Path("gate.yaml").write_text("model: model.onnx\ngate: {max_size_ratio: 0.5}\n")
    outcome = gate(onnxq, "model.onnx", "--config", "gate.yaml")
    assert outcome.code == 1
    assert "0.5" in outcome.out
