"""One output of two models, compared sample by sample in constant memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.validate.metrics.fidelity import decibels

CLASSES = (2, 100_000)
"""Least and greatest last dimension of an output that may be class scores."""


@dataclass(frozen=True, kw_only=True)
class OutputAccuracy:
    """One output of the candidate against the float model, over all elements of all samples.

    Attributes:
        name: of the output.
        dtype: numpy name of the float model's type.
        elements: compared in all; those that are NaN or infinite on either side are left out of the sums.
        sqnr_db: 10 log10(sum x^2 / sum (x - y)^2), dB; None for outputs that are not float. Infinite: bit-equal.
        cosine: of all elements taken as one vector, -1 to 1; None for outputs that are not float.
        max_abs: largest absolute difference, unit of the output; None for outputs that are not float.
        absmax: largest absolute value of the float model, to read max_abs by.
        worst_sample: the sample with the lowest SQNR, and `worst_sqnr_db` its value.
        top1_agreement: share of rows whose best class is the same, where the output looks like class scores
            (see `looks_like_scores`).
        agreement: share of equal elements, for integer, boolean and text outputs.
        nonfinite: elements that are NaN or infinite in one model and not, or not the same, in the other.
        mismatched: samples on which the shapes differ, so that nothing could be compared.
    """

    name: str
    dtype: str
    elements: int
    sqnr_db: float | None = None
    cosine: float | None = None
    max_abs: float | None = None
    absmax: float | None = None
    worst_sample: str = ""
    worst_sqnr_db: float | None = None
    top1_agreement: float | None = None
    agreement: float | None = None
    nonfinite: int = 0
    mismatched: int = 0


@dataclass
class OutputSums:
    """Running sums of one output; `add` each sample, then `result`."""

    dtype: str = ""
    elements: int = 0
    signal: float = 0.0
    noise: float = 0.0
    dot: float = 0.0
    power: float = 0.0
    max_abs: float = 0.0
    absmax: float = 0.0
    equal: int = 0
    rows: int = 0
    rows_equal: int = 0
    scores: bool = True
    nonfinite: int = 0
    mismatched: int = 0
    worst: tuple[float, str] = (math.inf, "")
    kinds: set[str] = field(default_factory=set)

    def add(self, x: Any, y: Any, sample: str, batch: int | None) -> None:
        """Compare x of the float model with y of the candidate."""
        x, y = as_array(x), as_array(y)
        self.dtype = self.dtype or x.dtype.name
        self.kinds.add(x.dtype.kind)
        if x.shape != y.shape:
            self.mismatched += 1
            return
        self.elements += x.size
        if x.dtype.kind != "f":
            self.equal += int(np.sum(x == y))
            return
        self.scores = self.scores and looks_like_scores(x, batch)
        if self.scores:
            self.rows += math.prod(x.shape[:-1])
            self.rows_equal += int((x.argmax(axis=-1) == y.argmax(axis=-1)).sum())
        a, b = x.astype(np.float64).ravel(), y.astype(np.float64).ravel()
        finite = np.isfinite(a) & np.isfinite(b)
        if not finite.all():
            same = (a == b) | (np.isnan(a) & np.isnan(b))
            self.nonfinite += int((~finite & ~same).sum())
            a, b = a[finite], b[finite]
        if not a.size:
            return
        difference = a - b
        signal, noise = float(a @ a), float(difference @ difference)
        self.signal += signal
        self.noise += noise
        self.dot += float(a @ b)
        self.power += float(b @ b)
        self.max_abs = max(self.max_abs, float(np.abs(difference).max()))
        self.absmax = max(self.absmax, float(np.abs(a).max()))
        self.worst = min(self.worst, (decibels(signal, noise), sample), key=lambda w: w[0])

    def result(self, name: str) -> OutputAccuracy:
        """The figures so far."""
        common: dict[str, Any] = {
            "name": name,
            "dtype": self.dtype,
            "elements": self.elements,
            "nonfinite": self.nonfinite,
            "mismatched": self.mismatched,
        }
        if "f" not in self.kinds:
            return OutputAccuracy(**common, agreement=self.equal / self.elements if self.elements else None)
        norm = math.sqrt(self.signal) * math.sqrt(self.power)
        same = self.signal == 0.0 and self.power == 0.0
        return OutputAccuracy(
            **common,
            sqnr_db=decibels(self.signal, self.noise),
            cosine=self.dot / norm if norm else float(same),
            max_abs=self.max_abs,
            absmax=self.absmax,
            worst_sample=self.worst[1],
            worst_sqnr_db=self.worst[0] if self.worst[1] else None,
            top1_agreement=self.rows_equal / self.rows if self.scores and self.rows else None,
        )


def looks_like_scores(array: NDArray[Any], batch: int | None = None) -> bool:
    """Is this float output class scores? The last axis is the classes, 2 to 100,000 of them, and

    * the rank is 2 and the first axis is the batch (as long as the first axis of the first input), or
    * the rank is higher and every row along the last axis is a softmax: in [0, 1], sums to 1 within 1e-3.

    >>> looks_like_scores(np.zeros((1, 10), np.float32), 1), looks_like_scores(np.zeros((1, 3, 10), np.float32), 1)
    (True, False)
    """
    if array.dtype.kind != "f" or array.ndim < 2 or not CLASSES[0] <= array.shape[-1] <= CLASSES[1] or not array.size:
        return False
    if array.ndim == 2:
        return batch is None or array.shape[0] == batch
    low, high = float(array.min()), float(array.max())
    return low >= 0.0 and high <= 1.001 and bool((np.abs(array.sum(axis=-1, dtype=np.float64) - 1.0) <= 1e-3).all())


def as_array(value: Any) -> NDArray[Any]:
    """Tensors as they are; sequences and maps as an array of objects, which can at least be compared."""
    if isinstance(value, np.ndarray):
        return value
    items = list(value) if isinstance(value, list) else [value]
    boxed = np.empty(len(items), dtype=object)
    for i, item in enumerate(items):
        boxed[i] = item.tolist() if isinstance(item, np.ndarray) else item
    return boxed
