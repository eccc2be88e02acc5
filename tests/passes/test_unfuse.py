"""What the unfuse passes share."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from rewriting import model

from onnxq.ir import text
from onnxq.testing import default_context
from onnxq_passes._edit import Editor
from onnxq_passes._qdq import Parameters
from onnxq_passes._unfuse import CannotUnfuseError, Unfusing, integer_type
from onnxq_passes.unfuse_qlinear import UnfuseQlinear


def unfusing(graph: str = "(float[2] x) => (float[2] y) { y = Relu(x) }", opset: int = 21) -> Unfusing:
    return Unfusing(Editor(text.parse(model(graph, opset)).graph))


def floats(*values: float) -> Any:
    return np.asarray(values, np.float32)


ONE = np.asarray(0.5, np.float32)
ZERO = np.asarray(3, np.int8)


def test_one_scale_and_zero_point_have_rank_0() -> None:
    wanted = Parameters(scale=ONE, zero_point=ZERO, axis=None, block_size=0, dtype="int8")
    for shape in ((), (1,), (1, 1)):
        for axis in (None, 0):
            said = unfusing().spelled(ONE.reshape(shape), ZERO.reshape(shape), axis)
            assert said == wanted
            assert said.zero_point.shape == ()


@pytest.mark.parametrize(
    ("scales", "zeros"),
    [
        (floats(0.5, 0.5), np.asarray(3, np.int8)),
        (floats(0.5), np.asarray([3, 3], np.int8)),
        (floats(0.5, 0.5).reshape(2, 1, 1), np.asarray([3, 3], np.int8)),
    ],
)
def test_several_scales_or_zero_points_are_one_of_each_per_channel(scales: Any, zeros: Any) -> None:
    wanted = Parameters(
        scale=floats(0.5, 0.5), zero_point=np.asarray([3, 3], np.int8), axis=1, block_size=0, dtype="int8"
    )
    for opset in (13, 21):
        assert unfusing(opset=opset).spelled(scales, zeros, 1) == wanted
    with pytest.raises(CannotUnfuseError, match="from opset 13 on, the model has 12"):
        unfusing(opset=12).spelled(scales, zeros, 1)
    with pytest.raises(CannotUnfuseError, match="a scale per channel of its data"):
        unfusing().spelled(scales, zeros, None)


@pytest.mark.parametrize(
    ("scales", "zeros", "reason"),
    [
        (np.asarray(0.5), ZERO, "no positive float32"),
        (np.asarray(0.5, np.float16), ZERO, "no positive float32"),
        (floats(0.5, 0), ZERO, "no positive float32"),
        (floats(0.5, -1), ZERO, "no positive float32"),
        (floats(0.5, np.inf), ZERO, "no positive float32"),
        (floats(0.5, np.nan), ZERO, "no positive float32"),
        (ONE, np.asarray(3, np.float32), "a zero point is float32"),
        (ONE, np.asarray(3, np.int64), "a zero point is int64"),
        (floats(1, 2, 3, 4).reshape(2, 2), ZERO, "a batch of matrices"),
        (ONE, np.ones((2, 2), np.int8), "a batch of matrices"),
    ],
)
def test_numbers_that_q_and_dq_do_not_take(scales: Any, zeros: Any, reason: str) -> None:
    with pytest.raises(CannotUnfuseError, match=reason):
        unfusing().spelled(scales, zeros, 1)


NUMBERS = "float s = {0.5}, int8 i = {3}, float[2] several = {0.5, 0.25}, int8[2] zeros = {1, 2}"


@pytest.mark.parametrize(
    ("inputs", "nodes", "wanted"),
    [
        ("uint8[2] t", "y = DequantizeLinear(t, s)", "uint8"),  # the file says it
        ("float[2] x", "t = QuantizeLinear(x, s, i) y = elsewhere.Op(t)", "int8"),
        ("float[2] x", "t = elsewhere.Op(x) y = DequantizeLinear(t, s, i)", "int8"),
        (
            "float[2] x, float e",
            "t = elsewhere.Op(x) z = DequantizeLinear(t, e, i) y = DequantizeLinear(t, s, i)",
            "int8",
        ),
        ("float[2] x", "t = elsewhere.Op(x) y = QuantizeLinear(t, s, i)", None),  # its input is no integer
        ("float[2] x", "t = elsewhere.Op(x) y = DequantizeLinear(x, t, i)", None),  # another slot
        ("int8[2] x", "t = DequantizeLinear(x, s, i) y = elsewhere.Op(t)", None),
        ("float[2] x", "t = elsewhere.Op(x) y = elsewhere.Op(t)", None),
        ("float[2] x, float e", "t = QuantizeLinear(x, e, i) y = elsewhere.Op(t)", None),
    ],
)
def test_the_type_of_integers(inputs: str, nodes: str, wanted: str | None) -> None:
    editor = unfusing(f"({inputs}) => (y) <{NUMBERS}> {{ {nodes} }}").editor
    graph = editor.main
    tensors = [*graph.inputs, *(t for n in graph.nodes for t in n.outputs)]
    tensor = next(t for t in tensors if t.name == "t")
    if tensor not in graph.inputs:
        tensor.dtype = None
    assert integer_type(editor, tensor) == wanted


def test_a_type_that_numpy_does_not_have_tells_nothing() -> None:
    editor = unfusing().editor
    assert integer_type(editor, gs.Variable("t", dtype=22)) is None  # graphsurgeon gives the number of int4 so


def test_constants_are_shared_if_every_bit_and_the_type_are_equal() -> None:
    work = unfusing()
    made = [
        work.constant("a", np.asarray(values, kind))
        for values, kind in ((5, "uint8"), (5, "int8"), ([5], "int8"), (5, "int8"), (-0.0, "float32"), (0.0, "float32"))
    ]
    assert [c.name for c in made] == ["a", "a_1", "a_2", "a_1", "a_3", "a_4"]


def test_each_body_has_its_own_dq() -> None:
    """A tensor of one branch is not seen in the other one."""
    numbers = "float s = {0.02}, uint8 z = {120}"
    node = "[{0}n] {0}q = com.microsoft.QLinearSigmoid(q, s, z, s, z) [{0}m] {0}r = com.microsoft.QLinearSigmoid(q, s, z, s, z) "
    branch = "{0}_branch = {0} () => (float[2] {0}y) {{ " + node + "{0}y = DequantizeLinear({0}q, s, z) }}"
    graph = (
        f"(bool c, float[2] x) => (float[2] y) <{numbers}> {{ q = QuantizeLinear(x, s, z) y = If(c) "
        f"<{branch.format('then')}, {branch.format('else')}> }}"
    )
    parsed = text.parse(model(graph)).graph
    assert UnfuseQlinear().run(parsed, default_context()).rewrites == 4
    bodies = [value for node in parsed.nodes for value in node.attrs.values() if isinstance(value, gs.Graph)]
    for body in bodies:
        dqs = [n for n in body.nodes if n.op == "DequantizeLinear" and n.inputs[0].name == "q"]
        sigmoids = [n for n in body.nodes if n.op == "Sigmoid"]
        assert len(dqs) == 1
        assert [n.inputs[0] is dqs[0].outputs[0] for n in sigmoids] == [True, True]
