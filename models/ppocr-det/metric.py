"""Are the lines of text found? Boxes from the probability map as in differentiable binarization (arXiv 1911.08947)."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from boxmatch import Boxes, MatchF1


@dataclass(frozen=True, kw_only=True)
class BoxF1(MatchF1):
    """F1 of the lines' boxes at an intersection over union of ``overlap``.

    The other settings are rapidocr's: a pixel is text above ``threshold``; a region counts if its mean probability
    reaches ``box_threshold`` and its sides ``least_side``; its box grows on each side by area * ``unclip`` / perimeter,
    since the network is trained on shrunken regions. Boxes are upright here, as the lines are.
    """

    threshold: float = 0.3
    box_threshold: float = 0.5
    unclip: float = 1.6
    least_side: int = 3

    def record(self, outputs: Mapping[str, NDArray[Any]], label: object) -> Sequence[float]:
        """``[true positives, false positives, false negatives]`` of one page."""
        (probability,) = outputs.values()
        return self.counts(self.boxes(np.asarray(probability)[0, 0]), label)

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
