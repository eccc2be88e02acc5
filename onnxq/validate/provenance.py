"""What a result was made of, so that it can be made again: files by their hashes, the pipeline, seeds, the command."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxq.data.sample import Dataset
from onnxq.ir.load import external_files
from onnxq.validate.accuracy import SEED

MOST = 4 << 30
"""Bytes above which samples are not hashed: about ten seconds of reading."""


@dataclass(frozen=True, kw_only=True)
class Hashed:
    """A model or a set of samples, and what it is to the bit.

    Attributes:
        role: "float model", "quantized model", "calibration samples", "evaluation samples", "statistics" or "ranges".
        path: as it was given.
        files: how many were read.
        bytes: of all of them.
        sha256: of one file its own, as `sha256sum FILE` prints; of several that of the list "hash, two spaces, name"
            in the order they were used, as `sha256sum FILES | sha256sum` prints in their folder. "" if not hashed.
        note: why it was not.
    """

    role: str
    path: str
    files: int = 0
    bytes: int = 0
    sha256: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """All that is needed to do it again, besides the versions and the machine in `Environment`.

    Attributes:
        command: words of the command line; empty for calls from Python.
        pipeline: that ran, as a pipeline file with every default written out; "" if none did.
        inputs: models and samples with their hashes.
        seeds: of what draws numbers; everything else draws none.
    """

    command: tuple[str, ...] = ()
    pipeline: str = ""
    inputs: tuple[Hashed, ...] = ()
    seeds: Mapping[str, int] = field(default_factory=lambda: {"bootstrap": SEED})


def of_model(role: str, path: Path, *, shown: Path | None = None) -> Hashed:
    """A model with the files that hold its weights.

    Args:
        shown: the path to name, where the file is still under another one.

    Raises:
        ModelError: it is no model.
    """
    return _hashed(role, str(shown or path), [path, *sorted(set(external_files(path)))])


def of_file(role: str, path: Path) -> Hashed:
    """Any one file."""
    return _hashed(role, str(path), [path])


def of_data(role: str, path: str, data: Dataset) -> Hashed:
    """The files that samples came from; what a function made has none."""
    identity: Any = getattr(data, "identity", None)
    if identity is None:
        return Hashed(role=role, path=path, note="a function made them")
    return _hashed(role, path, dict.fromkeys(identity()[1]))


def _hashed(role: str, path: str, files: Iterable[Path]) -> Hashed:
    found = list(files)
    try:
        total = sum(file.stat().st_size for file in found)
        if total > MOST:
            return Hashed(role=role, path=path, files=len(found), bytes=total, note="too large to hash each time")
        sums = [_sha256(file) for file in found]
    except OSError as error:  # moved since it was read
        return Hashed(role=role, path=path, note=f"cannot be read any more ({error.strerror})")
    lines = "".join(f"{one}  {file.name}\n" for one, file in zip(sums, found, strict=True))
    joined = sums[0] if len(sums) == 1 else hashlib.sha256(lines.encode()).hexdigest()
    return Hashed(role=role, path=path, files=len(found), bytes=total, sha256=joined)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
