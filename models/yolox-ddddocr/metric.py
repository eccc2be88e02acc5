"""Are the letters found? Boxes from the raw head of YOLOX (arXiv 2107.08430) with non-maximum suppression."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from boxmatch import Boxes, MatchF1, overlaps

STRIDES = (8, 16, 32)


def decode(head: NDArray[Any], side: int = 416) -> tuple[Boxes, NDArray[np.float64]]:
    """Boxes [n, 4] and scores [n] in 0..1 from the head [n, 6] of one picture of ``side`` x ``side`` pixels.

    A row belongs to a cell of the grids of stride 8, 16 and 32, one after the other, row by row: the centre is
    (cell + first two numbers) * stride, the size exp(next two) * stride, the score objectness * best class.
    """
    raw = np.asarray(head, dtype=np.float64)
    cells, strides = [], []
    for stride in STRIDES:
        count = side // stride
        y, x = np.mgrid[:count, :count]
        cells.append(np.stack([x.ravel(), y.ravel()], axis=1))
        strides.append(np.full((count * count, 1), stride))
    step = np.concatenate(strides)
    centre = (raw[:, :2] + np.concatenate(cells)) * step
    # A badly quantized model may give any number here: exp(10) * 8 is far outside the picture already.
    size = np.exp(np.minimum(raw[:, 2:4], 10.0)) * step
    return np.concatenate([centre - size / 2, centre + size / 2], axis=1), raw[:, 4] * raw[:, 5:].max(axis=1)


def suppress(boxes: Boxes, scores: NDArray[np.float64], most: float) -> Boxes:
    """The boxes [k, 4], best score first, that overlap no better one by more than ``most``."""
    left = boxes[np.argsort(-scores, kind="stable")]
    kept: list[NDArray[np.float64]] = []
    while len(left):
        kept.append(left[0])
        left = left[1:][overlaps(left[:1], left[1:])[0] <= most]
    return np.array(kept).reshape(-1, 4)


@dataclass(frozen=True, kw_only=True)
class LetterF1(MatchF1):
    """F1 of the letters' boxes at an intersection over union of ``overlap``.

    The other settings are ddddocr's: boxes of a score above ``least_score``; of two that overlap by more than
    ``suppression`` the better one stays.
    """

    least_score: float = 0.1
    suppression: float = 0.45
    side: int = 416

    def record(self, outputs: Mapping[str, NDArray[Any]], label: object) -> Sequence[float]:
        """``[true positives, false positives, false negatives]`` of one picture."""
        (head,) = outputs.values()
        return self.counts(self.boxes(np.asarray(head)[0]), label)

    def boxes(self, head: NDArray[Any]) -> Boxes:
        """The boxes [n, 4] that the head [3549, 6] of one picture says, cut at the picture's border."""
        boxes, scores = decode(head, self.side)
        sure = scores > self.least_score
        return np.clip(suppress(boxes[sure], scores[sure], self.suppression), 0, self.side)
