"""By how much ranges move: one model from end to end."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

MODELS = Path(__file__).resolve().parents[2] / "models"
sys.path.insert(0, str(MODELS))
bench = importlib.import_module("bench_sampled")


def test_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "OUT", tmp_path / "sampled.md")
    assert bench.main(["--models", "fashion-res8", "--methods", "percentile", "--samples", "20"]) == 0
    text = (tmp_path / "sampled.md").read_text()
    assert "| fashion-res8 | percentile |" in text
    assert "| 100% | 100% |" in text  # its tensors are counted whole
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- sampled -->\nold\n<!-- /sampled -->\nafter\n")
    assert bench.main(["--write", str(page)]) == 0
    written = page.read_text()
    assert "fashion-res8" in written
    assert "old" not in written
    assert written.endswith("after\n")


def test_a_range_that_moves_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    full, _ = bench.statistics("fashion-res8", 8)
    half, _ = bench.statistics("fashion-res8", 2)
    same = bench.row("net", "mse", full, full)
    assert same.endswith("| 100% | 100% | 0.0% | 0.00 |")
    assert bench.row("net", "mse", full, half) != same
