from __future__ import annotations

import enum
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxq.report.json import dumps, encode
from onnxq.validate.result import SCHEMA, Result

SHAPE = """\
schema command reference candidate target method calibration sizes.reference sizes.candidate sizes.ratio
accuracy.samples accuracy.data accuracy.outputs[].name accuracy.outputs[].dtype accuracy.outputs[].elements
accuracy.outputs[].sqnr_db accuracy.outputs[].cosine accuracy.outputs[].max_abs accuracy.outputs[].absmax
accuracy.outputs[].worst_sample accuracy.outputs[].worst_sqnr_db accuracy.outputs[].top1_agreement
accuracy.outputs[].agreement accuracy.outputs[].nonfinite accuracy.outputs[].mismatched accuracy.metric.name
accuracy.metric.higher_is_better accuracy.metric.samples accuracy.metric.reference accuracy.metric.candidate
accuracy.metric.drop accuracy.metric.interval.low accuracy.metric.interval.high accuracy.metric.interval.level
accuracy.metric.resamples accuracy.metric.mcnemar_p accuracy.metric.only_reference accuracy.metric.only_candidate
accuracy.fusion.samples accuracy.fusion.max_abs accuracy.fusion.sqnr_db accuracy.fusion.literal_sqnr_db
accuracy.fusion.worse accuracy.fusion.suspicious
accuracy.notes[] latency[].threads latency[].pairs latency[].inner latency[].reference_ms
latency[].candidate_ms latency[].speedup latency[].speedup_low latency[].speedup_high latency[].noisy latency[].seconds
coverage.ops[].name coverage.ops[].op coverage.ops[].path coverage.ops[].form coverage.ops[].heavy
coverage.ops[].integer
coverage.ops[].kernel coverage.ops[].macs coverage.ops[].reason coverage.kernels.QLinearConv
coverage.kernels.QuantizeLinear coverage.notes[] coverage.macs coverage.integer_macs coverage.mac_share
coverage.integer_ops coverage.heavy_total coverage.conversions verdict.passed verdict.checks[].name
verdict.checks[].passed verdict.checks[].measured verdict.checks[].limit verdict.checks[].sentence verdict.exit_code
verdict.checks[].group verdict.checks[].inconclusive verdict.checks[].warning verdict.checks[].interval
verdict.checks[].samples verdict.checks[].samples_needed verdict.checks[].details verdict.checks[].outcome
verdict.causes verdict.schema verdict.outcome
accuracy.metric.interval.method accuracy.metric.mcnemar_mid_p
latency[].speedup_interval latency[].candidate_interval latency[].noise
model.path model.bytes model.external[] model.opset model.ir_version model.domains.com.microsoft model.producer
model.inputs[].name model.inputs[].dtype model.inputs[].shape[] model.outputs[].name model.outputs[].dtype
model.outputs[].shape model.parameters model.weight_bytes model.nodes.Conv model.nodes.Relu model.quantized
model.notes[] layers.samples layers.tensors[].tensor layers.tensors[].node layers.tensors[].op layers.tensors[].type
layers.tensors[].low layers.tensors[].high layers.tensors[].least layers.tensors[].greatest layers.tensors[].clipped
layers.tensors[].sqnr_db layers.tensors[].own_sqnr_db layers.tensors[].elements layers.histograms[].tensor
layers.histograms[].low layers.histograms[].high layers.histograms[].edges[] layers.histograms[].counts[]
layers.histograms[].source layers.seconds layers.notes pareto[].label pareto[].chosen pareto[].speedup
pareto[].seconds pareto[].drop pareto[].sqnr_db pareto[].timed
pareto[].predicted_sqnr_db placement[].unit placement[].form placement[].float_ms
placement[].int8_ms placement[].saving_ms placement[].why account[].form account[].threads account[].timed
account[].limit_ms account[].measured_ms account[].predicted_ms account[].profiled_ms account[].nearness
account[].deviation account[].causes[].name account[].causes[].ms account[].causes[].parts account[].causes[].largest[]
account[].lost[].cause account[].lost[].name account[].lost[].op account[].lost[].ms account[].lost[].why
repairs[].name repairs[].kept repairs[].told repairs[].before_db repairs[].after_db repairs[].samples repairs[].seconds
repairs[].gain_db run.command[] run.pipeline run.inputs[].role
run.inputs[].path run.inputs[].files run.inputs[].bytes run.inputs[].sha256 run.inputs[].note run.seeds.bootstrap
notes[] passes[].name passes[].rewrites passes[].refusals seconds.calibrate seconds.save environment.cpu
environment.features[] environment.cores environment.platform environment.python environment.packages.onnx
"""


def paths(value: Any, prefix: str = "") -> list[str]:
    """Every key of a document; of lists the first element."""
    if isinstance(value, dict) and value:
        return [p for k, v in value.items() for p in paths(v, f"{prefix}.{k}" if prefix else k)]
    if isinstance(value, list) and value:
        return paths(value[0], f"{prefix}[]")
    return [prefix]


def test_keys_of_the_schema_are_stable(full: Result) -> None:
    """A key that goes or changes its name needs a new schema version; new ones are added to this list."""
    found = json.loads(dumps(full))
    assert found["schema"] == SCHEMA == "onnxq.result/1"
    keys = [p for p in paths(found) if not p.startswith("model.coverage.")]
    assert sorted(keys) == sorted(SHAPE.split())


def test_keys_are_there_even_if_nothing_was_done(full: Result) -> None:
    empty = json.loads(dumps(Result(command="inspect")))
    assert empty.keys() == json.loads(dumps(full)).keys()
    assert empty["accuracy"] is None
    assert empty["passes"] == []


def test_values(full: Result) -> None:
    found = json.loads(dumps(full))
    assert found["accuracy"]["outputs"][2]["sqnr_db"] == "Infinity"
    assert found["coverage"]["mac_share"] == 0.75
    assert found["passes"][1] == {"name": "hoist", "rewrites": 0, "refusals": {"two consumers": 2}}
    assert found["verdict"]["exit_code"] == 1
    assert found["model"]["inputs"][0]["shape"] == ["n", 3, None]


def test_what_is_not_a_number_stays_readable() -> None:
    values = [math.nan, math.inf, -math.inf]
    text = json.dumps(encode(values), allow_nan=False)
    back = [float(v) for v in json.loads(text)]
    assert math.isnan(back[0])
    assert back[1:] == values[1:]


class Colour(enum.Enum):
    DARK_RED = 7


@dataclass(frozen=True)
class Pair:
    a: int
    b: int

    @property
    def total(self) -> int:
        return self.a + self.b

    @property
    def both(self) -> tuple[int, int]:
        return (self.a, self.b)


def test_encoder() -> None:
    value = {
        1: Pair(1, 2),
        "e": Colour.DARK_RED,
        "s": {"b", "a"},
        "n": np.float32(0.5),
        "i": np.int64(3),
        "p": Path("a/b"),
    }
    assert encode(value) == {
        "1": {"a": 1, "b": 2, "total": 3}, "e": "dark_red", "s": ["a", "b"], "n": 0.5, "i": 3, "p": "a/b",
    }  # fmt: skip
    with pytest.raises(TypeError, match="a bytes has no form in JSON"):
        encode({"x": b"raw"})
