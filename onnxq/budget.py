"""How much accuracy int8 may cost, and the fastest placement that keeps to it.

The placement that is fastest by measured cost is judged first. If it loses too much, each unit's noise enters as a
second cost (`onnxq.sensitivity`), the corners of the front of time against noise are the candidates
(`onnxq.placement.cut.front`), and the fastest that holds is found by bisection, each judged on real samples: noise
at the outputs falls along the front, so what holds at one corner is expected to hold at the quieter ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

from numpy.typing import NDArray

from onnxq.config.placing import Judged
from onnxq.data.sample import Dataset
from onnxq.encoding import Kind
from onnxq.faintest import Parts
from onnxq.ir.hash import model_hash
from onnxq.ir.model import Model
from onnxq.nearness import judge_of
from onnxq.optable import NEARLY
from onnxq.options import Options
from onnxq.placement.cut import Kinds, Labels, Problem, front
from onnxq.placement.effort import EFFORTS
from onnxq.placement.result import FLOAT, Placed
from onnxq.plan.plan import Placement, Plan
from onnxq.progress import Progress
from onnxq.sensitivity.engine import Options as Sensing
from onnxq.sensitivity.engine import sensitivity
from onnxq.sensitivity.result import noise
from onnxq.trial import outputs_of, spread_samples

Choice = tuple[Labels, Kinds]

HOLDERS = ("If", "Loop", "Scan")
"""Ops with bodies."""

HEARD = 4
"""Calibration samples on which each tensor's noise is measured."""

SLOWER = 5.0
"""A run that measures the noise of a tensor, as a multiple of a run of the file: nothing is fused in it."""

SWEEP_SECONDS = 20.0
"""At most, by estimate, for a front that only the report wants."""

WORST = 3
"""Units that are named where the budget cannot be met."""

LOUD = "kept float for accuracy"
"""How the reason of an op begins that is float because its error is too large."""


@dataclass(frozen=True, kw_only=True)
class Corner:
    """A placement that is the best for some price of noise, as costs and sensitivities predict it.

    Attributes:
        label: of the form; the same as that of the point, if it was judged.
        seconds: of one run.
        noise: relative output noise energy.
    """

    label: str
    seconds: float
    noise: float


@dataclass(frozen=True, kw_only=True)
class Met:
    """What became of a budget.

    Attributes:
        holds: a form with int8 keeps to it.
        plan: of the fastest form that does, else of the one with the least noise that has int8.
        placement: of that form.
        points: all that was judged, in the order of it.
        worst: nodes of the units that cost most accuracy, loudest first; empty where nothing had to be given up.
        notes: sentences for the user.
        front: time against noise, fastest first; empty where the noise was not needed.
        choice: labels and kinds of units, where they are not those of the fastest form.
    """

    holds: bool
    plan: Plan
    placement: Placement
    points: tuple[Judged, ...]
    worst: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    front: tuple[Corner, ...] = ()
    choice: Choice | None = None


@dataclass(kw_only=True)
class Known:
    """What is known of forms that may come up again, when costs are others.

    Attributes:
        judged: by hash of the model.
        noise: by hash of the model, relative output noise energy; of tensors, by node, under "".
        names: of placements.
    """

    judged: dict[str, Judged] = field(default_factory=dict)
    noise: dict[str, Any] = field(default_factory=dict)
    names: dict[Choice, str] = field(default_factory=dict)


