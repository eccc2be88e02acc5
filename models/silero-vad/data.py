"""Samples of the six Silero VAD models, as prepare.py stored them: one frame (or block of frames) with its state each.

``calib_<model>`` yields the inputs, ``eval_<model>`` pairs of inputs and what people heard, int64 [frames]: 1 speech,
0 none.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FRAMES = Path(__file__).resolve().parent / "build" / "frames"

Sample = dict[str, NDArray[np.generic]]
Labelled = tuple[Sample, NDArray[np.int64]]


class _Frames:
    """Frames by number, so that a few of them are spread over all recordings; read when asked for."""

    def __init__(self, stem: str) -> None:
        self._arrays = np.load(FRAMES / f"{stem}.npz")
        self._names = sorted({key.partition("/")[2] for key in self._arrays.files})

    def __len__(self) -> int:
        return len(self._arrays.files) // len(self._names)

    def __getitem__(self, number: int) -> Sample:
        if number >= len(self):
            raise IndexError(number)
        return {name: self._arrays[f"{number:04d}/{name}"] for name in self._names}


class _Labelled:
    """The same with labels."""

    def __init__(self, stem: str) -> None:
        self._frames = _Frames(stem)

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, number: int) -> Labelled:
        sample = self._frames[number]
        return sample, sample.pop("label").astype(np.int64)


def calib_vad() -> _Frames:
    """Inputs of silero_vad.onnx."""
    return _Frames("silero_vad-calib")


def eval_vad() -> _Labelled:
    """Inputs and labels of silero_vad.onnx."""
    return _Labelled("silero_vad-eval")


def calib_vad_16k_op15() -> _Frames:
    """Inputs of silero_vad_16k_op15.onnx."""
    return _Frames("silero_vad_16k_op15-calib")


def eval_vad_16k_op15() -> _Labelled:
    """Inputs and labels of silero_vad_16k_op15.onnx."""
    return _Labelled("silero_vad_16k_op15-eval")


def calib_vad_16k_sequence() -> _Frames:
    """Inputs of silero_vad_16k_sequence.onnx."""
    return _Frames("silero_vad_16k_sequence-calib")


def eval_vad_16k_sequence() -> _Labelled:
    """Inputs and labels of silero_vad_16k_sequence.onnx."""
    return _Labelled("silero_vad_16k_sequence-eval")


def calib_vad_half() -> _Frames:
    """Inputs of silero_vad_half.onnx."""
    return _Frames("silero_vad_half-calib")


def eval_vad_half() -> _Labelled:
    """Inputs and labels of silero_vad_half.onnx."""
    return _Labelled("silero_vad_half-eval")


def calib_vad_op18_ifless() -> _Frames:
    """Inputs of silero_vad_op18_ifless.onnx."""
    return _Frames("silero_vad_op18_ifless-calib")


def eval_vad_op18_ifless() -> _Labelled:
    """Inputs and labels of silero_vad_op18_ifless.onnx."""
    return _Labelled("silero_vad_op18_ifless-eval")


def calib_vad_openvino_16k() -> _Frames:
    """Inputs of silero_vad_openvino_16k.onnx."""
    return _Frames("silero_vad_openvino_16k-calib")


def eval_vad_openvino_16k() -> _Labelled:
    """Inputs and labels of silero_vad_openvino_16k.onnx."""
    return _Labelled("silero_vad_openvino_16k-eval")
