"""How ranges are found, as job files and pipeline files say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from onnxq import registry
from onnxq.data.preprocess import Preprocess
from onnxq.errors import UnknownNameError, UsageError, did_you_mean
from onnxq.reading.reader import Reader, find
from onnxq.stats.calibrator import AUTO
from onnxq.stats.weights import WeightMethod


@dataclass(frozen=True, kw_only=True)
class CalibrationSection:
    """How ranges are found.

    Attributes:
        method: registered calibrator, or `auto`: each of ours is tried and the nearest taken; None: the pipeline's.
        settings: its settings.
        weights: range of the constant weights; None: the pipeline's.
        limit: samples at most.
        threads: of ONNX Runtime while calibrating; None is its default.
        feedback: output -> input: from the second sample on, the input takes what the output was. The first sample
            takes the state from the data, or zeros (sizes that the model leaves open are 1) if the data lack it.
        cache: look into the cache of statistics, and store in it; None is yes.
        workers: processes of this machine; None is one.
        cluster: address of a Dask scheduler, instead of `workers`.
    """

    method: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    weights: WeightMethod | None = None
    limit: int | None = None
    threads: int | None = None
    feedback: Mapping[str, str] = field(default_factory=dict)
    cache: bool | None = None
    workers: int | None = None
    cluster: str | None = None

    def __post_init__(self) -> None:
        for name, value in (("limit", self.limit), ("threads", self.threads), ("workers", self.workers)):
            if value is not None and not value >= 1:
                raise UsageError(f"{name} must be at least 1, not {value:g}")


@dataclass(frozen=True, kw_only=True)
class PipelineCalibration(CalibrationSection):
    """The same in a pipeline file, which may name its samples, too.

    Attributes:
        data: what `--calib` takes, relative to the file; None: the command line must say it.
        preprocess: for pictures and texts.
    """

    method: str = AUTO
    weights: WeightMethod = "max"
    data: str | None = None
    preprocess: Preprocess = field(default_factory=Preprocess)


def over(first: CalibrationSection, second: PipelineCalibration) -> PipelineCalibration:
    """What the first says, and where it says nothing, the second; settings belong to their method."""
    names = ("weights", "limit", "threads", "cache", "workers", "cluster")
    said = {k: v for k in names if (v := getattr(first, k)) is not None}
    if first.feedback:
        said["feedback"] = first.feedback
    if first.method is not None and (first.method != second.method or first.settings):
        said |= {"method": first.method, "settings": first.settings}
    return replace(second, **said)


def check_settings(reader: Reader, root: yaml.Node) -> None:
    """Faults in `calibration.settings`, whose schema is the calibrator's class; no other plugin is imported for it."""
    settings, method = find(root, "calibration", "settings"), find(root, "calibration", "method")
    if not isinstance(settings, yaml.MappingNode) or not settings.value:
        if isinstance(method, yaml.ScalarNode) and method.value != AUTO:
            _known(reader, method)
        return
    name = method.value if isinstance(method, yaml.ScalarNode) else AUTO
    if name == AUTO:
        reader.fault(settings, "calibration.settings: the method auto has none: name one with calibration.method")
        return
    try:
        reader.read_node(settings, registry.load(registry.CALIBRATORS, name), "calibration.settings")
    except UnknownNameError as error:
        reader.fault(method or settings, f"calibration.method: {error}")


def _known(reader: Reader, method: yaml.ScalarNode) -> None:
    names = registry.names(registry.CALIBRATORS)
    if method.value not in names:
        guess = did_you_mean(method.value, [AUTO, *names])
        reader.fault(method, f'calibration.method: there is no method "{method.value}": {guess}')
