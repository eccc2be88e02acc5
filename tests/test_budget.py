"""The fastest placement within a budget: on values, where every answer is known, and on a real model."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from onnxq import budget
from onnxq.budget import LOUD, Met, meet
from onnxq.config.job import Job
from onnxq.config.placing import Judged
from onnxq.driver import quantize
from onnxq.encoding import Kind
from onnxq.errors import UsageError, VerdictError
from onnxq.ir import text
from onnxq.ir.model import Model
from onnxq.placement.cut import Alternative, Problem, Unit
from onnxq.placement.race import Timing
from onnxq.placement.result import Form, Placed, UnitChoice
from onnxq.plan.plan import MEASURED, Placement, Plan

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "models/fashion-mobilenet/model.onnx"
DATA = ROOT / "models/fashion-mnist"
SOME = text.parse('<ir_version: 8, opset_import: ["" : 17]> m (float x) => (float y) { y = Relu(x) }')


def placed(*gains: float) -> Placed:
    """Units u0, u1 ... that save so many seconds in int8; those that save nothing are float."""
    units = tuple(Unit(name=f"u{i}", float_cost=10.0, integer_cost=10.0 - g) for i, g in enumerate(gains))
    return Placed(
        placement=Placement(
            integer=frozenset(u.name for u, g in zip(units, gains, strict=True) if g > 0),
            floats={u.name: f"{MEASURED}: slower" for u, g in zip(units, gains, strict=True) if g <= 0},
        ),
        chosen="placed 1",
        forms=(Form(name="float", integer_units=0, predicted=1.0, timing=Timing(seconds=1, ratio=1, low=1, high=1)),),
        units=tuple(
            UnitChoice(
                nodes=(u.name,), ops=("Conv",), placeable=(u.name,), integer=g > 0, float_seconds=10.0,
                integer_seconds=10.0 - g, conversion_seconds=0.0, why="",
            )
            for u, g in zip(units, gains, strict=True)
        ),
        problem=Problem(units=units, crossings=()),
        choice=Problem(units=units, crossings=()),
        limit=1.0,
        threads=1,
        notes=(),
    )  # fmt: skip


def met(start: Placed, noise: dict[str, float], limit: float) -> tuple[Met, list[frozenset[str]]]:
    """With a judge that allows a summed noise of `limit`; also what was judged."""
    plans: dict[int, Placement] = {}
    judged: list[frozenset[str]] = []
    current = [start.placement]

    def replan(placement: Placement) -> Plan:
        plan = Plan(values={}, uses={}, decisions={})
        plans[id(plan)] = placement
        keep.append(plan)
        return plan

    keep: list[Plan] = []

    def insert(plan: Plan) -> Model:
        current[0] = plans.get(id(plan), start.placement)
        return SOME

    def judge(_: Model) -> Judged:
        judged.append(current[0].integer)
        loud = sum(noise[n] for n in current[0].integer)
        return Judged(holds=loud <= limit, sentence=f"noise {loud:g}", sqnr_db=-loud)

    plan = Plan(values={}, uses={}, decisions={})
    return meet(start, plan, judge=judge, replan=replan, insert=insert, sense=lambda: noise), judged


def test_what_holds_at_once_is_left_alone_and_nothing_is_sensed() -> None:
    found, judged = met(placed(5.0, 3.0), {"u0": 0.1, "u1": 0.1}, 1.0)
    assert found.holds and judged == [{"u0", "u1"}]
    assert found.points[0].chosen and not found.worst


def test_the_loudest_that_saves_least_goes_first() -> None:
    found, _ = met(placed(5.0, 3.0, 4.0, -1.0), {"u0": 0.1, "u1": 0.8, "u2": 0.2, "u3": 0.0}, 0.5)
    assert found.holds
    assert found.placement.integer == {"u0", "u2"}
    assert found.placement.floats["u1"] == f"{LOUD}: 72.7 % of the noise at the outputs is its"
    assert found.placement.floats["u3"] == f"{MEASURED}: slower"
    assert found.worst == ("u1", "u2", "u0")
    assert [p.chosen for p in found.points].count(True) == 1
    assert "holds with 1 unit fewer in int8: noise 0.3" in found.notes[0]


def test_the_front_goes_from_the_fastest_to_float_and_its_corners_are_those_that_are_judged() -> None:
    start = placed(5.0, 3.0, 4.0, -1.0)
    found, _ = met(start, {"u0": 0.1, "u1": 0.8, "u2": 0.2, "u3": 0.0}, 0.5)
    assert [c.label for c in found.front] == ["placed 1", "2 units int8", "1 units int8", "float"]
    assert [c.noise for c in found.front] == pytest.approx([1.1, 0.3, 0.1, 0.0])
    assert [c.seconds for c in found.front] == pytest.approx([28.0, 31.0, 35.0, 40.0])
    assert {p.label for p in found.points} < {c.label for c in found.front}
    at_once, _ = met(start, {"u0": 0.1, "u1": 0.1, "u2": 0.1, "u3": 0.0}, 1.0)
    assert not at_once.front  # nothing was sensed


def test_a_report_gets_the_front_even_where_the_budget_holds() -> None:
    start = placed(5.0, 3.0)
    noise = {"u0": 0.1, "u1": 0.2}
    plan = Plan(values={}, uses={}, decisions={})
    heard: list[int] = []

    def sense() -> dict[str, float]:
        heard.append(1)
        return noise

    def swept(holds: bool, sweep: bool, start: Placed = start) -> Met:
        return meet(
            start, plan, judge=lambda _: Judged(holds=holds, sentence="said"), replan=lambda _: plan,
            insert=lambda _: SOME, sense=sense, sweep=sweep,
        )  # fmt: skip

    found = swept(True, True)
    assert [c.label for c in found.front] == ["placed 1", "1 units int8", "float"] and heard == [1]
    assert found.holds and found.plan is plan and not found.worst and len(found.points) == 1
    assert not swept(True, False).front and not swept(True, True, placed(-1.0)).front and heard == [1]
    assert swept(False, False).front and heard == [1, 1]


@pytest.mark.parametrize(
    ("effort", "tensors", "swept", "said"),
    [("default", 1, True, False), ("default", 2, False, True), ("max", 2, True, False), ("fast", 1, False, False)],
)
def test_a_front_that_takes_long_is_left_out_and_said(
    effort: str, tensors: int, swept: bool, said: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def watched(*_: object, sweep: bool, **__: object) -> Met:
        asked.append(sweep)
        return Met(holds=True, plan=plan, placement=Placement(), points=())

    monkeypatch.setattr(budget, "meet", watched)
    monkeypatch.setattr(budget, "SWEEP_SECONDS", 1.5 * budget.SLOWER * budget.HEARD)  # a run takes a second
    plan: Any = SimpleNamespace(values=[None] * tensors)
    options: Any = SimpleNamespace(
        budget=None, judge=str, sweep=True, placing=SimpleNamespace(effort=effort, costs=None)
    )
    given: Any = None
    for start in (placed(5.0), placed(-1.0)):
        found = budget.within(start, plan, SOME, given, options, replan=given, insert=given, progress=given)
        assert any("give --effort max" in note for note in found.notes) is (said and start.units[0].integer)
    assert asked == [swept, swept]


@pytest.mark.parametrize(
    ("effort", "costs", "limit"), [("fast", None, 10.0), ("max", None, 600.0), ("fast", "file", None)]
)
def test_noise_is_measured_no_longer_than_the_effort_says_and_estimates_are_said(
    effort: str, costs: str | None, limit: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def sensed(_model: Model, _plan: Plan, _data: Any, sensing: Any, **_: Any) -> Any:
        asked.append(sensing.seconds)
        return SimpleNamespace(unmeasured=2 if limit else 0, tensors=[None] * 5, units=())

    def senses(start: Placed, plan: Plan, *, sense: Any, **_: object) -> Met:
        assert sense() == {}
        return Met(holds=True, plan=plan, placement=start.placement, points=(), notes=("It holds.",))

    monkeypatch.setattr(budget, "sensitivity", sensed)
    monkeypatch.setattr(budget, "meet", senses)
    resources = SimpleNamespace(cache=None, pool=None)
    options: Any = SimpleNamespace(
        judge=str, sweep=False, placing=SimpleNamespace(effort=effort, costs=costs), feedback={}, threads=1,
        resources=resources,
    )  # fmt: skip
    plan = Plan(values={}, uses={}, decisions={})
    given: Any = None
    found = budget.within(placed(5.0), plan, SOME, given, options, replan=given, insert=given, progress=given)
    said = (
        "The noise of 2 of 5 tensors, the quiet ones by their own rounding errors, is an estimate: measuring ended "
        f"after {limit or 0:g} s."
    )
    assert asked == [limit] and found.notes == (("It holds.", said) if limit else ("It holds.",))


def test_a_budget_that_only_float_keeps_is_not_met_and_the_nearest_is_given() -> None:
    found, _ = met(placed(5.0, 3.0, 4.0), {"u0": 0.5, "u1": 0.8, "u2": 0.6}, 0.4)
    assert not found.holds
    assert found.placement.integer == {"u0"}
    assert found.worst == ("u1", "u2", "u0")


def test_a_model_that_stays_float_has_nothing_to_lose() -> None:
    found, judged = met(placed(-1.0), {"u0": 0.5}, -1.0)
    assert found.holds and judged == [frozenset()]


def with_kinds(start: Placed, *costs: float, chosen: bool = True) -> Placed:
    """Each unit can also be dynamic, at these costs; with `chosen`, all are."""
    units = tuple(
        dataclasses.replace(u, alternatives=(Alternative(kind="dynamic", cost=c),))
        for u, c in zip(start.problem.units, costs, strict=True)
    )
    choices = tuple(
        dataclasses.replace(
            c, able={"dynamic": c.nodes}, integer=c.integer and not chosen, kind="dynamic" if chosen else None
        )
        for c in start.units
    )
    problem = Problem(units=units, crossings=())
    kinds: dict[str, Kind] = {u.name: "dynamic" for u in units} if chosen else {}
    return dataclasses.replace(
        start, problem=problem, choice=problem, units=choices,
        placement=Placement(floats=start.placement.floats, kinds=kinds) if chosen else start.placement,
    )  # fmt: skip


def heard(
    start: Placed,
    noise: dict[str, float],
    between: dict[str, float],
    limit: float,
    sensed: dict[str, float] | None = None,
) -> tuple[Met, list[Placement]]:
    """As `met`, with a noise of what is dynamic, too."""
    plans: dict[int, Placement] = {}
    keep: list[Plan] = []
    judged: list[Placement] = []
    current = [start.placement]

    def replan(placement: Placement) -> Plan:
        plan = Plan(values={}, uses={}, decisions={})
        plans[id(plan)] = placement
        keep.append(plan)
        return plan

    def insert(plan: Plan) -> Model:
        current[0] = plans.get(id(plan), start.placement)
        return SOME

    def loud() -> float:
        return sum(noise[n] for n in current[0].integer) + sum(between[n] for n in current[0].kinds)

    def judge(_: Model) -> Judged:
        judged.append(current[0])
        return Judged(holds=loud() <= limit, sentence=f"noise {loud():g}", sqnr_db=-loud())

    plan = Plan(values={}, uses={}, decisions={})
    found = meet(
        start, plan, judge=judge, replan=replan, insert=insert, sense=lambda: sensed or noise, hear=lambda _: loud()
    )  # fmt: skip
    return found, judged


def test_kinds_that_are_too_loud_give_way_one_by_one() -> None:
    start = with_kinds(placed(-1.0, -1.0, -1.0), 5.0, 6.0, 7.0)
    loud = {"u0": 0.3, "u1": 0.3, "u2": 0.3}
    found, judged = heard(start, {"u0": 1.0, "u1": 1.0, "u2": 1.0}, loud, 0.7)
    assert judged[0].kinds == {"u0": "dynamic", "u1": "dynamic", "u2": "dynamic"}
    assert found.holds
    assert found.placement.kinds == {"u0": "dynamic", "u1": "dynamic"}  # u2 saves least
    assert found.placement.floats["u2"] == f"{MEASURED}: slower"
    assert [c.label for c in found.front] == [
        "placed 1", "0 units int8, 2 with float borders", "0 units int8, 1 with float borders", "float"
    ]  # fmt: skip
    assert [c.noise for c in found.front] == pytest.approx([0.9, 0.6, 0.3, 0.0])


def test_a_kind_may_take_the_place_of_int8() -> None:
    start = with_kinds(placed(5.0, 5.0), 6.0, 6.0, chosen=False)
    found, _ = heard(start, {"u0": 1.0, "u1": 0.2}, {"u0": 0.1, "u1": 0.1}, 0.5)
    assert found.holds
    assert (found.placement.integer, found.placement.kinds) == ({"u1"}, {"u0": "dynamic"})


def test_the_noise_of_a_unit_with_bodies_is_heard() -> None:
    start = with_kinds(placed(5.0, 5.0), 9.0, 9.0, chosen=False)
    first, second = start.units
    start = dataclasses.replace(start, units=(dataclasses.replace(first, ops=("If", "Conv")), second))
    noise = {"u0": 0.9, "u1": 0.2}
    found, _ = heard(start, noise, {"u0": 0.1, "u1": 0.1}, 0.5, sensed={"u1": 0.2})
    assert found.holds
    assert (found.placement.integer, found.placement.kinds) == ({"u1"}, {"u0": "dynamic"})
    assert found.front[0].noise == pytest.approx(1.1)


def test_the_noise_of_a_kind_is_shared_as_that_of_int8() -> None:
    start = with_kinds(placed(5.0, 5.0, -1.0), 6.0, 6.0, 6.0, chosen=False)
    found, _ = heard(start, {"u0": 3.0, "u1": 1.0, "u2": 0.0}, {"u0": 0.1, "u1": 0.1, "u2": 0.1}, 0.06)
    # 0.3 in all, in shares of 3, 1 and their mean, 2
    assert found.holds is False
    assert sorted({round(c.noise, 3) for c in found.front}) == [0.0, 0.05, 0.15, 0.3, 1.25, 4.1]


def with_gelu(start: Placed, *at: int) -> Placed:
    units = [dataclasses.replace(u, ops=("Gelu",)) if i in at else u for i, u in enumerate(start.units)]
    return dataclasses.replace(start, units=tuple(units))


def test_gelu_goes_first_and_nothing_is_sensed() -> None:
    found, judged = met(with_gelu(placed(5.0, 3.0, 4.0), 1), {"u0": 0.1, "u1": 0.8, "u2": 0.2}, 0.5)
    assert found.holds and judged == [{"u0", "u1", "u2"}, {"u0", "u2"}]
    assert [(p.label, p.chosen) for p in found.points] == [("placed 1", False), ("placed 1, GELU in float", True)]
    assert found.points[1].seconds == pytest.approx(21.0)
    assert found.notes == ("The accuracy budget holds with GELU in float: noise 0.3 (noise 1.1 in bytes).",)
    assert (found.placement.integer, found.front, found.worst) == ({"u0", "u2"}, (), ())
    assert found.placement.floats == {"u1": f"{LOUD}: in bytes it is another function"}


def test_where_that_does_not_hold_the_search_goes_on() -> None:
    found, judged = met(with_gelu(placed(5.0, 3.0, 4.0), 1), {"u0": 0.1, "u1": 0.3, "u2": 0.8}, 0.5)
    assert found.holds and judged[1] == {"u0", "u2"}
    assert found.placement.integer == {"u0", "u1"}
    assert [p.label for p in found.points[:2]] == ["placed 1", "placed 1, GELU in float"]
    assert [p.chosen for p in found.points].count(True) == 1 and not found.points[1].chosen


def test_a_form_that_gains_by_gelu_alone_has_no_such_step() -> None:
    _, judged = met(with_gelu(placed(5.0), 0), {"u0": 0.8}, 0.5)
    assert judged[0] == {"u0"} and frozenset() not in judged[1:]


def test_the_noise_of_a_gelu_is_heard_alone() -> None:
    start = with_gelu(with_kinds(placed(5.0, 5.0), 9.0, 9.0, chosen=False), 0)
    found, _ = heard(start, {"u0": 0.9, "u1": 0.8}, {"u0": 0.1, "u1": 0.1}, 0.5, sensed={"u0": 0.1, "u1": 0.8})
    assert found.front[0].noise == pytest.approx(1.7)


@pytest.mark.parametrize("count", [3, 10, 40])
def test_few_forms_are_judged(count: int) -> None:
    noise = {f"u{i}": 1.0 + i for i in range(count)}
    found, judged = met(placed(*[5.0] * count), noise, 3.0)
    assert found.holds
    assert found.placement.integer == {"u0", "u1"}
    assert len(judged) <= 8


def made(out: Path, **options: object) -> None:
    job = Job(model=MODEL).with_overrides(
        output=out, calib=str(DATA / "calib.npz"), calib_limit=16, method="minmax", threads=1, speed=False,
        effort="fast", **options,  # type: ignore[arg-type]
    )  # fmt: skip
    result = quantize(job)
    notes = [n for n in result.notes if n.startswith("The accuracy budget")]
    assert len(notes) == 1
    figure = re.search(r"(holds|does not hold)[^:]*: ([\d.]+) dB", notes[0])
    assert figure is not None
    said.append((figure[1], float(figure[2])))


said: list[tuple[str, float]] = []


def test_on_a_real_model_a_tighter_budget_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXQ_CACHE_DIR", str(tmp_path / "cache"))
    said.clear()
    made(tmp_path / "a.onnx", min_sqnr_db=5.0, validate=False)
    first = said[0][1]
    made(tmp_path / "b.onnx", min_sqnr_db=first + 3, validate=False)
    assert [s[0] for s in said] == ["holds", "holds"]
    assert said[1][1] >= first + 3


def test_what_cannot_be_met_is_an_error_and_the_best_is_written_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNXQ_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(
        VerdictError, match=r"the accuracy budget cannot be met \(.* dB SQNR .*\): .*, .*, .* cost most"
    ):
        made(tmp_path / "a.onnx", min_sqnr_db=90.0, validate=False)
    assert not (tmp_path / "a.onnx").exists()
    with pytest.raises(VerdictError):
        made(tmp_path / "a.onnx", min_sqnr_db=90.0, validate=False, keep_best=True)
    assert (tmp_path / "a.onnx").exists()


def test_a_drop_needs_labels_and_a_metric(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs labelled samples and a metric"):
        made(tmp_path / "a.onnx", max_drop="1%")


def test_a_budget_needs_placement_by_cost(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs placement by cost"):
        made(tmp_path / "a.onnx", min_sqnr_db=20.0, placement="rules")
    with pytest.raises(UsageError, match="is not a number"):
        made(tmp_path / "a.onnx", max_drop="much")


def test_the_score_is_kept_where_there_are_labels(tmp_path: Path) -> None:
    job = Job(model=MODEL).with_overrides(
        output=tmp_path / "o.onnx", calib=str(DATA / "calib.npz"), eval=str(DATA / "eval.npz"), metric="top1",
        eval_limit=400, calib_limit=16, method="minmax", threads=1, speed=False, max_drop="0.06",
    )  # fmt: skip
    result = quantize(job)
    assert any(
        re.search(r"budget holds: top1 drops by \S+ on 400 samples, at most 0.06 allowed", n) for n in result.notes
    ), result.notes
    assert result.pareto and any(p.chosen and p.drop is not None for p in result.pareto)
    assert {p.form for p in result.placement} <= {"int8", "float"} and len(result.placement) > 20
