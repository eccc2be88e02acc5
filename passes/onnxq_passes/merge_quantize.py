"""Hoisting past a fork leaves one Q per branch; they all say the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_graphsurgeon as gs

from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq_passes._edit import Editor
from onnxq_passes._qdq import parameters


@dataclass(frozen=True, kw_only=True)
class MergeQuantize(Pass):
    """Make one QuantizeLinear of several on one tensor that say the same; bit for bit.

    1. The first one, in the order of the graph, stays; readers of the others read it.
    2. If the result of another one is an output of the graph, the first one writes it under that name. Two outputs
       keep two Qs.
    3. Qs with other parameters, with computed or irregular ones, and those of different bodies stay apart.
    """

    takes: ClassVar[Stage] = Stage.QDQ
    gives: ClassVar[Stage] = Stage.QDQ

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place, in one walk."""
        report, editor = Report(), Editor(graph)
        for body in editor.bodies:
            first: dict[tuple[object, ...], gs.Node] = {}
            seen: dict[int, gs.Node] = {}
            for node in editor.live(body, ["QuantizeLinear"]):
                said = parameters(node)
                source = node.inputs[0]
                if said is None:
                    if id(source) in seen:
                        report.refuse(node, "its parameters are not constant or not regular")
                    continue
                key = (id(source), said.key)
                if key in first:
                    self._merge(editor, first[key], node, report)
                    continue
                if id(source) in seen:
                    report.refuse(node, f"{seen[id(source)].name} quantizes the same tensor with other parameters")
                first[key] = node
                seen.setdefault(id(source), node)
        editor.commit()
        return report

    def _merge(self, editor: Editor, first: gs.Node, node: gs.Node, report: Report) -> None:
        kept, gone = first.outputs[0], node.outputs[0]
        if not editor.is_output(gone):
            editor.replace_uses(gone, kept)
            editor.remove(node)
        elif not editor.is_output(kept):
            editor.remove(node)
            editor.replace_uses(kept, gone)
            editor.set_output(first, 0, gone)
        else:
            report.refuse(node, "both results are outputs of the graph")  # case 2
            return
        report.rewrites += 1
