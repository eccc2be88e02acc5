"""The job's section about placement: which ops run in int8, and how much is measured to find out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from onnxq.errors import UsageError

HERE = "cpu"
"""The target whose kernels can be measured on this machine."""


@dataclass(frozen=True, kw_only=True)
class Placing:
    """How ops are placed.

    Attributes:
        effort: `fast`, `default` or `max`.
        threads: intra-op threads that the model will run with.
        costs: a cost file of the machine where the model will run; nothing is timed here then, and equal files give
            equal placements.
    """

    effort: str = "default"
    threads: int = 1
    costs: Path | None = None


@dataclass(frozen=True, kw_only=True)
class PlacementSection:
    """Where int8 pays.

    Attributes:
        by: `cost` puts into int8 what is faster so, by measurement; `rules` all that has an integer kernel.
        effort: how much is measured.
        threads: intra-op threads that the model will run with; None: those of validation, else one.
        costs: a file of `onnxq costs measure`, made where the model will run: nothing is measured here.
        optimize: `size` puts everything into int8 that can be, fast or not.
    """

    by: Literal["cost", "rules"] = "cost"
    effort: Literal["fast", "default", "max"] = "default"
    threads: int | None = None
    costs: Path | None = None
    optimize: Literal["speed", "size"] = "speed"

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads must be at least 1, not {self.threads}")

    def placing(self, target: str, threads: int | None) -> Placing | None:
        """As quantization takes it; None: by the target's rules.

        Args:
            target: name.
            threads: of validation.
        """
        if self.by == "rules" or self.optimize == "size" or target != HERE:
            return None
        return Placing(effort=self.effort, threads=self.threads or threads or 1, costs=self.costs)
