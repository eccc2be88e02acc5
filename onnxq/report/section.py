"""What a report on a terminal is made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Section:
    """A titled table. `columns` may be empty (no heads), `numbers` are set right; `mood`: good, bad, open or plain."""

    title: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int] = frozenset()
    mood: str = "plain"
