"""Are the lines of text found? Boxes from the probability map as in differentiable binarization (arXiv 1911.08947)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

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
class BoxF1:
    """F1 of the lines' boxes at an intersection over union of ``overlap``.

    The other settings are rapidocr's: a pixel is text above ``threshold``; a region counts if its mean probability
    reaches ``box_threshold`` and its sides ``least_side``; its box grows on each side by area * ``unclip`` / perimeter,
    since the network is trained on shrunken regions. Boxes are upright here, as the lines are.
    """

    higher_is_better: ClassVar[bool] = True

    overlap: float = 0.5
    threshold: float = 0.3
    box_threshold: float = 0.5
    unclip: float = 1.6
    least_side: int = 3

    def record(self, outputs: Mapping[str, NDArray[Any]], label: object) -> Sequence[float]:
        """``[true positives, false positives, false negatives]`` of one page."""
        (probability,) = outputs.values()
        found, wanted = self.boxes(np.asarray(probability)[0, 0]), parse(label)
        hits = matches(found, wanted, self.overlap)
        return [float(hits), float(len(found) - hits), float(len(wanted) - hits)]

    def score(self, records: NDArray[np.float64]) -> float:
        """``2 tp / (2 tp + fp + fn)`` of the sums over the rows [n, 3]; 0 where there is neither line nor box."""
        hits, false, missed = records.sum(axis=0).tolist()
        total = 2 * hits + false + missed
        return float(2 * hits / total) if total else 0.0

    def boxes(self, probability: NDArray[Any]) -> Boxes:
        """The boxes [n, 4] in a probability map [height, width]."""
        mask = ndimage.binary_dilation(probability > self.threshold, structure=np.ones((2, 2)))
        labelled: Any = ndimage.label(mask, structure=np.ones((3, 3)))
        regions, count = labelled
        means = ndimage.mean(probability, regions, index=np.arange(1, count + 1))
        kept: list[list[float]] = []
        for region, mean in zip(ndimage.find_objects(regions), np.atleast_1d(means), strict=True):
            rows, columns = region
            height, width = rows.stop - rows.start, columns.stop - columns.start
            if min(height, width) < self.least_side or mean < self.box_threshold:
                continue
            grow = height * width * self.unclip / (2 * (height + width))
            kept.append([columns.start - grow, rows.start - grow, columns.stop + grow, rows.stop + grow])
        limit = np.array(probability.shape[::-1] * 2, dtype=np.float64)
        boxes: Boxes = np.clip(np.array(kept).reshape(-1, 4), 0, limit)
        return boxes
