"""Seeded pictures of known text, for the text and letter models: what is drawn, and where, is the label.

Everything here takes a ``numpy.random.Generator`` and fonts from files, so one seed gives one data set (with
one version of Pillow, whose FreeType draws the glyphs). The words for calibration and for evaluation are disjoint.
Pictures are uint8 arrays ``[height, width, 3]`` in RGB order; boxes are ``(left, top, right, bottom)`` in pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

Picture = NDArray[np.uint8]
Box = tuple[int, int, int, int]

_CALIB_WORDS = """
    apple anchor basket bridge button candle carpet castle cheese cloud copper corner desert dinner dragon eagle
    engine fabric falcon finger forest garden guitar hammer harbour island jacket jungle kitchen ladder lantern
    letter lizard magnet marble meadow mirror needle number orange oyster paddle pepper pillow planet pocket
    quartz rabbit ribbon river saddle shadow silver spider sugar table thunder tiger turtle valley velvet violet
    walnut window winter yellow zebra
"""
CALIB_WORDS = tuple(_CALIB_WORDS.split())
_EVAL_WORDS = """
    account address airport amount answer archive article artist august autumn balance battery between bicycle
    board bottle branch bright budget cabinet camera capital captain carbon careful century chapter charge
    circle client coffee college comfort common compass concert control cotton council country courage credit
    crystal culture customer daily decade deliver density deposit detail digital doctor dollar double driver
    early economy effect eleven energy enough entry equal escape evening example expert export express factory
    family famous feature february field figure final flight flower fortune freight future gallery general giant
    glass global golden grade gravity ground growth guide healthy height history holiday honest hospital hotel
    hundred image import income index inside invoice january journey justice keyboard kingdom knowledge labour
    language leader liquid local logic luggage machine manager market master material measure medical member
    memory merchant metal method middle minute model modern monday morning motor mountain museum music nation
    nature network night north notice object ocean october office open option order origin output package
    painter paper partner pattern payment people percent period phone picture place plastic platform poetry
    point policy popular postal power present price printer private product profit public quality quarter quick
    radio railway receipt record region release report result return round sample saturday school science screen
    season second secret section senior service seven shipping signal simple sister smooth social source south
    special speed spring station steel storage street strong student subject summer sunday supply support
    surface system target taxes teacher telephone temple thirty thousand ticket timber today total tower traffic
    transport travel triangle trouble tuesday twelve union unique update useful vacation value vehicle version
    victory village visit voice volume waiter warning water weather wednesday weekly weight welcome wheel white
    wonder worker world writer yesterday young
"""
EVAL_WORDS = tuple(_EVAL_WORDS.split())


def line_text(rng: Generator, words: Sequence[str]) -> str:
    """One line as on receipts, labels and signs: words, numbers, dates and codes, 3 to about 24 characters."""
    kind = rng.integers(10)
    if kind == 0:
        return f"{rng.integers(1, 10_000):,}.{rng.integers(100):02d}"
    if kind == 1:
        return f"{rng.integers(1950, 2050)}-{rng.integers(1, 13):02d}-{rng.integers(1, 29):02d}"
    if kind == 2:
        letters = "".join(chr(65 + c) for c in rng.integers(26, size=rng.integers(2, 5)))
        return f"{letters}-{rng.integers(100, 100_000)}"
    chosen = [str(word) for word in rng.choice(words, size=rng.integers(1, 4), replace=False)]
    style = rng.integers(3)
    cased = [w.upper() if style == 0 else w.capitalize() if style == 1 else w for w in chosen]
    text = " ".join(cased)
    if kind == 3:
        text += f" {rng.integers(1, 1000)}"
    return text + (str(rng.choice([".", ",", ":", "!", "?"])) if kind == 4 else "")


def background(rng: Generator, width: int, height: int, busy: float) -> Picture:
    """A picture without text: smooth colour clouds of strength ``busy`` (0..1 of the full range) round one colour."""
    base = rng.uniform(40, 215, size=3)
    cells = (int(rng.integers(2, 7)), int(rng.integers(2, 7)))
    clouds = rng.uniform(-127, 127, size=(*cells, 3)) * busy
    coarse = np.clip(base + clouds, 0, 255).astype(np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(smooth)


def ink(rng: Generator, ground: Picture, least: float) -> NDArray[np.float64]:
    """A colour [3] whose brightness is at least ``least`` (0..255) away from the mean of ``ground``."""
    mean = ground.reshape(-1, 3).mean()
    room_below, room_above = max(mean - least, 0.0), max(255 - mean - least, 0.0)
    dark = rng.uniform(0, room_below + room_above) < room_below
    level = rng.uniform(0, room_below) if dark else rng.uniform(mean + least, 255)
    colour: NDArray[np.float64] = np.clip(level + rng.uniform(-30, 30, size=3), 0, 255)
    return colour


def glyphs(text: str, font: Path, size: int, angle: float) -> Image.Image:
    """The text's coverage mask (mode L), turned by ``angle`` degrees and cropped to its ink."""
    face = ImageFont.truetype(str(font), size)
    left, top, right, bottom = (int(v) for v in face.getbbox(text))
    mask = Image.new("L", (right - left + 8, bottom - top + 8))
    ImageDraw.Draw(mask).text((4 - left, 4 - top), text, fill=255, font=face)
    turned = mask.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    # Antialiasing leaves a nearly invisible rim that would make the box too large.
    box = turned.point([0] * 41 + [255] * 215).getbbox()
    assert box is not None, f"the font {font.name} draws nothing for {text!r}"
    return turned.crop(box)


