"""What is known about tensors without running the model."""

from __future__ import annotations

import numpy as np
from onnx import helper, numpy_helper, parser

from onnxq.ir import shapes
from onnxq.ir.load import from_proto
from onnxq.ir.shapes import infer
from onnxq.ir.text import parse

F = np.dtype(np.float32)


def test_plain():
    known = infer(
        parse("""<ir_version: 8, opset_import: ["": 17]> g (float[N,3,8,8] x) => (float[?,?,?,?] y)
        <int64[4] d = {4, 3, 3, 3}, int64[2] s = {0, -1}> { w = ConstantOfShape(d)
        c = Conv(x, w) r = Reshape(c, s) k = Shape(r) y = Relu(c) }""")
    )
    assert known["x"] == (F, ("N", 3, 8, 8))
    assert known["c"] == (F, ("N", 4, 6, 6))
    assert known["w"] == (F, (4, 3, 3, 3))
    assert known["s"] == (np.dtype(np.int64), (2,))
    assert known["r"] == (F, ("N", None)) or known["r"] == (F, ("N", 144))
    assert known["k"] == (np.dtype(np.int64), (2,))


def test_inner_graphs():
    known = infer(
        parse("""<ir_version: 8, opset_import: ["": 17]> g (float[2,3] x, bool c) => (float[3,2] y) {
        y = If(c) <then_branch = a () => (float[3,2] p) { q = Neg(x) p = Transpose(q) },
                   else_branch = b () => (float[3,2] r) { r = Transpose(x) }> }""")
    )
    assert known["q"] == (F, (2, 3))


def test_unknown_operators_use_the_types_in_the_file():
    proto = parser.parse_model("""<ir_version: 8, opset_import: ["": 17, "my": 1]> g (float[2,3] x) => (float[2,3] y) {
        h = my.Secret(x) z = my.Secret(h) y = Relu(z) }""")
    proto.graph.value_info.append(helper.make_tensor_value_info("h", 1, [7, "M"]))
    model = from_proto(proto)
    known = infer(model)
    assert known["h"] == (F, (7, "M"))
    assert known["z"] == (None, None)
    assert known["y"] == (F, (2, 3))
    assert model.notes == []


def test_failure_is_a_note(monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("[ShapeInferenceError] bad\nmore")

    monkeypatch.setattr(shapes.shape_inference, "infer_shapes", fail)
    model = parse('<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) { h = Relu(x) y = Neg(h) }')
    known = infer(model)
    infer(model)
    assert known["x"] == (F, (2,))
    assert known["h"] == (None, None)
    assert len(model.notes) == 1
    assert model.notes[0].startswith("Shape inference failed ([ShapeInferenceError] bad")


def test_contradicting_shapes_do_not_stop_it():
    proto = parser.parse_model("""<ir_version: 8, opset_import: ["": 17]> g (float[2,3] x) => (float[9,9] y) {
        h = MatMul(x, x) y = Relu(h) }""")
    known = infer(from_proto(proto))
    assert known["x"] == (F, (2, 3))


def test_a_large_shape_constant_is_seen():
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[6] x) => (float[?,?] y) { y = Reshape(x, s) }'
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.array([2, 3]), "s"))
    assert infer(from_proto(proto))["y"] == (F, (2, 3))


def test_a_size_of_minus_one_is_unknown():
    """Paddle writes -1 for a batch of any size."""
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[1,3] x) => (float[1,3] y) { h = Relu(x) y = Sigmoid(h) }'
    )
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = -1
    for declared in (True, False):
        known = infer(from_proto(proto), declared=declared)
        assert (known["x"], known["h"]) == ((F, (None, 3)), (F, (None, 3)))
