"""Taps whose elements are picked in the same way: how many, how far apart, and how many rows of their tails."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from onnxq.stats.forecasts import Forecast
from onnxq.stats.guards import Shape
from onnxq.stats.picks import EVERY, pace
from onnxq.stats.stream import Layout
from onnxq.stats.tails import rows_of

FORECAST = 4
"""Of tensors whose size is forecast, the rows of so much smaller ones are fetched: they are many, and small."""

REMEMBERED = 256
"""Shapes of inputs for which it is kept what follows from them."""


class Group(NamedTuple):
    """What its taps have in common.

    Attributes:
        shape: as inferred.
        forecast: of a shape that is not.
        length: of rows; 0 for none.
        most: elements that are picked.
    """

    shape: Shape
    forecast: Forecast | None
    length: int
    most: int


class Groups:
    """All groups, in the order in which they were met."""

    def __init__(self) -> None:
        self._members: dict[Group, list[str]] = {}
        self._sliced: dict[Group, Shape] = {}
        self._laid: dict[tuple[tuple[str, int], ...], Layout] = {}

    def __len__(self) -> int:
        return len(self._members)

    @property
    def groups(self) -> list[Group]:
        return list(self._members)

    def add(self, name: str, group: Group, sliced: Shape) -> None:
        """One more tap.

        Args:
            sliced: shape of what is sliced: the tensor, or every s-th row and column of it.
        """
        self._members.setdefault(group, []).append(name)
        self._sliced[group] = sliced

    def places(self, taps: Sequence[str]) -> list[int]:
        """The group of each tap; for one that is in none, the number of groups."""
        found = {name: place for place, names in enumerate(self._members.values()) for name in names}
        return [found.get(name, len(self)) for name in taps]

    def layout(self, symbols: Mapping[str, int]) -> Layout:
        """By group, and one more for taps that are in none; most often known from a sample before.

        Args:
            symbols: the sizes that those in the shapes of the inputs have.
        """
        key = tuple(symbols.items())
        if key not in self._laid:
            if len(self._laid) >= REMEMBERED:
                self._laid.clear()
            self._laid[key] = self._lay_out(symbols)
        return self._laid[key]

    def _lay_out(self, symbols: Mapping[str, int]) -> Layout:
        sizes, steps, weights, tops, lengths = np.array([[0, 1, 1, 0, 0]] * (len(self) + 1), dtype=np.int64).T
        # at least one element: where there is none, the run fails and is repeated
        foreseen = {g: max(1, math.prod(g.forecast.shape(symbols))) for g in self._members if g.forecast is not None}
        few = sum(size * len(self._members[group]) for group, size in foreseen.items()) <= EVERY
        for place, (group, sliced) in enumerate(self._sliced.items()):
            most = group.most
            if group in foreseen:
                size = full = foreseen[group]
                most = size if few else most
            else:
                size, full = (
                    math.prod(d if isinstance(d, int) else symbols[str(d)] for d in dims)
                    for dims in (sliced, group.shape)
                )
            sizes[place], steps[place], lengths[place] = size, pace(size, most), group.length
            weights[place] = max(1, round(steps[place] * full / max(size, 1)))
            if group.length:  # of what is counted whole, one row: it holds the greatest value
                share = full // FORECAST if group in foreseen else full
                tops[place] = rows_of(group.length, share) if steps[place] > 1 else min(1, full)
        return Layout(sizes=sizes, steps=steps, weights=weights, tops=tops, lengths=lengths)
