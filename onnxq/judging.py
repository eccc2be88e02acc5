"""Forms of a model judged by labels, and what placement found as parts of a result."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from onnxq.config.job import Job
from onnxq.config.placing import DEFAULT_POINTS, Judged
from onnxq.data.sample import Dataset
from onnxq.encoding import Kind
from onnxq.errors import VerdictError
from onnxq.ir.model import Model
from onnxq.ir.save import runnable
from onnxq.placement.account import Run, account
from onnxq.placement.cut import Kinds, Labels
from onnxq.placement.race import Timing
from onnxq.placement.result import ORIGINAL, Form
from onnxq.placement.result import Placed as Placement
from onnxq.plan.kinds import SAID
from onnxq.plan.plan import Decision
from onnxq.quantization import Quantized
from onnxq.runtime.session import Session
from onnxq.validate.accuracy import compare
from onnxq.validate.gate import Drop
from onnxq.validate.latency import Latency
from onnxq.validate.metrics import Metric
from onnxq.validate.result import Account, ParetoPoint, Placed

SECONDS = 10.0
"""Aimed at for judging one form; fewer samples are taken of slow models, but at least `LEAST`."""

LEAST = 64
_DRAWS = 500


def by_labels(job: Job, metric: Metric, opened: Callable[[int | None], Dataset]) -> Callable[[Model], Judged]:
    """A judge that compares the score with that of the float file.

    Args:
        opened: the labelled samples, at most so many, evenly spread.
    """
    stated = job.placement.max_drop
    limit = None if stated is None else Drop.parse(str(stated))
    name = job.validate.metric or ""
    held: list[Dataset] = []

    def data() -> Dataset:
        if not held:
            everything = opened(None)
            first = next(iter(everything))
            session = Session(job.model, threads=job.validate.threads)
            session.run(first.inputs)
            start = time.perf_counter()
            session.run(first.inputs)
            fits = int(SECONDS / max(2 * (time.perf_counter() - start), 1e-6))
            held.append(everything if fits >= len(everything) else opened(max(fits, LEAST)))
        return held[0]

    def judge(model: Model) -> Judged:
        with runnable(model) as source:
            found = compare(
                job.model, source, data(), metric, metric_name=name, threads=job.validate.threads, literal_samples=0,
                resamples=0 if limit is not None else _DRAWS,
            )  # fmt: skip
        score = found.metric
        assert score is not None
        if limit is None:
            allowed = DEFAULT_POINTS * max(1.0, abs(score.reference))
        else:
            allowed = limit.value * abs(score.reference) if limit.relative else limit.value
        chance = limit is None and score.interval.low <= 0.0
        return Judged(
            holds=score.drop <= allowed + 1e-12 or chance,
            sentence=f"{name} drops by {score.drop:.4g} on {score.samples} samples, at most {allowed:.4g} allowed"
            f"{', which may be chance' if chance and score.drop > allowed else ''}",
            drop=score.drop,
        )

    return judge


def check_met(made: Quantized) -> None:
    """Raises:
    VerdictError: the budget that the user stated is not met.
    """
    met = made.met
    if met is None or met.holds:
        return
    best = next(p for p in met.points if p.chosen)
    raise VerdictError(
        f"the accuracy budget cannot be met ({best.sentence}): {', '.join(met.worst)} cost most; keep them float, give "
        "--keep-best to write what came nearest, or allow more"
    )


def forms(made: Quantized) -> tuple[ParetoPoint, ...]:
    """What was tried, for the report: what ran against the clock, what was judged, and the front by costs and noise."""
    placed, met = made.placed, made.met
    if placed is None:
        return ()
    judged = {p.label: p for p in met.points} if met is not None else {}
    corners = {c.label: c for c in met.front} if met is not None else {}
    raced = {f.name: f.timing for f in placed.forms}
    first = placed.forms[0]
    scale = _clock_over_costs(raced, judged.get(placed.chosen))
    points = []
    for label in dict.fromkeys([*raced, *judged, *corners]):
        timing, found, corner = raced.get(label), judged.get(label), corners.get(label)
        told = next((each.seconds for each in (found, corner) if each is not None and each.seconds is not None), None)
        seconds = timing.seconds if timing is not None else None if told is None else told * scale
        point = ParetoPoint(
            label=label,
            chosen=found.chosen if found is not None else met is None and label == placed.chosen,
            speedup=timing.ratio if timing is not None else None if seconds is None else first.timing.seconds / seconds,
            seconds=seconds,
            drop=found.drop if found is not None else None,
            sqnr_db=found.sqnr_db if found is not None else None,
            timed=timing is not None and placed.timed,
            predicted_sqnr_db=_decibels(corner.noise) if corner is not None else None,
        )
        if label == first.name and found is None:  # what the others are compared with loses nothing
            point = replace(
                point,
                drop=0.0 if any(p.drop is not None for p in judged.values()) else None,
                sqnr_db=math.inf if any(p.sqnr_db is not None for p in judged.values()) else None,
            )
        points.append(point)
    return tuple(points)


def _clock_over_costs(raced: Mapping[str, Timing], chosen: Judged | None) -> float:
    """What costs are multiplied with to meet the clock at the form that was chosen by speed alone.

    Without it a form that never ran would look faster than one that did wherever costs are too low on the whole.
    """
    if chosen is None or not chosen.seconds:
        return 1.0
    return raced[chosen.label].seconds / chosen.seconds if chosen.label in raced else 1.0


def _decibels(noise: float) -> float:
    return -10.0 * math.log10(noise) if noise > 0 else math.inf


def units(made: Quantized) -> tuple[Placed, ...]:
    """What was decided unit by unit."""
    if made.placed is None:
        return ()
    out = []
    for unit in made.placed.units:
        decided = _decided(made, unit.placeable)
        integer = any(d.integer for d in decided)
        kind = _kind(made, unit.nodes)
        saving = unit.float_seconds - unit.integer_seconds - unit.conversion_seconds
        out.append(
            Placed(
                unit=f"{' + '.join(dict.fromkeys(unit.ops))}: {unit.nodes[0]}",
                form="int8" if integer else "float" if kind is None else SAID[kind],
                float_ms=unit.float_seconds * 1e3,
                int8_ms=unit.integer_seconds * 1e3,
                saving_ms=(saving if integer else -saving) * 1e3,
                why="" if integer else next((d.reason for d in decided if d.reason), "") or unit.why,
            )
        )
    return tuple(out)


def accounts(made: Quantized, latency: Sequence[Latency]) -> tuple[Account, ...]:
    """Where the time of the model goes, by number of threads; empty where costs decided nothing.

    Args:
        latency: of the file that was written, for a form that was not in the race.
    """
    placed = made.placed
    if placed is None:
        return ()
    labels = tuple(any(d.integer for d in _decided(made, unit.placeable)) for unit in placed.units)
    reasons = {name: d.reason for name, d in made.plan.decisions.items()}
    kinds: Kinds = tuple(_kind(made, unit.nodes) for unit in placed.units)
    ran = placed.ran(labels, kinds)
    point = next((p for p in made.met.points if p.chosen), None) if made.met is not None else None
    form = ran.name if ran is not None else placed.chosen if point is None else point.label
    runs = _raced(ran) if ran is not None else _accepted(placed, labels, kinds, latency)
    return tuple(
        account(placed, labels, run, form=form, at=at, reasons=reasons, kinds=kinds) for at, run in enumerate(runs)
    )


def _raced(form: Form) -> Iterator[Run]:
    """By number of threads, as it ran against the others."""
    predicted = (form.predicted, *form.foretold, *[math.nan] * len(form.others))
    for timing, told in zip((form.timing, *form.others), predicted, strict=False):
        yield Run(measured=timing.seconds, predicted=told)


def _accepted(placed: Placement, labels: Labels, kinds: Kinds, latency: Sequence[Latency]) -> Iterator[Run]:
    """A form that only the budget brought up: its speed-up over the file, on the clock of the race."""
    first = placed.forms[0]
    for costs, threads, timing in zip(
        (placed.problem, *placed.beyond), (placed.threads, *placed.others), (first.timing, *first.others), strict=False
    ):
        told = costs.cost(labels, kinds)
        speed = [one.speedup for one in latency if one.threads == threads and first.name == ORIGINAL]
        if speed:
            yield Run(measured=timing.seconds / speed[0], predicted=told)
        else:
            yield Run(measured=told, timed=False)


def _kind(made: Quantized, nodes: Sequence[str]) -> Kind | None:
    """How a unit computes with integers between float borders."""
    return next((made.plan.kinds[n] for n in nodes if n in made.plan.kinds), None)


def _decided(made: Quantized, nodes: Sequence[str]) -> list[Decision]:
    return [made.plan.decisions[n] for n in nodes if n in made.plan.decisions]
