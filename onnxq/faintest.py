"""How near outputs are to those of the float model, told of the part that suffers most.

One figure for all outputs hides what is lost: of box coordinates beside class scores in one tensor the SQNR speaks of
boxes only, and six exact key-value caches beside ruined logits give a good mean. So the worst part of the worst output
counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.trial import decibels_of, floats_of

APART = 30.0
"""Times by which the RMS of a slice lies below the loudest slice of its output to count as quiet."""

LEAST = 8
"""Elements that a slice has in each sample at least: fewer are single scores, whose noise says nothing."""

Arrays = list[NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Faintest:
    """The part of the outputs that is nearest to being lost.

    Attributes:
        decibels: mean of its SQNR over the samples.
        where: what to call it behind "dB SQNR"; empty where there is only one part.
    """

    decibels: float
    where: str


def faintest(exact: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> Faintest | None:
    """The worst part of the worst float output; None if no output is float.

    An output has two parts where some slices along its channel axis are quieter than 1/30 of the loudest one: the loud
    and the quiet slices. The channel axis is 1 of matrices and pictures, the last one of rank 5, the shorter one of
    axes 1 and 2 of rank 3. Probabilities, whose sum over that axis is 1, are one part: small ones are meant to be so.

    Args:
        exact: of the float model, by sample.
        other: of the model that is judged, in the same order.
    """
    found: list[Faintest] = []
    parts = 0
    for name in exact[0] if exact else ():
        pairs = [p for a, b in zip(exact, other, strict=True) for p in _pairs(a[name], b.get(name))]
        if not pairs:
            continue
        quiet = _quiet([x for x, _ in pairs])
        if quiet is None:
            parts += 1
            found.append(Faintest(decibels=_mean(pairs), where=f' of output "{name}"'))
            continue
        axis, mask = quiet
        parts += 2
        for part, said in ((~mask, ""), (mask, "the quiet part of ")):
            cut = [(_slices(x, axis, part), _slices(y, axis, part) if y.shape == x.shape else y) for x, y in pairs]
            along = f" ({int(mask.sum())} of {mask.size} slices along axis {axis})" if said else ""
            found.append(Faintest(decibels=_mean(cut), where=f' of {said}output "{name}"{along}'))
    worst = min(found, key=lambda f: f.decibels, default=None)
    return Faintest(decibels=worst.decibels, where="") if worst is not None and parts == 1 else worst


def _pairs(x: Any, y: Any) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    return list(zip(floats_of(x), floats_of(y), strict=False))


def _mean(pairs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> float:
    return float(np.mean([decibels_of(x, y) for x, y in pairs]))


def _slices(array: NDArray[np.float64], axis: int, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.compress(mask, array, axis=axis)


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
