"""What was measured for a model is kept: the same model, plan, machine and effort give the same placement again."""

from __future__ import annotations

import dataclasses
import json

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
            UnitChoice(**{**unit, "nodes": tuple(unit["nodes"]), "ops": tuple(unit["ops"])})
            for unit in body.pop("units")
        ]
        return Placed(
            placement=Placement(integer=frozenset(placement["integer"]), floats=placement["floats"]),
            forms=tuple(forms),
            units=tuple(units),
            notes=tuple(body.pop("notes")),
            **body,
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
