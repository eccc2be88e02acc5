"""What reaches no output costs time in every run, and a consumer that is never read would still ask for an encoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_graphsurgeon as gs

from onnxq.pipeline.base import QUANTIZED, Context, Pass, Report, Stage
from onnxq_passes._edit import Editor

OPTIONAL_FROM = {
    "BatchNormalization": 1,
    "Dropout": 1,
    "GRU": 0,
    "LSTM": 0,
    "LayerNormalization": 1,
    "MaxPool": 1,
    "RNN": 0,
    "Unique": 1,
}
"""Ops with outputs that may be omitted -> the first such output."""


@dataclass(frozen=True, kw_only=True)
class EliminateDead(Pass):
    """Remove what reaches no output of the main graph.

    1. Nodes, in all graphs, none of whose outputs is needed, directly or by a body. Constants go with their last
       reader.
    2. Unused optional outputs of ops that are needed (the mask of Dropout, the indices of MaxPool, the states of
       LSTM).
    3. Inputs of the main graph, inputs and outputs of bodies, and outputs that an op must have (Split, TopK) stay.
    """

    also_takes: ClassVar[tuple[Stage, ...]] = QUANTIZED

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""
        report, editor = Report(), Editor(graph)
        needed: set[int] = set()
        waiting: list[gs.Tensor] = list(graph.outputs)
        seen: set[int] = set()
        while waiting:
            tensor = waiting.pop()
            if id(tensor) in seen:
                continue
            seen.add(id(tensor))
            node = editor.producer(tensor)
            if node is None or id(node) in needed:
                continue
            needed.add(id(node))
            waiting += node.inputs
            for body in node.subgraphs():
                waiting += body.outputs
        for body in editor.bodies:
            for node in list(editor.live(body)):
                if id(node) not in needed:
                    editor.remove(node)  # case 1
                    report.rewrites += 1
        for node in editor.live(ops=OPTIONAL_FROM):
            report.rewrites += _trim(node, editor)
        editor.commit()
        return report


def _trim(node: gs.Node, editor: Editor) -> int:
    """Case 2: omit unused outputs; how many."""
    trimmed = 0
    for slot in range(OPTIONAL_FROM[node.op], len(node.outputs)):
        tensor = node.outputs[slot]
        if tensor.name and not editor.is_output(tensor) and not any(True for _ in editor.uses(tensor)):
            editor.set_output(node, slot, gs.Variable.empty())
            trimmed += 1
    while len(node.outputs) > 1 and not node.outputs[-1].name:
        list.pop(node.outputs)
    return trimmed
