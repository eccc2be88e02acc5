"""Room for large arrays that passes make: on disk, mapped, so that memory does not hold all of a model's weights."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

SPILL_FROM = 1 << 24
"""Bytes of an array from which it lies in a file."""


def room(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """An array to fill: from SPILL_FROM bytes on a map of a temporary file that has no name and ends with the array."""
    dtype = np.dtype(dtype)
    size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if size < SPILL_FROM:
        return np.empty(shape, dtype=dtype)
    with tempfile.TemporaryFile(prefix="onnxq-") as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)
