"""Which ops run in int8, by what they cost on this machine.

The float model and the model with as much int8 as kernels allow are profiled, which gives nearly all costs in context;
the cheapest assignment is a minimum cut. The placed model is profiled in turn, since in its company some costs are
others (layout conversions, fusions), and cut again until the assignment stays. In the end all that was made runs
against the float model, in turns, and the fastest is taken.

Where ops can compute with integers between float borders (`onnxq.plan.kinds`), one more form per kind, which has it
everywhere, is profiled; then the float side of each unit is its cheapest kind.

In the end the best form is tried once more with the channels of its float convolutions filled up with zeros to whole
blocks of ORT's layout (`pad-channels`).

Unless the number of threads is given, all this is done with one thread and with all: the cut is made by the mean of
both costs, each relative to the float model's, and a form that is slower than float with either is not taken.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from onnxq.config.placing import Placing
from onnxq.costs.files import open_costs
from onnxq.costs.observe import Priced, price
from onnxq.encoding import Kind
from onnxq.ir.model import Model
from onnxq.ir.save import runnable, weight_bytes
from onnxq.placement.account import always, kernel_limit
from onnxq.placement.attribute import attribute
from onnxq.placement.choices import placement_of, unit_choices, why_not_int8
from onnxq.placement.clock import Clock, Seen, Sessions
from onnxq.placement.cut import Kinds, Labels, Problem, cheapest, combined
from onnxq.placement.effort import EFFORTS, counts
from onnxq.placement.made import Made
from onnxq.placement.race import Timing
from onnxq.placement.result import FLOAT, FULL, ORIGINAL, PAYS, Form, Placed, best
from onnxq.placement.search import flips
from onnxq.placement.told import OFF, counted, told
from onnxq.placement.units import Costs, elements, layout, line, problem, settle, share
from onnxq.plan.kinds import SAID
from onnxq.plan.plan import MEASURED, Placement, Plan
from onnxq.runtime.profile import profile
from onnxq.targets.hardware import detect

Inputs = Mapping[str, NDArray[Any]]


class Placer:
    """The forms of a model, what they cost and how they run.

    Args:
        model: normalised float model.
        full: the plan with as much int8 as kernels allow.
        replan: the plan under a placement.
        insert: the model with the Q/DQ of a plan; `model` stays as it is.
        samples: inputs to run with, one at least.
        original: the file that the user gave, which speed is measured against.
        able: node -> kind -> why it cannot have it, "" if it can.
    """

    def __init__(
        self,
        model: Model,
        full: Plan,
        *,
        replan: Callable[[Placement], Plan],
        insert: Callable[[Plan], Model],
        samples: Sequence[Inputs],
        placing: Placing,
        original: Path | None = None,
        able: Mapping[str, Mapping[Kind, str]] | None = None,
    ) -> None:
        self.model, self.full, self.replan, self.insert = model, full, replan, insert
        self.samples, self.effort, self.able = samples, EFFORTS[placing.effort], able or {}
        self.elsewhere = placing.costs is not None
        self.counts = counts(model, placing)
        self.original = None if self.elsewhere else original
        self.prices, self.notes = open_costs(placing.costs)
        if not self.elsewhere:
            self.notes = ()  # what is missing in a file is measured
        self.unknown = 0.0
        self.clock = Clock(self.counts, samples, self.effort)
        self.costs = [
            Costs(
                quantize_line=line(self.prices, "QuantizeLinear", n),
                dequantize_line=line(self.prices, "DequantizeLinear", n),
            )
            for n in self.counts
        ]
        self.weights: tuple[float, ...] = (1.0,)
        self.made: list[Made] = []
        self.seen: dict[str, list[Seen]] = {}  # by form
        self.priced: list[Priced] = []  # by form, where nothing is timed
        self.forms: list[Form] = []  # that raced

    def run(self) -> Placed:
        """Choose.

        Raises:
            ModelError: ORT cannot load or run a form.
        """
        sessions = self._sessions(self.model)
        seen = self._profiles(self.model, sessions)
        floats = [one.attribution for one in seen]
        totals = [max(sum(each.nodes.values()), 1e-9) for each in floats]
        self.weights = tuple(totals[0] / (seconds * len(totals)) for seconds in totals)
        self.layout = layout(self.model.graph, self.full, floats[0], elements(self.model, self.samples[0]), self.able)
        for costs, each in zip(self.costs, floats, strict=True):
            costs.floats.update(each.nodes)
            costs.call = each.call
        nothing: Labels = (False,) * len(self.layout.members)
        plain: Kinds = (None,) * len(nothing)
        everything = tuple(bool(self.layout.placeable(names)) for names in self.layout.members)
        unknown = (math.nan,) * len(self.counts)
        plan, size = self.replan(self._placement(nothing, plain)), weight_bytes(self.model)
        self.made = [Made(FLOAT, plan, nothing, plain, unknown, sessions, size)]
        self.seen[FLOAT] = seen
        add = functools.partial(self._add, predicted=unknown, learn=True)
        add(FULL, self.full, everything, plain)
        for kind in self.effort.tried(any(everything)):
            kinds: Kinds = tuple(kind if kind in mine else None for mine in self.layout.kinds)
            plan = self.replan(self._placement(nothing, kinds))
            if not plan.kinds or share(self.layout, self.costs[0], kinds) < PAYS - 1:
                continue  # it could not win by as much as a form must
            if strange := self._strange(plan):
                self.notes += (f"{SAID[kind]} was not tried: nothing is known of what {strange} costs there.",)
                continue
            add(f"all {SAID[kind]}", plan, nothing, kinds)
            rest: Kinds = tuple(kind if self.layout.beside(at, kind) else None for at in range(len(nothing)))
            if any(rest) and any(everything):
                add(f"all int8, {SAID[kind]}", self.replan(self._placement(everything, rest)), everything, rest)
        for made in self.made if self._refresh() else ():
            self._learn(made)
        for number in range(1, self.effort.rounds + 1):
            if not self._cut(f"placed {number}", self._choice()):
                break
        if len(self.counts) > 1 and self.effort.rounds > 1:
            for count, alone in zip(self.counts, self._problems(), strict=True):
                self._cut(f"for {counted(count)}", alone)
        timings = self._timings()
        if not self.elsewhere:
            forms = self._forms(timings)
            found = self.made[at := best(forms)]
            if self.effort.search_seconds:
                found = self._search(found, forms[at], self._drift(timings))
            self._fill(found)
        self.clock.remember()
        return self._outcome(timings if len(self.made) == len(timings[0]) - bool(self.original) else self._timings())

    def _refresh(self) -> bool:
        """Profile once more what was profiled while the machine was disturbed; False: nothing was."""
        stale = [made for made in self.made if made.name in self.seen and self.clock.stale(self.seen[made.name])]
        for made in stale:
            self.seen[made.name] = self.clock.profiles(self._model(made), made.sessions, self.seen[made.name])
        return bool(stale)

    def _model(self, made: Made) -> Model:
        return self.model if made.name == FLOAT else self.insert(made.plan)

    def _cut(self, name: str, costs: Problem) -> bool:
        """The cheapest form by these costs, profiled; False: it has been made before."""
        labels = cheapest(costs)
        kinds = costs.kinds(labels)
        plan = self.replan(self._placement(labels, kinds))
        if plan.key in {m.plan.key for m in self.made}:
            return False
        self._add(name, plan, labels, kinds, learn=True)
        return True

    def _problems(self) -> list[Problem]:
        """By number of threads."""
        return [problem(self.layout, costs) for costs in self.costs]

    def _choice(self) -> Problem:
        return combined(self._problems(), self.weights)

    def _search(self, found: Made, form: Form, drift: Sequence[float]) -> Made:
        """Where the clock says otherwise than the costs: flip a region, measure, keep it or take it back."""
        self._learn(found)  # what others changed
        now = [costs.cost(found.labels, found.kinds) for costs in self._problems()]  # where nothing was predicted
        expected = [d * (n if math.isnan(p) else p) for d, p, n in zip(drift, found.predicted, now, strict=True)]
        if max(abs(p / t.seconds - 1) for p, t in zip(expected, form.timings, strict=True)) <= OFF:
            return found
        costs, deadline = self._choice(), time.monotonic() + self.effort.search_seconds
        tried, number, fresh = {m.plan.key for m in self.made}, 0, True
        while fresh:
            fresh = False
            for labels in flips(costs, found.labels):
                if time.monotonic() > deadline:
                    return found
                kinds = costs.kinds(labels)
                plan = self.replan(self._placement(labels, kinds))
                if plan.key in tried:
                    continue
                tried.add(plan.key)
                self._add(f"searched {number + 1}", plan, labels, kinds)
                if self.clock.wins(self.made[-1].sessions, found.sessions):
                    found, number, fresh = self.made[-1], number + 1, True
                    break
                self.made.pop()
        return found

    def _fill(self, found: Made) -> None:
        """The best form once more, with channels of zeros, if that makes any convolution of it faster."""
        multiple = detect().channel_block
        if not multiple:
            return
        placement = dataclasses.replace(self._placement_of(found), channel_multiple=multiple)
        plan = self.replan(placement)
        model = self.insert(plan)
        plain, size = dataclasses.replace(plan, channel_multiple=0), weight_bytes(model)
        same = [m.size for m in self.made if m.plan.key == plain.key]
        if size == (same[0] if same else weight_bytes(self.insert(plain))):
            return
        sessions, unknown = self._sessions(model), (math.nan,) * len(self.counts)
        made = Made(f"{found.name}, filled up", plan, found.labels, found.kinds, unknown, sessions, size, multiple)
        if self.clock.wins(sessions, found.sessions):
            self.made.append(made)
            self._learn(made, model)

    def _sessions(self, model: Model | Path) -> Sessions:
        """None where nothing is timed."""
        return () if self.elsewhere else self.clock.sessions(model)

    def _add(
        self,
        name: str,
        plan: Plan,
        labels: Labels,
        kinds: Kinds,
        *,
        predicted: tuple[float, ...] = (),
        learn: bool = False,
    ) -> None:
        """Make a form; with `learn`, costs become what they are in its company."""
        model = self.insert(plan)
        sessions = self._sessions(model)
        predicted = predicted or tuple(costs.cost(labels, kinds) for costs in self._problems())
        self.made.append(Made(name, plan, labels, kinds, predicted, sessions, weight_bytes(model)))
        if learn:
            self._learn(self.made[-1], model)

    def _learn(self, made: Made, model: Model | None = None) -> None:
        """Costs become what they are in the company of this form; without a model, what was seen of it counts again."""
        if model is None and made.name not in self.seen:
            model = self._model(made)
        if model is not None:
            self.seen[made.name] = self._profiles(model, made.sessions)
        for costs, one in zip(self.costs, self.seen[made.name], strict=True):
            seen = one.attribution
            for names, integer, kind in zip(self.layout.members, made.labels, made.kinds, strict=True):
                known = costs.integers if integer else costs.floats
                if kind is not None:
                    known = (costs.joined if integer else costs.kinds).setdefault(kind, {})
                known.update((name, seen.nodes.get(name, 0.0)) for name in names)
            free = [n for n in {*costs.floats, *seen.nodes} if n not in self.layout.unit]  # some vanish into others
            costs.floats.update((n, seen.nodes.get(n, 0.0)) for n in free)
            settle(self.layout, costs, made.labels, made.kinds, seen)

    def _strange(self, plan: Plan) -> str:
        """Ops of a form that a file of costs holds nothing of, in any shape; an op like it would be no guide."""
        if not self.elsewhere:
            return ""
        with runnable(self.insert(plan)) as source:
            return ", ".join(op for op in self._priced(source).foreign if op not in self.priced[0].foreign)

    def _priced(self, source: Path | bytes) -> Priced:
        """A form by the file of costs."""
        (threads,) = self.counts
        return price(profile(source, self.samples, threads=threads, runs=1), self.prices, threads=threads)

    def _profiles(self, model: Model, sessions: Sessions) -> list[Seen]:
        """By number of threads."""
        if not self.elsewhere:
            return self.clock.profiles(model, sessions)
        with runnable(model) as source:
            priced = self._priced(source)
        self.unknown = max(self.unknown, 1.0 - priced.share)
        self.priced.append(priced)
        return [Seen(attribute(priced.profile, model.graph))]

    def _placement(self, labels: Labels, kinds: Kinds) -> Placement:
        return placement_of(self.layout, labels, kinds, self._why)

    def _placement_of(self, made: Made) -> Placement:
        placement = dataclasses.replace(self._placement(made.labels, made.kinds), channel_multiple=made.multiple)
        if any(made.labels) or any(made.kinds):
            return placement
        # then bodies of If, Loop and Scan, which are not placed, are not worth it either
        inner = [n for n, d in self.full.decisions.items() if d.integer and n not in self.layout.unit]
        why = f"{MEASURED}: no form of this model with int8 is faster than float"
        return dataclasses.replace(placement, floats={**placement.floats, **dict.fromkeys(inner, why)})

    def _why(self, at: int) -> str:
        names = self.layout.members[at]
        return why_not_int8(
            names, costs=self.costs, counts=self.counts, weights=self.weights,
            placeable=bool(self.layout.placeable(names)),
        )  # fmt: skip

    def _timings(self) -> list[list[Timing]]:
        """By number of threads, then by form; the user's file first, if there is one."""
        if self.elsewhere:
            seconds = [priced.profile.seconds for priced in self.priced]
            ratios = [seconds[0] / s for s in seconds]
            return [[Timing(seconds=s, ratio=r, low=r, high=r) for s, r in zip(seconds, ratios, strict=True)]]
        first = [self._sessions(self.original)] if self.original is not None else []
        return self.clock.race([*first, *(m.sessions for m in self.made)])

    def _forms(self, timings: Sequence[Sequence[Timing]]) -> list[Form]:
        """All that was made, the float model first."""
        drift, each = self._drift(timings), zip(*(t[-len(self.made) :] for t in timings), strict=True)
        return [made.form(drift, ran) for made, ran in zip(self.made, each, strict=True)]

    def _drift(self, timings: Sequence[Sequence[Timing]]) -> list[float]:
        """From the time of the costs to that of a race, by number of threads."""
        return [1.0] if self.elsewhere else self.clock.drift([t[-len(self.made)] for t in timings])

    def _outcome(self, timings: Sequence[Sequence[Timing]]) -> Placed:
        forms = self._forms(timings)
        self.forms = [
            Form(name=ORIGINAL, integer_units=0, predicted=math.nan, timing=t[0], others=tuple(t[1:]))
            for t in [[each[0] for each in timings]][: len(timings[0]) - len(forms)]
        ]
        self.forms += forms
        at = best(forms)
        self.chosen, self.drift = self.made[at], self._drift(timings)
        self._learn(self.chosen)  # what others changed
        self._explain(self.chosen, forms[at].timings, self.drift)
        unknown = self.unknown if self.elsewhere else None
        self.notes = (*self.notes, *told(forms, at, self.counts, unknown=unknown))
        return self._placed()

    def also(self, name: str, plan: Plan, labels: Labels, kinds: Kinds) -> Placed:
        """What was found out, with one more form: it runs against the file and the float one, and costs become what
        they are in its company. What was chosen stays; nothing is timed by a file of costs.
        """
        self._add(name, plan, labels, kinds)
        made = self.made.pop()
        first = [self._sessions(self.original)] if self.original is not None else []
        raced = self.clock.race([*first, self.made[0].sessions, made.sessions])
        drift, mine = self.clock.drift([t[-2] for t in raced]), [t[-1] for t in raced]
        self._learn(made)
        self._explain(made, mine, drift)
        scales = [told.seconds / t[0].seconds for told, t in zip(self.forms[0].timings, raced, strict=True)]
        again = [dataclasses.replace(t, seconds=t.seconds * scale) for t, scale in zip(mine, scales, strict=True)]
        self.forms.append(made.form([d * scale for d, scale in zip(drift, scales, strict=True)], again))
        return self._placed()

    def _explain(self, made: Made, timings: Sequence[Timing], drift: Sequence[float]) -> None:
        """By the profile that says what the race says."""
        if not self.elsewhere:
            raced = [timing.seconds for timing in timings]
            model = functools.partial(self._model, made)
            self.seen[made.name] = self.clock.nearest(model, made.sessions, self.seen[made.name], drift, raced)
            self._learn(made)

    def _placed(self) -> Placed:
        """With all costs on the clock of the race."""
        kept = self.costs
        self.costs = copy.deepcopy(kept)
        for costs, factor in zip(self.costs, self.drift, strict=True):
            costs.scale(factor)
        chosen, problems = self.chosen, self._problems()
        choices = unit_choices(self.model.graph, self.layout, problems[0], chosen.labels, chosen.kinds, self._why)
        rest = always(self.model.graph, self.layout.unit, [costs.floats for costs in self.costs])
        placed = Placed(
            placement=self._placement_of(chosen), chosen=chosen.name, forms=tuple(self.forms), units=tuple(choices),
            problem=problems[0], choice=self._choice(), limit=kernel_limit(choices, problems[0], rest),
            threads=self.counts[0], others=self.counts[1:], beyond=tuple(problems[1:]), always=rest,
            timed=not self.elsewhere, calls=tuple(costs.call for costs in self.costs), notes=self.notes,
        )  # fmt: skip
        self.costs = kept
        return placed
