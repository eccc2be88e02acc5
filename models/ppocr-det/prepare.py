"""Make build/calib/ and build/eval/: pages of 320x320 pixels (PNG) with several rendered lines at known boxes."""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import textlines  # noqa: E402

BUILD = HERE / "build"
SIDE = 320
CALIB_PAGES, EVAL_PAGES = 64, 400
LEAST_LINES, MOST_LINES = 3, 7
# A text detector's box runs round the line with a little air, not along the ink: this share of the font size.
AIR = 0.2


def page(rng: Generator, fonts: Sequence[Path], words: Sequence[str]) -> tuple[textlines.Picture, list[textlines.Box]]:
    """One page and the boxes of its lines, which do not touch each other."""
    picture = textlines.background(rng, SIDE, SIDE, rng.uniform(0.0, 0.45)).copy()
    taken = Image.new("L", (SIDE, SIDE))
    boxes: list[textlines.Box] = []
    for _ in range(int(rng.integers(LEAST_LINES, MOST_LINES + 1))):
        size = int(rng.integers(11, 31))
        font = fonts[int(rng.integers(len(fonts)))]
        mask = textlines.glyphs(textlines.line_text(rng, words), font, size, rng.uniform(-1.0, 1.0))
        air = round(size * AIR)
        spot = textlines.place(rng, taken, mask, gap=air + 4) if mask.width < SIDE - 2 * (air + 4) else None
        if spot is None:
            continue
        x, y = spot
        ground = picture[y : y + mask.height, x : x + mask.width]
        left, top, right, bottom = textlines.paint(picture, mask, spot, textlines.ink(rng, ground, 38))
        boxes.append((left - air, top - air, right + air, bottom + air))
    return textlines.spoil(rng, picture, blur=1.1, noise=22), boxes


def write_pages(folder: Path, seed: int, count: int, words: Sequence[str]) -> None:
    """``count`` PNG files, and labels.csv with their boxes, ``left,top,right,bottom`` each, joined by spaces."""
    rng = np.random.default_rng(seed)
    fonts = textlines.fonts_in(BUILD)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file", "label"])
        for index in range(count):
            picture, boxes = page(rng, fonts, words)
            name = f"{index:04d}.png"
            Image.fromarray(picture).save(folder / name)
            rows.writerow([name, " ".join(",".join(map(str, box)) for box in boxes)])


def main() -> None:
    if textlines.is_sealed(BUILD, Path(__file__)):
        return
    write_pages(BUILD / "calib", 5, CALIB_PAGES, textlines.CALIB_WORDS)
    write_pages(BUILD / "eval", 6, EVAL_PAGES, textlines.EVAL_WORDS)
    textlines.seal(BUILD, Path(__file__))


if __name__ == "__main__":
    main()
