"""Which ops run in int8, by what they cost on this machine.

The float model and the model with as much int8 as kernels allow are profiled, which gives nearly all costs in context;
the cheapest assignment is a minimum cut. The placed model is profiled in turn, since in its company some costs are
others (layout conversions, fusions), and cut again until the assignment stays. In the end all that was made runs
against the float model, in turns, and the fastest is taken.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.config.placing import Placing
from onnxq.costs.files import open_costs, remember
from onnxq.costs.observe import observe, price
from onnxq.costs.table import CostTable
from onnxq.errors import OutputError
from onnxq.ir.model import Model
from onnxq.ir.save import runnable
from onnxq.placement.attribute import Attribution, attribute
from onnxq.placement.cut import Labels, Problem, cheapest, conversions
from onnxq.placement.race import Timing, configuration, race
from onnxq.placement.result import FLOAT, FULL, ORIGINAL, PAYS, Form, Placed, UnitChoice
from onnxq.placement.search import flips
from onnxq.placement.units import Costs, Line, layout, problem
from onnxq.plan.plan import MEASURED, Placement, Plan
from onnxq.runtime.observe import node_runs
from onnxq.runtime.profile import profile
from onnxq.runtime.session import Session

Inputs = Mapping[str, NDArray[Any]]

OFF = 0.1
"""Share by which a prediction may miss before the report says so."""

_SAID = 0.005
_DUEL_SECONDS = 0.5
_WON = 1.005
_ENDS = (1 << 10, 1 << 20)


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is measured.

    Attributes:
        rounds: placed models that are profiled at most.
        profile_seconds: aimed at for one profile.
        race_seconds: aimed at for the race at the end.
        search_seconds: at most, for flipping regions where costs and clock disagree.
    """

    rounds: int
    profile_seconds: float
    race_seconds: float
    search_seconds: float


EFFORTS = {
    "fast": Effort(rounds=1, profile_seconds=0.3, race_seconds=1.0, search_seconds=0.0),
    "default": Effort(rounds=3, profile_seconds=0.8, race_seconds=3.0, search_seconds=10.0),
    "max": Effort(rounds=6, profile_seconds=3.0, race_seconds=10.0, search_seconds=60.0),
}


def place(
    model: Model,
    full: Plan,
    *,
    replan: Callable[[Placement], Plan],
    insert: Callable[[Plan], Model],
    samples: Sequence[Inputs],
    placing: Placing,
    original: Path | None = None,
) -> Placed:
    """Choose.

    Args:
        model: normalised float model.
        full: the plan with as much int8 as kernels allow.
        replan: the plan under a placement.
        insert: the model with the Q/DQ of a plan; `model` stays as it is.
        samples: inputs to run with, one at least.
        original: the file that the user gave, which speed is measured against.

    Raises:
        ModelError: ORT cannot load or run a form.
    """
    return _Place(model, full, replan, insert, samples, placing, original).run()


@dataclass(frozen=True)
class _Made:
    name: str
    plan: Plan
    labels: Labels
    predicted: float
    session: Session | None


