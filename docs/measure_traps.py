"""How far models stay away from known traps: `python docs/measure_traps.py models/fashion-res8/job.yaml ...` prints a
row for each, for docs/placement.md: at which limit the first op would stay float; "-" where a rule finds nothing to
look at.

int8 is wherever kernels allow it, ranges are those of the method `mixed` on the first calibration samples.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from onnxq.config.job import load_job
from onnxq.jobs import job_pipeline, open_source
from onnxq.pipeline.calibration import over
from onnxq.plan.calibrated import CalibratedRanges
from onnxq.plan.facts import every
from onnxq.plan.select import select
from onnxq.plan.traps import trapped
from onnxq.progress import Silent
from onnxq.provider import PlanProvider
from onnxq.stats.engine import Resources
from onnxq.stats.statistics import Statistics
from onnxq.targets.target import Limits, Target
from onnxq.workbench.planning import ready

MOST = 80
"""dB up to which limits are tried."""


def main() -> None:
    parser = argparse.ArgumentParser(description="How far models stay away from known traps.")
    parser.add_argument("jobs", type=Path, nargs="+")
    parser.add_argument("--calib", type=int, default=16)
    told = parser.parse_args()
    print("| model | Add | Concat | parts | body | gain | exponent |\n|---|---|---|---|---|---|---|")
    for path in told.jobs:
        print(f"| {path.parent.name} | {' | '.join(row(path, told.calib))} |", flush=True)


def row(path: Path, samples: int) -> list[str]:
    """The limits at which rules begin to fire, rule by rule."""
    job = load_job(path).with_overrides(threads=1, method="mixed", calib_limit=samples)
    assert job.data.calib is not None
    data, pipeline = open_source(job, job.data.calib, samples), job_pipeline(job)
    begin = ready(job, data, pipeline, over(job.calibration, pipeline.calibration), Resources(), Silent(), PlanProvider)
    provider = begin.provider
    provider.gather(begin.graph)
    assert isinstance(provider.statistics, Statistics)
    ranges = CalibratedRanges(provider.statistics, provider.options.calibrators["mixed"], "max", provider.around)
    target = provider.options.target
    views = [(f, select(f, target, eager=True)) for f in every(begin.graph, provider.shapes)]
    none = replace(
        target, limits=Limits(), kernels={o: replace(k, min_operand_sqnr=None) for o, k in target.kernels.items()}
    )

    def fires(changed: Target) -> bool:
        return any(trapped(facts, changed, ranges, chosen) for facts, chosen in views)

    def first(change: Callable[[float], Target]) -> str:
        return next((f"{limit}" for limit in range(MOST) if fires(change(limit))), "-")

    def kernel(op: str) -> Callable[[float], Target]:
        return lambda limit: replace(
            none, kernels={**none.kernels, op: replace(none.kernels[op], min_operand_sqnr=limit)}
        )

    def limited(name: str) -> Callable[[float], Target]:
        return lambda limit: replace(none, limits=Limits(**{name: limit}))

    cells = [first(kernel("Add")), first(kernel("Concat"))]
    cells += [first(limited(name)) for name in ("part_sqnr", "body_sqnr", "gain_sqnr")]
    steps = [2.0 ** (-n / 2) for n in range(32)]
    cells.append(next((f"{s:.2g}" for s in steps if fires(replace(none, limits=Limits(exponent_step=s)))), "-"))
    return cells


if __name__ == "__main__":
    main()
