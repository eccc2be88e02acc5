"""Everything a command found out, as one frozen value. Reports print it and compute nothing."""

from __future__ import annotations

import contextlib
import functools
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from onnxq.ir.load import external_files
from onnxq.runtime.session import physical_threads
from onnxq.targets.hardware import detect
from onnxq.validate.accuracy import Accuracy
from onnxq.validate.coverage import Coverage
from onnxq.validate.gate import GateVerdict, Sizes
from onnxq.validate.latency import Latency
from onnxq.validate.layers import Layers
from onnxq.validate.provenance import Provenance
from onnxq.validate.repaired import Repair
from onnxq.validate.summary import ModelSummary

SCHEMA = "onnxq.result/1"
"""Name and version of the JSON form: keys are only added within a version."""

_PACKAGES = ("onnxq", "onnx", "onnxruntime", "onnx-graphsurgeon", "numpy")
_FEATURES = (
    *("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx_vnni_int8", "amx_int8"),
    *("asimd", "asimddp", "i8mm", "sve"),
)


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What the figures were measured with.

    Attributes:
        cpu: as the system names it, else as archspec does.
        features: vector and integer extensions that matter here.
        cores: that this process may use.
        platform: operating system and architecture.
        python: version.
        packages: name -> version.
    """

    cpu: str
    features: tuple[str, ...]
    cores: int
    platform: str
    python: str
    packages: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class ParetoPoint:
    """One of several models that were made of one float model: how fast, and how exact.

    Attributes:
        label: what tells it from the others.
        chosen: this is the candidate of the result.
        speedup: float latency / its latency; None: not known.
        seconds: for one run; None: not known.
        drop: of the metric, positive is worse; None: it was not judged, or not so.
        sqnr_db: of its outputs, dB; None: it was not judged, or not so.
        timed: a clock told its time; False: the costs predict it, as far off as they were at the fastest form.
        predicted_sqnr_db: by the sum of its units' noise, dB; None: the noise was not measured.
    """

    label: str
    chosen: bool = False
    speedup: float | None = None
    seconds: float | None = None
    drop: float | None = None
    sqnr_db: float | None = None
    timed: bool = True
    predicted_sqnr_db: float | None = None


@dataclass(frozen=True, kw_only=True)
class Placed:
    """What was decided about one unit of operators, by what it costs in each form.

    Attributes:
        unit: its operators, as the user knows them.
        form: that was chosen.
        float_ms, int8_ms: cost in each form, milliseconds per run; None: not measured.
        saving_ms: that the choice saves over the other form, conversions included.
        why: one sentence.
    """

    unit: str
    form: str
    float_ms: float | None = None
    int8_ms: float | None = None
    saving_ms: float | None = None
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Lost:
    """Milliseconds of one run that one node or one conversion takes beyond the kernel limit.

    Attributes:
        cause: which `Cause` it is part of.
        name: of the node, or of the tensor that is converted.
        op: operator type.
        ms: milliseconds of one run.
        why: it is so, one sentence; empty where the cause says it all.
    """

    cause: str
    name: str
    op: str
    ms: float
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Cause:
    """All that is lost for one cause.

    Attributes:
        name: in words.
        ms: milliseconds of one run; what the profile does not explain may be negative.
        parts: how many nodes or conversions.
        largest: names of the largest of them.
    """

    name: str
    ms: float
    parts: int = 0
    largest: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Account:
    """Where the time of the placed model goes, with one number of threads; milliseconds of one run.

    Attributes:
        form: which of the forms that were tried.
        threads: number of them.
        timed: `measured_ms` comes from a clock; False: from a file of costs.
        limit_ms: the kernel limit: every heavy operator in the faster of its kernels, all else free.
        measured_ms: of the model as it is.
        predicted_ms: by the costs, before it ran; None: nothing was predicted.
        profiled_ms: sum over its kernels, as profiled.
        causes: what is lost, the largest first, and last what the profile does not explain: with the limit they add
            up to what was measured.
        lost: the same, node by node and conversion by conversion, the largest first.
    """

    form: str
    threads: int
    timed: bool
    limit_ms: float
    measured_ms: float
    predicted_ms: float | None
    profiled_ms: float
    causes: tuple[Cause, ...]
    lost: tuple[Lost, ...]

    @property
    def nearness(self) -> float:
        """Limit over measured: 1 is as fast as the kernels allow."""
        return self.limit_ms / self.measured_ms if self.measured_ms else math.nan

    @property
    def deviation(self) -> float:
        """Predicted over measured, less 1; where nothing was predicted, the profile stands in."""
        told = self.profiled_ms if self.predicted_ms is None else self.predicted_ms
        return told / self.measured_ms - 1 if self.measured_ms else math.nan


@dataclass(frozen=True, kw_only=True)
class Result:
    """One run of `quantize`, `validate`, `inspect` or `gate`; what a command does not do is None or empty.

    Attributes:
        command: which.
        reference: the float model.
        candidate: the quantized model (of `quantize`: the file written).
        target, method, calibration: names, and a phrase about the samples.
        sizes, accuracy, latency, coverage, verdict: what was measured; one Latency per number of threads.
        model: of `inspect`.
        layers: float against quantized, tensor by tensor, where a report is to show it.
        pareto: models that were tried, where several were.
        placement: what was decided unit by unit, where costs decided.
        account: where the time goes then, one per number of threads.
        repairs: what was tried to win accuracy back, and what it bought.
        notes: sentences for the user.
        passes: name, rewrites, and refusals counted by reason, in the order they ran.
        seconds: stage -> seconds, in the order they ran.
        run: what the figures were made of: files by hash, the pipeline, seeds, the command line.
    """

    command: str
    reference: Path | None = None
    candidate: Path | None = None
    target: str | None = None
    method: str | None = None
    calibration: str | None = None
    sizes: Sizes | None = None
    accuracy: Accuracy | None = None
    latency: tuple[Latency, ...] = ()
    coverage: Coverage | None = None
    verdict: GateVerdict | None = None
    model: ModelSummary | None = None
    layers: Layers | None = None
    pareto: tuple[ParetoPoint, ...] = ()
    placement: tuple[Placed, ...] = ()
    account: tuple[Account, ...] = ()
    repairs: tuple[Repair, ...] = ()
    notes: tuple[str, ...] = ()
    passes: tuple[tuple[str, int, Mapping[str, int]], ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    environment: Environment | None = None
    run: Provenance | None = None


def file_bytes(path: Path) -> int:
    """Size of a model on disk, its external data included.

    Raises:
        ModelError: it is no model.
    """
    return sum(p.stat().st_size for p in {path, *external_files(path)} if p.exists())


@functools.cache
def environment() -> Environment:
    """This process and machine."""
    cpu = detect()
    return Environment(
        cpu=_model_name() or cpu.name,
        features=tuple(f for f in _FEATURES if f in cpu.features),
        cores=physical_threads(),
        platform=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        packages={p: _version(p) for p in _PACKAGES},
    )


def _model_name() -> str:
    """What Linux calls the CPU."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
