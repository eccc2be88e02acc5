"""From a selection and ranges to encodings: the Plan.

Formulas of the integer kernels: acc = sum((qx - zx) * qw) in int32, bias in int32 with scale sx * sw[c], so that
y = acc * sx * sw[c] (Jacob et al. 2018, arXiv 1712.05877, equations 7 and 11).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.encoding import LEVELS, Affine, PerChannel, PerTensor, Scheme
from onnxq.ir import schema
from onnxq.ir.protobuf import paused_gc
from onnxq.ir.walk import clip_bounds
from onnxq.numerics import TINY, affine
from onnxq.optable import HEAVY, OP_TABLE, PER_CHANNEL_OPSET, data_slots, weight_granularity
from onnxq.plan import protect
from onnxq.plan.facts import Facts, Shape, every
from onnxq.plan.gates import with_gates
from onnxq.plan.integers import least_softmax_scale
from onnxq.plan.joins import joined
from onnxq.plan.kinds import with_kinds
from onnxq.plan.plan import Decision, GraphPath, Placement, Plan, Use, Value
from onnxq.plan.select import Selection, select
from onnxq.plan.singles import HALF, in_half
from onnxq.plan.traps import parts
from onnxq.plan.vetoes import Given, Ranges, constant_encoding, vetoes
from onnxq.targets.target import Target

OUTPUT = ""
"""Node name of the use that a graph output is; its slot is the output's index."""


def wanted(graph: gs.Graph, target: Target, shapes: Mapping[str, Shape], keep_float: Sequence[str] = ()) -> list[str]:
    """Activations, those in bodies included, whose range a plan may ask for, graph by graph and in graph order. A
    superset of what the final plan uses."""
    names: dict[str, None] = {}
    with paused_gc():
        chosen_of = list(selections(graph, target, shapes, keep_float, eager=True))
    for facts, chosen in chosen_of:
        order = {t.name: i for i, t in enumerate(facts.graph.inputs)}
        for node in facts.graph.nodes:
            for tensor in node.outputs:
                order.setdefault(tensor.name, len(order))
        names.update(
            dict.fromkeys(
                sorted(chosen.values | parts(facts, target, chosen), key=lambda name: (order.get(name, -1), name))
            )
        )
    names.update(dict.fromkeys(schema.singles(graph) if target.float_type == HALF else ()))
    return list(names)


def selections(
    graph: gs.Graph,
    target: Target,
    shapes: Mapping[str, Shape],
    keep_float: Sequence[str] = (),
    *,
    eager: bool = False,
) -> Iterator[tuple[Facts, Selection]]:
    """What the structure alone says of the main graph and of each body in it, outermost first."""
    done: dict[GraphPath, tuple[Facts, Selection]] = {}
    held: dict[GraphPath, frozenset[str]] = {}
    for facts in every(graph, shapes):
        if facts.path:
            around = facts.path[:-1]
            if around not in held:  # asked once per graph that has bodies: their number must not count
                held[around] = done[around][0].held | made_in_8_bits(done[around][0], target, done[around][1])
            facts.held = held[around]
        done[facts.path] = facts, select(facts, target, keep_float, eager=eager)
        yield done[facts.path]


def made_in_8_bits(facts: Facts, target: Target, chosen: Selection) -> frozenset[str]:
    """The tensors that integer ops of this graph give in 8 bits only."""
    makers = {name: facts.producer.get(name) for name in chosen.values if target.outputs}
    return frozenset(name for name, maker in makers.items() if maker is not None and maker.name in chosen.integer)


def make_plan(
    graph: gs.Graph,
    target: Target,
    ranges: Ranges,
    shapes: Mapping[str, Shape],
    keep_float: Sequence[str] = (),
    placement: Placement | None = None,
) -> Plan:
    """Decide everything, for the main graph and each body in it. Edits nothing; same inputs, same plan."""
    with paused_gc():
        plan = _decide(graph, target, ranges, shapes, keep_float, placement or Placement())
        if placement is not None and placement.channel_multiple:
            plan = replace(plan, channel_multiple=placement.channel_multiple)
        return in_half(plan, Facts(graph, shapes), target, ranges) if target.float_type == HALF else plan


