from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import parser

from onnxq import driver
from onnxq.config.job import Job
from onnxq.errors import UsageError
from onnxq.progress import Silent
from onnxq.runtime.turns import IN_TURNS
from onnxq.validate import latency
from onnxq.validate.latency import Latency, measure, summarize

MODEL = "g (float[1,2] x) => (float[1,2] y) { y = Relu(x) }"
INPUTS = [{"x": np.ones((1, 2), np.float32)}]


class FakeSession:
    """Takes as many fake seconds per run as its model says; counts runs."""

    now = 0.0
    log: list[tuple[float, int]]

    def __init__(self, model: bytes, *, threads: int, config: dict[str, str]) -> None:
        self.cost = float(model)
        self.config = config

    def run(self, inputs: dict[str, Any]) -> None:
        FakeSession.now += self.cost
        FakeSession.log.append((self.cost, inputs["n"]))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], float]]:
    FakeSession.now, FakeSession.log = 0.0, []
    monkeypatch.setattr(latency, "Session", FakeSession)
    yield lambda: FakeSession.now


def test_runs_are_interleaved_and_share_their_sample(clock: Any) -> None:
    result = measure(b"0.5", b"0.25", [{"n": 1}, {"n": 2}], runs=3, warmup=1, clock=clock)
    assert FakeSession.log == [(0.5, 1), (0.25, 1), (0.5, 1), (0.25, 1), (0.5, 2), (0.25, 2), (0.5, 1), (0.25, 1)]
    assert (result.pairs, result.inner, result.speedup) == (3, 1, 2.0)
    assert (result.reference_ms, result.candidate_ms) == (500.0, 250.0)
    assert not result.noisy
    assert result.seconds == pytest.approx(4 * 0.75)


def test_number_of_pairs_follows_the_budget(clock: Any) -> None:
    assert measure(b"0.02", b"0.01", [{"n": 1}], budget_seconds=3.0, clock=clock).pairs == pytest.approx(100, abs=1)
    assert measure(b"2", b"1", [{"n": 1}], budget_seconds=3.0, clock=clock).pairs == 5
    assert measure(b"0.001", b"0.001", [{"n": 1}], budget_seconds=30.0, clock=clock).pairs == 1000


def test_a_machine_that_gets_busy_does_not_stretch_the_budget(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: FakeSession, inputs: dict[str, Any]) -> None:
        FakeSession.now += self.cost * (1 if len(FakeSession.log) < 4 else 50)
        FakeSession.log.append((self.cost, inputs["n"]))

    monkeypatch.setattr(FakeSession, "run", run)
    result = measure(b"0.002", b"0.002", [{"n": 1}], budget_seconds=2.0, clock=clock)
    assert result.pairs == pytest.approx(15, abs=1)  # 500 were planned; 0.2 s each, until 1.5 times the budget is spent
    FakeSession.log.clear()
    assert measure(b"0.002", b"0.002", [{"n": 1}], runs=30, budget_seconds=2.0, clock=clock).pairs == 30


def test_short_runs_are_timed_in_groups(clock: Any) -> None:
    result = measure(b"0.0001", b"0.00005", [{"n": 1}], budget_seconds=0.3, clock=clock)
    assert result.inner == pytest.approx(20, abs=1)
    assert 47 <= result.pairs <= 53  # as many runs again go before each group
    assert result.reference_ms == pytest.approx(0.1)


def test_summary_by_hand() -> None:
    times = np.array([[2.0, 1.0], [3.0, 1.0], [4.0, 1.0], [2.0, 2.0], [10.0, 2.0]])
    result = summarize(times, threads=2, inner=1, seconds=1.0)
    assert (result.speedup_low, result.speedup, result.speedup_high) == (2.0, 3.0, 4.0)
    assert result.noisy
    assert (result.reference_ms, result.candidate_ms) == (3000.0, 1000.0)


def test_real_sessions(build: Any) -> None:
    model = build(MODEL)
    result = measure(model, model, INPUTS, threads=2, runs=3, warmup=1)
    assert (result.pairs, result.threads) == (3, 2)
    assert result.reference_ms > 0
    assert result.speedup_low <= result.speedup <= result.speedup_high


def test_idle_pools_do_not_spin(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, str]] = []
    monkeypatch.setattr(
        latency,
        "Session",
        lambda m, threads, config: (seen.append(config), FakeSession(m, threads=threads, config=config))[1],
    )
    measure(b"1", b"1", [{"n": 1}], threads=2, runs=1, clock=clock)
    assert seen == [IN_TURNS] * 2


@pytest.mark.parametrize("bad", [{"inputs": []}, {"threads": 0}, {"runs": 0}])
def test_nothing_to_measure(build: Any, bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="at least one sample"):
        measure(build(MODEL), build(MODEL), **{"inputs": INPUTS, **bad})


@pytest.mark.parametrize(("effort", "seconds"), [("fast", 0.8), ("default", 3.0)])
def test_the_file_is_compared_as_long_as_the_effort_says(
    effort: Any, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    real = driver.measure

    def timed(*arguments: Any, budget_seconds: float, **options: Any) -> Latency:
        asked.append(budget_seconds)
        return real(*arguments, budget_seconds=0.01, **options)

    monkeypatch.setattr(driver, "measure", timed)
    model = tmp_path / "m.onnx"
    model.write_bytes(parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {MODEL}').SerializeToString())
    job = Job(model=model).with_overrides(effort=effort, threads=1)
    (found,) = driver.job_latency(job, model, model, INPUTS, Silent())
    assert asked == [seconds] and found.threads == 1
