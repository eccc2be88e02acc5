"""Boxes found and boxes wanted: which belong together, and F1. For the models that look for things in pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float64]
"""Boxes [n, 4]: left, top, right, bottom in pixels."""


def parse(label: object) -> Boxes:
    """``"left,top,right,bottom left,top,right,bottom ..."`` as an array [n, 4].

    >>> parse("1,2,3,4 5,6,7,8").tolist()
    [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]
    """
    return np.array([[float(v) for v in box.split(",")] for box in str(label).split()]).reshape(-1, 4)


def overlaps(first: Boxes, second: Boxes) -> NDArray[np.float64]:
    """Intersection over union [n, m] of boxes [n, 4] and [m, 4]; 0 for boxes without area."""
    corner = np.maximum(first[:, None, :2], second[None, :, :2])
    other = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.prod(np.clip(other - corner, 0, None), axis=2)
    areas = [np.prod(np.clip(b[:, 2:] - b[:, :2], 0, None), axis=1) for b in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - common
    table: NDArray[np.float64] = common / np.maximum(union, 1e-9)
    return table


def matches(found: Boxes, wanted: Boxes, least: float) -> int:
    """How many pairs a one-to-one matching has, best overlap first, down to the overlap ``least``."""
    table = overlaps(found, wanted)
    pairs = 0
    while table.size and table.max() >= least:
        i, j = np.unravel_index(table.argmax(), table.shape)
        table[i, :] = table[:, j] = -1.0
        pairs += 1
    return pairs


@dataclass(frozen=True, kw_only=True)
class MatchF1:
    """F1 of boxes at an intersection over union of ``overlap``; a metric itself reads boxes off outputs."""

    higher_is_better: ClassVar[bool] = True

    overlap: float = 0.5

    def counts(self, found: Boxes, label: object) -> list[float]:
        """``[true positives, false positives, false negatives]`` of one picture, found against labelled boxes."""
        wanted = parse(label)
        hits = matches(found, wanted, self.overlap)
        return [float(hits), float(len(found) - hits), float(len(wanted) - hits)]

    def score(self, records: NDArray[np.float64]) -> float:
        """``2 tp / (2 tp + fp + fn)`` of the sums over the rows [n, 3]; 0 where there is neither."""
        hits, false, missed = records.sum(axis=0).tolist()
        total = 2 * hits + false + missed
        return float(2 * hits / total) if total else 0.0
