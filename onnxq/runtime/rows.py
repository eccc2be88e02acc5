"""Runs of the sessions of a profile: in rows, and the rows in turns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from onnxq.runtime.session import Session
from onnxq.runtime.turns import LONG_SECONDS, rest, rest_seconds, row

LEAST = 1e-7
"""Seconds that anything takes."""

_BLOCK_SECONDS = 5e-3


def times_of(
    sessions: Sequence[Session],
    samples: Sequence[Mapping[str, NDArray[Any]]],
    runs: int,
    threads: int,
    clock: Callable[[], float],
) -> tuple[list[list[float]], list[int]]:
    """Seconds of every run of each session, and which of all runs these are.

    They take turns in blocks of some milliseconds: noise from outside hits all, and small models still find their
    weights in the processor's caches. The first runs do not count, as in a race; with several threads, blocks are those
    of a race altogether.
    """
    once = math.inf
    for _ in range(2):
        start = clock()
        sessions[0].run(samples[0])
        once = min(once, max(clock() - start, LEAST))
        if once > LONG_SECONDS:
            break
    block, warm = _block(once, threads)
    times: list[list[float]] = [[] for _ in sessions]
    counted: list[int] = []
    while len(counted) < runs:
        begin = len(counted)
        end = min(begin + block, runs)
        for own, session in zip(times, sessions, strict=True):
            for _ in range(warm):
                session.run(samples[begin % len(samples)])
            for run in range(begin, end):
                start = clock()
                session.run(samples[run % len(samples)])
                own.append(clock() - start)
            rest(threads)
        first = (counted[-1] + 1 if counted else 0) + warm
        counted.extend(range(first, first + end - begin))
    return times, counted


def run_seconds(once: float, beside: float, threads: int) -> float:
    """What one run of a profile takes, with what goes before and behind it.

    Args:
        once: seconds of a run of the model.
        beside: of the session that takes part.
        threads: intra-op threads.
    """
    block, warm = _block(once, threads)
    return (2 * once + beside) * (block + warm) / block + 3 * rest_seconds(threads) / block


def _block(once: float, threads: int) -> tuple[int, int]:
    """How many runs of a session stand in a row, and how many go before them."""
    warm, inner = row(once, threads)
    return math.ceil(_BLOCK_SECONDS / once) if threads == 1 else inner, warm
