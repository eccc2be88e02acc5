"""Samples in .npy and .npz files: one sample or a batch in a file, one file or a folder of them.

How the arrays of a file become samples is decided per file, from the headers alone, in this order:

1. *split*: every array has the model's rank, all have the same first axis N, and the model's first axis is free, 1 or
   a fixed batch: N samples of batch 1 (joined again to the fixed batch by `StreamDataset`).
2. *whole*: every array fits the model as it stands (no batch axis, as in a recurrent state): one sample.
3. *stacked*: every array has one axis more than the model, all with the same first axis N: N samples.
4. *single*: every array lacks the model's first axis, which is free or 1 (or a fixed batch): one sample.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from onnxq.data.fit import batch_size, check_types, fit_all, shape_fits, show, unit
from onnxq.data.folder import Folder
from onnxq.data.npyfile import ArrayFile
from onnxq.data.sample import InputSpec
from onnxq.data.stream import Item, UnreadableError
from onnxq.errors import DataError, did_you_mean

LABEL_NAMES = ("label", "labels")


class Mode(enum.Enum):
    """How a file's arrays become samples; see the module's docstring."""

    SPLIT = "split"
    WHOLE = "whole"
    STACKED = "stacked"
    SINGLE = "single"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a file holds for this model.

    Attributes:
        members: input name -> name of the array in the file.
        label: name of the label array, if any.
        mode: how arrays become samples.
        count: samples in the file.
    """

    members: dict[str, str]
    label: str | None
    mode: Mode
    count: int


def plan_file(file: ArrayFile, specs: Sequence[InputSpec], batch: int, *, prefer_whole: bool = True) -> Layout:
    """Match a file's arrays with the model's inputs.

    Args:
        file: the headers of the file.
        specs: the model's inputs.
        batch: the model's fixed batch, or 1.
        prefer_whole: take a file that holds exactly one fixed batch as one sample.

    Raises:
        DataError: an array is missing, of a wrong type or shape, or the label count differs from the sample count.
    """
    members, label = _members(file, specs)
    shapes: list[tuple[int, ...]] = []
    for spec in specs:
        header = file.headers[members[spec.name]]
        shapes.append(header.shape)
        error = check_types(header.dtype, spec, _array_name(file.where, members[spec.name]))
        if error is not None:
            raise error
    found = _mode(shapes, specs, batch, prefer_whole=prefer_whole)
    if found is None:
        misfits = [i for i, s in enumerate(specs) if _mode([shapes[i]], [s], batch, prefer_whole=True) is None]
        if not misfits:
            each = ", ".join(f'"{s.name}" {show(shape)}' for s, shape in zip(specs, shapes, strict=True))
            raise DataError(
                f"{file.where} holds {each}, which do not agree on the number of samples: make it one number"
            )
        spec, shape = specs[misfits[0]], shapes[misfits[0]]
        raise DataError(
            f'{_array_name(file.where, members[spec.name])} has shape {show(shape)}, but input "{spec.name}" '
            f"takes {show(spec.shape)}: give one sample or a batch of that shape"
        )
    mode, count = found
    if count == 0:
        raise DataError(f"{file.where} holds arrays of length 0, no sample: add samples")
    if label is not None and mode in (Mode.SPLIT, Mode.STACKED):
        shape = file.headers[label].shape
        labels = shape[0] if shape else 1
        if labels != count:
            raise DataError(
                f"{_array_name(file.where, label)} holds {labels} labels for {count} samples: give one label per sample"
            )
    return Layout(members=members, label=label, mode=mode, count=count)


def _array_name(where: str, member: str) -> str:
    return f'{where}, array "{member}",' if member else where


def _members(file: ArrayFile, specs: Sequence[InputSpec]) -> tuple[dict[str, str], str | None]:
    known = {s.name for s in specs}
    if not file.headers:
        raise DataError(f"{file.where} holds no arrays: save one per input, {', '.join(sorted(known))}")
    label = next((n for n in LABEL_NAMES if n in file.headers and n not in known), None)
    rest = [n for n in file.headers if n != label]
    if len(specs) == 1 and specs[0].name not in rest and len(rest) == 1:
        return {specs[0].name: rest[0]}, label
    for spec in specs:
        if spec.name not in rest:
            if rest == [""]:
                raise DataError(
                    f"{file.where} is one array, but the model has {len(specs)} inputs "
                    f"({', '.join(s.name for s in specs)}): save them by name with np.savez"
                )
            raise DataError(f'{file.where} lacks the input "{spec.name}": {did_you_mean(spec.name, rest)}')
    return {s.name: s.name for s in specs}, label


def _mode(
    shapes: Sequence[tuple[int, ...]], specs: Sequence[InputSpec], batch: int, *, prefer_whole: bool
) -> tuple[Mode, int] | None:
    """The first of the four rules that holds, and the number of samples that it gives."""
    pairs = list(zip(shapes, specs, strict=True))
    units = [(shape, unit(spec, batch)) for shape, spec in pairs]
    counts = {shape[0] if shape else None for shape in shapes}
    count = counts.pop() if len(counts) == 1 else None
    whole = all(shape_fits(shape, spec.shape) for shape, spec in pairs) and _agree(pairs)
    if batch > 1 and whole and prefer_whole:
        return Mode.WHOLE, 1
    if count is not None and all(u.shape and shape_fits((1, *s[1:]), u.shape) for s, u in units):
        return Mode.SPLIT, count
    if whole:
        return Mode.WHOLE, 1
    if count is not None and all(len(s) == len(p.shape) + 1 and shape_fits(s[1:], p.shape) for s, p in pairs):
        return Mode.STACKED, count
    if all(u.shape and shape_fits((1, *s), u.shape) for s, u in units):
        return Mode.SINGLE, 1
    return None


