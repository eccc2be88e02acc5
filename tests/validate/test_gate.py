"""The verdict as a value: what passes, fails and stays open."""

from __future__ import annotations

import math

import pytest

from onnxq.errors import UsageError
from onnxq.validate.gate import Check, Drop, GateVerdict, Sizes, at_least, at_most, interval_check, none_of, verdict
from onnxq.validate.intervals import Interval


def check(*, passed: bool = False, inconclusive: bool = False, warning: bool = False) -> Check:
    return Check(
        name="c", passed=passed, measured=0.0, limit=0.0, sentence="s", inconclusive=inconclusive, warning=warning
    )


GOOD, BAD, OPEN = check(passed=True), check(), check(inconclusive=True)
WARNED, OPEN_WARNED = check(warning=True), check(inconclusive=True, warning=True)


@pytest.mark.parametrize(
    ("checks", "outcome", "code"),
    [
        ((), "pass", 0),
        ((GOOD,), "pass", 0),
        ((GOOD, WARNED, OPEN_WARNED), "pass", 0),
        ((GOOD, OPEN, WARNED), "inconclusive", 3),
        ((GOOD, OPEN, BAD), "fail", 1),
        ((BAD,), "fail", 1),
    ],
)
def test_the_worst_check_decides(checks: tuple[Check, ...], outcome: str, code: int) -> None:
    found = verdict(checks)
    assert (found.outcome, found.exit_code, found.passed) == (outcome, code, code == 0)


def test_a_verdict_that_did_not_pass_without_a_reason_fails() -> None:
    assert GateVerdict(passed=False, checks=()).exit_code == 1


@pytest.mark.parametrize(
    ("low", "high", "upper", "outcome"),
    [
        (0.0, 0.01, True, "pass"),
        (0.0, 0.0101, True, "inconclusive"),
        (0.0099, 0.02, True, "inconclusive"),
        (0.0101, 0.02, True, "fail"),
        (0.01, 0.02, False, "pass"),
        (0.0099, 0.02, False, "inconclusive"),
        (0.0, 0.0099, False, "fail"),
        (math.nan, 0.02, True, "fail"),
    ],
)
def test_an_interval_decides_if_it_does_not_hold_the_limit(low: float, high: float, upper: bool, outcome: str) -> None:
    found = interval_check("x", 0.01, Interval(low=low, high=high), 0.01, upper=upper, said="x: 0.01", samples_needed=7)
    assert found.outcome == outcome
    assert ("about 7 samples like these would" in found.sentence) == (outcome == "inconclusive")
    assert found.samples_needed == (7 if outcome == "inconclusive" else None)


def test_sentences() -> None:
    span = Interval(low=0.005, high=0.015)
    sentences = [
        interval_check("d", 0.01, span, 0.02, upper=True, said="drop 0.01").sentence,
        interval_check("d", 0.01, span, 0.001, upper=True, said="drop 0.01").sentence,
        interval_check("d", 0.01, span, 0.01, upper=True, said="drop 0.01").sentence,
        at_least("SQNR", 30, 20, " dB").sentence,
        at_most("size", 3, 2.5, " MB").sentence,
        none_of("ops", ["a", "b", "c"], "fine").sentence,
        none_of("ops", [], "fine").sentence,
    ]
    assert sentences == [
        "drop 0.01 (95 % interval 0.005 to 0.015), within the limit of 0.02",
        "drop 0.01 (95 % interval 0.005 to 0.015), over the limit of 0.001",
        "drop 0.01 (95 % interval 0.005 to 0.015), which does not decide about the limit of 0.01",
        "SQNR: 30 dB, at least the limit of 20 dB",
        "size: 3 MB, over the limit of 2.5 MB",
        "ops: a and 2 more",
        "ops: fine",
    ]


def test_nan_never_passes() -> None:
    assert not at_least("x", math.nan, 0).passed
    assert not at_most("x", math.nan, 0).passed
    assert interval_check("x", math.nan, Interval(low=0, high=0), 1, upper=True, said="x").outcome == "fail"


def test_drop_parses_and_refuses() -> None:
    assert Drop.parse(" 0.5 % ") == Drop(0.005, relative=True)
    assert Drop.parse("0") == Drop(0.0)
    for bad in ("-1", "nan", "x", "%", ""):
        with pytest.raises(UsageError, match="is not a number of 0 or more"):
            Drop.parse(bad)


def test_size_ratio() -> None:
    assert Sizes(reference=400, candidate=110).ratio == 0.275
    assert math.isnan(Sizes(reference=0, candidate=1).ratio)
