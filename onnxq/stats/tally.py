"""Counting bit patterns of 16 bits: which occur, and how often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Dense = NDArray[np.int64]
"""How often each pattern occurs, [n], up to the greatest that does: n is at most 65,536, and half of that or less for
tensors that are never negative."""

FEW = 8192
"""Elements up to which adding one by one is faster than counting into all patterns anew."""


def tally(cut: Mapping[int, Sequence[NDArray[np.uint16]]]) -> Dense:
    """Elements by pattern, each as often as its weight says.

    Args:
        cut: weight, which may be negative, -> arrays of patterns.
    """
    total = np.zeros(0, dtype=np.int64)
    for weight, some in sorted(cut.items(), key=lambda item: -sum(map(len, item[1]))):
        keys = np.concatenate(some, dtype=np.intp)  # bincount takes twice as long to do that itself
        if not keys.size:
            continue
        if total.size and keys.size < FEW:
            total = _longer(total, int(keys.max()) + 1)
            np.add.at(total, keys, weight)
            continue
        found = np.bincount(keys)
        if weight != 1:
            found *= weight
        if total.size:
            found = _longer(found, len(total))
            found[: len(total)] += total
        total = found
    return total


def occupied(
    parts: Sequence[Dense], keys: NDArray[np.int32] | None = None, counts: Dense | None = None
) -> tuple[NDArray[np.int32], Dense]:
    """The patterns that occur in any part or among `keys`, which ascend, and how often, both [bins]."""
    own = int(keys[-1]) + 1 if keys is not None and keys.size else 0
    total = np.zeros(max([own, *map(len, parts)]), dtype=np.int64)
    for part in parts:
        total[: len(part)] += part
    if keys is not None and counts is not None:
        total[keys] += counts
    found = np.flatnonzero(total != 0)  # on booleans: several times faster than on int64
    return found.astype(np.int32), total[found]


def _longer(total: Dense, length: int) -> Dense:
    if len(total) >= length:
        return total
    out = np.zeros(length, dtype=np.int64)
    out[: len(total)] = total
    return out
