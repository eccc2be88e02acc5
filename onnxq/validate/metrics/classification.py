"""Accuracy of classifiers, and F1."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from onnxq.validate.metrics.base import Outputs


def class_numbers(label: Any) -> NDArray[np.int64]:
    """A label as class numbers [n]; text of a number counts as that number.

    Raises:
        ValueError: the label is text, a fraction or missing.

    >>> class_numbers("7").tolist(), class_numbers(np.array([1.0, 2.0])).tolist()
    ([7], [1, 2])
    """
    if label is None:
        raise ValueError("the sample has no label")
    flat = np.asarray(label).reshape(-1)
    try:
        numbers = flat.astype(np.float64)
    except (TypeError, ValueError):
        shown = str(flat[0]) if flat.size else str(label)
        raise ValueError(
            f'the label "{shown}" is not a class number: write the index of the class in the model\'s output instead'
        ) from None
    if not np.array_equal(numbers, np.rint(numbers)):
        raise ValueError(f"the label {label} is not a whole class number")
    return numbers.astype(np.int64)


def class_scores(outputs: Outputs, output: str = "") -> NDArray[np.floating[Any]]:
    """The scores [rows, classes] of a classifier.

    The first float output of the form [N, C] with C >= 2 (or [C], or with axes of length 1 besides, such as
    [N, C, 1, 1]), or the one that is named.

    Raises:
        ValueError: no output looks like that.
    """
    if output and output not in outputs:
        raise ValueError(f'the model has no output "{output}", it has {", ".join(outputs)}')
    for name, value in outputs.items():
        array = np.asarray(value)
        if (output and name != output) or array.dtype.kind != "f" or array.ndim == 0:
            continue
        rows = array.shape[0] if array.ndim > 1 else 1
        inner = [d for d in (array.shape[1:] if array.ndim > 1 else array.shape) if d != 1]
        if rows and len(inner) == 1 and inner[0] >= 2:
            return array.reshape(rows, inner[0])
    shapes = ", ".join(f"{n} {list(np.shape(v))}" for n, v in outputs.items())
    raise ValueError(f"no output looks like class scores [N, classes >= 2]; the outputs are {shapes}")


def _rows(outputs: Outputs, label: Any, output: str) -> tuple[NDArray[np.floating[Any]], NDArray[np.int64]]:
    scores, wanted = class_scores(outputs, output), class_numbers(label)
    if len(scores) != len(wanted):
        raise ValueError(f"{len(scores)} rows of scores but {len(wanted)} labels")
    if wanted.size and (wanted.min() < 0 or wanted.max() >= scores.shape[1]):
        raise ValueError(f"class {int(wanted.max())} is not among the {scores.shape[1]} classes of the output")
    return scores, wanted


@dataclass(frozen=True, kw_only=True)
class TopK:
    """Share of samples whose class is among the k best scores. Scores that are NaN never count as right.

    Attributes:
        k: how many guesses count.
        output: name of the output with the scores; empty: the first that looks like it.
    """

    k: int = 1
    output: str = ""
    higher_is_better: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def record(self, outputs: Outputs, label: Any) -> Sequence[float]:
        """[1.0] if right, [0.0] if not; for a batch its mean."""
        scores, wanted = _rows(outputs, label, self.output)
        own = scores[np.arange(len(wanted)), wanted][:, None]
        index = np.arange(scores.shape[1])[None, :]
        # rank of the wanted class as argmax would have it: ties go to the lower index
        better = (scores > own) | ((scores == own) & (index < wanted[:, None]))
        right = (better.sum(axis=1) < self.k) & ~np.isnan(scores).any(axis=1)
        return [float(right.mean())]

    def score(self, records: NDArray[np.float64]) -> float:
        """Mean, 0 to 1."""
        return float(records[:, 0].mean())


@dataclass(frozen=True, kw_only=True)
class Top1(TopK):
    """Share of samples whose best score is the labelled class."""


@dataclass(frozen=True, kw_only=True)
class Top5(TopK):
    """Share of samples whose class is among the five best scores."""

    k: int = 5


@dataclass(frozen=True, kw_only=True)
class MacroF1:
    """Mean over classes of F1 = 2 tp / (2 tp + fp + fn); classes that never occur are left out."""

    output: str = ""
    higher_is_better: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def record(self, outputs: Outputs, label: Any) -> Sequence[float]:
        """[predicted class, labelled class] of one sample."""
        scores, wanted = _rows(outputs, label, self.output)
        if len(wanted) != 1:
            raise ValueError("f1 needs one label per sample: batches of more are not supported")
        return [float(np.argmax(scores[0])), float(wanted[0])]

    def score(self, records: NDArray[np.float64]) -> float:
        """0 to 1."""
        got, wanted = records[:, 0].astype(np.int64), records[:, 1].astype(np.int64)
        size = int(max(got.max(), wanted.max())) + 1
        hit = np.bincount(got[got == wanted], minlength=size)
        total = np.bincount(got, minlength=size) + np.bincount(wanted, minlength=size)
        seen = total > 0
        return float((2.0 * hit[seen] / total[seen]).mean())


@dataclass(frozen=True, kw_only=True)
class CountsF1(ABC):
    """Base for detectors and taggers: F1 over counts that are summed over all samples. Subclasses give the counts."""

    higher_is_better: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    @abstractmethod
    def counts(self, outputs: Outputs, label: Any) -> tuple[int, int, int]:
        """True positives, false positives and false negatives of one sample."""

    def record(self, outputs: Outputs, label: Any) -> Sequence[float]:
        """The three counts."""
        return [float(c) for c in self.counts(outputs, label)]

    def score(self, records: NDArray[np.float64]) -> float:
        """2 tp / (2 tp + fp + fn), 0 to 1; 1 if there was nothing to find and nothing was found."""
        return float(self.of_sums(records.sum(axis=0)))

    def of_sums(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """F1 from column sums [..., 3]."""
        total = 2 * sums[..., 0] + sums[..., 1] + sums[..., 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(total == 0, 1.0, 2 * sums[..., 0] / total)
