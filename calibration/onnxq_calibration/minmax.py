"""Min-max: keep everything that was seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxq.encoding import Scheme
from onnxq.stats.statistics import TensorStatistics


@dataclass(frozen=True, kw_only=True)
class MinMax:
    """The least and the greatest value that was seen, exactly.

    Clips nothing, so an outlier that matters (transformers, detection heads) survives; a single freak value makes
    every step larger. The safe choice where the ranges are bounded (ReLU6, sigmoid) and the samples are clean.
    """

    observers: ClassVar[tuple[str, ...]] = ("minmax",)

    def range(self, statistics: TensorStatistics, scheme: Scheme) -> tuple[float, float]:  # noqa: ARG002
        return statistics.min, statistics.max