def _decide(
    graph: gs.Graph,
    target: Target,
    ranges: Ranges,
    shapes: Mapping[str, Shape],
    keep_float: Sequence[str],
    placement: Placement,
) -> Plan:
    veto = dict(placement.floats)
    done: dict[GraphPath, _Planner] = {}
    for facts in every(graph, shapes):
        around = done.get(facts.path[:-1]) if facts.path else None
        given = around.given if around is not None else Given()
        facts.held = given.held
        while True:  # each round vetoes at least one more op
            chosen = select(facts, target, keep_float, veto, placement.integer, eager=placement.eager)
            more = vetoes(facts, target, ranges, chosen, given)
            if not more:
                break
            veto.update(more)
        done[facts.path] = _Planner(facts, target, ranges, chosen, keep_float, given)
        done[facts.path].decide()
    plan = with_gates(_joined(target, list(done.values())), graph, ranges)
    return with_kinds(plan, graph, target, placement.kinds, keep_float) if placement.kinds else plan


def _joined(target: Target, parts: Sequence[_Planner]) -> Plan:
    """The plan of all graphs; of a use in a body, what the body says counts more than what the graph around says."""
    values: dict[Value, Affine] = {}
    uses: dict[Use, Affine] = {}
    decisions: dict[str, Decision] = {}
    widened: dict[str, int] = {}
    for part in parts:
        values.update((Value(part.facts.path, tensor), encoding) for tensor, encoding in part.values.items())
        uses.update(part.uses)
        decisions.update(part.decisions())
        widened.update(part.widened)
    notes = [target.note] if target.note else []
    if widened:
        first = ", ".join(list(widened)[:3])
        notes.append(
            f"The weight scales of {sum(widened.values())} channels in {len(widened)} ops were widened, because their "
            f"bias would overflow int32: {first}{' and others' if len(widened) > 3 else ''}."
        )
    return Plan(values=values, uses=uses, decisions=decisions, notes=tuple(notes))


