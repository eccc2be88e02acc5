"""Samples of the six Silero VAD models, as prepare.py stored them: one frame (or block of frames) with its state each.

``calib_<model>`` yields the inputs, ``eval_<model>`` pairs of inputs and the fp32 model's decisions, int64 [frames].
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SAMPLES = Path(__file__).resolve().parent / "build" / "samples"

Sample = dict[str, NDArray[np.generic]]
Labelled = tuple[Sample, NDArray[np.int64]]


def _read(stem: str) -> Iterator[Labelled]:
    with np.load(SAMPLES / f"{stem}.npz") as arrays:
        sample: Sample = {}
        for key in arrays.files:  # a sample's inputs come first, its label last
            name = key.partition("/")[2]
            if name == "label":
                yield sample, arrays[key]
                sample = {}
            else:
                sample[name] = arrays[key]


def _inputs(stem: str) -> Iterator[Sample]:
    return (sample for sample, _ in _read(stem))


def calib_vad() -> Iterator[Sample]:
    """Inputs of silero_vad.onnx."""
    return _inputs("silero_vad-calib")


def eval_vad() -> Iterator[Labelled]:
    """Inputs and decisions of silero_vad.onnx."""
    return _read("silero_vad-eval")


def calib_vad_16k_op15() -> Iterator[Sample]:
    """Inputs of silero_vad_16k_op15.onnx."""
    return _inputs("silero_vad_16k_op15-calib")


def eval_vad_16k_op15() -> Iterator[Labelled]:
    """Inputs and decisions of silero_vad_16k_op15.onnx."""
    return _read("silero_vad_16k_op15-eval")


def calib_vad_16k_sequence() -> Iterator[Sample]:
    """Inputs of silero_vad_16k_sequence.onnx."""
    return _inputs("silero_vad_16k_sequence-calib")


def eval_vad_16k_sequence() -> Iterator[Labelled]:
    """Inputs and decisions of silero_vad_16k_sequence.onnx."""
    return _read("silero_vad_16k_sequence-eval")


def calib_vad_half() -> Iterator[Sample]:
    """Inputs of silero_vad_half.onnx."""
    return _inputs("silero_vad_half-calib")


def eval_vad_half() -> Iterator[Labelled]:
    """Inputs and decisions of silero_vad_half.onnx."""
    return _read("silero_vad_half-eval")


def calib_vad_op18_ifless() -> Iterator[Sample]:
    """Inputs of silero_vad_op18_ifless.onnx."""
    return _inputs("silero_vad_op18_ifless-calib")


def eval_vad_op18_ifless() -> Iterator[Labelled]:
    """Inputs and decisions of silero_vad_op18_ifless.onnx."""
    return _read("silero_vad_op18_ifless-eval")


def calib_vad_openvino_16k() -> Iterator[Sample]:
    """Inputs of silero_vad_openvino_16k.onnx."""
    return _inputs("silero_vad_openvino_16k-calib")


def eval_vad_openvino_16k() -> Iterator[Labelled]:
    """Inputs and decisions of silero_vad_openvino_16k.onnx."""
    return _read("silero_vad_openvino_16k-eval")
