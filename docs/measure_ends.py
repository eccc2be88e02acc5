"""What keeping the first and the last heavy op float buys: `python docs/measure_ends.py models/fashion-res8/job.yaml`
prints a row of a table of docs/placement.md.

int8 is wherever the rules of the target allow it, ranges are those of MinMax on the first calibration samples. SQNR is
the mean over held-out samples (the first of the job's `eval`) and float outputs, in dB; times are processor times of
one thread over those of the model with all of it in int8, the median of the ratios of runs that follow each other.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onnxq.config.job import load_job
from onnxq.data.sample import Sample
from onnxq.faintest import Parts
from onnxq.ir.model import Model
from onnxq.ir.save import runnable
from onnxq.jobs import job_pipeline, open_source
from onnxq.pipeline.calibration import over
from onnxq.progress import Silent
from onnxq.provider import PlanProvider
from onnxq.runtime.session import SIDE_BY_SIDE, Session
from onnxq.stats.engine import Resources
from onnxq.trial import inserted
from onnxq.workbench.planning import ready


def main() -> None:
    parser = argparse.ArgumentParser(description="What float ends buy.")
    parser.add_argument("job", type=Path)
    parser.add_argument("--calib", type=int, default=16)
    parser.add_argument("--held", type=int, default=16)
    parser.add_argument("--runs", type=int, default=100, help="of each form, for the times")
    told = parser.parse_args()
    job = load_job(told.job).with_overrides(threads=1, method="minmax", calib_limit=told.calib)
    assert job.data.calib is not None and job.data.eval is not None
    data, pipeline = open_source(job, job.data.calib, told.calib), job_pipeline(job)
    begin = ready(job, data, pipeline, over(job.calibration, pipeline.calibration), Resources(), Silent(), PlanProvider)
    begin.provider.gather(begin.graph)
    held = list(open_source(job, job.data.eval, told.held))[: told.held]

    def form(keep: Sequence[str]) -> Session:
        return opened(inserted(begin.model, begin.context, begin.provider.plan(begin.graph, "minmax", tuple(keep))))

    full = begin.provider.plan(begin.graph, "minmax", ())
    heavy = [n for n in begin.graph.nodes if (d := full.decisions.get(n.name)) is not None and d.heavy and d.integer]
    first, last = heavy[0], heavy[-1]
    forms = [form(names) for names in ((), [first.name], [last.name], [first.name, last.name])]
    exact = outputs(opened(begin.model), held)
    parts = Parts(exact, whole=True)
    near = [parts.levels(exact, outputs(session, held)).mean() for session in forms]
    inputs = next(iter(data)).inputs
    ratios: list[list[float]] = [[] for _ in forms]
    for _ in range(told.runs):
        seconds = [timed(session, inputs) for session in forms]
        for found, one in zip(ratios, seconds, strict=True):
            found.append(one / seconds[0])
    cells = [f"{near[0]:.1f}"]
    cells += [f"{n:.1f}, {statistics.median(r):.2f}" for n, r in zip(near[1:], ratios[1:], strict=True)]
    print(f"| {told.job.parent.name} | {first.op}, {last.op} | {' | '.join(cells)} |")


def opened(model: Model) -> Session:
    """For one thread."""
    with runnable(model) as source:
        return Session(source, threads=1, config=SIDE_BY_SIDE)


def outputs(session: Session, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Of each sample."""
    return [session.run(sample.inputs) for sample in samples]


def timed(session: Session, inputs: Any) -> float:
    """Processor time of one run, seconds."""
    begin = time.process_time()
    session.run(inputs)
    return time.process_time() - begin


if __name__ == "__main__":
    main()
