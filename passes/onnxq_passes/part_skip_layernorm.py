"""ONNX Runtime fuses Add and LayerNormalization; on the CPU, the fused op takes several times as long as both."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxq.pipeline.base import Context, Pass, Report
from onnxq_passes._edit import Editor, input_at, rank, standard
from onnxq_passes._fuse import MICROSOFT

OPSET = 17
EPSILON = 1e-12
"""What a SkipLayerNormalization adds that does not say."""


@dataclass(frozen=True, kw_only=True)
class PartSkipLayernorm(Pass):
    """Keep a sum and the LayerNormalization behind it apart: ONNX Runtime's fused op is slower on the CPU.

    1. An Add of two tensors of rank 3 that only a LayerNormalization reads becomes a Sum: the same numbers, bit for
       bit, but no fusion of ONNX Runtime's looks for it.
    2. com.microsoft.SkipLayerNormalization, with bias and the sum as a result or without, becomes Sum and
       LayerNormalization. Exact up to float rounding.
    3. Refused, because ONNX Runtime does not fuse there: a sum that is read elsewhere, too, and a LayerNormalization
       over more than the last axis. Refused, because the parts lack it: the mean or the deviation as a result, an opset
       below 17.

    128 x 384 numbers take 0.22 ms fused and 0.03 ms apart (onnxruntime 1.31, AVX512, one thread; docs/measure_skip.py).
    For runtimes with a fast fused op, leave this pass out.
    """

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""
        report, editor = Report(), Editor(graph)
        for node in editor.live():
            if node.op == "Add" and standard(node):
                reason = _rename(node, editor, report)
            elif node.op == "SkipLayerNormalization" and node.domain == MICROSOFT:
                reason = _part(node, editor, report, graph.opset)
            else:
                continue
            if reason:
                report.refuse(node, reason)
        editor.commit()
        return report


def _rename(add: gs.Node, editor: Editor, report: Report) -> str | None:
    """Case 1."""
    total = add.outputs[0]
    norms = [n for n, slot in editor.uses(total) if n.op == "LayerNormalization" and standard(n) and slot == 0]
    if not norms or any(rank(t) not in (None, 3) for t in add.inputs):
        return None  # ONNX Runtime fuses sums of two tensors of rank 3
    if editor.only_use(total) is None:
        return "its sum is also read elsewhere: ONNX Runtime does not fuse it"
    if norms[0].attrs.get("axis", -1) not in (-1, 2):
        return "the LayerNormalization works over more than the last axis: ONNX Runtime does not fuse it"
    editor.fuse(add, [add], "Sum", list(add.inputs), report)
    return None


def _part(fused: gs.Node, editor: Editor, report: Report, opset: int) -> str | None:
    """Case 2."""
    if any(t.name for t in fused.outputs[1:3]):
        return "the mean or the deviation is a result"
    if opset < OPSET:
        return f"LayerNormalization needs opset {OPSET}"
    result = fused.outputs[0]
    added = [t for t in (fused.inputs[0], fused.inputs[1], input_at(fused, 4)) if t is not None]
    scales = [t for t in (fused.inputs[2], input_at(fused, 3)) if t is not None]
    total = fused.outputs[3] if len(fused.outputs) > 3 and fused.outputs[3].name else None
    if total is None:
        total = editor.variable(f"{result.name}_Sum", result)
    new = editor.node("Sum", added, [total], name=f"{fused.name}_Sum")
    editor.insert(new, before=fused)
    report.renamed[new.name] = fused.name
    attrs = {"axis": -1, "epsilon": fused.attrs.get("epsilon", EPSILON)}
    editor.fuse(fused, [fused], "LayerNormalization", [total, *scales], report, attrs=attrs)
    return None
