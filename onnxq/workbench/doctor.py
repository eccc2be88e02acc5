"""`onnxq doctor`: what this machine and this installation are, what is slow or inexact here, and why.

Every look is taken for itself: what fails on an odd machine becomes a line of the report, never an error.
"""

from __future__ import annotations

import importlib
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

SCHEMA = "onnxq.doctor/1"
"""Name and version of the JSON form: keys are only added within a version."""

REQUIRED = (
    *("onnxq", "onnx", "onnxruntime", "onnx-graphsurgeon", "numpy", "scipy", "click", "PyYAML", "rich"),
    *("Pillow", "archspec", "platformdirs"),
)
EXTRAS = {"tokenizers": "text", "dask": "dask", "vl-convert-python": "report"}
"""Package -> the extra of onnxq that brings it."""

RUNS = 9
"""Timings of the product of matrices, of which the median counts."""

SIZES = (64, 512, 512)
"""Rows, inner size and columns of that product."""

WORTH = 1.2
"""Speed-up of int8 below which it hardly pays for its conversions."""

Level = Literal["good", "note", "slow", "broken"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing to know: `level` is good, note, slow (speed or accuracy suffer) or broken (something will fail)."""

    level: Level
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What was found.

    Attributes:
        facts: section -> name -> value, all texts.
        findings: sentences, the gravest first.
    """

    facts: dict[str, dict[str, str]]
    findings: tuple[Finding, ...]

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "schema": SCHEMA,
            "facts": self.facts,
            "findings": [{"level": f.level, "sentence": f.sentence} for f in self.findings],
        }


Look = Callable[[dict[str, str]], Iterator[Finding]]


def examine() -> Examination:
    """Look at everything. Never fails."""
    looks: tuple[tuple[str, Look], ...] = (
        ("Versions", _versions),
        ("CPU", _cpu),
        ("ONNX Runtime", _runtime),
        ("Threads and load", _threads),
        ("Integer arithmetic", _arithmetic),
        ("Cache", _cache),
    )
    facts: dict[str, dict[str, str]] = {}
    findings: list[Finding] = []
    for name, look in looks:
        found = facts.setdefault(name, {})
        try:
            findings.extend(look(found))
        except Exception as error:  # an odd machine: say so and go on
            told = " ".join(str(error).split()) or "no message"
            findings.append(
                Finding(level="broken", sentence=f"{name}: could not be looked at ({type(error).__name__}: {told}).")
            )
    grave: list[Level] = ["broken", "slow", "note", "good"]
    return Examination(facts=facts, findings=tuple(sorted(findings, key=lambda f: grave.index(f.level))))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _versions(facts: dict[str, str]) -> Iterator[Finding]:
    facts["Python"] = (
        f"{platform.python_version()} ({platform.python_implementation()}), {sys.executable or 'embedded'}"
    )
    facts["system"] = f"{platform.system()} {platform.release()} {platform.machine()}"
    for package in REQUIRED:
        found = _version(package)
        facts[package] = found or "not installed under this name"
        module = {"onnx-graphsurgeon": "onnx_graphsurgeon", "PyYAML": "yaml", "Pillow": "PIL"}.get(package, package)
        if not found:
            try:
                importlib.import_module(module)
            except ImportError as error:
                yield Finding(level="broken", sentence=f"{package} is missing ({error}): install onnxq again.")
    for package, extra in EXTRAS.items():
        facts[package] = _version(package) or f"not installed; onnxq[{extra}] brings it"


def _cpu(facts: dict[str, str]) -> Iterator[Finding]:
    from onnxq.targets.hardware import detect
    from onnxq.validate.result import environment

    cpu, env = detect(), environment()
    facts["model"] = env.cpu
    facts["microarchitecture"] = f"{cpu.name} ({cpu.family})"
    facts["features that matter"] = ", ".join(env.features) or "none of those that onnxq knows"
    facts["8-bit products"] = cpu.reason
    if cpu.saturates:
        yield Finding(
            level="slow",
            sentence=f"{cpu.reason}: weights take 7 bits here, which costs accuracy, and int8 gains less speed than "
            "on a CPU with VNNI.",
        )
    if cpu.family == "x86_64" and "avx2" not in cpu.features:
        yield Finding(level="slow", sentence="This CPU has no AVX2: integer kernels run in their slowest form.")


def _runtime(facts: dict[str, str]) -> Iterator[Finding]:
    from onnxq.runtime.about import build

    found = build()
    facts["package"] = found.package
    facts["version"] = found.version
    facts["build"] = found.info or "says nothing of itself"
    facts["providers"] = ", ".join(found.providers)
    if "CPUExecutionProvider" not in found.providers:
        yield Finding(
            level="broken", sentence="This ONNX Runtime has no CPU provider: onnxq cannot run models with it."
        )
    if "," in found.package:
        yield Finding(
            level="note",
            sentence=f"Several distributions bring ONNX Runtime ({found.package}) and overwrite each other's files: "
            "keep one of them.",
        )


