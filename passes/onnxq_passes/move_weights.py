"""Exporters keep weights as they were trained and transpose them in the graph: integers can be stored transposed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq_passes import _moves
from onnxq_passes._edit import Editor
from onnxq_passes._qdq import dequantizer


@dataclass(frozen=True, kw_only=True)
class MoveWeights(Pass):
    """Make op -> DequantizeLinear of DequantizeLinear -> op, for a constant and an op that moves data; bit for bit.

    1. All other inputs of the op are constants, too: fold-constants then stores the moved integers.
    2. The axis of several scales is carried to where the channels arrive; where they do not arrive whole, the op stays.
    3. Chains move step by step. A DequantizeLinear that others read, too, stays for them.
    """

    takes: ClassVar[Stage] = Stage.QDQ
    also_takes: ClassVar[tuple[Stage, ...]] = (Stage.PLACED, Stage.FUSED)
    gives: ClassVar[Stage] = Stage.QDQ

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place, from front to back."""
        report, editor = Report(), Editor(graph)
        moved: set[int] = set()
        for node in list(editor.live()):
            reason = self._move(editor, node, moved)
            if reason:
                report.refuse(node, reason)
            elif reason is not None:
                report.rewrites += 1
        editor.commit()
        return report

    def _move(self, editor: Editor, node: gs.Node, moved: set[int]) -> str | None:
        """Why an op on a dequantized constant stays, "" if it was moved, None if it is something else."""
        row = _moves.mover(node)
        if row is None:
            return None
        slots = _moves.sources(node)
        found = dequantizer(editor, node.inputs[slots[0]])
        if found is None:
            return None
        dq, said = found
        source = dq.inputs[0]
        if not isinstance(source, gs.Constant) and id(source) not in moved:
            return None
        others = [t for i, t in enumerate(node.inputs) if i != slots[0] and t.name]
        if len(slots) > 1 or len(node.outputs) > 1 or not all(isinstance(t, gs.Constant) for t in others):
            return None  # it moves data at run time: that is sink-dequantize's business
        if node.inputs[slots[0]].shape is None:
            node.inputs[slots[0]].shape = source.shape  # a DQ keeps it
        behind = _moves.carried(node, said)
        reason = _moves.obstacle(editor, node, row, said, "bare")
        if isinstance(behind, str) or reason:
            return reason or str(behind)
        result = node.outputs[0]
        integers = editor.variable(f"{result.name}_quantized", result)
        integers.dtype = np.dtype(said.dtype)
        real = node.inputs[slots[0]]
        editor.set_input(node, slots[0], source)
        editor.set_output(node, 0, integers)
        numbers = _moves.scale_inputs(editor, dq, said)
        editor.insert(_moves.dq_node(editor, integers, behind, numbers, into=result), after=node)
        if editor.private(real, ()):
            editor.remove(dq)
        moved.add(id(integers))
        return ""
