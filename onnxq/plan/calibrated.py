"""Ranges for the planner: statistics, seen through a calibrator, with what the ops around a tensor say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.encoding import Scheme
from onnxq.plan.spread import Spread
from onnxq.stats.calibrator import Calibrator
from onnxq.stats.ranges import range_of
from onnxq.stats.statistics import Statistics
from onnxq.stats.surroundings import Surroundings
from onnxq.stats.weights import WeightMethod, weight_range


class CalibratedRanges:
    """What planning asks of calibration: statistics seen through a calibrator."""

    def __init__(
        self,
        statistics: Statistics,
        calibrator: Calibrator,
        weight_method: WeightMethod,
        around: Mapping[str, Surroundings] | None = None,
    ) -> None:
        self.statistics = statistics
        self.calibrator = calibrator
        self.weight_method: WeightMethod = weight_method
        self.around = around or {}
        self._cache: dict[tuple[str, Scheme], tuple[float, float]] = {}
        self._spreads: dict[str, Spread] = {}

    def range(self, tensor: str, scheme: Scheme) -> tuple[float, float] | None:
        found = self.statistics.tensors.get(tensor)
        if found is None:
            return None
        key = (tensor, scheme)
        if key not in self._cache:
            around = self.around.get(tensor, Surroundings())
            self._cache[key] = range_of(found, self.calibrator, scheme, around)
        return self._cache[key]

    def spread(self, tensor: str) -> Spread | None:
        """See `onnxq.plan.spread.Spreads`."""
        found = self.statistics.tensors.get(tensor)
        if found is None:
            return None
        if tensor not in self._spreads:
            self._spreads[tensor] = Spread.seen(found)
        return self._spreads[tensor]

    def weight_range(self, weight: NDArray[Any], scheme: Scheme) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return weight_range(weight, scheme, self.weight_method)
