"""From labels and kinds of units to a placement, and to what a report says of each unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx_graphsurgeon as gs

from onnxq.encoding import Kind
from onnxq.ir import walk
from onnxq.placement.cut import Kinds, Labels, Problem, conversions
from onnxq.placement.result import UnitChoice
from onnxq.placement.units import Costs, Layout
from onnxq.plan.kinds import SAID
from onnxq.plan.plan import MEASURED, Placement


def placement_of(layout: Layout, labels: Labels, kinds: Kinds, why: Callable[[int], str]) -> Placement:
    """What the planner is told.

    Args:
        why: unit -> why it is not int8.
    """
    integer: set[str] = set()
    floats: dict[str, str] = {}
    between: dict[str, Kind] = {}
    for at, (names, label, kind) in enumerate(zip(layout.members, labels, kinds, strict=True)):
        mine = layout.placeable(names)
        if kind is not None:
            between.update((n, kind) for n in layout.kinds[at][kind] if not (label and layout.integer(n)))
        if label:
            integer.update(mine)
        else:
            floats.update(dict.fromkeys(mine, why(at) if mine else ""))
    return Placement(integer=frozenset(integer), floats=floats, kinds=between)


def why_not_int8(
    names: Sequence[str], *, costs: Sequence[Costs], counts: Sequence[int], weights: Sequence[float], placeable: bool
) -> str:
    """Why a unit is not int8, in milliseconds.

    Args:
        names: its nodes.
        costs: by number of threads.
        counts: numbers of threads.
        weights: of the costs.
        placeable: it can be int8.
    """
    pairs = [[1e3 * sum(known.get(n, 0.0) for n in names) for known in (c.floats, c.integers)] for c in costs]
    said = []
    for at, (count, (fast, slow), known) in enumerate(zip(counts, pairs, costs, strict=True)):
        parts = [f"{fast:.3f} ms in float", *([f"{slow:.3f} ms in int8"] if placeable else [])]
        for kind, seconds in sorted(known.kinds.items()):
            if mine := sum(seconds.get(n, 0.0) for n in names):
                parts.append(f"{1e3 * mine:.3f} ms with {SAID[kind]}")
        said.append(f"{', '.join(parts)}{'' if at == 0 else f' with {count} threads'}")
    slower = not placeable or sum(w * (slow - fast) for w, (fast, slow) in zip(weights, pairs, strict=True)) >= 0
    return f"{MEASURED}: {', '.join(said)}{'' if slower else ', less than the conversions around it cost'}"


def unit_choices(
    graph: gs.Graph, layout: Layout, costs: Problem, labels: Labels, kinds: Kinds, why: Callable[[int], str]
) -> list[UnitChoice]:
    """What became of each unit.

    Args:
        graph: that the layout is of.
        costs: by which seconds are told.
        why: unit -> why it is not int8.
    """
    ops = {n.name: str(n.op) for _, inner in walk.graphs(graph) for n in inner.nodes}
    beside = _beside(costs, labels)
    found = []
    for at, (names, unit) in enumerate(zip(layout.members, costs.units, strict=True)):
        able: Mapping[Kind, tuple[str, ...]] = layout.kinds[at]
        carried = [n for name in names for n in layout.inside.get(name, ())]
        nodes = tuple(dict.fromkeys([*names, *(n for n in carried if n in ops)]))
        found.append(
            UnitChoice(
                nodes=nodes,
                ops=tuple(ops[n] for n in nodes),
                placeable=layout.placeable(names),
                integer=labels[at],
                float_seconds=unit.float_cost,
                integer_seconds=unit.integer_cost,
                conversion_seconds=beside[at],
                why="" if labels[at] else why(at),
                kind=kinds[at],
                able=able,
            )
        )
    return found


def _beside(costs: Problem, labels: Labels) -> list[float]:
    """By unit: what the conversions beside it cost, or would cost if it alone changed sides."""
    beside: list[float] = [0.0] * len(labels)
    for crossing in costs.crossings:
        ends = {*crossing.readers, *([] if crossing.producer is None else [crossing.producer])}
        for index in ends:
            now = conversions(crossing, labels)
            flipped = [label != (i == index) for i, label in enumerate(labels)]
            other = conversions(crossing, flipped)
            change = crossing.quantize * (other[0] - now[0]) + crossing.dequantize * (other[1] - now[1])
            beside[index] += -change if labels[index] else change
    return beside
