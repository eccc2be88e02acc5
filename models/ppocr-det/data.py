"""The pages of build/ as the model takes them. As float files they would need 570 MB, as PNG they need 100 MB."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BUILD = Path(__file__).resolve().parent / "build"
Sample = tuple[dict[str, NDArray[np.float32]], str]


def calib() -> Iterator[Sample]:
    """The pages to calibrate with."""
    return _pages(BUILD / "calib")


def evaluate() -> Iterator[Sample]:
    """The pages to judge by; other words and seeds than `calib`."""
    return _pages(BUILD / "eval")


def _pages(folder: Path) -> Iterator[Sample]:
    """Per page ``({"x": float32 [1, 3, 320, 320]}, boxes)``: BGR, ``(value / 255 - 0.5) / 0.5``; boxes: metric.py."""
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            bgr = np.asarray(Image.open(folder / row["file"]).convert("RGB"))[..., ::-1]
            scaled = (bgr.astype(np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)
            yield {"x": np.ascontiguousarray(scaled.transpose(2, 0, 1))[None]}, row["label"]
