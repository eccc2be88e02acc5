"""Sessions that are timed in turns in one process, each as fast as it would be alone.

After a run, threads of a session spin for 30 ms to be ready for the next. In turns they would take the cores from the
next session; stopped at the end of each run (`session.force_spinning_stop`), they would have to be woken for each,
which costs a model of half a millisecond more than a second thread saves. So they spin between the runs of one
timing, and the next timing begins when they have stopped.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

SPIN_SECONDS = 3e-3
"""Longer than threads wait inside a run for work."""

IN_TURNS = {"session.intra_op.spin_duration_us": str(round(SPIN_SECONDS * 1e6))}
"""Configuration of such sessions."""

# one timing is at least this long: the clock and the call cost about a microsecond, waking threads 50
_LEAST_SECONDS, _LEAST_SPREAD = 1e-3, 6e-3

LONG_SECONDS = 0.2
"""A run that takes so long is a mean of many things: nothing has to go before it, and few of them are enough."""


class Row(NamedTuple):
    """Runs of one timing.

    Attributes:
        warm: go before, and do not count.
        inner: count.
    """

    warm: int
    inner: int


def row(fastest: float, threads: int) -> Row:
    """The runs of one timing, if the fastest session takes so many seconds.

    As many as count go before them, except where a run is long: caches fill, and the processor recovers from the last
    session. Of several threads, half as many go before: threads wake, and may have to find a core of their own.
    """
    inner = max(1, math.ceil((_LEAST_SECONDS if threads == 1 else _LEAST_SPREAD) / max(fastest, 1e-7)))
    if threads == 1:
        return Row(inner * (inner > 1), inner)
    return Row(0 if fastest > LONG_SECONDS else max(1, inner // 2), inner)


def wanted(estimates: Sequence[float], runs: Row, threads: int) -> float:
    """Seconds that one timing of each session takes, if one run takes so many."""
    return sum(estimate * sum(runs) + rest_seconds(threads) for estimate in estimates)


def timed(run: Callable[[], object], runs: Row, threads: int, clock: Callable[[], float]) -> float:
    """Seconds of one run, the mean of those that count; then its threads rest."""
    for _ in range(runs.warm):
        run()
    start = clock()
    for _ in range(runs.inner):
        run()
    seconds = (clock() - start) / runs.inner
    rest(threads)
    return seconds


def medians(runs: Sequence[Callable[[], object]], turns: int) -> list[float]:
    """Seconds of one run of each, of sessions with one thread: the median over turns in which all come once."""
    begin = time.perf_counter()
    runs[0]()
    each = row(time.perf_counter() - begin, 1)
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(turns):
        for run, found in zip(runs, seconds, strict=True):
            found.append(timed(run, each, 1, time.perf_counter))
    return [statistics.median(found) for found in seconds]


def order(turn: int, sessions: int) -> list[int]:
    """Which session comes when in a turn: another order in each, the same ones in every race. What comes behind a
    session with wide vector instructions finds a processor that these slowed down, for some milliseconds.
    """
    return [int(which) for which in np.random.default_rng(turn).permutation(sessions)]


def rest(threads: int) -> None:
    """Wait until the threads of the session that ran last have stopped."""
    if threads > 1:
        time.sleep(rest_seconds(threads))


def rest_seconds(threads: int) -> float:
    """How long `rest` waits."""
    return 1.5 * SPIN_SECONDS if threads > 1 else 0.0
