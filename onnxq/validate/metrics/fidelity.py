"""Scores without labels: how near the outputs come to those of the float model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from onnxq.validate.metrics.base import Outputs
from onnxq.validate.metrics.classification import class_scores


def _pairs(outputs: Outputs, reference: Outputs, output: str = "") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """All float outputs of both models (or the one that is named), flat; elements that are not finite on both sides are
    left out.
    """
    if output and output not in reference:
        raise ValueError(f'the model has no output "{output}", it has {", ".join(reference)}')
    got: list[NDArray[np.float64]] = []
    wanted: list[NDArray[np.float64]] = []
    for name, value in reference.items():
        expected, actual = np.asarray(value), np.asarray(outputs[name])
        if expected.dtype.kind != "f" or (output and name != output):
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
    """Mean over the samples of the cosine between both models' outputs, -1 to 1.

    Attributes:
        output: name of the output; empty: all float outputs as one vector.
    """

    output: str = ""
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    higher_is_better: ClassVar[bool] = True
    label_free: ClassVar[bool] = True

    def record(self, outputs: Outputs, label: Any) -> Sequence[float]:
        """[cosine] of one sample; two zero vectors have cosine 1, one zero vector 0."""
        x, y = _pairs(outputs, label, self.output)
        norm = math.sqrt(float(x @ x)) * math.sqrt(float(y @ y))
        if norm == 0.0:
            return [1.0 if not x.any() and not y.any() else 0.0]
        return [float(x @ y) / norm]

    def score(self, records: NDArray[np.float64]) -> float:
        """Mean."""
        return float(records[:, 0].mean())


@dataclass(frozen=True, kw_only=True)
class Sqnr:
    """Signal to quantization noise in dB over all samples: 10 log10(sum x^2 / sum (x - y)^2); infinite if equal.

    Attributes:
        output: name of the output; empty: all float outputs.
    """

    output: str = ""
    higher_is_better: ClassVar[bool] = True
    label_free: ClassVar[bool] = True

    def record(self, outputs: Outputs, label: Any) -> Sequence[float]:
        """[sum x^2, sum (x - y)^2] of one sample."""
        x, y = _pairs(outputs, label, self.output)
        return [float(x @ x), float((x - y) @ (x - y))]

    def score(self, records: NDArray[np.float64]) -> float:
        """dB."""
        return float(self.of_sums(records.sum(axis=0)))

    def of_sums(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """dB from column sums [..., 2]."""
        signal, noise = sums[..., 0], sums[..., 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(noise == 0.0, np.inf, 10.0 * (np.log10(signal) - np.log10(noise))))

    def at_worst(self, records: NDArray[np.float64], share: float) -> float:
        """dB if this share of the signal were lost altogether."""
        signal, noise = (float(c) for c in records.sum(axis=0))
        return decibels(signal, noise + share * signal)


@dataclass(frozen=True, kw_only=True)
class VectorCosine:
    """Cosine between both models' outputs, all elements of all samples taken as one vector, -1 to 1.

    Rows are [x y, x x, y y], each summed over a sample.
    """

    output: str = ""
    higher_is_better: ClassVar[bool] = True
    label_free: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    def record(self, outputs: Outputs, label: Any) -> Sequence[float]:
        """The three sums of one sample."""
        x, y = _pairs(outputs, label, self.output)
        return [float(x @ y), float(x @ x), float(y @ y)]

    def score(self, records: NDArray[np.float64]) -> float:
        """-1 to 1; 1 if both vectors are zero, 0 if one is."""
        return float(self.of_sums(records.sum(axis=0)))

    def of_sums(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Cosines from column sums [..., 3]."""
        norm = np.sqrt(sums[..., 1]) * np.sqrt(sums[..., 2])
        same = (sums[..., 1] == 0) & (sums[..., 2] == 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(norm == 0.0, same.astype(np.float64), sums[..., 0] / norm))


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Share of rows of class scores whose best class is the float model's, 0 to 1.

    Attributes:
        output: name of the output; empty: the first that looks like class scores [N, classes].
    """

    output: str = ""
    higher_is_better: ClassVar[bool] = True
    label_free: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def record(self, outputs: Outputs, label: Any) -> Sequence[float]:
        """[share of the sample's rows that agree]."""
        x, y = class_scores(label, self.output), class_scores(outputs, self.output)
        if x.shape != y.shape:
            raise ValueError(f"{list(y.shape)} scores, but {list(x.shape)} in the float model")
        return [float((x.argmax(axis=1) == y.argmax(axis=1)).mean())]

    def score(self, records: NDArray[np.float64]) -> float:
        """Mean."""
        return float(records[:, 0].mean())


def decibels(signal: float, noise: float) -> float:
    """10 log10(signal / noise): inf without noise, -inf without signal.

    >>> decibels(100.0, 1.0), decibels(1.0, 0.0)
    (20.0, inf)
    """
    if noise == 0.0:
        return math.inf
    return 10.0 * math.log10(signal / noise) if signal > 0.0 else -math.inf
