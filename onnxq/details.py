"""What only a report has room for: layer by layer, and everything to run it again. It costs time: one asks for it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from onnxq.config.job import Job
from onnxq.data.sample import Dataset
from onnxq.pipeline.manager import Pipeline
from onnxq.pipeline.write import to_yaml
from onnxq.validate.layers import layers
from onnxq.validate.provenance import Hashed, Provenance, of_data, of_file, of_model
from onnxq.validate.result import Result


def with_details(
    result: Result,
    job: Job,
    samples: Sequence[Mapping[str, NDArray[Any]]],
    *,
    file: Path | None = None,
    calib: Dataset | None = None,
    evaluation: Dataset | None = None,
    pipeline: Pipeline | None = None,
    statistics: object = None,
) -> Result:
    """The result with `layers` and `run` filled in.

    Args:
        result: of a comparison: `reference` and `candidate` are there.
        job: names the data.
        samples: inputs to compare layers on, a few.
        file: where the candidate lies now, if not yet under its name.
        calib, evaluation: as they were read.
        pipeline: that ran.
        statistics: of the calibration, for histograms.

    Raises:
        ModelError: one of the two models cannot be read.
    """
    assert result.reference is not None and result.candidate is not None
    candidate = file or result.candidate
    found = layers(result.reference, candidate, samples, statistics=statistics)
    start = time.perf_counter()
    inputs: list[Hashed] = [
        of_model("float model", result.reference),
        of_model("quantized model", candidate, shown=result.candidate),
    ]
    if calib is not None and job.data.calib is not None:
        inputs.append(of_data("calibration samples", job.data.calib.path, calib))
    if evaluation is not None and job.data.eval is not None:
        inputs.append(of_data("evaluation samples", job.data.eval.path, evaluation))
    for role, path in (("statistics", job.statistics), ("ranges", job.ranges)):
        if path is not None:
            inputs.append(of_file(role, path))
    run = Provenance(pipeline=to_yaml(pipeline) if pipeline is not None else "", inputs=tuple(inputs))
    seconds = {**result.seconds, "layers": found.seconds, "hashes": time.perf_counter() - start}
    return replace(result, layers=found, run=run, seconds=seconds if result.seconds else {})
