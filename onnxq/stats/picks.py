"""Which elements of a tensor are counted: a choice by the size of the tensor and the position of the sample alone."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.stats.guards import Shape

WHOLE = 1 << 62
"""More elements than any tensor has: as a number of elements to pick, all of them."""

EVERY = 1 << 21
"""Elements of one sample, of all tensors whose size inference leaves open, up to which all are counted (about 3 ms)."""

HALVED = 2
"""Above that, this part of the elements is picked that would be picked inside the graph: reading them costs more."""

_BITS = (1 << 64) - 1
_UPPER = 1 if sys.byteorder == "little" else 0


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Elements of some tensors, one tensor after the other.

    Attributes:
        patterns: of each tensor, uint16: the upper halves of its elements' float32 form.
        weights: int64 [tensors], how many elements of the tensor each stands for; negative takes them back.
        names: of the tensors.
    """

    patterns: tuple[NDArray[np.uint16], ...]
    weights: NDArray[np.int64]
    names: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """Of the elements."""
        return 2 * sum(map(len, self.patterns))


def patterns(values: NDArray[np.float32], begin: int = 0, step: int = 1) -> NDArray[np.uint16]:
    """The upper halves of every `step`-th of the float32 values [n] from `begin` on."""
    if step > 1:
        return np.ascontiguousarray(values).view(np.uint16)[2 * begin + _UPPER :: 2 * step].copy()
    # of a whole vector, twice as fast as copying every second uint16
    out = np.empty(len(values) - begin, dtype=np.uint16)
    return np.right_shift(values[begin:].view(np.uint32), 16, out=out, casting="unsafe")


def picked_from(arrays: Mapping[str, NDArray[Any]], pick: int | None, position: int) -> Counted:
    """Elements of whole arrays: all if they are `EVERY` at most, else every k-th, `pick // HALVED` of each at most."""
    most = pick // HALVED if pick and sum(array.size for array in arrays.values()) > EVERY else None
    some: list[NDArray[np.uint16]] = []
    weights = np.ones(len(arrays), dtype=np.int64)
    begin = scattered(position)
    for place, array in enumerate(arrays.values()):
        flat = np.ascontiguousarray(array, dtype=np.float32).reshape(-1)
        step = pace(flat.size, most)
        some.append(patterns(flat, begin % step, step))
        weights[place] = step
    return Counted(patterns=tuple(some), weights=weights, names=tuple(arrays))


def pace(size: int, most: int | None) -> int:
    """The stride with which elements are picked: the least >= size / most, or one above by a quarter at most that has
    no common divisor with the size.

    With such a one, every row, column and channel is visited evenly in each sample; with another in the course of some
    samples, because it begins elsewhere in each. `onnxq.stats.observers.stride` begins at the first element always,
    and goes further for it: over 12,000 elements with steps of 7 instead of 3.

    >>> pace(1000, 100), pace(100, 100), pace(12000, 4096), pace(2**20, 2**16), pace(10**6, None)
    (11, 1, 3, 17, 1)
    """
    if most is None or size <= most:
        return 1
    least = -(-size // most)
    return next((step for step in range(least, least + least // 4 + 1) if math.gcd(step, size) == 1), least)


def scattered(position: int) -> int:
    """A number that looks drawn by lot, of 31 bits: splitmix64 (Steele, Lea, Flood 2014)."""
    value = (position + 1) * 0x9E3779B97F4A7C15 & _BITS
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _BITS
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _BITS
    return (value ^ value >> 31) >> 33


def coarse(shape: Shape, pick: int | None) -> int:
    """Step over the rows and columns of pictures [N, C, H, W] that leaves at least `pick` elements of one.

    So that the first row and column do not weigh much more than the edges do, a third of the rows of a small picture
    stays, or 8 of a large one.

    >>> coarse(("N", 32, 112, 112), 4096), coarse((1, 480, 14, 14), 4096), coarse((1, 480, 7, 7), 4096)
    (10, 3, 1)
    """
    channels, *sides = [d for d in shape[1:] if isinstance(d, int)] or [0]
    if len(shape) != 4 or len(sides) != 2 or pick is None:
        return 1
    short = min(sides)
    most = short // 8 if short >= 32 else 3 if short >= 12 else 1
    step = 1
    while step < most and channels * math.prod(-(-d // (step + 1)) for d in sides) >= pick:
        step += 1
    return step