def meet(
    placed: Placed,
    plan: Plan,
    *,
    judge: Callable[[Model], Judged],
    replan: Callable[[Placement], Plan],
    insert: Callable[[Plan], Model],
    sense: Callable[[], Mapping[str, float]],
    hear: Callable[[Model], float] | None = None,
    sweep: bool = False,
    names: dict[Choice, str] | None = None,
) -> Met:
    """The fastest form that keeps to a budget.

    Args:
        placed: by cost alone.
        plan: of that.
        judge: runs a form on samples.
        replan, insert: as `onnxq.placement.place.Placer` takes them.
        sense: node -> relative output noise energy of its int8 form; called only if it is needed.
        hear: relative output noise energy of a form; of those that have one kind wherever they can; None: kinds are not
            traded, those of `placed` stay.
        sweep: give the front even if the first form holds.
        names: of placements that came up before; takes those of the new ones.
    """
    mine = placed.labels, placed.kinds
    first = replace(judge(insert(plan)), label=placed.chosen, seconds=placed.problem.cost(*mine))
    lossy = any(unit.integer or unit.kind for unit in placed.units)
    at_once = Met(
        holds=True, plan=plan, placement=placed.placement, points=(replace(first, chosen=True),),
        notes=(f"The accuracy budget holds: {first.sentence}.",),
    )  # fmt: skip
    if (first.holds or not lossy) and not (sweep and lossy):
        return at_once
    points: list[Judged] = [first]
    exact = None if first.holds else _with_gates_float(placed)
    if exact is not None:
        placement = placement_with(placed, placed.choice, *exact, why="in bytes it is another function")
        made = replan(placement)
        second = replace(judge(insert(made)), label=f"{placed.chosen}, GELU in float")
        points.append(replace(second, seconds=placed.problem.cost(*exact), chosen=second.holds))
        if second.holds:
            note = f"The accuracy budget holds with GELU in float: {second.sentence} ({first.sentence} in bytes)."
            return Met(holds=True, plan=made, placement=placement, points=tuple(points), notes=(note,), choice=exact)
    noise = sense() if any(unit.placeable for unit in placed.units) else {}
    problem = _with_noise(placed, noise)
    if hear is not None:
        listen = partial(_listen, replan=replan, insert=insert, hear=hear)
        problem = _with_kinds(placed, _with_unheard(placed, problem, listen), listen)
    before = problem.noise(*mine)
    everything_float: Choice = (False,) * len(problem.units), (None,) * len(problem.units)
    swept = front(problem)
    corners = [(p.labels, p.kinds) for p in swept if p.noise < before and (p.labels, p.kinds) != everything_float]
    tried: dict[Choice, tuple[Plan, Placement, int]] = {}
    names = {} if names is None else names
    names.update({(form.labels, form.kinds): form.name for form in reversed(placed.forms) if form.labels})
    names.update({mine: placed.chosen, everything_float: FLOAT})
    for one in swept:
        between = sum(kind is not None for kind in one.kinds)
        name = f"{sum(one.labels)} units int8{f', {between} with float borders' if between else ''}"
        names.setdefault((one.labels, one.kinds), _fresh(name, names.values()))
    found_front = tuple(
        Corner(label=names[p.labels, p.kinds], seconds=placed.problem.cost(p.labels, p.kinds), noise=p.noise)
        for p in swept
    )
    if first.holds:
        return replace(at_once, front=found_front)

    def holds(labels: Choice) -> bool:
        placement = placement_with(placed, problem, *labels)
        made = replan(placement)
        found = replace(judge(insert(made)), label=names[labels], seconds=placed.problem.cost(*labels))
        points.append(found)
        tried[labels] = (made, placement, len(points) - 1)
        return found.holds

    low, high = 0, len(corners)  # the first corner that holds lies in [low, high]
    while low < high:
        middle = (low + high) // 2
        if holds(corners[middle]):
            high = middle
        else:
            low = middle + 1
    loudest = sorted(zip(problem.units, placed.units, strict=True), key=lambda u: (-u[0].noise, u[0].name))
    worst = tuple(choice.nodes[0] for _, choice in loudest[:WORST])
    met = high < len(corners)
    if met:
        labels = corners[high]
    elif corners:
        labels = corners[-1]
    else:
        return Met(
            holds=False, plan=plan, placement=placed.placement, points=(replace(first, chosen=True),), worst=worst,
            notes=(f"The accuracy budget does not hold: {first.sentence}.",), front=found_front,
        )  # fmt: skip
    if labels not in tried:
        holds(labels)
    made, placement, at = tried[labels]
    points[at] = replace(points[at], chosen=True)
    kept = sum(unit.integer for unit in placed.units) - sum(labels[0])
    verdict = "holds" if met else "does not hold"
    fewer = f" with {kept} unit{'s' * (kept != 1)} fewer in int8" if kept > 0 else ""
    note = (
        f"The accuracy budget {verdict}{fewer}: {points[at].sentence} "
        f"({first.sentence} by speed alone); the loudest: {', '.join(worst)}."
    )
    return Met(
        holds=met, plan=made, placement=placement, points=tuple(points), worst=worst, notes=(note,), front=found_front,
        choice=labels,
    )  # fmt: skip


