"""What a repair bought, as part of a result."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Repair:
    """One repair that was tried, or was not, and why.

    Attributes:
        name: as `--repair` takes it.
        kept: it is in the model that was written.
        before_db, after_db: mean SQNR of the worst part of the outputs without and with it, dB, on held-out samples;
            None where it was not tried.
        samples: held out.
        seconds: that it took.
        told: one sentence: what was changed, or why not.
    """

    name: str
    kept: bool
    told: str
    before_db: float | None = None
    after_db: float | None = None
    samples: int = 0
    seconds: float = 0.0

    @property
    def gain_db(self) -> float | None:
        """What it buys, dB."""
        return None if self.before_db is None or self.after_db is None else self.after_db - self.before_db
