"""TensorProto <-> ndarray, with external data left on disk.

An array above MEMMAP_FROM bytes whose data lies in an external file becomes a read-only `np.memmap`: opening a model of
many gigabytes costs nothing until its weights are read. (Packed types below one byte cannot be mapped; they are read.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxq.errors import ModelError

MEMMAP_FROM = 1 << 20
"""Bytes from which external data is mapped, not read."""

CHUNK = 1 << 24
"""Bytes that are copied or hashed at a time."""

_PACKED: dict[int, int] = {
    TensorProto.INT4: 2,
    TensorProto.UINT4: 2,
    TensorProto.FLOAT4E2M1: 2,
    TensorProto.INT2: 4,
    TensorProto.UINT2: 4,
}
"""Elements per byte of the types that are packed."""


def numpy_dtype(data_type: int) -> np.dtype[Any]:
    """The numpy type of an ONNX element type; types that numpy lacks come from ml_dtypes; strings are objects.

    >>> numpy_dtype(onnx.TensorProto.FLOAT)
    dtype('float32')
    """
    return np.dtype(helper.tensor_dtype_to_np_dtype(data_type))


def onnx_dtype(dtype: Any) -> int:
    """The ONNX element type of a numpy type (or of a number that is one already, as graphsurgeon has it).

    >>> onnx_dtype(np.uint8)
    2
    """
    if isinstance(dtype, int):
        return dtype
    dtype = np.dtype(dtype)
    if dtype.kind in "OSUT":
        return int(TensorProto.STRING)
    return int(helper.np_dtype_to_tensor_dtype(dtype))


def to_array(tensor: TensorProto, folder: Path | None, where: str = "the model") -> NDArray[Any]:
    """The values of a tensor, read-only; external data is looked up in `folder`.

    Raises:
        ModelError: external data is missing, too short, or outside of the folder.
    """
    if tensor.data_location == TensorProto.EXTERNAL:
        return _external(tensor, folder, where)
    try:
        array = numpy_helper.to_array(tensor)
    except UnicodeDecodeError:
        array = np.empty(len(tensor.string_data), dtype=object)
        array[:] = list(tensor.string_data)
        array = array.reshape(tuple(tensor.dims))
    except ValueError as error:
        raise ModelError(
            f'{where}: the data of tensor "{tensor.name}" does not fit its shape {list(tensor.dims)}; '
            "the file is damaged, export it again"
        ) from error
    array = np.asarray(array)
    array.flags.writeable = False
    return array


def byte_count(shape: tuple[int, ...], data_type: int) -> int:
    """Bytes of a tensor as raw data."""
    count = math.prod(shape)
    per_byte = _PACKED.get(data_type)
    if per_byte is not None:
        return -(-count // per_byte)
    return count * int(numpy_dtype(data_type).itemsize)


def header(name: str, array: NDArray[Any]) -> TensorProto:
    """A TensorProto without data."""
    tensor = TensorProto(data_type=onnx_dtype(array.dtype))
    if name:
        tensor.name = name
    tensor.dims.extend(array.shape)
    return tensor


def to_proto(name: str, array: NDArray[Any]) -> TensorProto:
    """A TensorProto with its data inside; raw little-endian except strings."""
    tensor = header(name, array)
    if tensor.data_type == TensorProto.STRING:
        tensor.string_data.extend(v if isinstance(v, bytes) else str(v).encode() for v in array.ravel().tolist())
    elif tensor.data_type in _PACKED:
        tensor.raw_data = numpy_helper.from_array(np.ascontiguousarray(array)).raw_data
    else:
        tensor.raw_data = array.tobytes()
    return tensor


def streamable(array: NDArray[Any]) -> bool:
    """True if the bytes of the array are its raw data as ONNX stores it (not so for strings and packed types)."""
    data_type = onnx_dtype(array.dtype)
    return data_type != TensorProto.STRING and data_type not in _PACKED


def raw_chunks(array: NDArray[Any]) -> Iterator[bytes | memoryview]:
    """The raw data of an array (as TensorProto.raw_data holds it) in pieces of at most CHUNK bytes."""
    data_type = onnx_dtype(array.dtype)
    if data_type == TensorProto.STRING:
        for value in array.ravel().tolist():
            text = value if isinstance(value, bytes) else str(value).encode()
            yield len(text).to_bytes(8, "little") + text
        return
    if data_type in _PACKED:
        yield numpy_helper.from_array(np.ascontiguousarray(array)).raw_data
        return
    flat = (array if array.flags.c_contiguous else np.ascontiguousarray(array)).reshape(-1)
    step = max(1, CHUNK // max(1, array.dtype.itemsize))
    for start in range(0, flat.size, step):
        yield flat[start : start + step].view(np.uint8).data


def sparse_to_array(sparse: onnx.SparseTensorProto, folder: Path | None, where: str) -> NDArray[Any]:
    """The dense array of a sparse initializer; indices are linear [NNZ] or coordinates [NNZ, rank]."""
    values = to_array(sparse.values, folder, where)
    indices = to_array(sparse.indices, folder, where).astype(np.int64)
    dense = np.zeros(tuple(sparse.dims), dtype=values.dtype)
    if indices.ndim == 1:
        dense.reshape(-1)[indices] = values
    else:
        dense[tuple(indices.T)] = values
    dense.flags.writeable = False
    return dense


def _external(tensor: TensorProto, folder: Path | None, where: str) -> NDArray[Any]:
    entries = {e.key: e.value for e in tensor.external_data}
    location = entries.get("location", "")
    pure = PurePosixPath(location)
    if folder is None or not location or pure.is_absolute() or ".." in pure.parts:
        raise ModelError(
            f'{where}: tensor "{tensor.name}" wants the external data file "{location}", which is not a path below the '
            "folder of the model; export the model with its data file beside it"
        )
    path = folder / location
    if not path.is_file():
        raise ModelError(
            f'{where}: the external data file "{location}" with the values of tensor "{tensor.name}" is missing; '
            "put it beside the model"
        )
    shape = tuple(tensor.dims)
    wanted = byte_count(shape, tensor.data_type)
    try:
        offset = int(entries.get("offset", "0") or 0)
        length = int(entries.get("length", "0") or 0) or wanted
    except ValueError as error:
        raise ModelError(
            f'{where}: tensor "{tensor.name}" has an offset or length of external data that is no number; '
            "export the model again"
        ) from error
    size = path.stat().st_size
    if offset < 0 or offset + wanted > size:
        raise ModelError(
            f'{where}: the external data file "{location}" ends after {size} bytes, but tensor "{tensor.name}" needs '
            f"bytes {offset} to {offset + wanted}; the file is truncated, copy it again"
        )
    if length != wanted:
        raise ModelError(
            f'{where}: tensor "{tensor.name}" of shape {list(shape)} takes {wanted} bytes, but its external data says '
            f"{length}; export the model again"
        )
    if wanted >= MEMMAP_FROM and tensor.data_type not in _PACKED:
        return np.memmap(path, dtype=numpy_dtype(tensor.data_type), mode="r", offset=offset, shape=shape)
    with path.open("rb") as file:
        file.seek(offset)
        raw = file.read(wanted)
    inside = TensorProto(name=tensor.name, data_type=tensor.data_type, raw_data=raw)
    inside.dims.extend(shape)
    array = np.asarray(numpy_helper.to_array(inside))
    array.flags.writeable = False
    return array
