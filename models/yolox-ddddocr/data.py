"""The pictures of build/ as the model takes them. As float files they would need 860 MB, as PNG they need 70 MB."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BUILD = Path(__file__).resolve().parent / "build"
SIDE = 416
GREY = 114
Sample = tuple[dict[str, NDArray[np.float32]], str]


def calib() -> Iterator[Sample]:
    """The pictures to calibrate with."""
    return _pictures(BUILD / "calib")


def evaluate() -> Iterator[Sample]:
    """The pictures to judge by; other letters and seeds than `calib`."""
    return _pictures(BUILD / "eval")


def _pictures(folder: Path) -> Iterator[Sample]:
    """Per picture ``({"images": float32 [1, 3, 416, 416]}, boxes)``, boxes in the model's pixels, else as in metric.py.

    The picture is scaled to fit and put into the upper left corner; the rest is grey. BGR, 0..255, not normalised.
    """
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            picture = Image.open(folder / row["file"]).convert("RGB")
            ratio = min(SIDE / picture.width, SIDE / picture.height)
            size = int(picture.width * ratio), int(picture.height * ratio)
            canvas = np.full((SIDE, SIDE, 3), GREY, dtype=np.float32)
            canvas[: size[1], : size[0]] = np.asarray(picture.resize(size, Image.Resampling.BILINEAR))[..., ::-1]
            boxes = [[float(v) * ratio for v in box.split(",")] for box in row["label"].split()]
            label = " ".join(",".join(f"{v:.2f}" for v in box) for box in boxes)
            yield {"images": np.ascontiguousarray(canvas.transpose(2, 0, 1))[None]}, label
