"""May this model ship? Limits against what was measured; a sentence for each."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnxq.errors import UsageError
from onnxq.validate.accuracy import Accuracy
from onnxq.validate.latency import Latency


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


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the gate demands; None demands nothing.

    Attributes:
        max_drop: of the metric.
        min_sqnr_db: over every float output, dB.
        min_cosine: over every float output.
        min_agreement: top-1 agreement with the float model over every output that looks like class scores, 0 to 1.
        min_speedup: median ratio.
        max_latency_ms: median of the candidate.
        max_size_ratio: candidate file / float file.
    """

    max_drop: Drop | None = None
    min_sqnr_db: float | None = None
    min_cosine: float | None = None
    min_agreement: float | None = None
    min_speedup: float | None = None
    max_latency_ms: float | None = None
    max_size_ratio: float | None = None


@dataclass(frozen=True, kw_only=True)
class Check:
    """One limit: what was measured, what was demanded, and the verdict in a sentence."""

    name: str
    passed: bool
    measured: float
    limit: float
    sentence: str


@dataclass(frozen=True, kw_only=True)
class GateVerdict:
    """All checks; `passed` if every one is."""

    passed: bool
    checks: tuple[Check, ...]

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail."""
        return 0 if self.passed else 1


def gate(accuracy: Accuracy | None, latency: Latency | None, sizes: Sizes | None, limits: Limits) -> GateVerdict:
    """Judge the measurements. A NaN never passes.

    Raises:
        UsageError: no limit is given, or a limit asks for something that was not measured.
    """
    checks = [*_accuracy(accuracy, limits), *_speed(latency, limits)]
    if limits.max_size_ratio is not None:
        if sizes is None:
            raise UsageError("the gate limits the file size, but no sizes were given")
        checks.append(_at_most("size ratio", sizes.ratio, limits.max_size_ratio, "of the float file"))
    if not checks:
        raise UsageError("the gate has no limit to check: give at least one, like --max-drop 0.01")
    return GateVerdict(passed=all(c.passed for c in checks), checks=tuple(checks))


def _accuracy(accuracy: Accuracy | None, limits: Limits) -> list[Check]:
    wanted = (limits.max_drop, limits.min_sqnr_db, limits.min_cosine, limits.min_agreement)
    if all(w is None for w in wanted):
        return []
    if accuracy is None:
        raise UsageError("the gate limits accuracy, but nothing was validated: give evaluation data")
    checks = []
    if limits.max_drop is not None:
        checks.append(_drop(accuracy, limits.max_drop))
    for output in accuracy.outputs:
        for what, value, limit in (
            ("SQNR", output.sqnr_db, limits.min_sqnr_db),
            ("cosine", output.cosine, limits.min_cosine),
            ("top-1 agreement", output.top1_agreement, limits.min_agreement),
        ):
            if value is None or limit is None:
                continue
            # NaN or Inf in the candidate alone are left out of the sums, so they must fail here
            broken = output.nonfinite or output.mismatched
            name = f"{what} of {output.name}"
            if broken:
                sentence = (
                    f"{name}: fails, the output has elements that are not finite or not of the float model's shape"
                )
                checks.append(Check(name=name, passed=False, measured=value, limit=limit, sentence=sentence))
            else:
                checks.append(_at_least(name, value, limit, " dB" if what == "SQNR" else ""))
    if not checks:
        raise UsageError("the gate limits SQNR, cosine or agreement, but the model has no float output they apply to")
    return checks


def _drop(accuracy: Accuracy, limit: Drop) -> Check:
    metric = accuracy.metric
    if metric is None:
        raise UsageError("--max-drop needs a metric and labelled evaluation data: give --metric, like top1")
    allowed = limit.value * abs(metric.reference) if limit.relative else limit.value
    # scores are quotients of whole numbers: a drop of exactly the limit must not fail by one rounding
    passed = metric.drop <= allowed + 1e-12
    absolute = f", which is {_number(allowed)}" if limit.relative else ""
    sentence = (
        f"{metric.name}: {_number(metric.reference)} -> {_number(metric.candidate)}, drop {_number(metric.drop)} "
        f"(95 % interval {_number(metric.interval.low)} to {_number(metric.interval.high)}), "
        f"{'within' if passed else 'over'} the limit of {limit}{absolute}"
    )
    return Check(name=f"drop of {metric.name}", passed=passed, measured=metric.drop, limit=allowed, sentence=sentence)


def _speed(latency: Latency | None, limits: Limits) -> list[Check]:
    if limits.min_speedup is None and limits.max_latency_ms is None:
        return []
    if latency is None:
        raise UsageError("the gate limits speed, but latency was not measured")
    checks = []
    if limits.min_speedup is not None:
        checks.append(_at_least("speed-up", latency.speedup, limits.min_speedup, " times"))
    if limits.max_latency_ms is not None:
        checks.append(_at_most("latency", latency.candidate_ms, limits.max_latency_ms, "ms"))
    return checks


def _at_least(name: str, value: float, limit: float, unit: str) -> Check:
    passed = value >= limit
    sentence = (
        f"{name}: {_number(value)}{unit}, {'at least' if passed else 'below'} the limit of {_number(limit)}{unit}"
    )
    return Check(name=name, passed=passed, measured=value, limit=limit, sentence=sentence)


def _at_most(name: str, value: float, limit: float, unit: str) -> Check:
    passed = value <= limit
    sentence = f"{name}: {_number(value)} {unit}, {'within' if passed else 'over'} the limit of {_number(limit)} {unit}"
    return Check(name=name, passed=passed, measured=value, limit=limit, sentence=sentence)


def _number(value: float) -> str:
    """Six significant digits, no minus zero."""
    return f"{value + 0.0:.6g}"
