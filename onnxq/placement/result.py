"""What placement found out, as a value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from onnxq.encoding import Kind
from onnxq.placement.cut import Kinds, Labels, Problem
from onnxq.placement.race import Timing
from onnxq.plan.plan import Placement

ORIGINAL, FLOAT, FULL = "the file", "float", "all int8"
PAYS = 1.02
"""How much faster than float a placed model must be: below, int8 is not worth its error."""

EVEN = 1.02
"""What several threads differ by from one moment to the next: a gain within this share of another is no better."""

NEVER_SLOWER = 1.0
"""What a form with int8 must reach, as a multiple of the file's speed, with every number of threads."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """One form of the model.

    Attributes:
        name: "the file" (as the user gave it), "float" (normalised), "all int8", "placed 1", "placed 2" ...
        integer_units: how many units run in int8, or compute with integers between float borders.
        predicted: seconds of one run by the costs before it was made; NaN where nothing was predicted.
        timing: measured against the first form, with the first number of threads.
        others: the same with each further number of threads.
        foretold: as `predicted`, with each further number of threads; empty: nothing was predicted.
        labels, kinds: by unit; empty for the user's file.
    """

    name: str
    integer_units: int
    predicted: float
    timing: Timing
    others: tuple[Timing, ...] = ()
    foretold: tuple[float, ...] = ()
    labels: Labels = ()
    kinds: Kinds = ()

    @property
    def gain(self) -> float:
        """How many times as fast as the first form, over all numbers of threads (geometric mean)."""
        return math.prod(t.ratio for t in self.timings) ** (1 / len(self.timings))

    @property
    def slowest(self) -> float:
        """The same with the number of threads with which it gains least."""
        return min(t.ratio for t in self.timings)

    @property
    def timings(self) -> tuple[Timing, ...]:
        """By number of threads."""
        return self.timing, *self.others


def best(forms: Sequence[Form]) -> int:
    """Which of the forms to take, the float one first: the fastest that is never slower than the file. Of those that
    are as fast over all numbers of threads but for `EVEN`, the fastest with the first number.
    """
    least = PAYS * forms[0].gain
    able = [i for i in range(1, len(forms)) if forms[i].slowest >= NEVER_SLOWER and forms[i].gain >= least]
    top = max((forms[i].gain for i in able), default=0.0)
    even = [i for i in able if forms[i].gain * EVEN >= top]
    return max(even, key=lambda i: (forms[i].timing.ratio, -i), default=0)


def slower_in_float(forms: Sequence[Form]) -> Form | None:
    """The float form, if it is measurably slower than the user's file; None if it is not, or no file raced."""
    first, second = forms[:2]
    if first.name != ORIGINAL or second.slowest >= NEVER_SLOWER or second.gain * PAYS > 1.0:
        return None
    return second


@dataclass(frozen=True, kw_only=True)
class UnitChoice:
    """What became of one unit, for the report; seconds of one run.

    Attributes:
        nodes: its nodes.
        ops: their types.
        integer: it runs in int8.
        float_seconds, integer_seconds: of its kernels.
        placeable: those of its nodes that have an integer kernel.
        conversion_seconds: what the conversions beside it cost or would cost if it alone changed sides.
        why: a sentence.
        kind: how it computes with integers if it is float at its borders.
        able: kind -> those of its nodes that can have it.
    """

    nodes: tuple[str, ...]
    ops: tuple[str, ...]
    placeable: tuple[str, ...]
    integer: bool
    float_seconds: float
    integer_seconds: float
    conversion_seconds: float
    why: str
    kind: Kind | None = None
    able: Mapping[Kind, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Always:
    """A node that is float in every form.

    Attributes:
        node: its name.
        op: its type.
        seconds: of its kernels and those of its bodies, one run, by number of threads.
        heavy: it, or an op in its bodies, multiplies and accumulates.
    """

    node: str
    op: str
    seconds: tuple[float, ...]
    heavy: bool


@dataclass(frozen=True, kw_only=True)
class Placed:
    """The outcome.

    Attributes:
        placement: of the chosen form.
        chosen: name of the form.
        forms: all that ran against each other, the user's file first, or, without one, the float form.
        units: of the chosen form, graph order.
        problem: the costs with `threads`; its units are `units`.
        choice: what the choice was made by: of several numbers of threads, the mean of their costs, each relative to
            the float form's, on the scale of the first.
        limit: seconds of the model's kernel limit: each heavy op in its faster form, all else free.
        threads: that all was measured with.
        others: further numbers of threads that forms were timed with.
        notes: sentences for the user.
        beyond: the costs with each of the `others`.
        always: what is float in every form; its seconds are part of `problem.fixed`.
        timed: forms ran against the clock; False: all is by a file of costs.
        calls: seconds that a run takes outside of its kernels, by number of threads; part of `problem.fixed`.
    """

    placement: Placement
    chosen: str
    forms: tuple[Form, ...]
    units: tuple[UnitChoice, ...]
    problem: Problem
    choice: Problem
    limit: float
    threads: int
    others: tuple[int, ...] = ()
    notes: tuple[str, ...]
    beyond: tuple[Problem, ...] = ()
    always: tuple[Always, ...] = ()
    timed: bool = True
    calls: tuple[float, ...] = ()

    def ran(self, labels: Labels, kinds: Kinds) -> Form | None:
        """The form with these, if it ran against the clock."""
        mine = (labels, kinds) == (self.labels, self.kinds)
        found = (f for f in self.forms if (f.name == self.chosen if mine else (f.labels, f.kinds) == (labels, kinds)))
        return next(found, None)

    @property
    def labels(self) -> Labels:
        """Of the chosen form."""
        return tuple(unit.integer for unit in self.units)

    @property
    def kinds(self) -> Kinds:
        """Of the chosen form."""
        return tuple(unit.kind for unit in self.units)
