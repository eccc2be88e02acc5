"""The method `auto`: every candidate's plan becomes a model, and the nearest to the float model is taken."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq import registry
from onnxq.data.sample import Dataset, Sample
from onnxq.data.stream import spread
from onnxq.ir.model import Model
from onnxq.ir.save import EMBED_LIMIT, runnable, weight_bytes
from onnxq.pipeline.base import Context, Pass
from onnxq.plan.plan import Plan
from onnxq.runtime.session import Session

TRIAL_SAMPLES = 8
"""Calibration samples, evenly spread, on which `auto` compares methods in each of two rounds."""

MARGIN = 1.0
"""dB by which a method must beat the ones that clip less: below, the order of methods is chance."""

BEHIND = 3.0
"""dB behind the best after the first round from which a method is tried no further."""

KEPT = 24 << 20
"""Bytes of weights up to which the models of the first round stay loaded for the second."""

WORST, BEST = -20.0, 60.0
"""dB between which samples are told apart: beyond, an output is lost, or as good as equal."""


def choose(
    model: Model, plans: Mapping[str, Plan], context: Context, data: Dataset, threads: int | None
) -> tuple[str, list[str]]:
    """The plan whose model comes nearest to the float model on a few calibration samples, and a note with the figures.

    Nearness is the mean over samples and float outputs of the SQNR in dB (10 log10 of signal over noise energy), ORT
    at its default level; for a model without float outputs it is the percentage of equal elements. Methods that are
    clearly behind after `TRIAL_SAMPLES` samples are left out of the second round of as many. `plans` are named in the
    order of how much they clip; a later one is taken only if it is nearer by `MARGIN`. Equal plans are tried once.
    """
    names = list(plans)
    if not plans[names[0]].uses:
        return names[0], [
            "No op of this model can run in an integer kernel: what is written is the float model, normalised."
        ]
    if len({p.key for p in plans.values()}) == 1:
        return names[0], []
    if weight_bytes(model) > EMBED_LIMIT:
        return names[0], [f"The model is too large to try several methods: {names[0]} was taken."]
    samples = spread_samples(data, 2 * TRIAL_SAMPLES)
    rounds = [samples[::2], samples[1::2]]
    scores: dict[str, list[float]] = {n: [] for n in names}
    left = names
    models = _Models(threads, keep=weight_bytes(model) <= KEPT)
    exact: list[dict[str, Any]] = []
    for some in rounds:
        if not some or len({plans[n].key for n in left}) == 1:
            break
        exact = models.outputs("float", lambda: model, some)
        seen: dict[object, float] = {}
        for name in left:
            plan = plans[name]
            if plan.key not in seen:
                got = models.outputs(plan.key, partial(inserted, model, context, plan), some)
                seen[plan.key] = nearness(exact, got)
            scores[name].append(seen[plan.key])
        best = max(scores[n][-1] for n in left)
        left = [n for n in left if scores[n][-1] > best - BEHIND]
    means = {n: float(np.mean(scores[n])) if scores[n] else 0.0 for n in names}
    chosen = left[0]
    for name in left[1:]:
        if means[name] > means[chosen] + MARGIN:
            chosen = name
    measure, unit = ("SQNR", "dB") if has_floats(exact[0]) else ("equal elements", "%")
    figures = ", ".join(f"{n} {means[n]:.1f} {unit}" for n in names)
    what = "1 calibration sample" if len(samples) == 1 else f"up to {len(samples)} calibration samples"
    return chosen, [f"Method {chosen} was chosen by the outputs' {measure} on {what}: {figures}."]


CARRIERS = ("insert-qdq", "quantize-dynamic", "quantize-weights")
"""The passes that carry out a plan, in the order of pipelines."""


def inserted(model: Model, context: Context, plan: Plan) -> Model:
    """A copy of the model with the Q/DQ and the kinds of a plan."""
    trial = model.copy()
    for name in CARRIERS if plan.kinds else CARRIERS[:1]:
        carrier: type[Pass] = registry.load(registry.PASSES, name)
        carrier().run(trial.graph, dataclasses.replace(context, plan=plan))
    return trial


class _Models:
    """The models that are compared, as sessions.

    Args:
        keep: they stay for the next round; else there is never more than one.
    """

    def __init__(self, threads: int | None, *, keep: bool) -> None:
        self.threads, self.keep = threads, keep
        self.sessions: dict[object, Session] = {}

    def outputs(self, key: object, make: Callable[[], Model], samples: Sequence[Sample]) -> list[dict[str, Any]]:
        """What ORT computes with the model of this key, which `make` makes unless it is there."""
        session = self.sessions.get(key)
        if session is None:
            with runnable(make()) as source:
                session = Session(source, threads=self.threads)
            if self.keep:
                self.sessions[key] = session
        return [session.run(s.inputs) for s in samples]


def nearness(exact: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> float:
    """Mean over samples and float outputs of the SQNR in dB; the percentage of equal elements if no output is float.

    Each sample counts alike: in one sum over all, the one sample whose decision flips would decide about the method.
    """
    decibels: list[float] = []
    equal = count = 0
    for sample, other_sample in zip(exact, other, strict=True):
        for name, value in sample.items():
            got = other_sample[name]
            decibels.extend(decibels_of(x, y) for x, y in zip(floats_of(value), floats_of(got), strict=False))
            if isinstance(value, np.ndarray) and value.shape == got.shape:
                equal += int((value == got).sum())
                count += value.size
    return float(np.mean(decibels)) if decibels else 100.0 * equal / max(count, 1)


def decibels_of(exact: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """SQNR from WORST to BEST; BEST if nothing differs, silence included."""
    if exact.shape != other.shape:
        return WORST
    finite = np.isfinite(exact)
    signal = float((exact[finite] ** 2).sum())
    noise = float(((exact[finite] - other[finite]) ** 2).sum())
    if not np.isfinite(noise):  # NaN or Inf that the float model does not have
        return WORST
    if noise == 0.0:
        return BEST
    return float(np.clip(10 * np.log10(max(signal, 1e-30) / max(noise, 1e-30)), WORST, BEST))


def has_floats(outputs: Mapping[str, Any]) -> bool:
    """Is any output float?"""
    return any(floats_of(value) for value in outputs.values())


def floats_of(value: Any) -> list[NDArray[np.float64]]:
    """The float arrays of an output: of a tensor one at most, of a sequence those in it."""
    items = value if isinstance(value, list) else [value]
    return [v.astype(np.float64) for v in items if isinstance(v, np.ndarray) and v.dtype.kind == "f"]


def spread_samples(data: Dataset, count: int) -> list[Sample]:
    """`count` samples, evenly spread; the others are not read where the data set can do without."""
    wanted = spread(len(data), count)
    pick = getattr(data, "pick", None)
    picked: Dataset | None = pick(wanted) if pick is not None else None
    if picked is not None:
        return list(picked)
    chosen = set(wanted)
    return [sample for position, sample in enumerate(itertools.islice(data, wanted[-1] + 1)) if position in chosen]
