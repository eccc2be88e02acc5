"""Known traps: places where one 8-bit scale ruins a network, told from ranges and distributions, without a search.

All limits are the target's (`Limits`, `Kernel.min_operand_sqnr`). An SQNR here is that of rounding with a step s, whose
error has the energy s^2 / 12 (Widrow and Kollar 2008, "Quantization Noise", chapter 4), of values of energy E[x^2].

1. Joins. An operand of an Add or a Concat that its result's scale swallows: box coordinates beside scores. It makes no
   difference where integer ops with weights are all that read the result: they want it in one scale as it is.
2. Parts. The same seen from behind: what Split, Slice or Gather take out of a tensor with one scale.
3. Exponents. Exp and Softmax make factors of differences: a step s of what they read is a factor of e^s.
4. Bodies. LayerNormalization divides by the deviation of a row, and a caller may look at small values: there, the body
   of the values must survive a scale that a few outliers set.
5. Gain. A weighted op whose input is rounded multiplies that error by its weights: E[error of y] = s^2 / 12 * sum w^2.
   Where weights make up for channels of very different size (depthwise convolutions, folded BatchNorms of channels
   that are nearly dead), the error of the large channels' scale drowns the small channels.
6. Nothing seen. A tensor that was 0 in all samples has no known range.

What makes a tensor in 8 bits stays float then, and in case 5 what reads it, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.encoding import PerChannel
from onnxq.numerics import affine
from onnxq.optable import OP_TABLE, data_slots, weight_granularity
from onnxq.plan.facts import Facts
from onnxq.plan.select import Selection
from onnxq.plan.spread import Spread, Spreads, decibels
from onnxq.targets.target import Target

if TYPE_CHECKING:
    from onnxq.plan.vetoes import Ranges

PARTS = frozenset({"Split", "Slice", "Gather", "GatherElements", "GatherND"})
"""Ops whose results are parts of their first input."""

EXPONENTS = frozenset({"Exp", "Softmax", "LogSoftmax", "ReduceLogSumExp"})
NORMS = frozenset(
    {
        "LayerNormalization",
        "SkipLayerNormalization",
        "SimplifiedLayerNormalization",
        "RMSNormalization",
        "GroupNormalization",
        "InstanceNormalization",
        "LpNormalization",
    }
)
_SCALED = frozenset({"Mul", "Div"})
_SHIFTED = frozenset({"Add", "Sub"})


def parts(facts: Facts, target: Target, chosen: Selection) -> set[str]:
    """The tensors besides `chosen.values` whose spread the rules ask for."""
    if not target.outputs or target.limits.part_sqnr is None:
        return set()
    nodes = (n for n in facts.graph.nodes if n.op in PARTS and n.inputs and n.inputs[0].name in chosen.values)
    return {t.name for n in nodes for t in n.outputs if t.name and facts.is_float(t)}


def trapped(facts: Facts, target: Target, ranges: Ranges, chosen: Selection) -> dict[str, str]:
    """Integer ops of a graph that have to stay float, and why.

    Args:
        ranges: as `onnxq.plan.vetoes.vetoes` takes them; if they are `Spreads`, distributions are looked at.
    """
    return _Traps(facts, target, ranges, chosen).found() if target.outputs else {}


@dataclass(frozen=True)
class _Felt:
    """A float op (None: the caller) that feels the steps of an 8-bit tensor, `factor` times as large."""

    node: gs.Node | None
    factor: float
    alone: bool


class _Traps:
    def __init__(self, facts: Facts, target: Target, ranges: Ranges, chosen: Selection) -> None:
        self.facts, self.target, self.ranges, self.chosen = facts, target, ranges, chosen
        self.limits = target.limits
        self.out: dict[str, str] = {}

    def found(self) -> dict[str, str]:
        for node in self.facts.graph.nodes:
            for tensor in (*node.inputs, *node.outputs):
                self._unseen(node, tensor)
            if node.name not in self.chosen.integer or node.name in self.chosen.absorbed:
                continue
            kernel = self.target.kernels[node.op]
            if kernel.kind == "weighted":
                self._gain(node)
            elif kernel.min_operand_sqnr is not None:
                self._join(node, kernel.min_operand_sqnr)
        for tensor in [t for node in self.facts.graph.nodes for t in node.outputs if t.name in self.chosen.values]:
            self._readers(tensor)
        for node in self.facts.graph.nodes:
            if node.op in PARTS and node.inputs and node.inputs[0].name in self.chosen.values:
                self._parts(node)
        return self.out

    # what is known

    @cached_property
    def makers(self) -> dict[str, tuple[str, str]]:
        """8-bit tensor -> (the op that rounds it, the tensor that it rounds), through all that moves integers."""
        out: dict[str, tuple[str, str]] = {}
        for node in self.facts.graph.nodes:
            if node.name not in self.chosen.integer:
                continue
            kernel = self.target.kernels.get(node.op)
            if kernel is not None and kernel.kind == "movement":
                found = out.get(node.inputs[0].name)
                out.update((t.name, found) for t in node.outputs if found is not None)
            else:
                out.update((t.name, (self.chosen.absorbed.get(node.name, node.name), t.name)) for t in node.outputs)
        return {name: found for name, found in out.items() if name in self.chosen.values}

    def _step(self, tensor: str) -> float | None:
        bounds = self.ranges.range(tensor, self.target.activation)
        return None if bounds is None else float(affine(bounds[0], bounds[1], self.target.activation).scale)

    def _spread(self, tensor: Any) -> Spread | None:
        constant = self.facts.constant(tensor)
        if constant is not None:
            return Spread.of(constant)
        if isinstance(self.ranges, Spreads):
            return self.ranges.spread(tensor.name)
        bounds = self.ranges.range(tensor.name, self.target.activation)
        return None if bounds is None else Spread.even(*bounds)

    def _result(self, node: gs.Node) -> Any:
        """What an integer op gives in 8 bits, behind an activation that vanishes into it."""
        tensor = node.outputs[0]
        after = self.facts.sole_consumer(tensor)
        return after.outputs[0] if after is not None and self.chosen.absorbed.get(after.name) == node.name else tensor

    def _keep(self, name: str, reason: str) -> None:
        self.out.setdefault(name, reason)

    # case 6

    def _unseen(self, node: gs.Node, tensor: Any) -> None:
        if node.name not in self.chosen.integer or tensor.name not in self.chosen.values:
            return
        if self.ranges.range(tensor.name, self.target.activation) == (0.0, 0.0):
            reason = f"{tensor.name} was 0 in all samples, so its range is unknown"
            self._keep(self.chosen.absorbed.get(node.name, node.name), reason)

    # case 1

    def _join(self, node: gs.Node, limit: float) -> None:
        result = self._result(node)
        step = self._step(result.name)
        if step is None or not self._read_otherwise(result):
            return
        for slot in data_slots(node):
            tensor = node.inputs[slot]
            if not tensor.name or (node.op != "Concat" and self.facts.constant(tensor) is not None):
                continue
            spread = self._spread(tensor)
            if spread is None:
                continue
            left = spread.decibels(step)
            if left < limit:
                self._keep(
                    node.name,
                    f"its result has steps of {step:.3g}, of which {tensor.name} with a root mean square of "
                    f"{spread.rms:.3g} would keep {left:.0f} dB, less than {limit:g}",
                )

    def _read_otherwise(self, tensor: Any) -> bool:
        """By anything but integer ops with weights, which round it as it is."""
        todo, seen = [tensor.name], {tensor.name}
        while todo:
            for use in self.facts.consumers.get(todo.pop(), []):
                node = use.node
                if node is None or use.path or node.name not in self.chosen.integer:
                    return True
                kernel = self.target.kernels.get(node.op)
                if kernel is None or kernel.kind == "compute":
                    return True
                if kernel.kind == "movement":
                    new = [t.name for t in node.outputs if t.name not in seen]
                    seen.update(new)
                    todo += new
        return False

    # case 2

    def _parts(self, node: gs.Node) -> None:
        limit, whole = self.limits.part_sqnr, node.inputs[0].name
        made = self.makers.get(whole)
        step = self._step(whole if made is None else made[1])
        if limit is None or step is None or (made is None and node.name not in self.chosen.integer):
            return
        for tensor in node.outputs:
            spread = self._spread(tensor)
            left = math.inf if spread is None else spread.decibels(step)
            if left < limit:
                self._keep(
                    node.name if made is None else made[0],
                    f"{tensor.name}, which {node.op} {node.name} takes out of {whole}, would keep {left:.0f} dB in the "
                    f"scale of the whole, less than {limit:g}",
                )

    # cases 3 and 4

    def _readers(self, tensor: Any) -> None:
        made = self.makers.get(tensor.name)
        step = None if made is None else self._step(made[1])
        if made is None or step is None:
            return
        for felt in self._felt(tensor):
            node, limit = felt.node, self.limits.exponent_step
            if node is not None and node.op in EXPONENTS and limit is not None and step * felt.factor > limit:
                self._keep(
                    made[0],
                    f"in 8 bits its result has steps of {step:.3g}, of which {node.op} {node.name} makes factors of "
                    f"{math.exp(min(step * felt.factor, 99)):.2g}",
                )
            limit = self.limits.body_sqnr
            if limit is None or not felt.alone or (node is not None and node.op not in NORMS):
                continue
            spread = self._spread(tensor)
            left = math.inf if spread is None else spread.body.decibels(step)
            if left < limit:
                who = "the caller" if node is None else f"{node.op} {node.name}"
                self._keep(
                    made[0],
                    f"{who} reads its result {tensor.name}, most of whose values would keep {left:.0f} dB in a scale "
                    f"that a few large ones set, less than {limit:g}",
                )

    def _felt(self, tensor: Any) -> Iterator[_Felt]:
        """Who feels its steps, through float ops that move, scale or shift it."""
        todo, seen = [(tensor, 1.0, True)], {tensor.name}
        while todo:
            one, factor, alone = todo.pop()
            for use in self.facts.consumers.get(one.name, []):
                node = use.node
                if use.path or (node is not None and node.name in self.chosen.integer):
                    continue
                if node is None:
                    yield _Felt(None, factor, alone)
                    continue
                row = OP_TABLE.get(node.op)
                scale = self._scaled(node, use.slot)
                if use.slot == 0 and node.op in EXPONENTS | NORMS:
                    yield _Felt(node, factor, alone)
                elif (row is not None and row.moves is not None and use.slot in data_slots(node)) or scale is not None:
                    still = alone and node.op not in _SHIFTED
                    todo += [(t, factor * (scale or 1.0), still) for t in node.outputs if t.name not in seen]
                    seen.update(t.name for t in node.outputs)

    def _scaled(self, node: gs.Node, slot: int) -> float | None:
        """By how much a float op scales the steps of what it reads; None: it does something else."""
        if node.op in _SHIFTED:
            return 1.0
        if node.op not in _SCALED or slot > 1 or (node.op == "Div" and slot == 1):
            return None
        constant = self.facts.constant(node.inputs[1 - slot])
        if constant is None or constant.size != 1 or not constant.reshape(())[()]:
            return None
        value = abs(float(constant.reshape(())[()]))
        return 1 / value if node.op == "Div" else value

    # case 5

    def _gain(self, node: gs.Node) -> None:
        limit, row = self.limits.gain_sqnr, OP_TABLE[node.op]
        if limit is None or row.weight is None:
            return
        data, result = node.inputs[0], self._result(node)
        weight, spread = self.facts.constant(node.inputs[row.weight]), self._known(result)
        made = self.makers.get(data.name)
        step = self._step(data.name if made is None else made[1])
        if weight is None or not weight.size or step is None or spread is None or not spread.energy:
            return
        granularity = weight_granularity(node, weight.ndim)
        channels = weight.shape[granularity.axis] if isinstance(granularity, PerChannel) else weight.shape[-1]
        gain = float(np.sum(np.square(weight, dtype=np.float64))) / max(channels, 1)
        # about half of the errors fall where an activation that vanishes into the op is flat
        left = decibels(spread.energy, step**2 / 12 * (gain / 2 if result is not node.outputs[0] else gain))
        if left < limit:
            reason = (
                f"its weights make so much of the rounding of {data.name} to steps of {step:.3g} that its result would "
                f"keep {left:.0f} dB, less than {limit:g}"
            )
            self._keep(node.name, reason)
            if made is not None:
                self._keep(made[0], f"{node.op} {node.name} cannot read its result in 8 bits: {reason}")

    def _known(self, tensor: Any) -> Spread | None:
        """Of a tensor that the plan asks the range of, whatever its form: others were not looked at."""
        return self._spread(tensor) if tensor.name in self.chosen.values else None
