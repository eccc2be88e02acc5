"""What it changes to judge by the part of the outputs that suffers most: the tables of docs/methods.md.

    python docs/measure_parts.py MODEL CALIB HELD                   # data as `--calib` takes it
    python docs/measure_parts.py models/yolox-ddddocr/job.yaml      # data of a job; `--samples 64` of its `eval`

Everything is int8 that has an integer kernel (`--placement rules`). A row per form of the model: each method, then what
`auto` and the repairs of weights and biases make of it, judged by whole outputs and by parts. On the samples of HELD,
which no choice has seen: the mean SQNR of whole outputs, that of the part that suffers most (dB), and how that part
correlates with the float model's over all elements of all samples.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from onnxq import trial
from onnxq.config.job import Job, load_job
from onnxq.data.sample import Sample
from onnxq.driver import quantize
from onnxq.faintest import Parts
from onnxq.jobs import open_source
from onnxq.repair import held
from onnxq.runtime.session import Session
from onnxq.stats.calibrator import CANDIDATES

REPAIRED = "weights,bias"

Outputs = list[dict[str, Any]]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="What it changes to judge by the worst part.")
    parser.add_argument("model", type=Path, help="or a job file")
    parser.add_argument("calib", nargs="?")
    parser.add_argument("held", nargs="?")
    parser.add_argument("--samples", type=int, help="of HELD, the first ones")
    parser.add_argument("--methods", default=",".join(CANDIDATES))
    told = parser.parse_args(arguments)
    base = load_job(told.model) if told.model.suffix in (".yaml", ".yml") else Job(model=told.model)
    job = base.with_overrides(calib=told.calib, eval=told.held, placement="rules", threads=1, validate=False)
    assert job.data.eval is not None
    samples = list(islice(open_source(job, job.data.eval, None), told.samples))
    exact = outputs(job.model, samples)
    parts = Parts(exact)
    forms: list[tuple[str, Mapping[str, Any], bool]] = [(m, {"method": m}, False) for m in told.methods.split(",")]
    for whole in (True, False):
        name = "whole outputs" if whole else "parts"
        forms.append((f"auto by {name}", {"method": "auto"}, whole))
        forms.append((f"auto and repairs by {name}", {"method": "auto", "repair": REPAIRED}, whole))
    print("| form | taken | whole outputs, dB | worst part, dB | correlation of it |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, options, whole in forms:
            path = Path(folder) / "form.onnx"
            judge = partial(Parts, whole=whole)
            with mock.patch.object(trial, "Parts", judge), mock.patch.object(held, "Parts", judge):
                result = quantize(job.with_overrides(output=path, **options))
            kept = [r.name for r in result.repairs if r.kept]
            taken = ", ".join([result.method or "", *kept])
            made = outputs(path, samples)
            near = parts.levels(exact, made)
            worst = int(near.mean(axis=0).argmin())
            all_of_it = Parts(exact, whole=True).levels(exact, made).mean()
            alike = correlation(parts.cut(worst, exact), parts.cut(worst, made))
            print(f"| {name} | {taken} | {all_of_it:.1f} | {near[:, worst].mean():.1f} | {alike:.3f} |", flush=True)


def outputs(model: Path, samples: Sequence[Sample]) -> Outputs:
    session = Session(model, threads=1)
    return [session.run(sample.inputs) for sample in samples]


def correlation(exact: Sequence[NDArray[np.float64]], other: Sequence[NDArray[np.float64]]) -> float:
    """Of all elements of all samples; 0 where one does not vary."""
    x, y = (np.concatenate([a.ravel() for a in some]) for some in (exact, other))
    return float(np.corrcoef(x, y)[0, 1]) if np.ptp(x) and np.ptp(y) else 0.0


if __name__ == "__main__":
    main()
