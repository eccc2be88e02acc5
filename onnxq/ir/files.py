"""Paths and folders that files are written to, whatever is in the files."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from onnxq.errors import OutputError


def check_writable(path: Path | str) -> None:
    """Say before any long work that an output path is no good.

    Raises:
        OutputError: the folder is missing or not writable, or the path is a folder, a device or the like.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the path of the file to write")
    if str(path) == "-" or (path.exists() and not path.is_file()):  # renaming a file to a device would remove that
        raise OutputError(f"{path} is no regular file; give the path of the file to write")
    parent = path.parent
    if not parent.is_dir():
        raise OutputError(f"{path} cannot be written: the folder {parent} does not exist; create it first")
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: the folder {parent} takes no files ({error.strerror}); choose another path"
        ) from error
    if path.exists() and not os.access(path, os.W_OK):
        raise OutputError(f"{path} cannot be written: it is read-only; remove it or choose another output path")


def write_text(path: Path, text: str, option: str) -> None:
    """A text file, all or nothing: a temporary file beside it, then a rename.

    Args:
        option: of the command line, that names the file.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".onnxq-", dir=path.parent) as folder:
            made = Path(folder) / path.name
            made.write_text(text, encoding="utf-8")
            made.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}): give another path with {option}") from error


def sync_folder(folder: Path) -> None:
    """Make the renames durable, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def temporary_folder(beside: Path | None, stack: contextlib.ExitStack) -> Path:
    """A temporary folder where hard links to the source work: beside it if it is on another file system."""
    default = Path(tempfile.gettempdir())
    parent = default
    if beside is not None and os.access(beside, os.W_OK) and beside.stat().st_dev != default.stat().st_dev:
        parent = beside
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".onnxq-", dir=parent)))
