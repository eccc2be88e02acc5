"""The one path from model and samples to the Q/DQ graph."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from onnxq.config.job import Job
from onnxq.driver import quantize
from onnxq.errors import ConfigError, ModelError, UnknownNameError, UsageError
from onnxq.quantization import DECISIONS
from onnxq.runtime.session import Session
from onnxq.stats.calibrator import CANDIDATES, make_calibrators
from onnxq.trial import MARGIN

ROOT = Path(__file__).parent.parent
RES8 = ROOT / "models/fashion-res8/model.onnx"
CALIB = ROOT / "models/fashion-mnist/calib.npz"

OVERRIDABLE = """<ir_version: 8, opset_import: ["": 17]>
    g (float[1,4,6,6] x, float[4,4,1,1] w, float[4] b) => (float[1,4,6,6] y)
    <float[4,4,1,1] w = {1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1}, float[4] b = {1,2,3,4}> { [conv] y = Conv(x, w, b) }"""


def _job(model: Path, data: Path, out: Path, **options: object) -> Job:
    return Job(model=model).with_overrides(  # type: ignore[arg-type]
        output=out, calib=str(data), threads=1, speed=False, placement="rules", **options
    )


@pytest.fixture
def overridable(tmp_path: Path) -> tuple[Path, Path]:
    path, data = tmp_path / "m.onnx", tmp_path / "data.npy"
    onnx.save(parser.parse_model(OVERRIDABLE), path)
    np.save(data, np.random.default_rng(0).normal(size=(8, 4, 6, 6)).astype(np.float32))
    return path, data


def test_overridable_initializers_become_constants_and_it_is_said(
    overridable: tuple[Path, Path], tmp_path: Path
) -> None:
    result = quantize(_job(*overridable, tmp_path / "o.onnx"))
    assert result.coverage is not None and not result.coverage.heavy_float
    assert any("could be fed as an input became constant" in note for note in result.notes)
    assert [i.name for i in Session(tmp_path / "o.onnx").inputs] == ["x"]


def test_keep_overridable_keeps_them_and_their_consumers_float(overridable: tuple[Path, Path], tmp_path: Path) -> None:
    result = quantize(_job(*overridable, tmp_path / "o.onnx", keep_overridable=True))
    assert result.coverage is not None
    assert [o.reason for o in result.coverage.heavy_float] == [
        "it reads an initializer that a caller may override (--keep-overridable)"
    ]
    session = Session(tmp_path / "o.onnx", threads=1)
    assert session.overridable == ("w", "b")
    x = np.ones((1, 4, 6, 6), np.float32)
    np.testing.assert_array_equal(session.run({"x": x, "b": np.zeros(4, np.float32)})["y"], x)


def test_auto_names_the_figures_and_takes_the_nearest(tmp_path: Path) -> None:
    result = quantize(_job(RES8, CALIB, tmp_path / "o.onnx", calib_limit=16, eval_limit=4))
    note = next(n for n in result.notes if n.startswith("Method "))
    figures = {p.split()[0]: float(p.split()[1]) for p in note.split("samples: ")[1].rstrip(".").split(", ")}
    assert list(figures) == list(CANDIDATES)
    assert result.method is not None
    assert figures[result.method] >= max(figures.values()) - MARGIN - 0.1  # the figures are rounded


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    """A reported complaint about other tools: two runs, two models."""
    files = []
    for name in ("a.onnx", "b.onnx"):
        quantize(_job(RES8, CALIB, tmp_path / name, calib_limit=8, eval_limit=1))
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]


def test_reasons_travel_in_the_file(tmp_path: Path) -> None:
    quantize(_job(RES8, CALIB, tmp_path / "o.onnx", calib_limit=8, eval_limit=1, keep_float=["Gemm"]))
    proto = onnx.load(tmp_path / "o.onnx")
    reasons = json.loads({p.key: p.value for p in proto.metadata_props}[DECISIONS])
    gemm = next(n.name for n in proto.graph.node if n.op_type == "Gemm")
    assert reasons[gemm] == 'kept float by the pattern "Gemm"'


def test_names_types_and_order_of_inputs_and_outputs_stay(tmp_path: Path) -> None:
    quantize(_job(RES8, CALIB, tmp_path / "o.onnx", calib_limit=8, eval_limit=1))
    before, after = Session(RES8), Session(tmp_path / "o.onnx")
    assert before.inputs == after.inputs
    assert before.output_specs == after.output_specs


def test_unknown_methods_and_settings_propose_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match='did you mean "entropy"'):
        make_calibrators("entorpy", {})
    with pytest.raises(ConfigError, match='method "percentile" has no setting "percentil": did you mean "percentile"'):
        make_calibrators("percentile", {"percentil": 99.0})
    with pytest.raises(ConfigError, match="the method auto has no settings"):
        make_calibrators("auto", {"percentile": 99.0})


def test_a_model_of_ours_is_not_quantized_twice(tmp_path: Path) -> None:
    quantize(_job(RES8, CALIB, tmp_path / "o.onnx", calib_limit=8, eval_limit=1))
    with pytest.raises(ModelError, match="is quantized already"):
        quantize(_job(tmp_path / "o.onnx", CALIB, tmp_path / "p.onnx"))
    assert not (tmp_path / "p.onnx").exists()


def test_nothing_is_overwritten_when_the_job_fails(tmp_path: Path) -> None:
    out = tmp_path / "o.onnx"
    out.write_bytes(b"precious")
    with pytest.raises(UnknownNameError):
        quantize(_job(RES8, CALIB, out, metric="topp1"))
    assert out.read_bytes() == b"precious"
    with pytest.raises(UsageError, match="the model itself"):
        quantize(_job(RES8, CALIB, RES8))
    assert [p.name for p in tmp_path.iterdir()] == ["o.onnx"]
