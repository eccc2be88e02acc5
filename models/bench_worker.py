"""What one child process of the bench does; `bench.py` starts it, `bench_process.py` watches it.

    bench_worker.py plain|onnxq|onnxq-METHOD|ort-minmax|ort-percentile --job job.yaml --samples 64 --out FILE
    bench_worker.py effort-default|effort-fast --job job.yaml --samples 256 --out FILE
    bench_worker.py evaluate --job job.yaml --candidate FILE [--limit N] [--metric NAME]
    bench_worker.py latency --job job.yaml --candidate FILE --candidate FILE --threads 1

Those of the first line are what is compared: they run on one core and see the same calibration samples through the
same loader. Those of the second are `onnxq quantize` as users run it: on all cores, with everything at its default.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from bench_process import describe, own_peak

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from onnxq.config.job import Job, Source
    from onnxq.data.sample import Dataset, InputSpec

LATENCY_SAMPLES = 4
"""Inputs that a latency measurement takes in turn, as the product does."""

SESSIONS = 3
"""How often a latency measurement loads its models: where memory and threads come to lie is chance, and stays so."""


@dataclass
class Clock:
    """Seconds of the parts of a child's work, and the peak when the compared part ended."""

    seconds: dict[str, float]

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """`with clock.part("work"): ...`"""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - start


def load(path: Path, samples: int | None, limit: int | None, *, threads: int | None = 1) -> Job:
    """The job, its data cut to so many calibration and evaluation samples: the same ones for whoever opens it."""
    from onnxq.config.job import load_job
    from onnxq.errors import UsageError

    job = load_job(path)
    if job.data.calib is None:
        raise UsageError(f"{path} names no data.calib: the bench needs samples")
    calib = _cut(job.data.calib, samples, job.calibration.limit)
    judged = None if job.data.eval is None else _cut(job.data.eval, limit, job.validate.limit)
    return replace(
        job,
        data=replace(job.data, calib=calib, eval=judged),
        calibration=replace(job.calibration, limit=None, threads=threads or job.calibration.threads, cache=False),
        validate=replace(job.validate, limit=None),
    )


def _cut(source: Source, *limits: int | None) -> Source:
    return replace(source, limit=min((n for n in (source.limit, *limits) if n is not None), default=None))


def opened(job: Job, *, calibration: bool, inputs: Sequence[InputSpec] = ()) -> Dataset:
    """The job's calibration or evaluation samples (those of calibration, if there are no others)."""
    from onnxq.data.open import open_dataset
    from onnxq.runtime.session import Level, Session

    source = job.data.calib if calibration else job.data.eval or job.data.calib
    assert source is not None, "load() checks that"
    return open_dataset(
        source.path,
        inputs or Session(job.model, level=Level.OFF, threads=1, prepacking=False).inputs,
        job.data.preprocess_of(source),
        base=job.base,
        skip_bad=job.data.skip_bad,
        limit=source.limit,
    )


def plain(job: Job, clock: Clock) -> dict[str, Any]:
    """Load the float model and run it over the samples: what no calibration can be quicker than."""
    from onnxq.runtime.session import Session

    with clock.part("work"):
        session = Session(job.model, threads=1)
        data = opened(job, calibration=True, inputs=session.inputs)
        count, forward = 0, 0.0
        for sample in data:
            start = time.perf_counter()
            session.run(sample.inputs)
            forward += time.perf_counter() - start
            count += 1
    clock.seconds["forward"] = forward
    return {"samples": count, "data": data.description}


def ours(kind: str, job: Job, output: Path, clock: Clock) -> dict[str, Any]:
    """The product's own driver without validation and its data; the job's method, or that of `onnxq-METHOD`."""
    from onnxq.driver import quantize

    validate = replace(job.validate, enabled=False, metric=None)
    job = replace(job, output=output, validate=validate, data=replace(job.data, eval=None))
    if method := kind.removeprefix("onnxq").removeprefix("-"):
        job = job.with_overrides(method=method)
    with clock.part("work"):
        result = quantize(job)
    return {
        "data": result.calibration,
        "method": result.method,
        "stages": dict(result.seconds),
        "notes": list(result.notes),
    }