def _with_gates_float(placed: Placed) -> Choice | None:
    """The chosen form, but for gates that are another function in int8; None: it has none, or gains by them alone."""
    labels = tuple(
        label and NEARLY.isdisjoint(choice.ops) for label, choice in zip(placed.labels, placed.units, strict=True)
    )
    nothing = (False,) * len(labels), (None,) * len(labels)
    if labels == placed.labels or placed.choice.cost(labels, placed.kinds) >= placed.choice.cost(*nothing):
        return None
    return labels, placed.kinds


def _fresh(name: str, taken: Collection[str]) -> str:
    """The name, with a number behind it if there is one already."""
    return next(n for i in itertools.count(1) if (n := name if i == 1 else f"{name} ({i})") not in taken)


def within(
    placed: Placed,
    plan: Plan,
    model: Model,
    data: Dataset,
    options: Options,
    *,
    replan: Callable[[Placement], Plan],
    insert: Callable[[Plan], Model],
    progress: Progress,
    known: Known | None = None,
) -> Met:
    """`meet` with the budget, the judge and the resources of the options; without a judge, outputs are compared.

    Args:
        model: normalised, float.
        data: calibration samples.
        known: by an earlier call for the same model; learns.
    """
    known = Known() if known is None else known
    judge = judge_of(model, data, options, seconds=placed.forms[0].timing.seconds)
    effort = options.placing.effort if options.placing is not None else "fast"
    stopped = EFFORTS[effort].sensing_seconds if options.placing is not None and options.placing.costs is None else None
    guessed: list[str] = []

    def judged(some: Model) -> Judged:
        key = model_hash(some)
        if key not in known.judged:
            known.judged[key] = judge(some)
        return known.judged[key]

    def sense() -> Mapping[str, float]:
        if "" not in known.noise:
            known.noise[""] = sensed()
        found: Mapping[str, float] = known.noise[""]
        return found

    def sensed() -> Mapping[str, float]:
        found = sensitivity(
            model,
            replan(Placement(eager=True)) if any(placed.kinds) else plan,  # what has a kind now could be int8
            data,
            Sensing(samples=HEARD, feedback=options.feedback, seconds=stopped),  # by a cost file no clock decides
            threads=options.threads,
            cache=options.resources.cache,
            executor=options.resources.pool,
            progress=progress,
        )
        if found.unmeasured:
            which = f"{found.unmeasured} of {len(found.tensors)} tensors, the quiet ones by their own rounding errors,"
            guessed.append(f"The noise of {which} is an estimate: measuring ended after {stopped:g} s.")
        return noise(found, owned=True)

    @cache
    def heard() -> tuple[list[Mapping[str, NDArray[Any]]], list[dict[str, Any]], Parts]:
        few = [s.inputs for s in spread_samples(data, HEARD)]
        exact = outputs_of(model, few, options.threads)
        return few, exact, Parts(exact, whole=True)

    def hear(some: Model) -> float:
        """Relative, of whole outputs and on as many samples, as sensitivities are: one is traded for the other."""
        key = model_hash(some)
        if key not in known.noise:
            few, exact, parts = heard()
            levels = parts.levels(exact, outputs_of(some, few, options.threads))
            known.noise[key] = float(10 ** (-levels.mean() / 10))
        return float(known.noise[key])

    seconds = SLOWER * len(plan.values) * HEARD * placed.forms[0].timing.seconds
    short = effort == "max" or seconds <= SWEEP_SECONDS
    wanted = options.sweep and effort != "fast"
    met = meet(
        placed, plan, judge=judged, replan=replan, insert=insert, sense=sense, hear=hear, sweep=wanted and short,
        names=known.names,
    )  # fmt: skip
    met = replace(met, notes=(*met.notes, *guessed))
    if wanted and not short and not met.front and any(placed.labels):
        why = f"it would take about {seconds:.0f} s: give --effort max"
        met = replace(met, notes=(*met.notes, f"The front of time against noise was not measured, since {why}."))
    return met


