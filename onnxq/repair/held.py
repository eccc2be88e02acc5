"""Does a repair pay? Judged on calibration samples that it was not fitted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.data.sample import Dataset, Sample
from onnxq.faintest import Levels, Parts, worst_part
from onnxq.ir.model import Model
from onnxq.trial import input_bytes, outputs_of, spread_samples

Inputs = Mapping[str, NDArray[Any]]

SAMPLES = {"fast": 24, "default": 96, "max": 192}
"""Calibration samples by effort, evenly spread; every third is held out."""

LEAST = 12
"""Fewer samples say too little about what a repair buys."""

BYTES = 128 << 20
"""Of inputs that are kept in memory; of larger inputs fewer samples are taken, but at least `LEAST`."""

LARGEST = 512 << 20
"""Bytes of weights above which nothing is tried: several forms of the model are in memory at once."""

GAIN = 0.1
"""dB that a repair must buy on the mean."""

CHANCE = 0.05
"""With this probability at most, a repair that does nothing passes for one that pays."""


def split(data: Dataset, effort: str, first: Sample) -> tuple[list[Inputs], list[Inputs]]:
    """Samples to fit on, and samples to judge on: every third.

    Args:
        first: any sample, for its size.
    """
    count = min(SAMPLES[effort], max(LEAST, BYTES // max(input_bytes(first.inputs), 1)), len(data))
    if count < LEAST:
        return [], []
    chosen = [s.inputs for s in spread_samples(data, count)]
    return [s for i, s in enumerate(chosen) if i % 3], chosen[::3]


class Held:
    """The held-out samples, and what the float model gives on them.

    Args:
        model: float; it is run at once, so that it may change afterwards.
        samples: inputs.
        threads: of ORT.

    Raises:
        ModelError: ORT cannot load or run it.
    """

    def __init__(self, model: Model, samples: Sequence[Inputs], threads: int | None) -> None:
        self._samples, self._threads = samples, threads
        self._exact = outputs_of(model, samples, threads)
        self._parts = Parts(self._exact)

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def measurable(self) -> bool:
        """Is there a float output?"""
        return self._parts.floats

    def levels(self, model: Model) -> Levels:
        """SQNR in dB, [samples, parts of the outputs], of a form of the model, run as it will be: with all of ORT's
        optimizations.

        Raises:
            ModelError: ORT cannot load or run it.
        """
        found = outputs_of(model, self._samples, self._threads)
        return self._parts.levels(self._exact, found)


def verdict(before: Levels, after: Levels) -> str:
    """Why a repair does not pay; empty if it does.

    1. The mean of the part that suffers most, before and after, gains `GAIN` at least.
    2. The gains are no chance: see `chance`. Of each sample the part that suffers most counts here: another part may be
       the worst one on the mean afterwards, and samples of two parts are no pairs.

    Args:
        before, after: [samples, parts].
    """
    gain = float((worst_part(after) - worst_part(before)).mean())
    change = after.min(axis=1) - before.min(axis=1)
    if gain < GAIN:
        return f"{gain:+.2f} dB, at least {GAIN:g} asked"
    if chance(change) > CHANCE:
        better, worse = int((change > 0).sum()), int((change < 0).sum())
        return f"{gain:+.2f} dB, but better on {better} and worse on {worse} samples, which may be chance"
    return ""


def chance(change: Levels) -> float:
    """Probability of gains like these, or better ones, if a repair does nothing: the signed-rank test of Wilcoxon
    (1945), one-sided and exact; samples without a change do not count, equal changes share their rank.

    Ranks instead of decibels: the one sample whose output turns over must not decide. Ranks instead of signs: many
    small losses beside large gains are a gain.

    >>> chance(np.array([1.0, 2.0, 3.0]))
    0.125
    """
    moved = change[change != 0]
    sizes = np.abs(moved)
    twice = (sizes[:, None] > sizes).sum(axis=1) + (sizes[:, None] >= sizes).sum(axis=1) + 1  # ranks times 2
    ways = np.ones(1)  # by the sum of the ranks of gains, share of all choices of signs
    for rank in twice:
        gained = np.concatenate([np.zeros(rank), ways])
        ways = (np.pad(ways, (0, rank)) + gained) / 2
    return float(ways[twice[moved > 0].sum() :].sum())
