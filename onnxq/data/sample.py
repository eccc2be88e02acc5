"""What the data wing hands to everyone: samples, one at a time, re-iterable, never all in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """One run of the model.

    Attributes:
        index: position in the data set, from 0; fixed by sorted file name, so it is the same on every machine.
        name: where it came from, for messages (`img_3.png`, `calib.npz[17]`).
        inputs: input name -> array exactly as the model takes it (batch axis included).
        label: the label as stored (class index, string, array), or None.
    """

    index: int
    name: str
    inputs: Mapping[str, NDArray[Any]]
    label: Any = None


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """One input of the model: `shape` holds ints and, for symbolic or unknown dimensions, strings or None."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...]


class Dataset(Protocol):
    """A re-iterable source of samples."""

    @property
    def description(self) -> str:
        """One phrase for reports: `256 samples of calib.npz`."""
        ...

    @property
    def preprocess_summary(self) -> str:
        """One phrase for reports: `224x224 RGB, NCHW, scale 1/255, mean 0.485 0.456 0.406`, `arrays as stored`."""
        ...

    @property
    def labelled(self) -> bool:
        """True if every sample has a label."""
        ...

    @property
    def skipped(self) -> list[str]:
        """Files left out because of skip_bad, known after an iteration; each a sentence."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Sample]: ...
