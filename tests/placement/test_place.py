"""The whole stage on real models: with made-up costs, where every choice is known, and with measured ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnxq.config.job import Job
from onnxq.costs.files import save
from onnxq.costs.key import CostKey
from onnxq.costs.observe import observe
from onnxq.costs.table import Cost, CostTable
from onnxq.driver import quantize
from onnxq.ir.load import load
from onnxq.ir.model import Model
from onnxq.ir.save import weight_bytes
from onnxq.placement.attribute import Attribution
from onnxq.placement.clock import Clock, Seen, Sessions
from onnxq.placement.cut import Crossing, Problem, Unit
from onnxq.placement.effort import EFFORTS
from onnxq.placement.place import Placer
from onnxq.placement.race import Timing, race
from onnxq.placement.record import from_text, to_text
from onnxq.placement.result import FLOAT, FULL, NEVER_SLOWER, ORIGINAL, PAYS, Form, Placed, UnitChoice
from onnxq.plan.plan import MEASURED, Placement, Plan
from onnxq.progress import Progress
from onnxq.runtime.profile import profile
from onnxq.runtime.session import Session
from onnxq.validate.result import Result

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models/fashion-mobilenet/model.onnx"
CALIB = ROOT / "models/fashion-mnist/calib.npz"


class Recorder:
    """Counts what each task tells."""

    def __init__(self) -> None:
        self.steps: dict[str, int] = {}

    @contextmanager
    def task(self, label: str, total: int | None) -> Iterator[Callable[[int], None]]:
        del total

        def step(done: int) -> None:
            self.steps[label] = self.steps.get(label, 0) + done

        yield step


def made(out: Path, costs: Path | None = None, progress: Progress | None = None, **options: object) -> Result:
    job = Job(model=MODEL).with_overrides(
        output=out, calib=str(CALIB), calib_limit=16, method="minmax", speed=False, effort="fast", costs=costs,
        **{"threads": 1, **options},  # type: ignore[arg-type]
    )  # fmt: skip
    return quantize(job, progress=progress)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> CostTable:
    """Costs of the kernels of both forms, measured here."""
    folder = tmp_path_factory.mktemp("costs")
    inputs = [{"image": np.zeros((1, 1, 28, 28), np.float32)}]
    made(folder / "int8.onnx", placement="rules", validate=False)
    tables = [observe(profile(m, inputs, runs=3)) for m in (MODEL, folder / "int8.onnx")]
    return tables[0].merge(tables[1])


def fixed(table: CostTable, seconds: Callable[[CostKey], float], path: Path) -> Path:
    """A cost file with the keys of the table and made-up times, so that no noise decides."""
    costs = {key: Cost(context=(seconds(key),)) for key in table.costs}
    save(dataclasses.replace(table, costs=costs), path)
    return path


def integer(key: CostKey) -> bool:
    return "QLinear" in key.op or key.op.endswith("QGemm")


def test_where_int8_costs_nothing_all_of_it_is_int8(measured: CostTable, tmp_path: Path) -> None:
    costs = fixed(measured, lambda k: 1e-8 if integer(k) or "uantizeLinear" in k.op else 1e-5, tmp_path / "c.json")
    told = Recorder()
    result = made(tmp_path / "o.onnx", costs, told, validate=False)
    assert told.steps["measuring forms of the model"] >= 1  # that of all int8 at least
    assert result.coverage is not None
    assert not result.coverage.heavy_float
    assert any(note.startswith("Placement by the cost file chose") for note in result.notes)


def test_where_int8_is_dear_the_model_stays_float_and_says_so(measured: CostTable, tmp_path: Path) -> None:
    costs = fixed(measured, lambda k: 1e-3 if integer(k) else 1e-5, tmp_path / "c.json")
    result = made(tmp_path / "o.onnx", costs)
    assert result.coverage is not None and result.accuracy is not None
    assert len(result.coverage.heavy_float) == result.coverage.heavy_total
    assert all(op.reason.startswith(MEASURED) for op in result.coverage.heavy_float)
    assert any("chose float" in note for note in result.notes)
    assert all(output.sqnr_db is None or output.sqnr_db > 80 for output in result.accuracy.outputs)


def test_the_same_cost_file_gives_the_same_bytes(measured: CostTable, tmp_path: Path) -> None:
    costs = fixed(measured, lambda k: 1e-6 * (1 + len(k.inputs)) if integer(k) else 1e-5, tmp_path / "c.json")
    made(tmp_path / "a.onnx", costs, validate=False)
    made(tmp_path / "b.onnx", costs, validate=False)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_strict_is_about_missing_kernels_not_about_what_is_faster(measured: CostTable, tmp_path: Path) -> None:
    costs = fixed(measured, lambda k: 1e-3 if integer(k) else 1e-5, tmp_path / "c.json")
    made(tmp_path / "o.onnx", costs, validate=False, strict=True)


def test_measured_here_the_fastest_form_is_taken_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXQ_CACHE_DIR", str(tmp_path / "cache"))
    seen: list[Placed] = []
    run = Placer.run

    def watched(self: Placer) -> Placed:
        seen.append(run(self))
        return seen[-1]

    monkeypatch.setattr(Placer, "run", watched)
    first = made(tmp_path / "a.onnx")
    (placed,) = seen
    names = [form.name for form in placed.forms]
    assert names[:3] == [ORIGINAL, FLOAT, FULL]
    ratios = {form.name: form.timing.ratio for form in placed.forms}
    assert ratios.pop(ORIGINAL) == 1.0
    best = max(ratios, key=lambda n: ratios[n])
    assert placed.chosen == (best if ratios[best] >= PAYS * ratios[FLOAT] else FLOAT)
    assert 0 < placed.limit <= max(form.timing.seconds for form in placed.forms) * 2
    assert first.accuracy is not None and min(o.sqnr_db or 99 for o in first.accuracy.outputs) > 15

    def fail(*_: object, **__: object) -> Placed:
        raise AssertionError("measured again")

    monkeypatch.setattr(Placer, "run", fail)
    second = made(tmp_path / "b.onnx", validate=False)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert any("measured before on this machine" in note for note in second.notes)


@pytest.mark.parametrize(("block", "filled"), [(24, True), (1, False)])
def test_each_form_is_made_once(block: int, filled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the best one, which is tried with channels that are filled up; where nothing is filled, nothing is raced."""
    keys: list[Any] = []

    run = Placer.run

    def watched(self: Placer) -> Placed:
        insert = self.insert

        def counted(plan: Plan) -> Model:
            keys.append(plan.key)
            found = insert(plan)
            if plan.channel_multiple == block:
                filling.append(weight_bytes(found))
            return found

        plain.append(weight_bytes(self.model))
        self.insert = counted
        return run(self)

    def duels(self: Clock, one: Sessions, other: Sessions) -> bool:
        assert filled and one is not other and filling[-1] > plain[-1]
        duelled.append(one)
        return False

    plain: list[int] = []
    filling: list[int] = []

    duelled: list[Sessions] = []
    monkeypatch.setattr(Placer, "run", watched)
    monkeypatch.setattr(Clock, "wins", duels)
    monkeypatch.setattr("onnxq.placement.place.best", lambda _: 0)  # float
    monkeypatch.setattr("onnxq.placement.place.detect", lambda: SimpleNamespace(channel_block=block))
    made(tmp_path / "a.onnx", model=ROOT / "models/fashion-res8/model.onnx", validate=False, cache=False)
    assert len(keys) == len(set(keys)) and [key[-1] for key in keys].count(block) == 1
    assert len(duelled) == filled


