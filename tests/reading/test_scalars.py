"""Which value a scalar is; the left column is YAML as a user writes it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from onnxq.reading.scalars import Odd, describe, scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("~", None),
        ("null", None),
        ("true", True),
        ("FALSE", False),
        ("0", 0),
        ("-17", -17),
        ("+3", 3),
        ("0.5", 0.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("1e-3", 0.001),
        ("-1.5E+3", -1500.0),
        ("0.0", 0.0),
        ("abc", "abc"),
        ("0.5%", "0.5%"),
        ("1/255", "1/255"),
        ("'no'", "no"),
        ('"3"', "3"),
        ("|\n  3\n", "3\n"),
        ("nope", "nope"),
        ("1.2.3", "1.2.3"),
        ("08", "08"),
        ("007.5", Odd("007.5", "a number in another notation")),
        ("no", Odd("no", "true or false")),
        ("On", Odd("On", "true or false")),
        ("010", Odd("010", "a number in another notation")),
        ("0x1F", Odd("0x1F", "a number in another notation")),
        ("1_000", Odd("1_000", "a number in another notation")),
        ("1:30", Odd("1:30", "a number in another notation")),
        (".inf", Odd(".inf", "a number in another notation")),
        ("2024-01-31", Odd("2024-01-31", "a date")),
        ("<<", Odd("<<", "a special key")),
    ],
)
def test_scalar(text: str, value: Any) -> None:
    node = yaml.compose(text)
    assert isinstance(node, yaml.ScalarNode)
    found = scalar(node)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "nothing"),
        (True, "true"),
        (False, "false"),
        (3, "the number 3"),
        ("x", 'the text "x"'),
        (Odd("no", "true or false"), "no, which YAML takes for true or false"),
    ],
)
def test_describe(value: Any, text: str) -> None:
    assert describe(value) == text
