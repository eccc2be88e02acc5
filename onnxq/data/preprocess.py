"""How a picture or a text becomes what the model takes: the settings, checked when they are made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from onnxq.errors import UsageError, did_you_mean

COLORS = ("rgb", "bgr", "gray")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic")
LAYOUTS = ("nchw", "nhwc")


@dataclass(frozen=True, kw_only=True)
class Side:
    """Resize one side to this many pixels; the other side follows, so the aspect is kept. Exactly one is given.

    >>> Side(height=48).size(height=96, width=400)
    (48, 200)
    """

    height: int | None = None
    width: int | None = None

    def __post_init__(self) -> None:
        if (self.height is None) == (self.width is None):
            raise UsageError("a resize by side names either height or width, one of them")
        if self.width is None:
            _positive("resize.height", self.height)
        else:
            _positive("resize.width", self.width)

    def size(self, *, height: int, width: int) -> tuple[int, int]:
        """(height, width) of a picture of this size after the resize, in pixels, at least 1 each."""
        if self.height is not None:
            return self.height, max(1, round(width * self.height / height))
        assert self.width is not None
        return max(1, round(height * self.width / width)), self.width


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """What is done to pictures and texts; arrays and functions are fed as they are.

    A picture is turned upright (EXIF), brought to the wanted colours, resized, cropped, and becomes
    `(value * scale - mean) / std` in float32, value 0 to 255; then it is cast to the model's type. A model whose input
    is uint8 gets the values 0 to 255 themselves.

    Attributes:
        color: order of the channels; None is rgb for 3 channels and gray for 1. `gray` on 3 channels repeats the grey.
        resize: None: to the model's size, or along the model's one fixed side, or (both free) not at all; an int: the
            shorter side gets that many pixels and the aspect is kept; (H, W): exactly that; `Side(height=H)`: one side.
        crop: from the centre; None: to the model's size if `resize` kept the aspect, else none; an int is a square.
        interpolation: of the resize; bilinear and bicubic average over the area when they shrink (Pillow's).
        scale: factor on the values 0 to 255.
        mean: after scaling; one number or one per channel in the order of `color`; () is 0.
        std: after scaling; likewise; () is 1.
        layout: where the channels are; None: read from the model's input shape.
        max_length: tokens per text; None: the model's fixed length, else what the tokenizer file says.

    Raises:
        UsageError: a value that makes no sense; the sentence starts with the field's name.
    """

    color: Literal["rgb", "bgr", "gray"] | None = None
    resize: int | tuple[int, int] | Side | None = None
    crop: int | tuple[int, int] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    scale: float = 1 / 255
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: Literal["nchw", "nhwc"] | None = None
    max_length: int | None = None

    def __post_init__(self) -> None:
        _one_of("color", self.color, (*COLORS, None))
        _one_of("interpolation", self.interpolation, INTERPOLATIONS)
        _one_of("layout", self.layout, (*LAYOUTS, None))
        if not isinstance(self.resize, Side):
            _size("resize", self.resize)
        _size("crop", self.crop)
        if not _number(self.scale) or self.scale == 0:
            raise UsageError(f"scale must be a number other than 0, not {self.scale!r}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if not isinstance(values, tuple) or not all(_number(v) for v in values):
                raise UsageError(f"{name} must be a list of numbers, not {values!r}")
        if 0 in self.std:
            raise UsageError(f"std must not hold 0, which is divided by: {list(self.std)}")
        if self.max_length is not None:
            _positive("max_length", self.max_length)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Preprocess:
        """Preprocess of plain values, such as a parsed YAML mapping: lists for tuples, {"height": 48} for a Side.

        Raises:
            UsageError: an unknown key, or a value that makes no sense.

        >>> Preprocess.from_mapping({"resize": {"height": 48}, "mean": [0.5]}).resize
        Side(height=48, width=None)
        """
        known = {f.name for f in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for key, value in mapping.items():
            if key not in known:
                raise UsageError(f'preprocess has no setting "{key}": {did_you_mean(str(key), known)}')
            values[key] = tuple(value) if isinstance(value, list) else value
        side = values.get("resize")
        if isinstance(side, Mapping):
            for key in side:
                if key not in ("height", "width"):
                    near = did_you_mean(str(key), ("height", "width"))
                    raise UsageError(f'resize has no setting "{key}": {near}')
            values["resize"] = Side(**side)
        for name in ("mean", "std"):
            if _number(values.get(name)):
                values[name] = (values[name],)
        return cls(**values)


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _positive(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"{name} must be a whole number of at least 1, not {value!r}")


def _size(name: str, value: object) -> None:
    if value is None:
        return
    if isinstance(value, tuple):
        if len(value) != 2:
            raise UsageError(f"{name} must be one number or [height, width], not {list(value)}")
        for side in value:
            _positive(name, side)
        return
    _positive(name, value)


def _one_of(name: str, value: object, choices: tuple[str | None, ...]) -> None:
    if value not in choices:
        known = [c for c in choices if c is not None]
        raise UsageError(f"{name} must be one of {', '.join(known)}, not {value!r}: {did_you_mean(str(value), known)}")
