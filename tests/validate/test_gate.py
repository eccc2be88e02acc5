from __future__ import annotations

import math
from typing import Any

import pytest

from onnxq.errors import UsageError
from onnxq.validate.accuracy import Accuracy, MetricResult, OutputAccuracy
from onnxq.validate.gate import Drop, Limits, Sizes, gate
from onnxq.validate.latency import Latency
from onnxq.validate.statistics import Interval

SIZES = Sizes(reference=400, candidate=110)
LATENCY = Latency(
    threads=1, pairs=9, inner=1, reference_ms=3.0, candidate_ms=1.5, speedup=2.0, speedup_low=1.9, speedup_high=2.1,
    noisy=False, seconds=1.0,
)  # fmt: skip


def accuracy(drop: float = 0.01, **output: Any) -> Accuracy:
    values: dict[str, Any] = {"name": "y", "dtype": "float32", "elements": 8, "sqnr_db": 30.0, "cosine": 0.999}
    metric = MetricResult(
        name="top1", higher_is_better=True, samples=1000, reference=0.9, candidate=0.9 - drop, drop=drop,
        interval=Interval(low=drop - 0.005, high=drop + 0.005), resamples=2000,
    )  # fmt: skip
    return Accuracy(
        samples=1000, data="d", outputs=(OutputAccuracy(**{**values, "top1_agreement": 0.97, **output}),), metric=metric
    )


@pytest.mark.parametrize(
    ("limits", "passed"),
    [
        (Limits(max_drop=Drop(0.01)), True),
        (Limits(max_drop=Drop(0.0099)), False),
        (Limits(max_drop=Drop(0.012, relative=True)), True),
        (Limits(max_drop=Drop(0.011, relative=True)), False),
        (Limits(min_sqnr_db=30.0), True),
        (Limits(min_sqnr_db=30.1), False),
        (Limits(min_cosine=0.999), True),
        (Limits(min_cosine=0.9991), False),
        (Limits(min_agreement=0.97), True),
        (Limits(min_agreement=0.98), False),
        (Limits(min_speedup=2.0), True),
        (Limits(min_speedup=2.01), False),
        (Limits(max_latency_ms=1.5), True),
        (Limits(max_latency_ms=1.49), False),
        (Limits(max_size_ratio=0.275), True),
        (Limits(max_size_ratio=0.27), False),
    ],
)
def test_each_limit_passes_and_fails(limits: Limits, passed: bool) -> None:
    verdict = gate(accuracy(), LATENCY, SIZES, limits)
    assert verdict.passed == passed
    assert verdict.exit_code == (0 if passed else 1)
    assert len(verdict.checks) == 1


def test_one_failure_fails_the_gate() -> None:
    verdict = gate(accuracy(), LATENCY, SIZES, Limits(max_drop=Drop(0.02), min_speedup=3.0))
    assert [c.passed for c in verdict.checks] == [True, False]
    assert not verdict.passed


def test_sentences() -> None:
    verdict = gate(
        accuracy(), LATENCY, SIZES, Limits(max_drop=Drop(0.005, relative=True), min_speedup=1.5, min_sqnr_db=20)
    )
    assert [c.sentence for c in verdict.checks] == [
        "top1: 0.9 -> 0.89, drop 0.01 (95 % interval 0.005 to 0.015), over the limit of 0.5 % of the float score, "
        "which is 0.0045",
        "SQNR of y: 30 dB, at least the limit of 20 dB",
        "speed-up: 2 times, at least the limit of 1.5 times",
    ]


def test_nan_never_passes() -> None:
    assert not gate(accuracy(math.nan), None, None, Limits(max_drop=Drop(0.5))).passed
    assert not gate(accuracy(sqnr_db=math.nan), None, None, Limits(min_sqnr_db=-100)).passed
    assert not gate(accuracy(sqnr_db=math.inf, nonfinite=1), None, None, Limits(min_sqnr_db=10)).passed
    assert gate(accuracy(sqnr_db=math.inf), None, None, Limits(min_sqnr_db=10)).passed


def test_drop_parses_and_refuses() -> None:
    assert Drop.parse(" 0.5 % ") == Drop(0.005, relative=True)
    assert Drop.parse("0") == Drop(0.0)
    for bad in ("-1", "nan", "x", "%", ""):
        with pytest.raises(UsageError, match="is not a number of 0 or more"):
            Drop.parse(bad)


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        (Limits(), "no limit to check"),
        (Limits(min_speedup=1.0), "latency was not measured"),
        (Limits(max_size_ratio=1.0), "no sizes were given"),
        (Limits(max_drop=Drop(0.1)), "nothing was validated"),
    ],
)
def test_limits_without_measurements(limits: Limits, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        gate(None, None, None, limits)


def test_limits_that_do_not_apply_to_the_model() -> None:
    plain = Accuracy(samples=1, data="d", outputs=(OutputAccuracy(name="i", dtype="int64", elements=1, agreement=1.0),))
    with pytest.raises(UsageError, match="no float output"):
        gate(plain, None, None, Limits(min_cosine=0.9))
    with pytest.raises(UsageError, match="needs a metric"):
        gate(plain, None, None, Limits(max_drop=Drop(0.1)))


def test_size_ratio() -> None:
    assert SIZES.ratio == 0.275
    assert math.isnan(Sizes(reference=0, candidate=1).ratio)
