"""The committed baseline: written, read, compared; a layer that moved is named."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onnxq.config.gate import CoverageLimit, DriftLimit
from onnxq.errors import ConfigError, OutputError
from onnxq.gating import baseline
from onnxq.gating.baseline import Baseline, Score, TensorScore
from onnxq.validate.coverage import Coverage, OpCoverage
from onnxq.validate.layers import LayerAccuracy, Layers


def layer(tensor: str, sqnr: float, own: float, op: str = "Conv") -> LayerAccuracy:
    return LayerAccuracy(
        tensor=tensor, node=f"node of {tensor}", op=op, type="uint8", low=0.0, high=1.0, least=0.0, greatest=1.0,
        clipped=0.0, sqnr_db=sqnr, own_sqnr_db=own, elements=9,
    )  # fmt: skip


def committed(**scores: tuple[float, float]) -> Baseline:
    return Baseline(
        schema=baseline.SCHEMA, candidate="m.onnx", model_hash="ab", samples=100, size=9,
        scores={"top1": Score(score=0.9, samples=100), "wer": Score(score=0.2, samples=100, higher_is_better=False)},
        tensors={
            name: TensorScore(node=f"node of {name}", op="Conv", sqnr_db=s, own_sqnr_db=o)
            for name, (s, o) in scores.items()
        },
        integer_ops=("a", "b"),
    )  # fmt: skip


def test_round_trip_with_infinite_values(tmp_path: Path) -> None:
    before = committed(x=(math.inf, 30.123456789), y=(-math.inf, 1.0))
    path = tmp_path / "b.json"
    baseline.save(before, path)
    again = baseline.load(path)
    assert again.scores == before.scores and again.integer_ops == before.integer_ops
    assert float(again.tensors["x"].sqnr_db) == math.inf and float(again.tensors["y"].sqnr_db) == -math.inf
    assert again.tensors["x"].own_sqnr_db == 30.1235
    baseline.save(again, tmp_path / "c.json")
    assert (tmp_path / "c.json").read_text() == path.read_text()


def test_faults_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    with pytest.raises(ConfigError, match=r"there is no committed baseline .*--update-baseline"):
        baseline.load(path)
    baseline.save(committed(), path)
    path.write_text(path.read_text().replace(baseline.SCHEMA, "onnxq.baseline/9"))
    with pytest.raises(ConfigError, match=r'the schema is "onnxq\.baseline/9", this onnxq reads "onnxq\.baseline/1"'):
        baseline.load(path)
    path.write_text('{"schema": "onnxq.baseline/1", "sise": 3}')
    with pytest.raises(ConfigError, match=r'b\.json:1:32: the file has no key "sise": did you mean "size"'):
        baseline.load(path)
    with pytest.raises(OutputError, match="cannot be written"):
        baseline.save(committed(), tmp_path / "no" / "b.json")


def test_what_moved_by_itself_comes_before_what_stands_behind_it() -> None:
    before = committed(a=(40, 40), b=(38, 42), c=(36, 41), d=(35, 39))
    now = Layers(samples=8, tensors=(layer("a", 40, 40), layer("b", 37, 40), layer("c", 6, 5), layer("d", 6.2, 38)))
    (check,) = baseline.drift(before, now, {}, DriftLimit(max_sqnr_drop_db=3))
    assert check.outcome == "fail" and check.group == "drift"
    assert check.details == (
        "Conv node of c moved: its own encoding leaves 5.0 dB, was 41.0 dB",
        "Conv node of d is worse: 6.2 dB, was 35.0 dB",
    )
    assert check.sentence == f"drift of the layers: {check.details[0]} and 1 more"
    (near,) = baseline.drift(before, now, {}, DriftLimit(max_sqnr_drop_db=36, on_failure="warn"))
    assert near.outcome == "pass"
    (warned,) = baseline.drift(before, now, {}, DriftLimit(max_sqnr_drop_db=3, on_failure="warn"))
    assert warned.outcome == "warn"


def test_a_tensor_that_was_equal_may_become_nearly_equal() -> None:
    """Infinite SQNR falls to 130 dB: float rounding, not drift."""
    now = Layers(samples=8, tensors=(layer("a", 130.0, 140.0),))
    (check,) = baseline.drift(committed(a=(math.inf, math.inf)), now, {}, DriftLimit(max_sqnr_drop_db=0.1))
    assert check.outcome == "pass"


def test_nothing_in_common_is_no_pass() -> None:
    (check,) = baseline.drift(
        committed(z=(1, 1)), Layers(samples=8, tensors=(layer("a", 9, 9),)), {}, DriftLimit(max_sqnr_drop_db=3)
    )
    assert check.outcome == "fail" and "update it" in check.sentence


def test_scores_against_the_commit() -> None:
    limit = DriftLimit(max_score_drop=0.01)
    now = {"top1": Score(score=0.885, samples=100), "wer": Score(score=0.205, samples=100, higher_is_better=False)}
    one, two = baseline.drift(committed(), Layers(samples=8), now, limit)
    assert (one.outcome, two.outcome) == ("fail", "pass")
    assert one.sentence == "top1: 0.9 when committed -> 0.885, drop 0.015, over the limit of 0.01"
    worse = {"wer": Score(score=0.22, samples=100, higher_is_better=False)}
    (three,) = baseline.drift(committed(), Layers(samples=8), worse, limit)
    assert three.outcome == "fail"
    (relative,) = baseline.drift(committed(), Layers(samples=8), worse, DriftLimit(max_score_drop="11%"))
    assert relative.outcome == "pass"


def op(name: str, *, integer: bool) -> OpCoverage:
    return OpCoverage(
        name=name, op="Conv", path=(), heavy=True, integer=integer, kernel="", macs=10, reason="" if integer else "why"
    )


def test_new_float_operators() -> None:
    found = Coverage(ops=(op("a", integer=False), op("c", integer=False), op("d", integer=True)), kernels={})
    limit = CoverageLimit(no_new_float=True, min_integer_macs=0.3)
    share, new = baseline.coverage_checks(found, limit, reference=None, committed=committed())
    assert (share.outcome, new.outcome) == ("pass", "fail")
    assert new.details == ("Conv a is float: why",), "c was float before, too"
    allowed = replace(limit, allow_float=("a*",))
    assert [c.outcome for c in baseline.coverage_checks(found, allowed, reference=None, committed=committed())] == [
        "pass"
    ] * 2
    before = Coverage(ops=(op("c", integer=True),), kernels={})
    _, file = baseline.coverage_checks(found, limit, reference=before, committed=None)
    assert file.details == ("Conv c is float: why",)


def test_by_the_command(gate: Any, spoilt: Path, tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    limits = "metrics: [{metric: top1, max_drop: 0.9}]\ndrift: {baseline: base.json, max_sqnr_drop_db: 3}\n"
    assert gate(limits, "--update-baseline", path).code == 0
    held = json.loads(path.read_text())
    assert held["schema"] == "onnxq.baseline/1" and len(held["model_hash"]) == 64
    assert set(held["scores"]) == {"top1"} and held["tensors"] and held["integer_ops"]
    again = tmp_path / "again.json"
    assert gate(limits, "--update-baseline", again).code == 0
    assert again.read_text() == path.read_text(), "the same model makes the same file"
    assert gate(limits).code == 0
    failed = gate(limits, candidate=spoilt)
    assert failed.code == 1
    assert "drift of the layers: Relu relu moved: its own encoding leaves" in failed.out
    assert gate("size: {max_ratio: 9}\n", "--compare", path, candidate=spoilt).code == 1
