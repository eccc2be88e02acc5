"""Kinds of integer ops that are float at their borders: which nodes can have them, and why others cannot.

`dynamic`: the scale of the data is found at run time (DynamicQuantizeMatMul, DynamicQuantizeLSTM). `weights8` and
`weights4`: weights in blocks with a scale each (MatMulNBits, GatherBlockQuantized). All are operators of the domain
com.microsoft; what ONNX Runtime's CPU does with them is measured in docs/kinds.md.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.encoding import Kind
from onnxq.ir import walk
from onnxq.plan.plan import Plan
from onnxq.plan.reasons import matches
from onnxq.targets.target import Target

BITS: dict[Kind, int] = {"weights8": 8, "weights4": 4}
"""Bits per weight of the weight-only kinds."""

SAID: dict[Kind, str] = {"dynamic": "int8 (dynamic)", "weights8": "int8 weights", "weights4": "int4 weights"}
"""What reports call them."""

WEIGHTS: dict[str, tuple[int, ...]] = {"MatMul": (1,), "Gemm": (1,), "LSTM": (1, 2), "Gather": (0,)}
"""Slots of the weights."""

OPS: dict[Kind, tuple[str, ...]] = {
    "dynamic": ("MatMul", "Gemm", "LSTM"),
    "weights8": ("MatMul", "Gemm", "Gather"),
    "weights4": ("MatMul", "Gemm", "Gather"),
}
"""Operators that can have a kind."""

LEAST = 1024
"""Elements below which a weight is not worth a kind: its scales and the other kernel cost what it saves."""


def refusal(node: gs.Node, kind: Kind) -> str:
    """Why a node cannot have a kind; "" if it can."""
    if node.op not in OPS[kind] or node.domain not in (None, "", "ai.onnx"):
        return f"there is no kernel with {SAID[kind]} for {node.op}"
    for slot in WEIGHTS[node.op]:
        if reason := _weight(node, slot):
            return reason
    match node.op:
        case "Gemm":
            return _gemm(node)
        case "LSTM":
            return "its layout is not that of the integer kernel" if node.attrs.get("layout", 0) else ""
        case "Gather":
            return _gather(node, kind)
        case _:
            return ""


def possible(
    graph: gs.Graph, target: Target, keep_float: Sequence[str] = (), *, only: Collection[str] | None = None
) -> dict[str, dict[Kind, str]]:
    """Nodes of all graphs whose op has kinds at the target -> kind -> why it cannot have it ("": it can).

    Args:
        only: of these nodes; None: of all.
    """
    found: dict[str, dict[Kind, str]] = {}
    for path, inner in walk.graphs(graph):
        for node in inner.nodes:
            mine: list[Kind] = [kind for kind in target.kinds if node.op in OPS[kind]]
            if not mine or (only is not None and node.name not in only):
                continue
            pattern = matches(node, keep_float)
            if pattern is not None:
                found[node.name] = dict.fromkeys(mine, f'kept float by the pattern "{pattern}"')
            elif path and not target.bodies:
                found[node.name] = dict.fromkeys(mine, "it stands in a body of If, Loop or Scan")
            else:
                small = _small(node)
                found[node.name] = {kind: small or refusal(node, kind) for kind in mine}
    return found


def with_kinds(
    plan: Plan, graph: gs.Graph, target: Target, kinds: Mapping[str, Kind], keep_float: Sequence[str] = ()
) -> Plan:
    """The plan, with these kinds on those of the nodes that can have them and are not in int8."""
    able = possible(graph, target, keep_float, only=kinds)
    given: dict[str, Kind] = {}
    decisions = dict(plan.decisions)
    for name, kind in sorted(kinds.items()):
        decision = decisions.get(name)
        if able.get(name, {}).get(kind, "no") or (decision is not None and decision.integer):
            continue
        given[name] = kind
        if decision is not None:
            decisions[name] = replace(decision, kind=kind, reason="")
    return replace(plan, kinds={**plan.kinds, **given}, decisions=decisions)


def weight_of(node: gs.Node) -> NDArray[np.float32] | None:
    """The constant matrix of a MatMul or Gemm as [inputs, outputs], that of a Gather as it is; None for others."""
    slots = WEIGHTS.get(node.op, ())
    if len(slots) != 1 or not isinstance(node.inputs[slots[0]], gs.Constant):
        return None
    values: NDArray[np.float32] = np.asarray(node.inputs[slots[0]].values)
    return values.T if node.op == "Gemm" and node.attrs.get("transB", 0) else values


def _small(node: gs.Node) -> str:
    weights = [node.inputs[slot] for slot in WEIGHTS[node.op]]
    if all(isinstance(w, gs.Constant) for w in weights) and sum(int(np.prod(w.shape)) for w in weights) < LEAST:
        return f"its weight has fewer than {LEAST} elements"
    return ""


def _weight(node: gs.Node, slot: int) -> str:
    """Why a weight cannot become integers."""
    weight = node.inputs[slot] if slot < len(node.inputs) else None
    if not isinstance(weight, gs.Constant):
        return "its weight is computed at run time"
    if np.dtype(weight.dtype) != np.float32:
        return f"its weight is {np.dtype(weight.dtype)}, not float32"
    rank = 3 if node.op == "LSTM" else 2
    if len(weight.shape) != rank:
        return f"its weight has rank {len(weight.shape)}, the integer kernel takes rank {rank}"
    if not int(np.prod(weight.shape)):
        return "its weight is empty"
    for reader in weight.outputs:
        if any(t is weight and not _alike(reader, at, node, slot) for at, t in enumerate(reader.inputs)):
            return f"its weight is also read by {reader.name}, so it would be in the file twice"
    if not _finite(weight.values):
        return "its weight holds NaN or Inf"
    other = node.inputs[1 if node.op == "Gather" else 0]
    return "its data operand is constant" if isinstance(other, gs.Constant) else ""


_FINITE: dict[int, tuple[weakref.ref[Any], bool]] = {}
"""By identity: plans are made often, and looking through all weights takes longer than all else."""


def _forget(key: int) -> None:
    """What was known of an array that is gone."""
    _FINITE.pop(key, None)


def _finite(values: NDArray[Any]) -> bool:
    """No NaN, no Inf."""
    key = id(values)
    known = _FINITE.get(key)
    if known is not None and known[0]() is values:
        return known[1]
    found = bool(np.isfinite(values.min()) and np.isfinite(values.max()))
    _FINITE[key] = weakref.ref(values, lambda _: _forget(key)), found
    return found


def _alike(reader: gs.Node, at: int, node: gs.Node, slot: int) -> bool:
    """Do two nodes read a weight in the same form?"""
    if reader.op != node.op or at != slot:
        return False
    return bool(reader.attrs.get("transB", 0)) == bool(node.attrs.get("transB", 0))


def _gemm(node: gs.Node) -> str:
    if node.attrs.get("transA", 0):
        return "it transposes its data, which the integer kernel does not"
    if float(node.attrs.get("alpha", 1.0)) != 1.0:
        return "its alpha is not 1"
    if len(node.inputs) < 3 or not node.inputs[2].name:
        return ""
    if float(node.attrs.get("beta", 1.0)) != 1.0:
        return "its beta is not 1"
    bias, weight = node.inputs[2], weight_of(node)
    assert weight is not None
    if not isinstance(bias, gs.Constant):
        return "its bias is computed at run time"
    columns = weight.shape[1]
    if int(np.prod(bias.shape)) != columns or tuple(bias.shape)[-1:] != (columns,):
        return f"its bias has shape {list(bias.shape)}, the integer kernel takes [{columns}]"
    return ""


def _gather(node: gs.Node, kind: Kind) -> str:
    if int(node.attrs.get("axis", 0)) != 0:
        return "it does not gather rows"
    columns = int(node.inputs[0].shape[1])
    if BITS.get(kind) == 4 and columns % 2:
        return "its rows have an odd number of elements, and two share a byte"
    return ""
