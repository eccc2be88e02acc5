"""Correlation of a model's one number with the label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from onnxq.validate.metrics.base import Outputs


@dataclass(frozen=True, kw_only=True)
class Pearson:
    """Linear correlation of a scalar output with a numeric label, -1 to 1; 0 if either is constant.

    Attributes:
        output: name of the output; empty: the first float output with one element.
    """

    output: str = ""
    higher_is_better: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    def record(self, outputs: Outputs, label: Any) -> Sequence[float]:
        """[output, label] of one sample."""
        for name, value in outputs.items():
            array = np.asarray(value)
            if (not self.output or name == self.output) and array.dtype.kind == "f" and array.size == 1:
                try:
                    return [float(array.reshape(())), float(label)]
                except (TypeError, ValueError):
                    raise ValueError(f'the label "{label}" is not a number') from None
        shapes = ", ".join(f"{n} {list(np.shape(v))}" for n, v in outputs.items())
        raise ValueError(f"a correlation needs an output with one number per sample; the outputs are {shapes}")

    def score(self, records: NDArray[np.float64]) -> float:
        """Covariance over the product of the standard deviations."""
        first, second = records[:, 0] - records[:, 0].mean(), records[:, 1] - records[:, 1].mean()
        norm = float(np.sqrt((first @ first) * (second @ second)))
        return float(first @ second) / norm if norm else 0.0


@dataclass(frozen=True, kw_only=True)
class Spearman(Pearson):
    """Correlation of ranks; ties get their mean rank."""

    def score(self, records: NDArray[np.float64]) -> float:
        """Pearson's correlation of the ranks."""
        from scipy.stats import rankdata

        ranks = np.stack([rankdata(records[:, 0]), rankdata(records[:, 1])], axis=1)
        return Pearson.score(self, ranks)
