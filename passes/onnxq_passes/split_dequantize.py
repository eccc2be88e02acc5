"""ONNX Runtime makes an integer op of DQ -> op -> Q only where the DQ serves nobody else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_graphsurgeon as gs

from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq_passes._edit import Editor


@dataclass(frozen=True, kw_only=True)
class SplitDequantize(Pass):
    """Give each reader a DequantizeLinear of its own; bit for bit.

    1. The first reader keeps the DQ, each further one gets a copy behind it. A node that reads it twice counts once.
    2. An output of the graph keeps the DQ; then every reader gets a copy.
    3. Scales, zero points and the integers are shared.

    Nothing is refused: a copy computes the same.
    """

    takes: ClassVar[Stage] = Stage.QDQ
    gives: ClassVar[Stage] = Stage.QDQ

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place, in one walk."""
        report, editor = Report(), Editor(graph)
        dqs = list(editor.live(ops=["DequantizeLinear"]))
        groups_of: dict[int, dict[int, list[tuple[gs.Node, int]]]] = {id(dq.outputs[0]): {} for dq in dqs}
        for reader in editor.live():  # in the order of the graph, which the lists of readers need not have
            for slot, tensor in enumerate(reader.inputs):
                if id(tensor) in groups_of:
                    groups_of[id(tensor)].setdefault(id(reader), []).append((reader, slot))
        for dq in dqs:
            result = dq.outputs[0]
            groups = list(groups_of[id(result)].values())
            for group in groups if editor.is_output(result) else groups[1:]:
                copy = editor.node(
                    "DequantizeLinear",
                    list(dq.inputs),
                    [editor.variable(result.name, result)],
                    name=dq.name,
                    attrs=dict(dq.attrs),
                    domain=dq.domain,
                )
                editor.insert(copy, after=dq)
                for reader, slot in group:
                    editor.set_input(reader, slot, copy.outputs[0])
                report.rewrites += 1
        editor.commit()
        return report
