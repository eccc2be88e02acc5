"""How well cosines of sentence embeddings follow human similarity: Spearman's rank correlation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

WORDSIM, LEE = 0.0, 1.0  # set ids, as in data.py


def _spearman(rows: NDArray[np.float64]) -> float:
    """Pearson correlation of the ranks (ties get their mean rank) of columns 1 and 2 of [n, 3]; 0 for a constant."""
    if len(rows) < 2:
        return 0.0
    cosine, human = rankdata(rows[:, 1]), rankdata(rows[:, 2])
    cosine, human = cosine - cosine.mean(), human - human.mean()
    norm = float(np.sqrt((cosine @ cosine) * (human @ human)))
    return float(cosine @ human) / norm if norm else 0.0


@dataclass(frozen=True, kw_only=True)
class PairSpearman:
    """Mean of the Spearman correlations of WordSim353 and of the Lee documents (of the sets that are there)."""

    higher_is_better: ClassVar[bool] = True
    sets: ClassVar[tuple[float, ...]] = (WORDSIM, LEE)

    def record(self, outputs: Mapping[str, NDArray[np.float32]], label: NDArray[np.float64]) -> Sequence[float]:
        """Hidden states [2, tokens, 384] and label [set id, human, tokens, tokens] to [set id, cosine, human]."""
        kind, human, *lengths = (float(value) for value in label)
        hidden = outputs["last_hidden_state"].astype(np.float64)
        first, second = (states[: int(length)].mean(axis=0) for states, length in zip(hidden, lengths, strict=True))
        cosine = float(first @ second) / float(np.linalg.norm(first) * np.linalg.norm(second))
        return [kind, cosine, human]

    def score(self, records: NDArray[np.float64]) -> float:
        """Rows [n, 3] to the mean correlation, -1 to 1."""
        present = [rows for kind in self.sets if len(rows := records[records[:, 0] == kind])]
        return float(np.mean([_spearman(rows) for rows in present])) if present else 0.0


@dataclass(frozen=True, kw_only=True)
class WordSimSpearman(PairSpearman):
    """The WordSim353 pairs alone."""

    sets: ClassVar[tuple[float, ...]] = (WORDSIM,)


@dataclass(frozen=True, kw_only=True)
class LeeSpearman(PairSpearman):
    """The Lee document pairs alone."""

    sets: ClassVar[tuple[float, ...]] = (LEE,)
