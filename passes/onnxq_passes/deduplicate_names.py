"""Plans, reports and `keep_float` patterns speak of nodes and tensors by name, so every name must mean one thing."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import ClassVar

import onnx_graphsurgeon as gs

from onnxq.ir import walk
from onnxq.pipeline.base import QUANTIZED, Context, Pass, Report, Stage


@dataclass(frozen=True, kw_only=True)
class DeduplicateNames(Pass):
    """Give every node and every tensor of all graphs a unique name; names that were unique stay.

    1. A node without a name is called after its operator and its place among all nodes of the model: `Conv_12`.
    2. A node whose name is taken by an earlier node gets a number: `conv`, `conv_1`, `conv_2`.
    3. A tensor whose name is taken by another tensor (of another body) gets a number. Outer graphs come first.
    4. Inputs and outputs of the main graph keep their names in any case.
    """

    also_takes: ClassVar[tuple[Stage, ...]] = QUANTIZED

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rename in place; `report.renamed` maps new node names to old ones that were not empty."""
        report = Report()
        bodies = [body for _, body in walk.graphs(graph)]
        nodes = [node for body in bodies for node in body.nodes]
        taken = {node.name for node in nodes}
        seen: set[str] = set()
        numbers: dict[str, count[int]] = {}
        for index, node in enumerate(nodes):
            old = node.name
            if old and old not in seen:
                seen.add(old)
                continue
            if old:
                node.name = _next(old, taken, numbers)  # case 2
                report.renamed[node.name] = old
            else:
                plain = f"{node.op}_{index}"  # case 1
                node.name = plain if plain not in taken else _next(plain, taken, numbers)
                taken.add(node.name)
            seen.add(node.name)
            report.rewrites += 1
        report.rewrites += _rename_tensors(graph, bodies)
        return report


def _rename_tensors(graph: gs.Graph, bodies: list[gs.Graph]) -> int:
    order: dict[int, gs.Tensor] = {
        id(t): t for t in (*graph.inputs, *graph.outputs)
    }  # case 4: first come, first served
    for body in bodies:
        for tensors in (body.inputs, body.outputs, *(n.inputs for n in body.nodes), *(n.outputs for n in body.nodes)):
            order.update((id(t), t) for t in tensors if t.name)
    taken = {t.name for t in order.values()}
    seen: set[str] = set()
    numbers: dict[str, count[int]] = {}
    renamed = 0
    for tensor in order.values():
        if tensor.name in seen:
            tensor.name = _next(tensor.name, taken, numbers)  # case 3
            renamed += 1
        seen.add(tensor.name)
    return renamed


def _next(name: str, taken: set[str], numbers: dict[str, count[int]]) -> str:
    free = (f"{name}_{number}" for number in numbers.setdefault(name, count(1)))
    chosen = next(candidate for candidate in free if candidate not in taken)
    taken.add(chosen)
    return chosen
