"""A real model whose network stands twice in the branches of an If, with Ifs in Ifs inside, if it was fetched."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import whole

from onnxq.runtime.session import Level
from onnxq.validate.coverage import coverage

MODEL = Path(__file__).resolve().parents[2] / "models" / "silero-vad" / "build" / "onnx" / "silero_vad.onnx"
SIZES = {16_000: 576, 8_000: 288}
"""Sampling rate, which the If decides by -> elements of a frame."""


def frames(*rates: int) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    return [
        {
            "input": (random.standard_normal((1, SIZES[rate])) * 0.1).astype(np.float32),
            "state": (random.standard_normal((2, 1, 128)) * 0.1).astype(np.float32),
            "sr": np.array(rate),
        }
        for rate in rates
    ]


@pytest.mark.skipif(not MODEL.is_file(), reason="make models fetches it")
def test_the_branches_that_samples_reach_run_in_integer_kernels() -> None:
    model, samples = onnx.load(MODEL), frames(*[16_000, 8_000] * 4)
    both = whole.quantized(model, samples, method="mixed")
    convolutions = {n: d for n, d in both.plan.decisions.items() if d.op == "Conv"}
    assert len(convolutions) == 12 and all(d.integer for d in convolutions.values())
    assert len({v.path for v in both.plan.values}) >= 2
    file = whole.file(both)
    exact, literal = whole.run(model, samples), whole.run(file, samples)
    assert whole.sqnr(exact, literal, "output") > 15
    for level in (Level.BASIC, Level.EXTENDED, Level.ALL):
        for output in ("output", "stateN"):
            assert whole.sqnr(literal, whole.run(file, samples, level), output) > 60
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        path.write_bytes(file)
        found = coverage(path, sample=samples[0])
    assert {o.name for o in found.ops if o.integer and o.op == "Conv"} == convolutions.keys()
    assert not found.unmapped and found.mac_share > 0.5

    one = whole.quantized(model, frames(16_000, 16_000), method="mixed")
    decided = [d for d in one.plan.decisions.values() if d.op == "Conv"]
    assert sum(d.integer for d in decided) == 6
    assert all("no sample reached" in d.reason for d in decided if not d.integer)
    assert any("never reached by a sample" in note for note in one.notes)
