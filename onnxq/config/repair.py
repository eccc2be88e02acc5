"""The job's section about repairs: what is tried to win accuracy back before ops are given up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxq.errors import UnknownNameError, UsageError, did_you_mean

AUTO, NONE = "auto", "none"

WEIGHTS, BIAS, EQUALIZE, SMOOTH = "weights", "bias", "equalize", "smooth"

FLOAT_REPAIRS = (EQUALIZE, SMOOTH)
"""Those that change the float model, so that ranges are calibrated again."""

REPAIRS = (*FLOAT_REPAIRS, WEIGHTS, BIAS)
"""In the order they are made."""


@dataclass(frozen=True, kw_only=True)
class Repairing:
    """What quantization is told.

    Attributes:
        names: of `REPAIRS`, in their order.
        later: those that are tried only if the budget on accuracy does not hold without.
        effort: `fast`, `default` or `max`: on how many samples.
    """

    names: tuple[str, ...]
    later: tuple[str, ...] = ()
    effort: str = "default"


@dataclass(frozen=True, kw_only=True)
class RepairSection:
    """Repairs.

    Attributes:
        use: `auto`: what pays at its price in time for the effort of placement, and nothing where placement is not by
            cost; `none`; or names.
    """

    use: str | tuple[str, ...] = AUTO

    def __post_init__(self) -> None:
        names = self.names
        for name in names:
            if name not in (*REPAIRS, AUTO, NONE):
                raise UnknownNameError(f'there is no repair "{name}": {did_you_mean(name, (AUTO, NONE, *REPAIRS))}')
        if not names:
            raise UsageError(f"no repair is named: write {NONE}, {AUTO} or some of {', '.join(REPAIRS)}")
        if len(names) > 1 and {AUTO, NONE}.intersection(names):
            raise UsageError(f"{AUTO} and {NONE} stand alone: write one of them, or names")

    @property
    def names(self) -> tuple[str, ...]:
        """As they were written."""
        said: Sequence[str] = self.use.split(",") if isinstance(self.use, str) else self.use
        return tuple(name.strip() for name in said if name.strip())

    def repairing(self, effort: str, *, by_cost: bool) -> Repairing | None:
        """As quantization takes it; None: nothing is tried.

        Args:
            effort: of placement.
            by_cost: placement is by cost: without it, nothing is tried that was not asked for, since quantization is
                to take no longer than a few passes over the samples.
        """
        if self.names == (NONE,) or (self.names == (AUTO,) and not by_cost):
            return None
        if self.names != (AUTO,):
            return Repairing(names=tuple(n for n in REPAIRS if n in self.names), effort=effort)
        if effort == "fast":
            return Repairing(names=(BIAS,), effort=effort)
        if effort == "max":
            return Repairing(names=REPAIRS, effort=effort)
        return Repairing(names=(WEIGHTS, BIAS), later=FLOAT_REPAIRS, effort=effort)
