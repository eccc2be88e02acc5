"""Float ops between integer ones, as in YOLOX (SiLU, pyramid pooling, Concat): where Q goes in the pipeline qoperator.

Q behind a Concat becomes one Q for each of its inputs: more nodes, no more elements, and Concat moves a quarter of the
bytes. A tensor that several ops move is quantized once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx
from fusing import Fused, Qdq

from onnxq.pipeline.base import Pass, Stage
from onnxq.pipeline.spec import load_pipeline
from onnxq.runtime.observe import node_runs
from onnxq.runtime.session import Level, optimized


def steps() -> Iterator[Pass]:
    """What the pipeline qoperator does behind the pipeline cpu."""
    return (s.body for s in load_pipeline("qoperator").steps if s.body.takes is not Stage.FLOAT)


def quantized(model: bytes, g: Qdq) -> int:
    """Elements that QuantizeLinear reads in one run."""
    proto = onnx.load_from_string(model)
    for number, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type} {number}"
    runs = node_runs(proto.SerializeToString(), g.feeds)
    return sum(math.prod(r.inputs[0]) for name, each in runs.items() if name.startswith("QuantizeLinear") for r in each)


def integer(made: Fused, op: str) -> bool:
    """Does every node of this type write 8 bits?"""
    proto = onnx.shape_inference.infer_shapes(onnx.load_from_string(made.file))
    types = {v.name: v.type.tensor_type.elem_type for v in (*proto.graph.value_info, *proto.graph.output)}
    found = [types[n.output[0]] for n in proto.graph.node if n.op_type == op]
    return bool(found) and set(found) == {onnx.TensorProto.UINT8}


def test_concat_of_float_islands() -> None:
    g = Qdq()
    g.out(g.op("Concat", *(g.op("Tanh", g.data(1, 4, 6, 6)) for _ in range(2)), axis=1), scale=0.007, zero=128)
    theirs = optimized(g.model().SerializeToString(), level=Level.EXTENDED)
    made = g.fuse(*steps())
    assert made.gap == 0
    assert integer(made, "Concat")
    assert made.ops["QuantizeLinear"] == 2 + 2, "one for each input of the graph and of the Concat"
    assert quantized(made.file, g) == quantized(theirs, g)


def test_pyramid_pooling_quantizes_its_source_once() -> None:
    g = Qdq()
    source = g.op("Tanh", g.data(1, 4, 6, 6))
    pools = [g.op("MaxPool", source, kernel_shape=[k, k], pads=[k // 2] * 4) for k in (3, 5)]
    g.out(g.op("Concat", source, *pools, axis=1), scale=0.007, zero=128)
    theirs = optimized(g.model().SerializeToString(), level=Level.EXTENDED)
    made = g.fuse(*steps())
    assert made.gap == 0
    assert integer(made, "Concat")
    assert integer(made, "MaxPool")
    assert made.ops["QuantizeLinear"] == 1 + 1
    assert quantized(made.file, g) < quantized(theirs, g)


def test_near_miss_another_reader_in_float() -> None:
    g = Qdq()
    joined = g.op("Concat", *(g.op("Tanh", g.data(1, 4, 6, 6)) for _ in range(2)), axis=1)
    g.out(joined, scale=0.007, zero=128)
    g.raw(g.op("Neg", joined))
    made = g.fuse(*steps())
    assert made.gap == 0
    assert made.ops["QuantizeLinear"] == 2 + 1
    assert any("reads its result in float" in reason for reason in made.reasons)


def test_a_relu_between_moves_and_q_is_absorbed() -> None:
    """As in the decoder of Silero's VAD: Q moves up to where the tensor is made."""
    g = Qdq()
    moved = g.op("Transpose", g.op("Tanh", g.data(1, 4, 6, 6)), perm=[0, 2, 3, 1])
    g.out(g.op("Relu", moved), scale=0.004, zero=0)
    made = g.fuse(*steps())
    assert made.gap == 0
    assert made.ops["Relu"] == 0
    assert integer(made, "Transpose")


def test_near_miss_a_relu_that_cuts_inside_of_the_range() -> None:
    g = Qdq()
    moved = g.op("Transpose", g.op("Tanh", g.data(1, 4, 6, 6)), perm=[0, 2, 3, 1])
    g.out(g.op("Relu", moved), scale=0.004, zero=3)
    made = g.fuse(*steps())
    assert made.gap == 0
    assert (made.ops["Relu"], integer(made, "Transpose")) == (1, False)
