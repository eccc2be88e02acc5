"""Is the text of the line read right? Greedy CTC decoding with the character list that the model carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

CHARACTERS = Path(__file__).parent / "build" / "characters.txt"


@cache
def alphabet() -> tuple[str, ...]:
    """Class number -> character: class 0 is CTC's blank, the list follows, the last class is the space."""
    return ("", *CHARACTERS.read_text(encoding="utf-8").split("\n"), " ")


def read(outputs: Mapping[str, NDArray[Any]]) -> str:
    """Greedy CTC decoding of the one output [1, steps, classes]: best class a step, repeats and blanks dropped."""
    (scores,) = outputs.values()
    best = np.asarray(scores)[0].argmax(axis=1)
    fresh = np.ones(len(best), dtype=bool)
    fresh[1:] = best[1:] != best[:-1]
    letters = alphabet()
    return "".join(letters[int(k)] for k in best[fresh])


def edits(first: str, second: str) -> int:
    """Levenshtein distance: fewest insertions, deletions and substitutions that turn one text into the other.

    >>> edits("kitten", "sitting")
    3
    """
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(second, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


@dataclass(frozen=True, kw_only=True)
class LineExactMatch:
    """Share of lines that are read without any mistake."""

    higher_is_better: ClassVar[bool] = True

    def record(self, outputs: Mapping[str, NDArray[Any]], label: object) -> Sequence[float]:
        """``[1.0]`` if the decoded text is the label, else ``[0.0]``."""
        return [float(read(outputs) == str(label))]

    def score(self, records: NDArray[np.float64]) -> float:
        """Mean over the rows [n, 1]."""
        return float(records[:, 0].mean())


@dataclass(frozen=True, kw_only=True)
class CharacterAccuracy:
    """1 - CER: one minus all edits over all characters, never below 0."""

    higher_is_better: ClassVar[bool] = True

    def record(self, outputs: Mapping[str, NDArray[Any]], label: object) -> Sequence[float]:
        """``[edits, characters of the label]``."""
        return [float(edits(read(outputs), str(label))), float(len(str(label)))]

    def score(self, records: NDArray[np.float64]) -> float:
        """Over the rows [n, 2]: sums first, then the quotient."""
        wrong, length = records.sum(axis=0).tolist()
        return float(max(0.0, 1.0 - wrong / length))
