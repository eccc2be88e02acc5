"""SiLU in two integer kernels costs more than as one float op. ONNX has none below opset 24, ONNX Runtime has."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxq.pipeline.base import Context, Pass, Report
from onnxq_passes._edit import Editor
from onnxq_passes._match import leak, made_by, not_float, other, rewrite_each, times


@dataclass(frozen=True, kw_only=True)
class RecomposeSilu(Pass):
    """Recognise SiLU and make it one com.microsoft QuickGelu op. Exact up to float rounding.

    1. x * Sigmoid(x), either order: QuickGelu(alpha=1).
    2. x * Sigmoid(x * a), a by Mul or Div: QuickGelu(alpha=a).
    3. Refused: a Sigmoid that is read elsewhere, a type other than float.

    The result runs in ONNX Runtime only: leave this pass out of pipelines for other runtimes.
    """

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""
        return rewrite_each(graph, ["Mul"], _rewrite)


def _rewrite(node: gs.Node, editor: Editor, report: Report) -> str | None:
    for gate in node.inputs:
        sigmoid = made_by(editor, gate, "Sigmoid")
        if sigmoid is None:
            continue
        x = other(node, gate)
        nodes, alpha = [sigmoid, node], 1.0
        if sigmoid.inputs[0] is not x:
            scaling = editor.producer(sigmoid.inputs[0])
            scaled = times(scaling)
            if scaling is None or scaled is None or scaled[0] is not x:
                continue  # an ordinary gate
            nodes, alpha = [scaling, *nodes], scaled[1]  # case 2
        if not_float(x):
            return "only float tensors have a QuickGelu kernel"
        reason = leak(editor, nodes, node)
        if reason is None:
            editor.fuse(node, nodes, "QuickGelu", [x], report, attrs={"alpha": alpha}, domain="com.microsoft")
        return reason
    return None
