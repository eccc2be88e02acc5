"""How turns of speakers become labels of frames, and how models are scored by them (models/silero-vad)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "models" / "silero-vad"


def load(file: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"loaded_silero_{file}", FOLDER / f"{file}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


prepare, metric, data = load("prepare"), load("metric"), load("data")


def test_turns_are_read_by_recording(tmp_path: Path) -> None:
    (tmp_path / "a.rttm").write_text(
        "SPEAKER one 1 1.440 11.872 <NA> <NA> MEE009 <NA> <NA>\nSPEAKER two 1 0.000 0.5 <NA> <NA> MÉO069 <NA> <NA>\n",
        encoding="utf-8",
    )
    (tmp_path / "b.rttm").write_text("SPEAKER one 1 27.879 2.121 <NA> <NA> FEE1 <NA> <NA>\n")
    assert prepare.turns(tmp_path) == {"one": [(1.44, 13.312), (27.879, 30.0)], "two": [(0.0, 0.5)]}


def test_turns_that_touch_or_overlap_are_one_stretch() -> None:
    assert prepare.speech([(5.0, 6.0), (1.0, 4.0), (2.0, 3.0), (6.0, 7.0)]) == [(1.0, 4.0), (5.0, 7.0)]


def test_frames_near_a_change_are_not_scored() -> None:
    labels = prepare.frame_labels([(1.0, 2.0), (1.5, 3.0)], 4.01)
    middles = (np.arange(125) + 0.5) * 0.032
    near = (abs(middles - 1.0) < 0.25) | (abs(middles - 3.0) < 0.25)
    assert len(labels) == 125
    assert (labels[near] == -1).all()
    assert (labels[~near] == ((middles > 1) & (middles < 3))[~near]).all()


def test_the_ends_of_a_recording_are_no_changes() -> None:
    assert (prepare.frame_labels([(0.0, 4.0)], 4.0) == 1).all()
    assert (prepare.frame_labels([], 4.0) == 0).all()


def test_accuracy_is_by_frame() -> None:
    accuracy = metric.SpeechAccuracy()
    one = accuracy.record({"output": np.array([[0.6]], dtype=np.float32)}, np.array([1]))
    block = {"speech_probs": np.array([0.6, 0.4, 0.4, 0.9], dtype=np.float32)}
    assert one == [1.0]
    assert accuracy.record(block, np.array([1, 1, 0, 0])) == [0.5]
    assert accuracy.score(np.array([one, [0.0]])) == 0.5


@pytest.mark.skipif(not (FOLDER / "build" / "frames").is_dir(), reason="make models")
@pytest.mark.parametrize("name", ["vad", "vad_16k_op15", "vad_16k_sequence", "vad_half", "vad_op18_ifless"])
def test_samples_of_eval_have_labels_and_those_of_calib_none(name: str) -> None:
    sample, label = getattr(data, f"eval_{name}")()[0]
    inputs = getattr(data, f"calib_{name}")()[0]
    assert sample.keys() == inputs.keys() and "label" not in inputs
    assert len(label) == len(sample["input"]) and set(label) <= {0, 1}
