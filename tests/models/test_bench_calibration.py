"""What calibration costs: the samples that are cycled, the table, and one tiny run from end to end."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.stats.test_collect import Data

MODELS = Path(__file__).resolve().parents[2] / "models"
sys.path.insert(0, str(MODELS))
bench = importlib.import_module("bench_calibration")


class Described(Data):
    preprocess_summary = "as they are"


def test_samples_are_cycled() -> None:
    data = bench.Cycled(Described(lambda i: {"x": np.array([i])}, 3), 7)
    assert [(s.index, int(s.inputs["x"][0])) for s in data] == [(0, 0), (1, 1), (2, 2), (3, 0), (4, 1), (5, 2), (6, 0)]
    assert len(data) == 7


def run(seconds: float, anonymous: int, error: str = "") -> dict[str, Any]:
    return {"seconds": seconds, "anonymous": anonymous * 10**6, "error": error}


def test_the_table() -> None:
    found = {
        "runs": {
            "plain": [run(2.0, 100), run(2.2, 101), run(1.9, 99)],
            "minmax": [run(2.6, 120)] * 3,
            "full": [run(4.0, 130)] * 3,
            "quantize": [run(5.0, 150)],
        },
        "peers": {
            "plain": [run(1.0, 80)],
            **{k: [run(4.0, 480)] for k in ("ort-minmax", "ort-percentile")},
            "ort-entropy": [run(0.0, 0, "ended by the bench")],
        },
        "memory": {32: {"plain": run(1, 100), "full": run(1, 140)}},
        "cached": [4.0, 0.5],
    }
    text = bench.table("efficientnet-lite0", found, 256, 16)
    assert "| onnxq, least and greatest value | 2.60 (2.60 to 2.60) | 1.30 | 1.5 | 19 MB |" in text
    assert "| onnxq quantize, all before validation | 5.00 | 2.50 | 3 | 49 MB |" in text
    assert "| onnxruntime.quantization, MinMax | 4.00 | 4.00 |  | 400 MB |" in text
    assert "| onnxruntime.quantization, Entropy | ended by the bench | | | |" in text
    assert "With 32 samples, distributions take 40 MB more than the plain pass (goal 150)." in text
    assert "4.0 s, again 0.50 s (goal 1)" in text


@pytest.mark.slow
def test_a_tiny_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--models", "fashion-res8", "--samples", "5", "--repeats", "1", "--peer-samples", "2", "--sizes", "3"]
    assert bench.main([*arguments, "--memory-of", "fashion-res8", "--out", str(tmp_path)]) == 0
    text = (tmp_path / "calibration.md").read_text()
    assert text.count("\n| ") == 1 + len(bench.ROWS)
    assert "Error" not in text
    assert "With 3 samples" in text
    assert "### fashion-res8, 5 samples" in capsys.readouterr().out
