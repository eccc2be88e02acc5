"""Forms of one model on this machine's clock: sessions, profiles and races, by number of threads.

The clock of a machine drifts: cores slow down, another program has one of them, or virtual ones move apart, for
seconds. So the first form takes part in every profile, and what a profile says is brought to that form's first one: a
kernel that took a tenth of its time then takes a tenth of it now. With several threads that is not all, since kernels
suffer unlike each other: there, what was measured while the first form was slow is measured again.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.costs.files import remember
from onnxq.costs.observe import observe
from onnxq.costs.table import CostTable
from onnxq.errors import OutputError
from onnxq.ir.model import Model
from onnxq.ir.save import runnable
from onnxq.placement.attribute import Attribution, attribute
from onnxq.placement.effort import Effort
from onnxq.placement.race import Timing, laps, race, timings
from onnxq.runtime.profile import Profile, profile
from onnxq.runtime.rows import run_seconds
from onnxq.runtime.session import Session
from onnxq.runtime.sizes import Sizes
from onnxq.runtime.turns import IN_TURNS, LONG_SECONDS

Sessions = tuple[Session, ...]
"""One per number of threads."""

_DUEL_SECONDS = 0.5
_WON = 1.005
_PARTS = 3
"""Of a race, with other numbers of threads between them: what disturbs one part may be over in the next."""

_FEWEST_TURNS, _FEWEST_LONG_TURNS = 3, 2  # of each part

_FEWEST, _FEWEST_LONG, _OF_A_SIZE, _MOST = 5, 3, 2, 200
_SLOW = 1.15
_TRIES, _MORE_PARTS = 2, 3
_PROBES, _PROBE_SECONDS, _PAUSE_SECONDS, _LONG = 8, 0.1, 0.1, 0.02
_AGREES, _CHECKS, _LOOKS = 0.02, 2, 4
"""Share by which profile and race may differ; so many times as long a profile is, that is made because they do."""


@dataclass(frozen=True)
class Seen:
    """A profile.

    Attributes:
        attribution: whose its time is, on the clock of the first profile.
        beside: seconds of the first form in its turns; NaN where nothing was timed.
    """

    attribution: Attribution
    beside: float = math.nan


class Clock:
    """Times forms.

    Attributes:
        counts: numbers of threads.
    """

    def __init__(self, counts: Sequence[int], samples: Sequence[Mapping[str, NDArray[Any]]], effort: Effort) -> None:
        self.counts, self._samples, self._effort = tuple(counts), samples, effort
        self._first: Sessions = ()
        self._anchors = [math.nan] * len(self.counts)  # seconds of the first form in its own profile
        self._least = [math.inf] * len(self.counts)  # in any
        self._patience = effort.waiting_seconds
        self._tables: list[CostTable] = []

    def sessions(self, model: Model | Path) -> Sessions:
        """To be timed in turns."""
        with contextlib.nullcontext(model) if isinstance(model, Path) else runnable(model) as source:
            return tuple(Session(source, threads=n, config=IN_TURNS) for n in self.counts)

    def profiles(self, model: Model, sessions: Sessions, before: Sequence[Seen] = ()) -> list[Seen]:
        """By number of threads; what is profiled first is the first form.

        Args:
            before: earlier ones of this form, of which only the slow ones are made again.
        """
        self._first = self._first or sessions
        with runnable(model) as source:
            return [
                before[at]
                if before and not self._slow(at, before[at].beside)
                else self._profile(source, model, session, at)
                for at, session in enumerate(sessions)
            ]

    def stale(self, seen: Sequence[Seen]) -> bool:
        """Was the first form slow in any of them, compared with what it could do later, and is there time for more?"""
        return self._waits and any(self._slow(at, one.beside) for at, one in enumerate(seen))

    def nearest(
        self,
        model: Callable[[], Model],
        sessions: Sessions,
        seen: Sequence[Seen],
        drift: Sequence[float],
        raced: Sequence[float],
    ) -> list[Seen]:
        """Of each profile of a form and further, longer ones, the one that says what the race says.

        Which state the machine is in changes from second to second: what explains a race is a profile in its state.

        Args:
            model: the form; called only if something is profiled.
            seen: by number of threads.
            drift: as `drift` says it.
            raced: seconds of the form in the race.
        """

        def off(at: int, one: Seen) -> float:
            return abs(one.attribution.total * drift[at] / raced[at] - 1)

        found = list(seen)
        wrong = [at for at, one in enumerate(found) if off(at, one) > _AGREES]
        if not (wrong and self._waits):
            return found
        made, deadline = model(), time.monotonic() + self._effort.waiting_seconds
        with runnable(made) as source:
            for at in wrong:
                profiled = self._profiler(source, sessions[at], at, _CHECKS * self._effort.profile_seconds)
                for _ in range(_LOOKS):
                    more = self._seen(profiled(), made, at)
                    found[at] = min(found[at], more, key=functools.partial(off, at))
                    if off(at, found[at]) <= _AGREES or time.monotonic() > deadline:
                        break
        return found

    @property
    def _waits(self) -> bool:
        return self._effort.waiting_seconds > 0

    def _slow(self, at: int, beside: float) -> bool:
        return self.counts[at] > 1 and beside > _SLOW * self._least[at]

    def _profile(self, source: Path | bytes, model: Model, session: Session, at: int) -> Seen:
        """In a calm moment, if one comes while there is time."""
        profiled = self._profiler(source, session, at, self._effort.profile_seconds)
        best, tries = profiled(), 1
        while self._waits and self._slow(at, best.beside_seconds) and (self._patience > 0 or tries < _TRIES):
            begin = time.monotonic()
            best, tries = min(best, profiled(), key=lambda one: one.beside_seconds), tries + 1
            self._patience -= time.monotonic() - begin
        self._tables.append(observe(best, threads=self.counts[at]))
        if math.isnan(self._anchors[at]):
            self._anchors[at] = best.beside_seconds
        return self._seen(best, model, at)

    def _profiler(self, source: Path | bytes, session: Session, at: int, seconds: float) -> Callable[[], Profile]:
        """What profiles a form; `seconds` are those of one profile, shared by all numbers of threads."""
        threads = self.counts[at]
        once = float(laps([session], self._samples, threads=threads, budget_seconds=0.0, fewest=1)[0, 0])
        long = once > LONG_SECONDS
        fewest = max(_FEWEST_LONG if long else _FEWEST, _OF_A_SIZE * Sizes.of(self._samples).count)
        beside = once if math.isnan(self._anchors[at]) else self._anchors[at]
        runs = min(max(int(seconds / len(self.counts) / run_seconds(once, beside, threads)), fewest), _MOST)
        if threads > 1 and math.isnan(self._anchors[at]) and once < _LONG:
            self._probe(at)

        def profiled() -> Profile:
            found = profile(
                source, self._samples, threads=threads, runs=runs, warmup=1 if long else 2, beside=self._first[at]
            )
            self._least[at] = min(self._least[at], found.beside_seconds)
            return found

        return profiled

    def _seen(self, found: Profile, model: Model, at: int) -> Seen:
        """On the clock of the first profile."""
        factor = self._anchors[at] / found.beside_seconds
        return Seen(attribute(found, model.graph).scaled(factor), found.beside_seconds)

    def _probe(self, at: int) -> None:
        """What the first form can do when nothing disturbs it, as far as a second shows."""
        session, threads = self._first[at], self.counts[at]
        for _ in range(_PROBES if self._waits else 0):
            found = race([session], self._samples, threads=threads, budget_seconds=_PROBE_SECONDS)[0]
            self._least[at] = min(self._least[at], found.seconds)
            time.sleep(_PAUSE_SECONDS)

    def race(self, forms: Sequence[Sessions]) -> list[list[Timing]]:
        """By number of threads, then by form."""
        everything = range(len(self.counts))
        parts: list[list[NDArray[np.float64]]] = [[] for _ in everything]

        def go_on(at: int) -> None:
            ran, budget = [form[at] for form in forms], self._effort.race_seconds / _PARTS
            fewest = _FEWEST_LONG_TURNS if self._anchors[at] > LONG_SECONDS else _FEWEST_TURNS
            part = laps(ran, self._samples, threads=self.counts[at], budget_seconds=budget, fewest=fewest)
            parts[at].append(part)

        for _ in range(_PARTS):
            for at in everything:
                go_on(at)
        for _ in range(_MORE_PARTS if self._patience > 0 else 0):
            for at in everything:
                if self._slow(at, self._fastest(forms, parts[at])):
                    go_on(at)
        return [timings(each, self._samples) for each in parts]

    def _fastest(self, forms: Sequence[Sessions], parts: Sequence[NDArray[np.float64]]) -> float:
        """Seconds of the first form in the calm turns of a race."""
        if self._first not in forms:
            return math.nan
        return timings(parts, self._samples)[forms.index(self._first)].seconds

    def wins(self, one: Sessions, other: Sessions) -> bool:
        """Is one form measurably faster than another, over all numbers of threads?"""
        duels = [
            race([b, a], self._samples, threads=count, budget_seconds=_DUEL_SECONDS / len(self.counts))[1]
            for count, a, b in zip(self.counts, one, other, strict=True)
        ]
        return math.prod(d.ratio for d in duels) > _WON ** len(duels) and math.prod(d.low for d in duels) > 1.0

    def drift(self, first: Sequence[Timing]) -> list[float]:
        """By number of threads, how much longer the first form took in a race than in its profile.

        Args:
            first: its timings.
        """
        return [timing.seconds / anchor for timing, anchor in zip(first, self._anchors, strict=True)]

    def remember(self) -> None:
        """Keep what was measured for other models; a folder that cannot be written is no fault of this model."""
        if self._tables:
            with contextlib.suppress(OutputError):
                remember(functools.reduce(lambda a, b: a.merge(b), self._tables))
