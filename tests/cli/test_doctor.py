"""`onnxq doctor`: what it says here, and that no odd machine makes it fail."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from onnxq.runtime import session
from onnxq.targets import hardware
from onnxq.targets.hardware import Cpu
from onnxq.workbench import doctor

SECTIONS = ["Versions", "CPU", "ONNX Runtime", "Threads and load", "Integer arithmetic", "Cache"]


def findings(level: str) -> list[str]:
    return [f.sentence for f in doctor.examine().findings if f.level == level]


def test_it_says_what_is_here(onnxq: Any, own_cache: Path) -> None:
    done = onnxq("doctor", "--json")
    found = json.loads(done.out)
    assert done.code == 0 and found["schema"] == doctor.SCHEMA == "onnxq.doctor/1"
    assert list(found["facts"]) == SECTIONS
    assert found["facts"]["ONNX Runtime"]["version"] == onnxruntime.__version__
    assert found["facts"]["ONNX Runtime"]["package"].startswith("onnxruntime")
    assert "CPUExecutionProvider" in found["facts"]["ONNX Runtime"]["providers"]
    assert found["facts"]["Cache"]["folder"] == str(own_cache)
    assert found["facts"]["Threads and load"]["cores of this process"] == str(session.physical_threads())
    assert "ms, int8" in found["facts"]["Integer arithmetic"]["one product of matrices"]
    assert not [f for f in found["findings"] if f["level"] == "broken"]
    assert {tuple(f) for f in found["findings"]} <= {("level", "sentence")}


def test_it_prints_tables(onnxq: Any) -> None:
    lines = onnxq("doctor").out.splitlines()
    assert [line for line in lines if line in (*SECTIONS, "What to know")] == [*SECTIONS, "What to know"]


def test_the_arithmetic_is_that_of_the_cpu() -> None:
    facts = doctor.examine().facts["Integer arithmetic"]
    assert (facts["largest u8 x s8 products"] == "exact") == (not hardware.detect().saturates)


def test_a_cpu_without_vnni_is_slow_and_loses_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Cpu(name="haswell", family="x86_64", features=frozenset({"avx2"}))
    monkeypatch.setattr(hardware, "detect", lambda: old)
    (sentence,) = [s for s in findings("slow") if "7 bits" in s]
    assert sentence.startswith("haswell has neither AVX512-VNNI nor AVX-VNNI")
    assert not [s for s in findings("slow") if "AVX2" in s]
    monkeypatch.setattr(hardware, "detect", lambda: Cpu(name="core2", family="x86_64", features=frozenset()))
    assert [s for s in findings("slow") if "has no AVX2" in s]
    arm = Cpu(name="neoverse_n1", family="aarch64", features=frozenset({"asimddp"}))
    monkeypatch.setattr(hardware, "detect", lambda: arm)
    assert not [s for s in findings("slow") if "bits" in s or "AVX2" in s]


def test_products_that_saturate_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    real = session.Session.run

    def saturating(self: Any, inputs: Any, outputs: Any = None) -> Any:
        return {name: value.clip(max=32767) for name, value in real(self, inputs, outputs).items()}

    monkeypatch.setattr(session.Session, "run", saturating)
    exact = 255 * 127 * doctor.SIZES[1]
    facts = doctor.examine().facts["Integer arithmetic"]
    assert facts["largest u8 x s8 products"] == f"saturate: 32767 instead of {exact}"
    assert [s for s in findings("slow") if "saturate in ONNX Runtime here" in s]


def test_slow_integer_products_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(10**6))
    monkeypatch.setattr(doctor.time, "perf_counter", lambda: next(ticks) / 1000)
    assert [s for s in findings("slow") if "is only 1.00 times as fast" in s]
    assert findings("good") == []


@pytest.mark.parametrize(
    ("files", "limit", "advice"),
    [
        ({"cpu.max": "150000 100000"}, "1.5 cores", "--threads 1"),
        ({"cpu.max": "max 100000"}, "none", ""),
        ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, "0.5 cores", "--threads 1"),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "none", ""),
        ({"cpu.max": "garbage"}, "none", ""),
        ({}, "none", ""),
    ],
)
def test_limits_of_containers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], limit: str, advice: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    def moved(path: str) -> Path:
        return Path(path.replace("/sys/fs/cgroup", str(tmp_path)))

    monkeypatch.setattr(doctor, "Path", moved)
    monkeypatch.setattr(session, "physical_threads", lambda: 4)
    facts: dict[str, str] = {}
    said = [f.sentence for f in doctor._threads(facts) if "container" in f.sentence]
    assert facts["limit of the container"] == limit
    assert bool(said) == bool(advice) and all(advice in s for s in said)


def test_a_busy_machine_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "getloadavg", lambda: (64.0, 0.0, 0.0))
    assert [s for s in findings("note") if s.startswith("The machine is busy (load 64.0")]
    monkeypatch.setattr(doctor.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    assert not [s for s in findings("note") if "busy" in s]


def test_odd_machines_never_make_it_fail(onnxq: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Any:
        raise RuntimeError("no such\nthing")

    monkeypatch.setattr(hardware, "detect", broken)
    monkeypatch.setattr(doctor.os, "getloadavg", broken)
    monkeypatch.setattr(doctor.os, "access", broken)
    monkeypatch.setitem(sys.modules, "onnxq.runtime.about", None)
    monkeypatch.setitem(sys.modules, "onnxq.runtime.session", None)
    done = onnxq("doctor")
    assert done.code == 0 and done.err == ""
    for name in SECTIONS[1:]:
        assert f"{name}: could not be looked at (" in done.out
    assert "(RuntimeError: no such thing)" in done.out


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "REQUIRED", ("onnxq", "no-such-package-xyz"))
    monkeypatch.setattr(doctor, "EXTRAS", {"no-such-extra-xyz": "report"})
    found = doctor.examine()
    assert found.facts["Versions"]["no-such-extra-xyz"] == "not installed; onnxq[report] brings it"
    assert found.findings[0].level == "broken"
    assert found.findings[0].sentence.startswith("no-such-package-xyz is missing (")


def test_two_builds_of_onnx_runtime_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    build = SimpleNamespace(package="onnxruntime, onnxruntime-gpu", version="1", info="", providers=("Other",))
    monkeypatch.setattr("onnxq.runtime.about.build", lambda: build)
    assert [s for s in findings("note") if "onnxruntime, onnxruntime-gpu" in s]
    assert [s for s in findings("broken") if "no CPU provider" in s]


def test_a_cache_that_cannot_be_written_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    assert [s for s in findings("slow") if "ONNXQ_CACHE_DIR" in s]
