"""`onnxq sensitivity`: normalise, calibrate and plan as `onnxq quantize` does, then measure instead of inserting."""

from __future__ import annotations

from dataclasses import replace

from onnxq.config.cache import resources
from onnxq.config.job import Job
from onnxq.errors import UsageError
from onnxq.jobs import job_pipeline, open_source
from onnxq.pipeline.calibration import over
from onnxq.progress import Progress, Silent
from onnxq.provider import PlanProvider
from onnxq.sensitivity.engine import Options, sensitivity
from onnxq.sensitivity.result import Sensitivity
from onnxq.sensitivity.work import Scoring
from onnxq.validate.metrics import load_metric
from onnxq.workbench.planning import ready


def measure(job: Job, options: Options | None = None, *, progress: Progress | None = None) -> Sensitivity:
    """Sensitivities of the model of a job, with the plan that `onnxq quantize` would make.

    Args:
        job: `data.calib` to calibrate and to measure noise on, `data.eval` and `validate.metric` for the score;
            target, pipeline, calibration.
        options: its feedback is the job's.

    Raises:
        OnnxqError: one sentence for whatever the user can mend.
    """
    options, progress = options or Options(), progress or Silent()
    calib, judged = job.data.calib, job.data.eval
    if calib is None:
        raise UsageError("there is nothing to calibrate with: give --calib DATA, or data.calib in the job file")
    pipeline = job_pipeline(job)
    calibration = over(job.calibration, pipeline.calibration)
    job = replace(job, calibration=replace(job.calibration, feedback=calibration.feedback))
    scoring = None
    if job.validate.metric is not None:
        metric = load_metric(job.validate.metric, job.base)
        scoring = Scoring(metric=metric, name=job.validate.metric, base=job.base)
    means = resources(calibration)
    data = open_source(job, calib, calibration.limit)
    evaluation = None if judged is None or scoring is None else open_source(job, judged, None)
    begin = ready(job, data, pipeline, calibration, means, progress, PlanProvider)
    begin.provider(begin.graph, begin.context)
    plan = begin.context.plan
    assert plan is not None
    found = sensitivity(
        begin.model,
        plan,
        data,
        replace(options, feedback=calibration.feedback),
        evaluation=evaluation,
        scoring=scoring,
        threads=calibration.threads,
        cache=means.cache,
        executor=means.pool,
        progress=progress,
    )
    return replace(found, notes=tuple(dict.fromkeys([*begin.notes, *plan.notes, *found.notes])))
