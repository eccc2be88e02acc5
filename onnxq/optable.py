"""The op table: what each op means to quantization, said once and read by planner, passes and documentation.

An op *moves* data if integer data may flow through it unchanged, so that `Q(op(x)) == op(Q(x))` and `op(DQ(q)) ==
DQ(op(q))` bit for bit with one
per-tensor encoding on its data inputs and outputs. `tests/test_optable.py` checks every row in ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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


@dataclass(frozen=True, kw_only=True)
class Op:
    """One row.

    Attributes:
        data: input slots that carry activations; None means all.
        moves: condition under which Q and DQ commute with it; None means they never do.
        min_opset: least opset whose schema takes 8-bit integers (0: no integer form).
        weight: slot of the weight, for weighted ops.
        bias: slot of the bias, for ops that have one.
    """

    data: Sequence[int] | None = (0,)
    moves: Condition | None = None
    min_opset: int = 0
    weight: int | None = None
    bias: int | None = None


OP_TABLE: dict[str, Op] = {
    "Conv": Op(weight=1, bias=2),
    "ConvTranspose": Op(weight=1, bias=2),
    "Gemm": Op(weight=1, bias=2),
    "MatMul": Op(weight=1),
    "Transpose": Op(moves=_always, min_opset=1),
    "Reshape": Op(moves=_always, min_opset=5),
    "Flatten": Op(moves=_always, min_opset=9),
    "Squeeze": Op(moves=_always, min_opset=1),
    "Unsqueeze": Op(moves=_always, min_opset=1),
    "Slice": Op(moves=_always, min_opset=1),
    "Gather": Op(moves=_always, min_opset=1),
    "GatherElements": Op(moves=_always, min_opset=11),
    "Expand": Op(moves=_always, min_opset=8),
    "Tile": Op(moves=_always, min_opset=6),
    "Split": Op(moves=_always, min_opset=2),
    "DepthToSpace": Op(moves=_always, min_opset=1),
    "SpaceToDepth": Op(moves=_always, min_opset=1),
    "MaxPool": Op(moves=_max_pool, min_opset=12),
    "ReduceMax": Op(moves=_always, min_opset=12),
    "ReduceMin": Op(moves=_always, min_opset=12),
    "Resize": Op(moves=_resize, min_opset=10),
    "Add": Op(data=None),
    "Mul": Op(data=None),
    "Concat": Op(data=None, moves=_always, min_opset=4),
    "Where": Op(data=(1, 2), moves=_always, min_opset=9),
    "AveragePool": Op(),
    "GlobalAveragePool": Op(),
    "LeakyRelu": Op(),
    "Sigmoid": Op(),
    "Softmax": Op(),
    "Relu": Op(),
    "Clip": Op(),
}

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
