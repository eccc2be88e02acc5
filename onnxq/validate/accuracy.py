"""Both models over the same samples, once: how far apart are the outputs, and what does the labelled score lose?"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.data.fit import wanted_text
from onnxq.data.sample import Dataset
from onnxq.errors import DataError, MetricError, ModelError
from onnxq.progress import Progress, Silent
from onnxq.runtime.session import SIDE_BY_SIDE, Level, Session
from onnxq.validate.metrics.base import Metric, is_label_free
from onnxq.validate.metrics.fidelity import decibels
from onnxq.validate.outputs import OutputAccuracy, OutputSums, as_array
from onnxq.validate.records import MetricResult, Records

SEED = 0
"""Of the bootstrap."""

__all__ = ["Accuracy", "Comparison", "FusionCheck", "MetricResult", "OutputAccuracy", "compare", "run_both"]


@dataclass(frozen=True, kw_only=True)
class FusionCheck:
    """The candidate as ORT fuses it against the same file with optimizations off, which is what Q/DQ mean literally.

    Attributes:
        samples: how many were run.
        max_abs: largest difference over the float outputs.
        sqnr_db: literal against fused, dB.
        literal_sqnr_db: float model against literal, dB, for comparison.
        worse: samples on which fusion moved the outputs more than quantization did, and by more than float rounding.
        suspicious: that is so on most samples. On a few it is no fault: kernels may round the other way by one step,
            and a softmax behind them magnifies that where two classes are close.
    """

    samples: int
    max_abs: float
    sqnr_db: float
    literal_sqnr_db: float
    worse: int
    suspicious: bool


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """What `compare` found. `notes` are sentences for the user."""

    samples: int
    data: str
    outputs: tuple[OutputAccuracy, ...]
    metric: MetricResult | None = None
    fusion: FusionCheck | None = None
    notes: tuple[str, ...] = ()


def compare(
    reference: Path | bytes,
    candidate: Path | bytes,
    data: Dataset,
    metric: Metric | None = None,
    *,
    metric_name: str = "",
    threads: int | None = None,
    limit: int | None = None,
    literal_samples: int = 4,
    resamples: int = 2000,
    seed: int = SEED,
    progress: Progress | None = None,
) -> Accuracy:
    """Run both models as they are deployed (ORT at level ALL) over the samples, one at a time.

    Args:
        reference: the float model.
        candidate: the quantized model; same inputs and outputs by name.
        data: samples; needs labels if `metric` does.
        metric: the score to compare; None: outputs only.
        metric_name: for reports; by default the class.
        threads: intra-op threads; None is ORT's default.
        limit: use only the first so many samples.
        literal_samples: run the candidate on so many samples with optimizations off, too; 0 leaves that check out.
        resamples: draws of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ModelError: a model does not load or run, or an input or output is missing in the candidate.
        DataError: there is no sample.
        MetricError: the metric fails on a sample, or labels are missing.
    """
    name = metric_name or (type(metric).__name__ if metric is not None else "")
    metrics = {} if metric is None else {name: metric}
    first, second = (Session(m, threads=threads, config=SIDE_BY_SIDE) for m in (reference, candidate))
    literal = Session(candidate, threads=threads, level=Level.OFF, config=SIDE_BY_SIDE) if literal_samples else None
    found = run_both(
        first, second, data, metrics, limit=limit, literal=literal, literal_samples=literal_samples, progress=progress
    )
    return found.accuracy(*(r.result(resamples=resamples, seed=seed) for r in found.records.values()))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What `run_both` gathered: `records` by the name of the metric; `notes` are sentences for the user."""

    samples: int
    data: str
    outputs: tuple[OutputAccuracy, ...]
    records: Mapping[str, Records]
    fusion: FusionCheck | None
    notes: tuple[str, ...]

    def accuracy(self, metric: MetricResult | None = None) -> Accuracy:
        """For a report."""
        return Accuracy(
            samples=self.samples,
            data=self.data,
            outputs=self.outputs,
            metric=metric,
            fusion=self.fusion,
            notes=self.notes,
        )


def run_both(
    first: Session,
    second: Session,
    data: Dataset,
    metrics: Mapping[str, Metric],
    *,
    limit: int | None = None,
    literal: Session | None = None,
    literal_samples: int = 4,
    what: str = "validating",
    progress: Progress | None = None,
) -> Comparison:
    """Two sessions over the samples, one at a time; every metric notes both.

    Args:
        first: of the float model.
        second: of the candidate; same inputs and outputs by name.
        data: samples; need labels if a metric does.
        metrics: by name.
        limit: use only the first so many samples.
        literal: the candidate with optimizations off, run on the first `literal_samples` samples.
        what: the task's name in the progress.

    Raises:
        ModelError: a model does not run, or an input or output is missing in the candidate.
        DataError: there is no sample.
        MetricError: a metric fails on a sample, or labels are missing.
    """
    for name, metric in metrics.items():
        if not is_label_free(metric) and not data.labelled:
            raise MetricError(
                f'metric "{name}" needs labels, but there are none in {data.description}: '
                "add labels or leave the metric out"
            )
    check_interfaces(first, second)
    sums = {o: OutputSums() for o in first.outputs}
    records = {name: Records(name, metric) for name, metric in metrics.items()}
    fused = _Fusion()
    count = 0
    total = len(data) if limit is None else min(limit, len(data))
    with (progress or Silent()).task(what, total) as step:
        for sample in itertools.islice(iter(data), limit):
            x = first.run(sample.inputs)
            y = second.run(sample.inputs, first.outputs)
            batch = _batch(sample.inputs)
            for output, one in sums.items():
                one.add(x[output], y[output], sample.name, batch)
            for kept in records.values():
                kept.add(x, y, sample)
            if literal is not None:
                fused.add(x, literal.run(sample.inputs, first.outputs), y)
            count += 1
            if count >= literal_samples:
                literal = None  # its memory is worth more than its company
            step(1)
    if not count:
        raise DataError(f"{data.description} holds no sample to validate with: name another folder")
    outputs = tuple(one.result(output) for output, one in sums.items())
    check = fused.result()
    return Comparison(
        samples=count,
        data=data.description,
        outputs=outputs,
        records=records,
        fusion=check,
        notes=(*_notes(outputs), *_fusion_notes(check), *data.skipped),
    )


