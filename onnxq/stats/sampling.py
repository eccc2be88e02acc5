"""Which samples get a distribution: a rule of a sample's position and the length of the data set, and of nothing else.

Least and greatest value come from every sample. Counting a distribution costs as much again as the model's own run, and
neighbouring samples say the same, so of a long data set a fixed number of samples is counted, one from each of as many
equal stretches (files are often sorted by class), at a place drawn by a fixed hash. Because only the position decides,
any split of the samples over processes, and any order, gives the same statistics.
"""

from __future__ import annotations

DISTRIBUTION = 64
"""Samples that get a distribution, at most."""

_SEED = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def rank(position: int, length: int, keep: int | None = DISTRIBUTION) -> int | None:
    """The number of a sample among those that get a distribution; None if it gets none.

    Args:
        position: in the data set, from 0.
        length: samples of the whole data set; if these are no more than `keep`, every sample is counted.
        keep: as many at most; None for all.

    >>> [rank(i, 3) for i in range(3)]
    [0, 1, 2]
    >>> [i for i in range(1000) if rank(i, 1000, 4) is not None], rank(679, 1000, 4)
    ([35, 450, 679, 944], 2)
    """
    if keep is None or length <= keep:
        return position
    number = min((position * keep + keep - 1) // length, keep - 1)  # the stretch, or the one behind it
    if position < number * length // keep:
        number -= 1
    first, end = number * length // keep, (number + 1) * length // keep
    return number if position == first + _hash(number) % (end - first) else None


def shared(rank: int, share: tuple[int, int] | None) -> bool:
    """Does an observer with this `share` (k, n) see the sample of this rank: rank % n == k; None sees all."""
    return share is None or rank % share[1] == share[0]


def _hash(value: int) -> int:
    """The finalizer of splitmix64 (Steele, Lea, Flood 2014): fixed on every machine and in every version of numpy."""
    value = (value + 1) * _SEED & _MASK
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
    return value ^ value >> 31
