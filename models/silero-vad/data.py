"""Samples of the six Silero VAD models, as prepare.py stored them: one frame (or block of frames) with its state each.

``calib_<model>`` yields the inputs, ``eval_<model>`` pairs of inputs and what people heard, int64 [frames]: 1 speech,
0 none.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FRAMES = Path(__file__).resolve().parent / "build" / "frames"

Sample = dict[str, NDArray[np.generic]]
Labelled = tuple[Sample, NDArray[np.int64]]


def _read(stem: str) -> Iterator[Sample]:
    with np.load(FRAMES / f"{stem}.npz") as arrays:
        for number, keys in groupby(arrays.files, key=lambda key: key.partition("/")[0]):
            yield {key.removeprefix(f"{number}/"): arrays[key] for key in keys}


def _labelled(stem: str) -> Iterator[Labelled]:
    for sample in _read(stem):
        label = sample.pop("label")
        yield sample, label.astype(np.int64)


def calib_vad() -> Iterator[Sample]:
    """Inputs of silero_vad.onnx."""
    return _read("silero_vad-calib")


def eval_vad() -> Iterator[Labelled]:
    """Inputs and labels of silero_vad.onnx."""
    return _labelled("silero_vad-eval")


def calib_vad_16k_op15() -> Iterator[Sample]:
    """Inputs of silero_vad_16k_op15.onnx."""
    return _read("silero_vad_16k_op15-calib")


def eval_vad_16k_op15() -> Iterator[Labelled]:
    """Inputs and labels of silero_vad_16k_op15.onnx."""
    return _labelled("silero_vad_16k_op15-eval")


def calib_vad_16k_sequence() -> Iterator[Sample]:
    """Inputs of silero_vad_16k_sequence.onnx."""
    return _read("silero_vad_16k_sequence-calib")


def eval_vad_16k_sequence() -> Iterator[Labelled]:
    """Inputs and labels of silero_vad_16k_sequence.onnx."""
    return _labelled("silero_vad_16k_sequence-eval")


def calib_vad_half() -> Iterator[Sample]:
    """Inputs of silero_vad_half.onnx."""
    return _read("silero_vad_half-calib")


def eval_vad_half() -> Iterator[Labelled]:
    """Inputs and labels of silero_vad_half.onnx."""
    return _labelled("silero_vad_half-eval")


def calib_vad_op18_ifless() -> Iterator[Sample]:
    """Inputs of silero_vad_op18_ifless.onnx."""
    return _read("silero_vad_op18_ifless-calib")


def eval_vad_op18_ifless() -> Iterator[Labelled]:
    """Inputs and labels of silero_vad_op18_ifless.onnx."""
    return _labelled("silero_vad_op18_ifless-eval")


def calib_vad_openvino_16k() -> Iterator[Sample]:
    """Inputs of silero_vad_openvino_16k.onnx."""
    return _read("silero_vad_openvino_16k-calib")


def eval_vad_openvino_16k() -> Iterator[Labelled]:
    """Inputs and labels of silero_vad_openvino_16k.onnx."""
    return _labelled("silero_vad_openvino_16k-eval")
