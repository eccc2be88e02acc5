"""What quantization is told, and what its stages took."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from onnxq.config.placing import Budget, Judged, Placing
from onnxq.config.repair import Repairing
from onnxq.ir.model import Model
from onnxq.pipeline.manager import Pipeline
from onnxq.stats.calibrator import Calibrator
from onnxq.stats.engine import Resources
from onnxq.stats.ranges import RangeTable
from onnxq.stats.statistics import Statistics
from onnxq.stats.weights import WeightMethod
from onnxq.targets.target import Target


@dataclass
class Timing:
    """Seconds by stage, in the order they ran."""

    seconds: dict[str, float] = field(default_factory=dict)

    def stage(self, name: str) -> _Stage:
        """`with timing.stage("calibrate"): ...`"""
        return _Stage(self, name)


class _Stage:
    def __init__(self, timing: Timing, name: str) -> None:
        self.timing, self.name = timing, name

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.timing.seconds[self.name] = self.timing.seconds.get(self.name, 0.0) + time.perf_counter() - self.start


@dataclass(frozen=True, kw_only=True)
class Options:
    """What quantization itself is told (the job says more: where files lie, how to validate).

    Attributes:
        target: as loaded.
        pipeline: passes to run.
        calibrators: by method name; with several, the one whose model comes nearest to the float outputs is taken.
        weight_method: range of weights, `max` or `mse`.
        keep_float: shell patterns on node names, op types and output names.
        keep_overridable: leave initializers that are graph inputs overridable.
        calib_limit: calibration samples at most.
        threads: of ORT while calibrating.
        feedback: output -> input of models that are fed their state.
        resources: cache and workers.
        given: statistics or ranges that were made before; no sample is run to calibrate.
        placing: how ops are placed by measured cost; None: in int8 wherever the target's rules allow it.
        budget: what a placement by cost may lose; None: anything.
        repairing: what is tried to win accuracy back; None: nothing.
        smallest: without `placing`: weights of 4 and 8 bits where the budget allows it.
        judge: of forms of the model, by labels; None: the outputs on calibration samples decide.
        sweep: measure the noise for the front of time against noise even where the budget does not need it.
    """

    target: Target
    pipeline: Pipeline
    calibrators: Mapping[str, Calibrator]
    weight_method: WeightMethod = "max"
    keep_float: tuple[str, ...] = ()
    keep_overridable: bool = False
    calib_limit: int | None = None
    threads: int | None = None
    feedback: Mapping[str, str] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)
    given: Statistics | RangeTable | None = None
    placing: Placing | None = None
    budget: Budget | None = None
    smallest: bool = False
    repairing: Repairing | None = None
    judge: Callable[[Model], Judged] | None = None
    sweep: bool = False

    @property
    def observers(self) -> list[str]:
        """What the calibrators read."""
        return sorted({o for c in self.calibrators.values() for o in c.observers})
