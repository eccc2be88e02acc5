"""How much placement measures."""

from __future__ import annotations

from dataclasses import dataclass

from onnxq.config.placing import Placing
from onnxq.encoding import Kind
from onnxq.ir.model import Model
from onnxq.ir.save import weight_bytes
from onnxq.runtime.session import physical_threads


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is measured.

    Attributes:
        rounds: placed models that are profiled at most.
        profile_seconds: aimed at for the profile of one form, with all numbers of threads.
        race_seconds: aimed at for the race at the end, with each number of threads.
        search_seconds: at most, for flipping regions where costs and clock disagree.
        sensing_seconds: at most, for the noise of single tensors, where the budget does not hold at once; the quiet
            ones are estimated then.
        waiting_seconds: at most, for measuring again what was measured while the machine was disturbed.
        speed_seconds: aimed at for the comparison with the file at the end, with each number of threads.
        checked_samples: of the calibration data at most, to compare outputs on where there is neither evaluation
            data nor a metric; None: all.
        judging_seconds: of runs of the file, for the decisions that one form turns over (`onnxq.decisions`); 0: none.
        kinds: that are profiled (`onnxq.plan.kinds`).
    """

    rounds: int
    profile_seconds: float
    race_seconds: float
    search_seconds: float
    sensing_seconds: float
    waiting_seconds: float
    speed_seconds: float = 3.0
    checked_samples: int | None = None
    judging_seconds: float = 2.0
    kinds: tuple[Kind, ...] = ()

    def tried(self, integer: bool) -> tuple[Kind, ...]:
        """The kinds that are profiled; one at least where nothing can be int8 with fixed ranges.

        Args:
            integer: something can.
        """
        return self.kinds if integer or self.kinds else KINDS[:1]


KINDS: tuple[Kind, ...] = ("dynamic", "weights8", "weights4")
"""The quieter and more often faster ones first."""

EFFORTS = {
    "fast": Effort(
        rounds=1,
        profile_seconds=0.2,
        race_seconds=0.3,
        search_seconds=0.0,
        sensing_seconds=10.0,
        waiting_seconds=0.0,
        speed_seconds=0.8,
        checked_samples=128,
        judging_seconds=0.0,
    ),
    "default": Effort(
        rounds=3,
        profile_seconds=1.6,
        race_seconds=3.0,
        search_seconds=10.0,
        sensing_seconds=30.0,
        waiting_seconds=12.0,
        kinds=KINDS[:2],
    ),
    "max": Effort(
        rounds=6,
        profile_seconds=6.0,
        race_seconds=10.0,
        search_seconds=60.0,
        sensing_seconds=600.0,
        waiting_seconds=60.0,
        judging_seconds=10.0,
        kinds=KINDS,
    ),
}

_HEAVY = 128 << 20
"""Bytes of weights above which all is done with one number of threads: each form is in memory once for each."""


def counts(model: Model, placing: Placing) -> tuple[int, ...]:
    """Numbers of threads to place for."""
    if placing.threads is not None:
        return (placing.threads,)
    if placing.costs is not None or weight_bytes(model) > _HEAVY:
        return (1,)
    return tuple(sorted({1, physical_threads()}))
