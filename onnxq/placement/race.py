"""Several forms of one model against the clock, in turns, so that a noisy neighbour hits all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.runtime.session import Session
from onnxq.runtime.sizes import Sizes, calm
from onnxq.runtime.turns import LONG_SECONDS, order, rest, row, timed, wanted

Inputs = Mapping[str, NDArray[Any]]

_FEWEST, _MOST = 7, 300
_ESTIMATES, _ENOUGH = 10, 5e-3  # runs of each at first, the least counts; two if they take so many seconds


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Of one form, in the calm turns (`onnxq.runtime.sizes.calm`).

    Attributes:
        seconds: median of one run; where samples differ in size, the mean of their medians.
        ratio: median over turns of the first form's time / this one's; above 1 this one is faster.
        low, high: quartiles of the same ratios.
    """

    seconds: float
    ratio: float
    low: float
    high: float


def race(
    sessions: Sequence[Session],
    samples: Sequence[Inputs],
    *,
    threads: int,
    budget_seconds: float,
    clock: Callable[[], float] | None = None,
) -> list[Timing]:
    """Time every session in turns; the first is what the others are compared with. Sessions of several threads are
    made with `onnxq.runtime.turns.IN_TURNS`.

    With one thread the clock is the time that this thread computes, which other processes do not lengthen.
    """
    return timings([laps(sessions, samples, threads=threads, budget_seconds=budget_seconds, clock=clock)], samples)


def laps(
    sessions: Sequence[Session],
    samples: Sequence[Inputs],
    *,
    threads: int,
    budget_seconds: float,
    fewest: int = _FEWEST,
    clock: Callable[[], float] | None = None,
) -> NDArray[np.float64]:
    """Seconds of one run [turns, sessions], a part of a race; turn `i` has sample `i` modulo their number."""
    clock = clock or (time.thread_time if threads == 1 else time.perf_counter)
    estimates = []
    for session in sessions:
        once: list[float] = []
        for run in range(_ESTIMATES):
            start = clock()
            session.run(samples[0])
            once.append(max(clock() - start, 1e-7))
            if sum(once) > (_ENOUGH if run else LONG_SECONDS):
                break
        estimates.append(min(once[1:] or once))
        rest(threads)
    runs = row(min(estimates), threads)
    turns = int(np.clip(budget_seconds / wanted(estimates, runs, threads), fewest, _MOST))
    times: NDArray[np.float64] = np.empty((turns, len(sessions)), dtype=np.float64)
    for turn in range(turns):
        sample = samples[turn % len(samples)]
        for which in order(turn, len(sessions)):
            times[turn, which] = timed(partial(sessions[which].run, sample), runs, threads, clock)
    return np.maximum(times, 1e-9)


def timings(parts: Sequence[NDArray[np.float64]], samples: Sequence[Inputs]) -> list[Timing]:
    """What the parts of a race say of each session."""
    sizes, times = Sizes.of(samples), np.concatenate(parts)
    size = np.concatenate([sizes.runs(len(part)) for part in parts])
    counts = calm(times, size)
    times, size = times[counts], size[counts]
    low, middle, high = np.quantile(times[:, :1] / times, [0.25, 0.5, 0.75], axis=0)
    seconds = [sizes.typical(own.tolist(), statistics.median, size.tolist()) for own in times.T]
    return [
        Timing(seconds=float(s), ratio=float(m), low=float(a), high=float(b))
        for s, m, a, b in zip(seconds, middle, low, high, strict=True)
    ]
