"""The blocks of docs/gate.md are run as they stand; the tables name what there is."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from onnxq import registry
from onnxq.config import gate as sections
from onnxq.config.gatefile import GateFile
from onnxq.gating import baseline, run
from onnxq.runtime.session import Session
from onnxq.validate import gate as verdicts
from onnxq.validate.proportions import share_bound
from onnxq.validate.statistics import FEW

PAGE = (Path(__file__).parents[2] / "docs/gate.md").read_text(encoding="utf-8")
FLAT = " ".join(PAGE.split())


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, onnxq: Any) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.save_classifier(Path("model.onnx"))
    images = np.random.default_rng(1).standard_normal((300, *tiny.SHAPE)).astype(np.float32)
    labels = Session(Path("model.onnx"), threads=1).run({"image": images})["scores"].argmax(axis=1)
    np.savez("eval.npz", image=images, label=labels)
    made = onnxq(
        "quantize", "model.onnx", "--calib", "eval.npz", "--placement", "rules", "--no-validate", "-o", "int8.onnx"
    )
    assert made.code == 0, made.err
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL):
        if language in ("yaml", "python"):
            Path(block.splitlines()[0].removeprefix("# ")).write_text(block)
            continue
        for line in block.splitlines():
            outcome = onnxq(*shlex.split(line)[1:])
            assert outcome.code == 0, (line, outcome.out, outcome.err)
            if "--json" in line:
                verdict = json.loads(outcome.out)["verdict"]
                keys = {k for row in re.findall(r"^\| (`.*?) \|", PAGE.split("| key of `verdict` |")[1], re.MULTILINE)
                        for k in re.findall(r"`(\w+)", row)}  # fmt: skip
                assert keys == set(verdict)
                told = PAGE.split("| `checks[]` |")[1].split("\n")[0]
                assert all(f"`{key}" in told for key in verdict["checks"][0])
    assert json.loads(Path("committed.json").read_text())["schema"] == baseline.SCHEMA


def rows(title: str) -> dict[str, str]:
    """First cell -> the row, of the table below a heading."""
    part = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    return {re.findall(r"`(\w+)`", line)[0]: line for line in part.splitlines() if line.startswith("| `")}


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("metrics", sections.MetricLimit), ("outputs", sections.OutputLimit), ("speed", sections.SpeedLimit),
        ("size", sections.SizeLimit), ("memory", sections.MemoryLimit), ("load", sections.LoadLimit),
        ("coverage", sections.CoverageLimit), ("structure", sections.StructureLimit),
        ("portability", sections.PortabilityLimit), ("drift", sections.DriftLimit),
    ],
)  # fmt: skip
def test_every_key_is_in_the_table(name: str, section: Any) -> None:
    row = rows("Limits")[name]
    assert [f.name for f in dataclasses.fields(section) if f"`{f.name}" not in row] == []


def test_every_key_at_the_top_and_every_metric_is_named() -> None:
    part = PAGE.split("## Limits\n")[1].split("\n## ")[0]
    assert [f.name for f in dataclasses.fields(GateFile) if f"`{f.name}" not in part] == []
    ours = [n for n in registry.names(registry.METRICS) if registry.distribution(registry.METRICS, n) == "onnxq"]
    assert [n for n in ours if f"`{n}`" not in part] == []


def test_the_figures_of_the_page() -> None:
    assert f"may disagree on {share_bound(0, 20):.1%}".replace("%", " %") in FLAT
    assert f"at most {FEW} samples differ" in FLAT
    limit = sections.SpeedLimit(min_speedup=1)
    assert f"`max_noise` ({limit.max_noise:.0%})".replace("%", " %") in FLAT
    assert f"`max_sqnr_drop_db` ({run.DRIFT_DB:g} dB)" in FLAT and f"`samples` ({run.DRIFT_SAMPLES})" in FLAT
    gate = sections.GateSection()
    assert f"`confidence` ({gate.confidence}), `resamples` ({gate.resamples}), `seed` ({gate.seed})" in FLAT
    assert f"`{verdicts.SCHEMA}`" in PAGE and f"`{baseline.SCHEMA}`" in PAGE
    assert 255 * 127 * 2 == 64770 and "64,770" in PAGE
