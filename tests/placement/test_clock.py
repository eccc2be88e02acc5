"""Forms on one clock, whatever the machine does between profiles."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxq.ir.load import load
from onnxq.placement.attribute import attribute
from onnxq.placement.clock import Clock
from onnxq.placement.effort import EFFORTS
from onnxq.placement.race import Timing, laps, timings
from onnxq.runtime import profile as real
from onnxq.runtime.profile import Profile

MODEL = Path(__file__).parents[2] / "models/fashion-res8/model.onnx"
WAITING = replace(EFFORTS["fast"], waiting_seconds=1.0)
NO_TIME_LEFT = math.nan
IMAGE = {"image": np.zeros((1, 1, 28, 28), np.float32)}


def slower(seen: Profile, factor: float) -> Profile:
    """What the profiler would have said of a machine that is so many times slower."""
    return replace(
        seen,
        kernels=tuple(replace(k, seconds=k.seconds * factor) for k in seen.kernels),
        **{n: getattr(seen, n) * factor for n in ("seconds", "call", "fast", "beside_seconds")},
    )


def test_profiles_are_brought_to_the_clock_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Profile] = []

    def profiled(*arguments: Any, **options: Any) -> Profile:
        seen.append(slower(real.profile(*arguments, **options), 3.0 ** len(seen)))
        return seen[-1]

    monkeypatch.setattr("onnxq.placement.clock.profile", profiled)
    model = load(MODEL)
    clock = Clock((1,), [IMAGE], EFFORTS["fast"])
    first = clock.sessions(model)
    found = [clock.profiles(model, clock.sessions(model) if at else first)[0] for at in range(2)]
    totals = [sum(one.attribution.nodes.values()) + one.attribution.call for one in found]
    now = seen[0].beside_seconds / seen[1].beside_seconds
    assert 0.15 < now < 0.6
    assert totals[1] == pytest.approx(now * seen[1].seconds, rel=0.05)
    assert totals[1] == pytest.approx(totals[0], rel=0.3)
    anchor = seen[0].beside_seconds
    timing = Timing(seconds=1.7 * anchor, ratio=1.0, low=1.0, high=1.0)
    assert clock.drift([timing]) == [pytest.approx(1.7)]


def test_a_race_goes_in_parts_with_other_numbers_of_threads_between(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def laps(sessions: Any, samples: Any, *, threads: int, budget_seconds: float, fewest: int) -> Any:
        assert budget_seconds == pytest.approx(EFFORTS["default"].race_seconds / 3) and fewest == 3
        asked.append(threads)
        return np.full((4, len(sessions)), 1e-3) / [1.0, 2.0]

    monkeypatch.setattr("onnxq.placement.clock.laps", laps)
    clock = Clock((1, 2), [IMAGE], EFFORTS["default"])
    model = load(MODEL)
    found = clock.race([clock.sessions(model), clock.sessions(model)])
    assert asked == [1, 2, 1, 2, 1, 2]
    assert [[t.ratio for t in each] for each in found] == [[1.0, 2.0], [1.0, 2.0]]


class Slow:
    """A session whose runs take so long on a clock of its own."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.runs, self.now = seconds, 0, 0.0

    def run(self, _inputs: Any) -> None:
        self.runs += 1
        self.now += self.seconds


@pytest.mark.parametrize(("seconds", "runs"), [(1.1e-3, 5 + 2 * 9), (0.1, 2 + 2 * 2), (0.3, 1 + 2)])
def test_long_runs_are_few(seconds: float, runs: int) -> None:
    """Those before the turns, and two turns: the fewest."""
    session = Slow(seconds)
    found = laps(
        [session],  # type: ignore[list-item]
        [{}],
        threads=2,
        budget_seconds=0.0,
        fewest=2,
        clock=lambda: session.now,
    )
    assert found.tolist() == [[pytest.approx(seconds)]] * 2
    assert session.runs == runs


