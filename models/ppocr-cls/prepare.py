"""Make build/calib.npz and build/eval/: rendered lines at 48x192, every second one upside down (class 1)."""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import textlines  # noqa: E402

BUILD = HERE / "build"
HEIGHT, WIDTH = 48, 192
CALIB_ITEMS, EVAL_ITEMS = 128, 1200


def samples(seed: int, count: int, words: Sequence[str]) -> Iterator[tuple[NDArray[np.float32], int]]:
    """``count`` pairs of the model's input [1, 3, 48, 192] and its class: 0 upright, 1 turned by 180 degrees."""
    rng = np.random.default_rng(seed)
    fonts = textlines.fonts_in(BUILD)
    for index in range(count):
        label = index % 2
        picture = textlines.line(rng, textlines.line_text(rng, words), fonts, contrast=48, noise=20)
        if label:
            picture = np.ascontiguousarray(picture[::-1, ::-1])
        fitted = textlines.to_input(textlines.fit_height(picture, HEIGHT, WIDTH))
        # What a short line leaves over is 0 after normalising, as in rapidocr.
        sample = np.zeros((1, 3, HEIGHT, WIDTH), dtype=np.float32)
        sample[..., : fitted.shape[3]] = fitted
        yield sample, label


def main() -> None:
    if textlines.is_sealed(BUILD, Path(__file__)):
        return
    calib = list(samples(1, CALIB_ITEMS, textlines.CALIB_WORDS))
    np.savez(BUILD / "calib.npz", x=np.concatenate([x for x, _ in calib]), label=np.array([y for _, y in calib]))
    folder = BUILD / "eval"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file", "label"])
        for index, (sample, label) in enumerate(samples(2, EVAL_ITEMS, textlines.EVAL_WORDS)):
            name = f"{index:04d}.npy"
            np.save(folder / name, sample)
            rows.writerow([name, label])
    textlines.seal(BUILD, Path(__file__))


if __name__ == "__main__":
    main()
