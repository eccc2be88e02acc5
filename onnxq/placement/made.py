"""Forms of a model while they are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxq.placement.clock import Sessions
from onnxq.placement.cut import Kinds, Labels
from onnxq.placement.race import Timing
from onnxq.placement.result import Form
from onnxq.plan.plan import Plan


@dataclass(frozen=True)
class Made:
    """A form, with the sessions that run it."""

    name: str
    plan: Plan
    labels: Labels
    kinds: Kinds
    predicted: tuple[float, ...]
    sessions: Sessions
    """By number of threads, both; no session where nothing is timed."""
    size: int  # bytes of weights
    multiple: int = 0

    def form(self, drift: Sequence[float], timings: Sequence[Timing]) -> Form:
        """As it ran; what was predicted, on the clock of the race.

        Args:
            drift: from the time of the costs to that of the race, by number of threads.
            timings: by number of threads.
        """
        first, *others = (p * d for p, d in zip(self.predicted, drift, strict=True))
        return Form(
            name=self.name,
            integer_units=sum(self.labels) + sum(kind is not None for kind in self.kinds),
            predicted=first,
            timing=timings[0],
            others=tuple(timings[1:]),
            foretold=tuple(others),
            labels=self.labels,
            kinds=self.kinds,
        )
