"""Which ops go into integer kernels, and why the others do not. Structure only: no ranges are needed here.

The rules, in the order in which they are applied:

1. A weighted op (Conv, Gemm, MatMul) is a candidate if its weight and bias are constant and nothing vetoes it. It
   demands an 8-bit data input,
   and gives an 8-bit output where its kernel requires one.
2. A Relu or Clip behind an integer op, and its only user, is absorbed: the range of the 8-bit output makes it
   redundant.
3. Forward: a compute or movement op whose data operands are all 8-bit (or constant) becomes integer and gives an
   8-bit output.
4. Backward: a compute or movement op whose result is only used in float goes back to float; so does an op whose
   integer kernel pays only behind
   certain ops (`after`) that do not stand there.
5. With `outputs=False` (TensorRT) only rule 1 applies, plus the shortcut operand of residual Adds.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.optable import OP_TABLE, data_slots
from onnxq.plan.facts import Consumer, Facts
from onnxq.targets.target import Kernel, Target


@dataclass
class Selection:
    """What was selected.

    Attributes:
        integer: names of nodes in integer kernels (absorbed activations included).
        values: tensors that get 8 bits.
        absorbed: activation node -> the integer node that it vanishes into.
        residual: (node, slot) of shortcut operands to quantize (TensorRT).
        reasons: node -> why it stays float.
    """

    integer: set[str] = field(default_factory=set)
    values: set[str] = field(default_factory=set)
    absorbed: dict[str, str] = field(default_factory=dict)
    residual: set[tuple[str, int]] = field(default_factory=set)
    reasons: dict[str, str] = field(default_factory=dict)


def matches(node: gs.Node, patterns: Sequence[str]) -> str | None:
    """The first pattern (shell style) that fits the node's name, op type or one of its outputs' names."""
    for pattern in patterns:
        names = [node.name, node.op, *(t.name for t in node.outputs)]
        if any(n == pattern or fnmatch.fnmatchcase(n, pattern) for n in names):
            return pattern
    return None


def select(
    facts: Facts, target: Target, keep_float: Sequence[str] = (), veto: Mapping[str, str] | None = None
) -> Selection:
    """Apply the rules above.

    Args:
        veto: node -> reason, found by looking at ranges after a first selection.
    """
    return _Selector(facts, target, keep_float, veto or {}).run()


class _Selector:
    def __init__(self, facts: Facts, target: Target, keep_float: Sequence[str], veto: Mapping[str, str]) -> None:
        self.facts = facts
        self.target = target
        self.nodes: list[gs.Node] = list(facts.graph.nodes)
        self.out = Selection()
        self.kernel: dict[str, Kernel] = {}
        for node in self.nodes:
            reason = self._static_reason(node, keep_float, veto)
            if reason:
                self.out.reasons[node.name] = reason
            elif node.op in target.kernels:
                self.kernel[node.name] = target.kernels[node.op]

    def run(self) -> Selection:
        self._seed()
        if self.target.outputs:
            self._forward()
            while self._backward():
                pass
            self._settle()
        else:
            self._residuals()
        self._explain()
        return self.out

    # rule 1

    def _static_reason(self, node: gs.Node, keep_float: Sequence[str], veto: Mapping[str, str]) -> str:
        pattern = matches(node, keep_float)
        if pattern is not None:
            return f'kept float by the pattern "{pattern}"'
        if node.name in veto:
            return veto[node.name]
        if node.op in self.target.absorb:
            return ""
        kernel = self.target.kernels.get(node.op)
        if kernel is None or node.domain not in (None, "", "ai.onnx"):
            return self.target.no_kernel.get(node.op) or f"{self.target.name} has no integer kernel for {node.op}"
        slots = data_slots(node)
        row = OP_TABLE[node.op]
        if any(
            self.facts.overridable(node.inputs[s])
            for s in {*slots, row.weight, row.bias}
            if s is not None and s < len(node.inputs)
        ):
            return "it reads an initializer that a caller may override (--keep-overridable)"
        touched = [*(node.inputs[s] for s in slots), *node.outputs]
        if any(t.name in self.facts.masks for t in touched):
            return "it works on an attention mask, whose large negative values must not set a range"
        wrong = [node.inputs[s] for s in slots if not self.facts.is_float(node.inputs[s])]
        if wrong:
            return f"its operand is {np.dtype(wrong[0].dtype)}, not float32"
        match kernel.kind:
            case "weighted":
                return self._weighted_reason(node)
            case "movement":
                row = OP_TABLE[node.op]
                if row.moves is None or self.facts.graph.opset < row.min_opset:
                    return (
                        f"{node.op} takes 8-bit integers from opset {row.min_opset} on, the model has "
                        f"{self.facts.graph.opset}"
                    )
                return row.moves(node)
            case "compute":
                return ""

    def _weighted_reason(self, node: gs.Node) -> str:
        row = OP_TABLE[node.op]
        assert row.weight is not None
        data = self.facts.constant(node.inputs[0])
        weight = self.facts.constant(node.inputs[row.weight])
        if data is not None:
            return "its data operand is constant"
        if weight is None:
            return (
                "both operands are computed at run time: the 8-bit error of two activations multiplies, so "
                "it stays float"
            )
        if weight.ndim < 2:
            return f"its weight has rank {weight.ndim}, integer kernels want 2 or more"
        bias = self._bias(node)
        if bias is not None:
            values = self.facts.constant(bias)
            if values is None:
                return "its bias is computed at run time, not constant"
            if node.op == "Gemm":
                channels = weight.shape[0 if node.attrs.get("transB", 0) else 1]
                if values.size != channels or values.shape[-1:] != (channels,):
                    return f"its bias has shape {list(values.shape)}, the integer kernel wants [{channels}]"
                if float(node.attrs.get("alpha", 1.0)) != 1.0 or float(node.attrs.get("beta", 1.0)) != 1.0:
                    return "the integer Gemm with a bias wants alpha = beta = 1"
        return ""

    def _bias(self, node: gs.Node) -> Any | None:
        slot = OP_TABLE[node.op].bias
        if slot is None or slot >= len(node.inputs) or not node.inputs[slot].name:
            return None
        return node.inputs[slot]

    def _seed(self) -> None:
        for node in self.nodes:
            kernel = self.kernel.get(node.name)
            if kernel is None or kernel.kind != "weighted":
                continue
            self.out.integer.add(node.name)
            self.out.values.add(node.inputs[0].name)
        if self.target.outputs:
            for node in self.nodes:
                kernel = self.kernel.get(node.name)  # None: an activation that was just absorbed
                if kernel is not None and node.name in self.out.integer and kernel.output == "required":
                    self._give(node)

    # rule 2

    def _activation(self, node: gs.Node) -> gs.Node | None:
        """The Relu or Clip that the output Q of `node` can absorb."""
        if len(node.outputs) != 1:
            return None
        after = self.facts.sole_consumer(node.outputs[0])
        if after is None or after.op not in self.target.absorb or after.name in self.out.reasons:
            return None
        if after.inputs[0] is not node.outputs[0]:
            return None
        if after.op == "Clip" and clip_bounds(self.facts, after) is None:
            return None
        return after

    def _give(self, node: gs.Node) -> None:
        """Give the outputs of an integer node 8 bits, behind its absorbed activation if it has one."""
        activation = self._activation(node) if self._computes(node) else None
        if activation is not None:
            self.out.absorbed[activation.name] = node.name
            self.out.integer.add(activation.name)
            self.out.values.add(activation.outputs[0].name)
            return
        self.out.values.update(t.name for t in node.outputs)

    def _computes(self, node: gs.Node) -> bool:
        return self.kernel[node.name].kind in ("weighted", "compute")

    # rule 3

    def _forward(self) -> None:
        changed = True
        while changed:  # a small operand may be demanded behind the node that we stand at
            changed = False
            for node in self.nodes:
                name = node.name
                kernel = self.kernel.get(name)
                if kernel is None:
                    continue
                if kernel.kind == "weighted":
                    if kernel.output == "optional" and self._optional_output_wanted(node):
                        self._give(node)
                    continue
                if name in self.out.integer or not self._operands_ready(node, kernel):
                    continue
                self.out.integer.add(name)
                self._give(node)
                changed = True

    def _optional_output_wanted(self, node: gs.Node) -> bool:
        activation = self._activation(node)
        tail = activation if activation is not None else node
        return tail.name not in self.out.absorbed and tail.outputs[0].name in self.out.values

    def _operands_ready(self, node: gs.Node, kernel: Kernel) -> bool:
        operands = [node.inputs[s] for s in data_slots(node) if node.inputs[s].name]
        dynamic = [t for t in operands if self.facts.constant(t) is None]
        if not dynamic:
            return False
        missing = [t for t in dynamic if t.name not in self.out.values]
        if not self._all_small(missing, dynamic, kernel):
            return False
        self.out.values.update(t.name for t in missing)
        return True

    def _all_small(self, some: list[Any], operands: list[Any], kernel: Kernel) -> bool:
        """Quantizing `some` of the operands costs little beside the largest of the others."""
        if not some:
            return True
        names = {t.name for t in some}
        others = [self.facts.size(t) or 0 for t in operands if t.name not in names]
        if kernel.small_operands is None or not others:
            return False
        return all((self.facts.size(t) or max(others)) * kernel.small_operands <= max(others) for t in some)

    # rule 4

    def _backward(self) -> bool:
        dropped = False
        for node in reversed(self.nodes):
            kernel = self.kernel.get(node.name)
            if kernel is None or kernel.kind == "weighted" or node.name not in self.out.integer:
                continue
            reason = self._drop_reason(node, kernel)
            if reason:
                self._drop(node, reason)
                dropped = True
        return dropped

    def _drop_reason(self, node: gs.Node, kernel: Kernel) -> str:
        if kernel.after and not self._fed_by(node, kernel.after):
            return (
                f"the integer {node.op} is slower than the float one unless an integer "
                f"{' or '.join(kernel.after)} feeds it"
            )
        tail = next((a for a, p in self.out.absorbed.items() if p == node.name), None)
        tensors = self._outputs_behind(node, tail)
        if not any(self._used_in_integer(t) for t in tensors):
            return "its result is only used in float: 8 bits would add error and save nothing"
        operands = [node.inputs[s] for s in data_slots(node) if node.inputs[s].name]
        dynamic = [t for t in operands if self.facts.constant(t) is None]
        lost = [t for t in dynamic if not self._has_integer_source(t)]
        if not self._all_small(lost, dynamic, kernel):
            return "its input comes from a float op"
        return ""

    def _outputs_behind(self, node: gs.Node, tail: str | None) -> list[Any]:
        if tail is None:
            return list(node.outputs)
        consumer = self.facts.sole_consumer(node.outputs[0])
        assert consumer is not None
        return list(consumer.outputs)

    def _used_in_integer(self, tensor: Any) -> bool:
        return any(
            c.node is not None and not c.path and c.node.name in self.out.integer and c.slot in data_slots(c.node)
            for c in self.facts.consumers.get(tensor.name, [])
        )

    def _has_integer_source(self, tensor: Any) -> bool:
        """8-bit for a reason other than this use: made by an integer op, or demanded by a weighted op."""
        producer = self.facts.producer.get(tensor.name)
        if producer is not None and producer.name in self.out.integer:
            return True
        return any(self._is_weighted_data(c) for c in self.facts.consumers.get(tensor.name, []))

    def _is_weighted_data(self, use: Consumer) -> bool:
        if use.node is None or use.path or use.slot != 0 or use.node.name not in self.out.integer:
            return False
        kernel = self.kernel.get(use.node.name)
        return kernel is not None and kernel.kind == "weighted"

    def _fed_by(self, node: gs.Node, ops: Sequence[str]) -> bool:
        producer = self.facts.producer.get(node.inputs[0].name)
        while producer is not None and producer.name in self.out.absorbed:
            producer = self.facts.producer.get(producer.inputs[0].name)
        return producer is not None and producer.name in self.out.integer and producer.op in ops

    def _drop(self, node: gs.Node, reason: str) -> None:
        self.out.integer.discard(node.name)
        self.out.reasons[node.name] = reason
        for activation, producer in list(self.out.absorbed.items()):
            if producer == node.name:
                del self.out.absorbed[activation]
                self.out.integer.discard(activation)

    def _settle(self) -> None:
        """Keep only the 8-bit values that somebody in the final selection makes or wants."""
        wanted: set[str] = set()
        for node in self.nodes:
            if node.name not in self.out.integer:
                continue
            kernel = self.kernel.get(node.name)
            if kernel is None:  # absorbed activation
                wanted.add(node.outputs[0].name)
            elif kernel.kind == "weighted":
                wanted.add(node.inputs[0].name)
                if kernel.output == "required" and node.name not in self.out.absorbed.values():
                    wanted.update(t.name for t in node.outputs)
            else:
                slots = data_slots(node)
                wanted.update(node.inputs[s].name for s in slots if self.facts.constant(node.inputs[s]) is None)
                if node.name not in self.out.absorbed.values():
                    wanted.update(t.name for t in node.outputs)
        self.out.values = wanted

    # rule 5

    def _residuals(self) -> None:
        if not self.target.residual:
            return
        for node in self.nodes:
            if node.op != "Add" or (node.name in self.out.reasons and "pattern" in self.out.reasons[node.name]):
                continue
            if any(self.facts.constant(t) is not None for t in node.inputs):
                continue
            weighted = [self._sole_weighted(t) for t in node.inputs]
            if not any(weighted):
                continue
            # the convolution that only feeds this Add is fused with it; the other operand is the shortcut
            slot = 0 if weighted[1] and not weighted[0] else 1
            self.out.residual.add((node.name, slot))
            self.out.values.add(node.inputs[slot].name)

    def _sole_weighted(self, tensor: Any) -> bool:
        producer = self.facts.producer.get(tensor.name)
        return (
            producer is not None and producer.name in self.out.integer and self.facts.sole_consumer(tensor) is not None
        )

    def _explain(self) -> None:
        for node in self.nodes:
            if node.name in self.out.integer or node.name in self.out.reasons:
                continue
            if not self.target.outputs and node.op in self.target.absorb:
                self.out.reasons[node.name] = f"{self.target.name} fuses it with its neighbours by itself"
                continue
            operands = [node.inputs[s] for s in data_slots(node) if s < len(node.inputs)]
            lost = next(
                (t for t in operands if t.name and self.facts.constant(t) is None and t.name not in self.out.values),
                None,
            )
            if node.op in self.target.absorb:
                producer = self.facts.producer.get(node.inputs[0].name)
                if producer is None or producer.name not in self.out.integer:
                    self.out.reasons[node.name] = f"no integer op stands before it that {node.op} could vanish into"
                elif node.op == "Clip" and clip_bounds(self.facts, node) is None:
                    self.out.reasons[node.name] = "its bounds are computed at run time"
                else:
                    self.out.reasons[node.name] = (
                        f"the result of the op before it stays float or has other users, so {node.op} "
                        "cannot vanish into it"
                    )
            elif lost is not None:
                producer = self.facts.producer.get(lost.name)
                source = producer.op if producer is not None else "a graph input"
                self.out.reasons[node.name] = f"its input is float: it comes from {source}"
            else:
                self.out.reasons[node.name] = "it reads a constant table: only weights of heavy ops are quantized"


def clip_bounds(facts: Facts, node: gs.Node) -> tuple[float, float] | None:
    """The constant bounds of a Clip; infinite where absent; None if computed at run time."""
    bounds = [float(node.attrs.get("min", float("-inf"))), float(node.attrs.get("max", float("inf")))]
    for index, tensor in enumerate(node.inputs[1:3]):
        if not tensor.name:
            continue
        values = facts.constant(tensor)
        if values is None:
            return None
        bounds[index] = float(values.reshape(-1)[0])
    return bounds[0], bounds[1]
