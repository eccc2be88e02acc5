"""How often a model says rightly whether somebody speaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class SpeechAccuracy:
    """Share of frames where (probability over ``threshold``) is what the label says."""

    threshold: float = 0.5
    higher_is_better: ClassVar[bool] = True

    def record(self, outputs: Mapping[str, NDArray[np.float32]], label: NDArray[np.int64]) -> Sequence[float]:
        """Probabilities of a sample's frames and their labels [frames], 1 for speech, to [share that is right]."""
        probabilities = outputs["speech_probs"] if "speech_probs" in outputs else outputs["output"]
        decisions = np.ravel(probabilities) > self.threshold
        return [float(np.mean(decisions == (np.ravel(label) > 0)))]

    def score(self, records: NDArray[np.float64]) -> float:
        """Rows [n, 1] to their mean, 0 to 1; every sample of one file has the same number of frames."""
        return float(np.mean(records[:, 0]))
