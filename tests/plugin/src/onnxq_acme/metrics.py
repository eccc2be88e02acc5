"""One metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Hits:
    """The share of samples whose largest output is the labelled one, in percent."""

    higher_is_better: ClassVar[bool] = True

    def record(self, outputs: Mapping[str, NDArray[Any]], label: Any) -> Sequence[float]:
        """1 if the first output is largest at the label."""
        return [float(int(np.argmax(next(iter(outputs.values())))) == int(label))]

    def score(self, records: NDArray[np.float64]) -> float:
        """Percent."""
        return 100.0 * float(records[:, 0].mean())
