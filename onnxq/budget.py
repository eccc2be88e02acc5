"""How much accuracy int8 may cost, and the fastest placement that keeps to it.

The placement that is fastest by measured cost is judged first. If it loses too much, each unit's noise enters as a
second cost (`onnxq.sensitivity`), the corners of the front of time against noise are the candidates
(`onnxq.placement.cut.front`), and the fastest that holds is found by bisection, each judged on real samples: noise
at the outputs falls along the front, so what holds at one corner is expected to hold at the quieter ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from onnxq.config.placing import Budget, Judged
from onnxq.data.sample import Dataset
from onnxq.faintest import faintest
from onnxq.ir.model import Model
from onnxq.ir.save import runnable
from onnxq.options import Options
from onnxq.placement.cut import Labels, Problem, front
from onnxq.placement.result import FLOAT, Placed
from onnxq.plan.plan import Placement, Plan
from onnxq.progress import Progress
from onnxq.runtime.session import Session
from onnxq.sensitivity.engine import Options as Sensing
from onnxq.sensitivity.engine import sensitivity
from onnxq.sensitivity.result import noise
from onnxq.trial import has_floats, nearness, spread_samples

LEAST_EQUAL = 95.0
"""Percentage of equal elements that a model without float outputs keeps."""

SAMPLES = 16
"""Calibration samples, evenly spread, on which outputs are compared."""

HEARD = 4
"""Calibration samples on which each tensor's noise is measured."""

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
    """

    holds: bool
    plan: Plan
    placement: Placement
    points: tuple[Judged, ...]
    worst: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    front: tuple[Corner, ...] = ()


def meet(
    placed: Placed,
    plan: Plan,
    *,
    judge: Callable[[Model], Judged],
    replan: Callable[[Placement], Plan],
    insert: Callable[[Plan], Model],
    sense: Callable[[], Mapping[str, float]],
) -> Met:
    """The fastest form that keeps to a budget.

    Args:
        placed: by cost alone.
        plan: of that.
        judge: runs a form on samples.
        replan, insert: as `onnxq.placement.place.place` takes them.
        sense: node -> relative output noise energy of its int8 form; called only if it is needed.
    """
    first = replace(judge(insert(plan)), label=placed.chosen, seconds=placed.problem.cost(_labels(placed)))
    if first.holds or not any(unit.integer for unit in placed.units):
        return Met(
            holds=True, plan=plan, placement=placed.placement, points=(replace(first, chosen=True),),
            notes=(f"The accuracy budget holds: {first.sentence}.",),
        )  # fmt: skip
    noise = sense()
    problem = _with_noise(placed, noise)
    before = problem.noise(_labels(placed))
    everything_float = (False,) * len(problem.units)
    swept = front(problem)
    corners = [p.labels for p in swept if p.noise < before and p.labels != everything_float]
    points, tried = [first], {}
    names = {_labels(placed): placed.chosen, everything_float: FLOAT}
    for one in swept:
        names.setdefault(one.labels, _fresh(f"{sum(one.labels)} units int8", names.values()))
    found_front = tuple(
        Corner(label=names[p.labels], seconds=placed.problem.cost(p.labels), noise=p.noise) for p in swept
    )

    def holds(labels: Labels) -> bool:
        placement = _placement(placed, problem, labels)
        made = replan(placement)
        found = replace(judge(insert(made)), label=names[labels], seconds=placed.problem.cost(labels))
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
    kept = sum(unit.integer for unit in placed.units) - sum(labels)
    verdict = "holds" if met else "does not hold"
    note = (
        f"The accuracy budget {verdict} with {kept} units fewer in int8: {points[at].sentence} "
        f"({first.sentence} by speed alone); the loudest: {', '.join(worst)}."
    )
    return Met(
        holds=met, plan=made, placement=placement, points=tuple(points), worst=worst, notes=(note,), front=found_front
    )


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
) -> Met:
    """`meet` with the budget, the judge and the resources of the options; without a judge, outputs are compared.

    Args:
        model: normalised, float.
        data: calibration samples.
    """
    budget = options.budget or Budget()
    judge = options.judge
    if judge is None:
        samples = [s.inputs for s in spread_samples(data, SAMPLES)]
        judge = by_outputs(model, samples, budget, options.threads)

    def sense() -> Mapping[str, float]:
        found = sensitivity(
            model,
            plan,
            data,
            Sensing(samples=HEARD, feedback=options.feedback),
            threads=options.threads,
            cache=options.resources.cache,
            executor=options.resources.pool,
            progress=progress,
        )
        return noise(found, owned=True)

    return meet(placed, plan, judge=judge, replan=replan, insert=insert, sense=sense)


def by_outputs(
    model: Model, samples: Sequence[Mapping[str, NDArray[Any]]], budget: Budget, threads: int | None
) -> Callable[[Model], Judged]:
    """A judge that compares the outputs with those of the float model.

    Args:
        model: float.
        samples: inputs, one at least.
    """

    def outputs(some: Model) -> list[dict[str, Any]]:
        with runnable(some) as source:
            session = Session(source, threads=threads)
        return [session.run(inputs) for inputs in samples]

    exact = outputs(model)
    floats = has_floats(exact[0])
    limit, unit = (budget.min_sqnr_db, "dB SQNR") if floats else (LEAST_EQUAL, "% equal elements")

    def judge(some: Model) -> Judged:
        made = outputs(some)
        worst = faintest(exact, made)
        near, where = (worst.decibels, worst.where) if worst is not None else (nearness(exact, made), "")
        return Judged(
            holds=near >= limit,
            sentence=f"{near:.1f} {unit}{where} on {len(samples)} calibration samples, at least {limit:g} asked",
            sqnr_db=near if floats else None,
        )

    return judge


def _labels(placed: Placed) -> Labels:
    return tuple(unit.integer for unit in placed.units)


def _with_noise(placed: Placed, noise: Mapping[str, float]) -> Problem:
    units = [
        replace(unit, noise=sum(noise.get(n, 0.0) for n in choice.nodes))
        for unit, choice in zip(placed.choice.units, placed.units, strict=True)
    ]
    return replace(placed.choice, units=tuple(units))


def _placement(placed: Placed, problem: Problem, labels: Labels) -> Placement:
    total = sum(unit.noise for unit in problem.units) or 1.0
    integer: set[str] = set()
    floats: dict[str, str] = {}
    for unit, choice, label in zip(problem.units, placed.units, labels, strict=True):
        if label:
            integer.update(choice.placeable)
            continue
        for node in choice.placeable:
            known = placed.placement.floats.get(node)
            share = f"{100 * unit.noise / total:.3g} % of the noise at the outputs is its"
            floats[node] = known if known and not choice.integer else f"{LOUD}: {share}"
    return Placement(integer=frozenset(integer), floats=floats)
