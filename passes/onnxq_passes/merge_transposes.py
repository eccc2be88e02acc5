"""Layout changes come in pairs, one at the end of a block, one at the start of the next."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxq.pipeline.base import Context, Pass, Report
from onnxq_passes._edit import Editor, rank, standard


@dataclass(frozen=True, kw_only=True)
class MergeTransposes(Pass):
    """Make one Transpose of two in a row; bit for bit.

    1. Transpose(Transpose(x, p), q) reads x with the permutation p[q[i]]. The first one goes if nobody else reads
       it; it stays if somebody does (then two short chains replace a long one).
    2. If they undo each other, the second one vanishes, too; an op whose input is an input and whose output an
       output of the graph stays.
    3. A Transpose without `perm` reverses the dimensions; its rank must be known.
    """

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place; chains collapse from front to back."""
        report, editor = Report(), Editor(graph)
        for node in editor.live(ops=["Transpose"]):
            while _merged(editor, report, node):  # one more may stand in front of a pair that had to stay
                pass
        editor.commit()
        return report


def _merged(editor: Editor, report: Report, node: gs.Node) -> bool:
    """Read what the Transpose in front reads; True: look again at what that is."""
    first = editor.producer(node.inputs[0])
    if first is None or first.op != "Transpose" or not standard(first):
        return False
    inner, outer = _permutation(first), _permutation(node)
    if inner is None or outer is None:
        report.refuse(node, "a Transpose without perm, of unknown rank")  # case 3
        return False
    merged = [inner[i] for i in outer]
    undone = merged == sorted(merged)
    old = node.inputs[0]
    editor.set_input(node, 0, first.inputs[0])
    if undone:
        reason = editor.bypass(node)  # case 2
        if reason:
            editor.set_input(node, 0, old)
            report.refuse(node, reason)
            return False
    else:
        node.attrs["perm"] = merged  # case 1
    report.rewrites += 1
    if not editor.is_output(first.outputs[0]) and not any(True for _ in editor.uses(first.outputs[0])):
        editor.remove(first)
    return not undone


def _permutation(node: gs.Node) -> list[int] | None:
    perm = node.attrs.get("perm")
    if perm is not None:
        return list(perm)
    size = rank(node.inputs[0]) or rank(node.outputs[0])
    return None if size is None else list(range(size))[::-1]
