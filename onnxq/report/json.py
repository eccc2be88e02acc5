"""Results for machines: one encoder for all values, keys that do not change within a schema version."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from onnxq.validate.result import SCHEMA, Result


def dumps(result: Result) -> str:
    """A result as JSON text, two spaces deep, ending in a newline. Python and JavaScript read it without extensions."""
    encoded = encode(result)
    encoded["passes"] = [{"name": n, "rewrites": r, "refusals": encode(why)} for n, r, why in result.passes]
    return json.dumps({"schema": SCHEMA, **encoded}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def encode(value: Any) -> Any:
    """Values as JSON can hold them.

    Dataclasses become objects of their fields and of those properties that are plain numbers, texts or truth values
    (totals, ratios). JSON has no NaN and no infinity: they become "NaN", "Infinity" and "-Infinity", which Python's
    float() and JavaScript's Number() read.

    >>> encode({"a": (1, float("inf")), "b": Path("x/y")})
    {'a': [1, 'Infinity'], 'b': 'x/y'}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {k: encode(v) for k, v in _members(value)}
    if isinstance(value, Mapping):
        return {str(k): encode(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [encode(v) for v in value]
    if isinstance(value, set | frozenset):
        return sorted(encode(v) for v in value)
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, Enum):
        return value.name.lower()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a {type(value).__name__} has no form in JSON")


def _members(value: Any) -> list[tuple[str, Any]]:
    found = [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
    for name, member in vars(type(value)).items():
        if isinstance(member, property):
            got = getattr(value, name)
            if isinstance(got, bool | int | float | str):
                found.append((name, got))
    return found
