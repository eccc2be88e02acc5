"""The form that a budget brought up runs against the clock, too: it was chosen by what ops cost in other company.

Costs add up, kernels do not always: behind a float op whose results are denormal numbers the next float op is several
times as slow, and no form showed it in which integers stood between the two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from onnxq.budget import Met, placement_with
from onnxq.config.placing import Judged
from onnxq.placement.result import FLOAT, NEVER_SLOWER, ORIGINAL, PAYS, Form, Placed
from onnxq.placement.stage import Race
from onnxq.placement.told import OFF
from onnxq.plan.plan import Placement, Plan

ROUNDS = 2
"""Forms that are raced at most: what the first one showed is used once."""


def settle(
    met: Met,
    placed: Placed,
    *,
    race: Race | None,
    again: Callable[[Placed], Met],
    replan: Callable[[Placement], Plan],
    rounds: int = ROUNDS,
) -> tuple[Met, Placed]:
    """The fastest form by the clock that keeps to a budget; the float one, if no other is worth its error.

    Args:
        met: the budget, by costs.
        placed: by cost alone.
        race: runs one more form against the file; None: nothing can be timed, and only what was timed before is known.
        again: the budget by the costs that a race brought.
        replan: as `onnxq.placement.place.Placer` takes it.
        rounds: forms that are raced at most.
    """
    found: list[tuple[Met, Form]] = []
    notes: list[str] = []
    for turn in range(rounds):
        if met.choice is None or not met.holds or met.choice in [m.choice for m, _ in found]:
            break
        form = placed.ran(*met.choice)
        fresh = form is None
        if form is None:
            if race is None:
                return met, placed
            name = next(point.label for point in met.points if point.chosen)
            placed = race(name, met.plan, *met.choice)
            form = placed.ran(*met.choice)
            assert form is not None  # it has just run
        found.append((met, form))
        if not (fresh and _off(form)) or turn + 1 == rounds:
            break
        notes.append(
            f"{form.name} took {form.timing.seconds * 1e3:.3f} ms, where costs said {form.predicted * 1e3:.3f} ms: "
            "the choice was made again by what it showed."
        )
        met = again(placed)
    if not found:
        return met, placed
    able = [(m, f) for m, f in found if f.slowest >= NEVER_SLOWER and f.gain >= PAYS * _float(placed).gain]
    last, _ = found[-1]
    if not able:
        return _stays_float(last, placed, replan, [m for m, _ in found]), placed
    best, _ = max(able, key=lambda one: one[1].gain)
    return replace(best, points=_points(best, [m for m, _ in found]), notes=(*best.notes, *notes)), placed


def _off(form: Form) -> bool:
    """Is what was predicted far from what ran?"""
    predicted = (form.predicted, *form.foretold)
    return max(abs(p / t.seconds - 1) for p, t in zip(predicted, form.timings, strict=True)) > OFF


def _float(placed: Placed) -> Form:
    first = placed.forms[0]
    return placed.forms[1] if first.name == ORIGINAL else first


def _points(best: Met, every: list[Met]) -> tuple[Judged, ...]:
    """All that was judged, once; chosen is what `best` chose."""
    chosen = next((point.label for point in best.points if point.chosen), FLOAT)
    points = {point.label: point for one in every for point in one.points}
    return tuple(replace(point, chosen=point.label == chosen) for point in points.values())


def _stays_float(met: Met, placed: Placed, replan: Callable[[Placement], Plan], every: list[Met]) -> Met:
    floats = (False,) * len(placed.units), (None,) * len(placed.units)
    placement = placement_with(placed, placed.choice, *floats, why="no form that keeps to the budget is faster")
    stays = Judged(holds=True, sentence="float", label=FLOAT, chosen=True)
    tried = ", ".join(point.label for one in every for point in one.points if point.chosen)
    return replace(
        met, plan=replan(placement), placement=placement, points=(*_points(replace(met, points=()), every), stays),
        choice=floats, notes=(f"The model stays float: what keeps to the accuracy budget ({tried}) is no faster.",),
    )  # fmt: skip
