"""Which ops of a graph in half precision compute in float32, and why: told from what calibration saw of every tensor.

float16 holds magnitudes from 2^-14 (2^-24 with fewer and fewer bits) to 65,504 (IEEE 754-2008, binary16).

1. Results or operands that leave this range, with a margin for what calibration did not see.
2. Sums whose terms leave it although the result does not: reductions and pools over many elements.
3. Numbers that become 0 in half and that something divides by, or takes the logarithm of.
4. Constants and epsilons that become 0 or infinite, or are off by a tenth.
5. Numbers that become integers again (positions, sizes): above 2,048, half has no odd ones.
6. Ops without a form in half, bodies of If, Loop and Scan, and tensors that no sample reached.

Attention masks need no range: lowest finite numbers take the place of theirs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.ir import schema
from onnxq.ir.schema import Signature, signature
from onnxq.plan.facts import Facts
from onnxq.plan.plan import Plan
from onnxq.plan.spread import Spread, Spreads
from onnxq.targets.target import Target

if TYPE_CHECKING:
    from onnxq.plan.vetoes import Ranges

HALF = "float16"
"""As targets name it."""

LARGEST = float(np.finfo(np.float16).max)
LEAST = float(np.finfo(np.float16).smallest_normal)
EXACT = 2048
"""Up to here float16 holds every integer."""

FLOAT = 1
"""TensorProto.FLOAT, as attributes name types."""

_SUMS = frozenset({"ReduceSum", "ReduceMean", "ReduceL1", "GlobalAveragePool", "CumSum"})
_SQUARES = frozenset({"ReduceL2", "ReduceSumSquare"})
_POLES = {"Div": 1, "Log": 0, "Reciprocal": 0}
_COUNTS = frozenset({"Floor", "Ceil", "Round", "Mul", "Div", "Add", "Sub", "Neg", "Abs", "Clip", "Min", "Max", "Sqrt"})
_INTEGERS = frozenset({2, 3, 4, 5, 6, 7, 12, 13})
_TYPED = ("dtype", "output_datatype", "output_dtype")


def half_signature(node: gs.Node, opset: int) -> Signature | None:
    """The types of an op that could compute in half; None if it cannot."""
    if node.domain not in (None, "", "ai.onnx") or any(True for _ in node.subgraphs()):
        return None
    found = signature(node.op, opset)
    if found is None or not found.inputs or not found.outputs or node.op == "CastLike":
        return None
    slots = [found.input(i) for i, t in enumerate(node.inputs) if t.name and not isinstance(t, gs.Constant)]
    slots += [found.output(i) for i, t in enumerate(node.outputs) if t.name]
    able = any(s.half for s in slots) and not any(s.single and not s.half for s in slots)
    return found if able and not any(node.attrs.get(name) == FLOAT for name in _TYPED) else None


def singles(facts: Facts, target: Target, ranges: Ranges) -> dict[str, str]:
    """Node -> why it computes in float32, of the main graph of a model whose floats are float16.

    Args:
        ranges: as `onnxq.plan.vetoes.vetoes` takes them; distributions make case 3 and sums exact.
    """
    return _Singles(facts, target, ranges).found()


class _Singles:
    def __init__(self, facts: Facts, target: Target, ranges: Ranges) -> None:
        self.facts, self.target, self.ranges = facts, target, ranges
        self.most = LARGEST / target.half_headroom
        self.floats = frozenset(schema.singles(facts.graph))
        self.spreads: dict[str, Spread | None] = {}

    def found(self) -> dict[str, str]:
        out: dict[str, str] = {}
        for node in self.facts.graph.nodes:
            if not any(self._float(t) for t in (*node.inputs, *node.outputs)):
                continue
            why = next(self._reasons(node), "")
            if why:
                out[node.name] = why
        for node in self.facts.graph.nodes:  # case 3: what makes such numbers, too
            for tensor, why in self._pole(node):
                maker = self.facts.producer.get(tensor.name)
                if maker is not None:
                    out.setdefault(maker.name, why)
        for node in self.facts.graph.nodes:  # case 5
            if node.op == "Cast" and self._float(node.inputs[0]) and node.attrs.get("to") in _INTEGERS:
                self._counted(node, out)
        return out

    def _float(self, tensor: Any) -> bool:
        constant = self.facts.constant(tensor)
        return tensor.name in self.floats if constant is None else constant.dtype == np.float32

    def _reasons(self, node: gs.Node) -> Iterator[str]:
        if half_signature(node, self.facts.graph.opset) is None:
            yield f"{node.op} has no form in float16"
            return
        yield from self._constants(node)
        for tensor in (*node.outputs, *node.inputs):
            if self._float(tensor) and self.facts.constant(tensor) is None and tensor.name not in self.facts.masks:
                yield from self._magnitudes(tensor)
        yield from self._sum(node)
        yield from (why for _, why in self._pole(node))

    # cases 1 and 6

    def _spread(self, tensor: Any) -> Spread | None:
        if tensor.name not in self.spreads:
            if isinstance(self.ranges, Spreads):
                found = self.ranges.spread(tensor.name)
            else:
                bounds = self.ranges.range(tensor.name, self.target.activation)
                found = None if bounds is None else Spread.even(*bounds)
            self.spreads[tensor.name] = found
        return self.spreads[tensor.name]

    def _magnitudes(self, tensor: Any) -> Iterator[str]:
        spread = self._spread(tensor)
        if spread is None or not spread.magnitudes.size:
            yield f"no sample reached {tensor.name}, so its range is unknown"
            return
        peak = float(spread.magnitudes[-1])
        if peak > self.most:
            yield (
                f"{tensor.name} comes to {peak:.3g}: float16 ends at {LARGEST:.0f}, and {self.target.half_headroom:g} "
                "times as much may come as samples showed"
            )
        elif 0 < peak < LEAST:
            yield f"{tensor.name} comes to {peak:.3g} at most: float16 has all its bits from {LEAST:.2g} on"

    # case 2

    def _sum(self, node: gs.Node) -> Iterator[str]:
        if node.op not in _SUMS | _SQUARES:
            return
        before, behind = self.facts.size(node.inputs[0]), self.facts.size(node.outputs[0])
        spread = self._spread(node.inputs[0])
        if not before or not behind or spread is None or not spread.magnitudes.size:
            return
        terms = before if node.op == "CumSum" else before / behind
        size = spread.energy if node.op in _SQUARES else float(spread.magnitudes @ spread.counts / spread.counts.sum())
        if terms * size > self.most:
            yield f"its sum of {terms:.0f} terms comes to {terms * size:.3g} on the way: float16 ends at {LARGEST:.0f}"

    # case 3

    def _pole(self, node: gs.Node) -> Iterator[tuple[Any, str]]:
        slot = _POLES.get(node.op)
        if node.op == "Pow":
            power = self.facts.constant(node.inputs[1])
            slot = 0 if power is not None and power.size and float(np.min(power)) < 0 else None
        if slot is None and not (node.op == "Sqrt" and self._divides(node.outputs[0])):
            return
        tensor = node.inputs[slot or 0]
        spread = None if self.facts.constant(tensor) is not None else self._spread(tensor)
        if spread is None:
            return
        some = spread.magnitudes[spread.magnitudes > 0]
        if some.size and float(some[0]) < LEAST:
            why = f"{tensor.name} comes down to {float(some[0]):.2g}, of which float16 would leave nothing to divide by"
            yield tensor, why

    def _divides(self, tensor: Any) -> bool:
        return any(u.node is not None and _POLES.get(u.node.op) == u.slot for u in self.facts.consumers[tensor.name])

    # case 4

    def _constants(self, node: gs.Node) -> Iterator[str]:
        epsilon = node.attrs.get("epsilon")
        if isinstance(epsilon, float) and _off(epsilon):
            yield f"its epsilon {epsilon:.2g} is {float(np.float16(epsilon)):.2g} in float16"
        for tensor in node.inputs:
            values = self.facts.constant(tensor)
            if values is None or values.dtype != np.float32 or not values.size or tensor.name in self.facts.masks:
                continue
            peak = float(np.max(np.abs(values)))
            if not peak <= LARGEST:
                yield f"its constant {tensor.name} comes to {peak:.3g}: float16 ends at {LARGEST:.0f}"
            elif values.size == 1 and _off(peak):
                yield f"its constant {tensor.name}, {peak:.2g}, is {float(np.float16(peak)):.2g} in float16"

    # case 5

    def _counted(self, cast: gs.Node, out: dict[str, str]) -> None:
        todo, seen = [cast], {cast.name}
        while todo:
            node = todo.pop()
            if node.name not in out:
                out[node.name] = f"what it computes becomes integers: above {EXACT}, float16 has no odd ones"
            for tensor in node.inputs:
                maker = self.facts.producer.get(tensor.name)
                if maker is None or maker.name in seen or not self._float(tensor):
                    continue
                seen.add(maker.name)
                if maker.op in _COUNTS or (maker.op == "Cast" and not self._float(maker.inputs[0])):
                    todo.append(maker)


def _off(value: float) -> bool:
    """Is a number another one in half?"""
    half = float(np.float16(value))
    return bool(value) and not math.isclose(half, value, rel_tol=0.1)


def in_half(plan: Plan, facts: Facts, target: Target, ranges: Ranges) -> Plan:
    """The plan with what stays float32, and a sentence about it."""
    found = singles(facts, target, ranges)
    if not found:
        return plan
    first = "; ".join(f"{name}: {why}" for name, why in list(found.items())[:3])
    note = f"{len(found)} ops compute in float32 in a model of float16: {first}."
    return replace(plan, singles=found, notes=(*plan.notes, note))
