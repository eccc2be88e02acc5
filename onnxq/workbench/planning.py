"""From a job to the point where the plan is made: what `onnxq calibrate` and `onnxq sensitivity` begin with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import onnx_graphsurgeon as gs

from onnxq.config.job import Job
from onnxq.data.sample import Dataset
from onnxq.errors import ConfigError
from onnxq.gathering import FIRST, Gathering, first_samples, unmatched
from onnxq.ir.load import load_float
from onnxq.ir.model import Model
from onnxq.jobs import job_options
from onnxq.pipeline.base import Context
from onnxq.pipeline.calibration import PipelineCalibration
from onnxq.pipeline.manager import Pipeline, run_pipeline
from onnxq.pipeline.prepare import Literally, prepare
from onnxq.progress import Progress
from onnxq.stats.engine import Resources
from onnxq.targets.target import load_target

G = TypeVar("G", bound=Gathering)


@dataclass(frozen=True, kw_only=True)
class Ready(Generic[G]):
    """A model behind the passes that normalise it.

    Attributes:
        model: normalised.
        provider: of statistics, or of the plan, too, for `context`.
        context: as the passes had it.
    """

    model: Model
    provider: G
    context: Context
    _notes: tuple[str, ...]

    @property
    def graph(self) -> gs.Graph:
        """The model's."""
        return self.model.graph

    @property
    def notes(self) -> list[str]:
        """Sentences for the user, of all that ran so far."""
        return [*self.model.notes, *self._notes, *self.provider.notes]


def ready(
    job: Job,
    data: Dataset,
    pipeline: Pipeline,
    calibration: PipelineCalibration,
    means: Resources,
    progress: Progress,
    provider: type[G],
) -> Ready[G]:
    """Load the model and run the passes that come before the first one that needs a plan.

    Args:
        data: calibration samples.
        calibration: the job's over the pipeline's.
        provider: what the model is to be handed to.

    Raises:
        ConfigError: no pass needs a plan.
        OnnxqError: one sentence for whatever the user can mend.
    """
    needing = [i for i, step in enumerate(pipeline.steps) if "plan" in step.body.needs]
    if not needing:
        raise ConfigError(f"pipeline {pipeline.name} never asks for a plan: add the pass insert-qdq")
    before = replace(pipeline, steps=pipeline.steps[: needing[0]])
    target = load_target(job.target, reduce_range=job.reduce_range, float_type=job.float_type)
    options = job_options(job, target, before, calibration, means)
    model = load_float(job.model, keep_overridable=job.keep_overridable)
    unused = unmatched(model.graph, options.keep_float)
    first, literally = first_samples(data, FIRST), Literally()
    model = prepare(model, target, first[0].inputs, keep_overridable=job.keep_overridable, run=literally)
    exact = literally.take(model)
    made = provider(model, data, options, unused=unused, first=first, exact=exact, progress=progress)
    context = Context(target=target, keep_float=options.keep_float, keep_overridable=job.keep_overridable)
    run = run_pipeline(model.graph, before, context)
    return Ready(model=model, provider=made, context=context, _notes=tuple(run.notes))
