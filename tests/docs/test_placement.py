"""The commands of docs/placement.md run as they stand, on a small model."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml

from onnxq.config.job import load_job

PAGE = (Path(__file__).parents[2] / "docs/placement.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, onnxq: Any) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.save_classifier(Path("model.onnx"))
    Path("samples").mkdir()
    tiny.save_samples(Path("samples/calib.npz"))
    assert onnxq("costs", "measure", "model.onnx", "-o", "target.json").code == 0
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(lines) == 5
    for line in lines:
        outcome = onnxq(*shlex.split(line, comments=True)[1:], "--no-validate")
        assert outcome.code == 0, (line, outcome.err)


def test_the_job_file(tmp_path: Path) -> None:
    (block,) = blocks("yaml")
    (tmp_path / "job.yaml").write_text("model: m.onnx\n" + block)
    section = load_job(tmp_path / "job.yaml").placement
    assert vars(section).items() >= yaml.safe_load(block)["placement"].items()


def test_the_defaults_that_it_names() -> None:
    from onnxq.config.placing import DEFAULT_POINTS, DEFAULT_SQNR
    from onnxq.placement.place import EFFORTS, OFF
    from onnxq.placement.result import PAYS

    assert DEFAULT_POINTS == 0.005 and "half a point" in PAGE and f"| {DEFAULT_SQNR:g} dB |" in PAGE
    assert PAYS == 1.02 and "beat float by 2 %" in PAGE
    assert OFF == 0.1 and "by over 10 %" in PAGE
    seconds = {name: effort.search_seconds for name, effort in EFFORTS.items()}
    assert seconds == {"fast": 0.0, "default": 10.0, "max": 60.0} and "10 seconds (`max`: 60)" in PAGE.replace(
        "\n", " "
    )
    seconds = {name: effort.sensing_seconds for name, effort in EFFORTS.items()}
    assert seconds == {"fast": 10.0, "default": 30.0, "max": 600.0}
    assert "after 30 seconds (`fast`: 10, `max`: 600)" in PAGE