def _quota() -> float | None:
    """Cores that a container may use, from the control group (version 2, then 1); None: no limit, or not known."""
    two, one = Path("/sys/fs/cgroup/cpu.max"), Path("/sys/fs/cgroup/cpu")
    try:
        if two.is_file():
            most, period = two.read_text(encoding="ascii").split()
        else:
            most = (one / "cpu.cfs_quota_us").read_text(encoding="ascii")
            period = (one / "cpu.cfs_period_us").read_text(encoding="ascii")
        return int(most) / int(period) if most.strip() not in ("max", "-1") else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _threads(facts: dict[str, str]) -> Iterator[Finding]:
    from onnxq.runtime.session import physical_threads

    cores, quota = physical_threads(), _quota()
    facts["cores of this process"] = str(cores)
    facts["limit of the container"] = "none" if quota is None else f"{quota:g} cores"
    if quota is not None and quota < cores:
        yield Finding(
            level="slow",
            sentence=f"The container may use {quota:g} cores, but {cores} threads start by default and wait for each "
            f"other: give --threads {max(1, math.floor(quota))}.",
        )
    if hasattr(os, "getloadavg"):
        load = os.getloadavg()[0]
        facts["load of the last minute"] = f"{load:.2f}"
        if load > 0.7 * cores:
            yield Finding(
                level="note", sentence=f"The machine is busy (load {load:.1f} on {cores} cores): timings will be noisy."
            )
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if governor.is_file():
        facts["frequency governor"] = governor.read_text(encoding="ascii").strip()
        if facts["frequency governor"] == "powersave":
            yield Finding(
                level="note", sentence="The frequency governor is powersave: timings depend on what ran before."
            )


_PRODUCTS = {
    "float": """<ir_version: 10, opset_import: ["": 21]> g (float[M,K] a, float[K,N] b) => (float[M,N] y) {
        y = MatMul(a, b) }""",
    "int8": """<ir_version: 10, opset_import: ["": 21]> g (uint8[M,K] a, int8[K,N] b) => (int32[M,N] y) {
        y = MatMulInteger(a, b) }""",
}


def _arithmetic(facts: dict[str, str]) -> Iterator[Finding]:
    """Does the largest u8 x s8 product come out right, and is the integer product faster?"""
    import numpy as np

    from onnxq.ir.save import to_bytes
    from onnxq.ir.text import parse
    from onnxq.runtime.session import Session

    rows, inner, columns = SIZES
    kinds = {"float": (np.float32, np.float32), "int8": (np.uint8, np.int8)}
    milliseconds: dict[str, float] = {}
    for name, text in _PRODUCTS.items():
        session = Session(to_bytes(parse(text)), threads=1)
        one, two = (
            np.ones(shape, kind) for shape, kind in zip(((rows, inner), (inner, columns)), kinds[name], strict=True)
        )
        times = []
        for _ in range(RUNS):
            start = time.perf_counter()
            session.run({"a": one, "b": two})
            times.append(time.perf_counter() - start)
        milliseconds[name] = statistics.median(times) * 1e3
        if name == "int8":
            got = session.run({"a": np.full_like(one, 255), "b": np.full_like(two, 127)})["y"]
            exact = 255 * 127 * inner
            right = bool((got == exact).all())
            facts["largest u8 x s8 products"] = "exact" if right else f"saturate: {int(got.flat[0])} instead of {exact}"
            if not right:
                yield Finding(
                    level="slow",
                    sentence="Sums of u8 x s8 products saturate in ONNX Runtime here: keep weights to 7 bits "
                    "(--reduce-range, the default on such CPUs).",
                )
    gain = milliseconds["float"] / milliseconds["int8"]
    size = f"{rows} x {inner} by {inner} x {columns}, 1 thread"
    facts["one product of matrices"] = (
        f"float {milliseconds['float']:.3f} ms, int8 {milliseconds['int8']:.3f} ms, {gain:.2f} times as fast ({size})"
    )
    if gain < WORTH:
        yield Finding(
            level="slow",
            sentence=f"An integer product of matrices is only {gain:.2f} times as fast as a float one here ({size}): "
            "quantized models will gain little speed, besides being smaller.",
        )
    else:
        yield Finding(level="good", sentence=f"Integer products are {gain:.1f} times as fast as float ones ({size}).")


def _cache(facts: dict[str, str]) -> Iterator[Finding]:
    from onnxq.stats.cache import FOLDER_VARIABLE, LIMIT, default_folder

    folder = default_folder()
    facts["folder"] = str(folder)
    facts["named by"] = f"${FOLDER_VARIABLE}" if os.environ.get(FOLDER_VARIABLE) else "the system's cache folder"
    files = [p for p in folder.rglob("*") if p.is_file()] if folder.is_dir() else []
    held = sum(p.stat().st_size for p in files)
    facts["holds"] = f"{len(files)} files, {held / 1e6:.1f} MB of at most {LIMIT / 1e6:.0f} MB"
    nearest = next((p for p in (folder, *folder.parents) if p.exists()), folder)
    if not os.access(nearest, os.W_OK):
        yield Finding(
            level="slow",
            sentence=f"The cache folder {folder} cannot be written, so every calibration starts anew: name another "
            f"with {FOLDER_VARIABLE}.",
        )
