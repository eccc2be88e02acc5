"""Where the time of a placed model goes: its kernel limit, and by what every millisecond above it is lost.

The kernel limit is the sum over the heavy ops (those that multiply and accumulate) of the faster of their kernels, the
rest free. No placement reaches it where anything else is to be done, but what stands between it and the clock has
names: conversions, light ops, heavy ops that are in their slower form for a reason, and what no profile explains.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxq.encoding import Kind
from onnxq.ir.walk import graphs
from onnxq.placement.cut import Kinds, Problem, Unit, conversions
from onnxq.placement.result import Always, Placed, UnitChoice
from onnxq.plan.kinds import SAID
from onnxq.validate.kernels import FAMILIES
from onnxq.validate.result import Account, Cause, Lost

CONVERSIONS, CALL, UNEXPLAINED = "conversions", "the call itself", "not explained by the profile"
_NAMED = 3
_EQUAL = 1e-9


def always(graph: gs.Graph, placed: Container[str], seconds: Sequence[Mapping[str, float]]) -> tuple[Always, ...]:
    """What is float in every form, graph order; a node with heavy ops in its bodies counts as heavy.

    Args:
        placed: names of nodes that are in a unit.
        seconds: node -> its kernels, by number of threads.
    """
    return tuple(
        Always(
            node=n.name, op=str(n.op), seconds=tuple(each.get(n.name, 0.0) for each in seconds), heavy=_heavy_inside(n)
        )
        for n in graph.nodes
        if n.name not in placed and any(n.name in each for each in seconds)
    )


def _heavy_inside(node: gs.Node) -> bool:
    bodies = [b for b in node.attrs.values() if isinstance(b, gs.Graph)]
    return node.op in FAMILIES or any(n.op in FAMILIES for body in bodies for _, g in graphs(body) for n in g.nodes)


def heavy(unit: UnitChoice) -> bool:
    """Does it multiply and accumulate?"""
    return any(op in FAMILIES for op in unit.ops)


def best(unit: Unit) -> float:
    """Seconds of its fastest form; a form whose kernel no profile saw does not count."""
    forms = [unit.float_cost, *([unit.integer_cost] if unit.placeable else []), *(a.cost for a in unit.alternatives)]
    return min((s for s in forms if s > 0), default=0.0)


def kernel_limit(units: Sequence[UnitChoice], costs: Problem, rest: Sequence[Always], threads: int = 0) -> float:
    """Seconds of one run if only heavy ops took any, each in its faster form.

    Args:
        costs: of the units.
        threads: which of the numbers of threads, for `rest`.
    """
    kernels = [best(c) for u, c in zip(units, costs.units, strict=True) if heavy(u)]
    return math.fsum([*kernels, *(a.seconds[threads] for a in rest if a.heavy)])


@dataclass(frozen=True, kw_only=True)
class Run:
    """A form and the clock, for one number of threads; seconds of one run.

    Attributes:
        measured: by the clock, or by a file of costs.
        predicted: by the costs before it ran; NaN: nothing was predicted.
        timed: a clock said so; False: the costs.
    """

    measured: float
    predicted: float = math.nan
    timed: bool = True


def account(
    placed: Placed,
    labels: Sequence[bool],
    run: Run,
    *,
    form: str,
    at: int = 0,
    reasons: Mapping[str, str] | None = None,
    kinds: Kinds = (),
) -> Account:
    """Where the time of one form goes: the limit and all causes add up to what was measured.

    Args:
        labels: of the form, one per unit of `placed`: True is int8.
        form: its name.
        at: which of the numbers of threads, `placed.threads` first.
        reasons: node -> why it is float.
        kinds: of the form, one per unit; (): none.
    """
    kinds = kinds or (None,) * len(placed.units)
    costs = (placed.problem, *placed.beyond)[at]
    lost = tuple(
        sorted(_lost(placed, costs, labels, kinds, at, reasons or {}), key=lambda one: (-one.ms, one.cause, one.name))
    )
    # a heavy kernel that no profile saw in the form that was taken cannot be in its limit
    each = zip(placed.units, costs.units, labels, kinds, strict=True)
    spent = [(_cost(c, integer, kind), best(c)) for u, c, integer, kind in each if heavy(u)]
    limit = math.fsum([*(min(pair) for pair in spent), *(a.seconds[at] for a in placed.always if a.heavy)]) * 1e3
    causes = _causes(lost)
    rest = math.fsum([run.measured * 1e3, -limit, *(-c.ms for c in causes)])
    return Account(
        form=form,
        threads=(placed.threads, *placed.others)[at],
        timed=placed.timed and run.timed,
        limit_ms=limit,
        measured_ms=run.measured * 1e3,
        predicted_ms=None if math.isnan(run.predicted) else run.predicted * 1e3,
        profiled_ms=math.fsum([limit, *(c.ms for c in causes)]),
        causes=(*causes, Cause(name=UNEXPLAINED, ms=rest)),
        lost=lost,
    )


def _cost(unit: Unit, integer: bool, kind: Kind | None) -> float:
    return unit.form(integer, kind)[0]


def _lost(
    placed: Placed, costs: Problem, labels: Sequence[bool], kinds: Kinds, at: int, reasons: Mapping[str, str]
) -> Iterator[Lost]:
    """Everything that takes time and is not in the limit."""
    yield from _conversions(costs, labels)
    forms = zip(placed.units, costs.units, labels, kinds, strict=True)
    for index, (unit, each, integer, kind) in enumerate(forms):
        cost, op = _cost(each, integer, kind), _main(unit)
        form = "int8" if integer else "float" if kind is None else SAID[kind]
        over = max(cost - best(each), 0.0) if heavy(unit) else cost
        if over > 0:
            cause = f"{op} in {form}, its slower form" if heavy(unit) else f"{form} {op}"
            if not integer:
                why = next((reasons[n] for n in unit.placeable if reasons.get(n)), unit.why)
            else:
                why = _why_integer(placed, costs, labels, kinds, index) if heavy(unit) else ""
            yield Lost(cause=cause, name=unit.nodes[0], op=op, ms=over * 1e3, why=why)
    for node in placed.always:
        if not node.heavy and node.seconds[at] > 0:
            why = reasons.get(node.node, "")
            yield Lost(cause=f"float {node.op}", name=node.node, op=node.op, ms=node.seconds[at] * 1e3, why=why)
    call = placed.calls[at] if placed.calls else 0.0
    if call > 0:
        yield Lost(cause=CALL, name="", op="", ms=call * 1e3)
    unknown = costs.fixed - math.fsum([call, *(a.seconds[at] for a in placed.always)])
    if unknown > _EQUAL * costs.fixed:  # what a profile saw and the graph has not
        yield Lost(cause="float operators without a name", name="", op="", ms=unknown * 1e3)


def _conversions(costs: Problem, labels: Sequence[bool]) -> Iterator[Lost]:
    for crossing in costs.crossings:
        quantizes, dequantizes = conversions(crossing, labels)
        for op, seconds, runs in (
            ("QuantizeLinear", crossing.quantize, quantizes),
            ("DequantizeLinear", crossing.dequantize, dequantizes),
        ):
            if runs and seconds > 0:
                yield Lost(cause=CONVERSIONS, name=crossing.tensor, op=op, ms=seconds * 1e3)


def _main(unit: UnitChoice) -> str:
    """Type of the op that its kernel is named after: the heavy one, else the first that has an integer kernel."""
    placeable = [op for name, op in zip(unit.nodes, unit.ops, strict=True) if name in unit.placeable]
    return next((op for op in unit.ops if op in FAMILIES), (placeable or list(unit.ops))[0])


def _why_integer(placed: Placed, costs: Problem, labels: Sequence[bool], kinds: Kinds, index: int) -> str:
    """Why a heavy op is int8 although its kernel is slower so."""
    flipped = [label != (i == index) for i, label in enumerate(labels)]
    if costs.cost(flipped, kinds) >= costs.cost(labels, kinds):
        return "conversions around it would cost more"
    if placed.others and placed.choice.cost(flipped, kinds) >= placed.choice.cost(labels, kinds):
        return "it pays over all numbers of threads"
    return "by cost it would be float; the forms in which it is were not faster in the race, or not better"


def _causes(lost: Sequence[Lost]) -> tuple[Cause, ...]:
    """The same in sums, the largest parts named; the largest sum first."""
    groups: dict[str, list[Lost]] = defaultdict(list)
    for one in lost:  # the largest first
        groups[one.cause].append(one)
    found = [
        Cause(
            name=name,
            ms=math.fsum(one.ms for one in parts),
            parts=len(parts),
            largest=tuple(dict.fromkeys(one.name for one in parts if one.name))[:_NAMED],
        )
        for name, parts in groups.items()
    ]
    return tuple(sorted(found, key=lambda c: (-c.ms, c.name)))