def effort(name: str, job: Job, output: Path, clock: Clock) -> dict[str, Any]:
    """`onnxq quantize --effort NAME` as a user without labels runs it: validation and speed are measured, too."""
    from onnxq.driver import quantize
    from onnxq.report.json import encode

    job = replace(job, output=output, data=replace(job.data, eval=None), validate=replace(job.validate, metric=None))
    with clock.part("work"):
        result = quantize(job.with_overrides(effort=name))
    return {
        "data": result.calibration,
        "method": result.method,
        "stages": dict(result.seconds),
        "notes": list(result.notes),
        "account": [{k: v for k, v in encode(a).items() if k != "lost"} for a in result.account],
    }


def peer(kind: str, job: Job, output: Path, clock: Clock) -> dict[str, Any]:
    """onnxruntime.quantization."""
    import bench_peer

    data = opened(job, calibration=True)
    with clock.part("work"):
        found = bench_peer.quantize(kind, job.model, data, output)
    return {**found, "data": data.description}


def evaluate(job: Job, candidate: Path, metric_name: str | None = None) -> dict[str, Any]:
    """Score, fidelity and integer share of one quantized file, on the job's evaluation samples by the job's metric."""
    from onnxq.errors import OnnxqError
    from onnxq.validate.accuracy import compare
    from onnxq.validate.coverage import coverage
    from onnxq.validate.metrics import load_metric
    from onnxq.validate.result import file_bytes

    data = opened(job, calibration=False)
    name = metric_name or job.validate.metric or ""
    metric = load_metric(name, job.base) if name else None
    found = compare(job.model, candidate, data, metric, metric_name=name)
    sqnr = [o.sqnr_db for o in found.outputs if o.sqnr_db is not None]
    values: dict[str, Any] = {
        "samples": found.samples,
        "data": found.data,
        "metric": asdict(found.metric) if found.metric is not None else None,
        "outputs": [asdict(o) for o in found.outputs],
        "sqnr_db": min(sqnr, default=None),
        "notes": list(found.notes),
        "bytes": {"fp32": file_bytes(job.model), "int8": file_bytes(candidate)},
    }
    try:
        covered = coverage(candidate, sample=next(iter(data)).inputs)
        values["integer_macs"], values["macs"] = covered.integer_macs, covered.macs
    except OnnxqError as error:  # a file of the peer's may be one that we cannot read: its score still counts
        values["notes"].append(f"coverage: {error}")
    return values


def lengthened(inputs: Mapping[str, NDArray[Any]], length: int) -> dict[str, NDArray[Any]]:
    """A text that is repeated until it has so many tokens: integer inputs [1, tokens]."""
    import numpy as np

    texts = {k: np.resize(v, (1, length)) for k, v in inputs.items() if v.ndim == 2 and v.dtype.kind == "i"}
    return {**inputs, **texts}


