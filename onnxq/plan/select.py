"""Which ops go into integer kernels, and why the others do not. Structure only: no ranges are needed here.

The rules, in the order in which they are applied:

1. A weighted op (Conv, Gemm, MatMul) is a candidate if its weight and bias are constant and nothing vetoes it. It
   demands an 8-bit data input,
   and gives an 8-bit output where its kernel requires one. A convolution over three axes with few channels is none.
2. A Relu or Clip behind an integer op, and its only user, is absorbed: the range of the 8-bit output makes it
   redundant.
3. Forward: a compute or movement op whose data operands are all 8-bit (or constant) becomes integer and gives an
   8-bit output. What a body takes from around it and exists there in 8 bits only counts as 8-bit.
4. Backward: a compute or movement op whose result is only used in float goes back to float; so does an op whose
   integer kernel pays only behind
   certain ops (`after`) that do not stand there.
5. A placement by measured costs stands above few channels, and above rules 3 and 4: what it puts into int8 is integer
   if its kernel exists, and its float operands are quantized for it.
6. With `outputs=False` (TensorRT) only rule 1 applies, plus the shortcut operand of residual Adds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_graphsurgeon as gs

from onnxq.ir.walk import clip_bounds
from onnxq.optable import data_slots
from onnxq.plan.facts import Consumer, Facts
from onnxq.plan.reasons import explain, static_reason, thumb_reason
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


def select(
    facts: Facts,
    target: Target,
    keep_float: Sequence[str] = (),
    veto: Mapping[str, str] | None = None,
    placed: Collection[str] = (),
    *,
    eager: bool = False,
) -> Selection:
    """Apply the rules above.

    Args:
        veto: node -> reason, found by looking at ranges or costs after a first selection.
        placed: nodes that are to be integer for what they save.
        eager: see `Placement`.
    """
    return _Selector(facts, target, keep_float, veto or {}, set(placed), eager=eager).run()


class _Selector:
    def __init__(
        self,
        facts: Facts,
        target: Target,
        keep_float: Sequence[str],
        veto: Mapping[str, str],
        placed: set[str],
        *,
        eager: bool,
    ) -> None:
        self.facts = facts
        self.placed = placed
        self.target = target
        self.nodes: list[gs.Node] = list(facts.graph.nodes)
        self.out = Selection()
        self.forced: set[str] = set()
        self.veto = veto
        self.eager = eager
        self.kernel: dict[str, Kernel] = {}
        for node in self.nodes:
            reason = static_reason(facts, target, node, keep_float) or veto.get(node.name, "")
            if not reason and not eager and node.name not in placed:
                reason = thumb_reason(target, node)
            if reason:
                self.out.reasons[node.name] = reason
            elif node.op in target.kernels:
                self.kernel[node.name] = target.kernels[node.op]

    def run(self) -> Selection:
        self._seed()
        if self.target.outputs:
            self._forward()
            if self.eager:
                self._backward_moves()
                self._forward()
            while self._backward():
                pass
            self._settle()
        else:
            self._residuals()
        explain(self.facts, self.target, self.out)
        return self.out

    # rule 1

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
        if after.op == "Clip":
            bounds = clip_bounds(after)
            if bounds is None or not bounds[0] <= 0 <= bounds[1]:  # every 8-bit range contains 0
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
                    elif kernel.output == "optional" and self._must_have_output(node):
                        self.forced.add(name)
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

    def _must_have_output(self, node: gs.Node) -> bool:
        """True where the runtime would run the op in float without a Q behind it.

        It takes the only reader of an activation behind the op for that Q, and gives up if it is none. It makes Gemm of
        a MatMul of matrices and the Add behind it, which is then integer only with a constant row as bias, and with
        nothing but a Q behind it if there is one.
        """
        if any(map(self._quantized_activation, self.facts.consumers[node.outputs[0].name])):
            return True
        after = self.facts.only_edge(node.outputs[0])
        if node.op == "MatMul" and after is not None and after.op == "Add":
            other = after.inputs[1 if after.inputs[0] is node.outputs[0] else 0]
            constant, shape = self.facts.constant(other), self.facts.shape(node.outputs[0])
            if (shape is not None and len(shape) != 2) or (constant is not None and constant.size == 1):
                return False
            if constant is None or constant.size != constant.shape[-1]:
                return True
            joined = after.outputs[0]
            if joined.name in self.out.values and not all(map(self._is_integer, self.facts.consumers[joined.name])):
                return True
            after = self.facts.only_edge(joined)
        if after is None or after.op not in self.target.looked_through:
            return False
        readers = self.facts.consumers.get(after.outputs[0].name, [])
        return self.facts.only_edge(after.outputs[0]) is not None and all(r.node is not None for r in readers)

    def _quantized_activation(self, use: Consumer) -> bool:
        """A Relu or Clip with a Q that could not be absorbed: the runtime takes the Q for the op's own, but finds other
        readers, the caller included, or a Clip that the Q does not make redundant."""
        node = use.node
        return (
            node is not None
            and not use.path
            and node.op in self.target.looked_through
            and node.outputs[0].name in self.out.values
        )

    def _operands_ready(self, node: gs.Node, kernel: Kernel) -> bool:
        operands = [node.inputs[s] for s in data_slots(node) if node.inputs[s].name]
        dynamic = [t for t in operands if self.facts.constant(t) is None]
        if not dynamic:
            return False
        missing = [t for t in dynamic if t.name not in self.out.values and t.name not in self.facts.held]
        if node.name not in self.placed and not self._all_small(missing, dynamic, kernel):
            return False
        self.out.values.update(t.name for t in dynamic)
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

    def _backward_moves(self) -> None:
        """Ops that move data whose results are all read in 8 bits; as if they had been placed."""
        for node in reversed(self.nodes):
            kernel = self.kernel.get(node.name)
            if kernel is None or node.name in self.out.integer:
                continue
            if kernel.kind != "movement" and node.op != "Concat":
                continue
            uses = [use for t in node.outputs for use in self.facts.consumers.get(t.name, [])]
            operands = [node.inputs[s] for s in data_slots(node) if node.inputs[s].name]
            dynamic = [t.name for t in operands if self.facts.constant(t) is None]
            if dynamic and uses and all(map(self._is_integer, uses)):  # a table alone has no range to share
                self.out.integer.add(node.name)
                self.placed.add(node.name)
                self.out.values.update(t.name for t in node.outputs)
                self.out.values.update(dynamic)

    # rule 4

    def _backward(self) -> bool:
        dropped = False
        for node in reversed(self.nodes):
            kernel = self.kernel.get(node.name)
            if kernel is None or kernel.kind == "weighted" or node.name not in self.out.integer:
                continue
            if node.name in self.placed:
                continue
            reason = self._drop_reason(node, kernel)
            if reason:
                self._drop(node, reason)
                dropped = True
        return dropped

    def _drop_reason(self, node: gs.Node, kernel: Kernel) -> str:
        if kernel.after and not self._fed_by(node, kernel.after):
            *others, last = kernel.after
            feeders = f"{', '.join(others)} or {last}" if others else last
            return f"the integer {node.op} is slower than the float one unless an integer {feeders} feeds it"
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
        return any(map(self._is_integer, self.facts.consumers.get(tensor.name, [])))

    def _is_integer(self, use: Consumer) -> bool:
        if use.node is None or use.path:
            return False
        return use.node.name in self.out.integer and use.slot in data_slots(use.node)

    def _has_integer_source(self, tensor: Any) -> bool:
        """8-bit for a reason other than this use: made by an integer op, or demanded by a weighted op."""
        producer = self.facts.producer.get(tensor.name)
        if tensor.name in self.facts.held or (producer is not None and producer.name in self.out.integer):
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
                must = kernel.output == "required" or node.name in self.forced
                if must and node.name not in self.out.absorbed.values():
                    wanted.update(t.name for t in node.outputs)
            else:
                slots = data_slots(node)
                wanted.update(node.inputs[s].name for s in slots if self.facts.constant(node.inputs[s]) is None)
                if node.name not in self.out.absorbed.values():
                    wanted.update(t.name for t in node.outputs)
        self.out.values = wanted

    # rule 6

    def _residuals(self) -> None:
        if not self.target.residual:
            return
        for node in self.nodes:
            if node.op != "Add" or node.name in self.veto or "pattern" in self.out.reasons.get(node.name, ""):
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
