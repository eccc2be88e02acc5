"""The job's section about placement: which ops run in int8, and how much is measured to find out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from onnxq.errors import UsageError
from onnxq.validate.gate import Drop

DEFAULT_SQNR = 10.0
"""dB that outputs keep where there are no labels and nothing was asked for; lower, rankings of classes get mixed up."""

DEFAULT_POINTS = 0.005
"""What the score may lose where there are labels and nothing was asked for: half a point, and of scores above 1 half a
percent.
"""

HERE = "cpu"
"""The target whose kernels can be measured on this machine."""


@dataclass(frozen=True, kw_only=True)
class Placing:
    """How ops are placed.

    Attributes:
        effort: `fast`, `default` or `max`.
        threads: intra-op threads that the model will run with; None: with one, and with all cores.
        costs: a cost file of the machine where the model will run; nothing is timed here then, and equal files give
            equal placements.
    """

    effort: str = "default"
    threads: int | None = None
    costs: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What int8 may cost.

    Attributes:
        min_sqnr_db: mean over samples and float outputs, dB, on calibration samples; of a model without float outputs
            the least percentage of equal elements is `LEAST_EQUAL` instead.
        stated: the user asked for it: what cannot be met is an error then.
    """

    min_sqnr_db: float = DEFAULT_SQNR
    stated: bool = False


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One form of the model, run on samples.

    Attributes:
        holds: it keeps to the budget.
        sentence: what was measured, for the user.
        drop: of the metric, positive is worse; None without one.
        sqnr_db: of the outputs; None where the metric decided.
        seconds: of one run, as the costs predict; None: not by costs.
        label: of the form.
        chosen: it is the one that is written.
    """

    holds: bool
    sentence: str
    drop: float | None = None
    sqnr_db: float | None = None
    seconds: float | None = None
    label: str = ""
    chosen: bool = False


@dataclass(frozen=True, kw_only=True)
class PlacementSection:
    """Where int8 pays.

    Attributes:
        by: `cost` puts into int8 what is faster so, by measurement; `rules` all that has an integer kernel.
        effort: how much is measured.
        threads: intra-op threads that the model will run with; None: those of validation, else one, and all cores.
        costs: a file of `onnxq costs measure`, made where the model will run: nothing is measured here.
        optimize: `size` puts everything into int8 that can be, fast or not, and weights into 8 or 4 bits.
        max_drop: of the metric on evaluation data, `0.01` in its unit or `0.5%` of the float score; None:
            `DEFAULT_POINTS`, which only a drop that is no chance breaks, and no error where it cannot be met.
        min_sqnr_db: of the outputs on calibration samples, dB, where there are no labels; None: `DEFAULT_SQNR`.
        keep_best: write what came nearest to a budget that cannot be met.
    """

    by: Literal["cost", "rules"] = "cost"
    effort: Literal["fast", "default", "max"] = "default"
    threads: int | None = None
    costs: Path | None = None
    optimize: Literal["speed", "size"] = "speed"
    max_drop: float | str | None = None
    min_sqnr_db: float | None = None
    keep_best: bool = False

    def __post_init__(self) -> None:
        if self.max_drop is not None:
            Drop.parse(str(self.max_drop))
        if (self.max_drop is not None or self.min_sqnr_db is not None) and (
            self.by == "rules" or self.optimize == "size"
        ):
            raise UsageError("a budget (max_drop, min_sqnr_db) needs placement by cost: leave out what turns that off")
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
        return Placing(effort=self.effort, threads=self.threads or threads, costs=self.costs)

    @property
    def stated(self) -> bool:
        """Did the user ask for a budget?"""
        return self.max_drop is not None or self.min_sqnr_db is not None

    def budget(self) -> Budget:
        """As quantization takes it."""
        return Budget(min_sqnr_db=DEFAULT_SQNR if self.min_sqnr_db is None else self.min_sqnr_db, stated=self.stated)
