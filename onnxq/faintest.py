"""How near outputs are to those of the float model, told of the part that suffers most: what every choice without
labels goes by (the method, repairs, the accuracy budget).

One figure for all outputs hides what is lost: of box coordinates beside class scores in one tensor the SQNR speaks of
boxes only, and six exact key-value caches beside ruined logits give a good mean. So the worst part of the worst output
counts.

    faintest(exact, other).decibels               of the float model and of one that is judged, by sample
    parts = Parts(exact)                          the same where samples come in rounds
    parts.faintest(parts.levels(exact, other)).decibels
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

APART = 10.0
"""Times by which the RMS of a slice lies below the loudest slice of its output to count as quiet: all of such a slice
may be lost, and the SQNR of the whole is still 20 dB, which is where models of 8 bits are."""

LEAST = 8
"""Elements that a slice has in each sample at least: fewer are single scores, whose noise says nothing."""

WORST, BEST = -20.0, 60.0
"""dB between which samples are told apart: beyond, an output is lost, or as good as equal."""

Arrays = list[NDArray[np.float64]]
Levels = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Faintest:
    """The part of the outputs that is nearest to being lost.

    Attributes:
        decibels: mean of its SQNR over the samples; of a model without float outputs the percentage of equal elements.
        where: what to call it behind "dB SQNR"; empty where there is only one part.
        levels: by sample, [samples].
    """

    decibels: float
    where: str
    levels: Levels


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A float output, or the slices of it along an axis where `mask` is."""

    output: str
    where: str
    axis: int = 0
    mask: NDArray[np.bool_] | None = None

    def cut(self, array: NDArray[np.float64]) -> NDArray[np.float64]:
        """The part of an array; all of it where its axis has another length than in the samples that were looked at."""
        if self.mask is None or array.ndim <= self.axis or array.shape[self.axis] != self.mask.size:
            return array
        return np.compress(self.mask, array, axis=self.axis)


