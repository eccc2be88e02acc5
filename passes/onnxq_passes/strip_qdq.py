"""Back to float: to quantize anew what somebody else quantized, or to see what quantization costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.numerics import dequantize
from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq_passes._edit import Editor
from onnxq_passes._qdq import is_q, parameters


@dataclass(frozen=True, kw_only=True)
class StripQdq(Pass):
    """Remove every Q -> DQ pair and turn integer constants into float ones.

    Not exact: what the pairs rounded and clipped goes through as it is.

    1. Who reads the DQ of a pair reads what its Q reads. The Q goes if nobody else reads it.
    2. A DQ of a constant becomes the float constant that it computes, bit for bit.
    3. A Q and a DQ with different parameters are no pair: they scale, and stay. So do computed parameters, a Q that
       only integer ops read, and a DQ behind an integer op or an integer input.
    4. An input or a constant that would go straight to an output of the graph keeps its pair.
    """

    takes: ClassVar[Stage] = Stage.QDQ
    also_takes: ClassVar[tuple[Stage, ...]] = (Stage.FLOAT, Stage.PLACED)  # also files that somebody else quantized
    gives: ClassVar[Stage] = Stage.FLOAT

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place, from front to back."""
        report, editor = Report(), Editor(graph)
        for body in editor.bodies:
            for dq in editor.live(body, ["DequantizeLinear"]):
                reason = self._strip(editor, dq)
                if reason:
                    report.refuse(dq, reason)
                else:
                    report.rewrites += 1
        for q in list(editor.live(ops=["QuantizeLinear"])):
            if editor.private(q.outputs[0], ()):
                editor.remove(q)
                report.rewrites += 1
        editor.commit()
        return report

    def _strip(self, editor: Editor, dq: gs.Node) -> str | None:
        said = parameters(dq)
        if said is None:
            return "its parameters are not constant or not regular"
        source, result = dq.inputs[0], dq.outputs[0]
        if isinstance(source, gs.Constant):
            if editor.is_output(result):
                return "it joins an input or a constant to an output of the graph"
            values = dequantize(np.asarray(source.values), said.encoding())
            editor.replace_uses(result, editor.constant(f"{source.name}_float", values))
            editor.remove(dq)
            return None
        q = editor.producer(source)
        if q is None or not is_q(q):
            return "its integers come from an integer op or an input"
        if parameters(q) != said:
            return "its parameters are not those of the Q in front of it"
        editor.set_input(dq, 0, q.inputs[0])
        reason = editor.bypass(dq)
        if reason:
            editor.set_input(dq, 0, source)
        return reason
