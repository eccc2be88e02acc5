"""Make build/characters.txt (from the model's metadata), build/calib/ and build/eval/: rendered lines of height 48."""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import textlines  # noqa: E402

BUILD = HERE / "build"
HEIGHT, MOST_WIDTH = 48, 480
CALIB_ITEMS, EVAL_ITEMS = 96, 1200


def write_lines(folder: Path, seed: int, count: int, words: Sequence[str]) -> None:
    """``count`` files of the model's input [1, 3, 48, width] float32, and labels.csv with their texts."""
    rng = np.random.default_rng(seed)
    fonts = textlines.fonts_in(BUILD)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file", "label"])
        for index in range(count):
            text = textlines.line_text(rng, words)
            picture = textlines.line(rng, text, fonts, contrast=45, noise=25)
            name = f"{index:04d}.npy"
            np.save(folder / name, textlines.to_input(textlines.fit_height(picture, HEIGHT, MOST_WIDTH)))
            rows.writerow([name, text])


def main() -> None:
    if textlines.is_sealed(BUILD, Path(__file__)):
        return
    metadata = {entry.key: entry.value for entry in onnx.load(BUILD / "model.onnx").metadata_props}
    (BUILD / "characters.txt").write_text(metadata["character"], encoding="utf-8", newline="\n")
    write_lines(BUILD / "calib", 3, CALIB_ITEMS, textlines.CALIB_WORDS)
    write_lines(BUILD / "eval", 4, EVAL_ITEMS, textlines.EVAL_WORDS)
    textlines.seal(BUILD, Path(__file__))


if __name__ == "__main__":
    main()
