"""The values of many inner tensors of a model: all at once would be too much memory, and a whole run for each few of
them would take time that grows with the square of the model. So the model runs in parts, each once per sample, and what
later parts read is kept.

With optimizations off every kernel runs by itself, so the parts compute the bits that the whole computes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.ir.model import Model
from onnxq.ir.part import part, reads
from onnxq.ir.save import runnable
from onnxq.runtime.session import Level, Session

Arrays = Mapping[str, NDArray[Any]]


def inner_values(model: Model, groups: Sequence[Sequence[str]], samples: Sequence[Arrays]) -> Iterator[dict[str, Any]]:
    """The values of the tensors of each group, for each sample: group by group, in it sample by sample.

    Args:
        groups: names of tensors of the main graph that are no constants, best in its order: a part of the model ends
            where all of a group are made.

    Raises:
        ModelError: ORT cannot run a part.
    """
    nodes: list[gs.Node] = list(model.graph.nodes)
    stops, last = _plan(nodes, groups)
    begin, held = 0, [dict[str, NDArray[Any]]() for _ in samples]
    for number, (stop, group) in enumerate(zip(stops, groups, strict=True)):
        now = nodes[begin:stop]
        made = [t.name for node in now for t in node.outputs if t.name]
        kept = [name for name in made if last.get(name, -1) > number]
        wanted = [*kept, *(name for name in set(made).intersection(group) if name not in set(kept))]
        session = _opened(model, now, held[0], wanted) if wanted else None
        passed = True
        for sample, known in zip(samples, held, strict=True):
            around = {**sample, **known}
            names = () if session is None else tuple(s.name for s in session.inputs)
            found = {} if session is None else session.run({name: around[name] for name in names}, wanted)
            passed = passed and all(_feedable(found[name]) for name in kept)
            yield {name: found[name] if name in found else around[name] for name in group}
            if passed:
                known.update((name, found[name]) for name in kept)
                for name in [name for name in known if last[name] <= number]:
                    del known[name]
        if passed:  # else what follows runs once more from here: a sequence cannot be handed on
            begin = stop


def _plan(nodes: Sequence[gs.Node], groups: Sequence[Sequence[str]]) -> tuple[list[int], dict[str, int]]:
    """Where the part of each group ends in the list of nodes, and by tensor the last part that needs it."""
    made = {t.name: i for i, node in enumerate(nodes) for t in node.outputs if t.name}
    stops: list[int] = []
    for group in groups:
        stops.append(max([*stops[-1:], *(made[name] + 1 for name in group if name in made)], default=0))
    last: dict[str, int] = {}
    at = 0
    for number, stop in enumerate(stops):
        for node in nodes[at:stop]:
            last.update((name, number) for name in reads(node) if name in made)
        last.update((name, number) for name in groups[number] if name in made)
        at = stop
    return stops, last


def _opened(model: Model, nodes: Sequence[gs.Node], held: Arrays, wanted: Sequence[str]) -> Session:
    read = dict.fromkeys(name for node in nodes for name in reads(node))
    given = {name: held[name].dtype for name in read if name in held}
    with runnable(part(model, nodes, given, [gs.Variable(name) for name in wanted])) as source:
        return Session(source, level=Level.OFF, threads=1, prepacking=False)


def _feedable(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind != "O"
