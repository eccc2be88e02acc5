"""Dequantizing and quantizing again with the same parameters is a long way round to the same integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_graphsurgeon as gs

from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq_passes._edit import Editor
from onnxq_passes._qdq import is_dq, parameters


@dataclass(frozen=True, kw_only=True)
class CancelDqQ(Pass):
    """Remove DequantizeLinear -> QuantizeLinear with equal parameters; bit for bit.

    1. Who reads the Q reads what the DQ reads. The DQ goes if nobody else reads it.
    2. Different parameters are a requantization: it stays, since each rounding is part of the model.
    3. Equal parameters whose levels do not all survive (scales so small or so large that products lose steps) stay.
    4. An integer input or constant that would go straight to an output of the graph keeps both.
    """

    takes: ClassVar[Stage] = Stage.QDQ
    gives: ClassVar[Stage] = Stage.QDQ

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place; chains collapse from front to back."""
        report, editor = Report(), Editor(graph)
        for body in editor.bodies:
            for node in editor.live(body, ["QuantizeLinear"]):
                dq = editor.producer(node.inputs[0])
                if dq is not None and is_dq(dq):
                    report.tell(node, self._cancel(editor, dq, node))
        editor.commit()
        return report

    def _cancel(self, editor: Editor, dq: gs.Node, node: gs.Node) -> str | None:
        before, behind = parameters(dq), parameters(node)
        if before is None or behind is None:
            return "the parameters are not constant or not regular"
        if before != behind:
            return "the parameters differ: it is a requantization"
        if not before.round_trips:
            return "Q(DQ(q)) is not q for every q of these parameters"
        real = node.inputs[0]
        editor.set_input(node, 0, dq.inputs[0])
        reason = editor.bypass(node)
        if reason:
            editor.set_input(node, 0, real)
        elif editor.private(real, ()):
            editor.remove(dq)
        return reason
