"""The method `auto`: every candidate's plan becomes a model, and the nearest to the float model is taken."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
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
"""Calibration samples, evenly spread, on which `auto` compares methods."""


def choose(
    model: Model, plans: Mapping[str, Plan], context: Context, data: Dataset, threads: int | None
) -> tuple[str, list[str]]:
    """The plan whose model comes nearest to the float model on a few calibration samples, and a note with the figures.

    Nearness is the mean over float outputs of the SQNR in dB (10 log10 of signal over noise energy), ORT at its
    default level; for a model without float outputs it is the percentage of equal elements. Methods whose plans are
    equal are tried once; ties go to the one that is named first.
    """
    names = list(plans)
    if not plans[names[0]].uses:
        return names[0], [
            "No op of this model can run in an integer kernel: what is written is the float model, normalised."
        ]
    if len(names) == 1:
        return names[0], []
    if weight_bytes(model) > EMBED_LIMIT:
        return names[0], [f"The model is too large to try several methods: {names[0]} was taken."]
    inserter: type[Pass] = registry.load(registry.PASSES, "insert-qdq")
    samples = _spread(data, TRIAL_SAMPLES)
    with runnable(model) as source:
        session = Session(source, threads=threads)
        exact = [session.run(s.inputs) for s in samples]
    scores: dict[str, float] = {}
    seen: dict[object, float] = {}
    for name in names:
        key = plans[name].key
        if key not in seen:
            trial = model.copy()
            inserter().run(trial.graph, dataclasses.replace(context, plan=plans[name]))
            with runnable(trial) as source:
                session = Session(source, threads=threads)
                seen[key] = _nearness(exact, [session.run(s.inputs) for s in samples])
        scores[name] = seen[key]
    best = max(names, key=lambda n: scores[n])
    measure, unit = ("SQNR", "dB") if any(_floats(v) for v in exact[0].values()) else ("equal elements", "%")
    figures = ", ".join(f"{n} {scores[n]:.1f} {unit}" for n in names)
    what = "1 calibration sample" if len(samples) == 1 else f"{len(samples)} calibration samples"
    return best, [f"Method {best} was chosen by the outputs' {measure} on {what}: {figures}."]


def _nearness(exact: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> float:
    """SQNR in dB, the mean over the outputs that are float; the percentage of equal elements if none is."""
    decibels: list[float] = []
    equal = count = 0
    for name in exact[0]:
        pairs = [(a[name], b[name]) for a, b in zip(exact, other, strict=True)]
        arrays = [(x, y) for a, b in pairs for x, y in zip(_floats(a), _floats(b), strict=False) if x.shape == y.shape]
        if arrays:
            finite = [(x[np.isfinite(x)], y[np.isfinite(x)]) for x, y in arrays]
            signal = sum(float((x**2).sum()) for x, _ in finite)
            noise = sum(float(((x - y) ** 2).sum()) for x, y in finite)
            worst = not np.isfinite(noise)  # NaN or Inf that the float model does not have
            decibels.append(-np.inf if worst else 10 * float(np.log10(max(signal, 1e-30) / max(noise, 1e-30))))
        for a, b in pairs:
            if isinstance(a, np.ndarray) and a.shape == b.shape:
                equal += int((a == b).sum())
                count += a.size
    return float(np.mean(decibels)) if decibels else 100.0 * equal / max(count, 1)


def _floats(value: Any) -> list[NDArray[np.float64]]:
    """The float arrays of an output: of a tensor one at most, of a sequence those in it."""
    items = value if isinstance(value, list) else [value]
    return [v.astype(np.float64) for v in items if isinstance(v, np.ndarray) and v.dtype.kind == "f"]


def _spread(data: Dataset, count: int) -> list[Sample]:
    wanted = set(spread(len(data), count))
    return [sample for position, sample in enumerate(data) if position in wanted]
