"""Progress of long work on stderr: a bar on a terminal, a line now and then elsewhere; nothing in the first second."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from onnxq.progress import Progress

if TYPE_CHECKING:
    import rich.progress

_PATIENCE = 1.0
"""Seconds of work before anything is shown."""
_EVERY = 5.0
"""Seconds between plain lines."""


def make_progress(file: TextIO | None = None) -> Progress:
    """The right one for `file` (default: stderr)."""
    target = file if file is not None else sys.stderr
    return Bar(target) if target.isatty() else Lines(target)


class Bar:
    """A rich progress bar that appears after a second and leaves nothing behind but a line with the time taken."""

    def __init__(self, file: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.file = file
        self.clock = clock

    @contextmanager
    def task(self, label: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """See `onnxq.progress.Progress`."""
        start = self.clock()
        done = 0
        bar: rich.progress.Progress | None = None

        def step(units: int) -> None:
            nonlocal done, bar
            done += units
            if bar is None and self.clock() - start >= _PATIENCE:
                bar = self._open(label, total)
            if bar is not None:
                bar.update(bar.task_ids[0], completed=done, rate=_rate(done, self.clock() - start))

        try:
            yield step
        finally:
            if bar is not None:
                bar.stop()

    def _open(self, label: str, total: int | None) -> rich.progress.Progress:
        from rich import progress
        from rich.console import Console

        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeRemainingColumn(),
        )
        bar = progress.Progress(*columns, console=Console(file=self.file), transient=True)
        bar.start()
        bar.add_task(label, total=total, rate="")
        return bar


class Lines:
    """`calibrating: 120 of 256 (12 s, 10.0/s, 14 s left)` every few seconds, and a line at the end."""

    def __init__(self, file: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.file = file
        self.clock = clock

    @contextmanager
    def task(self, label: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """See `onnxq.progress.Progress`."""
        start = self.clock()
        shown: float | None = None
        done = 0

        def step(units: int) -> None:
            nonlocal done, shown
            done += units
            now = self.clock()
            finished = total is not None and done >= total  # the line at the end says that
            if not finished and now - (start + _PATIENCE - _EVERY if shown is None else shown) >= _EVERY:
                shown = now
                self._line(label, done, total, now - start)

        try:
            yield step
        finally:
            if self.clock() - start >= _PATIENCE:
                self._line(label, done, total, self.clock() - start, end=True)

    def _line(self, label: str, done: int, total: int | None, seconds: float, *, end: bool = False) -> None:
        of = f" of {total}" if total is not None else ""
        parts = [f"{'took ' if end else ''}{seconds:.0f} s", _rate(done, seconds)]
        if total is not None and 0 < done < total and not end:
            parts.append(f"{seconds / done * (total - done):.0f} s left")
        self.file.write(f"{label}: {done}{of} ({', '.join(parts)})\n")
        self.file.flush()


def _rate(done: int, seconds: float) -> str:
    """Units per second, three digits: `0.25/s`, `10.2/s`, `1250/s`."""
    rate = done / seconds if seconds > 0 else 0.0
    return f"{rate:.0f}/s" if rate >= 100 else f"{rate:.1f}/s" if rate >= 10 else f"{rate:.2f}/s"
