"""From a source of single samples to what the model takes: spread over the limit, batched, bad files skipped."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxq.data.fit import show
from onnxq.data.sample import Dataset, Sample
from onnxq.errors import DataError, UsageError


class UnreadableError(DataError):
    """A file that is damaged; `skip_bad` leaves it out."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Item:
    """One sample of a source, before batching."""

    name: str
    inputs: dict[str, NDArray[Any]]
    label: Any = None


class Source(Protocol):
    """Files that know how many samples they hold without reading them.

    Attributes:
        where: what the user named, for messages.
        noun: what the samples are, plural (`pictures`).
        summary: what is done to them, for reports.
        batchable: every item has a batch axis of 1, so that items may be joined.
    """

    where: str
    noun: str
    summary: str
    batchable: bool

    @property
    def labelled(self) -> bool: ...

    def __len__(self) -> int: ...

    def identity(self, wanted: Sequence[int]) -> tuple[str, list[Path]]:
        """What the items at these positions follow from: the settings in words, and the files whose bytes count."""
        ...

    def items(self, wanted: Sequence[int]) -> Iterator[Item | UnreadableError]:
        """The items at the ascending positions `wanted`, in order; a damaged file gives the error as a value."""
        ...


class StreamDataset:
    """A Dataset over a Source: one sample (or one batch) in memory at a time.

    Args:
        source: the files.
        batch: the model's fixed batch size; items are joined along the first axis, a remainder is left out.
        limit: at most so many runs of the model, evenly spread over the source (files are sorted, often by class).
        skip_bad: leave damaged files out and record them, instead of raising.

    Raises:
        DataError: fewer items than one batch.
        UsageError: a limit below 1.
    """

    def __init__(self, source: Source, *, batch: int = 1, limit: int | None = None, skip_bad: bool = False) -> None:
        if limit is not None and limit < 1:
            raise UsageError(f"limit must be at least 1, not {limit}")
        self._source = source
        self._batch = batch if source.batchable else 1
        self._skip_bad = skip_bad
        self._skipped: list[str] = []
        self._runs = len(source) // self._batch
        if self._runs == 0:
            raise DataError(
                f"{source.where} holds {len(source)} {source.noun}, but the model takes batches of {batch}: add more"
            )
        self._chosen = spread(self._runs, limit)
        self._length = len(self._chosen)
        self._first = 0
        self.recipe: Callable[[], Dataset] | None = None

    def identity(self) -> tuple[str, list[Path]]:
        """What the samples follow from: the settings in words, and the files whose bytes count. Reads none of them."""
        settings, files = self._source.identity(self._wanted())
        return f"{settings} batch {self._batch} skip {self._skip_bad} runs {self._chosen}", files

    def part(self, start: int, stop: int) -> StreamDataset | None:
        """The samples at positions start to stop, which keep their index; nothing before them is read.

        None where positions are not known before all files were read: a bad file that is left out moves the rest.
        """
        if self._skip_bad:
            return None
        piece = copy.copy(self)
        piece._first = start
        piece._chosen = self._chosen[start:stop]
        piece._length = len(piece._chosen)
        return piece

    def pick(self, positions: Sequence[int]) -> StreamDataset | None:
        """The samples at these ascending positions, numbered anew; no others are read. None as for `part`."""
        if self._skip_bad:
            return None
        picked = copy.copy(self)
        picked._first = 0
        picked._chosen = [self._chosen[position] for position in positions]
        picked._length = len(picked._chosen)
        return picked

    @property
    def description(self) -> str:
        total, used = len(self._source), len(self._chosen)
        if self._batch > 1:
            batches = "1 batch" if used == 1 else f"{used} batches"
            text = f"{batches} of {self._batch} {self._source.noun} of {self._source.where}"
            dropped = total - self._runs * self._batch
            return f"{text}, remainder of {dropped} left out" if dropped else text
        if self._skipped:
            used = self._length
        if used < total:
            return f"{used} of {total} {self._source.noun} of {self._source.where}"
        noun = self._source.noun.removesuffix("s") if total == 1 else self._source.noun
        return f"{total} {noun} of {self._source.where}"

    @property
    def preprocess_summary(self) -> str:
        return self._source.summary

    @property
    def labelled(self) -> bool:
        return self._source.labelled

    @property
    def skipped(self) -> list[str]:
        return list(self._skipped)

    def __len__(self) -> int:
        return self._length

    def _wanted(self) -> list[int]:
        return [group * self._batch + k for group in self._chosen for k in range(self._batch)]

    def __iter__(self) -> Iterator[Sample]:
        b = self._batch
        wanted = self._wanted()
        skipped: list[str] = []
        held: list[Item] = []
        made = 0
        for position, item in enumerate(self._source.items(wanted)):
            if isinstance(item, UnreadableError):
                if not self._skip_bad:
                    raise item
                if skipped[-1:] != [str(item)]:  # a damaged file of several samples comes once for each
                    skipped.append(str(item))
                continue
            held.append(item)
            if len(held) == b:
                # a batch takes the next good file for a bad one; single samples keep the number of their file
                yield _join(self._first + (made if b > 1 else position), held)
                made += 1
                held = []
        self._skipped = skipped
        self._length = made
        if made == 0:
            raise DataError(
                f"nothing of {self._source.where} can be used, the first reason of {len(skipped)}: {skipped[0]}"
            )


def spread(total: int, limit: int | None) -> list[int]:
    """`limit` positions out of `total`, evenly spread, ascending.

    >>> spread(10, 4)
    [0, 2, 5, 7]
    """
    if limit is None or limit >= total:
        return list(range(total))
    return [i * total // limit for i in range(limit)]


def _join(index: int, items: Sequence[Item]) -> Sample:
    first = items[0]
    if len(items) == 1:
        return Sample(index=index, name=first.name, inputs=first.inputs, label=first.label)
    for item in items[1:]:
        for name, array in item.inputs.items():
            if array.shape != first.inputs[name].shape:
                raise DataError(
                    f"{item.name} has shape {show(array.shape)} and {first.name} {show(first.inputs[name].shape)}, but "
                    f"the model takes batches of {len(items)}, which need one size: resize them"
                )
    inputs = {name: np.concatenate([item.inputs[name] for item in items]) for name in first.inputs}
    labels = [item.label for item in items]
    label = None if first.label is None else np.array(labels)
    return Sample(index=index, name=f"{first.name} to {items[-1].name}", inputs=inputs, label=label)
