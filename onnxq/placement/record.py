"""What was measured for a model is kept: the same model, plan, machine and effort give the same placement again."""

from __future__ import annotations

import dataclasses
import json

from onnxq.placement.cut import Crossing, Problem, Unit
from onnxq.placement.race import Timing
from onnxq.placement.result import Form, Placed, UnitChoice
from onnxq.plan.plan import Placement

VERSION = 1


def to_text(placed: Placed) -> str:
    """JSON with exact floats."""
    body = dataclasses.asdict(placed)
    body["placement"]["integer"] = sorted(placed.placement.integer)
    return json.dumps({"version": VERSION, **body}, ensure_ascii=False)


def from_text(text: str) -> Placed | None:
    """What `to_text` wrote; None for anything else."""
    try:
        body = json.loads(text)
        if body.pop("version") != VERSION:
            return None
        placement = body.pop("placement")
        forms = [Form(**{**form, "timing": Timing(**form["timing"])}) for form in body.pop("forms")]
        units = [
            UnitChoice(**{**unit, **{name: tuple(unit[name]) for name in ("nodes", "ops", "placeable")}})
            for unit in body.pop("units")
        ]
        problem = body.pop("problem")
        crossings = [Crossing(**{**c, "readers": tuple(c["readers"])}) for c in problem["crossings"]]
        return Placed(
            placement=Placement(integer=frozenset(placement["integer"]), floats=placement["floats"]),
            forms=tuple(forms),
            units=tuple(units),
            problem=Problem(
                units=tuple(Unit(**unit) for unit in problem["units"]),
                crossings=tuple(crossings),
                fixed=problem["fixed"],
            ),
            notes=tuple(body.pop("notes")),
            **body,
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
