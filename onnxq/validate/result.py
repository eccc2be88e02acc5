"""Everything a command found out, as one frozen value. Reports print it and compute nothing."""

from __future__ import annotations

import contextlib
import functools
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
        speedup: float latency / its latency; None: not measured.
        seconds: for one run; None: not measured.
        drop: of the metric, positive is worse; None: there is no metric.
        sqnr_db: of its outputs, dB; None: not measured.
    """

    label: str
    chosen: bool = False
    speedup: float | None = None
    seconds: float | None = None
    drop: float | None = None
    sqnr_db: float | None = None


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
