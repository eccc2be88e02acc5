"""Trials within a limit of time: in pieces, the loudest tensors first, until the next piece would end too late.

A piece runs its trials on all samples, so what is measured at all is measured as without a limit, to the bit. The first
piece is run on one sample beforehand: where it would take more than half of the time on all of them, there are fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onnxq.data.stream import spread
from onnxq.sensitivity.measure import Rows, Trial

FIRST = 8
"""Trials of the first piece, which runs whatever it takes."""

GROWTH = 4
"""Each further piece has at most so many times the trials of the one before: it costs the float runs once more, and
other processes open their sessions again."""

Positions = tuple[int, ...]

Run = Callable[[int, Sequence[Trial], Positions], Rows]
"""Rows of a pass (by number) for some trials on the samples at these positions."""


def within(
    seconds: float, trials: Sequence[Trial], passes: Sequence[Positions], run: Run, clock: Callable[[], float]
) -> tuple[tuple[Trial, ...], list[Rows], list[int]]:
    """The first trials, as many as there is time for, the rows of each pass, and how many samples it has.

    Args:
        seconds: from now on.
        trials: the most wanted first.
        passes: positions of the samples that each pass has, if there is time for all of them.
        clock: seconds since some moment.
    """
    begin = clock()
    total = 0.0
    for number, positions in enumerate(passes):
        before = clock()
        run(number, trials[:FIRST], positions[:1])
        total += (clock() - before) * len(positions)
    part = min(1.0, seconds / 2 / total) if total else 1.0
    chosen = [tuple(p[i] for i in spread(len(p), max(1, int(len(p) * part)))) for p in passes]
    parts: list[list[Rows]] = [[] for _ in passes]
    done, size = 0, min(FIRST, len(trials))
    while size:
        before = clock()
        for number, positions in enumerate(chosen):
            parts[number].append(run(number, trials[done : done + size], positions))
        done += size
        now, left = clock(), len(trials) - done
        each = (now - before) / size
        room = int((begin + seconds - now) / each) if each else left
        size = min(left, GROWTH * size, room)
        if size < min(FIRST, left):
            break
    return tuple(trials[:done]), [Rows.beside(some) for some in parts], [len(p) for p in chosen]
