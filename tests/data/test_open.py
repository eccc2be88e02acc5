"""The one door: paths that are not there or are nothing that onnxq reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxq.data import open_dataset
from onnxq.errors import DataError


def test_paths_start_from_base(tmp_path: Path, spec: Any) -> None:
    (tmp_path / "d").mkdir()
    np.save(tmp_path / "d" / "a.npy", np.ones((2, 3), "f4"))
    dataset = open_dataset("d", [spec("N", 3)], base=tmp_path)
    assert dataset.description == "2 samples of d"
    assert open_dataset(Path("d/a.npy"), [spec("N", 3)], base=tmp_path).description == "2 samples of d/a.npy"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("calid", 'there is no data at calid: did you mean "calib"?'),
        ("sub/zzz", "there is no data at sub/zzz: give a folder, a .npy, .npz or .txt file, or module:function"),
        (
            "a.csv",
            "a.csv is no data file that onnxq reads: name a folder, a .npy, .npz or .txt file, or module:function",
        ),
        ("a.png", "a.png is one picture: name the folder of the pictures"),
    ],
)
def test_refused(tmp_path: Path, spec: Any, refuses: Any, name: str, sentence: str) -> None:
    (tmp_path / "calib").mkdir()
    (tmp_path / "a.csv").touch()
    (tmp_path / "a.png").touch()
    with refuses(sentence, DataError):
        open_dataset(name, [spec("N", 3)], base=tmp_path)


def test_heavy_imports_wait_until_they_are_needed() -> None:
    script = (
        "import sys, onnxq.data; print([m for m in ('PIL', 'onnx', 'tokenizers', 'onnxruntime') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
