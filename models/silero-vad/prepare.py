"""Make ``build/samples/<model>-{calib,eval}.npz``: every frame of the recordings with the state the fp32 model saw.

The float model runs over each recording once and its own states are stored, so that a sample stands alone: what a
quantized model answers for one frame does not depend on what it answered for the frame before. Nothing is random.
"""

from __future__ import annotations

import io
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from scipy.signal import resample_poly

BUILD = Path(__file__).resolve().parent / "build"
CALIBRATION = {
    "sense_and_sensibility_01_austen_64kb-0870.wav",
    "003.wav",
    "input_2_16k.wav",
    "something.raw",
    "test-audio.raw",
}
TWO_RATES = {"silero_vad", "silero_vad_op18_ifless"}
BLOCK = 16  # frames that one sample of the sequence model has

Audio = NDArray[np.float32]
Arrays = dict[str, NDArray[np.float32] | NDArray[np.int64]]
Labelled = tuple[Arrays, NDArray[np.bool_]]


def read(path: Path) -> Audio:
    """Mono 16-bit PCM, with a WAV header or raw, as float32 in -1 to 1."""
    data = path.read_bytes()
    if path.suffix == ".wav":
        with wave.open(io.BytesIO(data)) as stream:
            assert (stream.getnchannels(), stream.getsampwidth()) == (1, 2), f"{path.name} is not mono 16-bit"
            data = stream.readframes(stream.getnframes())
    return np.frombuffer(data[: len(data) // 2 * 2], dtype="<i2").astype(np.float32) / np.float32(32768)


def recordings(*, calibration: bool, two_rates: bool) -> Iterator[tuple[int, Audio]]:
    """(sampling rate, audio) of one half of the split."""
    for path in sorted((BUILD / "audio").glob("*/*")):
        if (path.name in CALIBRATION) != calibration:
            continue
        audio = read(path)
        if path.parent.name == "vad8k":
            if two_rates:
                yield 8000, audio
            continue
        yield 16000, audio
        if two_rates:
            yield 8000, resample_poly(audio, 1, 2).astype(np.float32)


def frames(audio: Audio, rate: int) -> Audio:
    """[frames, context + samples]: 32 ms each, preceded by the last eighth of the frame before (zeros at first)."""
    size = rate * 32 // 1000
    whole = audio[: len(audio) // size * size].reshape(-1, size)
    context = np.zeros((len(whole), size // 8), dtype=np.float32)
    context[1:] = whole[:-1, -size // 8 :]
    return np.concatenate([context, whole], axis=1)


def stream(
    session: onnxruntime.InferenceSession, rate: int, audio: Audio
) -> Iterator[tuple[Arrays, NDArray[np.bool_]]]:
    """One sample a frame: the inputs, the float model's decision. The state starts at zero."""
    state = np.zeros((2, 1, 128), dtype=np.float32)
    wanted = {value.name for value in session.get_inputs()}
    for frame in frames(audio, rate):
        inputs: Arrays = {"input": frame[None], "state": state}
        if "sr" in wanted:
            inputs["sr"] = np.array(rate, dtype=np.int64)
        probability, state = session.run(None, inputs)
        yield inputs, np.ravel(probability) > 0.5


def blocks(session: onnxruntime.InferenceSession, audio: Audio) -> Iterator[Labelled]:
    """One sample a block of 16 frames (the rest at the end is dropped): the inputs, the float model's 16 decisions."""
    hidden = cell = np.zeros((1, 1, 128), dtype=np.float32)
    all_frames = frames(audio, 16000)
    for start in range(0, len(all_frames) - BLOCK + 1, BLOCK):
        inputs: Arrays = {"input": all_frames[start : start + BLOCK], "h": hidden, "c": cell}
        probabilities, hidden, cell = session.run(None, inputs)
        yield inputs, np.ravel(probabilities) > 0.5


def make(model: Path, target: Path, *, calibration: bool) -> None:
    """Store all samples as arrays ``<number>/<input>`` and ``<number>/label``."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # the ifless file has unused initializers, which ORT reports
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    arrays: dict[str, NDArray[np.generic]] = {}
    number = 0
    for rate, audio in recordings(calibration=calibration, two_rates=model.stem in TWO_RATES):
        run = blocks(session, audio) if model.stem.endswith("sequence") else stream(session, rate, audio)
        for inputs, decision in run:
            arrays |= {f"{number:04d}/{name}": value for name, value in inputs.items()}
            arrays[f"{number:04d}/label"] = decision.astype(np.int64)
            number += 1
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name("part.npz")
    np.savez(partial, allow_pickle=False, **arrays)
    partial.replace(target)


def main() -> None:
    """Make what ``build/`` lacks."""
    for model in sorted((BUILD / "onnx").glob("*.onnx")):
        for role in ("calib", "eval"):
            target = BUILD / "samples" / f"{model.stem}-{role}.npz"
            if not target.exists():
                make(model, target, calibration=role == "calib")


if __name__ == "__main__":
    main()