def paint(ground: Picture, mask: Image.Image, at: tuple[int, int], colour: NDArray[np.float64]) -> Box:
    """Lay the colour over ``ground``, in place, where the mask covers it; returns the mask's box."""
    x, y = at
    cover = np.asarray(mask, dtype=np.float64)[..., None] / 255
    part = ground[y : y + mask.height, x : x + mask.width]
    part[...] = np.rint(part * (1 - cover) + colour * cover).astype(np.uint8)
    return x, y, x + mask.width, y + mask.height


def spoil(rng: Generator, picture: Picture, blur: float, noise: float) -> Picture:
    """The picture out of focus (Gaussian radius up to ``blur`` pixels) and with grain (sigma up to ``noise``)."""
    soft = Image.fromarray(picture).filter(ImageFilter.GaussianBlur(rng.uniform(0, blur)))
    grain = rng.normal(0, rng.uniform(0, noise) + 1e-9, size=picture.shape)
    return np.clip(np.rint(np.asarray(soft) + grain), 0, 255).astype(np.uint8)


def line(rng: Generator, text: str, fonts: Sequence[Path], *, contrast: float = 60, noise: float = 14) -> Picture:
    """One rendered line, cropped with a small margin as a text detector would crop it; 14 to 40 pixels of font size."""
    size = int(rng.integers(14, 41))
    mask = glyphs(text, fonts[int(rng.integers(len(fonts)))], size, rng.uniform(-2.0, 2.0))
    margin = [max(1, round(size * rng.uniform(0.05, 0.25))) for _ in range(4)]
    width, height = mask.width + margin[0] + margin[1], mask.height + margin[2] + margin[3]
    ground = background(rng, width, height, rng.uniform(0.0, 0.35)).copy()
    paint(ground, mask, (margin[0], margin[2]), ink(rng, ground, contrast))
    return spoil(rng, ground, blur=size / 22, noise=noise)


def fit_height(picture: Picture, height: int, most: int) -> Picture:
    """The picture at this height, its width in proportion (rounded up) but at most ``most`` pixels."""
    width = min(-(-picture.shape[1] * height // picture.shape[0]), most)
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))


def to_input(picture: Picture) -> NDArray[np.float32]:
    """PaddleOCR's input form: float32 [1, 3, height, width], colours as BGR, ``(value / 255 - 0.5) / 0.5``."""
    scaled = (picture[..., ::-1].astype(np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))[None]


def place(rng: Generator, taken: Image.Image, mask: Image.Image, gap: int) -> tuple[int, int] | None:
    """A spot where the mask's box, ``gap`` pixels wider all round, hits nothing in ``taken`` (mode L), which it then
    enters; None after 60 vain tries."""
    for _ in range(60):
        x = int(rng.integers(gap, max(gap + 1, taken.width - mask.width - gap)))
        y = int(rng.integers(gap, max(gap + 1, taken.height - mask.height - gap)))
        box = (x - gap, y - gap, x + mask.width + gap, y + mask.height + gap)
        inside = x + mask.width <= taken.width and y + mask.height <= taken.height
        if inside and ImageChops.invert(taken.crop(box)).getextrema() == (255, 255):
            taken.paste(255, box)
            return x, y
    return None


def fonts_in(build: Path) -> list[Path]:
    """The TrueType files that ``fetch.py`` put below ``build/fonts/``, in one order on every machine."""
    found = sorted(build.glob("fonts/*/*.ttf"), key=lambda path: path.name)
    if not found:
        raise SystemExit(f"There are no fonts in {build / 'fonts'}: run `python models/fetch.py` first.")
    return found


def is_sealed(build: Path, script: Path) -> bool:
    """Whether `seal` was called on ``build`` for this very script, this file and this Pillow: nothing to make again."""
    seal_file = build / "sealed.txt"
    return seal_file.is_file() and seal_file.read_text() == _seal(script)


def seal(build: Path, script: Path) -> None:
    """Say that ``build`` is complete; call it last."""
    (build / "sealed.txt").write_text(_seal(script))


def _seal(script: Path) -> str:
    content = Path(__file__).read_bytes() + script.read_bytes()
    return f"{hashlib.sha256(content).hexdigest()} Pillow {PIL.__version__} numpy {np.__version__}"
