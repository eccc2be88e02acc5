"""Pieces of a run over the data: by position, so that they can be done in any order, anywhere, and again after a kill.

Statistics of pieces merge to those of the whole bit for bit, so a run that was killed and resumed, at whatever
moment, ends with the same bytes as one that was not.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from onnxq.data.sample import Dataset, Sample
from onnxq.data.wrapper import Wrapper
from onnxq.errors import OnnxqError
from onnxq.stats.cache import CacheWarning
from onnxq.stats.statistics import Statistics, merge_all

SECONDS = 20.0
"""Default time between two checkpoints."""


class Piece(Wrapper):
    """The samples of a data set at positions `start` to `stop`; a Dataset.

    Args:
        data: the whole.
        seconds: end behind the sample during which this time is over; `stop` then says where that was, and every
            further iteration ends there, too.

    Attributes:
        running: seconds that complete iterations took.
    """

    def __init__(
        self,
        data: Dataset,
        start: int,
        stop: int,
        *,
        seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(data)
        self.start, self.stop = start, stop
        self._seconds, self._clock = seconds, clock
        self.running = 0.0

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[Sample]:
        begun, position = self._clock(), self.start
        for sample in _between(self.data, self.start, self.stop):
            yield sample
            position += 1
            if self._seconds is not None and self._clock() - begun >= self._seconds:
                break
        self.running += self._clock() - begun
        if self._seconds is not None:
            self.stop, self._seconds = position, None


def _between(data: Dataset, start: int, stop: int) -> Iterator[Sample]:
    part: Any = getattr(data, "part", None)
    direct = part(start, stop) if part is not None else None
    return iter(direct) if direct is not None else itertools.islice(iter(data), start, stop)


class Pieces:
    """Statistics of the pieces that are done, adjacent ones merged, each in a file if a folder is given.

    Args:
        length: samples of the whole.
        folder: of the checkpoints; what lies there is taken over. It may be shared by processes that do the same.
    """

    def __init__(self, length: int, folder: Path | None) -> None:
        self.length, self.folder = length, folder
        self._done: dict[int, tuple[int, Statistics]] = {}
        self._files: dict[int, Path] = {}
        self._load()
        self.resumed = sum(found.samples for _, found in self._done.values())

    def gaps(self) -> list[tuple[int, int]]:
        """(start, stop) of what is not done, ascending."""
        out: list[tuple[int, int]] = []
        at = 0
        for start, (stop, _) in sorted(self._done.items()):
            if start > at:
                out.append((at, start))
            at = stop
        return [*out, (at, self.length)] if at < self.length else out

    def add(self, start: int, stop: int, found: Statistics) -> None:
        """Take a piece that is done."""
        old = []
        before = next((s for s, (e, _) in self._done.items() if e == start), None)
        if before is not None:
            old.append(self._files.pop(before, None))
            start, found = before, self._done.pop(before)[1].merge(found)
        if stop in self._done:
            old.append(self._files.pop(stop, None))
            behind, more = self._done.pop(stop)
            stop, found = behind, found.merge(more)
        self._done[start] = stop, found
        if (start, stop) != (0, self.length):  # of the whole there is an entry in a moment
            self._save(start, stop, found)
            for path in old:
                if path is not None and path != self._files.get(start):
                    path.unlink(missing_ok=True)

    def whole(self) -> Statistics:
        """The statistics of all samples."""
        assert not self.gaps()
        return merge_all(found for _, (_, found) in sorted(self._done.items()))

    def clear(self) -> None:
        """Remove the checkpoints."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _save(self, start: int, stop: int, found: Statistics) -> None:
        if self.folder is None:
            return
        # the name of the process: two of them may end a piece at the same position and remove it at another time
        path = self.folder / f"{start}-{stop}-{os.getpid()}.npz"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            found.save(path)
        except (OSError, OnnxqError) as error:
            warnings.warn(f"a checkpoint cannot be written ({error})", CacheWarning, stacklevel=2)
            return
        self._files[start] = path

    def _load(self) -> None:
        """Take pieces that do not overlap, the longer one of two that start together."""
        at = 0
        for start, stop, path in sorted(self._found(), key=lambda one: (one[0], -one[1])):
            if start < at or stop > self.length or stop <= start:
                continue
            try:
                found = Statistics.load(path)
            except OnnxqError as error:
                if path.exists():  # else another process was done with it
                    warnings.warn(f"a damaged checkpoint was thrown away ({error})", CacheWarning, stacklevel=2)
                    path.unlink(missing_ok=True)
                continue
            self._done[start] = stop, found
            self._files[start] = path
            at = stop

    def _found(self) -> list[tuple[int, int, Path]]:
        out: list[tuple[int, int, Path]] = []
        for path in self.folder.glob("*.npz") if self.folder is not None else ():
            with contextlib.suppress(ValueError):
                start, stop, _ = path.stem.split("-")
                out.append((int(start), int(stop), path))
        return out
