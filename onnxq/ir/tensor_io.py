"""Reads a tensor of an ONNX test data set: protobuf for the data wing, which does not touch it itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import numpy_helper


def read_tensor(path: Path) -> tuple[str, NDArray[Any]]:
    """The name (may be empty) and the values of a file that holds one serialized TensorProto.

    Raises:
        ValueError: the file is damaged or holds something else (a sequence, an optional).
        OSError: the file cannot be read.
    """
    proto = onnx.TensorProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise ValueError(f"not a tensor: {error}") from error
    if proto.data_type == onnx.TensorProto.UNDEFINED:
        raise ValueError("not a tensor: it has no type")
    try:
        return proto.name, numpy_helper.to_array(proto)
    except (TypeError, KeyError) as error:
        raise ValueError(f"not a tensor that NumPy can hold: {error}") from error
