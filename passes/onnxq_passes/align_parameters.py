"""An op that moves data is an integer op only if what goes in and what comes out is on one scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_graphsurgeon as gs

from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq_passes import _moves
from onnxq_passes._edit import Editor
from onnxq_passes._qdq import Parameters, attributes, dequantizer, is_dq, is_q, parameters


@dataclass(frozen=True, kw_only=True)
class AlignParameters(Pass):
    """Give the inputs of an op that moves data the parameters that its result is quantized with.

    1. Q -> DQ -> op -> Q: where the result is read by Qs with equal per-tensor parameters only, each pair in front
       that is read by nothing but the op takes them over.
    2. That is bit for bit if both stand for the same real numbers level by level (uint8 and int8 with shifted zero
       points): then it is done. Other pairs are rounded once less from then on: only with `inexact`.
    3. A Q or DQ that somebody else reads, or that is an output of the graph, stays as it is.

    Attributes:
        inexact: also pairs with another scale. This carries out the scales that Concat, MaxPool, Resize and the like
            should share.
    """

    takes: ClassVar[Stage] = Stage.QDQ
    gives: ClassVar[Stage] = Stage.QDQ

    inexact: bool = False

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place, from the last op to the first."""
        report, editor = Report(), Editor(graph)
        for body in reversed(editor.bodies):
            for node in reversed(list(editor.live(body))):
                row = _moves.mover(node)
                if row is None or row.moves is None or row.moves(node):
                    continue
                behind = self._behind(editor, node)
                if behind is not None:
                    for slot in _moves.sources(node):
                        self._align(editor, node, slot, *behind, report)
        editor.commit()
        return report

    def _behind(self, editor: Editor, node: gs.Node) -> tuple[gs.Node, Parameters] | None:
        """A Q behind the op and what it says, if all readers say the same."""
        found: tuple[gs.Node, Parameters] | None = None
        for tensor in node.outputs:
            if editor.is_output(tensor):
                return None
            for reader, _ in editor.uses(tensor):
                said = parameters(reader) if is_q(reader) else None
                if said is None or said.axis is not None or (found is not None and found[1] != said):
                    return None
                if found is None or reader.name < found[0].name:  # lists of readers have no fixed order
                    found = reader, said
        return found

    def _align(
        self, editor: Editor, node: gs.Node, slot: int, like: gs.Node, wanted: Parameters, report: Report
    ) -> None:
        before = dequantizer(editor, node.inputs[slot])
        if before is None or before[1] == wanted:
            return
        dq, said = before
        q = editor.producer(dq.inputs[0])
        if q is None or not is_q(q) or parameters(q) != said:
            report.refuse(node, f"the integers of its input {slot} come from no Q with the same parameters")
        elif not editor.private(dq.outputs[0], [node]) or not editor.private(q.outputs[0], [dq]):
            report.refuse(node, f"the pair at its input {slot} has other readers")
        elif not (_moves.same_grid(said, wanted) or self.inexact):
            report.refuse(node, f"its input {slot} is on another grid: only `inexact` aligns it")
        elif any(is_dq(n) for n in [editor.producer(q.inputs[0])] if n is not None) and not _moves.same_grid(
            said, wanted
        ):
            report.refuse(node, f"its input {slot} is a requantization")
        else:
            numbers = _moves.scale_inputs(editor, like, wanted)
            for one in (q, dq):
                editor.set_inputs(one, [one.inputs[0], *numbers])
                for name in ("axis", "block_size", "output_dtype"):
                    one.attrs.pop(name, None)
                one.attrs.update(attributes(wanted))
            q.outputs[0].dtype = like.outputs[0].dtype
            report.rewrites += 1
