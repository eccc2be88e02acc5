"""One run of the gate: measure what the limits ask for, and judge it."""

from __future__ import annotations

from pathlib import Path

from onnxq.config.job import Job
from onnxq.driver import evaluation_data, first_inputs, job_accuracy, job_latency, job_metric
from onnxq.errors import UsageError
from onnxq.progress import Progress, Silent
from onnxq.validate.gate import Limits, Sizes
from onnxq.validate.gate import gate as judge
from onnxq.validate.result import Result, environment, file_bytes


def gate(baseline: Path, candidate: Path, job: Job, *, progress: Progress | None = None) -> Result:
    """Judge a candidate against the limits of the job's gate section; measures only what they ask for.

    Raises:
        OnnxqError: one sentence for whatever the user can mend.
        UsageError: no limit is given.
    """
    progress = progress or Silent()
    limits = job.gate.limits()
    if not job.gate.demands:
        raise UsageError("the gate has no limit to check: give --max-drop X, or a gate section in the job file")
    metric = job_metric(job)
    data = evaluation_data(job, baseline)
    needs_speed = limits.min_speedup is not None or limits.max_latency_ms is not None
    accuracy = job_accuracy(job, baseline, candidate, data, metric, progress) if _asks_accuracy(limits) else None
    latency = job_latency(job, baseline, candidate, first_inputs(data), progress) if needs_speed else ()
    sizes = Sizes(reference=file_bytes(baseline), candidate=file_bytes(candidate))
    return Result(
        command="gate",
        reference=baseline,
        candidate=candidate,
        sizes=sizes,
        accuracy=accuracy,
        latency=latency,
        verdict=judge(accuracy, latency[0] if latency else None, sizes, limits),
        environment=environment(),
    )


def _asks_accuracy(limits: Limits) -> bool:
    wanted = (limits.max_drop, limits.min_sqnr_db, limits.min_cosine, limits.min_agreement)
    return any(w is not None for w in wanted)
