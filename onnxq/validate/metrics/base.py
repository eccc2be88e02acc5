"""What a metric is, and how a name becomes one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from onnxq import registry
from onnxq.errors import UsageError

Outputs = Mapping[str, NDArray[Any]]


@runtime_checkable
class Metric(Protocol):
    """A score over a data set, built from one row of numbers per sample.

    Rows are what makes intervals possible: the bootstrap draws rows, the same ones for both models, and calls `score`.
    A metric that compares with the float model instead of with labels says `label_free: ClassVar[bool] = True`; its
    `record` then gets the outputs of the float model in place of the label.

    Three more things a metric may have, all optional. `bounds: ClassVar[tuple[float, float]]`: least and greatest
    score, which make intervals of few samples honest and narrow. `of_sums(sums [..., k]) -> [...]`: the score from
    column sums, for metrics that are functions of these; the bootstrap is then fast. `max_resamples: ClassVar[int]`:
    draws of the bootstrap at most, for a slow `score`.
    """

    higher_is_better: ClassVar[bool]
    """False for error rates."""

    def record(self, outputs: Outputs, label: Any) -> Sequence[float]:
        """One sample to a row whose length is the same for all samples. ValueError with a sentence if it can't."""
        ...

    def score(self, records: NDArray[np.float64]) -> float:
        """All rows, float64 [n, k], to the score."""
        ...


@dataclass(frozen=True, kw_only=True)
class MeanOf:
    """A user's function `(outputs, label) -> number` as a metric: its mean over the samples."""

    function: Callable[[Outputs, Any], float]
    higher_is_better: ClassVar[bool] = True

    def record(self, outputs: Outputs, label: Any) -> Sequence[float]:
        """The number that the function gives."""
        return [float(self.function(outputs, label))]

    def score(self, records: NDArray[np.float64]) -> float:
        """Mean of the first column."""
        return float(records[:, 0].mean())


def load_metric(name: str, base: Path, settings: Mapping[str, Any] | None = None) -> Metric:
    """The metric behind an entry point (`top1`), a class or a function (`metric.py:Exact`, `package.module:exact`).

    Args:
        name: what the user wrote; files are looked up below `base`.
        base: folder of the job file, or the working directory.
        settings: fields of the metric's class.

    Raises:
        UnknownNameError: no metric is registered under this name; proposes the nearest.
        UsageError: the file, module or attribute is not there or is no metric.
    """
    found = registry.load_reference(name, base, "metric") if ":" in name else registry.load(registry.METRICS, name)
    if isinstance(found, type):
        try:
            found = found(**(settings or {}))
        except TypeError as error:
            how = f"with the settings {', '.join(settings)}" if settings else "without arguments"
            raise UsageError(f'metric "{name}" cannot be made {how}: {error}') from error
    elif settings:
        raise UsageError(f'metric "{name}" is no class, so it has no settings: leave {", ".join(settings)} out')
    if isinstance(found, Metric):
        return found
    if callable(found):
        return MeanOf(function=cast(Callable[[Outputs, Any], float], found))
    raise UsageError(
        f'metric "{name}" is neither a class with higher_is_better, record and score nor a function(outputs, label)'
    )


def is_label_free(metric: Metric) -> bool:
    """True if the metric compares with the outputs of the float model."""
    return bool(getattr(metric, "label_free", False))
