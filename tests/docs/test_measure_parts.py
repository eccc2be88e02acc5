"""The script beside docs/methods.md that tells what judging by parts changes."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from whole import normal

DOCS = Path(__file__).resolve().parents[2] / "docs"
sys.path.insert(0, str(DOCS))
script: Any = importlib.import_module("measure_parts")


def detector() -> onnx.ModelProto:
    """Boxes and scores, 40 times smaller, in one output of six channels."""
    rng = np.random.default_rng(0)
    scale = np.where(np.arange(6) < 4, 40.0, 1.0)[:, None, None, None]
    weight = (rng.normal(size=(6, 8, 1, 1)) * scale).astype(np.float32)
    first = rng.normal(size=(8, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["c"], "body", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "w"], ["y"], "head"),
    ]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 6, 8, 8])],
        [numpy_helper.from_array(first, "a"), numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def test_a_row_for_each_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(detector(), tmp_path / "model.onnx")
    for name, seed in (("calib", 0), ("held", 1)):
        (tmp_path / name).mkdir()
        for index, sample in enumerate(normal(12, seed, x=(1, 3, 8, 8))):
            np.save(tmp_path / name / f"{index:02}.npy", sample["x"])
    data = "data: {calib: {path: calib}, eval: {path: held}}"
    (tmp_path / "job.yaml").write_text(f"model: model.onnx\n{data}\n")
    script.main([str(tmp_path / p) for p in ("model.onnx", "calib", "held")] + ["--methods", "minmax"])
    by_model = capsys.readouterr().out
    script.main([str(tmp_path / "job.yaml"), "--methods", "minmax"])
    assert capsys.readouterr().out == by_model
    script.main([str(tmp_path / "job.yaml"), "--methods", "minmax", "--samples", "3"])
    assert capsys.readouterr().out != by_model
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in by_model.splitlines()]
    assert [row[0] for row in rows[2:]] == [
        "minmax", "auto by whole outputs", "auto and repairs by whole outputs", "auto by parts",
        "auto and repairs by parts",
    ]  # fmt: skip
    for _, taken, whole, worst, alike in rows[2:]:
        assert taken
        assert float(worst) < float(whole) - 10 < 50
        assert 0.9 < float(alike) <= 1


def test_correlation_is_over_all_elements_of_all_samples() -> None:
    exact = [np.array([[1.0, 2.0]]), np.array([[3.0]])]
    assert script.correlation(exact, [2 * x + 1 for x in exact]) == pytest.approx(1.0)
    assert script.correlation(exact, [-x for x in exact]) == pytest.approx(-1.0)
    assert script.correlation(exact, [0 * x for x in exact]) == 0.0  # all of it is lost