class _Place:
    def __init__(
        self,
        model: Model,
        full: Plan,
        replan: Callable[[Placement], Plan],
        insert: Callable[[Plan], Model],
        samples: Sequence[Inputs],
        placing: Placing,
        original: Path | None,
    ) -> None:
        self.model, self.full, self.replan, self.insert = model, full, replan, insert
        self.samples, self.threads, self.effort = samples, placing.threads, EFFORTS[placing.effort]
        self.elsewhere = placing.costs is not None
        self.original = None if self.elsewhere else original
        self.prices, self.notes = open_costs(placing.costs)
        if not self.elsewhere:
            self.notes = ()  # what is missing in a file is measured
        self.unknown = 0.0
        self.tables: list[CostTable] = []
        self.costs = Costs(quantize_line=self._line("QuantizeLinear"), dequantize_line=self._line("DequantizeLinear"))
        self.made: list[_Made] = []
        self.seconds: list[float] = []  # by form, as profiled

    def run(self) -> Placed:
        floats = self._profile(self.model)
        self.layout = layout(self.model.graph, self.full, floats, self._elements())
        self.costs.floats.update(floats.nodes)
        self._add(FLOAT, self.replan(self._placement((False,) * len(self.layout.members))), math.nan, self.model)
        everything = (True,) * len(self.layout.members)
        self._learn(everything, self._add(FULL, self.full, math.nan, labels=everything))
        for number in range(1, self.effort.rounds + 1):
            costs = problem(self.layout, self.costs)
            labels = cheapest(costs)
            plan = self.replan(self._placement(labels))
            if plan.key in {m.plan.key for m in self.made}:
                break
            self._learn(labels, self._add(f"placed {number}", plan, costs.cost(labels), labels=labels))
        self._remember()
        if not self.elsewhere and self.effort.search_seconds:
            self._search()
        return self._outcome()

    def _search(self) -> None:
        """Where the clock says otherwise than the costs: flip a region, measure, keep it or take it back."""
        timings = self._timings()[-len(self.made) :]
        at = max(range(len(timings)), key=lambda i: (timings[i].ratio, -i))
        best, seconds = self.made[at], timings[at].seconds
        if math.isnan(best.predicted) or abs(best.predicted / seconds - 1) <= OFF:
            return
        costs, deadline = problem(self.layout, self.costs), time.monotonic() + self.effort.search_seconds
        tried, number, fresh = {m.plan.key for m in self.made}, 0, True
        while fresh:
            fresh = False
            for labels in flips(costs, best.labels):
                if time.monotonic() > deadline:
                    return
                plan = self.replan(self._placement(labels))
                if plan.key in tried:
                    continue
                tried.add(plan.key)
                self._add(f"searched {number + 1}", plan, costs.cost(labels), labels=labels)
                if self._wins(self.made[-1], best):
                    best, number, fresh = self.made[-1], number + 1, True
                    break
                self.made.pop()

    def _wins(self, one: _Made, other: _Made) -> bool:
        sessions = [s for s in (other.session, one.session) if s is not None]
        duel = race(sessions, self.samples, threads=self.threads, budget_seconds=_DUEL_SECONDS)[1]
        return duel.ratio > _WON and duel.low > 1.0

    def _remember(self) -> None:
        """Keep what was measured for other models; a folder that cannot be written is no fault of this model."""
        if self.tables:
            with contextlib.suppress(OutputError):
                remember(functools.reduce(lambda a, b: a.merge(b), self.tables))

    def _line(self, op: str) -> Line:
        """What a conversion costs by its size, where no profile says it."""
        few, many = (self.prices.conversion(op, n, threads=self.threads).seconds for n in _ENDS)
        slope = max(many - few, 0.0) / (_ENDS[1] - _ENDS[0])
        return Line(max(few - slope * _ENDS[0], 0.0), slope)

    def _add(
        self, name: str, plan: Plan, predicted: float, model: Model | None = None, labels: Labels | None = None
    ) -> Model:
        made = model if model is not None else self.insert(plan)
        session = None
        if not self.elsewhere:
            with runnable(made) as source:
                session = Session(source, threads=self.threads, config=configuration(self.threads))
        labels = labels if labels is not None else (False,) * len(self.layout.members)
        self.made.append(_Made(name, plan, labels, predicted, session))
        return made

    def _learn(self, labels: Labels, made: Model) -> None:
        """Costs as they are in this company."""
        seen = self._profile(made)
        for names, integer in zip(self.layout.members, labels, strict=True):
            known = self.costs.integers if integer else self.costs.floats
            known.update((name, seen.nodes.get(name, 0.0)) for name in names)
        self.costs.floats.update((n, s) for n, s in seen.nodes.items() if n not in self.layout.unit)
        self.costs.quantize.update(seen.quantize)
        self.costs.dequantize.update(seen.dequantize)

    def _profile(self, model: Model) -> Attribution:
        with runnable(model) as source:
            runs = 1
            if not self.elsewhere:
                session = Session(source, threads=self.threads, config=configuration(self.threads))
                once = race([session], self.samples, threads=self.threads, budget_seconds=0.0)[0].seconds
                del session
                runs = min(max(int(self.effort.profile_seconds / (2 * max(once, 1e-6))), 5), 200)
            seen = profile(source, self.samples, threads=self.threads, runs=runs)
        if self.elsewhere:
            priced = price(seen, self.prices, threads=self.threads)
            seen, self.unknown = priced.profile, max(self.unknown, 1.0 - priced.share)
        else:
            self.tables.append(observe(seen, threads=self.threads))
        self.seconds.append(seen.seconds)
        return attribute(seen, model.graph)

    def _elements(self) -> dict[str, int]:
        """Elements of every tensor of the main graph on the first sample."""
        found = {name: math.prod(array.shape) for name, array in self.samples[0].items()}
        with runnable(self.model) as source:
            runs = node_runs(source, self.samples[0])
        for node in self.model.graph.nodes:
            for run in runs.get(node.name, [])[:1]:
                named = [t.name for t in node.outputs if t.name]
                found.update((t, math.prod(shape)) for t, shape in zip(named, run.outputs, strict=False))
        return found

    def _placement(self, labels: Labels) -> Placement:
        integer: set[str] = set()
        floats: dict[str, str] = {}
        for names, label in zip(self.layout.members, labels, strict=True):
            mine = [n for n in names if self.layout.integer(n)]
            if label:
                integer.update(mine)
            else:
                why = self._why(names)
                floats.update((n, why) for n in mine)
        return Placement(integer=frozenset(integer), floats=floats)

    def _why(self, names: Sequence[str]) -> str:
        """Why a unit is float, in milliseconds."""
        fast = sum(self.costs.floats.get(n, 0.0) for n in names) * 1e3
        slow = sum(self.costs.integers.get(n, 0.0) for n in names) * 1e3
        if slow >= fast:
            return f"{MEASURED}: {fast:.3f} ms in float, {slow:.3f} ms in int8"
        return f"{MEASURED}: {fast:.3f} ms in float, {slow:.3f} ms in int8, less than the conversions around it cost"

    def _timings(self) -> list[Timing]:
        if self.elsewhere:
            ratios = [self.seconds[0] / s for s in self.seconds]
            return [Timing(seconds=s, ratio=r, low=r, high=r) for s, r in zip(self.seconds, ratios, strict=True)]
        sessions = [m.session for m in self.made if m.session is not None]
        if self.original is not None:
            sessions.insert(0, Session(self.original, threads=self.threads, config=configuration(self.threads)))
        return race(sessions, self.samples, threads=self.threads, budget_seconds=self.effort.race_seconds)

    def _outcome(self) -> Placed:
        timings = self._timings()
        before = [Form(name=ORIGINAL, integer_units=0, predicted=math.nan, timing=timings[0])]
        forms = [
            Form(name=m.name, integer_units=sum(m.labels), predicted=m.predicted, timing=t)
            for m, t in zip(self.made, timings[-len(self.made) :], strict=True)
        ]
        best = max(range(1, len(forms)), key=lambda i: (forms[i].timing.ratio, -i))
        if forms[best].timing.ratio < PAYS * forms[0].timing.ratio:
            best = 0
        chosen, costs = self.made[best], problem(self.layout, self.costs)
        placement = self._placement(chosen.labels)
        if best == 0:  # then bodies of If, Loop and Scan, which are not placed, are not worth it either
            rest = [n for n, d in self.full.decisions.items() if d.integer and n not in self.layout.unit]
            why = f"{MEASURED}: no form of this model with int8 is faster than float"
            placement = dataclasses.replace(placement, floats={**placement.floats, **dict.fromkeys(rest, why)})
        return Placed(
            placement=placement,
            chosen=chosen.name,
            forms=(*before[: len(timings) - len(forms)], *forms),
            units=tuple(self._choices(costs, chosen.labels)),
            problem=costs,
            limit=costs.fixed + sum(min(u.float_cost, u.integer_cost) for u in costs.units),
            threads=self.threads,
            notes=(*self.notes, *_notes(forms, forms[best], self.unknown if self.elsewhere else None)),
        )

    def _choices(self, costs: Problem, labels: Labels) -> list[UnitChoice]:
        nodes = {n.name: n for n in self.model.graph.nodes}
        beside: list[float] = [0.0] * len(labels)
        for crossing in costs.crossings:
            ends = {*crossing.readers, *([] if crossing.producer is None else [crossing.producer])}
            for index in ends:
                now = conversions(crossing, labels)
                flipped = [label != (i == index) for i, label in enumerate(labels)]
                other = conversions(crossing, flipped)
                change = crossing.quantize * (other[0] - now[0]) + crossing.dequantize * (other[1] - now[1])
                beside[index] += -change if labels[index] else change
        return [
            UnitChoice(
                nodes=names,
                ops=tuple(_type(nodes[n]) for n in names),
                placeable=tuple(n for n in names if self.layout.integer(n)),
                integer=label,
                float_seconds=unit.float_cost,
                integer_seconds=unit.integer_cost,
                conversion_seconds=cost,
                why="" if label else self._why(names),
            )
            for names, label, unit, cost in zip(self.layout.members, labels, costs.units, beside, strict=True)
        ]


def _type(node: gs.Node) -> str:
    return str(node.op)


def _notes(forms: Sequence[Form], chosen: Form, unknown: float | None) -> list[str]:
    said = ", ".join(f"{f.name} {f.timing.seconds * 1e3:.3f} ms" for f in forms)
    if unknown is not None:
        share = f" ({unknown * 100:.0f} % of the time is estimated)" if unknown >= _SAID else ""
        return [f"Placement by the cost file chose {chosen.name}: {said}{share}; nothing was timed here."]
    notes = [f"Placement by measured cost chose {chosen.name}: {said}."]
    if not math.isnan(chosen.predicted) and abs(chosen.predicted / chosen.timing.seconds - 1) > OFF:
        notes.append(
            f"The costs predicted {chosen.predicted * 1e3:.3f} ms for it, over {OFF * 100:.0f} % from what was "
            "measured: read the costs of the units with care."
        )
    return notes
