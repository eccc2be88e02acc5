"""Sensitivities that several tests look at, a bad scale, a metric."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tiny
from numpy.typing import NDArray
from switched import planned, res8
from whole import Samples, normal

from onnxq.encoding import Affine
from onnxq.plan.plan import Plan
from onnxq.sensitivity.engine import Options, sensitivity
from onnxq.sensitivity.result import Sensitivity
from onnxq.sensitivity.work import Scoring
from onnxq.validate.metrics import load_metric

FEW = Options(samples=4, eval_samples=8)


@functools.cache
def measured_res8(rest: bool = False, units: bool = False) -> Sensitivity:
    """fashion-res8, 4 samples and 8 for top1, measured once."""
    model, plan, data, judged = res8()
    options = dataclasses.replace(FEW, rest=rest, units=units)
    return sensitivity(model, plan, data, options, evaluation=judged, scoring=top1(), threads=1)


def top1() -> Scoring:
    """The registered metric."""
    return Scoring(metric=load_metric("top1", Path()), name="top1")


def coarse(plan: Plan, uses: dict[Any, str], tensor: str, factor: float) -> Plan:
    """The plan with a bad scale on one tensor."""

    def worse(encoding: Affine) -> Affine:
        return dataclasses.replace(encoding, scale=(encoding.scale * factor).astype(np.float32))

    changed = {u: worse(e) if uses.get(u) == tensor else e for u, e in plan.uses.items()}
    return dataclasses.replace(plan, uses=changed)


class Wrong:
    """An error rate: less is better."""

    higher_is_better: ClassVar[bool] = False

    def record(self, outputs: Any, label: Any) -> Sequence[float]:
        if label == "bad":
            raise KeyError("no such class")
        return [float(int(np.argmax(outputs["scores"])) != label)]

    def score(self, records: NDArray[np.float64]) -> float:
        return float(records[:, 0].mean())


class Labelled(Samples):
    """Samples with the labels 0 to 3; say `labelled=True`."""

    labels: ClassVar[Sequence[Any]] = (0, 1, 2, 3)

    def __iter__(self) -> Any:
        for sample in super().__iter__():
            yield dataclasses.replace(sample, label=self.labels[sample.index])


def classifier() -> tuple[Any, Plan, list[Any]]:
    """The tiny classifier, its plan and 4 samples."""
    samples = list(normal(4, image=(1, 3, 8, 8)))
    return *planned(tiny.classifier(), samples), samples