def test_without_a_number_of_threads_it_is_placed_for_one_and_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxq.placement.effort.physical_threads", lambda: 2)
    seen: list[Placed] = []
    run = Placer.run
    monkeypatch.setattr(Placer, "run", lambda self: seen.append(run(self)) or seen[-1])
    made(tmp_path / "a.onnx", threads=None, validate=False)
    (placed,) = seen
    assert (placed.threads, placed.others) == (1, (2,))
    assert all(len(form.timings) == 2 for form in placed.forms)
    chosen = next(f for f in placed.forms if f.name == placed.chosen)
    assert chosen.name == FLOAT or chosen.slowest >= NEVER_SLOWER


@pytest.mark.parametrize("name", ["fashion-vit", "fashion-res8"])
def test_what_the_profile_of_a_form_saw_is_what_it_costs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some ops of the float model vanish into kernels of a form; what they took before is not its time."""
    seen: list[Placed] = []
    profiles: dict[int, Attribution] = {}

    def profiled(self: Clock, model: Any, sessions: Sessions, before: Sequence[Seen] = ()) -> list[Seen]:
        found = real_profiles(self, model, sessions, before)
        profiles[id(sessions)] = found[0].attribution
        return found

    def race(self: Clock, forms: Sequence[Sessions]) -> list[list[Timing]]:
        """The first form as long as in its profile; of the others the last one wins."""
        order = [form for form in forms if id(form) in profiles]
        ratios = [1.0, 1.0, *(1.0 + 0.1 * at for at in range(1, len(order)))]
        seconds = self._anchors[0]  # the clock of the profiles
        taken.append(profiles[id(order[-1])])
        return [[Timing(seconds=seconds / r, ratio=r, low=r, high=r) for r in ratios]]

    taken: list[Attribution] = []
    real_profiles = Clock.profiles
    monkeypatch.setattr(Clock, "profiles", profiled)
    monkeypatch.setattr(Clock, "race", race)
    monkeypatch.setattr(Clock, "nearest", lambda self, model, sessions, seen, *_: seen)
    monkeypatch.setattr(Clock, "wins", lambda *_: False)
    monkeypatch.setitem(EFFORTS, "fast", dataclasses.replace(EFFORTS["default"], profile_seconds=0.1))
    run = Placer.run
    monkeypatch.setattr(Placer, "run", lambda self: seen.append(run(self)) or seen[-1])
    made(tmp_path / "a.onnx", model=ROOT / f"models/{name}/model.onnx", validate=False, cache=False)
    (placed,), one = seen, taken[-1]
    assert placed.chosen == placed.forms[-1].name
    spent = one.call + sum(map(sum, (one.nodes.values(), one.quantize.values(), one.dequantize.values())))
    assert placed.problem.cost(placed.labels, placed.kinds) == pytest.approx(spent, rel=0.01)


def test_what_is_kept_comes_back_and_anything_else_does_not() -> None:
    timing = Timing(seconds=0.1, ratio=1.0, low=0.9, high=1.1)
    costs = Problem(
        units=(Unit(name="a", float_cost=0.3, integer_cost=0.1, noise=0.0),),
        crossings=(
            Crossing(tensor="t", producer=None, readers=(0,), float_readers=True, quantize=0.1, dequantize=0.2),
        ),
        fixed=0.5,
    )
    placed = Placed(
        placement=Placement(integer=frozenset({"a", "b"}), floats={"c": "why"}),
        chosen="placed 1",
        forms=(Form(name="float", integer_units=0, predicted=1 / 3, timing=timing, others=(timing,)),),
        units=(
            UnitChoice(
                nodes=("a",), ops=("Conv",), placeable=("a",), integer=True, float_seconds=0.3, integer_seconds=0.1,
                conversion_seconds=0.01, why="",
            ),
        ),
        problem=costs,
        choice=costs,
        limit=0.1,
        threads=1,
        others=(2,),
        notes=("said",),
    )  # fmt: skip
    assert from_text(to_text(placed)) == placed
    for text in ("", "[]", "{}", '{"version": 2}', to_text(placed).replace("forms", "form")):
        assert from_text(text) is None


@pytest.mark.parametrize("others", [0.9, 0.99])
def test_what_the_passes_make_slower_is_written_as_the_file_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: float
) -> None:
    """The clock is made up: no pass is known to make this model slower."""

    def slow(self: Clock, forms: Sequence[Sessions]) -> list[list[Timing]]:
        ratios = [1.0, *[others] * (len(forms) - 1)]
        return [[Timing(seconds=1e-3 / r, ratio=r, low=r, high=r) for r in ratios] for _ in self.counts]

    monkeypatch.setattr(Clock, "race", slow)
    monkeypatch.setenv("ONNXQ_CACHE_DIR", str(tmp_path / "cache"))
    result = made(tmp_path / "o.onnx", validate=False)
    same = others < 1 / PAYS
    ops = [[n.op for n in load(path).graph.nodes] for path in (MODEL, tmp_path / "o.onnx")]
    assert (ops[0] == ops[1]) is same
    told = "The model is written as the file has it: with the passes it would run 1.11 times as long."
    assert (told in result.notes) is same


@pytest.mark.parametrize(("few", "options", "samples"), [
    (4, {}, 4), (4, {"metric": "cosine"}, 16), (None, {}, 16), (16, {}, 16),
])  # fmt: skip
def test_without_evaluation_data_a_low_effort_compares_on_some_of_the_calibration_samples(
    few: int | None, options: dict[str, object], samples: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spread over all of them; a metric sees them all."""
    monkeypatch.setitem(EFFORTS, "fast", dataclasses.replace(EFFORTS["fast"], checked_samples=few))
    accuracy = made(tmp_path / "a.onnx", placement="rules", **options).accuracy
    assert accuracy is not None
    assert accuracy.samples == samples
    assert accuracy.data.startswith(f"{samples} of ")


def test_a_race_goes_in_turns_and_counts_what_the_clock_says() -> None:
    now = iter(np.arange(0, 1000, 0.5))
    sessions = [Session(MODEL, threads=1), Session(MODEL, threads=1)]
    first, second = race(
        sessions, [{"image": np.zeros((1, 1, 28, 28), np.float32)}], threads=1, budget_seconds=1.0,
        clock=lambda: float(next(now)),
    )  # fmt: skip
    assert (first.seconds, second.seconds, first.ratio, second.ratio) == (0.5, 0.5, 1.0, 1.0)
