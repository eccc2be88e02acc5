"""What scaling channels buys: `python docs/measure_scaling.py models/fashion-vit/job.yaml` prints the rows of a table
of docs/repair.md.

A form, what was rewritten, SQNR of the int8 model's outputs, and its processor time over that of the int8 model without
scaling. int8 is wherever the rules of the target allow it, ranges come from the first calibration samples by the method
named. SQNR is the mean over held-out samples (the first of the job's `eval`) and float outputs, in dB; times are of one
thread on the largest calibration samples, the median of the ratios of runs that follow each other.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from onnxq import registry
from onnxq.config.job import load_job
from onnxq.data.sample import Sample
from onnxq.faintest import Parts
from onnxq.ir.model import Model
from onnxq.ir.save import runnable
from onnxq.jobs import job_pipeline, open_source
from onnxq.pipeline.base import Report
from onnxq.pipeline.calibration import over
from onnxq.progress import Silent
from onnxq.provider import PlanProvider
from onnxq.repair.smooth import Smoothed, smooth
from onnxq.runtime.session import Session
from onnxq.stats.engine import Resources
from onnxq.trial import inserted
from onnxq.workbench.planning import Ready, ready

EXACT = 59.0
"""dB above which two float models are taken to be equal; SQNR is told up to 60."""

LARGE = 8
"""Calibration samples, the largest, on which times are taken."""


def main() -> None:
    parser = argparse.ArgumentParser(description="What scaling channels buys.")
    parser.add_argument("job", type=Path)
    parser.add_argument("--calib", type=int, default=64)
    parser.add_argument("--held", type=int, default=16)
    parser.add_argument("--method", default="minmax")
    parser.add_argument("--runs", type=int, default=100, help="of each model, for the times")
    parser.add_argument("--sites", action="store_true", help="list sites and refusals, too")
    told = parser.parse_args()
    job = load_job(told.job).with_overrides(threads=1, method=told.method, calib_limit=told.calib)
    assert job.data.calib is not None and job.data.eval is not None
    data, pipeline = open_source(job, job.data.calib, told.calib), job_pipeline(job)
    begin = ready(job, data, pipeline, over(job.calibration, pipeline.calibration), Resources(), Silent(), PlanProvider)
    held = list(open_source(job, job.data.eval, told.held))[: told.held]
    exact = outputs(begin.model, held)
    parts = Parts(exact, whole=True)
    inputs = [sample.inputs for sample in data]
    large = sorted(data, key=lambda s: -sum(v.size for v in s.inputs.values()))[:LARGE]

    def passed(name: str, **settings: Any) -> Callable[[Model], tuple[Model, str]]:
        def change(model: Model) -> tuple[Model, str]:
            changed = model.copy()
            report: Report = registry.load(registry.PASSES, name)(**settings).run(changed.graph, begin.context)
            if told.sites:
                for reason, count in report.reasons.most_common():
                    print(f"    {count:3} {reason}")
            return changed, f"{report.rewrites} rewrites"

        return change

    def smoothed(branches: Any) -> Callable[[Model], tuple[Model, str]]:
        def change(model: Model) -> tuple[Model, str]:
            changed, sites = smooth(model, inputs, threads=1, branches=branches)
            if told.sites:
                for site in sites:
                    print(f"    {row(site)}")
            return changed, f"{sum(s.alpha is not None for s in sites)} of {len(sites)} sites"

        return change

    forms: dict[str, Sequence[Callable[[Model], tuple[Model, str]]]] = {
        "as it is": [],
        "equalize-layers": [passed("equalize-layers")],
        "smooth-activations, no samples": [passed("smooth-activations")],
        "smooth": [smoothed("refuse")],
        "smooth, branches: mul": [smoothed("mul")],
        "equalize-layers, then smooth": [passed("equalize-layers"), smoothed("refuse")],
    }
    print(f"{job.model.parent.name}/{job.model.name}, {told.method}")
    base: Session | None = None
    for form, changes in forms.items():
        model, what = begin.model, []
        for change in changes:
            model, said = change(model)
            what.append(said)
        assert parts.levels(exact, outputs(model, held)).mean() > EXACT, "scaling changed what the model computes"
        session = opened(quantized(begin, model))
        base = base or session
        near = parts.levels(exact, [session.run(sample.inputs) for sample in held]).mean()
        price = ratio(base, session, large, told.runs)
        print(f"| {form} | {', '.join(what)} | {near:.1f} | {price:.3f} |", flush=True)


def row(site: Smoothed) -> str:
    """A site in a line."""
    taken = "as it is" if site.alpha is None else f"alpha {site.alpha}"
    return f"{site.source} -> {len(site.products)} products: {taken}, error {site.before:.2e} -> {site.after:.2e}"


def opened(model: Model) -> Session:
    """With one thread."""
    with runnable(model) as source:
        return Session(source, threads=1)


def outputs(model: Model, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """What ONNX Runtime computes."""
    session = opened(model)
    return [session.run(sample.inputs) for sample in samples]


def quantized(begin: Ready[PlanProvider], model: Model) -> Model:
    """The int8 form of a float model."""
    first = begin.provider
    provider = PlanProvider(model, first.data, first.options, first=first.first)
    provider(model.graph, begin.context)
    assert begin.context.plan is not None
    return inserted(model, begin.context, begin.context.plan)


def ratio(base: Session, other: Session, samples: Sequence[Sample], runs: int) -> float:
    """Processor time of `other` over that of `base`; who runs first changes."""
    if base is other:
        return 1.0
    ratios = []
    for turn, sample in enumerate(itertools.islice(itertools.cycle(samples), runs)):
        seconds = {}
        for session in (base, other) if turn % 2 else (other, base):
            begun = time.process_time()
            session.run(sample.inputs)
            seconds[id(session)] = time.process_time() - begun
        ratios.append(seconds[id(other)] / seconds[id(base)])
    return statistics.median(ratios)


if __name__ == "__main__":
    main()
