"""Mean average precision of detectors whose boxes are decoded in the graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from onnxq.validate.metrics.base import Outputs

Boxes = NDArray[np.float64]
"""[n, 4]: left, top, right, bottom."""

_RECALLS = np.linspace(0.0, 1.0, 101)


def overlaps(first: Boxes, second: Boxes) -> NDArray[np.float64]:
    """Intersection over union of each with each, [n, m].

    >>> overlaps(np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 0, 3, 2]])).round(3).tolist()
    [[0.333]]
    """
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    inner = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(np.maximum(b[:, 2:] - b[:, :2], 0), axis=1) for b in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - inner
    return np.asarray(np.divide(inner, union, out=np.zeros_like(inner), where=union > 0), dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class MeanAveragePrecision:
    """Average precision, 101 points of recall, averaged over classes and over thresholds of overlap, as COCO counts
    (Lin et al., 2014; without its areas and crowds).

    The model gives outputs of boxes [n, 4] (left, top, right, bottom), classes [n] and scores [n], or one output
    [n, 6] of box, score, class; axes of length 1 in front do not matter. A label is [objects, 5]: box, class; rows
    with a class below 0 are padding.

    Attributes:
        boxes, scores, classes: names of the three outputs.
        output: name of the one output [n, 6]; empty: the three, if they are there, else the first of that form.
        thresholds: overlaps from which a box is a hit.
        most: detections per sample, best first, and objects per sample that are counted at most.
    """

    boxes: str = "boxes"
    scores: str = "scores"
    classes: str = "labels"
    output: str = ""
    thresholds: tuple[float, ...] = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
    most: int = 100
    higher_is_better: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    max_resamples: ClassVar[int] = 400

    def record(self, outputs: Outputs, label: Any) -> Sequence[float]:
        """Classes of the objects [most], then of each detection [most]: score, class, hit at each threshold; NaN where
        there are fewer.
        """
        if label is None:
            raise ValueError("the sample has no label")
        truth = np.asarray(label, dtype=np.float64)
        if truth.size % 5:
            raise ValueError(f"a label of shape {list(truth.shape)} is not [objects, 5]: box, class")
        truth = truth.reshape(-1, 5)
        truth = truth[truth[:, 4] >= 0][: self.most]
        found = self._detections(outputs)
        found = found[np.argsort(-found[:, 4], kind="stable")][: self.most]
        objects = np.full(self.most, np.nan)
        objects[: len(truth)] = truth[:, 4]
        detections = np.full((self.most, 2 + len(self.thresholds)), np.nan)
        detections[: len(found), 0], detections[: len(found), 1] = found[:, 4], found[:, 5]
        detections[: len(found), 2:] = self._hits(found, truth)
        return [float(v) for v in (*objects, *detections.ravel())]

    def score(self, records: NDArray[np.float64]) -> float:
        """0 to 1; 0 if there are no objects."""
        objects = records[:, : self.most]
        detections = records[:, self.most :].reshape(-1, 2 + len(self.thresholds))
        detections = detections[~np.isnan(detections[:, 0])]
        detections = detections[np.argsort(-detections[:, 0], kind="stable")]
        kinds, counts = np.unique(objects[~np.isnan(objects)], return_counts=True)
        if not kinds.size:
            return 0.0
        return float(
            np.mean(
                [self._precision(detections[detections[:, 1] == k, 2:], n) for k, n in zip(kinds, counts, strict=True)]
            )
        )

    def _precision(self, hits: NDArray[np.float64], objects: int) -> float:
        """Mean over the thresholds, of one class; hits [detections, thresholds], best score first."""
        if not len(hits):
            return 0.0
        right = np.cumsum(hits, axis=0)
        precision = right / np.arange(1, len(hits) + 1)[:, None]
        precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        total: float = 0.0
        for column in range(hits.shape[1]):
            at = np.searchsorted(right[:, column] / objects, _RECALLS - 1e-12)
            inside = at < len(hits)
            total += float(precision[at[inside], column].sum()) / len(_RECALLS)
        return total / int(hits.shape[1])

    def _hits(self, found: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
        """[detections, thresholds]: 1 where a detection takes the object of its class that it overlaps most and that
        no better one has taken.
        """
        hits = np.zeros((len(found), len(self.thresholds)))
        overlap = overlaps(found[:, :4], truth[:, :4])
        overlap[found[:, 5][:, None] != truth[:, 4][None, :]] = 0.0
        for column, least in enumerate(self.thresholds):
            free = np.ones(len(truth), dtype=bool)
            for row in range(len(found)):
                best = np.where(free, overlap[row], 0.0)
                if best.size and best.max() >= least:
                    free[int(best.argmax())] = False
                    hits[row, column] = 1.0
        return hits

    def _detections(self, outputs: Outputs) -> NDArray[np.float64]:
        """[n, 6]: box, score, class."""
        three = (self.boxes, self.scores, self.classes)
        if not self.output and all(name in outputs for name in three):
            boxes, scores, classes = (np.asarray(outputs[name], dtype=np.float64) for name in three)
            boxes = boxes.reshape(-1, 4)
            if not len(boxes) == scores.size == classes.size:
                raise ValueError(f"{len(boxes)} boxes, {scores.size} scores and {classes.size} classes do not fit")
            return np.concatenate([boxes, scores.reshape(-1, 1), classes.reshape(-1, 1)], axis=1)
        for name, value in outputs.items():
            array = np.asarray(value)
            if (not self.output or name == self.output) and array.ndim >= 2 and array.shape[-1] == 6:
                return array.reshape(-1, 6).astype(np.float64)
        shapes = ", ".join(f"{n} {list(np.shape(v))}" for n, v in outputs.items())
        raise ValueError(f"map needs the outputs {', '.join(three)} or one [n, 6]; the outputs are {shapes}")
