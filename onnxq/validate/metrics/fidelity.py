"""Scores without labels: how near the outputs come to those of the float model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from onnxq.validate.metrics.base import Outputs


def _pairs(outputs: Outputs, reference: Outputs) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """All float outputs of both models, flat; elements that are not finite on both sides are left out."""
    got: list[NDArray[np.float64]] = []
    wanted: list[NDArray[np.float64]] = []
    for name, value in reference.items():
        expected, actual = np.asarray(value), np.asarray(outputs[name])
        if expected.dtype.kind != "f":
            continue
        if expected.shape != actual.shape:
            raise ValueError(
                f'output "{name}" has shape {list(actual.shape)} but {list(expected.shape)} in the float model'
            )
        got.append(actual.astype(np.float64).ravel())
        wanted.append(expected.astype(np.float64).ravel())
    if not wanted:
        raise ValueError("the model has no float output")
    x, y = np.concatenate(wanted), np.concatenate(got)
    finite = np.isfinite(x) & np.isfinite(y)
    return x[finite], y[finite]


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Mean over the samples of the cosine between both models' outputs, -1 to 1."""

    higher_is_better: ClassVar[bool] = True
    label_free: ClassVar[bool] = True

    def record(self, outputs: Outputs, label: Any) -> Sequence[float]:
        """[cosine] of one sample; two zero vectors have cosine 1, one zero vector 0."""
        x, y = _pairs(outputs, label)
        norm = math.sqrt(float(x @ x)) * math.sqrt(float(y @ y))
        if norm == 0.0:
            return [1.0 if not x.any() and not y.any() else 0.0]
        return [float(x @ y) / norm]

    def score(self, records: NDArray[np.float64]) -> float:
        """Mean."""
        return float(records[:, 0].mean())


@dataclass(frozen=True, kw_only=True)
class Sqnr:
    """Signal to quantization noise in dB over all samples: 10 log10(sum x^2 / sum (x - y)^2); infinite if equal."""

    higher_is_better: ClassVar[bool] = True
    label_free: ClassVar[bool] = True

    def record(self, outputs: Outputs, label: Any) -> Sequence[float]:
        """[sum x^2, sum (x - y)^2] of one sample."""
        x, y = _pairs(outputs, label)
        return [float(x @ x), float((x - y) @ (x - y))]

    def score(self, records: NDArray[np.float64]) -> float:
        """dB."""
        signal, noise = (float(c) for c in records.sum(axis=0))
        return decibels(signal, noise)


def decibels(signal: float, noise: float) -> float:
    """10 log10(signal / noise): inf without noise, -inf without signal.

    >>> decibels(100.0, 1.0), decibels(1.0, 0.0)
    (20.0, inf)
    """
    if noise == 0.0:
        return math.inf
    return 10.0 * math.log10(signal / noise) if signal > 0.0 else -math.inf