@dataclass
class _Fusion:
    """Sums for FusionCheck over all float outputs."""

    samples: int = 0
    worse: int = 0
    max_abs: float = 0.0
    literal: float = 0.0
    fused_noise: float = 0.0
    signal: float = 0.0
    literal_noise: float = 0.0

    def add(self, reference: Mapping[str, Any], literal: Mapping[str, Any], fused: Mapping[str, Any]) -> None:
        before = (self.literal, self.fused_noise, self.literal_noise)
        self._sum(reference, literal, fused)
        now = (self.literal, self.fused_noise, self.literal_noise)
        power, fused_noise, literal_noise = (n - b for n, b in zip(now, before, strict=True))
        self.samples += 1
        # a fusion that only reorders float sums stays above 60 dB
        self.worse += fused_noise > literal_noise and decibels(power, fused_noise) < 60.0

    def _sum(self, reference: Mapping[str, Any], literal: Mapping[str, Any], fused: Mapping[str, Any]) -> None:
        for name in reference:
            x, y, z = (as_array(v[name]) for v in (reference, literal, fused))
            if x.dtype.kind != "f" or not x.shape == y.shape == z.shape:
                continue
            a, b, c = (v.astype(np.float64).ravel() for v in (x, y, z))
            finite = np.isfinite(a) & np.isfinite(b) & np.isfinite(c)
            a, b, c = a[finite], b[finite], c[finite]
            if not a.size:
                continue
            self.max_abs = max(self.max_abs, float(np.abs(b - c).max()))
            self.literal += float(b @ b)
            self.fused_noise += float((b - c) @ (b - c))
            self.signal += float(a @ a)
            self.literal_noise += float((a - b) @ (a - b))

    def result(self) -> FusionCheck | None:
        if not self.samples:
            return None
        return FusionCheck(
            samples=self.samples,
            max_abs=self.max_abs,
            sqnr_db=decibels(self.literal, self.fused_noise),
            literal_sqnr_db=decibels(self.signal, self.literal_noise),
            worse=self.worse,
            suspicious=2 * self.worse > self.samples,
        )


def check_interfaces(reference: Session, candidate: Session) -> None:
    """Same inputs and outputs, by name, type and rank.

    Raises:
        ModelError: the two are no forms of one model.
    """
    for kind, wanted, found in (
        ("output", reference.outputs, candidate.outputs),
        ("input", [i.name for i in candidate.inputs], [i.name for i in reference.inputs]),
    ):
        missing = [n for n in wanted if n not in found]
        if missing:
            side, other = ("quantized", "float") if kind == "output" else ("float", "quantized")
            raise ModelError(
                f'the {side} model has no {kind} "{missing[0]}" as the {other} one has: compare two forms of one model'
            )
    takes = {spec.name: spec for spec in reference.inputs}
    for spec in candidate.inputs:
        known = takes[spec.name]
        pairs = list(zip(spec.shape, known.shape, strict=False))
        fits = not spec.shape or not known.shape or len(spec.shape) == len(known.shape)
        if not fits or spec.dtype != known.dtype or any(a != b for a, b in pairs if {type(a), type(b)} == {int}):
            raise ModelError(
                f'input "{spec.name}" takes {wanted_text(known)} in the float model, but {wanted_text(spec)} in the '
                f"quantized one: compare two forms of one model"
            )


def _notes(outputs: tuple[OutputAccuracy, ...]) -> list[str]:
    notes = []
    for o in outputs:
        if o.nonfinite:
            notes.append(
                f'output "{o.name}": {o.nonfinite} elements are NaN or infinite in one of the two models; '
                "SQNR and cosine leave them out"
            )
        if o.mismatched:
            notes.append(
                f'output "{o.name}": its shape differs between the models on {o.mismatched} samples, '
                "which could not be compared"
            )
    return notes


def _fusion_notes(check: FusionCheck | None) -> list[str]:
    if check is None or not check.suspicious:
        return []
    return [
        f"ONNX Runtime's fusions change the result more ({check.sqnr_db:.1f} dB) than quantization itself "
        f"({check.literal_sqnr_db:.1f} dB) on {check.worse} of {check.samples} samples: "
        "a fused kernel does not compute what the Q/DQ in the file say"
    ]


def _batch(inputs: Mapping[str, NDArray[Any]]) -> int | None:
    first = next(iter(inputs.values()), None)
    return int(first.shape[0]) if first is not None and np.ndim(first) else None
