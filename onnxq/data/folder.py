"""Which files of a folder are samples, in which order, and what their labels are."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxq.errors import DataError

IMAGES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif"})
ARRAYS = frozenset({".npy", ".npz"})
TEXTS = frozenset({".txt"})
LABELS = "labels.csv"


@dataclass(frozen=True, kw_only=True)
class Folder:
    """The samples of a folder, sorted by relative path, with their labels.

    Labels, in this order: the column `label` of `labels.csv`; else, if the files are in sub-folders, one class per
    sub-folder: its number if all sub-folders are named by integers, else its place in the sorted names.

    Attributes:
        path: where it is.
        shown: how the user named it.
        kind: "pictures", "array files", "texts", or "file" for a file alone.
        files: path of each sample relative to the folder, in POSIX form.
        labels: one per file, or None.
    """

    path: Path
    shown: Path
    kind: str
    files: tuple[str, ...]
    labels: tuple[Any, ...] | None

    @classmethod
    def alone(cls, path: Path, shown: Path) -> Folder:
        """A single file, seen as the folder of it."""
        return cls(path=path.parent, shown=shown.parent, kind="file", files=(path.name,), labels=None)

    @property
    def title(self) -> str:
        """What the user named: the folder, or the file if it stands alone."""
        return self.where(0) if self.kind == "file" else str(self.shown)

    def where(self, index: int) -> str:
        """A file for a sentence."""
        return str(self.shown / self.files[index])

    def label(self, index: int) -> Any:
        """The label of a file, or None."""
        return None if self.labels is None else self.labels[index]


def scan(path: Path, shown: Path) -> Folder:
    """Look through a folder and its class folders.

    Raises:
        DataError: no samples, samples of two kinds, files beside class folders, deeper folders, a labels.csv that does
            not fit the files.
    """
    found = sorted(p for p in path.iterdir() if not p.name.startswith("."))
    classes = [p for p in found if p.is_dir()]
    files = [p for p in found if p.is_file()]
    inner: list[Path] = []
    for folder in classes:
        for member in sorted(folder.iterdir()):
            if member.name.startswith("."):
                continue
            if member.is_dir() and not (path / LABELS).is_file():
                raise DataError(
                    f"{shown / folder.name / member.name} is a folder inside a class folder: "
                    f"put the samples directly into one folder per class"
                )
            if member.is_file():
                inner.append(member)
    kind, suffixes = _kind([*files, *inner], shown)
    outside = [p for p in files if p.suffix.lower() in suffixes]
    inside = [p for p in inner if p.suffix.lower() in suffixes]
    names = sorted(p.relative_to(path).as_posix() for p in [*outside, *inside])
    labels: tuple[Any, ...] | None = None
    if (path / LABELS).is_file():
        labels = read_labels(path / LABELS, shown / LABELS, names)
    elif inside:
        if outside:
            raise DataError(
                f"{shown} holds {outside[0].name} beside the class folder {inside[0].parent.name}: "
                f"put every sample into a class folder, or name the classes in {LABELS}"
            )
        index = class_index([p.name for p in classes])
        labels = tuple(index[name.split("/")[0]] for name in names)
    return Folder(path=path, shown=shown, kind=kind, files=tuple(names), labels=labels)


def class_index(names: Sequence[str]) -> dict[str, int]:
    """Class folder -> label: the integers themselves if all are integers, else the place in sorted order.

    >>> class_index(["dog", "cat"]), class_index(["7", "10"])
    ({'cat': 0, 'dog': 1}, {'7': 7, '10': 10})
    """
    if all(n.isascii() and n.isdigit() for n in names):
        return {n: int(n) for n in names}
    return {n: i for i, n in enumerate(sorted(names))}


def read_labels(path: Path, shown: Path, files: Sequence[str]) -> tuple[Any, ...]:
    """The labels of the files out of `labels.csv` (header `file,label`), as integers if all are written as such.

    Raises:
        DataError: another header, a row with no or two labels, a file named twice, not there, or without a row.
    """
    table: dict[str, str] = {}
    there = set(files)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.reader(stream))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{shown} cannot be read as CSV in UTF-8 ({error}): save it again") from error
    header = [cell.strip() for cell in rows[0]] if rows else []
    if header != ["file", "label"]:
        raise DataError(f'{shown} starts with "{",".join(header)}": its first line must be "file,label"')
    for line, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        if len(row) != 2:
            raise DataError(
                f"{shown}, line {line}, has {len(row)} columns: write file,label (quote a label with commas)"
            )
        name = row[0].strip().replace("\\", "/")
        if name in table:
            raise DataError(f"{shown}, line {line}, names {name} a second time: keep one row per file")
        if name not in there:
            raise DataError(f"{shown}, line {line}, names {name}, which is not in the folder: add it or drop the row")
        table[name] = row[1]
    without = [name for name in files if name not in table]
    if without:
        raise DataError(f"{shown} has {len(table)} labels for {len(files)} files: add a row for {without[0]}")
    values = [table[name] for name in files]
    if all(_integer(v) for v in values):
        return tuple(int(v) for v in values)
    return tuple(values)


def _integer(text: str) -> bool:
    """Written as Python would write it: "007" is a text, since the zeros would be lost."""
    try:
        return str(int(text)) == text.strip()
    except ValueError:
        return False


def _kind(files: Sequence[Path], shown: Path) -> tuple[str, frozenset[str]]:
    images = [p for p in files if p.suffix.lower() in IMAGES]
    arrays = [p for p in files if p.suffix.lower() in ARRAYS]
    texts = [p for p in files if p.suffix.lower() in TEXTS]
    if images and arrays:
        raise DataError(
            f"{shown} mixes pictures ({images[0].name}) with arrays ({arrays[0].name}): keep one kind in a folder"
        )
    if images:
        return "pictures", IMAGES
    if arrays:
        return "array files", ARRAYS
    if texts:
        return "texts", TEXTS
    others = f"only files like {files[0].name}" if files else "it is empty"
    raise DataError(
        f"{shown} holds no samples, {others}: put in pictures ({' '.join(sorted(IMAGES))}), arrays (.npy .npz), "
        f"texts (.txt) or ONNX test_data_set folders"
    )
