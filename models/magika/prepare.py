"""Make ``build/calib.npz`` and ``build/eval.npz``: the features of real files, labelled with the fp32 model's class.

Nothing is random: files are taken in the order of their paths, every fifth one calibrates.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

BUILD = Path(__file__).resolve().parent / "build"
CALIBRATION_EVERY = 5


def features(content: bytes, config: dict[str, int]) -> NDArray[np.int32]:
    """The model's input for one file, int32 [begin + end]: stripped bytes, padded after the begin, before the end."""
    padding, block = config["padding_token"], config["block_size"]
    result = np.full(config["beg_size"] + config["end_size"], padding, dtype=np.int32)
    begin = content[:block].lstrip()[: config["beg_size"]]
    end = content[-block:].rstrip()[-config["end_size"] :]
    result[: len(begin)] = np.frombuffer(begin, dtype=np.uint8)
    if end:
        result[-len(end) :] = np.frombuffer(end, dtype=np.uint8)
    return result


def all_features() -> NDArray[np.int32]:
    """Features of the fetched files [files, 2048], without repeated ones and those too short for the model."""
    config = json.loads((BUILD / "config.min.json").read_text(encoding="utf-8"))
    assert config["mid_size"] == 0 and not config["use_inputs_at_offsets"], "another layout than the one made here"
    rows: dict[bytes, NDArray[np.int32]] = {}
    for path in sorted((BUILD / "files").glob("*/*")):
        row = features(path.read_bytes(), config)
        if row[config["min_file_size_for_dl"] - 1] != config["padding_token"]:
            rows.setdefault(row.tobytes(), row)
    return np.stack(list(rows.values()))


def main() -> None:
    """Make what ``build/`` lacks."""
    if (BUILD / "calib.npz").exists() and (BUILD / "eval.npz").exists():
        return
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(BUILD / "model.onnx"), options, providers=["CPUExecutionProvider"])
    samples = all_features()
    labels = np.array([session.run(None, {"bytes": row[None]})[0].argmax() for row in samples], dtype=np.int64)
    calibrating = np.arange(len(samples)) % CALIBRATION_EVERY == 0
    for role, chosen in (("calib", calibrating), ("eval", ~calibrating)):
        partial = BUILD / "part.npz"
        np.savez_compressed(partial, bytes=samples[chosen], label=labels[chosen])
        partial.replace(BUILD / f"{role}.npz")


if __name__ == "__main__":
    main()
