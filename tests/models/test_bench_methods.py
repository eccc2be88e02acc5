"""The table of methods, and one model from end to end."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

MODELS = Path(__file__).resolve().parents[2] / "models"
sys.path.insert(0, str(MODELS))
bench = importlib.import_module("bench_methods")


def row(score: float, db: float, taken: str = "", *, higher: bool = True) -> dict[str, Any]:
    return {
        "taken": taken, "samples": 300, "metric": "top1", "fp32": 0.9, "score": score, "sqnr_db": db,
        "higher_is_better": higher,
    }  # fmt: skip


def test_the_table_says_which_single_method_is_best_and_how_far_auto_is_behind() -> None:
    behind = {"method": "mse", "low": -0.01, "high": 0.03}
    auto = {**row(0.88, 20.0, "minmax"), "behind": behind}
    found = {"net": {"auto": auto, "minmax": row(0.88, 20.0), "mse": row(0.89, 21.0), "entropy": {"error": "no"}}}
    text = bench.table(found).splitlines()[-1]
    assert "| 300 | 0.9000 | 0.8800 (20.0 dB) [minmax] | 0.8800 (20.0 dB) | failed | **0.8900 (21.0 dB)** |" in text
    assert text.endswith("| 0.0100 (-0.0100 to 0.0300) |  |")  # measured before all methods were compared


@pytest.mark.parametrize(
    ("low", "ahead", "said"),
    [(-0.01, [], "none"), (0.001, [], "none (chance, as the best of 4)"), (0.001, ["mse", "mixed"], "mse, mixed")],
)
def test_the_table_says_who_is_ahead_of_auto(low: float, ahead: list[str], said: str) -> None:
    behind = {"method": "mse", "low": low, "high": 0.03, "others": 4, "ahead": ahead}
    found = {"net": {"auto": {**row(0.88, 20.0, "minmax"), "behind": behind}, "mse": row(0.89, 21.0)}}
    assert bench.table(found).splitlines()[-1].endswith(f"| {said} |")


class Right:
    """Share of right answers."""

    name, higher_is_better = "right", True

    def score(self, records: Any) -> float:
        return float(records.mean())


@pytest.mark.parametrize(("wins", "others", "ahead"), [(5, 1, True), (5, 4, False), (9, 4, True)])
def test_the_best_of_many_must_be_better_by_more(wins: int, others: int, ahead: bool) -> None:
    """Five answers that only one of two models has right are no chance between two; of five methods, one may."""
    auto = np.ones((1000, 1))
    auto[:100] = 0
    best = auto.copy()
    best[:wins] = 1
    forms = {"auto": auto, "mse": best} | {f"other{i}": np.roll(auto, i + 1) for i in range(others - 1)}
    rows = {m: row(float(a.mean()), 20.0) for m, a in forms.items()}
    found = bench.compared(Right(), rows, {m: m for m in forms}, forms)
    assert found["method"] == "mse"
    assert found["low"] > 0
    assert found["others"] == others
    assert ("mse" in found["ahead"]) is ahead


def test_of_an_error_rate_the_least_is_best() -> None:
    rows = {"minmax": row(0.2, 20.0, higher=False), "mse": row(0.1, 10.0, higher=False)}
    assert bench.best_single(rows) == "mse"
    assert bench.best_single({**rows, "mse": row(0.2, 21.0, higher=False)}) == "mse"  # equal scores: by SQNR
    assert bench.best_single({"auto": row(1.0, 1.0), "mse": {"error": "x"}}) == ""


def test_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "OUT", tmp_path / "methods.json")
    (tmp_path / "methods.json").write_text(json.dumps({"other": {"mse": row(0.5, 1.0)}}))
    assert bench.main(["--models", "fashion-res8", "--methods", "auto,minmax", "--eval-samples", "50"]) == 0
    found = json.loads((tmp_path / "methods.json").read_text())
    assert found.keys() == {"other", "fashion-res8"}
    auto, single = found["fashion-res8"]["auto"], found["fashion-res8"]["minmax"]
    assert auto["samples"] == single["samples"] == 50
    assert auto["behind"]["method"] == "minmax"
    assert auto["behind"]["others"] == (auto["taken"] != "minmax")
    assert auto["behind"]["low"] <= single["score"] - auto["score"] <= auto["behind"]["high"]
    assert (auto["score"], auto["sqnr_db"]) == (single["score"], single["sqnr_db"]) or auto["taken"] != "minmax"


def test_labels_of_calibration_samples_can_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing of it is kept. Without labels there, the reason is told."""
    job = (MODELS / "fashion-res8" / "job.yaml").read_text()
    held = np.load(MODELS / "fashion-mnist" / "eval.npz")
    for name, keys in (("with", ("image", "label")), ("without", ("image",))):
        np.savez(tmp_path / f"{name}.npz", **{key: held[key][:20] for key in keys})
        text = job.replace("../fashion-mnist/calib.npz", f"{name}.npz")
        text = text.replace("../fashion-mnist", str(MODELS / "fashion-mnist"))
        text = text.replace("model.onnx", str(MODELS / "fashion-res8" / "model.onnx"))
        (tmp_path / f"{name}.yaml").write_text(text)
    monkeypatch.setattr(bench, "OUT", tmp_path / "methods.json")
    said = {}
    for name in ("with", "without"):
        entry = bench.Entry(name="fashion-res8", folder="fashion-res8", job=tmp_path / f"{name}.yaml")
        monkeypatch.setattr(bench, "entries", lambda entry=entry: {entry.name: entry})
        assert bench.main(["--methods", "minmax", "--judge-on", "calib"]) == 0
        said[name] = capsys.readouterr()
    assert "| fashion-res8 | top1 | 20 |" in said["with"].out
    assert "| fashion-res8 |" not in said["without"].out
    assert "label" in said["without"].err
    assert not (tmp_path / "methods.json").exists()
