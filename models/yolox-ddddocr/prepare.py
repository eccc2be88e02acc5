"""Make build/calib/ and build/eval/: pictures (PNG) with outlined letters at known boxes, as in click captchas."""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter, ImageOps

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import textlines  # noqa: E402

BUILD = HERE / "build"
CALIB_PICTURES, EVAL_PICTURES = 64, 350
# The two sets share no letter: each draws from its own half.
CALIB_LETTERS, EVAL_LETTERS = "ACEGKMQSUWY24679", "BDFHJLNPRTVXZ358"
# The boxes that the network draws leave some air round the letter; the outline fits in it.
AIR = 3


def shapes(rng: Generator, picture: textlines.Picture) -> textlines.Picture:
    """The picture with some ellipses, polygons and strokes on it: clutter that is no letter."""
    height, width = picture.shape[:2]
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(2, 9))):
        red, green, blue = (int(v) for v in rng.integers(256, size=3))
        xs, ys = np.sort(rng.integers(width, size=4)), rng.integers(height, size=4)
        kind = rng.integers(3)
        if kind == 0:
            draw.ellipse((int(xs[0]), int(ys[:2].min()), int(xs[3]), int(ys[:2].max())), fill=(red, green, blue))
        elif kind == 1:
            draw.polygon([(int(x), int(y)) for x, y in zip(xs, ys, strict=True)], fill=(red, green, blue))
        else:
            ends = (int(xs[0]), int(ys[0]), int(xs[3]), int(ys[3]))
            draw.line(ends, fill=(red, green, blue), width=int(rng.integers(1, 4)))
    return np.array(canvas)


def outlined(rng: Generator, picture: textlines.Picture, mask: Image.Image, at: tuple[int, int]) -> textlines.Box:
    """Paint the letter, in place, with an outline of 1 or 2 pixels that contrasts with it; returns the mask's box."""
    x, y = at
    colour = textlines.ink(rng, picture[y : y + mask.height, x : x + mask.width], 90)
    rim = mask.filter(ImageFilter.MaxFilter(2 * int(rng.integers(1, 3)) + 1))
    textlines.paint(picture, rim, at, np.full(3, 0.0 if colour.mean() > 127 else 255.0) * 0.8 + colour * 0.2)
    return textlines.paint(picture, mask, at, colour)


def scene(rng: Generator, fonts: Sequence[Path], letters: str) -> tuple[textlines.Picture, list[textlines.Box]]:
    """One picture and the boxes of its 3 to 6 letters, which do not touch each other."""
    width, height = int(rng.integers(280, 417)), int(rng.integers(180, 417))
    picture = shapes(rng, textlines.background(rng, width, height, rng.uniform(0.1, 0.6)))
    taken = Image.new("L", (width, height))
    boxes: list[textlines.Box] = []
    for _ in range(int(rng.integers(3, 7))):
        letter = letters[int(rng.integers(len(letters)))]
        font = fonts[int(rng.integers(len(fonts)))]
        inked = textlines.glyphs(letter, font, int(rng.integers(24, 50)), rng.uniform(-35, 35))
        mask = ImageOps.expand(inked, border=AIR)
        spot = textlines.place(rng, taken, mask, gap=4)
        if spot is not None:
            boxes.append(outlined(rng, picture, mask, spot))
    return textlines.spoil(rng, picture, blur=0.7, noise=8), boxes


def write_pictures(folder: Path, seed: int, count: int, letters: str) -> None:
    """``count`` PNG files, and labels.csv with their boxes, ``left,top,right,bottom`` each, joined by spaces."""
    rng = np.random.default_rng(seed)
    fonts = textlines.fonts_in(BUILD)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file", "label"])
        for index in range(count):
            picture, boxes = scene(rng, fonts, letters)
            name = f"{index:04d}.png"
            Image.fromarray(picture).save(folder / name)
            rows.writerow([name, " ".join(",".join(map(str, box)) for box in boxes)])


def main() -> None:
    if textlines.is_sealed(BUILD, Path(__file__)):
        return
    write_pictures(BUILD / "calib", 7, CALIB_PICTURES, CALIB_LETTERS)
    write_pictures(BUILD / "eval", 8, EVAL_PICTURES, EVAL_LETTERS)
    textlines.seal(BUILD, Path(__file__))


if __name__ == "__main__":
    main()
