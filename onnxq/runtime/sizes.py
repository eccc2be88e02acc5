"""Typical times where samples differ in size, and where the machine is not the same all the time.

The middle of runs on a short and on a long text is neither's. Other programs take a core, and where cores are virtual,
they move: a word that one thread writes reaches the other in 0.1 or in 1.2 us, by what the host does at the time
(docs/placement.md), and a small model with two threads takes 0.1 or 0.25 ms.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DISTURBED, _KEPT = 1.15, 0.1


@dataclass(frozen=True)
class Sizes:
    """Samples that runs use in turn, run `i` sample `i` modulo their number.

    Attributes:
        each: by sample, the first one whose inputs have the same shapes.
    """

    each: tuple[int, ...]

    @classmethod
    def of(cls, samples: Sequence[Mapping[str, NDArray[Any]]]) -> Sizes:
        """Of these samples, one at least."""
        shapes = [tuple(sorted((name, array.shape) for name, array in sample.items())) for sample in samples]
        return cls(tuple(map(shapes.index, shapes)))

    @property
    def count(self) -> int:
        """How many different ones there are."""
        return len(set(self.each))

    def runs(self, count: int) -> NDArray[np.int64]:
        """The sizes of so many runs."""
        return np.resize(np.array(self.each, dtype=np.int64), count)

    def typical(
        self, values: Iterable[float], middle: Callable[[Sequence[float]], float], sizes: Iterable[int]
    ) -> float:
        """Mean over the samples of the middle of all runs of their size; a size without a run does not count.

        Args:
            values: one per run.
            sizes: of each run.

        >>> Sizes((0, 1, 0)).typical([1.0, 4.0, 2.0, 3.0], max, [0, 1, 0, 0])
        3.3333333333333335
        """
        runs: dict[int, list[float]] = defaultdict(list)
        for size, value in zip(sizes, values, strict=True):
            runs[size].append(value)
        samples = Counter(self.each)
        weight = sum(samples[size] for size in runs)
        return sum(samples[size] * middle(own) for size, own in runs.items()) / weight


def calm(times: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which turns count: those in which most sessions take at most 1.15 times as long as in their fastest.

    The fastest is the 10th percentile of the turns of a size; the calmest tenth always counts.

    Args:
        times: [turns, sessions], above 0.
        sizes: [turns], of each turn's sample.
    """
    slowness = np.empty(len(times))
    for size in np.unique(sizes):
        own = times[sizes == size]
        slowness[sizes == size] = np.median(own / np.quantile(own, 0.1, axis=0), axis=1)
    found: NDArray[np.bool_] = slowness <= max(_DISTURBED, float(np.quantile(slowness, _KEPT)))
    return found
