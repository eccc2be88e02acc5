"""How the values of options are read."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import click


def read_numbers(text: str) -> tuple[float, ...]:
    """`0.485,0.456,0.406` as floats; each may be a fraction.

    Raises:
        ValueError: that is no list of numbers.

    >>> read_numbers("0.5,127/255")
    (0.5, 0.4980392156862745)
    """
    return tuple(read_number(part) for part in text.split(","))


def read_number(text: str) -> float:
    """`0.25`, `1e-3` or `1/255`.

    Raises:
        ValueError: that is no finite number.

    >>> read_number("1/4")
    0.25
    """
    numerator, slash, denominator = text.partition("/")
    try:
        value = float(numerator) / float(denominator) if slash else float(numerator)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f'"{text}" is no number: write it like 0.25 or 1/255')
    return value


def read_size(text: str) -> int | tuple[int, int]:
    """`256` for one number, `224x320` for height and width.

    Raises:
        ValueError: that is neither.

    >>> read_size("256"), read_size("224x320")
    (256, (224, 320))
    """
    height, cross, width = text.partition("x")
    if not height.isdecimal() or (cross and not width.isdecimal()):
        raise ValueError(f'"{text}" is no size: write it like 256 or 224x320 (height x width)')
    return (int(height), int(width)) if cross else int(height)


def read_resize(text: str) -> int | tuple[int, int] | dict[str, int]:
    """As `read_size`, or `48x` for a height and `x320` for a width whose other side follows.

    Raises:
        ValueError: none of these.

    >>> read_resize("48x"), read_resize("x320")
    ({'height': 48}, {'width': 320})
    """
    if text.endswith("x") and text[:-1].isdecimal():
        return {"height": int(text[:-1])}
    if text.startswith("x") and text[1:].isdecimal():
        return {"width": int(text[1:])}
    return read_size(text)


def read_by(read: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """A callback of click for one of the functions above: what they raise names the option."""

    def callback(ctx: click.Context, parameter: click.Parameter, value: str | None) -> Any:
        try:
            return None if value is None else read(value)
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, parameter) from error

    return callback
