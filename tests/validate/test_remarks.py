"""Sentences about what was measured."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from onnxq.validate.accuracy import Accuracy, MetricResult
from onnxq.validate.coverage import Coverage
from onnxq.validate.intervals import Interval
from onnxq.validate.latency import Latency
from onnxq.validate.outputs import OutputAccuracy
from onnxq.validate.remarks import LOST_DB, SLOWER, lost, slow


def accuracy(*decibels: float | None) -> Accuracy:
    outputs = [OutputAccuracy(name=f"y{i}", dtype="float32", elements=4, sqnr_db=d) for i, d in enumerate(decibels)]
    return Accuracy(samples=2, data="two", outputs=tuple(outputs))


def test_outputs_that_are_lost_are_said() -> None:
    (said,) = lost(accuracy(0.04, 50.0, LOST_DB - 0.1))
    assert "(SQNR of y0 0.0 dB, y2 9.9 dB): judge them by labelled samples" in said
    assert lost(accuracy(-3.0))[0].startswith("The outputs are far from those of the float model")
    assert "y2 1.0 dB and 2 more" in lost(accuracy(1.0, 1.0, 1.0, 1.0, 1.0))[0]


@pytest.mark.parametrize("decibels", [LOST_DB, 60.0, math.inf, None])
def test_near_misses(decibels: float | None) -> None:
    """Near enough, equal, and outputs that are no floats."""
    assert lost(accuracy(decibels)) == ()


def test_labels_say_more() -> None:
    metric = MetricResult(
        name="top1",
        higher_is_better=True,
        samples=2,
        reference=1.0,
        candidate=1.0,
        drop=0.0,
        interval=Interval(low=0.0, high=0.0),
        resamples=0,
    )
    assert lost(replace(accuracy(0.0), metric=metric)) == ()
    assert lost(None) == ()


@pytest.mark.parametrize(
    ("speedup", "low", "high", "said"),
    [(0.93, 0.92, 0.94, True), (0.93, 0.62, 1.06, False), (0.99, 0.985, 0.995, False), (1.2, 1.1, 1.3, False)],
    ids=["slower", "by chance", "as fast", "faster"],
)
def test_slower_means_measurably_slower(speedup: float, low: float, high: float, said: bool) -> None:
    one = Latency(
        threads=1, pairs=9, inner=1, reference_ms=speedup, candidate_ms=1.0, speedup=speedup, speedup_low=low,
        speedup_high=high, noisy=False, seconds=0.1, speedup_interval=Interval(low=low, high=high, method="median"),
    )  # fmt: skip
    found = Coverage(ops=(), kernels={})
    assert bool(slow([one], found)) is said
    assert bool(slow([replace(one, speedup_interval=None)], found)) is (speedup < SLOWER)
