"""The runs: for each sample the float model, then each set of switches, compared at once so that nothing is kept.

The figures of each sample are rows of their own and are summed in the order of the samples at the end, so it does not
matter which process ran which sample.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.data.sample import Dataset, Sample
from onnxq.errors import DataError, MetricError, ModelError
from onnxq.sensitivity.forward import PARTS, Forward
from onnxq.sensitivity.switches import Instrumented
from onnxq.validate.metrics import Metric
from onnxq.validate.metrics.base import is_label_free
from onnxq.validate.outputs import as_array

SIGNAL, NOISE, ELEMENTS, EQUAL, LOST = range(5)
"""Columns of `Rows.energies`."""

NO_SAMPLE = "there is no sample to measure sensitivities on: give a folder or file with samples"

Trial = tuple[int, ...]
"""Switches that are on together."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Figures by sample.

    Attributes:
        outputs: names, and `floating` whether they are float, None while no sample said.
        energies: float64 [samples, trials, outputs, 5]; empty where a metric was asked for.
        records: float64 [samples, 1 + trials, k], the float model first; k is 0 without a metric.
    """

    outputs: tuple[str, ...]
    floating: tuple[bool, ...]
    energies: NDArray[np.float64]
    records: NDArray[np.float64]

    @staticmethod
    def join(parts: Sequence[Rows]) -> Rows:
        """The rows of adjacent pieces, in this order."""
        return Rows(
            outputs=parts[0].outputs,
            floating=tuple(any(p.floating[i] for p in parts) for i in range(len(parts[0].outputs))),
            energies=np.concatenate([p.energies for p in parts]),
            records=np.concatenate([p.records for p in parts]),
        )

    @staticmethod
    def beside(parts: Sequence[Rows]) -> Rows:
        """The rows of adjacent trials, of the same samples.

        Raises:
            MetricError: the records of the trials differ in length.
        """
        widths = {p.records.shape[2] for p in parts}
        if len(widths) != 1:
            raise MetricError(_uneven("the metric", widths))
        first, *others = (p.records for p in parts)
        return Rows(
            outputs=parts[0].outputs,
            floating=parts[0].floating,
            energies=np.concatenate([p.energies for p in parts], axis=1),
            records=np.concatenate([first, *(r[:, 1:] for r in others)], axis=1),
        )


def measure(
    instrumented: Instrumented,
    trials: Sequence[Trial],
    samples: Iterator[Sample],
    *,
    metric: Metric | None = None,
    metric_name: str = "",
    feedback: Mapping[str, str] | None = None,
    threads: int | None = None,
    tick: Callable[[int], None] = lambda _: None,
    forward: Forward | None = None,
) -> Rows:
    """Run every sample in float and with each set of switches.

    Args:
        metric: take its records instead of energies.
        feedback: output -> input; each trial goes on with its own state.
        tick: called with 1 behind each trial.
        forward: sessions to go on with.

    Raises:
        ModelError: ORT cannot run a sample, which is named.
        MetricError: the metric fails on a sample, which is named.
    """
    states: dict[Trial, dict[str, NDArray[Any]]] = {trial: {} for trial in ((), *trials)}
    forward = forward or Forward(instrumented, threads=threads, parts=1 if feedback else PARTS)
    names = tuple(instrumented.outputs)
    extra = {*instrumented.heads.values()} - {*instrumented.own}
    floating = [False] * len(names)
    energies: list[NDArray[np.float64]] = []
    records: list[list[list[float]]] = []

    def go(sample: Sample, trial: Trial) -> dict[str, NDArray[Any]]:
        if not feedback:
            return forward.on(trial) if trial else forward.off(sample.inputs)
        found = forward.run({**sample.inputs, **states[trial]}, trial)
        states[trial] = {name: found[output] for output, name in feedback.items()}
        return found

    for sample in samples:
        try:
            exact = go(sample, ())
            reference = _without(exact, extra)
            label = reference if metric is not None and is_label_free(metric) else sample.label
            rows = [_record(metric, metric_name, reference, label, sample)] if metric is not None else []
            table = np.zeros((len(trials) if metric is None else 0, len(names), 5))
            for number, trial in enumerate(trials):
                got = go(sample, trial) if trial else exact
                if metric is not None:
                    rows.append(_record(metric, metric_name, _without(got, extra), label, sample))
                else:
                    table[number] = [_compare(exact[name], got[name]) for name in names]
                tick(1)
        except ModelError as error:
            raise ModelError(f"sample {sample.name} (index {sample.index}): {error}") from error
        floating = [seen or as_array(exact[n]).dtype.kind == "f" for seen, n in zip(floating, names, strict=True)]
        energies.append(table)
        records.append(rows)
    if not records:
        raise DataError(NO_SAMPLE)
    return Rows(
        outputs=names,
        floating=tuple(floating),
        energies=np.stack(energies),
        records=_stacked(records, metric_name) if metric is not None else np.zeros((len(records), 1 + len(trials), 0)),
    )


def _without(outputs: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in outputs.items() if name not in names}


def choose(data: Dataset, positions: Sequence[int]) -> Iterator[Sample]:
    """The samples at these ascending positions; the others are not read where the data set can do without."""
    pick: Any = getattr(data, "pick", None)
    picked: Dataset | None = pick(positions) if pick is not None else None
    if picked is not None:  # which numbers them anew
        yield from (replace(sample, index=at) for at, sample in zip(positions, picked, strict=True))
        return
    chosen = set(positions)
    stop = max(chosen, default=-1) + 1
    yield from (sample for at, sample in enumerate(itertools.islice(iter(data), stop)) if at in chosen)


def _compare(exact: Any, other: Any) -> tuple[float, float, int, int, int]:
    """One output of one sample: see the columns."""
    a, b = as_array(exact), as_array(other)
    same_shape = a.shape == b.shape
    if a.dtype.kind != "f":
        return 0.0, 0.0, a.size, int(np.sum(a == b)) if same_shape else 0, 0 if same_shape else a.size
    x = a.astype(np.float64).ravel()
    finite = np.isfinite(x)
    signal = _energy(x[finite])
    if not same_shape:
        return signal, signal, a.size, 0, a.size
    y = b.astype(np.float64).ravel()
    lost = finite & ~np.isfinite(y)
    kept = finite & ~lost
    noise = _energy(x[kept] - y[kept]) + _energy(x[lost])
    equal = (x == y) | (np.isnan(x) & np.isnan(y))
    return signal, noise, a.size, int(equal.sum()), int((lost | (~finite & ~equal)).sum())


def _energy(x: NDArray[np.float64]) -> float:
    """Sum of squares. Not `x @ x`: BLAS sums in another order with another number of threads."""
    return float(np.sum(np.square(x)))


def _record(metric: Metric, name: str, outputs: Mapping[str, Any], label: Any, sample: Sample) -> list[float]:
    try:
        return [float(v) for v in metric.record(outputs, label)]
    except Exception as error:  # the metric may be anybody's code
        what = str(error) or type(error).__name__
        raise MetricError(f'metric "{name}" fails on sample {sample.name} (index {sample.index}): {what}') from error


def _stacked(records: Collection[list[list[float]]], name: str) -> NDArray[np.float64]:
    widths = {len(row) for rows in records for row in rows}
    if len(widths) != 1:
        raise MetricError(_uneven(f'metric "{name}"', widths))
    return np.array(list(records), dtype=np.float64)


def _uneven(metric: str, widths: Collection[int]) -> str:
    return f"{metric} gave rows of different lengths ({sorted(widths)}): record must give one fixed length"
