"""May this model ship? The verdict as a value: limits against what was measured, a sentence for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from onnxq.errors import UsageError
from onnxq.validate.intervals import Interval


@dataclass(frozen=True)
class Drop:
    """How much worse the score may get: absolute in the metric's unit, or relative to the float model's score.

    >>> Drop.parse("0.5%"), Drop.parse("0.01")
    (Drop(value=0.005, relative=True), Drop(value=0.01, relative=False))
    """

    value: float
    relative: bool = False

    @classmethod
    def parse(cls, text: str) -> Drop:
        """`0.01` is absolute; `0.5%` is half a percent of the float model's score.

        Raises:
            UsageError: not a number, negative, or NaN.
        """
        body = text.strip()
        relative = body.endswith("%")
        try:
            value = float(body.removesuffix("%"))
        except ValueError:
            value = math.nan
        if not value >= 0:
            raise UsageError(f'the limit "{text}" is not a number of 0 or more, like 0.01 or 0.5%')
        return cls(value / 100 if relative else value, relative)

    def __str__(self) -> str:
        return f"{self.value * 100:g} % of the float score" if self.relative else f"{self.value:g}"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Files in bytes, external data included."""

    reference: int
    candidate: int

    @property
    def ratio(self) -> float:
        """Candidate over reference."""
        return self.candidate / self.reference if self.reference else math.nan


Outcome = Literal["pass", "fail", "inconclusive", "warn"]

SCHEMA = "onnxq.verdict/1"
"""Name and version of a verdict's JSON form: keys are only added within a version."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One limit: what was measured, what was demanded, and the verdict in a sentence.

    Attributes:
        name: what is limited.
        passed: the limit is kept.
        measured, limit: in the unit of what is limited; for a list of faults their number, and 0.
        sentence: for people.
        group: accuracy, speed, size, memory, load, coverage, structure, portability or drift.
        inconclusive: neither kept nor broken, as far as these samples tell: the interval holds the limit.
        warning: a broken limit that does not fail the gate, as configured.
        interval: of what was measured; None where it was measured exactly.
        samples: that it rests on.
        samples_needed: if inconclusive, so many samples like these would decide; None: no number would, or not known.
        details: faults, layers or operators by name, one sentence each.
    """

    name: str
    passed: bool
    measured: float
    limit: float
    sentence: str
    group: str = ""
    inconclusive: bool = False
    warning: bool = False
    interval: Interval | None = None
    samples: int | None = None
    samples_needed: int | None = None
    details: tuple[str, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """In one word."""
        if self.passed:
            return "pass"
        if self.warning:
            return "warn"
        return "inconclusive" if self.inconclusive else "fail"


@dataclass(frozen=True, kw_only=True)
class GateVerdict:
    """All checks.

    Attributes:
        passed: nothing failed and nothing is open.
        checks: in the order of the sections.
        causes: where a failure comes from, as far as it is known: layers, the worst first, one sentence each.
    """

    passed: bool
    checks: tuple[Check, ...]
    causes: tuple[str, ...] = ()

    @property
    def schema(self) -> str:
        """Of the JSON form."""
        return SCHEMA

    @property
    def outcome(self) -> Outcome:
        """`fail` if any check fails; else `inconclusive` if any is; else `pass`."""
        if self.passed:
            return "pass"
        open_only = any(c.outcome == "inconclusive" for c in self.checks) and not any(
            c.outcome == "fail" for c in self.checks
        )
        return "inconclusive" if open_only else "fail"

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 3 inconclusive (2 is bad usage or bad input)."""
        return {"pass": 0, "warn": 0, "fail": 1, "inconclusive": 3}[self.outcome]


def verdict(checks: Sequence[Check], causes: Sequence[str] = ()) -> GateVerdict:
    """The verdict that these checks make."""
    passed = all(c.outcome in ("pass", "warn") for c in checks)
    return GateVerdict(passed=passed, checks=tuple(checks), causes=tuple(causes))


def at_least(name: str, value: float, limit: float, unit: str = "", **more: Any) -> Check:
    """Something measured exactly, against a lower limit. A NaN never passes."""
    passed = value >= limit
    sentence = f"{name}: {number(value)}{unit}, {'at least' if passed else 'below'} the limit of {number(limit)}{unit}"
    return Check(name=name, passed=passed, measured=value, limit=limit, sentence=sentence, **more)


def at_most(name: str, value: float, limit: float, unit: str = "", **more: Any) -> Check:
    """Something measured exactly, against an upper limit. A NaN never passes."""
    passed = value <= limit
    sentence = f"{name}: {number(value)}{unit}, {'within' if passed else 'over'} the limit of {number(limit)}{unit}"
    return Check(name=name, passed=passed, measured=value, limit=limit, sentence=sentence, **more)


def none_of(name: str, faults: Sequence[str], good: str, **more: Any) -> Check:
    """A list that must be empty; `good` is the sentence if it is."""
    count = len(faults)
    first = f"{faults[0]}{f' and {count - 1} more' if count > 1 else ''}" if faults else ""
    sentence = f"{name}: {first if faults else good}"
    return Check(
        name=name, passed=not faults, measured=float(count), limit=0.0, sentence=sentence, details=tuple(faults), **more
    )


def interval_check(
    name: str, value: float, interval: Interval, limit: float, *, upper: bool, said: str, unit: str = "", **more: Any
) -> Check:
    """An estimate against a limit: kept if the whole interval keeps it, broken if none of it does, else open.

    Args:
        interval: of the value; NaN never passes and is no verdict either: it fails.
        upper: the limit is one from above.
        said: the sentence up to the verdict.
        unit: of the limit.
    """
    broken = math.isnan(value) or math.isnan(interval.low) or math.isnan(interval.high)
    edge = 1e-12  # scores are quotients of whole numbers: one rounding decides nothing
    passed = not broken and (interval.high <= limit + edge if upper else interval.low >= limit - edge)
    failed = broken or (interval.low > limit + edge if upper else interval.high < limit - edge)
    word = {True: ("within", "over"), False: ("at least", "below")}[upper]
    if passed or failed:
        end = f"{word[0] if passed else word[1]} the limit of {number(limit)}{unit}"
    else:
        end = f"which does not decide about the limit of {number(limit)}{unit}"
        needed = more.get("samples_needed")
        if needed is not None:
            end += f": about {needed:,} samples like these would"
    if passed or failed:
        more["samples_needed"] = None
    percent = f"{interval.level * 100:g} %"
    span = f"({percent} interval {interval.low + 0.0:.4g} to {interval.high + 0.0:.4g})"
    return Check(
        name=name,
        passed=passed,
        inconclusive=not passed and not failed,
        measured=value,
        limit=limit,
        sentence=f"{said} {span}, {end}",
        interval=interval,
        **more,
    )


def number(value: float) -> str:
    """Six significant digits, no minus zero."""
    return f"{value + 0.0:.6g}"
