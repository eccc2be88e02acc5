"""Folders of pictures: decoded by Pillow, upright, sized, normalised, in the layout that the model takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxq.data.fit import batch_size, fit_all, show, unit, wanted_text
from onnxq.data.folder import Folder
from onnxq.data.preprocess import Preprocess, Side
from onnxq.data.sample import InputSpec
from onnxq.data.stream import Item, UnreadableError
from onnxq.errors import DataError

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, kw_only=True)
class ImagePlan:
    """What is done to every picture: the settings, completed from the shape and type of the model's input.

    Attributes:
        spec: the input, with batch 1 if the model's batch is fixed.
        layout: nchw or nhwc.
        color: rgb, bgr or gray.
        channels: 1 or 3.
        height, width: of the model in pixels, None where free.
        resize, crop: completed, see `Preprocess`.
        raw: uint8 input, values 0 to 255 unscaled.
    """

    spec: InputSpec
    layout: str
    color: str
    channels: int
    height: int | None
    width: int | None
    resize: int | tuple[int, int] | Side | None
    crop: tuple[int, int] | None
    raw: bool
    settings: Preprocess

    @property
    def summary(self) -> str:
        """For reports: `224x224 RGB, NCHW, scale 1/255, mean 0.485 0.456 0.406, std 0.229 0.224 0.225`."""
        size = f"{self.height or 'any'}x{self.width or 'any'}"
        parts = [f"{size} {self.color.upper() if self.color != 'gray' else 'gray'}", self.layout.upper()]
        if isinstance(self.resize, int):
            parts.append(f"shorter side resized to {self.resize}")
        if self.crop is not None:
            parts.append(f"centre crop {self.crop[0]}x{self.crop[1]}")
        if self.raw:
            return ", ".join([*parts, "values 0 to 255"])
        s = self.settings
        parts.append("scale 1/255" if s.scale == 1 / 255 else f"scale {s.scale:g}")
        parts += [f"{n} {' '.join(f'{v:.4g}' for v in vs)}" for n, vs in (("mean", s.mean), ("std", s.std)) if vs]
        return ", ".join(parts)


def plan_images(inputs: Sequence[InputSpec], settings: Preprocess, where: str) -> ImagePlan:
    """Complete the settings from the model's one picture input.

    Raises:
        DataError: the model has several inputs, or one that takes no pictures, or the settings contradict its shape.
    """
    if len(inputs) != 1:
        names = ", ".join(f'"{s.name}"' for s in inputs) or "none"
        raise DataError(
            f"{where} holds pictures, which feed a model of one input, and this one has {names}: give .npz files"
        )
    whole = inputs[0]
    spec = unit(whole, batch_size(inputs)) if len(whole.shape) == 4 else whole
    said = f'input "{spec.name}" takes {wanted_text(whole)}'
    dims = spec.shape[1:] if len(spec.shape) == 4 else spec.shape
    if len(dims) != 3:
        raise DataError(f"{where} holds pictures, but {said}, which is no picture: give .npy or .npz files")
    if spec.dtype.kind != "f" and spec.dtype != np.uint8:
        raise DataError(f"{where} holds pictures, but {said}: pictures become floats or uint8, give .npy or .npz files")
    layout = settings.layout or _layout(dims)
    channel_dim, height, width = dims if layout == "nchw" else (dims[2], dims[0], dims[1])
    channels = channel_dim if isinstance(channel_dim, int) else (1 if settings.color == "gray" else 3)
    if channels not in (1, 3):
        raise DataError(
            f"{said}, {channels} channels in layout {layout}: pictures have 1 or 3, set layout or give arrays"
        )
    color = settings.color or ("gray" if channels == 1 else "rgb")
    if channels == 1 and color != "gray":
        raise DataError(f"preprocess asks for color {color}, but {said}, one channel: leave color out or write gray")
    for name, values in (("mean", settings.mean), ("std", settings.std)):
        if len(values) not in (0, 1, channels):
            raise DataError(f"preprocess has {len(values)} values of {name}, but {said}: give one or {channels}")
    raw = spec.dtype == np.uint8
    if raw and (settings.mean or settings.std):
        raise DataError(f"preprocess has mean or std, but {said}, which gets the values 0 to 255: leave them out")
    h, w = (height if isinstance(height, int) else None), (width if isinstance(width, int) else None)
    resize, crop = _sizes(settings, h, w, said)
    return ImagePlan(
        spec=spec, layout=layout, color=color, channels=channels, height=h, width=w,
        resize=resize, crop=crop, raw=raw, settings=settings,
    )  # fmt: skip


def _layout(dims: Sequence[int | str | None]) -> str:
    """nhwc only if the last dimension says so and the first does not."""
    return "nhwc" if dims[2] in (1, 3) and dims[0] not in (1, 3) else "nchw"


def _sizes(
    settings: Preprocess, height: int | None, width: int | None, said: str
) -> tuple[int | tuple[int, int] | Side | None, tuple[int, int] | None]:
    """Resize and crop, completed from the model's size and checked against it."""
    resize = settings.resize
    crop = (settings.crop, settings.crop) if isinstance(settings.crop, int) else settings.crop
    if resize is None and crop is None:
        if height is not None and width is not None:
            resize = (height, width)
        elif height is not None or width is not None:
            resize = Side(height=height, width=width)
    elif crop is None and isinstance(resize, (int, Side)) and height is not None and width is not None:
        crop = (height, width)
    known = crop or (resize if isinstance(resize, tuple) else None)
    sides: tuple[int | None, int | None] = known or (None, None)
    if isinstance(resize, Side) and known is None:
        sides = (resize.height, resize.width)
    for side, want in zip(sides, (height, width), strict=True):
        if side is not None and want is not None and side != want:
            setting = "crop" if crop else "resize"
            got = "x".join("any" if s is None else str(s) for s in sides)
            raise DataError(
                f"preprocess.{setting} gives pictures of {got} (height x width), but {said}: change {setting}"
            )
    return resize, crop


