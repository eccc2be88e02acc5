"""A structural checker: does a quantized file keep the rules of the place where it will run? One sentence per broken
rule.

Sources: the ONNX operator specifications of QuantizeLinear and DequantizeLinear; for TensorRT its documentation
("Explicit Quantization") and the operator list of its ONNX parser; for ONNX Runtime's CPU what `docs/ort.md` measures,
and `tests/plan/test_check_against_ort.py`, which holds each rule about its optimizer against that optimizer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.encoding import LEVELS
from onnxq.errors import UnknownNameError, did_you_mean
from onnxq.ir.model import Model
from onnxq.optable import OP_TABLE, data_slots, weight_granularity
from onnxq.plan.facts import Facts, every
from onnxq.plan.integers import INTEGER_OPS, integer_violations
from onnxq.targets.target import Target

Q, DQ = "QuantizeLinear", "DequantizeLinear"


@dataclass(frozen=True, order=True)
class Violation:
    """A broken rule: its name, the node (or "" for the file), and the sentence."""

    rule: str
    node: str
    sentence: str


@dataclass(frozen=True)
class _View:
    """What the rules look at: the main graph, or a body in it."""

    model: Model
    target: Target
    facts: Facts
    nodes: tuple[gs.Node, ...]

    def conversions(self, *ops: str) -> Iterator[gs.Node]:
        return (n for n in self.nodes if n.op in ops)

    def scale(self, node: gs.Node) -> NDArray[Any] | None:
        """The constant scale of a Q or DQ."""
        return self.facts.constant(node.inputs[1]) if len(node.inputs) > 1 else None

    def zero(self, node: gs.Node) -> NDArray[Any] | None:
        """The constant zero point of a Q or DQ."""
        return self.facts.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2].name else None

    def zero_type(self, node: gs.Node) -> str:
        """The integer type that the zero point has."""
        zero = self.zero(node)
        return "" if zero is None else zero.dtype.name

    def parameters(self, node: gs.Node) -> tuple[float, int] | None:
        """Scale and zero point, if it has one of each."""
        scale, zero = self.scale(node), self.zero(node)
        if scale is None or zero is None or scale.size != 1 or zero.size != 1:
            return None
        return float(scale.reshape(())), int(zero.reshape(()))

    def readers(self, node: gs.Node) -> list[gs.Node | None]:
        """The nodes that read output 0; None stands for an output of a graph."""
        return [c.node for c in self.facts.consumers[node.outputs[0].name]]


Rule = Callable[[_View], Iterator[Violation]]


def check(model: Model, target: Target) -> list[Violation]:
    """Every broken rule of the target, sorted.

    Raises:
        UnknownNameError: the target names a rule that does not exist.
    """
    views = [_View(model, target, facts, tuple(facts.graph.nodes)) for facts in every(model.graph, {})]
    found: list[Violation] = []
    for name in target.rules:
        if name not in RULES:
            raise UnknownNameError(f'target {target.name} names the rule "{name}": {did_you_mean(name, RULES)}')
        rule = RULES[name]
        for view in views[:1] if rule in _OF_THE_FILE else views:
            found.extend(rule(view))
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
        scale = view.scale(node)
        if scale is None:
            yield Violation("parameters", node.name, "its scale is computed at run time")
            continue
        if not (np.isfinite(scale.astype(np.float64)).all() and (scale > 0).all()):
            yield Violation("parameters", node.name, "its scale is not above 0")
        if scale.size == 1 and scale.ndim:
            yield Violation("parameters", node.name, f"its scale of one element has rank {scale.ndim}, not 0")
        zero = view.zero(node)
        if zero is None:
            yield Violation("parameters", node.name, "it has no constant zero point")
            continue
        if zero.shape != scale.shape:
            yield Violation("parameters", node.name, "scale and zero point have different shapes")
        values = view.facts.constant(node.inputs[0])
        if node.op == DQ and values is not None and values.dtype != zero.dtype:
            yield Violation("parameters", node.name, f"it reads {values.dtype}, and its zero point is {zero.dtype}")


def _axis(view: _View) -> Iterator[Violation]:
    """A scale per channel says its axis and has one element per channel; weights have theirs along the output
    channels.
    """
    for node in view.conversions(Q, DQ):
        scale = view.scale(node)
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
        scale = view.scale(weight)
        values = view.facts.constant(weight.inputs[0])
        if scale is None or values is None or scale.ndim != 1 or scale.size == 1 or "axis" not in weight.attrs:
            continue
        wanted = getattr(weight_granularity(node, values.ndim), "axis", None)
        axis = int(weight.attrs["axis"]) % values.ndim
        if wanted != axis:
            form = "one scale for all" if wanted is None else wanted
            yield Violation("axis", node.name, f"its weight is scaled along axis {axis}, {node.op} wants {form}")


def _bias_scale(view: _View) -> Iterator[Violation]:
    """An int32 bias has zero point 0 and the product of the scales of data and weight as its scale."""
    for node, weight in _weights(view):
        bias, data = _behind(view, node, OP_TABLE[node.op].bias), _behind(view, node, 0)
        if bias is None or data is None:
            continue
        values = view.facts.constant(bias.inputs[0])
        if values is not None and values.dtype != np.int32:
            yield Violation("bias-scale", node.name, f"its bias is {values.dtype}, not int32")
        zero = view.zero(bias)
        if zero is not None and zero.any():
            yield Violation("bias-scale", node.name, "the zero point of its bias is not 0")
        scales = [s for n in (bias, data, weight) if (s := view.scale(n)) is not None]
        if len(scales) < 3 or scales[1].size > 1:
            continue
        product = (scales[1] * scales[2]).astype(np.float32)
        if product.size not in (1, scales[0].size) or not np.all(product == scales[0]):
            yield Violation("bias-scale", node.name, "the scale of its bias is not the product of its other scales")


def _bias_range(view: _View) -> Iterator[Violation]:
    """A float bias fits into int32 by the product of the scales: ONNX Runtime rounds it to that on load, and wraps."""
    for node, weight in _weights(view):
        slot, data = OP_TABLE[node.op].bias, _behind(view, node, 0)
        if slot is None or slot >= len(node.inputs) or data is None or not _quantized_behind(view, node):
            continue
        bias, one, scale = view.facts.constant(node.inputs[slot]), view.scale(data), view.scale(weight)
        if bias is None or one is None or scale is None or bias.dtype != np.float32:
            continue
        if one.size > 1 or scale.size not in (1, bias.size):
            continue
        steps = np.abs(bias.astype(np.float64).reshape(-1)) / (float(one.reshape(())) * scale.reshape(-1))
        if not (steps <= LEVELS["int32"][1]).all():
            yield Violation("bias-range", node.name, "its float bias leaves int32 by the product of its other scales")


def _float_weights(view: _View) -> Iterator[Violation]:
    """No float weight between quantized data and a quantized result: ONNX Runtime would round it to int8."""
    for node in view.conversions("Conv", "ConvTranspose", "Gemm"):
        data = _pushed_in_front(view, node)
        if data is None or view.facts.constant(node.inputs[1]) is None or not _quantized_behind(view, node):
            continue
        scale = view.scale(data)
        if scale is not None and scale.size == 1:  # with one per channel it is left alone
            yield Violation("float-weights", node.name, "its weight is float, and ONNX Runtime would round it to int8")


def _pushed_in_front(view: _View, node: gs.Node) -> Any:
    """The DQ that the first input reads, or that ONNX Runtime pushes there over moves; or None."""
    before = view.facts.producer.get(node.inputs[0].name)
    while before is not None and before.op in view.target.pushed_through:
        before = view.facts.producer.get(before.inputs[0].name)
    return before if before is not None and before.op == DQ else None


def _quantized_behind(view: _View, node: gs.Node) -> bool:
    """The result goes to one Q and nowhere else, over activations and moves that a Q is pulled over if need be."""
    after = view.facts.only_edge(node.outputs[0])
    while after is not None and after.op in (*view.target.looked_through, *view.target.pushed_through):
        after = view.facts.only_edge(after.outputs[0])
    return after is not None and after.op == Q


def _weight_blocks(view: _View) -> Iterator[Violation]:
    """No int8 weight with a scale per block beside quantized data: no kernel takes it, and ONNX Runtime fuses it."""
    for node, weight in _weights(view):
        if weight.attrs.get("block_size") and _behind(view, node, 0) is not None:
            yield Violation("weight-blocks", node.name, "its weight has a scale per block, and its data is quantized")


def _double_pairs(view: _View) -> Iterator[Violation]:
    """No two pairs Q -> DQ -> Q -> DQ of one type with different parameters and nothing else around: ONNX Runtime makes
    one pair of them, which rounds differently. Each pair has one scale and agrees with itself; it has zero points; the
    tensors in between have no other readers and are no outputs, but several equal DQs may follow.
    """
    for last in view.conversions(Q):
        middle = view.facts.producer.get(last.inputs[0].name)
        if middle is None or middle.op != DQ or view.readers(middle) != [last]:
            continue
        first, readers = view.facts.producer.get(middle.inputs[0].name), view.readers(last)
        if first is None or first.op != Q or view.readers(first) != [middle]:
            continue
        ends = [n for n in readers if n is not None and n.op == DQ]
        if not ends or len(ends) < len(readers):
            continue
        pairs = [[view.parameters(n) for n in pair] for pair in ((first, middle), (last, *ends))]
        if any(None in pair or len(set(pair)) > 1 for pair in pairs) or pairs[0][0] == pairs[1][0]:
            continue
        if view.zero_type(middle) == view.zero_type(last):
            yield Violation(
                "double-pairs", last.name, f"it quantizes again what {middle.name} dequantizes, in another scale"
            )


def _integer_operators(view: _View) -> Iterator[Violation]:
    """Integer operators have the inputs that their kernels read."""
    for rule, sentence in integer_violations(view.model.graph):
        yield Violation("integer-operators", "", f"{sentence} ({rule})")


def _symmetric_int8(view: _View) -> Iterator[Violation]:
    """Only int8, zero points all 0."""
    for node in view.conversions(Q, DQ):
        zero = view.zero(node)
        if zero is None:
            continue
        if zero.dtype != np.int8:
            yield Violation("symmetric-int8", node.name, f"its type is {zero.dtype}, {view.target.name} reads int8")
        elif zero.any():
            yield Violation("symmetric-int8", node.name, "its zero point is not 0")


def _activations_per_tensor(view: _View) -> Iterator[Violation]:
    """Activations have one scale, where they are quantized and where a weighted op reads them."""
    for node in view.conversions(Q):
        scale = view.scale(node)
        if scale is not None and scale.size > 1 and view.facts.constant(node.inputs[0]) is None:
            yield Violation("activations-per-tensor", node.name, "it quantizes an activation with a scale per channel")
    for node, _ in _weights(view):
        data = _behind(view, node, 0)
        scale = None if data is None else view.scale(data)
        if scale is not None and scale.size > 1:
            yield Violation("activations-per-tensor", node.name, "its data has a scale per channel")


def _float_bias(view: _View) -> Iterator[Violation]:
    """The bias stays float."""
    for node, _ in _weights(view):
        if _behind(view, node, OP_TABLE[node.op].bias) is not None:
            yield Violation("float-bias", node.name, f"its bias is quantized, {view.target.name} wants it in float")


def _weighted_inputs(view: _View) -> Iterator[Violation]:
    """Data and weight of a weighted op are both quantized, or neither is: there are int8 kernels and float kernels."""
    for node in view.nodes:
        row = OP_TABLE.get(node.op)
        if row is None or row.weight is None:
            continue
        data, weight = _behind(view, node, 0), _behind(view, node, row.weight)
        if (data is None) != (weight is None):
            one, other = ("weight", "data") if data is None else ("data", "weight")
            yield Violation("weighted-inputs", node.name, f"its {one} is quantized, and its {other} is not")


def _residual(view: _View) -> Iterator[Violation]:
    """Of the operands of an Add behind an int8 weighted op, the other one, the shortcut, is quantized, and it alone:
    TensorRT fuses the Add into that op, and the type of the shortcut decides that of the result.
    """
    for node in view.nodes:
        if node.op != "Add" or any(view.facts.constant(t) is not None for t in node.inputs):
            continue
        dqs = [_dequantized(view, t) for t in node.inputs]
        direct = [_int8_product(view, t) for t in node.inputs]
        if any(direct) and not any(dqs):
            product = next(n for n in direct if n is not None)
            sentence = f"its operand beside the result of {product.op} {product.name} is not quantized"
            yield Violation("residual", node.name, f"{sentence}, so the Add is not fused into that in int8")
        for dq, tensor in zip(dqs, node.inputs, strict=True):
            before = None if dq is None or not all(dqs) else view.facts.producer.get(dq.inputs[0].name)
            if before is None or before.op != Q or len(view.facts.consumers[tensor.name]) > 1:
                continue
            product = _int8_product(view, before.inputs[0])
            if product is not None and view.readers(before) == [dq]:
                sentence = f"the result of {product.op} {product.name} is quantized in front of it"
                yield Violation("residual", node.name, f"{sentence}: quantize the other operand only, the shortcut")


def _int8_product(view: _View, tensor: Any) -> gs.Node | None:
    """The weighted op on quantized data that makes a tensor, if only one node reads that."""
    maker = view.facts.producer.get(tensor.name)
    row = None if maker is None else OP_TABLE.get(maker.op)
    if maker is None or row is None or row.weight is None or _behind(view, maker, 0) is None:
        return None
    return maker if len(view.facts.consumers[tensor.name]) == 1 else None


def _dequantized(view: _View, tensor: Any) -> gs.Node | None:
    """The DQ that a tensor comes from, if need be over ops that only move data: TensorRT moves it there."""
    maker = view.facts.producer.get(tensor.name)
    while maker is not None and maker.op != DQ:
        row = OP_TABLE.get(maker.op)
        if row is None or row.moves is None:
            return None
        maker = view.facts.producer.get(maker.inputs[data_slots(maker)[0]].name)
    return maker


def _no_integer_ops(view: _View) -> Iterator[Violation]:
    """No integer operators, and integers only between Q and DQ."""
    for node in view.nodes:
        if node.op in INTEGER_OPS or node.op == "DynamicQuantizeLinear":
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
    "bias-range": _bias_range,
    "float-weights": _float_weights,
    "weight-blocks": _weight_blocks,
    "double-pairs": _double_pairs,
    "integer-operators": _integer_operators,
    "symmetric-int8": _symmetric_int8,
    "activations-per-tensor": _activations_per_tensor,
    "weighted-inputs": _weighted_inputs,
    "float-bias": _float_bias,
    "residual": _residual,
    "no-integer-ops": _no_integer_ops,
}
"""Rule name -> rule; targets name the ones that bind them."""

_OF_THE_FILE = (_versions, _integer_operators)
"""Rules that look at all graphs at once."""
