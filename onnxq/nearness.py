"""The judge of a budget without labels: outputs beside those of the float model, and what decisions that turn cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from onnxq.config.placing import Budget, Judged
from onnxq.data.sample import Dataset
from onnxq.decisions import by_decisions
from onnxq.faintest import Parts, reshaped
from onnxq.ir.model import Model
from onnxq.options import Options
from onnxq.placement.effort import EFFORTS
from onnxq.trial import input_bytes, outputs_of, spread_samples

LEAST_EQUAL = 95.0
"""Percentage of equal elements that a model without float outputs keeps."""

SAMPLES = 16
"""Calibration samples, evenly spread, on which outputs are compared."""

MANY, MANY_BYTES = 256, 128 << 20
"""Calibration samples, evenly spread, on which decisions are compared, at most; bytes of their inputs."""


def judge_of(model: Model, data: Dataset, options: Options, *, seconds: float = math.inf) -> Callable[[Model], Judged]:
    """The judge of the options; without one, outputs are compared on calibration samples.

    Args:
        model: normalised, float.
        data: calibration samples.
        seconds: of one run of it.
    """
    if options.judge is not None:
        return options.judge
    budget = options.budget or Budget()
    samples = [s.inputs for s in spread_samples(data, SAMPLES)]
    judge = by_outputs(model, samples, budget, options.threads)
    effort = EFFORTS[options.placing.effort] if options.placing is not None else EFFORTS["default"]
    if budget.stated or not effort.judging_seconds:
        return judge
    fit = MANY_BYTES / max(input_bytes(samples[0]), 1)
    many = int(min(effort.judging_seconds / max(seconds, 1e-6), MANY, fit))
    if many > SAMPLES:
        samples = [s.inputs for s in spread_samples(data, many)]
    return by_decisions(judge, model, samples, options.threads)


def by_outputs(
    model: Model, samples: Sequence[Mapping[str, NDArray[Any]]], budget: Budget, threads: int | None
) -> Callable[[Model], Judged]:
    """A judge that compares the outputs with those of the float model.

    Args:
        model: float.
        samples: inputs, one at least.
    """

    exact = outputs_of(model, samples, threads)
    parts = Parts(exact)
    nothing = sum(all(getattr(value, "size", 1) == 0 for value in outputs.values()) for outputs in exact)
    limit, unit = (budget.min_sqnr_db, "dB SQNR") if parts.floats else (LEAST_EQUAL, "% equal elements")

    def judge(some: Model) -> Judged:
        got = outputs_of(some, samples, threads)
        worst = parts.faintest(parts.levels(exact, got))
        near = f"{worst.decibels:.1f} {unit}{worst.where}"
        other = sum(reshaped(a, b) for a, b in zip(exact, got, strict=True))
        lost = f" ({other} with outputs of another shape, which count as lost: labels would tell)" if other else ""
        lost += f" ({nothing} with empty outputs, which say nothing)" if nothing else ""
        return Judged(
            holds=worst.decibels >= limit,
            sentence=f"{near} on {len(samples)} calibration samples{lost}, at least {limit:g} asked",
            sqnr_db=worst.decibels if parts.floats else None,
        )

    return judge
