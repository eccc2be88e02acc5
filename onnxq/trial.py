"""The method `auto`: every candidate's plan becomes a model, and the nearest to the float model is taken."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq import registry
from onnxq.data.sample import Dataset, Sample
from onnxq.data.stream import spread
from onnxq.faintest import Faintest, Levels, Parts
from onnxq.ir.model import Model
from onnxq.ir.save import EMBED_LIMIT, runnable, weight_bytes
from onnxq.pipeline.base import Context, Pass
from onnxq.plan.plan import Plan
from onnxq.runtime.session import Session

TRIAL_SAMPLES = 16
"""Calibration samples, evenly spread, on which `auto` compares all methods first."""

MOST_SAMPLES = 128
"""On which it compares those that are left, at most; of a model that is not light, at most every fourth calibration
sample."""

LIGHT = 8 << 20
"""Bytes of weights and of one sample's inputs up to which a model is light: its runs take no time."""

GROWTH = 4
"""Times the samples of the rounds before, after each further one."""

MARGIN = 1.0
"""dB by which a method must beat the ones that clip less: below, the order of methods is chance."""

CERTAIN = 2.0
"""Standard errors by which the difference of two methods must be beyond what would decide between them."""

HELD = 64 << 20
"""Bytes of the float model's outputs that are held at a time; of larger ones, fewer samples are taken."""


def choose(
    model: Model, plans: Mapping[str, Plan], context: Context, data: Dataset, threads: int | None
) -> tuple[str, list[str]]:
    """The plan whose model comes nearest to the float model on a few calibration samples, and a note with the figures.

    Nearness is the mean over samples of the SQNR of the part of the outputs that suffers most (`onnxq.faintest`), ORT
    at its default level; for a model without float outputs it is the percentage of equal elements. `plans` are named
    in the order of how much they clip; a later one is taken only if it is nearer by `MARGIN`. Equal plans are tried
    once. After `TRIAL_SAMPLES` samples, a method goes on only while, by `CERTAIN` standard errors of its difference
    from the one that would be chosen, sample by sample, more samples may turn the choice. No two models are loaded at
    a time.
    """
    names = list(plans)
    if not plans[names[0]].uses:
        return names[0], [NOTHING]
    if len({p.key for p in plans.values()}) == 1:
        return names[0], []
    if weight_bytes(model) > EMBED_LIMIT:
        return names[0], [f"The model is too large to try several methods: {names[0]} was taken."]
    tables: dict[str, list[Levels]] = {n: [] for n in names}
    scores: dict[str, Faintest] = {}
    parts: Parts | None = None
    left, chosen = names, names[0]
    light = weight_bytes(model) + input_bytes(spread_samples(data, 1)[0].inputs) <= LIGHT
    for positions in rounds(len(data), light=light):
        samples = samples_at(data, positions)
        if not samples or len({plans[n].key for n in left}) == 1:
            break
        exact, samples = _exact(model, samples, threads)
        parts = parts or Parts(exact)
        seen: dict[object, Levels] = {}
        for name in left:
            plan = plans[name]
            if plan.key not in seen:
                got = outputs_of(inserted(model, context, plan), [s.inputs for s in samples], threads)
                seen[plan.key] = parts.levels(exact, got)
            tables[name].append(seen[plan.key])
            scores[name] = parts.faintest(np.concatenate(tables[name]))
        chosen, left = decided({n: scores[n].levels for n in left})
    assert parts is not None
    return chosen, [_told(chosen, scores, floats=parts.floats)]


def _told(chosen: str, scores: Mapping[str, Faintest], *, floats: bool) -> str:
    """The sentence with the figures; it names the part that they are of, if there are several. Who was tried on fewer
    samples is told beside the chosen one on the same, and a better figure that was not taken has a word why."""
    own = scores[chosen].levels
    count = len(own)
    unit = "dB" if floats else "%"
    beside = {n: float(np.mean(own[: len(s.levels)])) for n, s in scores.items()}
    figures = ", ".join(
        f"{n} {s.decibels:.1f} {unit}"
        + (f" (on {len(s.levels)}, {chosen} {beside[n]:.1f} there)" if len(s.levels) < count else "")
        for n, s in scores.items()
    )
    if any(round(s.decibels, 1) > round(beside[n], 1) for n, s in scores.items()):
        figures += f"; a method that clips more must be {MARGIN:g} {unit} better"
    what = "1 calibration sample" if count == 1 else f"{count} calibration samples"
    where = {s.where for s in scores.values()}
    measure = "the outputs' SQNR" if floats else "the outputs' equal elements"
    if where != {""}:
        measure = f"the SQNR{where.pop()}" if len(where) == 1 else "the SQNR of the output part that suffers most"
    return f"Method {chosen} was chosen by {measure} on {what}: {figures}."


