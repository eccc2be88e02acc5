"""Limits on memory and load time, each model measured in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.config.gate import LoadLimit, MemoryLimit
from onnxq.runtime.probe import Probe, probe
from onnxq.validate.gate import Check, at_most, interval_check, number
from onnxq.validate.intervals import median_interval


def measure(
    baseline: Path,
    candidate: Path,
    inputs: Mapping[str, NDArray[Any]],
    load: LoadLimit | None,
    *,
    threads: int,
) -> tuple[Probe, Probe]:
    """Both models.

    Raises:
        UsageError: this system does not say how much memory a process has.
        ModelError: a model does not run.
    """
    loads = load.runs if load is not None else 1
    one, two = (probe(m, inputs, threads=threads, loads=loads) for m in (baseline, candidate))
    return one, two


def judge(
    probes: tuple[Probe, Probe], memory: MemoryLimit | None, load: LoadLimit | None, *, level: float
) -> Iterator[Check]:
    """One check per limit. Peak memory is taken as measured; load times have the interval of their median."""
    one, two = probes
    if memory is not None:
        if memory.max_ratio is not None:
            ratio = two.peak_bytes / one.peak_bytes if one.peak_bytes else float("nan")
            yield at_most("memory ratio", ratio, memory.max_ratio, " of the baseline's peak", group="memory")
        if memory.max_bytes is not None:
            yield at_most("peak memory", two.peak_bytes, memory.max_bytes, " bytes", group="memory")
    if load is None:
        return
    first, second = np.array(one.load_ms), np.array(two.load_ms)
    for name, values, limit, unit in (
        ("load time", second, load.max_ms, " ms"),
        ("load time ratio", second / np.median(first), load.max_ratio, " of the baseline's median"),
    ):
        if limit is not None:
            value = float(np.median(values))
            yield interval_check(
                name,
                value,
                median_interval(values, level=level),
                limit,
                upper=True,
                said=f"{name}: {number(value)}{unit}",
                unit=unit,
                group="load",
                samples=len(values),
            )
