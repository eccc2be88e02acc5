"""How long work reports that it moves, without knowing a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Progress(Protocol):
    """`with progress.task("calibrating", total=64) as step: ... step(1)`."""

    def task(self, label: str, total: int | None) -> AbstractContextManager[Callable[[int], None]]:
        """A running task; call the value with the number of units done since the last call."""
        ...


class Silent:
    """Shows nothing."""

    @contextmanager
    def task(self, label: str, total: int | None) -> Iterator[Callable[[int], None]]:  # noqa: ARG002
        yield lambda _done: None
