"""A float model that denormal numbers slow down is told of. How slow it is depends on the processor: here, that is said
and not measured.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from onnxq.errors import ModelError
from onnxq.validate.denormals import SUSPECT, denormals, seconds
from onnxq.validate.latency import Latency

INPUTS = {"x": np.full((1, 2), 1e-30, np.float32), "y/0": np.full((1, 2), 1e-10, np.float32)}


@pytest.fixture
def model(build: Callable[..., bytes], saved: Callable[[bytes], Path]) -> Path:
    return saved(build('g (float[1,2] x, float[1,2] "y/0") => (float[1,2] z) { z = Mul(x, "y/0") }'))


def took(reference_ms: float, speedup: float) -> Latency:
    return Latency(
        threads=1, pairs=9, inner=1, reference_ms=reference_ms, candidate_ms=reference_ms / speedup, speedup=speedup,
        speedup_low=speedup, speedup_high=speedup, noisy=False, seconds=0.1,
    )  # fmt: skip


def test_what_a_model_loses_to_denormals_is_said(model: Path) -> None:
    (said,) = denormals(model, [took(1e6, SUSPECT - 0.1), took(2e6, SUSPECT)], INPUTS)
    assert "hold denormal numbers" in said
    assert " ms instead of 2000000.0 ms; the new model is 0.00 times as fast as that." in said


def test_a_model_that_is_as_fast_without_them_has_none(model: Path) -> None:
    assert denormals(model, [took(1e-7, SUSPECT)], INPUTS) == ()


def test_what_is_not_suspect_is_not_tried(tmp_path: Path) -> None:
    assert denormals(tmp_path / "none.onnx", [took(1e6, SUSPECT - 0.1)], INPUTS) == ()
    assert denormals(tmp_path / "none.onnx", [], INPUTS) == ()


def test_a_process_that_fails_is_no_fault_of_the_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx cannot be timed in another process"):
        seconds(tmp_path / "none.onnx", INPUTS, threads=1, zero=True)
    assert denormals(tmp_path / "none.onnx", [took(1e6, SUSPECT)], INPUTS) == ()


@pytest.mark.parametrize("zero", [False, True])
def test_seconds_of_a_run(model: Path, zero: bool) -> None:
    assert 0 < seconds(model, INPUTS, threads=1, zero=zero) < 60
