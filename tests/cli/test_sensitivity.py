"""`onnxq sensitivity` from the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import tiny

from onnxq.cli.main import main
from onnxq.sensitivity.result import SCHEMA, Sensitivity


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXQ_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    model, samples = tiny.save_classifier(tmp_path / "m.onnx"), tiny.save_samples(tmp_path / "s.npz")
    return ["sensitivity", str(model), "--calib", str(samples), "--method", "minmax", "--threads", "1"]


def test_the_table(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "--samples", "4", "--top", "2"]) == 0
    out = capsys.readouterr().out
    assert "noise measured on      4 of 16" in out
    assert "Tensors, the loudest 2 of " in out and "Ops, with all their tensors" in out
    assert "drop" not in out and "without it" not in out


def test_files_of_figures_and_plots(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = arguments[3]
    more = ["--eval", samples, "--metric", "top1", "--rest", "--units", "-o", str(tmp_path / "o.json")]
    assert main([*arguments, *more, "--plot", str(tmp_path / "p.html")]) == 0
    out = capsys.readouterr().out
    assert "top1 in float" in out and "without it" in out and f"written to {tmp_path / 'o.json'}" in out
    found = Sensitivity.load(tmp_path / "o.json")
    assert found.metric == "top1" and found.eval_samples == 16 and found.samples == 16
    assert "<svg" in (tmp_path / "p.html").read_text(encoding="utf-8")
    assert main([*arguments, "--plot", str(tmp_path / "p.svg")]) == 0
    assert (tmp_path / "p.svg").read_text(encoding="utf-8").startswith("<svg")


def test_json_is_the_file_and_the_cache_and_workers_change_nothing(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    texts = []
    for more in ([], [], ["--no-cache"], ["--no-cache", "--workers", "2"]):
        assert main([*arguments, "--samples", "4", "--json", *more]) == 0
        texts.append(json.loads(capsys.readouterr().out))
        texts[-1].pop("notes")  # which say where the statistics came from
    assert texts[0]["schema"] == SCHEMA and texts.count(texts[0]) == 4


def test_labels_decide_about_a_score_and_a_metric_needs_them(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--eval", arguments[3]]) == 2
    assert "evaluation data are given and no metric: give --metric NAME" in capsys.readouterr().err
    assert main([*arguments, "--metric", "top2"]) == 2
    assert 'there is no metric "top2": did you mean' in capsys.readouterr().err


def test_nothing_to_calibrate_with(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments[:2]) == 2
    assert capsys.readouterr().err == (
        "error: there is nothing to calibrate with: give --calib DATA, or data.calib in the job file\n"
    )


@pytest.mark.parametrize("option", ["-o", "--plot"])
def test_a_file_that_cannot_be_written_is_said_before_the_work(
    arguments: list[str], tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments[3] = str(tmp_path / "no samples.npz")
    assert main([*arguments, option, str(tmp_path / "none" / "f.svg")]) == 2
    assert "the folder" in capsys.readouterr().err


def test_a_plot_without_what_draws_it(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    assert main([*arguments, "--plot", str(tmp_path / "p.svg")]) == 2
    assert "--plot needs the package vl-convert-python" in capsys.readouterr().err
    assert main([*arguments, "--samples", "1"]) == 0


def test_what_stays_float_has_no_switch(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "--samples", "1", "--json"]) == 0
    whole = {t["tensor"] for t in json.loads(capsys.readouterr().out)["tensors"]}
    assert main([*arguments, "--samples", "1", "--json", "--keep-float", "gemm"]) == 0
    assert {t["tensor"] for t in json.loads(capsys.readouterr().out)["tensors"]} < whole


def test_a_limit_of_time_is_kept_and_said(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--time-limit", "0.000001", "--plot", str(tmp_path / "p.svg"), "--json"]) == 0
    found = Sensitivity.from_json(capsys.readouterr().out, "what was printed")
    assert found.samples == 1 and found.seconds == 0.000001
    assert any(n.startswith("There was no more time than 1e-06 s: ") for n in found.notes)
    if found.unmeasured:
        assert f"{found.unmeasured} of {len(found.tensors)} tensors were not" in (tmp_path / "p.svg").read_text("utf-8")
    assert main([*arguments, "--time-limit", "0", "--json"]) == 0
    found = Sensitivity.from_json(capsys.readouterr().out, "what was printed")
    assert found.samples == 16 and found.seconds is None and not found.unmeasured
