"""Each built-in pipeline on each committed model: every pass verified, and the file keeps the rules of its stage and
its target.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from onnxq.ir.load import load
from onnxq.pipeline.base import Stage
from onnxq.pipeline.calibration import CalibrationSection
from onnxq.pipeline.verify import violations
from onnxq.plan.check import check
from onnxq.plan.integers import INTEGER_OPS, MICROSOFT
from onnxq.targets.target import load_target
from onnxq.workbench.run import Show, run
from onnxq.workbench.setup import Request

MODELS = Path(__file__).parent.parent / "models"
FILES = sorted(MODELS.glob("fashion-*/model*.onnx"))
STAGES = {"cpu": Stage.QDQ, "tensorrt": Stage.QDQ, "qoperator": Stage.FUSED}


@pytest.mark.parametrize("pipeline", STAGES)
@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_files_keep_the_rules(path: Path, pipeline: str, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    request = Request(
        pipeline=pipeline,
        model=path,
        calib=str(MODELS / "fashion-mnist" / "calib.npz"),
        calibration=CalibrationSection(method="minmax", limit=4, threads=1),
    )
    done = run(request, out, Show(verify=True), lambda _: None)
    assert sum(step.report.rewrites for step in done.run.steps) > 15
    model = load(out)
    assert list(violations(model.graph, STAGES[pipeline])) == []
    assert check(model, load_target("tensorrt" if pipeline == "tensorrt" else "cpu")) == []
    proto = onnx.load(out)
    used = {n.domain for n in proto.graph.node}
    assert {o.domain for o in proto.opset_import} == {"", *used}
    integer = {n.op_type for n in proto.graph.node} & INTEGER_OPS
    assert bool(integer) == (pipeline == "qoperator")
    assert (MICROSOFT in used) >= any(op not in ("QLinearConv", "QLinearMatMul") for op in integer)
