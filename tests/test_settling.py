"""What the budget brought up runs against the clock: on values, where every answer is known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from onnxq.budget import LOUD, Choice, Met
from onnxq.config.placing import Judged
from onnxq.placement.cut import Problem, Unit
from onnxq.placement.race import Timing
from onnxq.placement.result import FLOAT, ORIGINAL, Form, Placed, UnitChoice
from onnxq.plan.plan import Placement, Plan
from onnxq.settling import settle

LOUDER, QUIET, LEAST = (True, True), (True, False), (False, True)
NOTHING = (False, False)


def form(
    name: str, ratio: float, *, predicted: float = math.nan, labels: tuple[bool, ...] = (), other: float = 0
) -> Form:
    """Of a file that takes 8 ms; `predicted` in milliseconds; `other`: with two threads."""
    timings = [Timing(seconds=8e-3 / r, ratio=r, low=r, high=r) for r in (ratio, other) if r]
    return Form(
        name=name, integer_units=sum(labels), predicted=predicted * 1e-3, timing=timings[0], others=tuple(timings[1:]),
        foretold=(predicted * 1e-3,) * len(timings[1:]), labels=labels, kinds=(None,) * len(labels),
    )  # fmt: skip


def choice(name: str) -> UnitChoice:
    """In int8."""
    return UnitChoice(
        nodes=(name,), ops=("Conv",), placeable=(name,), integer=True, float_seconds=2.0, integer_seconds=1.0,
        conversion_seconds=0.0, why="",
    )  # fmt: skip


def placed(*more: Form) -> Placed:
    """Two units, both int8 in the fastest form."""
    units = tuple(Unit(name=name, float_cost=2.0, integer_cost=1.0) for name in "ab")
    costs = Problem(units=units, crossings=())
    return Placed(
        placement=Placement(integer=frozenset("ab"), floats={}),
        chosen="all int8",
        forms=(form(ORIGINAL, 1.0), form(FLOAT, 1.0, labels=NOTHING), form("all int8", 2.0, labels=LOUDER), *more),
        units=tuple(choice(u.name) for u in units),
        problem=costs,
        choice=costs,
        limit=1.0,
        threads=1,
        notes=(),
    )  # fmt: skip


def plan(placement: Placement) -> Plan:
    """One that can be told from others by its placement."""
    return Plan(values={}, uses={}, decisions={}, channel_multiple=len(placement.integer))


def met(labels: tuple[bool, ...] | None, *, holds: bool = True, name: str = "") -> Met:
    """A budget that these labels keep; None: the fastest form does."""
    choice: Choice | None = None if labels is None else (labels, (None,) * len(labels))
    placement = Placement(integer=frozenset(n for n, label in zip("ab", labels or LOUDER, strict=True) if label))
    points = (
        Judged(holds=False, sentence="too loud", label="all int8", chosen=labels is None),
        Judged(holds=holds, sentence="quiet", label=name or f"{labels}", chosen=labels is not None),
    )
    return Met(
        holds=holds, plan=plan(placement), placement=placement, points=points, notes=("It holds.",), choice=choice
    )


class Clock:
    """Races with known results, and costs that bring up one choice after the other."""

    def __init__(self, forms: dict[tuple[bool, ...], Form], following: Met | None = None) -> None:
        self.forms, self.following = forms, following
        self.raced: list[tuple[str, int]] = []

    def race(self, name: str, plan: Plan, labels: tuple[bool, ...], _kinds: tuple[None, ...]) -> Placed:
        """With all that ran so far."""
        self.raced.append((name, plan.channel_multiple))
        self.state = placed(*(f for f in self.forms.values() if f.labels == labels or f.name in dict(self.raced)))
        return self.state

    def again(self, found: Placed) -> Met:
        """By what the last race showed."""
        assert found is self.state and self.following is not None
        return self.following


def settled(first: Met, clock: Clock, start: Placed | None = None, rounds: int = 2) -> tuple[Met, Placed]:
    return settle(
        first, start or placed(), race=clock.race, again=clock.again,
        replan=plan, rounds=rounds,
    )  # fmt: skip


@pytest.mark.parametrize("first", [met(None), met(QUIET, holds=False)])
def test_the_fastest_form_and_a_budget_that_does_not_hold_stay(first: Met) -> None:
    clock, start = Clock({}), placed()
    assert settled(first, clock, start) == (first, start) and not clock.raced


def test_what_runs_as_costs_said_is_taken() -> None:
    clock = Clock({QUIET: form("quiet", 1.6, predicted=5.2, labels=QUIET)})
    first = met(QUIET, name="quiet")
    found, after = settled(first, clock)
    assert found == first and clock.raced == [("quiet", 1)]
    assert [f.name for f in after.forms] == [ORIGINAL, FLOAT, "all int8", "quiet"]


@pytest.mark.parametrize(("ratio", "taken"), [(1.9, "least"), (1.3, "quiet")])
def test_what_the_clock_does_not_confirm_is_chosen_again_and_the_faster_one_is_taken(ratio: float, taken: str) -> None:
    forms = {
        QUIET: form("quiet", 1.5, predicted=4.4, labels=QUIET),
        LEAST: form("least", ratio, predicted=4.0, labels=LEAST),
    }
    clock = Clock(forms, met(LEAST, name="least"))
    found, after = settled(met(QUIET, name="quiet"), clock)
    assert clock.raced == [("quiet", 1), ("least", 1)] and len(after.forms) == 5
    assert [p.label for p in found.points if p.chosen] == [taken]
    assert [p.label for p in found.points] == ["all int8", "quiet", "least"]
    assert found.notes[0] == "It holds." and found.notes[1].startswith("quiet took 5.333 ms, where costs said 4.400 ms")
    assert found.choice == ({"least": LEAST, "quiet": QUIET}[taken], (None, None))


def test_with_several_threads_each_prediction_counts() -> None:
    clock = Clock({QUIET: form("quiet", 2.0, predicted=4.0, labels=QUIET, other=1.5)}, met(QUIET, name="quiet"))
    found, _ = settled(met(QUIET, name="quiet"), clock)
    assert len(found.notes) == 2 and len(clock.raced) == 1, "the same came up again"


def test_one_round_is_raced_and_not_chosen_again() -> None:
    clock = Clock({QUIET: form("quiet", 1.5, predicted=1.0, labels=QUIET)})
    found, _ = settled(met(QUIET, name="quiet"), clock, rounds=1)
    assert found.notes == ("It holds.",) and len(clock.raced) == 1


@pytest.mark.parametrize("ratios", [(0.9, 0.0), (1.01, 0.0), (1.5, 0.9)])
def test_what_is_slower_than_the_file_or_no_faster_than_float_is_not_taken(ratios: tuple[float, float]) -> None:
    one, other = ratios
    quiet = form("quiet", one, predicted=8 / one, labels=QUIET, other=other)
    if other:
        quiet = replace(quiet, foretold=(8e-3 / other,))
    clock = Clock({QUIET: quiet})
    found, _ = settled(met(QUIET, name="quiet"), clock)
    assert found.holds and found.choice == (NOTHING, (None, None)) and found.plan.channel_multiple == 0
    assert not found.placement.integer
    assert found.placement.floats["a"] == f"{LOUD}: no form that keeps to the budget is faster"
    assert [p.label for p in found.points if p.chosen] == [FLOAT]
    assert found.notes == ("The model stays float: what keeps to the accuracy budget (quiet) is no faster.",)


def test_what_ran_before_is_not_raced_again() -> None:
    start = placed(form("quiet", 1.6, labels=QUIET))
    clock = Clock({})
    found, after = settled(met(QUIET, name="quiet"), clock, start)
    assert after is start and not clock.raced and [p.label for p in found.points if p.chosen] == ["quiet"]


def test_where_nothing_can_be_timed_costs_decide() -> None:
    first, start = met(QUIET, name="quiet"), placed()
    assert settle(first, start, race=None, again=lambda _: first, replan=plan) == (first, start)


def test_without_a_file_float_comes_first() -> None:
    start = placed(form("quiet", 1.05, predicted=7.6, labels=QUIET))
    start = replace(start, forms=(replace(start.forms[1], timing=start.forms[0].timing), *start.forms[2:]))
    found, _ = settled(met(QUIET, name="quiet"), Clock({}), start)
    assert [p.label for p in found.points if p.chosen] == ["quiet"]
