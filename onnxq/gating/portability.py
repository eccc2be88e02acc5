"""Would the model give the same answers elsewhere? Variants of the candidate against the candidate as deployed here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from onnxq.config.gate import PortabilityLimit
from onnxq.config.job import Job
from onnxq.data.sample import Dataset
from onnxq.errors import UsageError
from onnxq.gating import accuracy, saturation
from onnxq.gating.accuracy import Asked, Plan, Statistics
from onnxq.ir import load
from onnxq.ir.save import runnable
from onnxq.progress import Progress
from onnxq.runtime.session import SIDE_BY_SIDE, Level, Session
from onnxq.validate.accuracy import run_both
from onnxq.validate.gate import Check
from onnxq.validate.metrics import load_metric
from onnxq.validate.metrics.fidelity import Sqnr
from onnxq.validate.records import Records

GROUP = "portability"


def judge(
    candidate: Path,
    job: Job,
    limit: PortabilityLimit,
    data: Dataset,
    how: Statistics,
    progress: Progress,
    notes: list[str],
) -> Iterator[Check]:
    """One check per variant and limit.

    Raises:
        UsageError: a limit on a drop, and no metric.
        ModelError: the candidate does not run.
    """
    plan = _plan(job, limit)
    many = min([n for n in (limit.samples, job.validate.limit) if n is not None], default=None)
    with ExitStack() as kept:
        deployed = Session(candidate, threads=1, config=SIDE_BY_SIDE)
        off = Session(candidate, threads=1, level=Level.OFF, config=SIDE_BY_SIDE)
        variants: list[tuple[str, Session, Session]] = []
        if limit.optimizations:
            variants.append(("optimizations off", deployed, off))
        if limit.threads > 1:
            threads = Session(candidate, threads=limit.threads, config=SIDE_BY_SIDE)
            variants.append((f"{limit.threads} threads", deployed, threads))
        if limit.saturation:
            model = load.load(candidate)
            found = saturation.layers(model)
            risky = [layer for layer in found if layer.risky]
            unknown = [layer for layer in risky if not layer.simulated]
            changed = saturation.saturating(model)
            if unknown:
                notes.append(
                    f"{len(unknown)} layers that may saturate are bounded, not simulated, the first is "
                    f"{unknown[0].op} {unknown[0].node}"
                )
            if changed is not None:
                source = kept.enter_context(runnable(changed))
                session = Session(source, threads=1, level=Level.OFF, config=SIDE_BY_SIDE)
                variants.append(("saturating u8 x s8", off, session))
            yield from _bound(found, risky, unknown, limit, simulated=changed is not None)
        for name, first, second in variants:
            compared = run_both(
                first, second, data, plan.metrics, limit=many, literal_samples=0, what=name, progress=progress
            )
            for asked in plan.asked:
                yield _check(asked, compared.records[asked.label], name, limit, how)


def _plan(job: Job, limit: PortabilityLimit) -> Plan:
    found = Plan()
    named = [m for m in job.gate.metrics if m.drop is not None]
    if limit.drop is not None:
        name = limit.metric or job.validate.metric or (named[0].metric if named else None)
        if name is None:
            raise UsageError("portability.max_drop needs a metric: give portability.metric, like top1")
        settings = named[0].all_settings if named and name == named[0].metric else {}
        found.asked.append(Asked(name, load_metric(name, job.base, settings), drop=limit.drop))
    if limit.min_sqnr_db is not None:
        found.asked.append(Asked("SQNR", Sqnr(), least=limit.min_sqnr_db, unit=" dB"))
    return found


def _check(asked: Asked, records: Records, name: str, limit: PortabilityLimit, how: Statistics) -> Check:
    if asked.drop is not None:
        result = records.result(resamples=how.resamples, seed=how.seed, level=how.level)
        check = accuracy.drop_check(
            records, result, asked.drop, how, name=f"{asked.label}, {name}", sides=("deployed", ""), group=GROUP
        )
    else:
        check = next(accuracy.score_checks(asked, records, how))
        check = replace(check, name=f"{asked.label}, {name}", group=GROUP)
    return replace(check, sentence=f"{name}: {check.sentence}", warning=limit.on_failure == "warn")


def _bound(
    found: list[saturation.Layer],
    risky: list[saturation.Layer],
    unknown: list[saturation.Layer],
    limit: PortabilityLimit,
    *,
    simulated: bool,
) -> Iterator[Check]:
    """The worst case. It is broken only where it is all there is: layers that can saturate and are not simulated."""
    worst = max(found, key=lambda layer: layer.worst, default=None)
    if worst is None:
        sentence = "worst case of u8 x s8: there is no layer with u8 data and constant s8 weights"
    elif not risky:
        sentence = f"worst case of u8 x s8: no layer can saturate, the nearest: {worst.sentence}"
    else:
        how = "simulated below" if simulated and not unknown else "not all could be simulated"
        sentence = f"worst case of u8 x s8: {len(risky)} of {len(found)} layers can saturate ({how})"
    yield Check(
        name="worst case of u8 x s8",
        passed=not unknown,
        inconclusive=bool(unknown),
        warning=limit.on_failure == "warn",
        measured=float(worst.worst if worst is not None else 0),
        limit=float(saturation.MOST),
        sentence=sentence,
        group=GROUP,
        details=tuple(layer.sentence for layer in sorted(risky, key=lambda x: -x.risky)),
    )
