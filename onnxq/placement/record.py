"""What was measured for a model is kept: the same model, plan, machine and effort give the same placement again."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from onnxq.placement.cut import Alternative, Crossing, Problem, Unit
from onnxq.placement.race import Timing
from onnxq.placement.result import Always, Form, Placed, UnitChoice
from onnxq.plan.plan import Placement

VERSION = 4


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
        forms = [
            Form(
                **{
                    **f,
                    "timing": Timing(**f["timing"]),
                    **{name: tuple(f[name]) for name in ("foretold", "labels", "kinds")},
                    "others": tuple(Timing(**t) for t in f["others"]),
                }
            )
            for f in body.pop("forms")
        ]
        units = [
            UnitChoice(
                **{
                    **unit,
                    **{name: tuple(unit[name]) for name in ("nodes", "ops", "placeable")},
                    "able": {kind: tuple(nodes) for kind, nodes in unit["able"].items()},
                }
            )
            for unit in body.pop("units")
        ]
        return Placed(
            placement=Placement(**{**placement, "integer": frozenset(placement["integer"])}),
            forms=tuple(forms),
            units=tuple(units),
            problem=_problem(body.pop("problem")),
            choice=_problem(body.pop("choice")),
            others=tuple(body.pop("others")),
            notes=tuple(body.pop("notes")),
            beyond=tuple(map(_problem, body.pop("beyond"))),
            calls=tuple(body.pop("calls")),
            always=tuple(Always(**{**a, "seconds": tuple(a["seconds"])}) for a in body.pop("always")),
            **body,
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _problem(body: dict[str, Any]) -> Problem:
    return Problem(
        units=tuple(
            Unit(**{**unit, "alternatives": tuple(Alternative(**a) for a in unit["alternatives"])})
            for unit in body["units"]
        ),
        crossings=tuple(Crossing(**{**c, "readers": tuple(c["readers"])}) for c in body["crossings"]),
        fixed=body["fixed"],
    )
