"""Kinds of ops on real sessions: what has no int8 with fixed ranges becomes dynamic where that is faster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxq.config.job import Job
from onnxq.costs.files import save
from onnxq.costs.table import Cost
from onnxq.driver import quantize
from onnxq.errors import VerdictError
from onnxq.validate.result import Result
from onnxq.workbench.costs import measure_model

HIDDEN = 192


def lstm(path: Path, *, body: bool) -> None:
    """An LSTM of 192 units over 40 steps, in the main graph or in both branches of an If."""
    rng = np.random.default_rng(0)
    shapes = {"W": (1, 4 * HIDDEN, HIDDEN), "R": (1, 4 * HIDDEN, HIDDEN)}
    weights = [numpy_helper.from_array(rng.uniform(-0.1, 0.1, s).astype(np.float32), n) for n, s in shapes.items()]
    node = helper.make_node("LSTM", ["x", "W", "R"], ["", "y"], "lstm", hidden_size=HIDDEN)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [40, 1, HIDDEN])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, HIDDEN])
    if not body:
        graph = helper.make_graph([node], "g", [x], [y], weights)
    else:
        branches = []
        for name in ("then", "else"):
            out = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, [1, 1, HIDDEN])
            inner = helper.make_node("LSTM", ["x", "W", "R"], ["", f"{name}_y"], f"{name}_lstm", hidden_size=HIDDEN)
            branches.append(helper.make_graph([inner], name, [], [out]))
        c = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
        made = helper.make_node("If", ["c"], ["y"], "if", then_branch=branches[0], else_branch=branches[1])
        graph = helper.make_graph([made], "g", [x, c], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def made(folder: Path, *, body: bool = False, **options: object) -> Result:
    lstm(folder / "m.onnx", body=body)
    rng = np.random.default_rng(1)
    inputs: dict[str, NDArray[np.generic]] = {"x": rng.standard_normal((6, 40, 1, HIDDEN)).astype(np.float32)}
    if body:
        inputs["c"] = np.array([True, False] * 3)
    np.savez(folder / "calib.npz", **inputs)  # type: ignore[arg-type]
    job = Job(model=folder / "m.onnx").with_overrides(
        output=folder / "o.onnx", calib=str(folder / "calib.npz"), method="minmax", threads=1, speed=False,
        effort="fast", **options,  # type: ignore[arg-type]
    )  # fmt: skip
    return quantize(job)


@pytest.mark.parametrize("body", [False, True])
def test_an_lstm_becomes_dynamic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bool) -> None:
    monkeypatch.setenv("ONNXQ_CACHE_DIR", str(tmp_path / "cache"))
    result = made(tmp_path, body=body)
    assert result.coverage is not None and result.accuracy is not None
    heavy = [op for op in result.coverage.ops if op.heavy]
    assert {op.form for op in heavy} == {"int8 (dynamic)"} and len(heavy) == 1 + body
    assert all(op.macs for op in heavy) or body
    assert [unit.form for unit in result.placement] == ["int8 (dynamic)"]
    assert 25 < (result.accuracy.outputs[0].sqnr_db or 99) < 80
    assert not any("float model, normalised" in note for note in result.notes)
    again = made(tmp_path, body=body)  # by what was measured before
    assert any("measured before" in note for note in again.notes)
    assert [unit.form for unit in again.placement] == ["int8 (dynamic)"]


def test_files_of_costs_decide_about_kinds_that_they_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXQ_CACHE_DIR", str(tmp_path / "cache"))
    lstm(tmp_path / "m.onnx", body=False)
    measured = measure_model(tmp_path / "m.onnx", None)
    assert [form.name for form in measured.forms] == ["as it is", "normalised", "int8", "int8 (dynamic)"]
    dynamic = measured.table.by_kind["DynamicQuantizeLSTM"]
    cases = {
        "int8 (dynamic)": {key: Cost(context=(1e-5,)) for key, _ in dynamic},
        "float": {key: Cost(context=(1.0,)) for key, _ in dynamic},
        "": {},
    }
    for form, changed in cases.items():
        kept = {k: c for k, c in measured.table.costs.items() if changed or k.kind != "DynamicQuantizeLSTM"}
        save(replace(measured.table, costs={**kept, **changed}), tmp_path / "costs.json")
        result = made(tmp_path, costs=tmp_path / "costs.json")
        assert [unit.form for unit in result.placement] == [form or "float"]
        told = "int8 (dynamic) was not tried: nothing is known of what com.microsoft.DynamicQuantizeLSTM costs there."
        assert (told in result.notes) == (not form)


def test_what_is_kept_float_stays_float(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXQ_CACHE_DIR", str(tmp_path / "cache"))
    result = made(tmp_path, keep_float=("LSTM",))
    assert result.coverage is not None
    assert [op.form for op in result.coverage.ops if op.heavy] == ["float"]
    assert any("float model, normalised" in note for note in result.notes)


def test_a_stated_budget_decides_about_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXQ_CACHE_DIR", str(tmp_path / "cache"))
    assert [unit.form for unit in made(tmp_path, min_sqnr_db=20.0).placement] == ["int8 (dynamic)"]
    with pytest.raises(VerdictError, match=r"loudest|most accuracy|lstm"):
        made(tmp_path, min_sqnr_db=100.0)
