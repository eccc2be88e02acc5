"""Every row of the op table that claims to move data is run in ONNX Runtime both ways, bit for bit, for u8 and s8."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import helper, numpy_helper

from onnxq.encoding import PerChannel, PerTensor
from onnxq.optable import OP_TABLE, weight_granularity
from onnxq.runtime.session import Level, Session

X = (2, 4, 6, 6)
I64 = np.int64

# op -> (number of data inputs, attributes, further constant inputs by slot, number of outputs)
FORMS: dict[str, list[tuple[int, dict[str, Any], dict[int, np.ndarray], int]]] = {
    "Transpose": [(1, {"perm": [0, 2, 3, 1]}, {}, 1), (1, {}, {}, 1)],
    "Reshape": [(1, {}, {1: np.array([2, -1], I64)}, 1)],
    "Flatten": [(1, {"axis": 2}, {}, 1)],
    "Unsqueeze": [(1, {}, {1: np.array([0], I64)}, 1)],
    "Squeeze": [(1, {}, {}, 1)],
    "Slice": [
        (1, {}, {1: np.array([5], I64), 2: np.array([0], I64), 3: np.array([3], I64), 4: np.array([-2], I64)}, 1)
    ],
    "Gather": [(1, {"axis": 1}, {1: np.array([[3, 0], [-1, 1]], I64)}, 1)],
    "GatherElements": [(1, {"axis": 3}, {1: np.zeros((2, 4, 6, 2), I64) + np.array([1, -1])}, 1)],
    "Expand": [(1, {}, {1: np.array([3, 2, 4, 6, 6], I64)}, 1)],
    "Tile": [(1, {}, {1: np.array([1, 2, 1, 3], I64)}, 1)],
    "Split": [(1, {"axis": 1, "num_outputs": 2}, {}, 2)],
    "DepthToSpace": [(1, {"blocksize": 2}, {}, 1), (1, {"blocksize": 2, "mode": "CRD"}, {}, 1)],
    "SpaceToDepth": [(1, {"blocksize": 2}, {}, 1)],
    "MaxPool": [
        (1, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, {}, 1),
        (1, {"kernel_shape": [2, 2], "strides": [2, 2]}, {}, 1),
    ],
    "ReduceMax": [(1, {"keepdims": 0}, {1: np.array([2, 3], I64)}, 1)],
    "ReduceMin": [(1, {}, {1: np.array([1], I64)}, 1)],
    "Resize": [(1, {"mode": "nearest"}, {2: np.array([1, 1, 2, 1.5], np.float32)}, 1)],
    "Concat": [(2, {"axis": 1}, {}, 1)],
    "Where": [(2, {}, {0: np.arange(6) % 2 == 0}, 1)],
}


def _model(
    op: str, data: int, attrs: dict[str, Any], extra: dict[int, np.ndarray], outs: int, kind: str, how: str
) -> bytes:
    scale, zero = np.float32(0.0371), np.array(3 if kind == "int8" else 121, kind)
    nodes, slots, inits = [], {}, [numpy_helper.from_array(np.asarray(scale), "s"), numpy_helper.from_array(zero, "z")]
    free = iter(range(10))
    for i in range(data):
        slot = next(k for k in free if k not in extra)
        if how == "q_before":
            nodes.append(helper.make_node("QuantizeLinear", [f"x{i}", "s", "z"], [f"q{i}"]))
            slots[slot] = f"q{i}"
        elif how == "dq_before":
            nodes.append(helper.make_node("DequantizeLinear", [f"x{i}", "s", "z"], [f"d{i}"]))
            slots[slot] = f"d{i}"
        else:
            slots[slot] = f"x{i}"
    for slot, value in extra.items():
        inits.append(numpy_helper.from_array(value, f"e{slot}"))
        slots[slot] = f"e{slot}"
    names = [slots.get(i, "") for i in range(max(slots) + 1)]
    nodes.append(helper.make_node(op, names, [f"o{j}" for j in range(outs)], **attrs))
    finals = []
    for j in range(outs):
        after = {"q_after": "QuantizeLinear", "dq_after": "DequantizeLinear"}.get(how)
        if after:
            nodes.append(helper.make_node(after, [f"o{j}", "s", "z"], [f"y{j}"]))
        finals.append(f"y{j}" if after else f"o{j}")
    float_in = how in ("q_before", "q_after")
    in_type = onnx.TensorProto.FLOAT if float_in else helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    out_type = onnx.TensorProto.FLOAT if not float_in else helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    shape = (2, 1, 6, 6) if op == "Squeeze" else X
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(f"x{i}", in_type, shape) for i in range(data)],
        [helper.make_tensor_value_info(f, out_type, None) for f in finals],
        inits,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()


@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize("op", sorted(FORMS))
def test_rows_that_move_data_commute_bit_for_bit(op: str, kind: str) -> None:
    rng = np.random.default_rng(0)
    for data, attrs, extra, outs in FORMS[op]:
        shape = (2, 1, 6, 6) if op == "Squeeze" else X
        odd = [np.inf, -np.inf, -0.0, 1e9, 0.0371 * 0.5, 0.0371 * 1.5]
        floats = {}
        for i in range(data):
            x = rng.normal(0, 3, shape).astype(np.float32)
            x.reshape(-1)[: len(odd)] = odd
            floats[f"x{i}"] = x
        ints = {f"x{i}": rng.integers(0, 256, shape).astype(np.uint8).view(kind) for i in range(data)}
        for feeds, pair in ((floats, ("q_before", "q_after")), (ints, ("dq_before", "dq_after"))):
            results = [
                Session(_model(op, data, attrs, extra, outs, kind, how), level=Level.OFF, threads=1).run(feeds)
                for how in pair
            ]
            for a, b in zip(results[0].values(), results[1].values(), strict=True):
                np.testing.assert_array_equal(a, b, err_msg=f"{op} {attrs} {pair}")


def test_every_row_that_moves_is_tested() -> None:
    assert {op for op, row in OP_TABLE.items() if row.moves is not None} == set(FORMS)


def _node(op: str, outputs: int = 1, **attrs: Any) -> gs.Node:
    return gs.Node(op, "n", attrs, [gs.Variable("x")], [gs.Variable(f"y{i}") for i in range(outputs)])


def test_conditions_refuse_what_does_not_commute() -> None:
    resize, pool = OP_TABLE["Resize"].moves, OP_TABLE["MaxPool"].moves
    assert resize is not None and pool is not None
    assert "linear" in resize(_node("Resize", mode="linear"))
    assert "extrapolation" in resize(_node("Resize", coordinate_transformation_mode="tf_crop_and_resize"))
    assert resize(_node("Resize")) == ""
    assert "Indices" in pool(_node("MaxPool", 2))
    assert pool(_node("MaxPool")) == ""


@pytest.mark.parametrize(
    ("op", "attrs", "rank", "wanted"),
    [
        ("Conv", {}, 4, PerChannel(0)),
        ("ConvTranspose", {}, 4, PerChannel(1)),
        ("Gemm", {}, 2, PerChannel(1)),
        ("Gemm", {"transB": 1}, 2, PerChannel(0)),
        ("MatMul", {}, 2, PerChannel(1)),
        ("MatMul", {}, 3, PerTensor()),
    ],
)
def test_weight_axis_is_the_axis_of_output_channels(op: str, attrs: dict[str, Any], rank: int, wanted: object) -> None:
    """A reported complaint about other tools: wrong per-channel axes give silently wrong results."""
    assert weight_granularity(_node(op, **attrs), rank) == wanted
