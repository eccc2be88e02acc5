"""Sensitivities of all tensors: the trials, the cache and the workers around the runs. Neither changes a bit."""

from __future__ import annotations

import functools
import inspect
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from onnxq.data.sample import Dataset
from onnxq.data.stream import spread
from onnxq.errors import CalibrationError, ConfigError, DataError, MetricError, ModelError, did_you_mean
from onnxq.ir.hash import model_hash
from onnxq.ir.model import Model
from onnxq.plan.plan import Plan
from onnxq.progress import Progress, Silent
from onnxq.sensitivity.forward import PARTS, Forward
from onnxq.sensitivity.gather import Trials, gather
from onnxq.sensitivity.instrument import instrument
from onnxq.sensitivity.limit import FIRST, within
from onnxq.sensitivity.loudness import loudness
from onnxq.sensitivity.measure import NO_SAMPLE, Rows, Trial, choose, measure
from onnxq.sensitivity.result import SCHEMA, Sensitivity
from onnxq.sensitivity.switches import Instrumented
from onnxq.sensitivity.work import Scoring, measure_elsewhere
from onnxq.stats.cache import Cache, CacheWarning, changed_since, digest, files_digest
from onnxq.stats.engine import data_digest
from onnxq.stats.parallel import Pool
from onnxq.validate.metrics.base import MeanOf, is_label_free

SAMPLES = 16
"""Samples on which noise is measured, evenly spread over the data."""

EVAL_SAMPLES = 64
"""Labelled samples on which the score is measured, evenly spread: each costs a run per tensor, too."""

KIND = "sensitivity"
"""Folder in the cache."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured, and how much of it. All of it counts for the cache.

    Attributes:
        samples: at most so many; None: all.
        eval_samples: of the labelled ones; None: all.
        rest: measure all but one tensor, too (as many runs again).
        units: measure each op's tensors together, too.
        feedback: output -> input of models that are fed their state.
        seconds: to measure for; what is left unmeasured then are the quiet tensors, by an estimate; None: no limit.
    """

    samples: int | None = SAMPLES
    eval_samples: int | None = EVAL_SAMPLES
    rest: bool = False
    units: bool = False
    feedback: Mapping[str, str] = field(default_factory=dict)
    seconds: float | None = None


