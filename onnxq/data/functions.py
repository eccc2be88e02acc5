"""Samples out of Python: `module:function`, `file.py:function`, or a name that a package registered for onnxq.data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from itertools import islice
from typing import Any

import numpy as np

from onnxq.data.fit import fit_all
from onnxq.data.sample import Dataset, InputSpec, Sample
from onnxq.data.stream import spread
from onnxq.errors import DataError, OnnxqError, UsageError


class FunctionDataset:
    """What a function (called again for every iteration) or a re-iterable object yields, as the model takes it.

    Anything with `len()` and numbered elements will do as well: a list, or a map-style data set of PyTorch. An element
    is a mapping of input names to arrays, a pair (mapping, label), or, for a model of one input, an array or a pair
    (array, label). The length is `len()` of what is returned if that has one; else it is counted, once, in a pass of
    its own, if someone asks before the first complete iteration.

    Args:
        source: the function or the iterable.
        name: what the user named.
        specs: the model's inputs.
        limit: at most so many elements: evenly spread where they are numbered (`spread`), else the first ones, since a
            stream may have no end.

    Raises:
        DataError: an iterator, which can be read only once.
        UsageError: neither a function nor an iterable; a limit below 1.
    """

    preprocess_summary = "as the function gives it"

    def __init__(self, source: Any, name: str, specs: Sequence[InputSpec], *, limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise UsageError(f"limit must be at least 1, not {limit}")
        if isinstance(source, Iterator):
            raise DataError(f"{name} is an iterator, which can be read only once: name the function that makes it")
        if not callable(source) and not isinstance(source, Iterable) and not _numbered(source):
            raise UsageError(f"{name} is of type {type(source).__name__}: name a function that yields samples")
        self._source = source
        self._name = name
        self._specs = list(specs)
        self._limit = limit
        self._length: int | None = None
        self._labelled: bool | None = None
        self.recipe: Callable[[], Dataset] | None = None

    def digest(self) -> str:
        """A hash of every array that is yielded: what a function reads is not known, so it is run for this.

        Labels do not count. Needs no `specs`.

        Raises:
            DataError: an element that is no array.
        """
        state = hashlib.blake2b(digest_size=32)
        count = 0
        for index, element in self._elements(self._make()):
            value = element[0] if isinstance(element, tuple) and len(element) == 2 else element
            arrays = value if isinstance(value, Mapping) else {"": value}
            for name, one in sorted(arrays.items()):
                array = self._array(one, f"sample {index} of {self._name}")
                plain = array if array.dtype != object else array.astype(str)
                state.update(f"{index} {name!r} {plain.dtype} {plain.shape} ".encode())
                state.update(np.ascontiguousarray(plain).reshape(-1).view(np.uint8).data if plain.size else b"")
            count += 1
        self._length = count
        return state.hexdigest()

    @property
    def description(self) -> str:
        return f"{len(self)} sample{'s' if len(self) != 1 else ''} of {self._name}"

    @property
    def labelled(self) -> bool:
        if self._labelled is None:
            next(iter(self), None)
        return bool(self._labelled)

    @property
    def skipped(self) -> list[str]:
        return []

    def __len__(self) -> int:
        if self._length is None:
            made = self._make()
            count = len(made) if isinstance(made, Sized) else self._count(made)
            self._length = count if self._limit is None else min(count, self._limit)
        return self._length

    def __iter__(self) -> Iterator[Sample]:
        count = 0
        for index, element in self._elements(self._make()):
            where = f"sample {index} of {self._name}"
            value, label = self._take_apart(element, where)
            if self._labelled is None:
                self._labelled = label is not None
            elif self._labelled != (label is not None):
                state = "has a label" if label is not None else "has no label"
                raise DataError(f"{where} {state}, unlike the first one: label all samples or none")
            inputs = fit_all({k: self._array(v, where) for k, v in value.items()}, self._specs, where)
            yield Sample(index=index, name=f"{self._name}[{index}]", inputs=inputs, label=label)
            count += 1
        if count == 0:
            raise DataError(f"{self._name} yields no sample: it must yield at least one")
        self._length = count

    def _make(self) -> Any:
        """Something to iterate over, or numbered."""
        if not callable(self._source):
            return self._source
        try:
            made = self._source()
        except OnnxqError:
            raise
        # the user's own code may raise anything; the cause travels along
        except Exception as error:
            raise self._failed(error) from error
        if not isinstance(made, Iterable) and not _numbered(made):
            raise DataError(f"{self._name} returns something of type {type(made).__name__}: it must yield samples")
        return made

    def _elements(self, made: Any) -> Iterator[tuple[int, Any]]:
        """The elements that count, with their numbers."""
        numbered = ((at, made[at]) for at in spread(len(made), self._limit)) if _numbered(made) else None
        iterator: Iterator[tuple[int, Any]] = numbered or islice(enumerate(made), self._limit)
        while True:
            try:
                element = next(iterator)
            except StopIteration:
                return
            except OnnxqError:
                raise
            except Exception as error:
                raise self._failed(error) from error
            yield element

    def _count(self, made: Any) -> int:
        return sum(1 for _ in self._elements(made))

    def _failed(self, error: Exception) -> DataError:
        return DataError(f"{self._name} failed with {type(error).__name__} ({error}): mend the function")

    def _take_apart(self, element: Any, where: str) -> tuple[Mapping[str, Any], Any]:
        """(inputs by name, label or None)."""
        value, label = element if isinstance(element, tuple) and len(element) == 2 else (element, None)
        if isinstance(value, Mapping):
            return value, label
        if len(self._specs) != 1:
            raise DataError(
                f"{where} is of type {type(value).__name__}, but the model has {len(self._specs)} inputs "
                f"({', '.join(s.name for s in self._specs)}): yield a dict of arrays by name"
            )
        return {self._specs[0].name: value}, label

    def _array(self, value: Any, where: str) -> np.ndarray[Any, Any]:
        try:
            return np.asarray(value)
        except Exception as error:
            raise DataError(
                f"{where} holds a {type(value).__name__} that is no array ({error}): yield arrays"
            ) from error


def _numbered(value: Any) -> bool:
    return isinstance(value, Sized) and hasattr(value, "__getitem__") and not isinstance(value, Mapping)
