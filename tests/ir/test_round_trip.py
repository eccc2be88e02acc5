"""Load and save change nothing that ONNX Runtime computes, on every model that lies in models/."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxq.ir.load import load
from onnxq.ir.opset import made_up_sample
from onnxq.ir.save import save, to_bytes
from onnxq.runtime.session import Level, Session

MODELS = sorted(Path(__file__).parents[2].glob("models/fashion-*/*.onnx"))


def test_there_are_models():
    assert MODELS


@pytest.mark.parametrize("path", MODELS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_bit_for_bit(path, tmp_path):
    model = load(path)
    save(model, tmp_path / "out.onnx")
    before = Session(path, level=Level.OFF, threads=1)
    after = Session(tmp_path / "out.onnx", level=Level.OFF, threads=1)
    assert before.inputs == after.inputs
    assert before.output_specs == after.output_specs
    x = made_up_sample(model)
    expected = before.run(x)
    for name, got in after.run(x).items():
        np.testing.assert_array_equal(got, expected[name])
    assert to_bytes(load(tmp_path / "out.onnx")) == to_bytes(model)