def _with_noise(placed: Placed, noise: Mapping[str, float]) -> Problem:
    units = [
        replace(unit, noise=sum(noise.get(n, 0.0) for n in choice.nodes))
        for unit, choice in zip(placed.choice.units, placed.units, strict=True)
    ]
    return replace(placed.choice, units=tuple(units))


def _listen(
    placement: Placement,
    *,
    replan: Callable[[Placement], Plan],
    insert: Callable[[Plan], Model],
    hear: Callable[[Model], float],
) -> float:
    return hear(insert(replan(placement)))


def _with_unheard(placed: Placed, problem: Problem, hear: Callable[[Placement], float]) -> Problem:
    """The noise of a unit of which sensitivities, which round tensors, hear nothing or not all: that of the form with
    it alone in int8. Bodies, and gates that are another function in int8.
    """
    units = list(problem.units)
    for index, (unit, choice) in enumerate(zip(problem.units, placed.units, strict=True)):
        body = not unit.noise and choice.ops[0] in HOLDERS
        if unit.placeable and (body or not NEARLY.isdisjoint(choice.ops)):
            alone = tuple(at == index for at in range(len(units)))
            heard = hear(placement_with(placed, problem, alone, (None,) * len(units)))
            units[index] = replace(unit, noise=max(unit.noise, heard))
    return replace(problem, units=tuple(units))


def _with_kinds(placed: Placed, problem: Problem, hear: Callable[[Placement], float]) -> Problem:
    """The noise of each kind: that of the form which has it wherever it can, shared among its units as their noise in
    int8 is; a unit that cannot be int8 counts like the mean of those that can.
    """
    found: list[Kind] = list(dict.fromkeys(a.kind for unit in problem.units for a in unit.alternatives))
    known = [unit.noise for unit in problem.units if unit.noise > 0]
    middle = sum(known) / len(known) if known else 1.0
    units = list(problem.units)
    for kind in found:
        kinds: Kinds = tuple(kind if any(a.kind == kind for a in unit.alternatives) else None for unit in units)
        total = hear(placement_with(placed, problem, (False,) * len(units), kinds))
        weights = [0.0 if kind_ is None else unit.noise or middle for unit, kind_ in zip(units, kinds, strict=True)]
        for index, (unit, weight) in enumerate(zip(units, weights, strict=True)):
            units[index] = replace(
                unit,
                alternatives=tuple(
                    replace(a, noise=total * weight / sum(weights) + (unit.noise if a.integer else 0.0))
                    if a.kind == kind
                    else a
                    for a in unit.alternatives
                ),
            )
    return replace(problem, units=tuple(units))


def placement_with(placed: Placed, problem: Problem, labels: Labels, kinds: Kinds, why: str = "") -> Placement:
    """These labels and kinds; `why` units that could be int8 are float now, where it is not their noise."""
    total = sum(unit.noise for unit in problem.units) or 1.0
    integer: set[str] = set()
    floats: dict[str, str] = {}
    between: dict[str, Kind] = {}
    for unit, choice, label, kind in zip(problem.units, placed.units, labels, kinds, strict=True):
        if kind is not None:
            between.update((n, kind) for n in choice.able.get(kind, ()) if not (label and n in choice.placeable))
        if label:
            integer.update(choice.placeable)
            continue
        for node in choice.placeable:
            known = placed.placement.floats.get(node)
            share = f"{100 * unit.noise / total:.3g} % of the noise at the outputs is its"
            floats[node] = known if known and not choice.integer else f"{LOUD}: {why or share}"
    return Placement(integer=frozenset(integer), floats=floats, kinds=between)