class _Planner:
    """Of one graph."""

    def __init__(
        self,
        facts: Facts,
        target: Target,
        ranges: Ranges,
        chosen: Selection,
        keep_float: Sequence[str],
        given: Given,
    ) -> None:
        self.facts = facts
        self.target = target
        self.ranges = ranges
        self.chosen = chosen
        self.keep_float = keep_float
        self.around = given
        self.values: dict[str, Affine] = {}
        self.uses: dict[Use, Affine] = {}
        self.weights: dict[tuple[int, Scheme], tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
        self.widened: dict[str, int] = {}
        self.bounds = {
            facts.graph_node(activation).outputs[0].name: bounds
            for activation in chosen.absorbed
            if (bounds := self._absorbed_bounds(facts.graph_node(activation))) is not None
        }
        self.least = {  # a float Softmax between DQ and Q becomes an integer one in ONNX Runtime
            n.outputs[0].name: least_softmax_scale(n, facts.shape(n.inputs[0]), facts.graph.opset)
            for n in facts.graph.nodes
            if n.op == "Softmax"
        }

    def decide(self) -> None:
        self._encode_values()
        for node in self.facts.graph.nodes:
            if node.name in self.chosen.integer and node.name not in self.chosen.absorbed:
                self._integer_uses(node)
        for name, slot in self.chosen.residual:
            tensor = self.facts.graph_node(name).inputs[slot]
            self.uses[self._use(name, slot)] = self.values[tensor.name]
        if self.target.outputs:
            self._float_uses()

    @cached_property
    def given(self) -> Given:
        """What bodies in this graph find around them, once it is decided."""
        held = self.around.held | made_in_8_bits(self.facts, self.target, self.chosen)
        return Given(encodings={**self.around.encodings, **self.values}, held=held)

    def _use(self, node: str, slot: int, deeper: GraphPath = ()) -> Use:
        return Use((*self.facts.path, *deeper), node, slot)

    # encodings of activations

    def _encode_values(self) -> None:
        root: dict[str, str] = {}
        for node in self.facts.graph.nodes:
            kernel = self.target.kernels.get(node.op)
            if node.name in self.chosen.integer and kernel is not None and kernel.kind == "movement":
                for tensor in node.outputs:
                    source = str(node.inputs[0].name)
                    root[tensor.name] = root.get(source, source)
        for tensor in sorted(self.chosen.values):
            source = root.get(tensor, tensor)
            if source not in self.values:
                given = self.around.encodings.get(source) if self.facts.captured(source) else None
                self.values[source] = given or self._activation(source)
            self.values[tensor] = self.values[source]
        fixed = {*root, *root.values(), *self.bounds, *self.least}
        self.values.update(joined(self.facts, self.chosen, self.values, fixed))

    def _activation(self, tensor: str) -> Affine:
        bounds = self.ranges.range(tensor, self.target.activation)
        assert bounds is not None, f"{tensor} has no range and was not vetoed"
        low, high = bounds
        inside = self.bounds.get(tensor)
        if inside is not None:
            low, high = max(low, inside[0]), min(high, inside[1])
            low = min(low, high)
        encoding = affine(low, high, self.target.activation)
        least = self.least.get(tensor, 0.0)
        if encoding.scale < least:
            wider = least / float(encoding.scale)
            encoding = affine(low * wider, high * wider, self.target.activation)
        return encoding if inside is None else _within(encoding, inside)

    def _absorbed_bounds(self, activation: gs.Node) -> tuple[float, float] | None:
        return (0.0, float("inf")) if activation.op == "Relu" else clip_bounds(activation)

    # uses by integer ops

    def _integer_uses(self, node: gs.Node) -> None:
        row = OP_TABLE[node.op]
        for slot in data_slots(node):
            tensor = node.inputs[slot]
            if not tensor.name:
                continue
            constant = self.facts.constant(tensor)
            encoding = self.values[tensor.name] if constant is None else constant_encoding(constant, self.target)
            self.uses[self._use(node.name, slot)] = encoding
        if row.weight is None:
            return
        data = self.uses[self._use(node.name, 0)]
        weight = node.inputs[row.weight]
        values = self.facts.constant(weight)
        assert values is not None
        granularity = weight_granularity(node, values.ndim)
        single = isinstance(granularity, PerChannel) and values.shape[granularity.axis] == 1
        if single or self.facts.graph.opset < PER_CHANNEL_OPSET:  # one scale per weight, of rank 0
            granularity = PerTensor()
        scheme = Scheme(
            type=self.target.weight.type,
            symmetric=self.target.weight.symmetric,
            granularity=granularity,
            reduce_range=self.target.weight.reduce_range,
        )
        key = (id(weight), scheme)
        if key not in self.weights:
            self.weights[key] = self.ranges.weight_range(values, scheme)
        encoding = affine(*self.weights[key], scheme)
        bias_use, bias = self._bias(node)
        if bias is not None:
            encoding = self._widen(node, encoding, data, bias, values)
        self.uses[self._use(node.name, row.weight)] = encoding
        if bias_use is not None and bias is not None and self.target.bias == "int32":
            axis = bias.ndim - 1
            scale = (data.scale * encoding.scale).astype(np.float32)
            if scale.ndim == 0:
                kind: PerTensor | PerChannel = PerTensor()
            else:
                kind = PerChannel(axis)
            self.uses[bias_use] = Affine(
                type="int32", granularity=kind, scale=scale, zero_point=np.zeros(scale.shape, dtype=np.int32)
            )

    def _bias(self, node: gs.Node) -> tuple[Use | None, NDArray[Any] | None]:
        """The bias of a weighted op: its own input, or the constant that an Add puts on a MatMul with float output."""
        slot = OP_TABLE[node.op].bias
        if slot is not None:
            if slot < len(node.inputs) and node.inputs[slot].name:
                return self._use(node.name, slot), self.facts.constant(node.inputs[slot])
            return None, None
        if node.op != "MatMul" or node.outputs[0].name in self.values:
            return None, None
        add = self.facts.sole_consumer(node.outputs[0])
        if add is None or add.op != "Add" or add.name in self.chosen.integer or self._kept(add):
            return None, None
        other = 1 if add.inputs[0] is node.outputs[0] else 0
        bias = self.facts.constant(add.inputs[other])
        weight = self.facts.constant(node.inputs[1])
        channels = () if weight is None or weight.ndim < 2 else weight.shape[-1:]
        if bias is None or bias.shape[-1:] != channels or bias.size != np.prod(channels):
            return None, None
        return self._use(add.name, other), bias

    def _kept(self, node: gs.Node) -> bool:
        return "pattern" in self.chosen.reasons.get(node.name, "")

    def _widen(self, node: gs.Node, weight: Affine, data: Affine, bias: NDArray[Any], values: NDArray[Any]) -> Affine:
        """Widen weight scales where bias / (sx * sw) would leave int32.

        The limit leaves room for the products that are added to the bias: K terms of at most 255 * 128.
        ONNX Runtime quantizes a float bias on load with the same scale and wraps silently, so float biases need it,
        too.
        """
        channels = max(weight.scale.size, 1)
        terms = values.size // channels if weight.scale.ndim else values.size // max(bias.size, 1)
        limit = max(LEVELS["int32"][1] - terms * 255 * 128, 2**30)
        magnitude = np.abs(bias.astype(np.float64)).reshape(-1)
        if weight.scale.ndim == 0:
            magnitude = magnitude.max(initial=0.0)
        least = magnitude / (float(data.scale) * limit)
        if np.all(weight.scale >= least):
            return weight
        wide = np.maximum(weight.scale.astype(np.float64), least).astype(np.float32)
        wide = np.where(wide < least, np.nextafter(wide, np.float32(np.inf)), wide).astype(np.float32)
        count = int(np.sum(wide > weight.scale))
        self.widened[node.name] = count
        return Affine(type=weight.type, granularity=weight.granularity, scale=wide, zero_point=weight.zero_point)

    # uses by float ops and graph outputs

    def _float_uses(self) -> None:
        """A tensor made by an integer op exists in 8 bits only: every other use reads its dequantized form."""
        mine = made_in_8_bits(self.facts, self.target, self.chosen)
        for tensor, encoding in self.values.items():
            if tensor not in mine and not (self.facts.captured(tensor) and tensor in self.around.held):
                continue
            for use in self.facts.consumers[tensor]:
                if use.path and use.node is None:
                    continue  # runtimes refuse a body that hands out what stands around it
                key = self._use(use.node.name if use.node is not None else OUTPUT, use.slot, use.path)
                if key not in self.uses:
                    # runtimes push no DQ into a body
                    self.uses[key] = encoding if use.path else self._protected(use.node, use.slot, encoding)

    def _protected(self, node: gs.Node | None, slot: int, encoding: Affine) -> Affine:
        if node is None or node.name in self.chosen.integer:
            return encoding
        safe = protect.form(
            self.facts,
            self.target,
            node,
            slot,
            values=self.values,
            integer=self.chosen.integer,
            encoding=encoding,
        )
        assert isinstance(safe, Affine), "vetoed"
        return safe

    # why

    def decisions(self) -> dict[str, Decision]:
        out: dict[str, Decision] = {}
        for node in self.facts.graph.nodes:
            integer = node.name in self.chosen.integer
            if not integer and not self.facts.declared_float(node):
                continue
            reason = "" if integer else self.chosen.reasons[node.name]
            out[node.name] = Decision(op=node.op, integer=integer, reason=reason, heavy=node.op in HEAVY)
        return out


def _within(encoding: Affine, bounds: tuple[float, float]) -> Affine:
    """Shrink the scale until the real range lies inside the bounds of the activation that is to vanish (by at most
    one step).
    """
    low, high = LEVELS[encoding.type]
    zero = int(encoding.zero_point)
    scale = float(encoding.scale)
    if np.isfinite(bounds[1]) and high > zero:
        scale = min(scale, bounds[1] / (high - zero))
    if np.isfinite(bounds[0]) and zero > low and bounds[0] < 0:
        scale = min(scale, bounds[0] / (low - zero))
    rounded = np.float32(max(scale, TINY))
    ends = np.array([low - zero, high - zero], dtype=np.float32)
    # rounded to float32, the scale or its product with a level may lie beyond the bound by a last bit
    while rounded > TINY and ((ends * rounded)[0] < bounds[0] < 0 or 0 < bounds[1] < (ends * rounded)[1]):
        rounded = np.nextafter(rounded, np.float32(0))
    return Affine(
        type=encoding.type,
        granularity=encoding.granularity,
        scale=np.asarray(rounded, dtype=np.float32),
        zero_point=encoding.zero_point,
    )
