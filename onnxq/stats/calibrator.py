"""What a calibrator is: statistics of one tensor and the scheme it will be quantized with in, a range of real numbers
out.

    @dataclass(frozen=True, kw_only=True)
    class MinMax:
        '''The whole range that was seen. ...'''
        observers: ClassVar[tuple[str, ...]] = ("minmax",)

        def range(self, statistics: TensorStatistics, scheme: Scheme) -> tuple[float, float]:
            return statistics.min, statistics.max

Registered as an entry point of the group `onnxq.calibrators`; its name there is the name for `--method`. Its fields
are its settings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from onnxq import registry
from onnxq.encoding import Scheme
from onnxq.errors import ConfigError, UnknownNameError, did_you_mean
from onnxq.stats.statistics import TensorStatistics

AUTO = "auto"
"""The method that is none: each of ours is tried, and the one that comes nearest to the float outputs is taken."""

Reader: TypeAlias = Callable[[NDArray[np.float64], float], NDArray[np.float64]]
"""What an op that reads a tensor makes of its values (elementwise, same shape), given the tensor's exact maximum."""


@runtime_checkable
class Calibrator(Protocol):
    """A frozen, keyword-only dataclass with these two members."""

    observers: ClassVar[tuple[str, ...]]
    """Names of the observers it reads, known before the one run over the data."""

    def range(self, statistics: TensorStatistics, scheme: Scheme) -> tuple[float, float]:
        """The least and the greatest real number that quantization should keep, low <= high, both finite.

        The range need not contain 0: the encoding made of it does (`onnxq.numerics.affine`).

        Args:
            statistics: of a tensor with at least one element, holding `observers`.
            scheme: type, symmetry and granularity of the encoding.
        """
        ...


@runtime_checkable
class FeelingCalibrator(Calibrator, Protocol):
    """A calibrator that also wants to know who reads the tensor."""

    def range_felt(
        self, statistics: TensorStatistics, scheme: Scheme, readers: Sequence[Reader]
    ) -> tuple[float, float]:
        """As `range`; an error counts by what it changes behind each of `readers` (none: by itself)."""
        ...


CANDIDATES = ("minmax", "mixed", "mse", "percentile", "entropy")
"""What `auto` tries, in the order of how much they clip: no single method wins on every model."""


def make_calibrators(method: str, settings: Mapping[str, Any]) -> dict[str, Calibrator]:
    """A registered calibrator by its name, or all candidates of `auto`.

    Raises:
        UnknownNameError, ConfigError: no such method or setting.
    """
    if method != AUTO:
        if method not in registry.names(registry.CALIBRATORS):
            known = [AUTO, *registry.names(registry.CALIBRATORS)]
            raise UnknownNameError(f'there is no method "{method}": {did_you_mean(method, known)}')
        return {method: _make_calibrator(method, settings)}
    if settings:
        raise ConfigError("the method auto has no settings: name one method to give it some")
    return {name: _make_calibrator(name, {}) for name in CANDIDATES}


def _make_calibrator(method: str, settings: Mapping[str, Any]) -> Calibrator:
    cls = registry.load(registry.CALIBRATORS, method)
    known = [f.name for f in dataclasses.fields(cls)]
    for key in settings:
        if key not in known:
            raise ConfigError(f'method "{method}" has no setting "{key}": {did_you_mean(key, known)}')
    calibrator: Calibrator = cls(**settings)
    return calibrator
