"""Samples that a Python program hands over, under a reference that `open_dataset` finds: `onnxq.data.held:calib`."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from onnxq.errors import UsageError

_HELD: dict[str, Any] = {}


@contextmanager
def hold(samples: Any, name: str) -> Iterator[str | None]:
    """What the stages take for samples: a path or reference as it is, None as None, objects by a reference to them.

    The reference is good inside the `with` statement and in this process only.

    Args:
        samples: a path; a reference like `file.py:function`; a function without arguments that returns an iterable; a
            sequence or another re-iterable object. See `onnxq.data.functions.FunctionDataset` for its elements.
        name: what messages call it.

    Raises:
        UsageError: none of these, or a mapping, of which it is not known what it means.
    """
    if samples is None or isinstance(samples, str | os.PathLike):
        yield None if samples is None else os.fspath(samples)
        return
    if isinstance(samples, Mapping):
        raise UsageError(f"{name} is a mapping: give a list of them, one for each sample, from input names to arrays")
    if not callable(samples) and not isinstance(samples, Iterable):
        raise UsageError(
            f"{name} is of type {type(samples).__name__}: give a path, a function that yields samples, or a list"
        )
    free = next(n for n in itertools.chain([name], (f"{name}_{i}" for i in itertools.count(2))) if n not in _HELD)
    _HELD[free] = samples
    try:
        yield f"{__name__}:{free}"
    finally:
        del _HELD[free]


def __getattr__(name: str) -> Any:
    if name in _HELD:
        return _HELD[name]
    raise AttributeError(f"module {__name__} has no attribute {name}")
