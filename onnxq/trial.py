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
    default level. Methods whose plans
    are equal are tried once; ties go to the one that is named first.
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
    seen: dict[str, float] = {}
    for name in names:
        key = plans[name].to_json()
        if key not in seen:
            trial = model.copy()
            inserter().run(trial.graph, dataclasses.replace(context, plan=plans[name]))
            with runnable(trial) as source:
                session = Session(source, threads=threads)
                seen[key] = _nearness(exact, [session.run(s.inputs) for s in samples])
        scores[name] = seen[key]
    best = max(names, key=lambda n: scores[n])
    figures = ", ".join(f"{n} {scores[n]:.1f} dB" for n in names)
    return best, [f"Method {best} was chosen by the outputs' SQNR on {len(samples)} calibration samples: {figures}."]


def _nearness(exact: Sequence[Mapping[str, NDArray[Any]]], other: Sequence[Mapping[str, NDArray[Any]]]) -> float:
    decibels: list[float] = []
    for name, first in exact[0].items():
        if not isinstance(first, np.ndarray) or first.dtype.kind != "f":
            continue
        pairs = [(a[name].astype(np.float64), b[name].astype(np.float64)) for a, b in zip(exact, other, strict=True)]
        signal = sum(float((a**2).sum()) for a, _ in pairs)
        noise = sum(float(((a - b) ** 2).sum()) for a, b in pairs if a.shape == b.shape)
        decibels.append(10 * float(np.log10(max(signal, 1e-30) / max(noise, 1e-30))))
    return float(np.mean(decibels)) if decibels else 0.0


def _spread(data: Dataset, count: int) -> list[Sample]:
    step = max(1, len(data) // count)
    return list(itertools.islice(iter(data), 0, step * count, step))
