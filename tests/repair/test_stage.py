"""Repairs are tried, judged on held-out samples, and kept if they pay: the stage alone and the whole command."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from switched import inserted, planned
from whole import Samples

from onnxq.config.job import Job
from onnxq.config.repair import REPAIRS, Repairing
from onnxq.data.sample import Sample
from onnxq.driver import quantize
from onnxq.ir.model import Model
from onnxq.pipeline.base import Context
from onnxq.plan.plan import Plan
from onnxq.repair.stage import Repairs, note
from onnxq.targets.target import load_target
from onnxq.validate.result import Result

ROOT = Path(__file__).parents[2]
IMAGES = [{"image": np.random.default_rng(i).uniform(0, 3, (1, *tiny.SHAPE)).astype(np.float32)} for i in range(36)]
CONTEXT = Context(target=load_target("cpu"))


def coarse(plan: Plan) -> Plan:
    """The plan with weights of a few levels, so that they are far off."""
    factor = np.float32(25)
    uses = {u: replace(e, scale=e.scale * factor) if e.type in ("int8", "int32") else e for u, e in plan.uses.items()}
    return replace(plan, uses=uses)


def made(names: tuple[str, ...] = REPAIRS, count: int = 36) -> tuple[Repairs, Model, Plan]:
    model, plan = planned(tiny.classifier(), IMAGES)
    first = Sample(index=0, name="0", inputs=IMAGES[0])
    repairing = Repairing(names=names)
    repairs = Repairs(model, Samples(IMAGES[:count]), CONTEXT, repairing, first=first, threads=1)
    return repairs, model, plan


def test_a_correction_that_pays_is_kept_and_told() -> None:
    repairs, model, plan = made()
    plan = coarse(plan)
    corrected = repairs.biases(plan)
    assert corrected.biases
    *others, row = repairs.rows(plan)
    assert (row.name, row.kept, row.samples) == ("bias", True, 12)
    assert {(r.kept, r.told) for r in others} == {(False, "the chosen form has nothing that it would change")}
    assert row.before_db is not None and row.gain_db is not None and row.gain_db > 3
    assert row.told == "2 ops, on 24 samples"
    before, after = (float(repairs.held.levels(inserted(model, p)).mean()) for p in (plan, corrected))
    assert (row.before_db, row.after_db) == pytest.approx((before, after))
    assert repairs.biases(plan) is corrected  # fitted once
    (sentence,) = note((row,))
    assert re.fullmatch(r"Repairs that pay \(.* on 12 held-out .*\): bias [\d.]+ to [\d.]+ dB\.", sentence)


def test_one_that_does_not_pay_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxq.repair.held.GAIN", 90.0)
    repairs, _, plan = made(("bias",))
    assert repairs.biases(plan) is plan
    (row,) = repairs.rows(plan)
    assert not row.kept and row.gain_db is not None and row.told.endswith("at least 90 asked")
    assert note((row,)) == []


def test_one_that_was_not_asked_for_is_not_tried() -> None:
    repairs, _, plan = made(("weights",))
    assert repairs.biases(coarse(plan)).biases == {}
    assert [r.name for r in repairs.rows(plan)] == ["weights"]


def test_weights() -> None:
    repairs, _, plan = made(("weights",))
    bad = coarse(plan)
    assert repairs.weights(bad, lambda: plan)
    (row,) = repairs.rows(bad)
    assert (row.name, row.kept) == ("weights", True)
    assert not repairs.weights(plan, lambda: bad)
    (row,) = repairs.rows(plan)
    assert not row.kept and row.gain_db is not None and row.gain_db < 0 and "at least 0.1 asked" in row.told
    assert not repairs.weights(plan, lambda: plan)
    assert repairs.rows(plan)[0].told == "no weight would get another range"
    assert note(repairs.rows(plan)) == []


def test_with_too_few_samples_nothing_is_tried() -> None:
    repairs, _, plan = made(count=11)
    assert not any(repairs.wants(name) for name in REPAIRS)
    assert repairs.biases(plan) is plan
    assert {r.told for r in repairs.rows(plan)} == {
        "12 calibration samples are the least that say whether a repair pays"
    }
    assert [r.name for r in repairs.rows(plan)] == list(REPAIRS)


def test_a_large_model_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxq.repair.stage.LARGEST", 100)
    repairs, _, plan = made(("bias",))
    assert repairs.biases(plan) is plan
    assert "too large" in repairs.rows(plan)[0].told


def test_a_model_without_a_float_output_cannot_be_measured() -> None:
    proto = tiny.classifier()
    from onnx import TensorProto, helper

    proto.graph.node.append(helper.make_node("ArgMax", ["scores"], ["best"], "best", axis=1))
    del proto.graph.output[:]
    proto.graph.output.append(helper.make_tensor_value_info("best", TensorProto.INT64, ["N", 1]))
    model, plan = planned(proto, IMAGES)
    first = Sample(index=0, name="0", inputs=IMAGES[0])
    repairs = Repairs(model, Samples(IMAGES), CONTEXT, Repairing(names=("bias",)), first=first, threads=1)
    assert repairs.biases(plan) is plan
    assert [r.told for r in repairs.rows(plan)] == ["the model has no float output to measure it by"]


def run(out: Path, **options: object) -> Result:
    job = Job(model=ROOT / "models/fashion-res8/model.onnx").with_overrides(
        output=out, calib=str(ROOT / "models/fashion-mnist/calib.npz"), calib_limit=16, method="minmax", threads=1,
        speed=False, **{"validate": False, "placement": "rules", **options},  # type: ignore[arg-type]
    )  # fmt: skip
    return quantize(job)


def test_by_rules_nothing_is_tried_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXQ_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("onnxq.repair.held.GAIN", 90.0)
    assert run(tmp_path / "a.onnx").repairs == ()
    asked = run(tmp_path / "b.onnx", repair="bias,weights").repairs
    assert not any(r.kept for r in asked)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert [r.name for r in asked] == ["weights", "bias"]
    assert all(r.before_db is not None and r.samples for r in asked)


def test_equal_inputs_give_equal_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXQ_CACHE_DIR", str(tmp_path / "cache"))
    results = [run(tmp_path / f"{i}.onnx", repair="equalize,smooth,weights,bias") for i in range(2)]
    assert (tmp_path / "0.onnx").read_bytes() == (tmp_path / "1.onnx").read_bytes()
    rows = [[replace(r, seconds=0.0) for r in result.repairs] for result in results]
    assert rows[0] == rows[1]
    assert [r.name for r in rows[0]] == ["equalize", "smooth", "weights", "bias"]


@pytest.fixture
def everything_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxq.repair.held.GAIN", -90.0)
    monkeypatch.setattr("onnxq.repair.held.CHANCE", 1.0)


@pytest.mark.usefixtures("everything_pays")
def test_a_changed_float_model_is_calibrated_planned_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNXQ_CACHE_DIR", str(tmp_path / "cache"))
    plain = run(tmp_path / "a.onnx", validate=True)
    result = run(tmp_path / "b.onnx", repair="equalize", validate=True)
    assert [(r.name, r.kept) for r in result.repairs] == [("equalize", True)]
    assert (tmp_path / "a.onnx").read_bytes() != (tmp_path / "b.onnx").read_bytes()
    assert result.accuracy is not None and plain.accuracy is not None
    near = [a.outputs[0].sqnr_db for a in (plain.accuracy, result.accuracy)]
    assert near[0] is not None and near[1] is not None and abs(near[0] - near[1]) < 6
    assert result.coverage == plain.coverage


COSTS = ROOT / "onnxq/costs/shipped/x86-64-avx512-vnni.json"


@pytest.mark.usefixtures("everything_pays")
def test_the_float_model_is_repaired_later_if_the_budget_does_not_hold_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNXQ_CACHE_DIR", str(tmp_path / "cache"))
    loose = run(tmp_path / "a.onnx", placement="cost", costs=COSTS, min_sqnr_db=5.0)
    assert [r.name for r in loose.repairs] == ["weights", "bias"]
    tight = run(tmp_path / "b.onnx", placement="cost", costs=COSTS, min_sqnr_db=45.0, keep_best=True)
    assert [r.name for r in tight.repairs] == ["equalize", "smooth", "weights", "bias"]
    assert tight.repairs[0].kept and any(re.search("units? fewer in int8", n) for n in tight.notes)


def test_fast_leaves_the_float_model_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXQ_CACHE_DIR", str(tmp_path / "cache"))
    tight = run(tmp_path / "a.onnx", placement="cost", effort="fast", costs=COSTS, min_sqnr_db=45.0, keep_best=True)
    assert [r.name for r in tight.repairs] == ["bias"]
