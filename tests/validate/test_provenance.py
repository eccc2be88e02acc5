"""Hashes in a report are those that `sha256sum` prints."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import tiny

from onnxq.data.open import open_dataset
from onnxq.data.sample import InputSpec
from onnxq.validate import provenance

SPEC = InputSpec(name="image", dtype=np.dtype(np.float32), shape=("N", *tiny.SHAPE))


def test_one_file(tmp_path: Path) -> None:
    path = tiny.save_classifier(tmp_path / "model.onnx")
    found = provenance.of_model("float model", path)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (found.role, found.files, found.bytes, found.note) == ("float model", 1, path.stat().st_size, "")
    assert provenance.of_file("ranges", path).sha256 == found.sha256


def test_a_model_with_its_weights_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(tiny.classifier(), path, save_as_external_data=True, location="w.bin", size_threshold=16)
    one = provenance.of_model("float model", path, shown=Path("later.onnx"))
    assert one.files == 2 and one.path == "later.onnx"
    weights = tmp_path / "w.bin"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x55")
    assert provenance.of_model("float model", path).sha256 != one.sha256


def test_a_folder_is_the_hash_of_what_sha256sum_prints(tmp_path: Path) -> None:
    folder = tiny.save_pictures(tmp_path / "pictures")
    found = provenance.of_data("calibration samples", "pictures", open_dataset(folder, [SPEC]))
    lines = b"".join(
        f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n".encode() for p in sorted(folder.iterdir())
    )
    assert found.files == 6 and found.sha256 == hashlib.sha256(lines).hexdigest()
    tool = subprocess.run("sha256sum * | sha256sum", shell=True, cwd=folder, capture_output=True, text=True, check=True)
    assert tool.stdout.split()[0] == found.sha256


def test_an_archive_of_many_samples_is_read_once(tmp_path: Path) -> None:
    path = tiny.save_samples(tmp_path / "calib.npz")
    found = provenance.of_data("calibration samples", "calib.npz", open_dataset(path, [SPEC]))
    assert found.files == 1 and found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_is_not_hashed_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: Any = SimpleNamespace()
    assert provenance.of_data("evaluation samples", "m:f", made).note == "a function made them"
    path = tiny.save_classifier(tmp_path / "model.onnx")
    monkeypatch.setattr(provenance, "MOST", 10)
    large = provenance.of_file("ranges", path)
    assert large.sha256 == "" and large.note == "too large to hash each time"
    assert provenance.of_file("ranges", tmp_path / "gone").note.startswith("cannot be read any more (")
