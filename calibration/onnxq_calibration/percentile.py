"""Percentile: cut off a fixed share of the values on each side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxq.encoding import Scheme
from onnxq.errors import UsageError
from onnxq.stats.statistics import TensorStatistics
from onnxq_calibration._distribution import distribution, unless_empty


@dataclass(frozen=True, kw_only=True)
class Percentile:
    """From the (100 - percentile)-th to the percentile-th percentile of all values seen.

    The default cuts one value in 10,000 on each side: meant for CNNs, where it removes freak activations.
    It cuts by number and not by weight: where few large values carry the meaning (residual stream of transformers,
    box regression), raise it or use min-max. A side that ends at zero, as after a ReLU, is not cut. Exact to the
    width of a histogram bin (0.8 %) and never outside of the exact range; a tensor that is zero almost everywhere keeps
    its whole range.

    Attributes:
        percentile: share in percent kept on each side, above 50 and at most 100 (100 is min-max).
    """

    percentile: float = 99.99

    observers: ClassVar[tuple[str, ...]] = ("minmax", "histogram")

    def __post_init__(self) -> None:
        if not 50 < self.percentile <= 100:
            raise UsageError(f"percentile is {self.percentile}: it must be above 50 and at most 100, as in 99.99")

    def range(self, statistics: TensorStatistics, scheme: Scheme) -> tuple[float, float]:  # noqa: ARG002
        if self.percentile == 100:
            return statistics.min, statistics.max
        seen = distribution(statistics)
        share = self.percentile / 100
        return unless_empty(seen.quantile(1 - share), seen.quantile(share), statistics)
