"""Detectors whose heads decode boxes and join them, in pixels, with scores, in one output: right at default settings,
by rules, by measured costs, and where int8 costs nothing at all.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

import onnxq
from onnxq.config.job import Job
from onnxq.costs.files import save
from onnxq.costs.observe import observe
from onnxq.costs.table import Cost
from onnxq.plan import vetoes
from onnxq.runtime.profile import profile
from onnxq.runtime.session import Session

SIZE, STRIDE, BINS, CLASSES, CHANNELS = 96, 8, 16, 5, 32
CELLS = SIZE // STRIDE


def detector(*, direct: bool = False) -> onnx.ModelProto:
    """`images` [1, 3, 96, 96] to `found` [1, 4 + 5, 144]: centre and size of boxes in pixels, then scores.

    Args:
        direct: one convolution gives distances in pixels and logits, instead of two that give shares and logits.
    """
    random = np.random.default_rng(3)
    made: list[TensorProto] = []

    def constant(name: str, values: NDArray[Any]) -> str:
        made.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def convolution(name: str, source: str, inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[Any]:
        weights = random.normal(0, (2.0 / (inputs * kernel**2)) ** 0.5, (outputs, inputs, kernel, kernel))
        biases = random.normal(0, 0.3, outputs)
        if direct and outputs == 4 + CLASSES:  # distances are in pixels, and far from 0
            weights[:4] *= 40
            biases[:4] += 30
        names = [
            constant(f"{name}.w", weights.astype(np.float32)),
            constant(f"{name}.b", biases.astype(np.float32)),
        ]
        pads = [kernel // 2] * 4
        node = helper.make_node("Conv", [source, *names], [name], name, pads=pads, strides=[stride] * 2)
        return [node, helper.make_node("Relu", [name], [f"{name}.relu"], f"{name}.relu")]

    nodes = [
        *convolution("c1", "images", 3, CHANNELS, 3, 2),
        *convolution("c2", "c1.relu", CHANNELS, CHANNELS, 3, 2),
        *convolution("c3", "c2.relu", CHANNELS, CHANNELS, 3, 2),
    ]
    grid = np.stack(np.meshgrid(np.arange(CELLS), np.arange(CELLS))).reshape(1, 2, -1).astype(np.float32) + 0.5
    anchors = constant("anchors", grid)
    shape = constant("shape", np.array([1, 4, BINS, CELLS**2]))
    flat = constant("flat", np.array([1, CLASSES, CELLS**2]))
    back = constant("back", np.array([1, 4, CELLS**2]))
    expected = constant("expected", np.arange(BINS, dtype=np.float32).reshape(1, BINS, 1, 1))
    for name, value in (("two", 2.0), ("stride", float(STRIDE))):
        constant(name, np.array(value, dtype=np.float32))
    if direct:
        nodes += [
            *convolution("head", "c3.relu", CHANNELS, 4 + CLASSES, 1)[:1],
            helper.make_node("Split", ["head", constant("sizes", np.array([4, CLASSES]))], ["edges", "scores"], axis=1),
            helper.make_node("Relu", ["edges"], ["positive"], "positive"),
            helper.make_node("Div", ["positive", "stride"], ["mean"], "mean"),
        ]
    else:
        nodes += [
            *convolution("boxes", "c3.relu", CHANNELS, 4 * BINS, 1)[:1],
            *convolution("scores", "c3.relu", CHANNELS, CLASSES, 1)[:1],
            helper.make_node("Reshape", ["boxes", shape], ["bins"], "bins"),
            helper.make_node("Transpose", ["bins"], ["turned"], "turned", perm=[0, 2, 1, 3]),
            helper.make_node("Softmax", ["turned"], ["shares"], "shares", axis=1),
            helper.make_node("Conv", ["shares", expected], ["mean"], "mean"),
        ]
    nodes += [
        helper.make_node("Reshape", ["mean", back], ["distances"], "distances"),
        helper.make_node("Split", ["distances"], ["left", "right"], "halves", axis=1),
        helper.make_node("Sub", [anchors, "left"], ["low"], "low"),
        helper.make_node("Add", [anchors, "right"], ["high"], "high"),
        helper.make_node("Add", ["low", "high"], ["sum"], "sum"),
        helper.make_node("Div", ["sum", "two"], ["centre"], "centre"),
        helper.make_node("Sub", ["high", "low"], ["size"], "size"),
        helper.make_node("Concat", ["centre", "size"], ["cells"], "cells", axis=1),
        helper.make_node("Mul", ["cells", "stride"], ["pixels"], "pixels"),
        helper.make_node("Reshape", ["scores", flat], ["logits"], "logits"),
        helper.make_node("Sigmoid", ["logits"], ["likely"], "likely"),
        helper.make_node("Concat", ["pixels", "likely"], ["found"], "found", axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("found", TensorProto.FLOAT, [1, 4 + CLASSES, CELLS**2])],
        made,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def samples(count: int, seed: int) -> list[dict[str, NDArray[np.float32]]]:
    """Pictures in [0, 1] of blocks of 8 by 8."""
    coarse = np.random.default_rng(seed).random((count, 1, 3, SIZE // 8, SIZE // 8)).astype(np.float32)
    return [{"images": np.kron(picture, np.ones((8, 8), np.float32))} for picture in coarse]


CALIB = samples(8, 1)


@pytest.fixture(scope="module", params=["shares", "direct"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param) / f"{request.param}.onnx"
    onnx.save(detector(direct=request.param == "direct"), path)
    return path


def made(model: Path, out: Path, **options: Any) -> Any:
    return onnxq.quantize(job=Job(model=model).with_overrides(**options), calib=CALIB, output=out, validate=False)


def errors(model: Path, other: Path) -> tuple[float, float]:
    """What 95 % of the boxes' numbers (pixels) and of the scores are off by at most."""
    pixels, scores = [], []
    for inputs in samples(8, 2):
        exact, got = (Session(p, threads=1).run(inputs)["found"] for p in (model, other))
        assert exact[:, 2:4].max() > 60 and 0 <= exact[:, 4:].min() <= exact[:, 4:].max() <= 1
        pixels.append(np.abs(exact - got)[:, :4])
        scores.append(np.abs(exact - got)[:, 4:])
    return float(np.quantile(pixels, 0.95)), float(np.quantile(scores, 0.95))


