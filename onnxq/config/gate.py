"""The limits of the gate: sections of a file of limits, or of the gate section of a job file.

Every limit is optional; what is not limited is not measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from onnxq.errors import UsageError
from onnxq.validate.gate import Drop

Strictness = Literal["warn", "fail"]


def at_least(least: float, **values: float | None) -> None:
    """Refuse numbers below `least`, and NaN.

    Raises:
        UsageError: names the first of them.
    """
    for name, value in values.items():
        if value is not None and not value >= least:
            raise UsageError(f"{name} must be at least {least:g}, not {value:g}")


def _share(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not 0 <= value <= 1:
            raise UsageError(f"{name} must be between 0 and 1, not {value:g}")


def _parsed(name: str, drop: float | str | None) -> Drop | None:
    try:
        return None if drop is None else Drop.parse(str(drop))
    except UsageError as error:
        raise UsageError(f"{name} cannot be read: {error}") from error


def _some(section: object, *names: str) -> None:
    values = [getattr(section, n) for n in names]
    if all(v is None or v is False for v in values):  # 0 is a limit, and () allows nothing
        raise UsageError(f"there is no limit in this section: give {' or '.join(names)}")


@dataclass(frozen=True, kw_only=True)
class MetricLimit:
    """Limits on one score.

    Attributes:
        metric: registered name, `module:Class`, `module:function` or `file.py:Class`, relative to the file.
        max_drop: how much worse than the baseline: 0.01 in its unit, or "0.5%" of the baseline's score.
        min, max: of the candidate's own score.
        output: name of the output it looks at, for metrics that have this setting.
        settings: further settings of the metric's class.
    """

    metric: str
    max_drop: float | str | None = None
    min: float | None = None
    max: float | None = None
    output: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _some(self, "max_drop", "min", "max")
        _parsed("max_drop", self.max_drop)

    @property
    def drop(self) -> Drop | None:
        """`max_drop` as a value."""
        return _parsed("max_drop", self.max_drop)

    @property
    def all_settings(self) -> dict[str, Any]:
        """With the output."""
        return {**self.settings, **({"output": self.output} if self.output is not None else {})}

    @property
    def label(self) -> str:
        """The metric, and the output if one is named."""
        return f"{self.metric} of {self.output}" if self.output else self.metric


@dataclass(frozen=True, kw_only=True)
class OutputLimit:
    """How near one output must come to the baseline's: SQNR in dB, cosine over all elements, agreement of the best
    class (0 to 1).
    """

    min_sqnr_db: float | None = None
    min_cosine: float | None = None
    min_agreement: float | None = None

    def __post_init__(self) -> None:
        _some(self, "min_sqnr_db", "min_cosine", "min_agreement")
        _share(min_agreement=self.min_agreement)


@dataclass(frozen=True, kw_only=True)
class SpeedLimit:
    """Interleaved paired runs of both models.

    Attributes:
        min_speedup: median over pairs of baseline / candidate.
        max_latency_ms: median of the candidate.
        threads: of both sessions; None: those of the whole gate, else 1.
        runs: timed pairs; None: as many as fit `seconds`.
        warmup: untimed runs of each before.
        seconds: that the measurement takes, about.
        max_noise: distance of the quartiles of the ratio over its median, above which nothing is judged.
    """

    min_speedup: float | None = None
    max_latency_ms: float | None = None
    threads: int | None = None
    runs: int | None = None
    warmup: int = 3
    seconds: float = 4.0
    max_noise: float = 0.15

    def __post_init__(self) -> None:
        _some(self, "min_speedup", "max_latency_ms")
        at_least(0, min_speedup=self.min_speedup, max_latency_ms=self.max_latency_ms, warmup=self.warmup)
        at_least(1, threads=self.threads)
        at_least(6, runs=self.runs)
        at_least(0, seconds=self.seconds, max_noise=self.max_noise)


@dataclass(frozen=True, kw_only=True)
class SizeLimit:
    """File and external data: candidate / baseline, and bytes."""

    max_ratio: float | None = None
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        _some(self, "max_ratio", "max_bytes")
        at_least(0, max_ratio=self.max_ratio, max_bytes=self.max_bytes)


@dataclass(frozen=True, kw_only=True)
class MemoryLimit:
    """Peak memory of loading and running one sample, above an empty process: candidate / baseline, and bytes."""

    max_ratio: float | None = None
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        _some(self, "max_ratio", "max_bytes")
        at_least(0, max_ratio=self.max_ratio, max_bytes=self.max_bytes)


@dataclass(frozen=True, kw_only=True)
class LoadLimit:
    """Time to make a session: candidate / baseline (medians), and milliseconds."""

    max_ratio: float | None = None
    max_ms: float | None = None
    runs: int = 9

    def __post_init__(self) -> None:
        _some(self, "max_ratio", "max_ms")
        at_least(0, max_ratio=self.max_ratio, max_ms=self.max_ms)
        at_least(6, runs=self.runs)


@dataclass(frozen=True, kw_only=True)
class CoverageLimit:
    """Integer kernels in ONNX Runtime's optimized graph.

    Attributes:
        min_integer_macs: least share of multiply-accumulates in them, 0 to 1.
        no_new_float: no operator may be float that is integer in the baseline (the file, or the committed one).
        allow_float: patterns of names that may be.
    """

    min_integer_macs: float | None = None
    no_new_float: bool = False
    allow_float: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _some(self, "min_integer_macs", "no_new_float")
        _share(min_integer_macs=self.min_integer_macs)


@dataclass(frozen=True, kw_only=True)
class StructureLimit:
    """What the candidate's file may be made of.

    Attributes:
        target: registered target whose greatest opset and IR version hold.
        max_opset, max_ir_version: instead of the target's.
        ops: the only operator types (com.microsoft ones with their domain); None: any.
        domains: the only operator sets; "" and "ai.onnx" are the standard one; None: any.
        same_interface: inputs and outputs have the names, types and shapes of the baseline's.
        no_face_to_face: in ONNX Runtime's optimized graph no DequantizeLinear feeds a QuantizeLinear, which is where
            two integer operators do not meet.
    """

    target: str | None = None
    max_opset: int | None = None
    max_ir_version: int | None = None
    ops: tuple[str, ...] | None = None
    domains: tuple[str, ...] | None = None
    same_interface: bool = False
    no_face_to_face: bool = False

    def __post_init__(self) -> None:
        _some(self, "target", "max_opset", "max_ir_version", "ops", "domains", "same_interface", "no_face_to_face")
        at_least(1, max_opset=self.max_opset, max_ir_version=self.max_ir_version)


@dataclass(frozen=True, kw_only=True)
class PortabilityLimit:
    """The candidate elsewhere, against the candidate here (all optimizations, one thread).

    Attributes:
        max_drop: of the metric.
        metric: None: the first of `metrics`, else agreement of the best class or SQNR of at least `min_sqnr_db`.
        min_sqnr_db: without a metric, SQNR of the variant against the deployed form.
        optimizations: ONNX Runtime's optimizations off.
        threads: with so many threads; 0 leaves that out.
        saturation: as CPUs without VNNI compute: two adjacent u8 x s8 products saturate in int16.
        samples: at most.
        on_failure: what a failure counts as.
    """

    max_drop: float | str | None = None
    metric: str | None = None
    min_sqnr_db: float | None = None
    optimizations: bool = False
    threads: int = 0
    saturation: bool = False
    samples: int | None = None
    on_failure: Strictness = "fail"

    def __post_init__(self) -> None:
        _some(self, "max_drop", "min_sqnr_db")
        if not (self.optimizations or self.threads or self.saturation):
            raise UsageError("there is no variant in this section: give optimizations, threads or saturation")
        _parsed("max_drop", self.max_drop)
        at_least(0, threads=self.threads)
        at_least(1, samples=self.samples)

    @property
    def drop(self) -> Drop | None:
        """`max_drop` as a value."""
        return _parsed("max_drop", self.max_drop)


@dataclass(frozen=True, kw_only=True)
class DriftLimit:
    """Tensor by tensor against a committed baseline (`onnxq gate --update-baseline`).

    Attributes:
        baseline: the committed file, relative to this one; --compare stands above it.
        max_sqnr_drop_db: how much lower the SQNR of a tensor may get.
        max_score_drop: how much lower than the committed one a score may get, as `max_drop`.
        samples: to compare tensors on.
        on_failure: what a failure counts as.
    """

    baseline: Path | None = None
    max_sqnr_drop_db: float | None = None
    max_score_drop: float | str | None = None
    samples: int = 8
    on_failure: Strictness = "fail"

    def __post_init__(self) -> None:
        _some(self, "max_sqnr_drop_db", "max_score_drop")
        at_least(0, max_sqnr_drop_db=self.max_sqnr_drop_db)
        at_least(1, samples=self.samples)
        _parsed("max_score_drop", self.max_score_drop)

    @property
    def score_drop(self) -> Drop | None:
        """`max_score_drop` as a value."""
        return _parsed("max_score_drop", self.max_score_drop)


_HOW = ("confidence", "resamples", "seed")


@dataclass(frozen=True, kw_only=True)
class GateSection:
    """All limits; None demands nothing.

    Attributes:
        max_drop: of the metric that the job names: 0.01 in its unit, or "0.5%" of the float model's score.
        min_sqnr_db: over every float output, dB.
        min_cosine: over every float output.
        min_agreement: top-1 agreement with the float model, 0 to 1, over every output that looks like class scores.
        min_speedup: float latency / quantized latency.
        max_latency_ms: median of the quantized model.
        max_size_ratio: quantized file / float file.
        metrics, outputs: more limits on accuracy: a list, and a mapping by name of the output.
        speed, size, memory, load, coverage, structure, portability, drift: sections.
        confidence: level of the two-sided intervals that verdicts rest on.
        resamples, seed: of the bootstrap.
    """

    max_drop: float | str | None = None
    min_sqnr_db: float | None = None
    min_cosine: float | None = None
    min_agreement: float | None = None
    min_speedup: float | None = None
    max_latency_ms: float | None = None
    max_size_ratio: float | None = None
    metrics: tuple[MetricLimit, ...] = ()
    outputs: Mapping[str, OutputLimit] = field(default_factory=dict)
    speed: SpeedLimit | None = None
    size: SizeLimit | None = None
    memory: MemoryLimit | None = None
    load: LoadLimit | None = None
    coverage: CoverageLimit | None = None
    structure: StructureLimit | None = None
    portability: PortabilityLimit | None = None
    drift: DriftLimit | None = None
    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(
            0, min_speedup=self.min_speedup, max_latency_ms=self.max_latency_ms, max_size_ratio=self.max_size_ratio
        )
        _parsed("max_drop", self.max_drop)
        at_least(200, resamples=self.resamples)
        at_least(0, seed=self.seed)
        if not 0.5 <= self.confidence < 1:
            raise UsageError(
                f"confidence must be at least 0.5 and below 1, not {self.confidence:g}: write it like 0.95"
            )

    @property
    def demands(self) -> bool:
        """True if there is any limit."""
        limits = [f for f in dataclasses.fields(GateSection) if f.name not in _HOW]
        return any(getattr(self, f.name) not in (None, (), {}) for f in limits)

    @property
    def drop(self) -> Drop | None:
        """`max_drop` as a value."""
        return _parsed("max_drop", self.max_drop)

    @property
    def speed_limit(self) -> SpeedLimit | None:
        """The section, and the two limits that may stand outside it."""
        flat = {k: v for k in ("min_speedup", "max_latency_ms") if (v := getattr(self, k)) is not None}
        if not flat:
            return self.speed
        return replace(self.speed, **flat) if self.speed is not None else SpeedLimit(**flat)

    @property
    def size_limit(self) -> SizeLimit | None:
        """The section, and the limit that may stand outside it."""
        if self.max_size_ratio is None:
            return self.size
        ratio = self.max_size_ratio
        return replace(self.size, max_ratio=ratio) if self.size is not None else SizeLimit(max_ratio=ratio)
