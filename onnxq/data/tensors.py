"""ONNX test data: folders `test_data_set_0`, `test_data_set_1`, ... with one `input_<i>.pb` per input of the model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from onnxq.data.fit import fit_all
from onnxq.data.sample import InputSpec
from onnxq.data.stream import Item, UnreadableError
from onnxq.errors import DataError

_SET = re.compile(r"test_data_set_(\d+)")
_INPUT = re.compile(r"input_(\d+)\.pb")


def data_sets(path: Path) -> list[Path]:
    """The test data sets in a folder, by number; the folder itself if it is one; empty if there are none."""
    if _inputs(path):
        return [path]
    found = [(int(m[1]), p) for p in path.iterdir() if (m := _SET.fullmatch(p.name)) and p.is_dir()]
    return [p for _, p in sorted(found)]


def _inputs(path: Path) -> list[Path]:
    found = [(int(m[1]), p) for p in path.iterdir() if (m := _INPUT.fullmatch(p.name))]
    return [p for _, p in sorted(found)]


class TensorSource:
    """One sample per test data set, arrays exactly as the model takes them.

    Tensors are matched by the names that they carry if every input's name is among them, else by number, in the order
    of the model's inputs.

    Raises:
        DataError: a set has too few files, or too many without the inputs' names.
    """

    noun = "test data sets"
    summary = "tensors as stored"
    batchable = False
    labelled = False

    def __init__(self, sets: Sequence[Path], shown: Path, path: Path, specs: Sequence[InputSpec]) -> None:
        self.where = str(shown)
        self._names = [str(shown / s.relative_to(path)) for s in sets]
        self._sets = list(sets)
        self._specs = list(specs)
        for name, folder in zip(self._names, self._sets, strict=True):
            count = len(_inputs(folder))
            if count < len(specs):
                raise DataError(
                    f"{name} holds {count} files input_<i>.pb, but the model has {len(specs)} inputs "
                    f"({', '.join(s.name for s in specs)}): add the missing ones"
                )

    def __len__(self) -> int:
        return len(self._sets)

    def identity(self, wanted: Sequence[int]) -> tuple[str, list[Path]]:
        """See `onnxq.data.stream.Source`."""
        return repr(self._specs), [path for index in wanted for path in _inputs(self._sets[index])]

    def items(self, wanted: Sequence[int]) -> Iterator[Item | UnreadableError]:
        for index in wanted:
            where = self._names[index]
            try:
                arrays = self._read(self._sets[index], where)
            except UnreadableError as error:
                yield error
                continue
            yield Item(name=self._sets[index].name, inputs=fit_all(arrays, self._specs, where))

    def _read(self, folder: Path, where: str) -> dict[str, NDArray[Any]]:
        from onnxq.ir.tensor_io import read_tensor

        tensors: list[tuple[str, NDArray[Any]]] = []
        for path in _inputs(folder):
            try:
                tensors.append(read_tensor(path))
            except (OSError, ValueError) as error:
                raise UnreadableError(
                    f"{where}/{path.name} is no readable tensor ({error}): write it again or remove the set"
                ) from error
        wanted = [s.name for s in self._specs]
        named = dict(tensors)
        if all(name in named for name in wanted):
            return {name: named[name] for name in wanted}
        if len(tensors) != len(wanted):
            raise DataError(
                f"{where} holds {len(tensors)} tensors that do not carry the names of the model's {len(wanted)} inputs "
                f"({', '.join(wanted)}): keep one file per input"
            )
        return {name: array for name, (_, array) in zip(wanted, tensors, strict=True)}