def decided(scores: Mapping[str, Sequence[float] | Levels]) -> tuple[str, list[str]]:
    """The method to choose by what is known, and those that may yet turn out to be the right one, it among them.

    Args:
        scores: method -> of each sample, the same ones for all; in the order of how much the methods clip.

    >>> decided({"minmax": [30.0, 31.0, 30.0], "mse": [30.5, 31.5, 30.4], "entropy": [20.0, 36.0, 33.0]})
    ('minmax', ['minmax', 'entropy'])
    """
    names = list(scores)
    chosen = names[0]
    for name in names[1:]:
        if np.mean(scores[name]) > np.mean(scores[chosen]) + MARGIN:
            chosen = name
    left = []
    for place, name in enumerate(names):
        gaps = np.asarray(scores[name]) - np.asarray(scores[chosen])
        error = float(gaps.std(ddof=1)) / np.sqrt(len(gaps)) if len(gaps) > 1 else np.inf
        needed = MARGIN if place > names.index(chosen) else -MARGIN
        if name == chosen or gaps.mean() + CERTAIN * error > needed:
            left.append(name)
    return chosen, left


def rounds(total: int, *, light: bool = False) -> list[list[int]]:
    """Positions of the samples of each round, out of `total`: each is spread over all, none is in two.

    >>> [len(r) for r in rounds(1000)], [len(r) for r in rounds(200)], [len(r) for r in rounds(64)]
    ([16, 48, 64], [16, 34], [16])
    >>> [len(r) for r in rounds(64, light=True)]
    [16, 48]
    """
    everything = spread(total, min(total, MOST_SAMPLES, total if light else max(TRIAL_SAMPLES, total // GROWTH)))
    out, taken, size = [], set[int](), TRIAL_SAMPLES
    while len(taken) < len(everything):
        open_ones = [p for p in everything if p not in taken]
        out.append([open_ones[i] for i in spread(len(open_ones), size)])
        taken.update(out[-1])
        size = (GROWTH - 1) * len(taken)
    return out


NOTHING = "No op of this model can run in an integer kernel: what is written is the float model, normalised."
"""Said of plans without int8; what placement makes of them may be another thing."""

INTEGER = ("insert-qdq", "expand-gates", "stack-rows", "align-channels", "gather-resize", "split-space-to-depth")
FLOAT = ("quantize-dynamic", "quantize-weights", "pad-channels")
"""The passes that carry out a plan, in the order of pipelines: what lies between Q/DQ, and what is float there."""


def inserted(model: Model, context: Context, plan: Plan) -> Model:
    """A copy of the model with the Q/DQ and the kinds of a plan."""
    trial = model.copy()
    for name in (*INTEGER, *(FLOAT if plan.kinds or plan.channel_multiple else ())):
        carrier: type[Pass] = registry.load(registry.PASSES, name)
        carrier().run(trial.graph, dataclasses.replace(context, plan=plan))
    return trial


def outputs_of(
    model: Model, samples: Sequence[Mapping[str, NDArray[Any]]], threads: int | None
) -> list[dict[str, Any]]:
    """What ORT computes on these inputs, at its default level.

    Raises:
        ModelError: it cannot load or run the model.
    """
    with runnable(model) as source:
        session = Session(source, threads=threads)
    return [session.run(inputs) for inputs in samples]


def _exact(model: Model, samples: Sequence[Sample], threads: int | None) -> tuple[list[dict[str, Any]], list[Sample]]:
    """What the float model gives, and for which of the samples, `HELD` bytes at most."""
    with runnable(model) as source:
        session = Session(source, threads=threads)
    out: list[dict[str, Any]] = []
    held = 0
    for sample in samples:
        out.append(session.run(sample.inputs))
        held += sum(v.nbytes for v in out[-1].values() if isinstance(v, np.ndarray))
        if held > HELD and len(out) > 1:
            break
    return out, list(samples[: len(out)])


def input_bytes(inputs: Mapping[str, NDArray[Any]]) -> int:
    """Of one sample."""
    return sum(array.nbytes for array in inputs.values())


def spread_samples(data: Dataset, count: int) -> list[Sample]:
    """`count` samples, evenly spread; the others are not read where the data set can do without."""
    return samples_at(data, spread(len(data), count))


def samples_at(data: Dataset, wanted: Sequence[int]) -> list[Sample]:
    """The samples at these positions, ascending, at least one; the others are not read where the data set can do
    without."""
    pick = getattr(data, "pick", None)
    picked: Dataset | None = pick(wanted) if pick is not None else None
    if picked is not None:
        return list(picked)
    chosen = set(wanted)
    return [sample for position, sample in enumerate(itertools.islice(data, wanted[-1] + 1)) if position in chosen]
