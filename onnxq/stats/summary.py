"""What stands out in statistics: the widest tensors, and those whose range a few values set."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from onnxq.stats.observers import Histogram
from onnxq.stats.statistics import Statistics, TensorStatistics

MOST = 10
"""Tensors in each list."""

QUANTILE = 0.999
"""Share of the elements whose magnitude is compared with the greatest one."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One tensor.

    Attributes:
        name, min, max, count: as in the statistics.
        body: magnitude that 99.9 % of the elements do not exceed (upper edge of a bin, at most 0.8 % too high); None:
            no distribution was collected.
    """

    name: str
    min: float
    max: float
    count: int
    body: float | None

    @property
    def width(self) -> float:
        return self.max - self.min

    @property
    def outliers(self) -> float:
        """max |x| / `body`, at least 1: 8 means that the last thousandth of the elements costs 3 of 8 bits."""
        if self.body is None:
            return math.nan
        peak = max(abs(self.min), abs(self.max))
        if not self.body:
            return math.inf if peak else 1.0
        return max(1.0, peak / self.body)


def tensors(statistics: Statistics) -> list[Tensor]:
    """All tensors, by name."""
    return [
        Tensor(name=name, min=found.min, max=found.max, count=found.count, body=_body(found))
        for name, found in sorted(statistics.tensors.items())
    ]


def widest(found: list[Tensor]) -> list[Tensor]:
    """Those with the greatest max - min, at most `MOST`."""
    return sorted(found, key=lambda t: -t.width)[:MOST]


def ridden(found: list[Tensor]) -> list[Tensor]:
    """Those with the greatest `outliers`, at most `MOST`; none without a distribution."""
    return sorted((t for t in found if t.body is not None), key=lambda t: -t.outliers)[:MOST]


def _body(found: TensorStatistics) -> float | None:
    if Histogram.name not in found.observers:
        return None
    lower, upper, counts = found.histogram.bins()
    if not counts.size:
        return None
    far = np.maximum(np.abs(lower), np.abs(upper))
    order = np.argsort(far)
    share = np.cumsum(counts[order]) / counts.sum()
    return float(far[order][np.searchsorted(share, QUANTILE)])
