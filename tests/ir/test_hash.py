"""The cheap hash notices rewrites; the exact one identifies a model."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from onnx import numpy_helper, parser

from onnxq.ir.hash import array_hash, model_hash, structural
from onnxq.ir.load import from_proto, load
from onnxq.ir.model import Model
from onnxq.ir.save import save

SOURCE = """<ir_version: 8, opset_import: ["": 17]> g (float[2,3] x) => (float[2,3] y)
    <float[3] w = {1, 2, 3}> { h = Add(x, w) y = LeakyRelu<alpha=0.5>(h) }"""


def model(large: float = 1.0) -> Model:
    proto = parser.parse_model(SOURCE.replace("LeakyRelu<alpha=0.5>(h)", "Mul(h, big)"))
    proto.graph.initializer.append(numpy_helper.from_array(np.full((2000, 3), large, np.float32), "big"))
    return from_proto(proto)


def small() -> Model:
    return from_proto(parser.parse_model(SOURCE))


def edits():
    def rename(m):
        m.graph.nodes[0].name = "new"

    def op(m):
        m.graph.nodes[0].op = "Sub"

    def domain(m):
        m.graph.nodes[0].domain = "com.microsoft"

    def attribute(m):
        m.graph.nodes[1].attrs["alpha"] = 0.25

    def value(m):
        m.graph.nodes[0].inputs[1].values = np.array([1, 2, 4], np.float32)

    def connection(m):
        m.graph.nodes[1].inputs[0] = m.graph.inputs[0]

    def swap(m):
        a, b = m.graph.nodes[0].inputs
        m.graph.nodes[0].inputs = [b, a]

    def shape(m):
        m.graph.inputs[0].shape = ("N", 3)

    def output(m):
        m.graph.outputs = [m.graph.nodes[0].outputs[0]]

    return [rename, op, domain, attribute, value, connection, swap, shape, output]


@pytest.mark.parametrize("edit", edits(), ids=lambda f: f.__name__)
def test_both_notice(edit):
    m = small()
    before = structural(m.graph), model_hash(m)
    assert (structural(m.graph), model_hash(m)) == before
    edit(m)
    assert structural(m.graph) != before[0]
    assert model_hash(m) != before[1]


def test_structural_takes_a_large_constant_by_identity():
    m = model()
    before = structural(m.graph)
    weight = m.graph.nodes[1].inputs[1]
    weight.values = np.array(weight.values)
    assert structural(m.graph) != before


def test_model_hash_takes_values():
    assert model_hash(model()) == model_hash(model())
    assert model_hash(model(1.0)) != model_hash(model(2.0))
    m = model()
    m.graph.nodes[1].inputs[1].values = np.array(m.graph.nodes[1].inputs[1].values)
    assert model_hash(m) == model_hash(model())


def test_model_hash_survives_saving_with_external_data(tmp_path):
    m = model()
    save(m, tmp_path / "m.onnx", embed_limit=10)
    assert model_hash(load(tmp_path / "m.onnx")) == model_hash(m)


def test_model_hash_is_a_fixed_number():
    assert model_hash(small()) == "a185250ac808edf5d5b60dceb208d6452aff07a6ef2020297007a4f89dcb0c79"


def test_an_integer_for_a_float_attribute_is_the_same_model(tmp_path):
    m = small()
    m.graph.nodes[1].attrs["alpha"] = 1
    save(m, tmp_path / "m.onnx")
    assert model_hash(load(tmp_path / "m.onnx")) == model_hash(m)
    m.graph.nodes[1].attrs["alpha"] = 2
    assert model_hash(load(tmp_path / "m.onnx")) != model_hash(m)


def test_metadata_does_not_count():
    m = small()
    before = model_hash(m)
    m.meta.metadata["a"] = "b"
    m.meta.producer_name = "p"
    assert model_hash(m) == before


def test_opset_counts():
    m = small()
    before = model_hash(m)
    m.opset = 18
    assert model_hash(m) != before


def test_inner_graphs_count():
    source = """<ir_version: 8, opset_import: ["": 17]> g (float[4] x, bool c) => (float[4] y) {
        y = If (c) <then_branch = a () => (float[4] p) { p = Neg(x) },
        else_branch = b () => (float[4] s) { s = Abs(x) }>
    }"""
    m = from_proto(parser.parse_model(source))
    before = structural(m.graph), model_hash(m)
    m.graph.nodes[0].attrs["else_branch"].nodes[0].op = "Relu"
    assert structural(m.graph) != before[0]
    assert model_hash(m) != before[1]


def test_array_hash_tells_types_and_shapes_apart():
    zero = np.zeros(4, np.float32)
    arrays = [zero, zero.reshape(2, 2), zero.astype(np.int32), np.array(["", "a"], dtype=object)]
    arrays += [np.array(["a", ""], dtype=object), np.zeros(0, np.float32), np.float32(0)]
    assert len({array_hash(np.asarray(a)) for a in arrays}) == len(arrays)
    assert array_hash(np.arange(6).reshape(2, 3).T) == array_hash(np.ascontiguousarray(np.arange(6).reshape(2, 3).T))
    assert isinstance(gs.Constant("c", zero).values, np.ndarray)
