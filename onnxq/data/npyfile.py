"""Rows of .npy files and of the members of .npz files, read as a stream: one row in memory, whatever the file's size.

`np.load` maps a .npy into memory but reads a member of a .npz whole. Both hold the same format, a header and then the
values in C order, so both are read here in the same way, row by row, several members of a .npz side by side.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from onnxq.data.stream import UnreadableError
from onnxq.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Header:
    """Shape and type of a stored array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool


@dataclass(frozen=True, kw_only=True)
class ArrayFile:
    """A .npy or .npz file and the headers of its arrays; a .npy holds one array, named ""."""

    path: Path
    where: str
    headers: dict[str, Header]

    @classmethod
    def open(cls, path: Path, where: str) -> ArrayFile:
        """Read the headers.

        Raises:
            UnreadableError: damaged, or not in NumPy's format.
            DataError: it holds Python objects.
        """
        headers: dict[str, Header] = {}
        with _reading(where):
            if path.suffix.lower() == ".npz":
                with zipfile.ZipFile(path) as archive:
                    for member in archive.namelist():
                        with archive.open(member) as stream:
                            header = _header(stream, where)
                            _check_size(header, stream.tell(), archive.getinfo(member).file_size)
                        headers[member.removesuffix(".npy")] = header
            else:
                with path.open("rb") as stream:
                    headers[""] = _header(stream, where)
                    _check_size(headers[""], stream.tell(), path.stat().st_size)
        return cls(path=path, where=where, headers=headers)

    def whole(self, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """These arrays, complete.

        Raises:
            UnreadableError: damaged.
        """
        with ExitStack() as stack, _reading(self.where):
            streams = self._open(names, stack)
            return {name: _whole(streams[name], self.headers[name]) for name in names}

    def rows(self, names: Sequence[str], wanted: Sequence[int]) -> Iterator[dict[str, NDArray[Any]]]:
        """The rows at the ascending positions `wanted` of these arrays, one position at a time.

        An array in Fortran order has no rows in the file and is read whole.

        Raises:
            UnreadableError: damaged.
        """
        with ExitStack() as stack, _reading(self.where):
            streams = self._open(names, stack)
            readers = {name: _rows(streams[name], self.headers[name], wanted) for name in names}
            for _ in wanted:
                yield {name: next(reader) for name, reader in readers.items()}

    def _open(self, names: Sequence[str], stack: ExitStack) -> dict[str, IO[bytes]]:
        """Streams that stand behind the headers."""
        streams: dict[str, IO[bytes]] = {}
        archive = stack.enter_context(zipfile.ZipFile(self.path)) if self.path.suffix.lower() == ".npz" else None
        for name in names:
            if archive is None:
                streams[name] = stack.enter_context(self.path.open("rb"))
            else:
                member = f"{name}.npy" if f"{name}.npy" in archive.NameToInfo else name
                streams[name] = stack.enter_context(archive.open(member))
            _header(streams[name], self.where)
        return streams


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """Damage in one sentence. zlib.error is an Exception of its own, imported where it may be missing."""
    import zlib

    try:
        yield
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise UnreadableError(f"{where} is no readable NumPy file ({error}): write it again with np.save") from error


def _header(stream: IO[bytes], where: str) -> Header:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"format version {version[0]}.{version[1]}, which only records with named fields need")
    if dtype.hasobject:
        raise DataError(
            f"{where} holds Python objects (pickle), which are not loaded: save arrays of numbers or strings"
        )
    if dtype.names is not None:
        raise DataError(f"{where} holds records with fields {', '.join(dtype.names)}: save one plain array per input")
    return Header(shape=tuple(int(s) for s in shape), dtype=dtype, fortran=bool(fortran))


def _check_size(header: Header, start: int, size: int) -> None:
    """A cut file is known by its size; without this, a damaged header could ask for any amount of memory."""
    missing = start + math.prod(header.shape) * header.dtype.itemsize - size
    if missing > 0:
        raise EOFError(f"it ends {missing} bytes too early")


def _read(stream: IO[bytes], size: int) -> bytearray:
    """Writable, as arrays of a sample should be."""
    return bytearray(stream.read(size))


def _skip(stream: IO[bytes], size: int) -> None:
    """Forward without keeping anything; zip members are read, since Python 3.12.1 loses count when it seeks in one."""
    if not isinstance(stream, zipfile.ZipExtFile):
        stream.seek(size, io.SEEK_CUR)
        return
    while size > 0 and (some := stream.read(min(size, 1 << 20))):
        size -= len(some)


def _whole(stream: IO[bytes], header: Header) -> NDArray[Any]:
    flat = np.frombuffer(_read(stream, math.prod(header.shape) * header.dtype.itemsize), dtype=header.dtype)
    return flat.reshape(header.shape, order="F" if header.fortran else "C")


def _rows(stream: IO[bytes], header: Header, wanted: Sequence[int]) -> Iterator[NDArray[Any]]:
    if header.fortran and len(header.shape) > 1:
        whole = _whole(stream, header)
        for index in wanted:
            yield np.ascontiguousarray(whole[index])
        return
    shape = header.shape[1:]
    size = math.prod(shape) * header.dtype.itemsize
    at = 0
    for index in wanted:
        if index > at:
            _skip(stream, (index - at) * size)
        yield np.frombuffer(_read(stream, size), dtype=header.dtype).reshape(shape)
        at = index + 1
