"""What placement and budget found, as the report has it: on values, where every figure is known."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from onnxq.budget import Corner, Met
from onnxq.config.placing import Judged
from onnxq.judging import accounts, forms
from onnxq.placement.cut import Problem, Unit
from onnxq.placement.race import Timing
from onnxq.placement.result import FLOAT, ORIGINAL, Form, Placed, UnitChoice
from onnxq.plan.plan import Decision, Placement, Plan
from onnxq.validate.latency import Latency


def timing(ms: float) -> Timing:
    return Timing(seconds=ms * 1e-3, ratio=8.0 / ms, low=8.0 / ms, high=8.0 / ms)


COSTS = Problem(
    units=tuple(Unit(name=n, float_cost=3e-3, integer_cost=1e-3) for n in ("a", "b")), crossings=(), fixed=1e-3
)
PLACED = Placed(
    placement=Placement(),
    chosen="placed 1",
    forms=(
        Form(name=ORIGINAL, integer_units=0, predicted=math.nan, timing=timing(8.0), others=(timing(4.0),)),
        Form(name=FLOAT, integer_units=0, predicted=math.nan, timing=timing(7.0), others=(timing(4.0),)),
        Form(
            name="placed 1", integer_units=2, predicted=3.5e-3, timing=timing(4.0), others=(timing(2.0),),
            foretold=(1.5e-3,),
        ),
    ),
    units=tuple(
        UnitChoice(
            nodes=(n,), ops=("Conv",), placeable=(n,), integer=True, float_seconds=3e-3, integer_seconds=1e-3,
            conversion_seconds=0.0, why="",
        )
        for n in ("a", "b")
    ),
    problem=COSTS,
    choice=COSTS,
    beyond=(COSTS,),
    limit=2e-3,
    threads=1,
    others=(2,),
    notes=(),
)  # fmt: skip


def made(*, integer: tuple[str, ...] = ("a", "b"), met: Met | None = None, placed: Placed | None = PLACED) -> Any:
    """As much of a quantized model as is looked at."""
    decisions = {n: Decision(op="Conv", integer=n in integer, reason="" if n in integer else f"{n}?") for n in "ab"}
    return SimpleNamespace(placed=placed, met=met, plan=Plan(values={}, uses={}, decisions=decisions))


def budget(*points: Judged, front: tuple[Corner, ...] = ()) -> Met:
    plan = Plan(values={}, uses={}, decisions={})
    return Met(holds=True, plan=plan, placement=Placement(), points=points, front=front)


FASTEST = Judged(holds=False, sentence="", drop=0.02, seconds=3e-3, label="placed 1")
QUIETER = Judged(holds=True, sentence="", drop=0.005, seconds=5e-3, label="1 units int8", chosen=True)
FRONT = (
    Corner(label="placed 1", seconds=3e-3, noise=0.01),
    Corner(label="1 units int8", seconds=5e-3, noise=0.001),
    Corner(label=FLOAT, seconds=7e-3, noise=0.0),
)


def speed(threads: int, speedup: float) -> Latency:
    return Latency(
        threads=threads, pairs=9, inner=1, reference_ms=80.0, candidate_ms=80.0 / speedup, speedup=speedup,
        speedup_low=speedup, speedup_high=speedup, noisy=False, seconds=1.0,
    )  # fmt: skip


def test_without_a_placement_there_is_nothing_to_tell() -> None:
    assert forms(made(placed=None)) == () == accounts(made(placed=None), ())


def test_what_ran_what_was_judged_and_what_is_predicted() -> None:
    found = {p.label: p for p in forms(made(integer=("a",), met=budget(FASTEST, QUIETER, front=FRONT)))}
    assert list(found) == [ORIGINAL, FLOAT, "placed 1", "1 units int8"]
    assert [p.label for p in found.values() if p.chosen] == ["1 units int8"]
    assert [p.timed for p in found.values()] == [True, True, True, False]
    assert [p.drop for p in found.values()] == [0.0, None, 0.02, 0.005]  # the file is what drops are counted from
    assert [p.predicted_sqnr_db for p in found.values()] == pytest.approx([None, math.inf, 20.0, 30.0])
    assert found["placed 1"].seconds == 4e-3  # the clock goes before costs, which said 3 ms
    assert found["1 units int8"].seconds == pytest.approx(5e-3 * 4 / 3)
    assert found["1 units int8"].speedup == pytest.approx(8 / 5 * 3 / 4)


def test_without_a_budget_the_fastest_is_chosen_and_nothing_is_said_of_accuracy() -> None:
    found = forms(made())
    assert [p.label for p in found if p.chosen] == ["placed 1"]
    assert {(p.drop, p.sqnr_db, p.predicted_sqnr_db) for p in found} == {(None, None, None)}
    by_outputs = forms(made(met=budget(replace(FASTEST, drop=None, sqnr_db=20.0, chosen=True))))
    assert [p.sqnr_db for p in by_outputs] == [math.inf, None, 20.0]
    assert by_outputs[0].drop is None


def test_costs_of_another_machine_are_no_clock() -> None:
    assert not any(p.timed for p in forms(made(placed=replace(PLACED, timed=False))))


def test_a_form_that_raced_is_accounted_for_with_the_time_of_the_race() -> None:
    one, two = accounts(made(), (speed(1, 99.0),))
    assert (one.form, one.threads, one.measured_ms, one.predicted_ms) == ("placed 1", 1, 4.0, 3.5)
    assert (two.threads, two.measured_ms, two.predicted_ms) == (2, 2.0, 1.5)
    assert one.limit_ms == pytest.approx(2.0) and one.timed


def test_a_form_of_the_budget_takes_its_speed_from_what_was_written() -> None:
    found = made(integer=("a",), met=budget(FASTEST, QUIETER))
    one, two = accounts(found, (speed(1, 1.6), speed(4, 9.0)))
    assert one.form == "1 units int8"
    assert one.measured_ms == pytest.approx(5.0) == one.predicted_ms
    assert one.timed
    assert [(lost.name, lost.why) for lost in one.lost if lost.name] == [("b", "b?")]
    assert (two.threads, two.timed, two.predicted_ms) == (2, False, None)  # speed with 2 threads was not measured
    assert two.measured_ms == pytest.approx(5.0)
