"""By how much ranges move because distributions are of a choice of the elements: the figures of docs/calibration.md.

    python models/bench_sampled.py                                       # the four models of bench_calibration.py
    python models/bench_sampled.py --models fashion-mobilenet --samples 256
    python models/bench_sampled.py --write docs/calibration.md           # writes what out/sampled.md says

The same samples run twice: once with every element counted, once with the choice that calibration makes. The table
gives, for each method, the share of tensors of which no bound moves by 1 % of the range that all elements give, the
same for 2 %, the worst shift, and the worst loss: by how many dB the noise of 8 bits, on all elements, grows because
the range comes from the choice. Nothing is timed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from bench_calibration import GOALS
from bench_process import ROOT
from bench_tables import replace_block
from bench_worker import load, opened

from onnxq.encoding import Scheme
from onnxq.ir.load import load_float
from onnxq.pipeline.base import Context
from onnxq.pipeline.manager import run_pipeline
from onnxq.pipeline.prepare import prepare
from onnxq.pipeline.spec import load_pipeline
from onnxq.plan.planner import wanted
from onnxq.stats.calibrator import make_calibrators
from onnxq.stats.collect import collect, observe_shapes
from onnxq.stats.observers import SUBSET
from onnxq.stats.statistics import Statistics, TensorStatistics
from onnxq.stats.taps import mask_tensors
from onnxq.targets.target import load_target

MODELS = Path(__file__).resolve().parent
METHODS = ("percentile", "mse", "mixed", "entropy")
SCHEME = Scheme(type="uint8", symmetric=False)
OUT = ROOT / "out" / "sampled.md"
MARKS = ("<!-- sampled -->", "<!-- /sampled -->")


def statistics(name: str, samples: int) -> tuple[Statistics, Statistics]:
    """Of the tensors that a plan asks for: all elements counted, and the choice."""
    job = load(MODELS / name / "job.yaml", samples, None)
    data = opened(job, calibration=True)
    target, pipeline = load_target(job.target), load_pipeline(job.target, job.base)
    model = load_float(job.model, keep_overridable=False)
    first = [sample for _, sample in zip(range(2), data, strict=False)]
    model = prepare(model, target, first[0].inputs, keep_overridable=False)
    ends = [i for i, step in enumerate(pipeline.steps) if "plan" in step.body.needs]
    run_pipeline(model.graph, replace(pipeline, steps=pipeline.steps[: ends[0]]), Context(target=target))
    names = wanted(model.graph, target, observe_shapes(model, first, threads=1), ())
    masks, observers = mask_tensors(model.graph), ("minmax", "histogram", "heldout")
    full, choice = (
        collect(model, names, data, observers, threads=1, allow_infinite=masks, subset=subset)
        for subset in (None, SUBSET)
    )
    return full, choice


def noise(seen: TensorStatistics, low: float, high: float) -> float:
    """Mean square error of 8 bits from low to high on the whole distribution."""
    values, counts = seen.histogram.centers(), seen.histogram.bins()[2]
    outside = values - np.clip(values, low, high)
    return float((counts * np.where(outside == 0, (high - low) ** 2 / 255**2 / 12, outside**2)).sum() / counts.sum())


def row(name: str, method: str, full: Statistics, choice: Statistics) -> str:
    """One line of the table."""
    calibrator = make_calibrators(method, {})[method]
    moved, lost = [], []
    for tensor, seen in full.tensors.items():
        low, high = calibrator.range(seen, SCHEME)
        other = calibrator.range(choice.tensors[tensor], SCHEME)
        moved.append(max(abs(other[0] - low), abs(other[1] - high)) / max(high - low, 1e-30))
        lost.append(10 * np.log10(max(noise(seen, *other), 1e-30) / max(noise(seen, low, high), 1e-30)))
        print(
            f"{name} {method} {tensor}: {moved[-1]:.4f} {lost[-1]:.3f} dB ({low:.5g} {high:.5g}) {other}",
            file=sys.stderr,
        )
    shares = " | ".join(f"{np.mean(np.array(moved) < limit):.0%}" for limit in (0.01, 0.02))
    return f"| {name} | {method} | {len(moved)} | {shares} | {max(moved):.1%} | {max(lost):.2f} |"


def main(arguments: Sequence[str]) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(GOALS))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the last run into the page's block and stop")
    told = parser.parse_args(arguments)
    if told.write:
        page = told.write.read_text(encoding="utf-8")
        text = replace_block(page, OUT.read_text(encoding="utf-8"), str(told.write), MARKS)
        told.write.write_text(text, encoding="utf-8")
        return 0
    lines = ["| model | method | tensors | under 1 % | under 2 % | worst | noise, worst, dB |", "|---" * 7 + "|"]
    for name in told.models.split(","):
        found = statistics(name, told.samples)
        for method in told.methods.split(","):
            lines.append(row(name, method, *found))
            print(lines[-1], flush=True)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text("\n".join(lines) + f"\n\nMeasured by `python models/bench_sampled.py --samples {told.samples}`.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
