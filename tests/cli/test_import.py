"""`onnxq run import` on files of PyTorch and TensorFlow, and what the other commands say to them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import onnx
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


@pytest.mark.parametrize("reader", ["inspect", "explain"])
@pytest.mark.parametrize("name", ["pytorch-qat", "pytorch-qat-narrow"])
def test_a_file_that_ort_loads_without_optimizations_only(name: str, reader: str, onnxq: Any) -> None:
    """Scales of shape [1] in front of an Add: what stands in the file is described, and the note is a cure."""
    file = f"{name}.onnx"
    outcome = onnxq(reader, file)
    assert outcome.code == 0, outcome.err
    out = " ".join(outcome.out.split())
    assert ("10 DequantizeLinear, 10 QuantizeLinear" if reader == "inspect" else "Q image ") in out
    assert "makes a model of this file that it does not load (Node (/Add) Op (QLinearAdd)" in out
    command = out.partition("`onnxq ")[2].partition("`")[0]
    assert command == f"run import {file} -o imported.onnx"
    assert onnxq(*command.split()).code == 0
    mended = onnxq(reader, "imported.onnx").out
    assert "does not load" not in mended
    assert ("In integer kernels" if reader == "inspect" else "int8   Add /Add") in mended


def test_what_ort_does_not_load_at_all_stays_an_error(onnxq: Any) -> None:
    onnx.save(
        onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["": 17, "acme": 1]> g (float[2] x) => (float[2] y) { y = acme.Turn(x) }'
        ),
        "m.onnx",
    )
    assert "acme" in onnxq("inspect", "m.onnx").sentence


def test_import_wants_a_quantized_model(onnxq: Any) -> None:
    shutil.copy(COMMITTED.parents[2] / "models" / "fashion-res8" / "model.onnx", "float.onnx")
    sentence = onnxq("run", "import", "float.onnx", "-o", "out.onnx").sentence
    assert sentence.startswith(
        "float.onnx is a float model, and the first pass, canonicalise-qdq, takes a quantized one"
    )
