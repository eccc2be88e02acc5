"""A real model with an If in each branch of an If: its bodies are calibrated, if it was fetched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxq.data.sample import Sample
from onnxq.ir.load import load
from onnxq.ir.shapes import infer
from onnxq.ir.walk import graphs
from onnxq.runtime.session import Level, Session
from onnxq.stats.collect import collect
from tests.stats.test_collect import Data

MODEL = Path(__file__).resolve().parents[2] / "models" / "silero-vad" / "build" / "onnx" / "silero_vad.onnx"


@pytest.mark.skipif(not MODEL.is_file(), reason="make models fetches it")
def test_tensors_of_the_taken_branch_are_found() -> None:
    specs = Session(MODEL, level=Level.OFF, threads=1).inputs
    rng = np.random.default_rng(0)

    def make(index: int) -> dict[str, np.ndarray]:
        made = {}
        for spec in specs:
            # the sampling rate decides about the branch: 512 samples at 16 kHz
            shape = {"input": (1, 512), "state": (2, 1, 128), "sr": ()}[spec.name]
            values = rng.standard_normal(shape) if spec.name != "sr" else np.array(16_000)
            made[spec.name] = np.asarray(values, dtype=spec.dtype)
        return made

    model = load(MODEL)
    known = infer(model)
    inner = [t.name for path, g in graphs(model.graph) if path for n in g.nodes for t in n.outputs]
    floats = [n for n in inner if (known.get(n) or (None,))[0] == np.float32]
    samples: list[Sample] = list(Data(make, 3))
    found = collect(model, floats, Data(lambda i: dict(samples[i].inputs), 3), ("minmax",), threads=1)
    assert len(found.tensors) > 10
    assert all(t.min <= t.max and t.count for t in found.tensors.values())
    assert found.unreached  # those of 8 kHz