class ImageSource:
    """A folder of pictures as single samples. Nothing is decoded before it is asked for.

    Raises:
        DataError: see `plan_images`.
    """

    noun = "pictures"

    def __init__(self, folder: Folder, inputs: Sequence[InputSpec], settings: Preprocess) -> None:
        self.where = folder.title
        self._folder = folder
        self._plan = plan_images(inputs, settings, self.where)
        self.summary = self._plan.summary
        self.batchable = len(self._plan.spec.shape) == 4

    @property
    def labelled(self) -> bool:
        return self._folder.labels is not None

    def __len__(self) -> int:
        return len(self._folder.files)

    def identity(self, wanted: Sequence[int]) -> tuple[str, list[Path]]:
        """See `onnxq.data.stream.Source`."""
        return repr(self._plan), [self._folder.path / self._folder.files[index] for index in wanted]

    def items(self, wanted: Sequence[int]) -> Iterator[Item | UnreadableError]:
        spec = self._plan.spec
        for index in wanted:
            name, where = self._folder.files[index], self._folder.where(index)
            try:
                picture = decode(self._folder.path / name, where, gray=self._plan.color == "gray")
            except UnreadableError as error:
                yield error
                continue
            array = prepare(picture, self._plan, where)
            yield Item(name=name, inputs=fit_all({spec.name: array}, [spec], where), label=self._folder.label(index))


def decode(path: Path, where: str, *, gray: bool) -> Image.Image:
    """The first frame of a picture, upright, mode L or RGB; what is transparent is seen on white, 16 bits become 8.

    Raises:
        UnreadableError: Pillow cannot decode it.
        DataError: its values have no 8-bit meaning (32-bit floats or integers).
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            opened.load()
            picture = ImageOps.exif_transpose(opened)
    # Pillow's decoders raise whatever their parser trips over: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as error:
        raise UnreadableError(f"{where} is no readable picture ({error}): repair or remove it") from error
    mode = picture.mode
    if mode in ("F", "I"):
        raise DataError(f"{where} has 32-bit values (mode {mode}), whose range is unknown: store it as .npy, scaled")
    if mode.startswith("I;16"):
        # 65535 / 257 = 255; Pillow's own conversion would clip at 255
        picture = Image.fromarray(((np.asarray(picture).astype(np.uint32) + 128) // 257).astype(np.uint8))
    if picture.has_transparency_data:
        seen = picture.convert("RGBA")
        white = Image.new("RGBA", seen.size, "white")
        picture = Image.alpha_composite(white, seen)
    if gray and picture.mode == "CMYK":
        picture = picture.convert("RGB")
    return picture.convert("L" if gray else "RGB")


def prepare(picture: Image.Image, plan: ImagePlan, where: str) -> NDArray[Any]:
    """The array of a decoded picture, batch axis included if the model has one.

    Raises:
        DataError: the picture is smaller than the crop.
    """
    from PIL import Image

    width, height = picture.size
    size = _resized(plan.resize, height, width)
    if size != (height, width):
        method = getattr(Image.Resampling, plan.settings.interpolation.upper())
        picture = picture.resize((size[1], size[0]), method)
    values: NDArray[Any] = np.asarray(picture)
    if plan.crop is not None:
        ch, cw = plan.crop
        if ch > size[0] or cw > size[1]:
            raise DataError(f"{where} is {show(size)} high and wide, less than the crop {show(plan.crop)}: set resize")
        top, left = (size[0] - ch) // 2, (size[1] - cw) // 2
        values = values[top : top + ch, left : left + cw]
    if values.ndim == 2:
        values = np.repeat(values[:, :, None], plan.channels, axis=2)
    if plan.color == "bgr":
        values = values[:, :, ::-1]
    if not plan.raw:
        s = plan.settings
        values = values.astype(np.float32) * np.float32(s.scale)
        if s.mean:
            values -= np.array(s.mean, dtype=np.float32)
        if s.std:
            values /= np.array(s.std, dtype=np.float32)
        values = values.astype(plan.spec.dtype)
    if plan.layout == "nchw":
        values = values.transpose(2, 0, 1)
    return np.ascontiguousarray(values[None] if len(plan.spec.shape) == 4 else values)


def _resized(resize: int | tuple[int, int] | Side | None, height: int, width: int) -> tuple[int, int]:
    """(height, width) after the resize."""
    if resize is None:
        return height, width
    if isinstance(resize, tuple):
        return resize
    if isinstance(resize, Side):
        return resize.size(height=height, width=width)
    side = Side(height=resize) if height <= width else Side(width=resize)
    return side.size(height=height, width=width)