def sensitivity(
    model: Model,
    plan: Plan,
    data: Dataset,
    options: Options | None = None,
    *,
    evaluation: Dataset | None = None,
    scoring: Scoring | None = None,
    threads: int | None = None,
    cache: Cache | None = None,
    executor: Executor | Pool | None = None,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Sensitivity:
    """The noise at the outputs that each quantized tensor causes alone, and all together.

    Noise is measured on `data`, the score on `evaluation`. Costs (2 + tensors) runs per sample, of which those of
    single tensors begin at their tensor (see `onnxq.sensitivity.forward`).

    Args:
        model: the normalised float model that the plan was made for; does not change.
        plan: what it quantizes counts, in bodies, too.
        evaluation: None: the score is measured on `data`.
        threads: of ORT; divided among the workers of this machine.
        cache: see `onnxq.stats.cache`.
        executor: as `onnxq.stats.engine.calibrate` takes it.
        clock: what a limit is held to.

    Raises:
        DataError, ModelError: there is no sample; ORT cannot run one.
        MetricError: there are no labels; the metric fails on a sample.
        CalibrationError: a worker died; the feedback names what the model lacks.
        UsageError: the samples or the metric cannot be opened by other processes.
    """
    options, date = options or Options(), time.time()
    judged = evaluation if evaluation is not None else data
    if scoring is not None and not is_label_free(scoring.metric) and not judged.labelled:
        raise MetricError(
            f'metric "{scoring.name}" needs labels, but there are none in {judged.description}: add labels or leave '
            "the metric out"
        )
    made = instrument(model, plan)
    _check_feedback(options.feedback, made)
    noise = _Pass(data=data, positions=tuple(spread(len(data), options.samples)))
    score = None
    if scoring is not None:
        score = _Pass(data=judged, positions=tuple(spread(len(judged), options.eval_samples)), scoring=scoring)
    passes = [noise] if score is None else [noise, score]
    hashed, plan_hash = model_hash(model), digest(plan.to_json())
    limits = dict.fromkeys((None, options.seconds))  # what was measured without a limit serves with one
    keys = [_key(hashed, plan_hash, options, passes, cache, limit) for limit in limits]
    known = next((found for key in keys if (found := _known(cache, key)) is not None), None)
    if known is not None:
        return known
    run = _Run(made=made, feedback=options.feedback, threads=threads, executor=executor, cache=cache)
    notes = list(_notes(made, executor, options, scoring is not None and evaluation is None))
    began, loud = clock(), _loudness(model, made, noise, options, threads)
    trials = Trials.of(made, rest=options.rest, units=options.units, loudness=loud)
    taken = wanted = [len(p.positions) for p in passes]
    limited = options.seconds is not None and bool(made.switches)
    first = min(FIRST, len(trials.sets)) * len(passes) if limited else 0  # what time they take is measured beforehand
    with (progress or Silent()).task("measuring", sum(wanted) * len(trials.sets) + first) as tick:
        if options.seconds is None or not made.switches:
            rows = [run(one, trials.sets, one.positions, tick) for one in passes]
        else:
            sets, rows, taken = within(
                options.seconds - (clock() - began),
                trials.sets,
                [one.positions for one in passes],
                lambda number, some, positions: run(passes[number], some, positions, tick),
                clock,
            )
            trials = replace(trials, sets=sets)
    found = gather(made, trials, rows[0], None if scoring is None else (scoring, rows[1]), loud)
    cut = list(_cut(found, options, wanted, taken))
    found = replace(
        found,
        model_hash=hashed,
        plan_hash=plan_hash,
        data=data.description,
        eval_data="" if score is None else judged.description,
        seconds=options.seconds if cut else None,
        notes=(*notes, *cut, *found.notes, *dict.fromkeys(s for one in passes for s in one.data.skipped)),
    )
    key = keys[-1 if cut else 0]
    if cache is not None and key is not None and not _changed(passes, date):
        cache.put_text(KIND, key, found.to_json())
    return found


@dataclass(frozen=True, kw_only=True)
class _Pass:
    """Samples that all trials run on, for noise or, with `scoring`, for the score."""

    data: Dataset
    positions: tuple[int, ...]
    scoring: Scoring | None = None


@dataclass(frozen=True, kw_only=True)
class _Run:
    made: Instrumented
    feedback: Mapping[str, str]
    threads: int | None
    executor: Executor | Pool | None
    cache: Cache | None

    def __call__(
        self, one: _Pass, sets: Sequence[Trial], positions: tuple[int, ...], tick: Callable[[int], None]
    ) -> Rows:
        if self.executor is None or self.feedback:
            return measure(
                self.made,
                sets,
                choose(one.data, positions),
                metric=None if one.scoring is None else one.scoring.metric,
                metric_name="" if one.scoring is None else one.scoring.name,
                feedback=self.feedback,
                tick=tick,
                forward=self.forward,
            )
        return measure_elsewhere(
            self.made,
            sets,
            one.data,
            positions,
            self.executor,
            scoring=one.scoring,
            threads=self.threads,
            folder=self.cache.folder if self.cache is not None else None,
            tick=tick,
        )

    @functools.cached_property
    def forward(self) -> Forward:
        """The sessions of this process, which all pieces share."""
        return Forward(self.made, threads=self.threads, parts=1 if self.feedback else PARTS)


def _loudness(model: Model, made: Instrumented, one: _Pass, options: Options, threads: int | None) -> tuple[float, ...]:
    """Needed where not everything may be measured."""
    if options.seconds is None:
        return ()
    for sample in choose(one.data, one.positions[:1]):
        try:
            return loudness(model, made.switches, sample.inputs, threads)
        except ModelError as error:
            raise ModelError(f"sample {sample.name} (index {sample.index}): {error}") from error
    raise DataError(NO_SAMPLE)


def _cut(found: Sensitivity, options: Options, wanted: Sequence[int], taken: Sequence[int]) -> Iterator[str]:
    """What there was no time for.

    Args:
        wanted, taken: samples of each pass.
    """
    left = []
    if found.unmeasured:
        which = f"{found.unmeasured} of {len(found.tensors)} tensors"
        left.append(f"the noise of {which}, those with the least rounding errors of their own, is an estimate")
    unknown = sum(u.together is None for u in found.units) if options.units else 0
    if unknown:
        left.append(f"{unknown} of {len(found.units)} ops were not measured with their tensors together")
    unknown = sum(t.rest is None for t in found.tensors) if options.rest else 0
    if unknown:
        left.append(f"{unknown} of {len(found.tensors)} tensors were not left out to measure the rest")
    for what, all_, some in zip(("noise", "the score"), wanted, taken, strict=False):
        if some < all_:
            left.append(f"{what} was measured on {some} of {all_} samples")
    if left and options.seconds is not None:
        yield f"There was no more time than {options.seconds:g} s: {'; '.join(left)}."


def _check_feedback(feedback: Mapping[str, str], made: Instrumented) -> None:
    inputs = [t.name for t in made.model.graph.inputs]
    for output, name in feedback.items():
        for kind, asked, known in (("output", output, list(made.outputs)), ("input", name, inputs)):
            if asked not in known:
                raise CalibrationError(
                    f'feedback names the {kind} "{asked}", which the model lacks: {did_you_mean(asked, known)}'
                )


def _notes(made: Instrumented, executor: object, options: Options, flattered: bool) -> Iterator[str]:
    if not made.switches:
        yield "The plan quantizes nothing: there is nothing to measure."
    if executor is not None and options.feedback:
        yield "All samples ran in one process: the feedback makes each depend on the one before."
    if flattered:
        yield "There is no evaluation data: the score was measured on the calibration samples, which flatters it."


def _key(
    hashed: str,
    plan_hash: str,
    options: Options,
    passes: Sequence[_Pass],
    cache: Cache | None,
    limit: float | None,
) -> str | None:
    """None where something does not tell what it is: then nothing is cached.

    Args:
        limit: in seconds, that cut what was measured; None: nothing is cut.
    """
    if cache is None:
        return None
    told: list[Any] = []
    for one in passes:
        found = data_digest(one.data)
        judge = None if one.scoring is None else _judge(one.scoring)
        if found is None or (one.scoring is not None and judge is None):
            return None
        told.append([found, one.data.description, list(one.positions), judge])
    asked = [options.rest, options.units, dict(options.feedback), limit]
    return cache.key(KIND, SCHEMA, _own_digest(), hashed, plan_hash, asked, told)


def _known(cache: Cache | None, key: str | None) -> Sensitivity | None:
    text = cache.text(KIND, key) if cache is not None and key is not None else None
    if text is None:
        return None
    try:
        return Sensitivity.from_json(text, "the entry")
    except ConfigError as error:
        warnings.warn(f"a damaged cache entry was thrown away ({error})", CacheWarning, stacklevel=3)
        return None


def _judge(scoring: Scoring) -> list[str] | None:
    """Name and settings of a metric, and the source it is written in."""
    metric = scoring.metric
    what: Any = metric.function if isinstance(metric, MeanOf) else type(metric)
    try:
        source = inspect.getsourcefile(what)
        return None if source is None else [scoring.name, repr(metric), what.__qualname__, files_digest([Path(source)])]
    except (TypeError, OSError, AttributeError):
        return None


@functools.cache
def _own_digest() -> str:
    """Our source, besides what `onnxq.stats.cache` counts."""
    here = Path(__file__).resolve().parent
    return files_digest([*sorted(here.glob("*.py")), here.parent / "numerics.py", here.parent / "encoding.py"])


def _changed(passes: Sequence[_Pass], date: float) -> bool:
    """Were the samples written while they were read?"""
    for one in passes:
        identity: Any = getattr(one.data, "identity", None)
        if identity is not None and changed_since(date, identity()[1]):
            return True
    return False