def _agree(pairs: Sequence[tuple[tuple[int, ...], InputSpec]]) -> bool:
    """Every symbol has one size."""
    sizes: dict[str, int] = {}
    dims = [(size, d) for shape, spec in pairs for size, d in zip(shape, spec.shape, strict=False)]
    return all(sizes.setdefault(d, size) == size for size, d in dims if isinstance(d, str))


class ArraySource:
    """One file of arrays, or a folder of them.

    Args:
        folder: the files; a single file is a folder of one.
        specs: the model's inputs.
        skip_bad: count a file whose header is damaged as one bad sample, instead of raising.

    Raises:
        DataError: see `plan_file`; a file with labels in a folder that gives labels as well.
    """

    noun = "samples"
    summary = "arrays as stored"

    def __init__(self, folder: Folder, specs: Sequence[InputSpec], *, skip_bad: bool) -> None:
        self.where = folder.title
        self._folder = folder
        self._specs = list(specs)
        batch = batch_size(specs)
        self._files: list[tuple[ArrayFile, Layout] | UnreadableError] = []
        for index, name in enumerate(folder.files):
            try:
                file = ArrayFile.open(folder.path / name, folder.where(index))
            except UnreadableError as error:
                if not skip_bad:
                    raise
                self._files.append(error)
                continue
            self._files.append((file, plan_file(file, specs, batch)))
        layouts = [f[1] for f in self._files if not isinstance(f, UnreadableError)]
        self.batchable = any(layout.mode in (Mode.SPLIT, Mode.SINGLE) for layout in layouts)
        if self.batchable and batch > 1:
            self._files = [
                f if isinstance(f, UnreadableError) else (f[0], plan_file(f[0], specs, batch, prefer_whole=False))
                for f in self._files
            ]
            layouts = [f[1] for f in self._files if not isinstance(f, UnreadableError)]
        with_label = [f[0].where for f in self._files if not isinstance(f, UnreadableError) and f[1].label is not None]
        if with_label and folder.labels is not None:
            raise DataError(f"{with_label[0]} holds labels, and {self.where} gives labels as well: keep one of them")
        if with_label and len(with_label) < len(layouts):
            without = next(f[0].where for f in self._files if not isinstance(f, UnreadableError) and f[1].label is None)
            raise DataError(f"{with_label[0]} holds labels and {without} does not: label all files or none")
        self.labelled = folder.labels is not None or bool(with_label)
        self._counts = [1 if isinstance(f, UnreadableError) else f[1].count for f in self._files]

    def __len__(self) -> int:
        return sum(self._counts)

    def identity(self, wanted: Sequence[int]) -> tuple[str, list[Path]]:
        """See `onnxq.data.stream.Source`. Every file counts whole, whatever rows of it are wanted."""
        start, files = 0, []
        for name, count in zip(self._folder.files, self._counts, strict=True):
            if any(start <= index < start + count for index in wanted):
                files.append(self._folder.path / name)
            start += count
        return repr((self._specs, self._counts)), files

    def items(self, wanted: Sequence[int]) -> Iterator[Item | UnreadableError]:
        start, at = 0, 0
        for index, file in enumerate(self._files):
            stop = start + self._counts[index]
            rows: list[int] = []
            while at < len(wanted) and wanted[at] < stop:
                rows.append(wanted[at] - start)
                at += 1
            start = stop
            if not rows:
                continue
            if isinstance(file, UnreadableError):
                yield file
                continue
            done = 0
            try:
                for item in self._file_items(index, *file, rows):
                    yield item
                    done += 1
            except UnreadableError as error:
                for _ in rows[done:]:
                    yield error

    def _file_items(self, index: int, file: ArrayFile, layout: Layout, rows: Sequence[int]) -> Iterator[Item]:
        names = [*layout.members.values(), *([layout.label] if layout.label else [])]
        by_rows = layout.mode in (Mode.SPLIT, Mode.STACKED)
        add_axis = layout.mode in (Mode.SPLIT, Mode.SINGLE)
        arrays_of = file.rows(names, rows) if by_rows else iter([file.whole(names)])
        for row, arrays in zip(rows, arrays_of, strict=True):
            base, where = self._folder.files[index], file.where
            if layout.count > 1:
                base, where = f"{base}[{row}]", f"{where}[{row}]"
            inputs = {spec.name: arrays[layout.members[spec.name]] for spec in self._specs}
            if add_axis:
                inputs = {name: array[None] for name, array in inputs.items()}
            label = self._folder.label(index) if layout.label is None else _label(arrays[layout.label])
            yield Item(name=base, inputs=self._fit(inputs, where), label=label)

    def _fit(self, inputs: dict[str, NDArray[Any]], where: str) -> dict[str, NDArray[Any]]:
        batch = batch_size(self._specs) if self.batchable else 1
        return fit_all(inputs, [unit(s, batch) for s in self._specs], where)


def _label(array: NDArray[Any]) -> Any:
    """A Python number or string for a label of one element, else the array."""
    return array.item() if array.size == 1 else array
