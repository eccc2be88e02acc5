"""A structural checker: does a quantized file keep the rules of the place where it will run? One sentence per broken
rule.

Sources: the ONNX operator specifications of QuantizeLinear and DequantizeLinear; for TensorRT its documentation
    ("Explicit
Quantization") and the operator list of its ONNX parser; for ONNX Runtime's CPU what `docs/ort.md` measures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.errors import UnknownNameError, did_you_mean
from onnxq.ir import walk
from onnxq.ir.model import Model
from onnxq.optable import OP_TABLE, weight_granularity
from onnxq.plan.facts import Facts
from onnxq.targets.target import Target

Q, DQ = "QuantizeLinear", "DequantizeLinear"
INTEGER_OPS = frozenset({"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"})


@dataclass(frozen=True, order=True)
class Violation:
    """A broken rule: its name, the node (or "" for the file), and the sentence."""

    rule: str
    node: str
    sentence: str


@dataclass(frozen=True)
class _View:
    """What the rules look at."""

    model: Model
    target: Target
    facts: Facts
    nodes: tuple[gs.Node, ...]

    def conversions(self, *ops: str) -> Iterator[gs.Node]:
        return (n for n in self.nodes if n.op in ops)


Rule = Callable[[_View], Iterator[Violation]]


def check(model: Model, target: Target) -> list[Violation]:
    """Every broken rule of the target, sorted.

    Raises:
        UnknownNameError: the target names a rule that does not exist.
    """
    nodes = tuple(n for _, graph in walk.graphs(model.graph) for n in graph.nodes)
    view = _View(model, target, Facts(model.graph, {}), nodes)
    found: list[Violation] = []
    for name in target.rules:
        if name not in RULES:
            raise UnknownNameError(f'target {target.name} names the rule "{name}": {did_you_mean(name, RULES)}')
        found.extend(RULES[name](view))
    return sorted(found)


def _versions(view: _View) -> Iterator[Violation]:
    """Opset and IR version are at most those that the target reads."""
    opset, ir = view.target.max_opset, view.target.max_ir_version
    if opset is not None and view.model.opset > opset:
        yield Violation(
            "versions", "", f"the file has opset {view.model.opset}, {view.target.name} reads up to {opset}"
        )
    if ir is not None and view.model.ir_version > ir:
        yield Violation("versions", "", f"the file has IR version {view.model.ir_version}, the limit is {ir}")


def _parameters(view: _View) -> Iterator[Violation]:
    """Scale and zero point are constants that fit: scale above 0, zero point there, of one shape, rank 0 per tensor."""
    for node in view.conversions(Q, DQ):
        scale = view.facts.constant(node.inputs[1]) if len(node.inputs) > 1 else None
        if scale is None:
            yield Violation("parameters", node.name, "its scale is computed at run time")
            continue
        if not (np.isfinite(scale.astype(np.float64)).all() and (scale > 0).all()):
            yield Violation("parameters", node.name, "its scale is not above 0")
        if scale.size == 1 and scale.ndim:
            yield Violation("parameters", node.name, f"its scale of one element has rank {scale.ndim}, not 0")
        zero = view.facts.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2].name else None
        if zero is None:
            yield Violation("parameters", node.name, "it has no constant zero point")
        elif zero.shape != scale.shape:
            yield Violation("parameters", node.name, "scale and zero point have different shapes")


def _axis(view: _View) -> Iterator[Violation]:
    """A scale per channel says its axis and has one element per channel; weights have theirs along the output
    channels.
    """
    for node in view.conversions(Q, DQ):
        scale = view.facts.constant(node.inputs[1]) if len(node.inputs) > 1 else None
        if scale is None or scale.ndim != 1 or scale.size == 1:
            continue
        if "axis" not in node.attrs:
            yield Violation("axis", node.name, "it has a scale per channel and does not say along which axis")
            continue
        shape = view.facts.shape(node.inputs[0])
        axis = int(node.attrs["axis"])
        if shape is not None and isinstance(shape[axis], int) and shape[axis] != scale.size:
            yield Violation("axis", node.name, f"it has {scale.size} scales for {shape[axis]} channels on axis {axis}")
    for node, weight in _weights(view):
        scale = view.facts.constant(weight.inputs[1])
        values = view.facts.constant(weight.inputs[0])
        if scale is None or values is None or scale.ndim != 1 or scale.size == 1 or "axis" not in weight.attrs:
            continue
        wanted = getattr(weight_granularity(node, values.ndim), "axis", None)
        axis = int(weight.attrs["axis"]) % values.ndim
        if wanted != axis:
            yield Violation("axis", node.name, f"its weight is scaled along axis {axis}, {node.op} wants {wanted}")


def _bias_scale(view: _View) -> Iterator[Violation]:
    """The scale of an int32 bias is the product of the scales of data and weight."""
    for node, weight in _weights(view):
        slot = OP_TABLE[node.op].bias
        bias = _behind(view, node, slot)
        data = _behind(view, node, 0)
        if bias is None or data is None:
            continue
        scales = [s for n in (bias, data, weight) if (s := view.facts.constant(n.inputs[1])) is not None]
        if len(scales) < 3:
            continue
        product = (scales[1] * scales[2]).astype(np.float32)
        if product.size not in (1, scales[0].size) or not np.all(product == scales[0]):
            yield Violation("bias-scale", node.name, "the scale of its bias is not the product of its other scales")


def _double_pairs(view: _View) -> Iterator[Violation]:
    """No Q right behind a DQ of the same type with other parameters, per tensor: ONNX Runtime merges them wrongly."""
    for node in view.conversions(Q):
        before = view.facts.producer.get(node.inputs[0].name)
        if before is None or before.op != DQ or len(view.facts.consumers[node.inputs[0].name]) > 1:
            continue
        parameters = [view.facts.constant(t) for n in (before, node) for t in n.inputs[1:3]]
        known = [p for p in parameters if p is not None and p.ndim == 0]
        if len(known) < 4:
            continue
        scale, zero, other_scale, other_zero = known
        if zero.dtype == other_zero.dtype and (scale != other_scale or zero != other_zero):
            yield Violation(
                "double-pairs", node.name, f"it quantizes again what {before.name} dequantizes, in another scale"
            )


def _symmetric_int8(view: _View) -> Iterator[Violation]:
    """Only int8, zero points all 0."""
    for node in view.conversions(Q, DQ):
        zero = view.facts.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2].name else None
        if zero is None:
            continue
        if zero.dtype != np.int8:
            yield Violation("symmetric-int8", node.name, f"its type is {zero.dtype}, {view.target.name} reads int8")
        elif zero.any():
            yield Violation("symmetric-int8", node.name, "its zero point is not 0")


def _activations_per_tensor(view: _View) -> Iterator[Violation]:
    """Activations have one scale."""
    for node in view.conversions(Q):
        scale = view.facts.constant(node.inputs[1]) if len(node.inputs) > 1 else None
        if scale is not None and scale.size > 1 and view.facts.constant(node.inputs[0]) is None:
            yield Violation("activations-per-tensor", node.name, "it quantizes an activation with a scale per channel")


def _float_bias(view: _View) -> Iterator[Violation]:
    """The bias stays float."""
    for node, _ in _weights(view):
        if _behind(view, node, OP_TABLE[node.op].bias) is not None:
            yield Violation("float-bias", node.name, f"its bias is quantized, {view.target.name} wants it in float")


def _no_integer_ops(view: _View) -> Iterator[Violation]:
    """No integer operators, and integers only between Q and DQ."""
    for node in view.nodes:
        if node.op in INTEGER_OPS or node.op.startswith("QLinear"):
            yield Violation("no-integer-ops", node.name, f"{view.target.name} does not read {node.op}")
    for node in view.conversions(Q):
        others = [c for c in view.facts.consumers[node.outputs[0].name] if c.node is None or c.node.op != DQ]
        if others:
            user = "a graph output" if others[0].node is None else others[0].node.name
            yield Violation(
                "no-integer-ops", node.name, f"{user} reads its integers, which only a DequantizeLinear may"
            )


def _weights(view: _View) -> Iterator[tuple[gs.Node, gs.Node]]:
    """Weighted ops and the DQ of their weight."""
    for node in view.nodes:
        row = OP_TABLE.get(node.op)
        if row is not None and row.weight is not None:
            weight = _behind(view, node, row.weight)
            if weight is not None:
                yield node, weight


def _behind(view: _View, node: gs.Node, slot: int | None) -> Any:
    """The DQ that an input slot reads, or None."""
    if slot is None or slot >= len(node.inputs):
        return None
    producer = view.facts.producer.get(node.inputs[slot].name)
    return producer if producer is not None and producer.op == DQ else None


RULES: dict[str, Rule] = {
    "versions": _versions,
    "parameters": _parameters,
    "axis": _axis,
    "bias-scale": _bias_scale,
    "double-pairs": _double_pairs,
    "symmetric-int8": _symmetric_int8,
    "activations-per-tensor": _activations_per_tensor,
    "float-bias": _float_bias,
    "no-integer-ops": _no_integer_ops,
}
"""Rule name -> rule; targets name the ones that bind them."""
