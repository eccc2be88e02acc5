"""`onnxq run import` on files of PyTorch and TensorFlow, and what the other commands say to them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

COMMITTED = Path(__file__).parents[1] / "passes" / "thirdparty"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all of them, which is the current one."""
    monkeypatch.chdir(tmp_path)
    for path in COMMITTED.glob("*.onnx"):
        shutil.copy(path, path.name)
    return tmp_path


@pytest.mark.parametrize("name", ["pytorch-qat", "pytorch-qat-narrow", "pytorch-pt2e", "tensorflow-qat"])
def test_quantize_names_the_command_that_works(name: str, onnxq: Any) -> None:
    file = f"{name}.onnx"
    sentence = onnxq("quantize", file, "--calib", "nowhere").sentence
    assert sentence == (
        f"{file} is quantized already (it has DequantizeLinear, QuantizeLinear): give the float model, look at this "
        f"one with onnxq inspect, or let passes work on it with onnxq run import {file} -o out.onnx"
    )
    command = sentence.partition("with onnxq run ")[2].split()
    outcome = onnxq("run", *command, "--verify-each")
    assert outcome.code == 0, outcome.err
    for reader in ("inspect", "explain"):
        outcome = onnxq(reader, "out.onnx")
        assert outcome.code == 0, outcome.err
        assert "QuantizeLinear" in outcome.out or "uint8, scale" in outcome.out


def test_import_wants_a_quantized_model(onnxq: Any) -> None:
    shutil.copy(COMMITTED.parents[2] / "models" / "fashion-res8" / "model.onnx", "float.onnx")
    sentence = onnxq("run", "import", "float.onnx", "-o", "out.onnx").sentence
    assert sentence.startswith(
        "float.onnx is a float model, and the first pass, canonicalise-qdq, takes a quantized one"
    )
