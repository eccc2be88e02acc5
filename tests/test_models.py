"""The committed models go end to end through their job files: score, coverage, reasons, and the file itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import onnx
import pytest
import yaml

from onnxq.config.job import load_job
from onnxq.driver import quantize
from onnxq.runtime.session import Level, Session

MODELS = Path(__file__).parent.parent / "models"
JOBS = sorted(MODELS.glob("fashion-*/job*.yaml"))

FULLY_INTEGER = {"fashion-res8", "fashion-mobilenet"}


def _fetched() -> list[Path]:
    """Job files of models that `make models` has brought here."""
    return [j for j in sorted(MODELS.glob("*/job*.yaml")) if j not in JOBS and load_job(j).model.is_file()]


@pytest.mark.parametrize("path", JOBS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_committed_models_keep_their_score(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    job = load_job(path).with_overrides(output=out, eval_limit=1000, threads=1, speed=False, placement="rules")
    result = quantize(job)
    assert result.accuracy is not None and result.accuracy.metric is not None and result.coverage is not None
    score = result.accuracy.metric
    assert score.samples == 1000
    assert score.drop <= 0.01, score
    assert result.sizes is not None and result.sizes.ratio < 0.45
    assert not result.coverage.unmapped
    assert all(op.reason for op in result.coverage.float_ops)
    assert "does not know" not in " ".join(op.reason for op in result.coverage.float_ops)
    if path.parent.name in FULLY_INTEGER:
        assert not result.coverage.heavy_float
        assert result.coverage.mac_share == 1.0
    else:
        assert result.coverage.mac_share > 0.85
    proto = onnx.load(out)
    onnx.checker.check_model(proto, full_check=True)
    assert ([o.version for o in proto.opset_import if not o.domain], proto.ir_version) == ([21], 10)
    before, after = Session(job.model), Session(out)
    assert (before.inputs, before.output_specs) == (after.inputs, after.output_specs)


@pytest.mark.parametrize("path", JOBS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_committed_models_for_tensorrt(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    job = load_job(path).with_overrides(
        output=out, target="tensorrt", eval_limit=300, calib_limit=64, threads=1, speed=False
    )
    result = quantize(job)
    assert result.accuracy is not None and result.accuracy.metric is not None
    assert result.accuracy.metric.drop <= 0.02
    proto = onnx.load(out)
    types = {i.name: i.data_type for i in proto.graph.initializer}
    for node in proto.graph.node:
        assert not node.op_type.startswith("QLinear")
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert types[node.input[2]] == onnx.TensorProto.INT8
            scale = next(i for i in proto.graph.initializer if i.name == node.input[1])
            assert bool(scale.dims) == any(a.name == "axis" for a in node.attribute)


def test_figures_in_the_model_files_are_there() -> None:
    for path in sorted(MODELS.glob("*/model.yaml")):
        content = yaml.safe_load(path.read_text())
        assert {"name", "exercises", "source", "licence", "expected"} <= set(content), path
        assert content["name"] == path.parent.name


@pytest.mark.slow
@pytest.mark.parametrize("path", _fetched(), ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_fetched_models_go_through_the_plain_command(path: Path, tmp_path: Path) -> None:
    job = load_job(path).with_overrides(output=tmp_path / "out.onnx", eval_limit=100, calib_limit=32, speed=False)
    result = quantize(dataclasses.replace(job, strict=False))
    assert result.accuracy is not None and result.coverage is not None
    assert not result.coverage.unmapped
    assert all(op.reason for op in result.coverage.float_ops)
    Session(tmp_path / "out.onnx", level=Level.OFF)
