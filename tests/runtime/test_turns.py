"""Sessions timed in turns: what a timing is made of, and that threads come to rest behind it."""

from __future__ import annotations

import time

import numpy as np
import pytest
from onnx import parser

from onnxq.runtime.session import Session
from onnxq.runtime.turns import IN_TURNS, SPIN_SECONDS, Row, medians, order, rest, row, timed, wanted

WIDE = """<ir_version: 8, opset_import: ["" : 17]>
wide (float[512,512] x) => (float[512,512] y) { a = MatMul(x, x) y = MatMul(a, x) }"""


@pytest.mark.parametrize(
    ("fastest", "threads", "warm", "inner"),
    [
        (0.0, 1, 10_000, 10_000),
        (1e-4, 1, 10, 10),
        (1e-4, 2, 30, 60),
        (0.02, 1, 0, 1),
        (0.02, 4, 1, 1),
        (0.2, 2, 1, 1),
        (0.21, 2, 0, 1),
    ],
)
def test_short_runs_are_many_in_one_timing(fastest: float, threads: int, warm: int, inner: int) -> None:
    assert row(fastest, threads) == Row(warm, inner)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("warm", "inner"), [(0, 1), (1, 1), (5, 5), (2, 5)])
def test_what_is_not_timed(warm: int, inner: int, threads: int) -> None:
    clock, done = [0.0], []

    def run() -> None:
        done.append(clock[0])
        clock[0] += 10.0 if len(done) <= warm else 2.0

    runs = Row(warm, inner)
    assert timed(run, runs, threads, lambda: clock[0]) == 2.0
    assert len(done) == warm + inner
    assert wanted([2.0, 4.0], runs, threads) == pytest.approx(6.0 * len(done), abs=4 * SPIN_SECONDS)


def test_each_comes_behind_each_other_alike_often() -> None:
    turns = [order(turn, 3) for turn in range(300)]
    assert all(sorted(turn) == [0, 1, 2] for turn in turns)
    assert turns == [order(turn, 3) for turn in range(300)]
    behind = [turn[at - 1] for turn in turns for at in (1, 2) if turn[at] == 1]
    assert abs(behind.count(0) / len(behind) - 0.5) < 0.1


def test_threads_come_to_rest() -> None:
    inputs = {"x": np.ones((512, 512), np.float32)}

    def left(config: dict[str, str]) -> float:
        """Seconds of the processor after a run and a rest."""
        session = Session(parser.parse_model(WIDE).SerializeToString(), threads=2, config=config)
        found = []
        for _ in range(5):
            session.run(inputs)
            rest(2)
            begun = time.process_time()
            time.sleep(0.05)
            found.append(time.process_time() - begun)
        return min(found)

    assert left(IN_TURNS) < SPIN_SECONDS


def test_medians_of_runs_in_turns() -> None:
    """Each in its place, whatever takes how long; all as often as there are turns, and once to see how long."""
    ran: list[str] = []

    def run(name: str, seconds: float) -> None:
        ran.append(name)
        time.sleep(seconds)

    short, long = medians([lambda: run("short", 2e-3), lambda: run("long", 20e-3)], 3)
    assert short >= 2e-3 and long >= 20e-3
    assert ran == ["short", *["short", "long"] * 3]
