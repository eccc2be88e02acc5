"""Make ``build/frames/<model>-{calib,eval}.npz``: frames of recordings with the state the fp32 model saw, and labels.

The float model runs over each recording once and its own states are stored, so that a sample stands alone: what a
quantized model answers for one frame does not depend on what it answered for the frame before. Nothing is random.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from scipy.io import wavfile
from scipy.signal import resample_poly

BUILD = Path(__file__).resolve().parent / "build"
RATE, FRAME = 16000, 0.032  # of the recordings; seconds, at both rates
TWO_RATES = {"silero_vad", "silero_vad_op18_ifless"}
BLOCK = 16  # frames that one sample of the sequence model has
COLLAR = 0.25  # seconds either side of a change that are not scored, as in NIST's Rich Transcription evaluations
UNSCORED = -1

Audio = NDArray[np.float32]
Labels = NDArray[np.int64]
Arrays = dict[str, NDArray[np.float32] | NDArray[np.int64]]
Span = tuple[float, float]


def read(path: Path) -> Audio:
    """Mono at 16 kHz, float32 in -1 to 1."""
    rate, data = wavfile.read(path)
    assert rate == RATE and data.ndim == 1 and data.dtype == np.float32, f"{path.name} is not mono float at 16 kHz"
    audio: Audio = data
    return audio


def turns(folder: Path) -> dict[str, list[Span]]:
    """Recording -> start and end in seconds of what its speakers said, from all RTTM files of a folder."""
    found: dict[str, list[Span]] = {}
    for path in sorted(folder.glob("*.rttm")):
        for line in path.read_text(encoding="utf-8").splitlines():
            kind, name, _, start, length, *_ = line.split()
            assert kind == "SPEAKER", f"{path.name} has a line that is no speaker's turn: {line}"
            found.setdefault(name, []).append((float(start), round(float(start) + float(length), 3)))
    return found


def speech(spans: Sequence[Span]) -> list[Span]:
    """The stretches in which anyone speaks: turns that touch or overlap become one."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def frame_labels(spans: Sequence[Span], seconds: float) -> Labels:
    """Of each whole frame: 1 if its middle is in speech, 0 if not, UNSCORED within COLLAR of a change between the two.

    Where the recording itself begins or ends nobody judged whether speech does, so that is no change.
    """
    middles = (np.arange(int(seconds / FRAME)) + 0.5) * FRAME
    labels = np.zeros(len(middles), dtype=np.int64)
    stretches = speech(spans)
    for start, end in stretches:
        labels[(middles >= start) & (middles < end)] = 1
    for change in (place for stretch in stretches for place in stretch if 0 < place < seconds):
        labels[np.abs(middles - change) < COLLAR] = UNSCORED
    return labels


def recordings(*, calibration: bool, two_rates: bool) -> Iterator[tuple[int, Audio, Labels]]:
    """(sampling rate, audio, labels of its frames) of the corpus's training part, or of its other two."""
    said = turns(BUILD / "meetings" / "rttm")
    for path in sorted((BUILD / "meetings" / "wav").iterdir()):
        if path.name.startswith("trn") != calibration:
            continue
        audio = read(path)
        labels = frame_labels(said[path.stem], round(len(audio) / RATE, 3))
        yield RATE, audio, labels
        if two_rates:
            yield RATE // 2, resample_poly(audio, 1, 2).astype(np.float32), labels


def frames(audio: Audio, rate: int) -> Audio:
    """[frames, context + samples]: 32 ms each, preceded by the last eighth of the frame before (zeros at first)."""
    size = rate * 32 // 1000
    whole = audio[: len(audio) // size * size].reshape(-1, size)
    context = np.zeros((len(whole), size // 8), dtype=np.float32)
    context[1:] = whole[:-1, -size // 8 :]
    return np.concatenate([context, whole], axis=1)


def stream(session: onnxruntime.InferenceSession, rate: int, audio: Audio) -> Iterator[Arrays]:
    """The inputs of each frame. The state starts at zero."""
    state = np.zeros((2, 1, 128), dtype=np.float32)
    wanted = {value.name for value in session.get_inputs()}
    for frame in frames(audio, rate):
        inputs: Arrays = {"input": frame[None], "state": state}
        if "sr" in wanted:
            inputs["sr"] = np.array(rate, dtype=np.int64)
        yield inputs
        _, state = session.run(None, inputs)


def blocks(session: onnxruntime.InferenceSession, audio: Audio) -> Iterator[Arrays]:
    """The inputs of each block of 16 frames; the rest at the end is dropped."""
    hidden = cell = np.zeros((1, 1, 128), dtype=np.float32)
    all_frames = frames(audio, RATE)
    for start in range(0, len(all_frames) - BLOCK + 1, BLOCK):
        inputs: Arrays = {"input": all_frames[start : start + BLOCK], "h": hidden, "c": cell}
        yield inputs
        _, hidden, cell = session.run(None, inputs)


def make(model: Path, target: Path, *, calibration: bool) -> None:
    """Store all samples as arrays ``<number>/<input>``, those of eval also ``<number>/label``, one label a frame.

    Of eval only frames that are scored, of the sequence model blocks without any other; calibration needs no labels.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # the ifless file has unused initializers, which ORT reports
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    arrays: dict[str, NDArray[np.generic]] = {}
    number = 0
    size = BLOCK if model.stem.endswith("sequence") else 1
    for rate, audio, labels in recordings(calibration=calibration, two_rates=model.stem in TWO_RATES):
        run = blocks(session, audio) if size == BLOCK else stream(session, rate, audio)
        for index, inputs in enumerate(run):
            stored: Arrays = dict(inputs)
            if not calibration:
                stored["label"] = labels[index * size : (index + 1) * size]
            if UNSCORED in stored.get("label", ()):
                continue
            arrays |= {f"{number:04d}/{name}": value for name, value in stored.items()}
            number += 1
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name("part.npz")
    np.savez(partial, allow_pickle=False, **arrays)
    partial.replace(target)


def main() -> None:
    """Make what ``build/`` lacks."""
    for model in sorted((BUILD / "onnx").glob("*.onnx")):
        for role in ("calib", "eval"):
            target = BUILD / "frames" / f"{model.stem}-{role}.npz"
            if not target.exists():
                make(model, target, calibration=role == "calib")


if __name__ == "__main__":
    main()
