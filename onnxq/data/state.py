"""Samples of models whose state is fed back: the state of the first sample comes from the data, or is zero."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.data.open import open_dataset
from onnxq.data.preprocess import Preprocess
from onnxq.data.sample import Dataset, InputSpec, Sample
from onnxq.data.wrapper import Wrapper
from onnxq.errors import DataError


class WithState(Wrapper):
    """A data set whose samples get fixed further inputs; a Dataset.

    Args:
        data: the samples without them.
        state: input -> array.
    """

    def __init__(self, data: Dataset, state: Mapping[str, NDArray[Any]]) -> None:
        super().__init__(data)
        self.state = dict(state)
        for name in ("identity", "digest", "part", "pick"):  # what only some data sets tell
            if hasattr(data, name):
                setattr(self, name, getattr(self, f"_{name}"))

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Sample]:
        for sample in self.data:
            yield replace(sample, inputs={**self.state, **sample.inputs})

    def _identity(self) -> tuple[str, list[Path]]:
        data: Any = self.data
        settings, files = data.identity()
        return f"{settings} {self._shown()}", files

    def _digest(self) -> str:
        data: Any = self.data
        return f"{data.digest()} {self._shown()}"

    def _part(self, start: int, stop: int) -> WithState | None:
        data: Any = self.data
        part = data.part(start, stop)
        return None if part is None else WithState(part, self.state)

    def _pick(self, positions: Sequence[int]) -> WithState | None:
        data: Any = self.data
        picked = data.pick(positions)
        return None if picked is None else WithState(picked, self.state)

    def _shown(self) -> list[tuple[str, str, tuple[int, ...]]]:
        return [(name, str(array.dtype), array.shape) for name, array in sorted(self.state.items())]


def open_stateful(
    path_or_reference: str | Path,
    inputs: Sequence[InputSpec],
    preprocess: Preprocess,
    *,
    state: Collection[str],
    base: Path = Path(),
    skip_bad: bool = False,
    limit: int | None = None,
) -> Dataset:
    """As `open_dataset`; where the data lack inputs of `state`, all of `state` is zero, free sizes 1.

    Raises:
        DataError: see `open_dataset`.
    """

    def opened(specs: Sequence[InputSpec]) -> Dataset:
        data = open_dataset(path_or_reference, specs, preprocess, base=base, skip_bad=skip_bad, limit=limit)
        if state:
            next(iter(data), None)  # what a function makes is known when it made one
        return data

    rest = [spec for spec in inputs if spec.name not in state]
    try:
        return opened(inputs)
    except DataError as error:
        if len(rest) == len(inputs) or not rest:
            raise
        try:
            data = opened(rest)
        except DataError:
            raise error from None  # the state is not what it lacks
        return WithState(data, {spec.name: _zeros(spec) for spec in inputs if spec.name in state})


def _zeros(spec: InputSpec) -> NDArray[Any]:
    return np.zeros([size if isinstance(size, int) and size > 0 else 1 for size in spec.shape], dtype=spec.dtype)
