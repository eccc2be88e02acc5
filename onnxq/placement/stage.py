"""Placement as a stage of quantization: with what was measured before, or not at all."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from onnxq.config.placing import Placing
from onnxq.encoding import Kind
from onnxq.ir.hash import model_hash
from onnxq.ir.model import Model
from onnxq.ir.save import weight_bytes
from onnxq.placement.cut import Kinds, Labels
from onnxq.placement.place import Placer
from onnxq.placement.record import from_text, to_text
from onnxq.placement.result import Placed
from onnxq.plan.plan import Placement, Plan
from onnxq.progress import Progress, Silent
from onnxq.stats.cache import Cache, digest, files_digest
from onnxq.targets.hardware import detect

Race = Callable[[str, Plan, Labels, Kinds], Placed]

LARGEST = 512 << 20
"""Bytes of weights above which int8 is placed by rules: several forms of the model are in memory at once."""


@functools.cache
def _own_digest() -> str:
    """A hash of this wing's source: what another version measured is measured again."""
    return files_digest(sorted(Path(__file__).parent.glob("*.py")))


def placed_plan(
    model: Model,
    *,
    replan: Callable[[Placement], Plan],
    insert: Callable[[Plan], Model],
    samples: Sequence[Mapping[str, NDArray[Any]]],
    placing: Placing,
    cache: Cache | None,
    able: Mapping[str, Mapping[Kind, str]] | None = None,
    progress: Progress | None = None,
) -> tuple[Plan, Placed | None, list[str], Race | None]:
    """The plan with int8 where it pays, what was measured for it, sentences for the user, and what runs one more form
    (name, plan, labels, kinds) against the file; None where nothing is timed, or all was before.

    Args:
        cache: keeps what was measured; the same model, plan, machine and effort are placed alike then.
        progress: told of each form that is made.

    For the others and what is raised see `Placer`.
    """
    if weight_bytes(model) > LARGEST:
        why = "The model is too large to measure several forms of it: int8 stands where rules put it."
        return replan(Placement()), None, [why], None
    full = replan(Placement(eager=True))
    placed, notes, key = None, [], ""
    race: Race | None = None
    if cache is not None and placing.costs is None:
        key = cache.key(
            model_hash(model), digest(full.to_json()), _own_digest(), placing.effort, placing.threads, detect().name,
            sorted((name, sorted(kinds.items())) for name, kinds in (able or {}).items()),
        )  # fmt: skip
        placed = from_text(cache.text("placements", key) or "")
    if placed is not None:
        notes.append("Where int8 pays was measured before on this machine; --no-cache measures again.")
    else:
        with (progress or Silent()).task("measuring forms of the model", None) as step:

            def counted(some: Plan) -> Model:
                step(1)
                return insert(some)

            placer = Placer(
                model, full, replan=replan, insert=counted, samples=samples, placing=placing, original=model.source,
                able=able,
            )  # fmt: skip
            placed = placer.run()

        def kept(found: Placed) -> Placed:
            if key and cache is not None:
                cache.put_text("placements", key, to_text(found))
            return found

        kept(placed)
        if placed.timed:

            def also(name: str, plan: Plan, labels: Labels, kinds: Kinds) -> Placed:
                return kept(placer.also(name, plan, labels, kinds))

            race = also

    return replan(placed.placement), placed, [*notes, *placed.notes], race
