"""Which model is faster? Pairs of runs in one process, so that a noisy neighbour hits both."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.errors import UsageError
from onnxq.runtime.session import Session
from onnxq.runtime.turns import IN_TURNS, order, row, timed, wanted
from onnxq.validate.intervals import Interval, median_interval

Inputs = Mapping[str, NDArray[Any]]

_NOISY = 0.15
_FEWEST_PAIRS = 5
_MOST_PAIRS = 1000


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Interleaved timings A B A B ... of a float model A and a quantized model B.

    Attributes:
        threads: intra-op threads of both.
        pairs: timed pairs; each timing is the mean of `inner` runs.
        reference_ms, candidate_ms: medians, milliseconds per run.
        speedup: median over pairs of reference / candidate; above 1 the candidate is faster.
        speedup_low, speedup_high: quartiles of the same ratios.
        speedup_interval: 95 % interval of the median ratio (or of the level that was asked for).
        candidate_interval: of the candidate's median, milliseconds.
        noisy: the quartiles are more than 15 % of the median apart: read the ratio with care.
        seconds: what the measurement took.
    """

    threads: int
    pairs: int
    inner: int
    reference_ms: float
    candidate_ms: float
    speedup: float
    speedup_low: float
    speedup_high: float
    noisy: bool
    seconds: float
    speedup_interval: Interval | None = None
    candidate_interval: Interval | None = None

    @property
    def noise(self) -> float:
        """Distance of the quartiles over the median of the ratio."""
        return (self.speedup_high - self.speedup_low) / self.speedup


def measure(
    reference: Path | bytes,
    candidate: Path | bytes,
    inputs: Sequence[Inputs],
    *,
    threads: int = 1,
    runs: int | None = None,
    warmup: int = 2,
    budget_seconds: float = 3.0,
    level: float = 0.95,
    clock: Callable[[], float] = time.perf_counter,
) -> Latency:
    """Time both models.

    Args:
        reference: the float model.
        candidate: the quantized model.
        inputs: one or more sets of inputs, used in turn; both models of a pair get the same one.
        threads: intra-op threads of both sessions.
        runs: pairs to time; None: as many as fit the budget, 5 to 1,000.
        warmup: untimed runs of each before.
        budget_seconds: aimed at; models too slow for 5 pairs within it take longer.
        level: of the intervals.
        clock: seconds; tests give their own.

    Raises:
        UsageError: there is nothing to run with.
        ModelError: a model does not load or run.
    """
    if not inputs or threads < 1 or (runs is not None and runs < 1):
        raise UsageError("a latency measurement needs at least one sample, one thread and one run")
    begin = clock()
    sessions = [Session(m, threads=threads, config=IN_TURNS) for m in (reference, candidate)]
    estimates = [_warm(s, inputs[0], warmup, clock) for s in sessions]
    each = row(min(estimates), threads)
    if runs is None:
        runs = int(np.clip(budget_seconds / max(wanted(estimates, each, threads), 1e-7), _FEWEST_PAIRS, _MOST_PAIRS))
        deadline = clock() + 1.5 * budget_seconds  # a machine that got busy after the estimate
    else:
        deadline = math.inf
    times = np.empty((runs, 2))
    for pair in range(runs):
        if pair >= _FEWEST_PAIRS and clock() > deadline:
            times = times[:pair]
            break
        sample = inputs[pair % len(inputs)]
        for side in order(pair, len(sessions)):
            times[pair, side] = timed(partial(sessions[side].run, sample), each, threads, clock)
    return summarize(times, threads=threads, inner=each.inner, seconds=clock() - begin, level=level)


def summarize(times: NDArray[np.float64], *, threads: int, inner: int, seconds: float, level: float = 0.95) -> Latency:
    """Medians and quartiles of timings [pairs, 2] (float model, quantized model), seconds per run."""
    ratios = times[:, 0] / times[:, 1]
    low, middle, high = (float(q) for q in np.quantile(ratios, [0.25, 0.5, 0.75]))
    reference, candidate = (float(m) for m in np.median(times, axis=0) * 1e3)
    return Latency(
        threads=threads,
        pairs=len(times),
        inner=inner,
        reference_ms=reference,
        candidate_ms=candidate,
        speedup=middle,
        speedup_low=low,
        speedup_high=high,
        noisy=(high - low) / middle > _NOISY,
        seconds=seconds,
        speedup_interval=median_interval(ratios, level=level),
        candidate_interval=median_interval(times[:, 1] * 1e3, level=level),
    )


def _warm(session: Session, inputs: Inputs, warmup: int, clock: Callable[[], float]) -> float:
    """Seconds of the fastest of the warm-up runs (at least one)."""
    best = math.inf
    for _ in range(max(1, warmup)):
        start = clock()
        session.run(inputs)
        best = min(best, clock() - start)
    return best
