"""From a plan and two profiles to the problem that the cut solves.

A unit is what is placed as one: nodes that ORT fuses into one float kernel (Conv, BatchNormalization, activation;
MatMul, Add), and an activation with the integer op that it vanishes into. Ops in the bodies of If, Loop and Scan that
can have a kind are placed with the node that holds them, all that can be int8 in its bodies included.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.costs import estimate
from onnxq.costs.estimate import Line, fit
from onnxq.encoding import Kind
from onnxq.ir import walk
from onnxq.ir.model import Model
from onnxq.ir.save import runnable
from onnxq.placement.attribute import Attribution
from onnxq.placement.cut import Alternative, Crossing, Kinds, Labels, Problem, Unit, conversions
from onnxq.plan.plan import Plan, Use
from onnxq.runtime.observe import node_runs

_ENDS = (1 << 10, 1 << 20)


@dataclass(kw_only=True)
class Costs:
    """What is known so far, seconds of one run; later profiles overwrite what they saw in their context.

    Attributes:
        floats, integers: node -> its kernels when it is placed in float, in int8.
        kinds: kind -> node -> its kernels when its unit has that kind.
        joined: the same, of units that are int8 where they can.
        quantize, dequantize: tensor -> its conversion.
        quantize_line, dequantize_line: what one costs by its size, where fewer than three are known.
        call: of a run outside of its kernels.
    """

    quantize_line: Line
    dequantize_line: Line
    floats: dict[str, float] = field(default_factory=dict)
    integers: dict[str, float] = field(default_factory=dict)
    kinds: dict[Kind, dict[str, float]] = field(default_factory=dict)
    joined: dict[Kind, dict[str, float]] = field(default_factory=dict)
    quantize: dict[str, float] = field(default_factory=dict)
    dequantize: dict[str, float] = field(default_factory=dict)
    call: float = 0.0

    def scale(self, factor: float) -> None:
        """All by another clock."""
        each = (self.floats, self.integers, self.quantize, self.dequantize, *self.kinds.values(), *self.joined.values())
        for known in each:
            known.update((name, seconds * factor) for name, seconds in known.items())
        self.quantize_line, self.dequantize_line = (
            Line(a=line.a * factor, b=line.b * factor) for line in (self.quantize_line, self.dequantize_line)
        )
        self.call *= factor


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the nodes of a graph form units.

    Attributes:
        members: unit -> its nodes, graph order; units in graph order.
        unit: node -> index of its unit; nodes that are always float have none.
        elements: tensor -> number of elements in the profiled run.
        tensors: those that the full plan quantizes, graph order.
        kinds: by unit, kind -> nodes that can have it, in bodies, too.
        inside: node with bodies -> nodes in them that the full plan puts into int8, where they are placed with it.
    """

    graph: gs.Graph
    full: Plan
    members: tuple[tuple[str, ...], ...]
    unit: Mapping[str, int]
    elements: Mapping[str, int]
    tensors: tuple[str, ...]
    kinds: tuple[Mapping[Kind, tuple[str, ...]], ...] = ()
    inside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def placeable(self, names: Iterable[str]) -> tuple[str, ...]:
        """The nodes that the label of a unit with these nodes decides about."""
        mine = [n for name in names for n in (name, *self.inside.get(name, ()))]
        return tuple(n for n in mine if self.integer(n))

    def joint(self, at: int, kind: Kind) -> bool:
        """Can a unit be int8 and have a kind, each where the other cannot be?"""
        return bool(self.placeable(self.members[at])) and self.beside(at, kind)

    def beside(self, at: int, kind: Kind) -> bool:
        """Can something in a unit have a kind that cannot be int8?"""
        return not all(map(self.integer, self.kinds[at].get(kind, ())))

    def integer(self, node: str) -> bool:
        """Does the full plan put it into an integer kernel?"""
        decision = self.full.decisions.get(node)
        return decision is not None and decision.integer