@pytest.mark.parametrize(("anchor", "wanted"), [(0.1, (3, 5, 2)), (0.3, (2, 3, 1))])
def test_a_slow_model_is_measured_less(
    anchor: float, wanted: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewest turns of a part of a race, runs of a profile and runs before it."""
    asked: list[int] = []

    def raced(sessions: Any, samples: Any, *, fewest: int, **_: Any) -> Any:
        asked.append(fewest)
        return np.full((4, len(sessions)), anchor)

    def profiled(*arguments: Any, runs: int, warmup: int, **options: Any) -> Profile:
        asked.extend((runs, warmup))
        return replace(real.profile(*arguments, runs=runs, warmup=warmup, **options), beside_seconds=anchor)

    monkeypatch.setattr("onnxq.placement.clock.laps", raced)
    monkeypatch.setattr("onnxq.placement.clock.profile", profiled)
    clock, model = Clock((1,), [IMAGE], EFFORTS["fast"]), load(MODEL)
    sessions = clock.sessions(model)
    clock.profiles(model, sessions)
    clock.race([sessions])
    assert asked == [1, *wanted[1:], *[wanted[0]] * 3]


def test_what_was_disturbed_does_not_count() -> None:
    calm, disturbed = np.ones((12, 2)) / [1.0, 1.5], np.ones((8, 2)) * 2.5 / [1.0, 0.9]
    second = timings([calm, disturbed], [IMAGE])[1]
    assert (second.seconds, second.ratio, second.low) == (
        pytest.approx(1 / 1.5),
        pytest.approx(1.5),
        pytest.approx(1.5),
    )


def machine(monkeypatch: pytest.MonkeyPatch, *states: float) -> list[float]:
    """One whose speed changes from profile to profile; the states that were seen."""
    seen: list[float] = []

    def profiled(*arguments: Any, **options: Any) -> Profile:
        seen.append(states[min(len(seen), len(states) - 1)])
        found = real.profile(*arguments, **options)
        return replace(slower(found, seen[-1]), beside_seconds=seen[-1])

    monkeypatch.setattr("onnxq.placement.clock.profile", profiled)
    monkeypatch.setattr(Clock, "_probe", lambda *_: None)
    return seen


@pytest.mark.parametrize(
    ("threads", "states", "used"),
    [
        (1, (1.0, 2.5, 1.0), [1.0, 2.5]),
        (2, (1.0, 1.1, 1.0), [1.0, 1.1]),
        (2, (1.0, 2.5, 1.0), [1.0, 1.0]),
        (2, (1.0, 2.5, 2.4, 2.6, 2.45), [1.0, 2.4]),
    ],
)
def test_what_is_profiled_in_a_slow_moment_is_profiled_again(
    threads: int, states: tuple[float, ...], used: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, model = machine(monkeypatch, *states), load(MODEL)
    clock = Clock((threads,), [IMAGE], WAITING)
    sessions = clock.sessions(model)
    found = [clock.profiles(model, sessions)[0].beside for _ in range(2)]
    assert found == used
    again = Clock((threads,), [IMAGE], EFFORTS["fast"])  # which waits for nothing
    before = len(seen)
    for _ in range(2):
        again.profiles(model, sessions)
    assert len(seen) == before + 2


def test_the_first_form_is_probed_before_it_is_profiled(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Clock._probe
    seen, model = machine(monkeypatch, 1.0), load(MODEL)
    monkeypatch.setattr(Clock, "_probe", probe)
    speeds = iter([2e-3, 2e-3, 1e-3, *[2e-3] * 9])

    def raced(*_: Any, **__: Any) -> list[Timing]:
        now = next(speeds)
        return [Timing(seconds=now, ratio=1.0, low=1.0, high=1.0)]

    monkeypatch.setattr("onnxq.placement.clock.race", raced)
    clock = Clock((2,), [IMAGE], replace(WAITING, waiting_seconds=0.5))
    assert clock.stale(clock.profiles(model, clock.sessions(model)))  # 1 s beside, 1 ms was possible
    assert len(seen) > 1


def test_what_turns_out_to_have_been_slow_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 2.5, 1.0)
    clock, model = Clock((2,), [IMAGE], WAITING), load(MODEL)
    sessions = clock.sessions(model)
    first = clock.profiles(model, sessions)
    assert not clock.stale(first)
    second = clock.profiles(model, sessions)
    assert clock.stale(first) and not clock.stale(second)
    assert clock.profiles(model, sessions, first)[0].beside == 1.0
    assert clock.profiles(model, sessions, second) == second


def test_a_race_in_a_slow_moment_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 1.0)
    clock, model = Clock((2,), [IMAGE], WAITING), load(MODEL)
    first, other = clock.sessions(model), clock.sessions(model)
    clock.profiles(model, first)
    for speeds, parts in (([2.0] * 9, 6), ([2.0, 2.0, 2.0, 2.0, 1.0], 5), ([1.0] * 9, 3)):
        each = iter(speeds)
        monkeypatch.setattr("onnxq.placement.clock.laps", lambda *_, **__: np.full((4, 2), next(each)))  # noqa: B023
        clock.race([other, first])
        assert len(list(each)) == len(speeds) - parts


@pytest.mark.parametrize(
    ("raced", "states", "used"),
    [
        (1.01, [], 1.0),
        (1.6, [1.0, 1.59], 1.59),
        (1.6, [1.0, 2.5, 1.8, 1.0], 1.8),
        (0.5, [2.0] * 4, 1.0),
        (1.6, [1.0, 1.8, NO_TIME_LEFT], 1.8),
    ],
)
def test_what_explains_a_race_is_a_profile_in_its_state(
    raced: float, states: list[float], used: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow or not: the float form does not suffer here, so that states show in the form itself."""
    machine(monkeypatch, 1.0)
    clock, model = Clock((2,), [IMAGE], WAITING), load(MODEL)
    sessions = clock.sessions(model)
    (before,) = clock.profiles(model, sessions)
    seen = iter(states)

    now = [0.0]
    monkeypatch.setattr("onnxq.placement.clock.time.monotonic", lambda: now[0])

    def profiled(*_: Any, **__: Any) -> Profile:
        state = next(seen)
        now[0] += 2.0 * (states[-1] is NO_TIME_LEFT and state == states[-2])
        return replace(slower(plain, state), beside_seconds=1.0)

    plain = real.profile(MODEL, [IMAGE], threads=2, runs=5)
    whole = attribute(plain, model.graph).total
    before = replace(before, attribution=before.attribution.scaled(whole / before.attribution.total))
    monkeypatch.setattr("onnxq.placement.clock.profile", profiled)
    made: list[bool] = []
    tables = len(clock._tables)
    (found,) = clock.nearest(lambda: made.append(True) or model, sessions, [before], [2.0], [2.0 * raced * whole])
    assert found.attribution.total == pytest.approx(used * whole, rel=0.05)
    assert list(seen) == [NO_TIME_LEFT] * (NO_TIME_LEFT in states) and len(made) == bool(states)
    assert len(clock._tables) == tables  # nothing for other models

    again = Clock((2,), [IMAGE], EFFORTS["fast"])
    assert again.nearest(lambda: pytest.fail("it was made"), sessions, [before], [2.0], [9.0]) == [before]


def test_samples_of_two_sizes_count_alike() -> None:
    samples = [{"x": np.zeros(n, np.float32)} for n in (1, 5)]
    parts = [np.array([[1.0], [9.0], [1.0]]), np.array([[1.2], [9.0]])]
    assert timings(parts, samples)[0].seconds == pytest.approx(5.0)