def right(model: Path, other: Path) -> bool:
    pixels, scores = errors(model, other)
    return pixels < 2.5 and scores < 0.02


def test_boxes_beside_scores_come_out_right_by_rules(model: Path, tmp_path: Path) -> None:
    made(model, tmp_path / "o.onnx", placement="rules")
    assert right(model, tmp_path / "o.onnx"), errors(model, tmp_path / "o.onnx")


def test_boxes_beside_scores_come_out_right_by_measured_cost(tmp_path: Path) -> None:
    onnx.save(detector(direct=True), tmp_path / "model.onnx")
    made(tmp_path / "model.onnx", tmp_path / "o.onnx", effort="fast", method="minmax")
    assert right(tmp_path / "model.onnx", tmp_path / "o.onnx")


def test_boxes_beside_scores_come_out_right_where_int8_costs_nothing(model: Path, tmp_path: Path) -> None:
    full, out = tmp_path / "full.onnx", tmp_path / "o.onnx"
    made(model, full, placement="rules", method="minmax")
    floats, integers = (observe(profile(p, CALIB[:1], runs=2)) for p in (model, full))
    table = floats.merge(integers)
    cheap = {k: Cost(context=(1e-3 if k.op.endswith("Conv") and "QLinear" not in k.op else 1e-9,)) for k in table.costs}
    save(dataclasses.replace(table, costs=cheap), tmp_path / "costs.json")
    result = made(model, out, method="minmax", costs=tmp_path / "costs.json")
    assert any("by the cost file chose" in note and "chose float" not in note for note in result.notes), result.notes
    assert right(model, out), errors(model, out)


def test_what_goes_wrong_else(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime's own quantizer joins boxes and scores in one scale; ours would keep logits in that of pixels."""
    peer, out = tmp_path / "peer.onnx", tmp_path / "o.onnx"

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter(CALIB)

        def get_next(self) -> Any:
            return next(self.rest, None)

    quantize_static(str(model), str(peer), Reader(), quant_format=QuantFormat.QDQ)
    assert errors(model, peer)[1] > 0.05
    monkeypatch.setattr(vetoes, "trapped", lambda *_: {})
    made(model, out, placement="rules", method="minmax")
    assert right(model, out) == (model.stem == "shares")
