"""A file of limits for the gate.

# gate.yaml
metrics:
  - {metric: top1, max_drop: 0.01}
outputs:
  logits: {min_sqnr_db: 20}
size: {max_ratio: 0.35}
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, replace
from pathlib import Path

from onnxq.config.gate import GateSection, at_least
from onnxq.config.job import DataSection, Job, Source, ValidateSection, load_job
from onnxq.data.preprocess import Preprocess
from onnxq.reading.reader import find, parse


@dataclass(frozen=True, kw_only=True)
class GateFile(GateSection):
    """A file of limits.

    Attributes:
        data: samples to judge with; --data stands above it.
        preprocess: for pictures and texts.
        skip_bad: leave damaged files out and count them.
        metric: that `max_drop` is about; --metric stands above it.
        samples: at most.
        threads: of ONNX Runtime.
    """

    data: str | None = None
    preprocess: Preprocess = field(default_factory=Preprocess)
    skip_bad: bool = False
    metric: str | None = None
    samples: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, samples=self.samples, threads=self.threads)


def load_gate_job(path: Path, model: Path) -> Job:
    """A file of limits, or a whole job file with a gate section (one that names a model), as a job.

    Raises:
        ConfigError: every fault of the file, each with its line and column.
    """
    reader, root = parse(path)
    if find(root, "model") is not None:
        return _based(load_job(path))
    limits = reader.read_node(root, GateFile)
    reader.finish()
    assert isinstance(limits, GateFile)
    source: Source | None = None if limits.data is None else Source(path=limits.data)
    section = GateSection(**{f.name: getattr(limits, f.name) for f in dataclasses.fields(GateSection)})
    return _based(
        Job(
            model=model,
            data=DataSection(eval=source, preprocess=limits.preprocess, skip_bad=limits.skip_bad),
            validate=ValidateSection(metric=limits.metric, limit=limits.samples, threads=limits.threads),
            gate=section,
            base=path.parent,
        )
    )


def _based(job: Job) -> Job:
    """With the committed baseline's path resolved against the file's folder."""
    drift = job.gate.drift
    if drift is None or drift.baseline is None:
        return job
    moved = replace(drift, baseline=job.base / drift.baseline)
    return replace(job, gate=replace(job.gate, drift=moved))