def latency(job: Job, candidates: Sequence[Path], threads: int, budget: float, length: int | None) -> dict[str, Any]:
    """The float model and all candidates in turn, A B C D A B C D ..., in one process, loaded `SESSIONS` times.

    Of each candidate, besides its speed-up, `over`: the median of the time of each candidate / its own in the same
    turn, and its 95 % interval.

    Args:
        length: tokens of each sample; None: as many as it has.
    """
    import numpy as np

    from onnxq.runtime.session import Session
    from onnxq.runtime.turns import IN_TURNS
    from onnxq.validate.intervals import median_interval
    from onnxq.validate.latency import summarize

    inputs = [s.inputs for s in itertools.islice(iter(opened(job, calibration=False)), LATENCY_SAMPLES)]
    if length is not None:
        inputs = [lengthened(one, length) for one in inputs]
    begin, parts = time.perf_counter(), []
    for _ in range(SESSIONS):
        sessions = [Session(m, threads=threads, config=IN_TURNS) for m in (job.model, *candidates)]
        part, inner = interleave([s.run for s in sessions], inputs, budget / SESSIONS, threads)
        parts.append(part)
    times, seconds = np.concatenate(parts), time.perf_counter() - begin

    def found(k: int) -> dict[str, Any]:
        """The product's own formula against the float model of the same rounds, and the ratio to each candidate."""
        own = summarize(times[:, [0, k]], threads=threads, inner=inner, seconds=seconds)
        ratios = [times[:, other] / times[:, k] for other in range(1, len(sessions))]
        over = [{"ratio": float(np.median(r)), **asdict(median_interval(r))} for r in ratios]
        return {**asdict(own), "over": over}

    return {"fp32_ms": float(np.median(times[:, 0]) * 1e3), "candidates": [found(k) for k in range(1, len(sessions))]}


def interleave(
    runs: Sequence[Any], inputs: Sequence[Any], budget: float, threads: int = 1
) -> tuple[NDArray[np.float64], int]:
    """Seconds a run, [rounds, len(runs)], and how many runs are in each timing.

    All rounds together take about `budget` seconds, at least 5 rounds.
    """
    import numpy as np

    from onnxq.runtime.turns import order, row, timed, wanted

    estimates = []
    for run in runs:
        warm = []
        for _ in range(3):
            start = time.perf_counter()
            run(inputs[0])
            warm.append(time.perf_counter() - start)
        estimates.append(max(min(warm), 1e-7))
    each = row(min(estimates), threads)
    rounds = int(np.clip(budget / wanted(estimates, each, threads), 5, 1000))
    times = np.empty((rounds, len(runs)))
    for turn in range(rounds):
        sample = inputs[turn % len(inputs)]
        for column in order(turn, len(runs)):
            times[turn, column] = timed(partial(runs[column], sample), each, threads, time.perf_counter)
    return times, each.inner


def _main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind")
    parser.add_argument("--job", type=Path, required=True)
    parser.add_argument("--samples", type=int)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--metric")
    parser.add_argument("--candidate", type=Path, action="append", default=[])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--budget", type=float, default=6.0)
    parser.add_argument("--length", type=int)
    parser.add_argument("--result", type=Path, required=True)
    args = parser.parse_args(arguments)
    as_users = args.kind.startswith("effort-")
    compared = args.kind not in ("evaluate", "latency") and not as_users
    if compared and hasattr(os, "sched_setaffinity"):
        # ORT's calibrators offer no setting for threads: on one core they have one
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    clock = Clock({})
    values: dict[str, Any]
    try:
        job = load(args.job, args.samples, args.limit, threads=None if as_users else 1)
        if args.kind == "plain":
            values = plain(job, clock)
        elif args.kind.startswith("onnxq"):
            values = ours(args.kind, job, args.out, clock)
        elif as_users:
            values = effort(args.kind.removeprefix("effort-"), job, args.out, clock)
        elif args.kind == "evaluate":
            values = evaluate(job, args.candidate[0], args.metric)
        elif args.kind == "latency":
            values = latency(job, args.candidate, args.threads, args.budget, args.length)
        else:
            values = peer(args.kind, job, args.out, clock)
    except BaseException as error:  # the table says which error it was
        values = {"error": describe(error)}
    values |= {"parts": clock.seconds, "peak_bytes": own_peak()}
    args.result.write_text(json.dumps(plain_json(values)))


def plain_json(value: Any) -> Any:
    """What JSON can say: paths and numpy numbers become plain ones, NaN and infinities their names."""
    if isinstance(value, dict):
        return {str(k): plain_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(v) for v in value]
    if hasattr(value, "item"):
        return plain_json(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


if __name__ == "__main__":
    _main(sys.argv[1:])
