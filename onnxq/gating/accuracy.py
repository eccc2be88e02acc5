"""Limits on scores: which metrics they ask for, and what the rows of both models say about each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from onnxq.config.gate import GateSection
from onnxq.config.job import Job
from onnxq.errors import MetricError, UsageError, did_you_mean
from onnxq.validate.accuracy import Comparison
from onnxq.validate.gate import Check, Drop, interval_check, number
from onnxq.validate.metrics import Metric, load_metric
from onnxq.validate.metrics.base import is_label_free
from onnxq.validate.metrics.fidelity import Agreement, Sqnr, VectorCosine
from onnxq.validate.outputs import OutputAccuracy, looks_like_scores
from onnxq.validate.records import MetricResult, Records
from onnxq.validate.statistics import (
    difference_interval,
    samples_to_decide,
    score_interval,
    score_samples_to_decide,
)

GROUP = "accuracy"


@dataclass
class Asked:
    """A metric, and the limits on it; `output` if it looks at one output alone."""

    label: str
    metric: Metric
    drop: Drop | None = None
    least: float | None = None
    most: float | None = None
    output: str = ""
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """How intervals are made."""

    level: float = 0.95
    resamples: int = 2000
    seed: int = 0

    @classmethod
    def of(cls, section: GateSection) -> Statistics:
        """As the section says."""
        return cls(level=section.confidence, resamples=section.resamples, seed=section.seed)

    @property
    def how(self) -> dict[str, Any]:
        """As keyword arguments."""
        return {"level": self.level, "resamples": self.resamples, "seed": self.seed}


@dataclass
class Plan:
    """The metrics that are run, by name, and what is asked of each."""

    asked: list[Asked] = field(default_factory=list)

    @property
    def metrics(self) -> dict[str, Metric]:
        """Name -> metric."""
        return {a.label: a.metric for a in self.asked}


def plan(job: Job, outputs: Mapping[str, NDArray[Any]], batch: int | None) -> Plan:
    """What the limits of a job ask for.

    Args:
        outputs: of the baseline on one sample: which of them are float, which look like class scores.
        batch: of that sample.

    Raises:
        UsageError: a limit without what it is about; an output that does not exist.
        UnknownNameError: a metric that nobody registered.
    """
    section = job.gate
    found = Plan()
    if section.drop is not None:
        if job.validate.metric is None:
            raise UsageError("--max-drop needs a metric and labelled evaluation data: give --metric, like top1")
        metric = load_metric(job.validate.metric, job.base)
        _refuse_drop(metric, job.validate.metric)
        found.asked.append(Asked(job.validate.metric, metric, drop=section.drop))
    for limit in section.metrics:
        metric = load_metric(limit.metric, job.base, limit.all_settings)
        if limit.drop is not None:
            _refuse_drop(metric, limit.metric)
        label = _fresh(limit.label, found)
        found.asked.append(Asked(label, metric, limit.drop, limit.min, limit.max, limit.output or ""))
    applied = list(_outputs(section, outputs, batch))
    flat = (section.min_sqnr_db, section.min_cosine, section.min_agreement)
    if not applied and any(f is not None for f in flat):
        raise UsageError("the gate limits SQNR, cosine or agreement, but the model has no float output they apply to")
    found.asked.extend(applied)
    return found


def _refuse_drop(metric: Metric, name: str) -> None:
    if is_label_free(metric) and not hasattr(metric, "bounds"):
        raise UsageError(
            f'metric "{name}" compares with the baseline, whose own score has no bound, so it has no drop: '
            "limit it with min"
        )


def _fresh(label: str, plan: Plan) -> str:
    taken = plan.metrics
    return next(n for n in (label, *(f"{label} ({i})" for i in range(2, 1000))) if n not in taken)


def _outputs(section: GateSection, outputs: Mapping[str, NDArray[Any]], batch: int | None) -> Iterator[Asked]:
    for name in section.outputs:
        if name not in outputs:
            raise UsageError(f'the gate limits the output "{name}", which is not there: {did_you_mean(name, outputs)}')
    general = {k: getattr(section, k) for k in ("min_sqnr_db", "min_cosine", "min_agreement")}
    for name, value in outputs.items():
        own = section.outputs.get(name)
        if getattr(value, "dtype", None) is None or value.dtype.kind != "f":
            if own is not None:
                raise UsageError(f'the gate limits the output "{name}", which is not float: use exact-match instead')
            continue
        scores = looks_like_scores(value, batch)
        if own is not None and own.min_agreement is not None and not scores:
            raise UsageError(f'the gate limits the agreement of "{name}", which does not look like class scores')
        limits = {k: v if own is None or getattr(own, k) is None else getattr(own, k) for k, v in general.items()}
        yield from _of_output(name, limits, scores=scores)


def _of_output(name: str, limits: Mapping[str, float | None], *, scores: bool) -> Iterator[Asked]:
    metrics: dict[str, tuple[str, Metric, str]] = {
        "min_sqnr_db": ("SQNR", Sqnr(output=name), " dB"),
        "min_cosine": ("cosine", VectorCosine(output=name), ""),
        "min_agreement": ("top-1 agreement", Agreement(output=name), ""),
    }
    for key, (what, metric, unit) in metrics.items():
        limit = limits[key]
        if limit is not None and (scores or key != "min_agreement"):
            yield Asked(f"{what} of {name}", metric, least=limit, output=name, unit=unit)


def judge(plan: Plan, found: Comparison, how: Statistics) -> tuple[list[Check], list[MetricResult]]:
    """One check per limit, and the results of the metrics that need labels."""
    checks: list[Check] = []
    results: list[MetricResult] = []
    broken = {o.name: o for o in found.outputs if o.nonfinite or o.mismatched}
    for asked in plan.asked:
        records = found.records[asked.label]
        if asked.output in broken:
            checks.append(_broken(asked, broken[asked.output], found.samples))
            continue
        if asked.drop is not None or not is_label_free(asked.metric):
            result = records.result(resamples=how.resamples, seed=how.seed, level=how.level)
            results.append(result)
            if asked.drop is not None:
                checks.append(drop_check(records, result, asked.drop, how))
        if asked.least is not None or asked.most is not None:
            checks.extend(score_checks(asked, records, how))
    return checks, results


def _broken(asked: Asked, output: OutputAccuracy, samples: int) -> Check:
    limit = next((v for v in (asked.least, asked.most, asked.drop.value if asked.drop else None) if v is not None), 0.0)
    return Check(
        name=asked.label,
        passed=False,
        measured=float("nan"),
        limit=limit,
        sentence=f"{asked.label}: fails, the output {output.name} has elements that are not finite or not of the float "
        "model's shape",
        group=GROUP,
        samples=samples,
    )


def drop_check(
    records: Records,
    result: MetricResult,
    limit: Drop,
    how: Statistics,
    *,
    name: str = "",
    sides: tuple[str, str] = ("float", ""),
    **more: Any,
) -> Check:
    """A drop against its limit; of a relative one the share is taken of the score as measured.

    Args:
        name: of the check; default: drop of the metric.
        sides: words before the two scores.
    """
    one, two = records.arrays()
    allowed = limit.value * abs(result.reference) if limit.relative else limit.value
    better = result.higher_is_better
    raw = difference_interval(records.metric, one, two, **how.how)
    needed = samples_to_decide(records.metric, one, two, raw, allowed if better else -allowed)
    said = f"{result.name}: {number(result.reference)} -> {number(result.candidate)}, drop {number(result.drop)}"
    check = interval_check(
        name or f"drop of {result.name}",
        result.drop,
        result.interval,
        allowed,
        upper=True,
        said=said,
        group=more.pop("group", GROUP),
        samples=result.samples,
        samples_needed=needed,
        details=_disagreement(result, sides),
        **more,
    )
    if not limit.relative:
        return check
    told = f"the limit of {limit}, which is {number(allowed)}"
    return _with_sentence(check, check.sentence.replace(f"the limit of {number(allowed)}", told, 1))


def _with_sentence(check: Check, sentence: str) -> Check:
    return Check(**{**vars(check), "sentence": sentence})


def _disagreement(result: MetricResult, sides: Sequence[str]) -> tuple[str, ...]:
    if result.mcnemar_mid_p is None:
        return ()
    first = sides[0]
    return (
        f"{result.only_reference} samples only the {first} model gets right, {result.only_candidate} only the "
        f"candidate (McNemar, mid-p {result.mcnemar_mid_p:.2g}, exact {result.mcnemar_p:.2g})",
    )


def score_checks(asked: Asked, records: Records, how: Statistics) -> Iterator[Check]:
    """The candidate's own score against its limits.

    Raises:
        MetricError: the metric cannot score its rows.
    """
    rows = records.arrays()[1]
    try:
        score = float(records.metric.score(rows))
        interval = score_interval(records.metric, rows, **how.how)
    except Exception as error:  # the metric may be anybody's code
        raise MetricError(f'metric "{asked.label}" cannot score its {len(rows)} records: {error}') from error
    for limit, upper in ((asked.least, False), (asked.most, True)):
        if limit is not None:
            yield interval_check(
                asked.label,
                score,
                interval,
                limit,
                upper=upper,
                said=f"{asked.label}: {number(score)}{asked.unit}",
                unit=asked.unit,
                group=GROUP,
                samples=len(rows),
                samples_needed=score_samples_to_decide(records.metric, rows, interval, limit),
            )


def asks_accuracy(section: GateSection) -> bool:
    """Any limit that both models must be run over the samples for."""
    flat = (section.max_drop, section.min_sqnr_db, section.min_cosine, section.min_agreement)
    return any(f is not None for f in flat) or bool(section.metrics) or bool(section.outputs)
