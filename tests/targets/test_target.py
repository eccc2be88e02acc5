"""Targets are data: what the files say, and what the CPU decides."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxq import registry
from onnxq.errors import ConfigError, UnknownNameError
from onnxq.targets.hardware import Cpu, detect
from onnxq.targets.target import load_target

OLD = Cpu(name="haswell", family="x86_64", features=frozenset({"avx2"}))
NEW = Cpu(name="icelake", family="x86_64", features=frozenset({"avx2", "avx512_vnni"}))
ARM = Cpu(name="neoverse_n1", family="aarch64", features=frozenset({"asimd", "asimddp"}))
PLAIN_ARM = Cpu(name="cortex_a53", family="aarch64", features=frozenset({"asimd"}))


@pytest.mark.parametrize(("cpu", "saturates"), [(OLD, True), (NEW, False), (ARM, False), (PLAIN_ARM, False)])
def test_the_cpu_decides_whether_weights_lose_a_bit(cpu: Cpu, saturates: bool) -> None:
    """onnxruntime: u8 x s8 saturates without VNNI, and a check on the developer's machine never sees it."""
    target = load_target("cpu", cpu=cpu)
    assert cpu.saturates == target.reduce_range == target.weight.reduce_range == saturates
    assert ("saturate" in target.note) == saturates
    assert cpu.name in cpu.reason


def test_the_user_decides_against_the_cpu() -> None:
    assert load_target("cpu", cpu=OLD, reduce_range=False).weight.reduce_range is False
    forced = load_target("cpu", cpu=NEW, reduce_range=True)
    assert forced.weight.reduce_range and forced.note == "weights use 7 bits, as asked"


def test_tensorrt_never_reduces() -> None:
    assert load_target("tensorrt", cpu=OLD).reduce_range is False


def test_this_machine_has_a_name_and_features() -> None:
    assert detect().name and detect().family and detect().features


def test_unknown_targets_propose_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match='there is no target "tensort": did you mean "tensorrt"'):
        load_target("tensort")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "name: x\nopsett: 21\nactivation: {}\nweight: {}\nkernels: {}\n",
            'unknown key "opsett": did you mean "opset"',
        ),
        (
            "name: x\nactivation: {type: uint8, symmetric: false}\nweight: {type: int8, symmetric: true}\n"
            "kernels:\n  Conv: {kind: weighted, outputs: required}\n",
            'kernel Conv: unknown key "outputs": did you mean "output"',
        ),
        ("name: x\nactivation: {type: uint8}\nweight: {}\nkernels: {}\n", "the target mine does not follow the schema"),
    ],
)
def test_faults_of_a_target_file_are_named(
    text: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "target.yaml"
    path.write_text(text)
    monkeypatch.setattr(registry, "resource", lambda _group, _name: path)
    with pytest.raises(ConfigError, match=says):
        load_target("mine")
