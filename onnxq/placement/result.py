"""What placement found out, as a value."""

from __future__ import annotations

from dataclasses import dataclass

from onnxq.placement.cut import Problem
from onnxq.placement.race import Timing
from onnxq.plan.plan import Placement

ORIGINAL, FLOAT, FULL = "the file", "float", "all int8"
PAYS = 1.02
"""How much faster than float a placed model must be: below, int8 is not worth its error."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """One form of the model.

    Attributes:
        name: "the file" (as the user gave it), "float" (normalised), "all int8", "placed 1", "placed 2" ...
        integer_units: how many units run in int8.
        predicted: seconds of one run by the costs before it was made; NaN where nothing was predicted.
        timing: measured against the first form.
    """

    name: str
    integer_units: int
    predicted: float
    timing: Timing


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
    """

    nodes: tuple[str, ...]
    ops: tuple[str, ...]
    placeable: tuple[str, ...]
    integer: bool
    float_seconds: float
    integer_seconds: float
    conversion_seconds: float
    why: str


@dataclass(frozen=True, kw_only=True)
class Placed:
    """The outcome.

    Attributes:
        placement: of the chosen form.
        chosen: name of the form.
        forms: all that ran against each other, the user's file first, or, without one, the float form.
        units: of the chosen form, graph order.
        problem: what the choice was made by; its units are `units`.
        limit: seconds of the model's kernel limit: each unit in its faster form, conversions free.
        threads: that all was measured with.
        notes: sentences for the user.
    """

    placement: Placement
    chosen: str
    forms: tuple[Form, ...]
    units: tuple[UnitChoice, ...]
    problem: Problem
    limit: float
    threads: int
    notes: tuple[str, ...]
