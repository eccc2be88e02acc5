"""The blocks of docs/statistics.md are run as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import tiny

from onnxq.stats.cache import LIMIT
from onnxq.stats.checkpoint import SECONDS
from onnxq.stats.engine import OVERHEAD
from onnxq.stats.ranges import SCHEMA as RANGES_SCHEMA
from onnxq.stats.statistics import SCHEMA as STATISTICS_SCHEMA
from onnxq.stats.statistics import Statistics

PAGE = (Path(__file__).parents[2] / "docs/statistics.md").read_text(encoding="utf-8")


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, onnxq: Any) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.save_classifier(Path("model.onnx"))
    tiny.save_samples(Path("calib.npz"))
    seen: set[str] = set()
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL):
        if language == "yaml":
            Path(block.splitlines()[0].removeprefix("# ")).write_text(block)
            continue
        for line in block.splitlines():
            quick = ["--no-validate"] if "quantize" in line else []  # the speed of such a model is no matter
            outcome = onnxq(*shlex.split(line)[1:], *quick)
            assert outcome.code == 0, (line, outcome.err)
            seen.add(shlex.split(line)[1])
    assert seen == {"calibrate", "quantize", "ranges", "statistics"}
    assert Path("parallel.npz").read_bytes() == Path("stats.npz").read_bytes()
    assert Statistics.load(Path("twice.npz")).samples == 2 * Statistics.load(Path("stats.npz")).samples


def test_the_figures_of_the_page() -> None:
    assert (LIMIT, SECONDS, OVERHEAD) == (2**30, 20, 10)
    assert "(2^30 bytes)" in PAGE
    assert "Every 20 seconds" in PAGE
    assert "ten times the time of loading" in PAGE
    assert STATISTICS_SCHEMA == RANGES_SCHEMA == 1