def elements(model: Model, sample: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    """Elements of every tensor of the main graph on a sample.

    Raises:
        ModelError: ORT cannot load or run the model.
    """
    found = {name: math.prod(array.shape) for name, array in sample.items()}
    with runnable(model) as source:
        runs = node_runs(source, sample)
    for node in model.graph.nodes:
        for run in runs.get(node.name, [])[:1]:
            named = [t.name for t in node.outputs if t.name]
            found.update((t, math.prod(shape)) for t, shape in zip(named, run.outputs, strict=False))
    return found


def layout(
    graph: gs.Graph,
    full: Plan,
    floats: Attribution,
    elements: Mapping[str, int],
    able: Mapping[str, Mapping[Kind, str]] | None = None,
) -> Layout:
    """Find the units.

    Args:
        graph: normalised float graph.
        full: the plan with as much int8 as kernels allow.
        floats: whose time the profile of the float graph is.
        elements: tensor -> number of elements in that profile.
        able: node -> kind -> why it cannot have it, "" if it can.
    """
    holder = {n.name: p[0].rpartition("/")[0] for p, inner in walk.graphs(graph) if p for n in inner.nodes}
    kinds: dict[str, dict[Kind, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name, reasons in (able or {}).items():
        for kind, reason in reasons.items():
            if not reason:
                kinds[holder.get(name, name)][kind].append(name)
    values = {v.tensor for v in full.values if not v.path}
    integer = {n.name for n in graph.nodes if (d := full.decisions.get(n.name)) is not None and d.integer}
    parent = {n.name: n.name for n in graph.nodes}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = name = parent[parent[name]]
        return name

    for node, owner in floats.into.items():
        if owner in parent and node in parent:
            parent[root(node)] = root(owner)
    producer = {t.name: n.name for n in graph.nodes for t in n.outputs}
    for node in graph.nodes:  # what an integer op hands on without a Q between is the same kernel
        for tensor in node.inputs:
            before = producer.get(tensor.name)
            if before is not None and before in integer and node.name in integer and tensor.name not in values:
                parent[root(node.name)] = root(before)
    groups: dict[str, list[str]] = defaultdict(list)
    for node in graph.nodes:
        groups[root(node.name)].append(node.name)
    placed = [names for names in groups.values() if any(n in integer or n in kinds for n in names)]
    inside: dict[str, list[str]] = defaultdict(list)
    for name, outer in holder.items():
        if outer in kinds:
            inside[outer].append(name)
    outputs = [t.name for t in [*graph.inputs, *(t for n in graph.nodes for t in n.outputs)]]
    return Layout(
        graph=graph,
        full=full,
        members=tuple(tuple(names) for names in placed),
        unit={n: i for i, names in enumerate(placed) for n in names},
        elements=elements,
        tensors=tuple(t for t in outputs if t in values),
        kinds=tuple(_merged(kinds[n] for n in names if n in kinds) for names in placed),
        inside={outer: tuple(names) for outer, names in inside.items()},
    )


def _merged(parts: Iterable[Mapping[Kind, Sequence[str]]]) -> dict[Kind, tuple[str, ...]]:
    found: dict[Kind, tuple[str, ...]] = {}
    for part in parts:
        for kind, names in part.items():
            found[kind] = (*found.get(kind, ()), *names)
    return found


def problem(layout: Layout, costs: Costs, noise: Mapping[str, float] | None = None) -> Problem:
    """The costs of every choice.

    Args:
        noise: node -> relative output noise energy of its int8 form.
    """
    noise = noise or {}
    lines = (
        _fit(costs.quantize, layout.elements, costs.quantize_line),
        _fit(costs.dequantize, layout.elements, costs.dequantize_line),
    )
    units = tuple(
        Unit(
            name=names[0],
            float_cost=_sum(costs.floats, names),
            integer_cost=_sum(costs.integers, names),
            noise=_sum(noise, names),
            alternatives=(*_alternatives(costs, names, able), *_joined(layout, costs, at)),
            placeable=bool(layout.placeable(names)),
        )
        for at, (names, able) in enumerate(zip(layout.members, layout.kinds, strict=True))
    )
    fixed = costs.call + sum(seconds for name, seconds in costs.floats.items() if name not in layout.unit)
    return Problem(units=units, crossings=tuple(_crossings(layout, costs, lines)), fixed=fixed)


def share(layout: Layout, costs: Costs, kinds: Kinds) -> float:
    """How much of the float model's time its units with a kind take, 0 to 1; 1 if one of them has bodies, since ORT
    inlines those whose condition it knows, and then their kernels have other names.
    """
    if any(name in layout.inside for ms, kind in zip(layout.members, kinds, strict=True) if kind for name in ms):
        return 1.0
    names = (n for members, kind in zip(layout.members, kinds, strict=True) if kind is not None for n in members)
    return _sum(costs.floats, names) / (sum(costs.floats.values()) or 1.0)


def _alternatives(costs: Costs, names: Sequence[str], able: Iterable[Kind]) -> tuple[Alternative, ...]:
    """Of the kinds that were profiled; one whose kernel was not seen is worth as much as float."""
    plain = _sum(costs.floats, names)
    seen: dict[Kind, float] = {kind: _sum(costs.kinds[kind], names) for kind in able if kind in costs.kinds}
    return tuple(Alternative(kind=kind, cost=seconds or plain) for kind, seconds in seen.items())


def _joined(layout: Layout, costs: Costs, at: int) -> Iterator[Alternative]:
    """To int8 alone; only of what a profile saw so."""
    for kind, seconds in costs.joined.items():
        if layout.joint(at, kind) and (cost := _sum(seconds, layout.members[at])):
            yield Alternative(kind=kind, cost=cost, integer=True)


def line(prices: estimate.Costs, op: str, threads: int) -> Line:
    """What a conversion costs by its size, where no profile says it."""
    few, many = (prices.conversion(op, n, threads=threads).seconds for n in _ENDS)
    slope = max(many - few, 0.0) / (_ENDS[1] - _ENDS[0])
    return Line(a=max(few - slope * _ENDS[0], 0.0), b=slope)


def _crossings(layout: Layout, costs: Costs, lines: tuple[Line, Line]) -> Iterable[Crossing]:
    producer = {t.name: n.name for n in layout.graph.nodes for t in n.outputs}
    readers: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for node in layout.graph.nodes:
        for slot, tensor in enumerate(node.inputs):
            readers[tensor.name].append((node.name, slot))
    results = {t.name for t in layout.graph.outputs}
    for name in layout.tensors:
        made = producer.get(name)
        # what always computes in float reads 8-bit values through a DequantizeLinear
        integer = [(n, slot) for n, slot in readers[name] if n in layout.unit and Use((), n, slot) in layout.full.uses]
        floats = name in results or len(integer) < len(readers[name])
        count = layout.elements.get(name, 0)
        yield Crossing(
            tensor=name,
            producer=layout.unit[made] if made is not None and layout.integer(made) else None,
            readers=tuple(sorted({layout.unit[n] for n, _ in integer})),
            float_readers=floats,
            quantize=costs.quantize.get(name, lines[0](count)),
            dequantize=costs.dequantize.get(name, lines[1](count)),
        )


def settle(layout: Layout, costs: Costs, labels: Labels, kinds: Kinds, seen: Attribution) -> None:
    """Conversions of a form as its profile saw them: one that did not run was fused away and costs nothing; one that
    ran although its tensor stays on one side belongs to the unit there.
    """
    nothing = Line(a=0.0, b=0.0)
    for crossing in _crossings(layout, costs, (nothing, nothing)):
        runs = conversions(crossing, labels)
        for expected, known, ran in zip(
            runs, (costs.quantize, costs.dequantize), (seen.quantize, seen.dequantize), strict=True
        ):
            seconds = ran.get(crossing.tensor, 0.0)
            if expected:
                known[crossing.tensor] = seconds
                continue
            beside = [at for at in (crossing.producer, *crossing.readers) if at is not None]
            unit = next((at for at in beside if labels[at] and kinds[at] is None), None)
            if seconds and unit is not None:
                first = layout.members[unit][0]
                costs.integers[first] = costs.integers.get(first, 0.0) + seconds


def _sum(costs: Mapping[str, float], names: Iterable[str]) -> float:
    return sum(costs.get(name, 0.0) for name in names)


def _fit(measured: Mapping[str, float], elements: Mapping[str, int], default: Line) -> Line:
    """A line through what was measured; the default where three sizes are missing."""
    points = [(elements[t], seconds) for t, seconds in measured.items() if elements.get(t) and seconds > 0]
    if len({count for count, _ in points}) < 3:
        return default
    return fit(points)
