"""Is the line upright or turned by 180 degrees?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Top1:
    """Share of lines whose direction (class 0: upright, 1: turned) is found."""

    higher_is_better: ClassVar[bool] = True

    def record(self, outputs: Mapping[str, NDArray[Any]], label: object) -> Sequence[float]:
        """``[1.0]`` if the larger of the two probabilities [1, 2] is the label's, else ``[0.0]``."""
        (scores,) = outputs.values()
        return [float(int(np.argmax(scores)) == int(str(label)))]

    def score(self, records: NDArray[np.float64]) -> float:
        """Mean over the rows [n, 1]."""
        return float(records[:, 0].mean())
