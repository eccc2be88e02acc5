"""Speed, resources, structure: the judgement from values, and what is measured on small models."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxq.config.gate import LoadLimit, MemoryLimit, SpeedLimit, StructureLimit
from onnxq.errors import ModelError, UsageError
from onnxq.gating import resources, speed, structure
from onnxq.runtime import probe as probing
from onnxq.runtime.probe import Probe, probe
from onnxq.validate.latency import summarize


def latency(ratio: float, spread: float, pairs: int = 101) -> Any:
    """Timings with this median ratio, whose quartiles are about `spread` of it apart."""
    noise = np.linspace(-2 * spread, 2 * spread, pairs) / 2
    candidate = np.full(pairs, 0.001)
    return summarize(np.stack([candidate * ratio * (1 + noise), candidate], axis=1), threads=1, inner=1, seconds=1.0)


@pytest.mark.parametrize(
    ("ratio", "spread", "limit", "outcome"),
    [
        (2.0, 0.05, 1.5, "pass"),
        (2.0, 0.05, 2.5, "fail"),
        (2.0, 0.05, 2.0, "inconclusive"),
        (2.0, 0.4, 1.5, "inconclusive"),
        (9.0, 0.4, 1.5, "inconclusive"),
    ],
)
def test_speed(ratio: float, spread: float, limit: float, outcome: str) -> None:
    (check,) = speed.judge(latency(ratio, spread), SpeedLimit(min_speedup=limit))
    assert check.outcome == outcome
    assert ("too noisy" in check.sentence) == (spread > 0.15)
    assert check.interval is not None and check.interval.low <= ratio <= check.interval.high


def test_noise_is_what_is_allowed() -> None:
    measured = latency(2.0, 0.4)
    (check,) = speed.judge(measured, SpeedLimit(min_speedup=1.0, max_noise=0.5))
    assert check.outcome == "pass"


def test_latency_limit_and_too_few_pairs() -> None:
    (check,) = speed.judge(latency(2.0, 0.01), SpeedLimit(max_latency_ms=1.1))
    assert check.outcome == "pass" and check.measured == pytest.approx(1.0)
    (few,) = speed.judge(latency(2.0, 0.01, pairs=5), SpeedLimit(max_latency_ms=1.1))
    assert few.outcome == "inconclusive" and few.interval is not None and few.interval.high == math.inf


def probes(peak: int, loads: tuple[float, ...]) -> tuple[Probe, Probe]:
    one = Probe(load_ms=(10.0,) * 9, peak_bytes=100, anonymous_bytes=50)
    return one, Probe(load_ms=loads, peak_bytes=peak, anonymous_bytes=50)


def test_memory_and_load_time() -> None:
    memory, load = MemoryLimit(max_ratio=1.2, max_bytes=110), LoadLimit(max_ms=12, max_ratio=1.5)
    good = list(resources.judge(probes(105, (11.0,) * 9), memory, load, level=0.95))
    assert [c.outcome for c in good] == ["pass"] * 4
    assert [c.group for c in good] == ["memory", "memory", "load", "load"]
    bad = list(resources.judge(probes(130, (20.0,) * 9), memory, load, level=0.95))
    assert [c.outcome for c in bad] == ["fail"] * 4
    mixed = list(resources.judge(probes(100, (9.0, 30.0) * 4 + (11.0,)), None, load, level=0.95))
    assert [c.outcome for c in mixed] == ["inconclusive"] * 2


def test_a_peak_that_was_not_seen_never_passes() -> None:
    one = Probe(load_ms=(1.0,), peak_bytes=0, anonymous_bytes=0)
    (check,) = resources.judge((one, one), MemoryLimit(max_ratio=9), None, level=0.95)
    assert check.outcome == "fail"


def test_a_process_of_its_own_sees_the_weights(tmp_path: Path) -> None:
    """40 MB of weights: at least so much at the peak, and a small model needs less than that."""
    sizes = []
    for width in (10_000, 10):
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1000])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, width])],
            [numpy_helper.from_array(np.ones((1000, width), np.float32), "w")],
        )  # fmt: skip
        path = tmp_path / f"m{width}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        sizes.append(probe(path, {"x": np.ones((1, 1000), np.float32)}, loads=2))
    assert sizes[0].peak_bytes > 40_000_000 > sizes[1].peak_bytes
    assert sizes[0].anonymous_bytes > sizes[1].anonymous_bytes
    assert len(sizes[0].load_ms) == 2 and min(sizes[0].load_ms) > 0


def test_probe_says_what_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(
        ModelError, match=r"memory of .*broken\.onnx cannot be measured, its process failed: .*ModelError"
    ):
        probe(tmp_path / "broken.onnx", {"x": np.ones(1)})
    monkeypatch.setattr(probing, "_STATUS", tmp_path / "nowhere")
    with pytest.raises(UsageError, match="which only Linux has"):
        probe(tmp_path / "broken.onnx", {})


def net(path: Path, *nodes: Any, output: str = "y", shape: tuple[int, ...] = (1, 4), domain: str = "") -> Path:
    constants = {"s": np.float32(0.1), "t": np.float32(0.3), "z": np.uint8(3)}
    graph = helper.make_graph(
        list(nodes), "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


RELU = helper.make_node("Relu", ["x"], ["y"], "relu")


def outcomes(one: Path, two: Path, limit: StructureLimit) -> dict[str, str]:
    return {c.name: c.outcome for c in structure.judge(one, two, limit)}


def test_versions_operators_and_domains(tmp_path: Path) -> None:
    plain = net(tmp_path / "a.onnx", RELU)
    gelu = net(
        tmp_path / "b.onnx",
        helper.make_node("Gelu", ["x"], ["y"], "gelu", domain="com.microsoft"),
        domain="com.microsoft",
    )
    assert outcomes(plain, plain, StructureLimit(max_opset=17, max_ir_version=8)) == {
        "opset": "pass",
        "IR version": "pass",
    }
    assert outcomes(plain, plain, StructureLimit(max_opset=16, max_ir_version=7)) == {
        "opset": "fail",
        "IR version": "fail",
    }
    assert outcomes(plain, plain, StructureLimit(target="cpu"))["opset"] == "pass"
    only = StructureLimit(domains=("ai.onnx",), ops=("Relu",))
    assert outcomes(plain, plain, only) == {"domains": "pass", "operators": "pass"}
    assert outcomes(plain, gelu, only) == {"domains": "fail", "operators": "fail"}
    both = StructureLimit(domains=("", "com.microsoft"), ops=("com.microsoft.Gelu",))
    assert outcomes(plain, gelu, both) == {"domains": "pass", "operators": "pass"}


def test_outputs_in_another_order_and_of_another_type(tmp_path: Path) -> None:
    paths = []
    for name, order, kind in (("a", "yz", 1), ("b", "zy", 1), ("c", "yz", 7)):
        nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Cast", ["x"], ["z"], to=kind)]
        outputs = {
            "y": helper.make_tensor_value_info("y", 1, (1, 4)), "z": helper.make_tensor_value_info("z", kind, (1, 4))
        }  # fmt: skip
        given = [helper.make_tensor_value_info("x", 1, (1, 4))]
        graph = helper.make_graph(nodes, "g", given, [outputs[o] for o in order])
        paths.append(tmp_path / f"{name}.onnx")
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), paths[-1])
    limit = StructureLimit(same_interface=True)
    (other,) = structure.judge(paths[0], paths[1], limit)
    assert other.details == ("the outputs stand in another order: z, y",)
    (typed,) = structure.judge(paths[0], paths[2], limit)
    assert typed.details == ("output z is int64, was float32",)


def test_interface(tmp_path: Path) -> None:
    plain, limit = net(tmp_path / "a.onnx", RELU), StructureLimit(same_interface=True)
    other = net(tmp_path / "b.onnx", helper.make_node("Relu", ["x"], ["z1"], "relu"), output="z1")
    wide = net(tmp_path / "c.onnx", RELU, shape=(1, 5))
    assert outcomes(plain, plain, limit) == {"interface": "pass"}
    (renamed,) = structure.judge(plain, other, limit)
    assert renamed.details == ("output y is gone", "output z1 is new")
    (wider,) = structure.judge(plain, wide, limit)
    assert wider.details == ("input x has shape [1, 5], was [1, 4]", "output y has shape [1, 5], was [1, 4]")


def test_conversions_face_to_face(tmp_path: Path) -> None:
    """Two pairs of different scales in a row stay in ONNX Runtime's graph if a Relu of integers lies between."""
    q = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "q")
    d = helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], "d")
    again = helper.make_node("QuantizeLinear", ["d", "t", "z"], ["e"], "again")
    last = helper.make_node("DequantizeLinear", ["e", "t", "z"], ["f"], "last")
    tail = helper.make_node("Add", ["f", "d"], ["y"], "add")
    path = net(tmp_path / "two.onnx", q, d, again, last, tail)
    (found,) = structure.judge(path, path, StructureLimit(no_face_to_face=True))
    assert found.outcome == "fail" and "feeds again" in found.sentence
    plain = net(tmp_path / "one.onnx", q, d, helper.make_node("Relu", ["d"], ["y"], "relu"))
    assert outcomes(plain, plain, StructureLimit(no_face_to_face=True)) == {"conversions": "pass"}
