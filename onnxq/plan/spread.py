"""How the values of a tensor are spread, as far as calibration knows: what rounding with some step does to them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from onnxq.stats.observers import Histogram
from onnxq.stats.statistics import TensorStatistics

BODY = 0.99
"""Share of the elements other than 0, by magnitude, that are the body: what is beyond sets ranges and energies."""

EVEN = 257
"""Values that stand for a range of which nothing else is known."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Spread:
    """Of one tensor, [n]: how often which magnitude occurs.

    Attributes:
        magnitudes: ascending, >= 0.
        counts: of each, > 0.
        guessed: only the range is known.
    """

    magnitudes: NDArray[np.float64]
    counts: NDArray[np.float64]
    guessed: bool = False

    @classmethod
    def even(cls, low: float, high: float) -> Spread:
        """As if all values between two were equally frequent."""
        return replace(cls.of(np.linspace(low, high, EVEN)), guessed=True)

    @classmethod
    def of(cls, values: NDArray[Any]) -> Spread:
        """Of constants."""
        return cls._made(np.abs(values.astype(np.float64)).reshape(-1), np.ones(values.size))

    @classmethod
    def seen(cls, found: TensorStatistics) -> Spread:
        """As collected: from the distribution if there is one, else from the extremes."""
        if Histogram.name in found.observers and found.histogram.counts.size:
            lower, upper, counts = found.histogram.bins()
            return cls._made(np.abs(lower + upper) / 2, counts.astype(np.float64))
        return cls.even(found.min, found.max)

    @classmethod
    def _made(cls, magnitudes: NDArray[np.float64], counts: NDArray[np.float64]) -> Spread:
        order = np.argsort(magnitudes, kind="stable")
        return cls(magnitudes=magnitudes[order], counts=counts[order])

    @cached_property
    def energy(self) -> float:
        """Mean square of all elements."""
        total = float(self.counts.sum())
        return float(self.magnitudes**2 @ self.counts) / total if total else 0.0

    @property
    def rms(self) -> float:
        return math.sqrt(self.energy)

    @cached_property
    def body(self) -> Spread:
        """The lower `BODY` of the elements other than 0, which every encoding keeps exactly."""
        some = self.magnitudes > 0
        below = np.cumsum(self.counts[some])
        inside = below <= BODY * below[-1] if below.size else below > 0
        if not inside.any():
            inside[:] = True
        return Spread(magnitudes=self.magnitudes[some][inside], counts=self.counts[some][inside])

    def decibels(self, step: float) -> float:
        """SQNR behind rounding to multiples of a step s: the error has the energy s^2 / 12, or x^2 where |x| < s / 2.

        Infinite for nothing but zeros.
        """
        if not self.energy:
            return math.inf
        errors = np.where(self.magnitudes < step / 2, self.magnitudes**2, step * step / 12)
        noise = float(errors @ self.counts) / float(self.counts.sum())
        return decibels(self.energy, noise)


@runtime_checkable
class Spreads(Protocol):
    """Ranges that know more of a tensor than its range."""

    def spread(self, tensor: str) -> Spread | None:
        """Of an activation; None if nothing is known of it."""
        ...


def decibels(signal: float, noise: float) -> float:
    """10 log10 of the ratio of two energies, the first above 0.

    >>> decibels(100.0, 1.0)
    20.0
    """
    return math.inf if noise == 0 else 10 * math.log10(signal / noise)
