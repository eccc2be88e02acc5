"""The cache of statistics: what was collected once on the same model, samples and options is not collected again.

    <folder>/entries/<key>.npz        statistics
    <folder>/partial/<key>/           checkpoints of a run that goes on or was killed, see `onnxq.stats.checkpoint`
    <folder>/<kind>/<key>.json        results of other measurements, as texts
    <folder>/requests/<key>.json      a command line, the files it depends on with their hashes, and its entry

The key of an entry is a hash of the normalised graph with all values, the tensors, the observers, the bytes of the
samples' files in their order, the preprocessing, the options, and the environment: the versions of what computes, the
source of onnxq itself, and the CPU's instructions. The threads and the number of workers do not count, since they
change no bit.

A request spares even loading the model: it holds if every file that the command read before still has the same bytes.

Every file appears complete under its name or not at all (a rename), and equal keys have equal contents, so any number
of processes may use one folder. A file that cannot be read is thrown away with a warning. Above the limit, the files
that were not used for longest go first.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxq.errors import OnnxqError
from onnxq.stats.statistics import SCHEMA, Statistics

LIMIT = 1 << 30
"""Default bytes of all files of the cache."""

FOLDER_VARIABLE = "ONNXQ_CACHE_DIR"
"""Environment variable that names the folder."""

_CHUNK = 1 << 22


class CacheWarning(UserWarning):
    """An entry that could not be used; the work is done again."""


def default_folder() -> Path:
    """$ONNXQ_CACHE_DIR, else the user's cache folder for onnxq."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named).expanduser().resolve()
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("onnxq"))


def file_digest(path: Path) -> str:
    """A hash of a file's bytes.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).hexdigest()


def digest(*parts: Any) -> str:
    """A hash of plain values (None, texts, numbers, truth values, lists, mappings by sorted key)."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, allow_nan=True)
    return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()


def files_digest(files: Iterable[Path]) -> str:
    """A hash of the names and the bytes of files, in this order; a file that comes again is read once.

    Raises:
        OSError: one cannot be read.
    """
    once = functools.cache(file_digest)
    return digest([[path.name, once(path)] for path in files])


def changed_since(date: float, files: Iterable[Path]) -> bool:
    """Was any file written, renamed or touched after a date (seconds since 1970)? The inode's own time tells, which
    nobody can set back.

    Raises:
        OSError: one cannot be read.
    """
    return any(path.stat().st_ctime > date for path in set(files))


@functools.cache
def own_digest() -> str:
    """A hash of the source of everything that statistics depend on, so that a change of onnxq makes new keys."""
    package = Path(__file__).resolve().parent.parent
    wings = ("stats", "data", "runtime", "ir")
    return files_digest(sorted(path for wing in wings for path in (package / wing).glob("*.py")))


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a command was asked for, what it read, and where the answer is.

    Attributes:
        files: path -> hash of its bytes.
        folders: path -> hash of the names of all files in it.
        functions: hashes of samples that a function made, by how it is opened again; checked by who asks.
        entry: key of the statistics.
    """

    files: Mapping[str, str]
    folders: Mapping[str, str]
    functions: Mapping[str, str]
    entry: str

    def holds(self) -> bool:
        """Are all files and folders as they were?"""
        try:
            return all(file_digest(Path(p)) == d for p, d in self.files.items()) and all(
                folder_digest(Path(p)) == d for p, d in self.folders.items()
            )
        except OSError:
            return False


def folder_digest(folder: Path) -> str:
    """A hash of the names of all files in a folder and below; their bytes do not count.

    Raises:
        OSError: it cannot be read.
    """

    def fail(error: OSError) -> None:
        raise error

    found = [
        (Path(at) / name).relative_to(folder).as_posix()
        for at, _, names in os.walk(folder, onerror=fail)
        for name in names
    ]
    return digest(sorted(found))


class Cache:
    """Statistics by key, in a folder.

    Args:
        folder: made when something is stored.
        environment: versions and instruction set, part of every key.
        limit: bytes of all files at most.
    """

    def __init__(self, folder: Path, *, environment: str = "", limit: int = LIMIT) -> None:
        self.folder, self.environment, self.limit = folder, environment, limit

    def key(self, *parts: Any) -> str:
        """The key of plain values, see `digest`; the environment, the schema and our source count, too."""
        return digest(self.environment, SCHEMA, own_digest(), *parts)

    def get(self, key: str) -> Statistics | None:
        """The statistics of a key, or None. A damaged entry is removed, and a `CacheWarning` says so."""
        path = self.entry(key)
        if not path.is_file():
            return None
        try:
            found = Statistics.load(path)
        except OnnxqError as error:
            warnings.warn(f"a damaged cache entry was thrown away ({error})", CacheWarning, stacklevel=2)
            path.unlink(missing_ok=True)
            return None
        with contextlib.suppress(OSError):  # used now: it goes last; a folder that is read-only stays as it is
            os.utime(path)
        return found

    def put(self, key: str, statistics: Statistics) -> None:
        """Store statistics. A folder that cannot be written is no error: a `CacheWarning` says so."""
        try:
            self.entry(key).parent.mkdir(parents=True, exist_ok=True)
            statistics.save(self.entry(key))
            self._trim()
        except (OSError, OnnxqError) as error:
            warnings.warn(f"the cache {self.folder} cannot be written ({error})", CacheWarning, stacklevel=2)

    def text(self, kind: str, key: str) -> str | None:
        """A text that `put_text` stored, or None."""
        path = self.folder / kind / f"{key}.json"
        try:
            found = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            warnings.warn(f"a damaged cache entry was thrown away ({path}: {error})", CacheWarning, stacklevel=2)
            path.unlink(missing_ok=True)
            return None
        with contextlib.suppress(OSError):  # as for `get`
            os.utime(path)
        return found

    def put_text(self, kind: str, key: str, text: str) -> None:
        """Store a text of some kind. A folder that cannot be written is no error: a `CacheWarning` says so."""
        path = self.folder / kind / f"{key}.json"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, text)
            self._trim()
        except OSError as error:
            warnings.warn(f"the cache {self.folder} cannot be written ({error})", CacheWarning, stacklevel=2)

    def entry(self, key: str) -> Path:
        """The file of a key, there or not."""
        return self.folder / "entries" / f"{key}.npz"

    def partial(self, key: str) -> Path:
        """The folder for checkpoints of a key, there or not."""
        return self.folder / "partial" / key

    def remember(self, asked: str, request: Request) -> None:
        """Store what a command (its key `asked`) read and found."""
        path = self.folder / "requests" / f"{asked}.json"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, json.dumps(vars(request), sort_keys=True))
        except OSError as error:
            warnings.warn(f"the cache {self.folder} cannot be written ({error})", CacheWarning, stacklevel=2)

    def recall(self, asked: str) -> Request | None:
        """What was stored for a command, or None; it may hold no longer."""
        path = self.folder / "requests" / f"{asked}.json"
        try:
            return Request(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            warnings.warn(f"a damaged cache entry was thrown away ({path}: {error})", CacheWarning, stacklevel=2)
            path.unlink(missing_ok=True)
            return None

    def _trim(self) -> None:
        """Remove the files that were not used for longest until the rest is within the limit."""
        found: list[tuple[int, int, Path]] = []
        for at, _, names in os.walk(self.folder):
            for name in names:
                with contextlib.suppress(OSError):  # another process may have removed it
                    path = Path(at) / name
                    status = path.stat()
                    found.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.limit:
                break
            with contextlib.suppress(OSError):
                path.unlink()
                total -= size


def _write(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
        file.write(text)
    Path(file.name).replace(path)
