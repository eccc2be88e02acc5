"""Why an op stays float: what the op itself says, and what its neighbours say."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.ir.walk import clip_bounds
from onnxq.optable import GATED, OP_TABLE, data_slots
from onnxq.plan.facts import Facts
from onnxq.targets.target import Target

if TYPE_CHECKING:
    from onnxq.plan.select import Selection


def matches(node: gs.Node, patterns: Sequence[str]) -> str | None:
    """The first pattern (shell style) that fits the node's name, op type or one of its outputs' names."""
    for pattern in patterns:
        names = [node.name, node.op, *(t.name for t in node.outputs)]
        if any(n == pattern or fnmatch.fnmatchcase(n, pattern) for n in names):
            return pattern
    return None


def static_reason(facts: Facts, target: Target, node: gs.Node, keep_float: Sequence[str]) -> str:
    """Why a node cannot be integer whatever its neighbours are; "" if it may be."""
    pattern = matches(node, keep_float)
    if pattern is not None:
        return f'kept float by the pattern "{pattern}"'
    if facts.path and not target.bodies:
        return f"it stands in a body of If, Loop or Scan, where {target.name} is not known to run int8"
    if node.op in target.absorb:
        return ""
    kernel = target.kernels.get(node.op)
    domains = (None, "", "ai.onnx", *(("com.microsoft",) if node.op in GATED else ()))
    if kernel is None or node.domain not in domains:
        return target.no_kernel.get(node.op) or f"{target.name} has no integer kernel for {node.op}"
    slots = data_slots(node)
    row = OP_TABLE[node.op]
    if any(
        facts.overridable(node.inputs[s])
        for s in {*slots, row.weight, row.bias}
        if s is not None and s < len(node.inputs)
    ):
        return "it reads an initializer that a caller may override (--keep-overridable)"
    touched = [*(node.inputs[s] for s in slots), *node.outputs]
    if any(t.name in facts.masks for t in touched):
        return "it works on an attention mask, whose large negative values must not set a range"
    wrong = [node.inputs[s] for s in slots if not facts.is_float(node.inputs[s])]
    if wrong:
        return f"its operand is {np.dtype(wrong[0].dtype)}, not float32"
    match kernel.kind:
        case "weighted":
            return _weighted_reason(facts, target, node)
        case "movement":
            row = OP_TABLE[node.op]
            if row.moves is None or facts.graph.opset < row.min_opset:
                return (
                    f"{node.op} takes 8-bit integers from opset {row.min_opset} on, the model has {facts.graph.opset}"
                )
            return row.moves(node)
        case "compute":
            return ""


_NEAR = 16
"""Nodes that are looked at: what makes a weight of constants is short."""


def _of_constants(facts: Facts, tensor: Any) -> gs.Node | None:
    """The node that makes a tensor, if it and all that it reads are made of constants."""
    queue, seen = [tensor], 0
    while queue and seen < _NEAR:
        one = queue.pop()
        if not one.name or facts.constant(one) is not None:
            continue
        producer = facts.producer.get(one.name)
        if producer is None or not producer.inputs or any(True for _ in producer.subgraphs()):
            return None
        seen += 1
        queue += producer.inputs
    return None if queue else facts.producer.get(tensor.name)


def _run_time_reason(facts: Facts, target: Target, node: gs.Node, weight: Any) -> str:
    """Why a weight that is no constant keeps its op in float."""
    maker = _of_constants(facts, weight)
    if maker is not None:
        return (
            f"its weight is made of constants at run time, by {maker.op}: let fold-constants fold it, if need be with "
            "a higher limit"
        )
    if node.op != "MatMul":
        return "its weight is computed at run time: only constant weights become integers"
    reason = "both operands are computed at run time: only products with constant weights are made integer"
    data, other = target.activation.type, target.weight.type
    return reason if data == other else f"{reason}, since {data} x {data} is slower than {data} x {other}"


def _weighted_reason(facts: Facts, target: Target, node: gs.Node) -> str:
    row = OP_TABLE[node.op]
    assert row.weight is not None
    data = facts.constant(node.inputs[0])
    weight = facts.constant(node.inputs[row.weight])
    if data is not None:
        return "its data operand is constant"
    if weight is None:
        return _run_time_reason(facts, target, node, node.inputs[row.weight])
    if not _finite(weight):
        return "its weight holds NaN or Inf"
    bias = _bias(node)
    if bias is not None:
        values = facts.constant(bias)
        if values is None:
            return "its bias is computed at run time, not constant"
        if not _finite(values):
            return "its bias holds NaN or Inf"
        if node.op == "Gemm":
            channels = weight.shape[0 if node.attrs.get("transB", 0) else 1]
            if values.size != channels or values.shape[-1:] != (channels,):
                return f"its bias has shape {list(values.shape)}: a scale per output channel needs [{channels}]"
            if float(node.attrs.get("alpha", 1.0)) != 1.0 or float(node.attrs.get("beta", 1.0)) != 1.0:
                return "the integer Gemm with a bias wants alpha = beta = 1"
    return ""


def thumb_reason(target: Target, node: gs.Node) -> str:
    """Why an op stays float as long as no measured cost speaks for int8; "" if nothing tells."""
    kernel = target.kernels.get(node.op)
    if kernel is not None and kernel.measured:
        return f"integers compute {node.op} faster on some machines only, and no measured cost asks for it"
    return volume_reason(target, node)


def volume_reason(target: Target, node: gs.Node) -> str:
    """Why a convolution over three axes and more, whose weight is constant, is faster in float by a rule of thumb; ""
    if nothing tells.

    For each output the integer kernel of ONNX Runtime gathers a run of channels per element of the kernel, which takes
    longer than to multiply a short run: docs/placement.md measures it.
    """
    least = target.kernels[node.op].volume_channels if node.op in target.kernels else None
    weight = node.inputs[1] if least is not None else None
    if least is None or not isinstance(weight, gs.Constant) or len(weight.shape) < 5:
        return ""
    groups, (outputs, channels, *axes) = int(node.attrs.get("group", 1)), weight.shape
    if channels == 1 and outputs == groups:  # depthwise: one run for all groups
        channels = groups
    if channels >= least:
        return ""
    return (
        f"over {len(axes)} axes, the integer {node.op} is slower than the float one with fewer than {least} channels "
        f"in a run, and it has {channels}"
    )


def _finite(values: NDArray[Any]) -> bool:
    """No NaN, no Inf (found by the extremes, since a mask would be as long as the weight)."""
    return values.size == 0 or bool(np.isfinite(values.min()) and np.isfinite(values.max()))


def _bias(node: gs.Node) -> Any | None:
    slot = OP_TABLE[node.op].bias
    if slot is None or slot >= len(node.inputs) or not node.inputs[slot].name:
        return None
    return node.inputs[slot]


def explain(facts: Facts, target: Target, chosen: Selection) -> None:
    """Give every node that was not selected, and has no reason yet, the reason that its neighbours are."""
    for node in facts.graph.nodes:
        if node.name in chosen.integer or node.name in chosen.reasons:
            continue
        if not target.outputs and node.op in target.absorb:
            chosen.reasons[node.name] = f"{target.name} fuses it with its neighbours by itself"
            continue
        operands = [node.inputs[s] for s in data_slots(node) if s < len(node.inputs)]
        lost = next(
            (
                t
                for t in operands
                if t.name and facts.constant(t) is None and t.name not in chosen.values and t.name not in facts.held
            ),
            None,
        )
        if node.op in target.absorb:
            producer = facts.producer.get(node.inputs[0].name)
            bounds = clip_bounds(node) if node.op == "Clip" else None
            if producer is None or producer.name not in chosen.integer:
                chosen.reasons[node.name] = f"no integer op stands before it that {node.op} could vanish into"
            elif node.op == "Clip" and bounds is None:
                chosen.reasons[node.name] = "its bounds are computed at run time"
            elif bounds is not None and not bounds[0] <= 0 <= bounds[1]:
                chosen.reasons[node.name] = "its bounds leave out 0, which every 8-bit range contains"
            else:
                chosen.reasons[node.name] = (
                    f"the result of the op before it stays float or has other users, so {node.op} cannot vanish into it"
                )
        elif lost is not None:
            producer = facts.producer.get(lost.name)
            source = producer.op if producer is not None else _origin(facts, lost)
            chosen.reasons[node.name] = f"its input is float: it comes from {source}"
        else:
            chosen.reasons[node.name] = "it reads a constant table: only weights of heavy ops are quantized"


def _origin(facts: Facts, tensor: Any) -> str:
    """Where a tensor that no node of this graph makes comes from."""
    if facts.captured(tensor.name):
        return f"the graph around ({tensor.name})"
    return "an input of the body" if facts.path else "a graph input"
