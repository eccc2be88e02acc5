"""One calibration method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxq.encoding import Scheme
from onnxq.stats.statistics import TensorStatistics


@dataclass(frozen=True, kw_only=True)
class Trimmed:
    """A fixed part of the range that was seen.

    Attributes:
        keep: the part, above 0 and at most 1.
    """

    observers: ClassVar[tuple[str, ...]] = ("minmax",)
    keep: float = 0.9

    def range(self, statistics: TensorStatistics, scheme: Scheme) -> tuple[float, float]:
        """Least and greatest value, both scaled towards 0 where they enclose it."""
        low, high = min(statistics.min, 0.0), max(statistics.max, 0.0)
        return low * self.keep, high * self.keep
