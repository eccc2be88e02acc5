"""What a scalar of a YAML file is, without the surprises of YAML 1.1, which PyYAML speaks.

There `no` is False, `010` is 8, `1:30` is 90, `1e-3` is a text and `2024-01-31` a date. Here a plain scalar is null,
true or false, a decimal number (with or without exponent), or a text; what YAML 1.1 would read as something else is
`Odd`, refused with a hint; and what stands in quotes is a text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import yaml

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_ODD = {
    "tag:yaml.org,2002:bool": "true or false",
    "tag:yaml.org,2002:int": "a number in another notation",
    "tag:yaml.org,2002:float": "a number in another notation",
    "tag:yaml.org,2002:timestamp": "a date",
    "tag:yaml.org,2002:value": "a special key",
    "tag:yaml.org,2002:merge": "a special key",
}


@dataclass(frozen=True)
class Odd:
    """A plain scalar that YAML 1.1 takes for something else than it looks: as written, and what YAML takes it for."""

    text: str
    taken_for: str


Scalar = None | bool | int | float | str | Odd


def scalar(node: yaml.ScalarNode) -> Scalar:
    """The value of a scalar node.

    >>> [scalar(yaml.compose(t)) for t in ("3", "1e-3", "true", "'3'", "x", "")[:-1]]
    [3, 0.001, True, '3', 'x']
    >>> scalar(yaml.compose("no"))
    Odd(text='no', taken_for='true or false')
    """
    text: str = node.value
    if node.style is not None:
        return text
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text)
    # 007 is a text to a reader and 7 to YAML; 007.5 is no better
    if _FLOAT.fullmatch(text) and not re.match(r"[-+]?0[0-9]", text):
        return float(text)
    if node.tag in _ODD:
        return Odd(text, _ODD[node.tag])
    return text


def describe(value: Scalar) -> str:
    """A scalar for a sentence: `the text "x"`, `the number 3`."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    if isinstance(value, Odd):
        return f"{value.text}, which YAML takes for {value.taken_for}"
    return f'the text "{value}"'
