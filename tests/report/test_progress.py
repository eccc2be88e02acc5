from __future__ import annotations

import io
from typing import Any

import pytest

from onnxq.report.progress import Bar, Lines, make_progress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(progress: Any, clock: Clock, steps: int, seconds: float, total: int | None = None) -> None:
    with progress.task("calibrating", total) as step:
        for _ in range(steps):
            clock.now += seconds
            step(1)


def test_short_work_shows_nothing() -> None:
    for kind in (Bar, Lines):
        clock, out = Clock(), io.StringIO()
        run(kind(out, clock=clock), clock, 9, 0.1)
        assert out.getvalue() == ""


def test_lines_come_after_a_second_then_every_five_and_at_the_end() -> None:
    clock, out = Clock(), io.StringIO()
    run(Lines(out, clock=clock), clock, 14, 0.5, total=14)
    assert out.getvalue().splitlines() == [
        "calibrating: 2 of 14 (1 s, 2.00/s, 6 s left)",
        "calibrating: 12 of 14 (6 s, 2.00/s, 1 s left)",
        "calibrating: 14 of 14 (took 7 s, 2.00/s)",
    ]


def test_lines_without_a_total() -> None:
    clock, out = Clock(), io.StringIO()
    run(Lines(out, clock=clock), clock, 1, 2.0)
    assert out.getvalue().splitlines() == ["calibrating: 1 (2 s, 0.50/s)", "calibrating: 1 (took 2 s, 0.50/s)"]


def test_an_error_in_the_work_passes_through() -> None:
    clock, out = Clock(), io.StringIO()
    with pytest.raises(ZeroDivisionError), Lines(out, clock=clock).task("x", 3) as step:
        clock.now = 2.0
        step(1)
        step(1 // 0)
    assert out.getvalue().splitlines()[-1] == "x: 1 of 3 (took 2 s, 0.50/s)"


def test_the_bar_appears_after_a_second(monkeypatch: Any) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    clock, out = Clock(), Tty()
    run(Bar(out, clock=clock), clock, 4, 0.6, total=4)
    assert "calibrating" in out.getvalue()
    assert "1.67/s" in out.getvalue()


def test_the_stream_decides() -> None:
    assert isinstance(make_progress(Tty()), Bar)
    assert isinstance(make_progress(io.StringIO()), Lines)
