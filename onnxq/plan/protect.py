"""What ONNX Runtime would do of its own with our Q and DQ. In cases 1 and 2 the DQ gets a form that it leaves alone:
per-axis with equal scales, which has the same values.

1. A Conv, ConvTranspose or Gemm that stays float between a scalar DQ and a Q: its float weights would be quantized
   per tensor, behind our back (WeightBiasQuantization).
2. A chain of moves (MaxPool, Reshape ...): a scalar DQ in front of it is pushed through the chain (QDQPropagation).
   Where such an op as in 1 reads the chain, its weights would be quantized; where a body of If, Loop or Scan is the
   only reader, ORT 1.31 aborts the process. Where no axis has a size that the weights fix, the op that makes the
   tensor stays float; so it does in case 1, too, if the axis has size 1: one scale counts as scalar at any rank.
3. A Q behind a chain of moves is pulled forward over them, even over a graph output that only they read: what the
   caller gets is then quantized, and cut by a Relu that ORT fused into the Q. Nothing reads such a chain in 8 bits.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.encoding import Affine, PerChannel
from onnxq.optable import PER_CHANNEL_OPSET
from onnxq.plan.facts import Facts
from onnxq.targets.target import Target

Axis = tuple[int, int]
"""(axis, its size)."""

_KEEPS_CHANNELS = frozenset(
    {"Relu", "Clip", "LeakyRelu", "Sigmoid", "MaxPool", "AveragePool", "GlobalAveragePool", "Resize"}
)


def form(
    facts: Facts,
    target: Target,
    node: gs.Node,
    slot: int,
    *,
    values: Collection[str],
    integer: Collection[str],
    encoding: Affine,
) -> Affine | str:
    """The encoding in which a float op reads an 8-bit tensor; the reason if there is no safe one.

    Args:
        node: the float op; `slot` its input.
        values: tensors that have 8 bits.
        integer: names of the nodes in integer kernels.
    """
    if slot != 0:
        return encoding
    per_axis = facts.graph.opset >= PER_CHANNEL_OPSET
    if danger := _behind_moves(facts, target, node, values, integer):
        axis = _fixed_axis(facts, node.inputs[0]) if per_axis else None
        return danger if axis is None or axis[1] == 1 else _per_axis(encoding, axis)
    if (
        per_axis
        and target.protect_float_weights
        and (axis := _weights_at_risk(facts, target, node, values)) is not None
    ):
        if axis[1] == 1:
            return (
                f"{node.op} {node.name} reads it, which has one channel: ONNX Runtime would round the float weights of "
                "that to int8"
            )
        return _per_axis(encoding, axis)
    return encoding


def _per_axis(encoding: Affine, axis: Axis) -> Affine:
    index, size = axis
    return Affine(
        type=encoding.type,
        granularity=PerChannel(index),
        scale=np.full(size, encoding.scale, dtype=np.float32),
        zero_point=np.full(size, encoding.zero_point),
    )


# case 1


def _weights_at_risk(facts: Facts, target: Target, node: gs.Node, values: Collection[str]) -> Axis | None:
    if node.op not in ("Conv", "ConvTranspose", "Gemm") or not _quantized_behind(facts, target, node, values):
        return None
    weight = facts.constant(node.inputs[1])
    if weight is None:
        return None
    if node.op == "Gemm":
        return 0 if node.attrs.get("transA", 0) else 1, weight.shape[1 if node.attrs.get("transB", 0) else 0]
    return 1, weight.shape[1] * int(node.attrs.get("group", 1)) if node.op == "Conv" else weight.shape[0]


def _quantized_behind(facts: Facts, target: Target, node: gs.Node, values: Collection[str]) -> bool:
    """A Q follows, if need be behind activations, and behind moves over which ORT pulls the Q forward."""
    tensor = node.outputs[0]
    while tensor.name not in values:
        after = facts.only_edge(tensor)
        if after is None or after.op not in ("Relu", "Clip", *target.pushed_through):
            return False
        tensor = after.outputs[0]
    return True


# case 2


def _behind_moves(
    facts: Facts, target: Target, node: gs.Node, values: Collection[str], integer: Collection[str]
) -> str:
    """What goes wrong where a DQ is pushed to through the chain of moves that begins with `node`; "" if nothing."""
    if node.op not in target.pushed_through:
        return ""
    seen = {id(node)}
    queue = [node]
    while queue:
        for tensor in queue.pop().outputs:
            for use in facts.consumers.get(tensor.name, []):
                if use.path:
                    return (
                        f"a body of If, Loop or Scan reads the {node.op} behind it: ONNX Runtime aborts on that when "
                        "it is quantized"
                    )
                after = use.node
                if after is None or use.slot != 0 or after.name in integer:  # a Q stands in front of that one
                    continue
                if target.protect_float_weights and _weights_at_risk(facts, target, after, values) is not None:
                    return (
                        f"{after.op} {after.name} reads it behind moves: ONNX Runtime would round the float weights of "
                        "that to int8"
                    )
                if after.op in target.pushed_through and id(after) not in seen:
                    seen.add(id(after))
                    queue.append(after)
    return ""


def _fixed_axis(facts: Facts, tensor: Any) -> Axis | None:
    """An axis of an activation whose size follows from weights: what samples show may be another one tomorrow."""
    while True:
        producer = facts.producer.get(tensor.name)
        if producer is None:
            return None
        if producer.op in ("Conv", "Gemm", "MatMul"):
            break
        if producer.op not in _KEEPS_CHANNELS:
            return None
        tensor = producer.inputs[0]
    weight = facts.constant(producer.inputs[1])
    shape = facts.shape(producer.outputs[0])
    if weight is None or weight.ndim < 2 or shape is None:
        return None
    if producer.op == "MatMul":
        return len(shape) - 1, weight.shape[-1]
    return 1, weight.shape[0 if producer.op == "Conv" or producer.attrs.get("transB", 0) else 1]


# case 3


def pulled_output(facts: Facts, target: Target, tensor: Any, integer: Collection[str]) -> str:
    """The graph output over which ORT would pull the Q of an 8-bit tensor; "" if there is none.

    Args:
        integer: names of the nodes in integer kernels.
    """
    node = facts.producer.get(tensor.name)
    while node is not None and node.name not in integer and node.op in ("Relu", "Clip", *target.pushed_through):
        moves, tensor = node.op in target.pushed_through, node.inputs[0]
        before = facts.producer.get(tensor.name)
        if facts.only_edge(tensor) is not node or (before is not None and before.name in integer):
            break
        returned = any(use.node is None and not use.path for use in facts.consumers[tensor.name])
        if moves and returned:
            return str(tensor.name)
        node = before
    return ""
