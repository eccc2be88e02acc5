"""Every row of the op table that claims to move data is run in ONNX Runtime both ways, bit for bit, for u8 and s8."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import helper, numpy_helper

from onnxq.encoding import PerChannel, PerTensor
from onnxq.optable import OP_TABLE, moved_axis, weight_granularity
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
    "Identity": [(1, {}, {}, 1)],
    "Pad": [
        (1, {"mode": m}, {1: np.array([0, 1, 2, 0, 0, 0, 1, 3], I64), 2: np.array(c, np.float32)}, 1)
        for m, c in (("constant", 0.371), ("constant", 0.0), ("edge", 0.0), ("reflect", 0.0), ("wrap", 0.0))
    ]
    + [(1, {}, {1: np.array([0, -1, 2, 0, 0, 0, 1, -2], I64)}, 1)],
    "ReverseSequence": [(1, {"batch_axis": 1, "time_axis": 0}, {1: np.array([1, 2, 2, 1], I64)}, 1)],
    "GatherND": [(1, {}, {1: np.array([[0, 3], [-1, 1]], I64)}, 1)],
    "Compress": [(1, {"axis": 1}, {1: np.array([True, False, True, True])}, 1)],
    "ScatterND": [(2, {}, {1: np.array([[[0]], [[1]]], I64).reshape(2, 1)}, 1)],
    "ScatterElements": [(2, {"axis": 3}, {1: np.broadcast_to(np.arange(6, dtype=I64)[::-1], X).copy()}, 1)],
    "TopK": [(1, {"axis": 1}, {1: np.array([3], I64)}, 2), (1, {"largest": 0}, {1: np.array([6], I64)}, 2)],
    "Max": [(2, {}, {}, 1), (1, {}, {}, 1)],
    "Min": [(2, {}, {}, 1), (3, {}, {}, 1)],
}


def _model(
    op: str,
    data: int,
    attrs: dict[str, Any],
    extra: dict[int, np.ndarray],
    outs: int,
    kind: str,
    how: str,
    shape: tuple[int, ...],
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
    fill = OP_TABLE[op].fill
    if how in ("q_before", "dq_after") and fill is not None:
        number = np.asarray(extra.get(fill, np.float32(0)))
        extra = {**extra, fill: np.clip(np.rint(number / scale) + zero, 0, 255).astype(kind)}
    for slot, value in extra.items():
        inits.append(numpy_helper.from_array(value, f"e{slot}"))
        slots[slot] = f"e{slot}"
    names = [slots.get(i, "") for i in range(max(slots) + 1)]
    nodes.append(helper.make_node(op, names, [f"o{j}" for j in range(outs)], **attrs))
    finals = []
    results = OP_TABLE[op].results
    for j in range(outs) if results is None else results:
        after = {"q_after": "QuantizeLinear", "dq_after": "DequantizeLinear"}.get(how)
        if after:
            nodes.append(helper.make_node(after, [f"o{j}", "s", "z"], [f"y{j}"]))
        finals.append(f"y{j}" if after else f"o{j}")
    float_in = how in ("q_before", "q_after")
    in_type = onnx.TensorProto.FLOAT if float_in else helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    out_type = onnx.TensorProto.FLOAT if not float_in else helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(f"x{i}", in_type, shape) for i in range(data)],
        [helper.make_tensor_value_info(f, out_type, None) for f in finals],
        inits,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()


def _same(op: str, kind: str, form: Any, feeds: dict[str, np.ndarray], how: str, shape: tuple[int, ...]) -> None:
    """Q (or DQ) before and behind the op: the same bits."""
    results = [
        Session(_model(op, *form, kind, f"{how}_{place}", shape), level=Level.OFF, threads=1).run(feeds)
        for place in ("before", "after")
    ]
    for a, b in zip(results[0].values(), results[1].values(), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert a.tobytes() == b.tobytes(), f"{op} {form[1]} {how}: {a} and {b}"


@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize("op", sorted(FORMS))
def test_rows_that_move_data_commute_bit_for_bit(op: str, kind: str) -> None:
    rng = np.random.default_rng(0)
    for form in FORMS[op]:
        shape = (2, 1, 6, 6) if op == "Squeeze" else X
        odd = [np.inf, -np.inf, -0.0, 0.0, 1e9, 0.0371 * 0.5, 0.0371 * 1.5] + [np.nan] * OP_TABLE[op].nan
        floats, ints = {}, {}
        for i in range(form[0]):
            x = rng.normal(0, 3, shape).astype(np.float32)
            x.reshape(-1)[: len(odd)] = odd
            x.reshape(-1)[len(odd) : len(odd) + 8] = 0.0371 * 2  # ties
            floats[f"x{i}"] = rng.permutation(x.reshape(-1)).reshape(shape)
            ints[f"x{i}"] = rng.integers(0, 256, shape).astype(np.uint8).view(kind)
        _same(op, kind, form, floats, "q", shape)
        _same(op, kind, form, ints, "dq", shape)


@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize("op", sorted(FORMS))
def test_rows_say_what_nan_does(op: str, kind: str) -> None:
    """Among many NaN a Q in front of the op gives the same bits as one behind it, or, where the row says so, others."""
    same = []
    for form in FORMS[op]:
        shape = (2, 1, 6, 6) if op == "Squeeze" else X
        rng = np.random.default_rng(0)
        feeds = {f"x{i}": rng.normal(0, 3, shape).astype(np.float32) for i in range(form[0])}
        for x in feeds.values():
            x.reshape(-1)[rng.choice(x.size, x.size // 6, replace=False)] = np.nan
        before, after = (
            Session(_model(op, *form, kind, f"q_{place}", shape), level=Level.OFF, threads=1).run(feeds)
            for place in ("before", "after")
        )
        same.append(all(before[k].tobytes() == after[j].tobytes() for k, j in zip(before, after, strict=True)))
    assert all(same) == OP_TABLE[op].nan


@pytest.mark.parametrize(
    "op", ["Concat", "Expand", "Flatten", "Identity", "Max", "Reshape", "Slice", "Tile", "Transpose", "Where"]
)
def test_empty_tensors_commute(op: str) -> None:
    form = {
        "Expand": (1, {}, {1: np.array([3, 0, 4, 6, 6], I64)}, 1),
        "Reshape": (1, {}, {1: np.array([4, 0, 9], I64)}, 1),
    }.get(op, FORMS[op][0])
    if op == "Reshape":
        form = (1, {"allowzero": 1}, form[2], 1)
    shape = (0, *X[1:])
    _same(op, "int8", form, {f"x{i}": np.zeros(shape, np.float32) for i in range(form[0])}, "q", shape)
    _same(op, "int8", form, {f"x{i}": np.zeros(shape, np.int8) for i in range(form[0])}, "dq", shape)


def _per_channel(op: str, form: Any, axis: int, behind: bool, feeds: dict[str, np.ndarray], scales: Any) -> list[Any]:
    """DQ with these scales before or behind the op, as ORT computes it."""
    data, attrs, extra, outs = form
    inits = [numpy_helper.from_array(scales, "s"), numpy_helper.from_array(np.arange(len(scales), dtype=np.uint8), "z")]
    inits += [numpy_helper.from_array(v, f"e{k}") for k, v in extra.items()]
    free = iter(k for k in range(10) if k not in extra)
    slots = {next(free): f"x{i}" if behind else f"d{i}" for i in range(data)} | {k: f"e{k}" for k in extra}
    inputs = [slots.get(i, "") for i in range(max(slots) + 1)]
    dq = (
        []
        if behind
        else [helper.make_node("DequantizeLinear", [f"x{i}", "s", "z"], [f"d{i}"], axis=axis) for i in range(data)]
    )
    moved = [helper.make_node(op, inputs, [f"o{j}" for j in range(outs)], **attrs)]
    after = (
        [helper.make_node("DequantizeLinear", [f"o{j}", "s", "z"], [f"y{j}"], axis=axis) for j in range(outs)]
        if behind
        else []
    )
    graph = helper.make_graph(
        [*dq, *moved, *after],
        "g",
        [helper.make_tensor_value_info(k, onnx.TensorProto.UINT8, v.shape) for k, v in feeds.items()],
        [
            helper.make_tensor_value_info(f"y{j}" if behind else f"o{j}", onnx.TensorProto.FLOAT, None)
            for j in range(outs)
        ],
        inits,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()
    return list(Session(made, level=Level.OFF, threads=1).run(feeds).values())


def _shaped(op: str, form: Any, shape: tuple[int, ...]) -> gs.Node:
    """The node with the shapes that ORT finds."""
    data, attrs, extra, _ = form
    free = iter(k for k in range(10) if k not in extra)
    inputs: dict[int, gs.Tensor] = {k: gs.Constant(f"e{k}", v) for k, v in extra.items()}
    inputs |= {next(free): gs.Variable(f"x{i}", np.float32, shape) for i in range(data)}
    feeds = {f"x{i}": np.zeros(shape, np.float32) for i in range(data)}
    made = Session(_model(op, *form, "uint8", "q_after", shape), level=Level.OFF, threads=1).run(feeds)
    results = [gs.Variable(k, np.float32, v.shape) for k, v in made.items()]
    return gs.Node(op, "n", attrs, [inputs.get(i, gs.Variable("")) for i in range(max(inputs) + 1)], results)


@pytest.mark.parametrize("op", sorted(op for op, row in OP_TABLE.items() if row.axis is not None))
def test_per_channel_axes_arrive_where_the_table_says(op: str) -> None:
    rng = np.random.default_rng(1)
    arrived = 0
    extra = {
        "Reshape": [(1, {}, {1: np.array([8, 36], I64)}, 1), (1, {}, {1: np.array([2, 4, 36], I64)}, 1)],
        "Squeeze": [(1, {}, {1: np.array([1], I64)}, 1)],
        "Flatten": [(1, {}, {}, 1)],
        "Slice": [(1, {}, {1: np.array([1, 0], I64), 2: np.array([2, 3], I64)}, 1)],
        "Gather": [(1, {"axis": -2}, {1: np.array(1, I64)}, 1)],
    }.get(op, [])
    for form in [*FORMS[op], *extra]:
        shape = (2, 1, 6, 6) if op == "Squeeze" else X
        node = _shaped(op, form, shape)
        for axis in range(4):
            there = moved_axis(node, axis)
            assert there == moved_axis(node, axis - 4)
            if isinstance(there, str):
                continue
            arrived += 1
            assert moved_axis(node, there, back=True) == axis or shape[axis] == 1
            feeds = {f"x{i}": rng.integers(0, 256, shape).astype(np.uint8) for i in range(form[0])}
            scales = rng.random(shape[axis]).astype(np.float32) + np.float32(0.1)
            before = _per_channel(op, form, axis, False, feeds, scales)
            behind = _per_channel(op, form, there, True, feeds, scales)
            assert [a.tobytes() for a in before] == [b.tobytes() for b in behind], (op, form[1], axis, there)
    assert arrived


def test_axes_that_do_not_arrive_have_a_reason() -> None:
    def at(op: str, axis: int, form: int = 0, *, back: bool = False) -> int | str:
        return moved_axis(_shaped(op, FORMS[op][form], (2, 1, 6, 6) if op == "Squeeze" else X), axis, back=back)

    assert "along the channel axis" in str(at("Concat", 1)) and "along" in str(at("Slice", 3))
    assert "merged or split" in str(at("Reshape", 1)) and "new" in str(at("Unsqueeze", 0, back=True))
    assert "vanishes" in str(at("Squeeze", 1)) or at("Squeeze", 1) == "the axes are not constant"
    assert "no rule" in str(at("Pad", 1)) and "no rule" in str(at("Resize", 1))
    unknown = gs.Node("Transpose", "n", {}, [gs.Variable("x")], [gs.Variable("y")])
    assert "rank" in str(moved_axis(unknown, 1))


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
    scatter = OP_TABLE["ScatterND"].moves
    assert scatter is not None
    assert scatter(_node("ScatterND")) == "" and "add" in scatter(_node("ScatterND", reduction="add"))


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