class Parts:
    """The parts of a model's outputs.

    An output has two parts where some slices along its channel axis are quieter than 1/10 of the loudest one: the loud
    and the quiet slices. The channel axis is 1 of matrices and pictures, the last one of rank 5, the shorter one of
    axes 1 and 2 of rank 3. Probabilities, whose sum over that axis is 1, are one part: small ones are meant to be so.
    If no output is float, all of them are one part, of which equal elements are counted.

    Args:
        exact: what the float model gives, by sample, one at least.
        whole: take no output apart.

    Attributes:
        floats: is any output float?
    """

    def __init__(self, exact: Sequence[Mapping[str, Any]], *, whole: bool = False) -> None:
        self._parts: list[_Part] = []
        for name in exact[0]:
            arrays = [a for outputs in exact for a in floats_of(outputs[name])]
            if arrays:
                self._parts.extend(_parts(name, None if whole else _quiet(arrays)))
        self.floats = bool(self._parts)

    def levels(self, exact: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> Levels:
        """SQNR in dB, 10 log10 of signal over noise energy, from `WORST` to `BEST`: [samples, parts].

        Each sample counts alike: in one sum over all, the one sample whose decision flips would decide. Without float
        outputs the percentage of equal elements, [samples, 1].

        Args:
            exact: of the float model.
            other: of the model that is judged, in the same order.
        """
        if not self.floats:
            return np.array([[_equal(a, b)] for a, b in zip(exact, other, strict=True)])
        table = np.empty((len(exact), len(self._parts)))
        for row, a, b in zip(table, exact, other, strict=True):
            row[:] = [_level(part, a[part.output], b.get(part.output)) for part in self._parts]
        return table

    def faintest(self, levels: Levels) -> Faintest:
        """The part whose mean over samples is least.

        Args:
            levels: as `levels` gives them, of one sample at least.
        """
        at = _worst(levels)
        where = self._parts[at].where if len(self._parts) > 1 else ""
        return Faintest(decibels=float(np.mean(levels[:, at])), where=where, levels=levels[:, at])

    def cut(self, part: int, outputs: Sequence[Mapping[str, Any]]) -> Arrays:
        """What a part is, the arrays of all samples; `part` is a column of `levels`."""
        one = self._parts[part]
        return [one.cut(array) for some in outputs for array in floats_of(some[one.output])]


def worst_part(levels: Levels) -> Levels:
    """Of [samples, parts], the part whose mean over samples is least: [samples], as `Faintest` has it."""
    found: Levels = levels[:, _worst(levels)]
    return found


def faintest(exact: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> Faintest:
    """The worst part of the worst output.

    Args:
        exact: of the float model, by sample, one at least.
        other: of the model that is judged, in the same order.
    """
    parts = Parts(exact)
    return parts.faintest(parts.levels(exact, other))


def reshaped(exact: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Has any output of a sample another shape, as where the outputs of a detector are the boxes that it keeps?"""
    return any(isinstance(a, np.ndarray) and a.shape != other[name].shape for name, a in exact.items())


def decibels_of(exact: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """SQNR from WORST to BEST; BEST if nothing differs, silence included."""
    if exact.shape != other.shape:
        return WORST
    finite = np.isfinite(exact)
    signal = float((exact[finite] ** 2).sum())
    noise = float(((exact[finite] - other[finite]) ** 2).sum())
    if not np.isfinite(noise):  # NaN or Inf that the float model does not have
        return WORST
    if noise == 0.0:
        return BEST
    return float(np.clip(10 * np.log10(max(signal, 1e-30) / max(noise, 1e-30)), WORST, BEST))


def float_arrays(value: Any) -> list[NDArray[np.floating[Any]]]:
    """The float arrays of an output, as they are: of a tensor one at most, of a sequence those in it."""
    items = value if isinstance(value, list) else [value]
    return [v for v in items if isinstance(v, np.ndarray) and v.dtype.kind == "f"]


def floats_of(value: Any) -> Arrays:
    """The same in float64."""
    return [v.astype(np.float64) for v in float_arrays(value)]


def _worst(levels: Levels) -> int:
    return int(levels.mean(axis=0).argmin())


def _parts(name: str, quiet: tuple[int, NDArray[np.bool_]] | None) -> Iterator[_Part]:
    if quiet is None:
        yield _Part(output=name, where=f' of output "{name}"')
        return
    axis, mask = quiet
    along = f"({int(mask.sum())} of {mask.size} slices along axis {axis})"
    yield _Part(output=name, where=f' of output "{name}"', axis=axis, mask=~mask)
    yield _Part(output=name, where=f' of the quiet part of output "{name}" {along}', axis=axis, mask=mask)


def _level(part: _Part, exact: Any, other: Any) -> float:
    """Mean over the arrays of an output, of which a sequence has many; of none, nothing is lost."""
    pairs = zip(floats_of(exact), floats_of(other), strict=False)
    found = [decibels_of(part.cut(x), part.cut(y) if y.shape == x.shape else y) for x, y in pairs]
    return float(np.mean(found)) if found else BEST


def _equal(exact: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Percentage of equal elements."""
    equal = count = 0
    for name, value in exact.items():
        got = other[name]
        if isinstance(value, np.ndarray) and value.shape == got.shape:
            equal += int((value == got).sum())
            count += value.size
    return 100.0 * equal / max(count, 1)


def _quiet(arrays: Arrays) -> tuple[int, NDArray[np.bool_]] | None:
    """The channel axis and which of its slices are quiet; None where the output is of one part."""
    axis = _channel_axis(arrays)
    if axis is None:
        return None
    size = arrays[0].shape[axis]
    others = [tuple(i for i in range(a.ndim) if i != axis) for a in arrays]
    if any(a.shape[axis] != size or a.size < LEAST * size or not np.isfinite(a).all() for a in arrays):
        return None
    if size < 2 or all(np.allclose(a.sum(axis=axis), 1.0, atol=1e-3) for a in arrays):
        return None
    power = np.sum([np.square(a).sum(axis=o) for a, o in zip(arrays, others, strict=True)], axis=0)
    mask: NDArray[np.bool_] = np.sqrt(power) * APART < math.sqrt(float(power.max()))
    return (axis, mask) if mask.any() else None


def _channel_axis(arrays: Arrays) -> int | None:
    ranks = {a.ndim for a in arrays}
    if len(ranks) != 1:
        return None
    rank = ranks.pop()
    if rank == 3:
        first = [sum(a.shape[i] for a in arrays) for i in (1, 2)]
        return 1 if first[0] <= first[1] else 2
    return {2: 1, 4: 1, 5: 4}.get(rank)
