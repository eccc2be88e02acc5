"""The op table: what each op means to quantization, said once and read by planner, passes and documentation.

An op *moves* data if integer data may flow through it unchanged, so that `Q(op(x)) == op(Q(x))` and `op(DQ(q)) ==
DQ(op(q))` bit for bit with one
per-tensor encoding (scale > 0) on its data inputs and outputs. `tests/test_optable.py` checks every row in ONNX
Runtime, with infinities, ties, negative zeros and empty tensors. NaN is outside of the promise where a row says
`nan=False`: Q makes the least level of it, and an op that compares may choose another element then.

A per-channel encoding goes along if the axis arrives whole and in order: `moved_axis`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.encoding import Granularity, PerChannel, PerTensor

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

Condition = Callable[["gs.Node"], str]
"""Reason why a node of this op does not move data exactly; "" if it does."""


def _always(_node: gs.Node) -> str:
    return ""


def _resize(node: gs.Node) -> str:
    if node.attrs.get("mode", "nearest") != "nearest":
        return f"Resize with mode {node.attrs.get('mode')} computes new values, only nearest moves them"
    if node.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        return "Resize with tf_crop_and_resize writes an extrapolation value"
    return ""


def _max_pool(node: gs.Node) -> str:
    return "the Indices output of MaxPool depends on ties" if len(node.outputs) > 1 else ""


def _scatter(node: gs.Node) -> str:
    reduction = node.attrs.get("reduction", "none")
    return "" if reduction == "none" else f"{node.op} with reduction {reduction} has no 8-bit form that was checked"


# Where a channel axis of input 0 arrives: (node, axis, rank of input 0) -> axis of the outputs, or why it does not.
AxisMap = Callable[["gs.Node", int, int], "int | str"]


def _numbers(node: gs.Node, slot: int, attribute: str) -> list[int] | None:
    """A list of integers that older opsets have as attribute and newer ones as input; None if computed or omitted."""
    if attribute in node.attrs:
        value = node.attrs[attribute]
        return [value] if isinstance(value, int) else list(value)
    values = getattr(node.inputs[slot], "values", None) if slot < len(node.inputs) else None
    return None if values is None else [int(v) for v in np.asarray(values).reshape(-1)]


def _shape(tensor: Any) -> list[int] | None:
    shape = tensor.shape
    if shape is None or not all(isinstance(d, (int, np.integer)) and d > 0 for d in shape):
        return None
    return [int(d) for d in shape]


def _same_axis(_node: gs.Node, axis: int, _rank: int) -> int | str:
    return axis


def _transposed(node: gs.Node, axis: int, rank: int) -> int | str:
    return list(node.attrs.get("perm", range(rank)[::-1])).index(axis)


def _reshaped(node: gs.Node, axis: int, _rank: int) -> int | str:
    before, after = _shape(node.inputs[0]), _shape(node.outputs[0])
    if before is None or after is None:
        return "the shapes before and behind are not known"
    for other, size in enumerate(after):
        if size == before[axis] and np.prod(after[:other]) == np.prod(before[:axis]):
            return other
    return "the channel axis is merged or split"


def _squeezed(node: gs.Node, axis: int, rank: int) -> int | str:
    axes = _numbers(node, 1, "axes")
    if axes is None:
        return "the axes are not constant"
    gone = {a % rank for a in axes}
    return "the channel axis vanishes" if axis in gone else axis - sum(a < axis for a in gone)


def _unsqueezed(node: gs.Node, axis: int, rank: int) -> int | str:
    axes = _numbers(node, 1, "axes")
    if axes is None:
        return "the axes are not constant"
    size = rank + len(axes)
    new = {a % size for a in axes}
    return [a for a in range(size) if a not in new][axis]


def _beside(axis: int, touched: set[int]) -> int | str:
    return "it works along the channel axis" if axis in touched else axis


def _sliced(node: gs.Node, axis: int, rank: int) -> int | str:
    axes, starts = _numbers(node, 3, "axes"), _numbers(node, 1, "starts")
    if axes is None:
        if starts is None or (len(node.inputs) > 3 and node.inputs[3].name):
            return "the axes are not constant"
        axes = list(range(len(starts)))
    return _beside(axis, {a % rank for a in axes})


def _along(default: int) -> AxisMap:
    """Ops that work along one axis, named by the attribute `axis`."""

    def place(node: gs.Node, axis: int, rank: int) -> int | str:
        return _beside(axis, {int(node.attrs.get("axis", default)) % rank})

    return place


def _gathered(node: gs.Node, axis: int, rank: int) -> int | str:
    along = int(node.attrs.get("axis", 0)) % rank
    if axis == along:
        return "it works along the channel axis"
    if axis < along:
        return axis
    shape = node.inputs[1].shape
    return "the rank of the indices is not known" if shape is None else axis + len(shape) - 1


def _tiled(node: gs.Node, axis: int, _rank: int) -> int | str:
    repeats = _numbers(node, 1, "repeats")
    if repeats is None:
        return "the repeats are not constant"
    return _beside(axis, {a for a, count in enumerate(repeats) if count != 1})


def _pooled(_node: gs.Node, axis: int, rank: int) -> int | str:
    return _beside(axis, set(range(2, rank)))


def _reduced(node: gs.Node, axis: int, rank: int) -> int | str:
    axes = _numbers(node, 1, "axes")
    if not axes:
        return "the axes are not constant"
    touched = {a % rank for a in axes}
    if node.attrs.get("keepdims", 1) or axis in touched:
        return _beside(axis, touched)
    return axis - sum(a < axis for a in touched)


@dataclass(frozen=True, kw_only=True)
class Op:
    """One row.

    Attributes:
        data: input slots that carry activations; None means all.
        moves: condition under which Q and DQ commute with it; None means they never do.
        min_opset: least opset whose schema takes 8-bit integers (0: no integer form).
        results: output slots that carry moved data; the others must not be read.
        fill: input slot of a number that is written where no data goes (omitted: 0).
        axis: where a channel axis arrives; None: per-channel encodings do not commute.
        nan: they commute where the data holds NaN, too.
        weight: slot of the weight, for weighted ops.
        bias: slot of the bias, for ops that have one.
    """

    data: Sequence[int] | None = (0,)
    moves: Condition | None = None
    min_opset: int = 0
    results: Sequence[int] | None = None
    fill: int | None = None
    axis: AxisMap | None = None
    nan: bool = True
    weight: int | None = None
    bias: int | None = None


OP_TABLE: dict[str, Op] = {
    "Conv": Op(weight=1, bias=2),
    "ConvTranspose": Op(weight=1, bias=2),
    "Gemm": Op(weight=1, bias=2),
    "MatMul": Op(weight=1),
    "Transpose": Op(moves=_always, min_opset=1, axis=_transposed),
    "Reshape": Op(moves=_always, min_opset=5, axis=_reshaped),
    "Flatten": Op(moves=_always, min_opset=9, axis=_reshaped),
    "Squeeze": Op(moves=_always, min_opset=1, axis=_squeezed),
    "Unsqueeze": Op(moves=_always, min_opset=1, axis=_unsqueezed),
    "Slice": Op(moves=_always, min_opset=1, axis=_sliced),
    "Gather": Op(moves=_always, min_opset=1, axis=_gathered),
    "GatherElements": Op(moves=_always, min_opset=11, axis=_along(0)),
    "Expand": Op(moves=_always, min_opset=8),
    "Tile": Op(moves=_always, min_opset=6, axis=_tiled),
    "Split": Op(moves=_always, min_opset=2, axis=_along(0)),
    "DepthToSpace": Op(moves=_always, min_opset=1),
    "SpaceToDepth": Op(moves=_always, min_opset=1),
    "MaxPool": Op(moves=_max_pool, min_opset=12, axis=_pooled, nan=False),
    "ReduceMax": Op(moves=_always, min_opset=12, axis=_reduced, nan=False),
    "ReduceMin": Op(moves=_always, min_opset=12, axis=_reduced, nan=False),
    "Resize": Op(moves=_resize, min_opset=10),
    "Add": Op(data=None),
    "Mul": Op(data=None),
    "Concat": Op(data=None, moves=_always, min_opset=4, axis=_along(0)),
    "Where": Op(data=(1, 2), moves=_always, min_opset=9),
    "Identity": Op(moves=_always, min_opset=1, axis=_same_axis),
    "Pad": Op(moves=_always, min_opset=11, fill=2),
    "ReverseSequence": Op(moves=_always, min_opset=10),
    "GatherND": Op(moves=_always, min_opset=11),
    "Compress": Op(moves=_always, min_opset=9),
    "ScatterND": Op(data=(0, 2), moves=_scatter, min_opset=11),
    "ScatterElements": Op(data=(0, 2), moves=_scatter, min_opset=11),
    "TopK": Op(moves=_always, min_opset=11, results=(0,), nan=False),
    "Max": Op(data=None, moves=_always, min_opset=12, nan=False),
    "Min": Op(data=None, moves=_always, min_opset=12),
    "AveragePool": Op(),
    "GlobalAveragePool": Op(),
    "LeakyRelu": Op(),
    "Sigmoid": Op(),
    "QuickGelu": Op(),
    "Gelu": Op(),
    "HardSwish": Op(),
    "Softmax": Op(),
    "Relu": Op(),
    "Clip": Op(),
}

GATED = ("QuickGelu", "HardSwish", "Gelu")
"""Ops of the form x * gate(x), which integers compute as a table and a product (the pass expand-gates). QuickGelu is of
the domain com.microsoft, Gelu of either."""

NEARLY = frozenset({"Gelu"})
"""Those of them whose gate is another function there, not only rounded: no table has the normal distribution."""

GATE = "_gate"
"""What the name of the table adds to that of the op."""

MOVES = "_moves"
"""Behind the name of a Resize or SpaceToDepth: what stands beside the Gather or Transpose that has its name now."""

ALIGNED = "_aligned"
"""Behind the name of a Conv: the Pad that gives its input more channels."""

ROWS = "_rows"
"""Behind the name of a Conv: what makes channels of the rows under its kernel."""

PER_CHANNEL_OPSET = 13
"""Least opset whose QuantizeLinear and DequantizeLinear have an axis."""

RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
HEAVY = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum"}) | RECURRENT
"""Ops with multiply-accumulates."""


def weight_granularity(node: gs.Node, rank: int) -> Granularity:
    """Per-channel axis of a constant weight: the axis of the output channels.

    Conv [O, I/g, ...]: 0. ConvTranspose [I, O/g, ...]: 1. Gemm [K, N]: 1, with transB [N, K]: 0. MatMul [K, N]: 1; a
    batched constant has one
    scale, because integer kernels want one vector of N scales for all batches.
    """
    match node.op:
        case "Conv":
            return PerChannel(0)
        case "ConvTranspose":
            return PerChannel(1)
        case "Gemm":
            return PerChannel(0 if node.attrs.get("transB", 0) else 1)
        case "MatMul" if rank == 2:
            return PerChannel(1)
        case _:
            return PerTensor()


def data_slots(node: gs.Node) -> list[int]:
    """Input slots of a node that carry activations or float constants."""
    row = OP_TABLE.get(node.op)
    slots: Any = range(len(node.inputs)) if row is None or row.data is None else row.data
    return [s for s in slots if s < len(node.inputs)]


def moved_axis(node: gs.Node, axis: int, *, back: bool = False) -> int | str:
    """Where the channel axis of the data arrives in the outputs of an op that moves data.

    Args:
        axis: of data input 0, or with `back` of the outputs; may be negative.
        back: from the outputs to the inputs.

    Returns:
        the axis on the other side, or why a per-channel encoding does not commute.
    """
    row = OP_TABLE[node.op]
    if row.axis is None:
        return f"{node.op} has no rule for per-channel encodings"
    shape = node.inputs[0].shape
    if shape is None:
        return "the rank of its input is not known"
    rank = len(shape)
    if not back:
        return row.axis(node, axis + rank if axis < 0 else axis, rank)
    arrivals = [row.axis(node, a, rank) for a in range(rank)]
    if axis < 0:
        results = node.outputs[0].shape
        if results is None:
            return "the rank of its output is not known"
        axis += len(results)
    if axis in arrivals:
        return arrivals.index(axis)
    return next((a for a in arrivals if isinstance(a, str)), "the channel axis is new")
