"""Training with fake quantization leaves weights in float, behind a Q that gives the same integers on every run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.numerics import quantize
from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq_passes._edit import Editor
from onnxq_passes._qdq import parameters


@dataclass(frozen=True, kw_only=True)
class QuantizeConstants(Pass):
    """Replace QuantizeLinear of a float constant by the integers; bit for bit.

    1. Per tensor, per channel, per block; a quarter of the file that the weight was.
    2. A constant that contains NaN, which becomes another integer on another CPU, stays; so do computed parameters.
    3. A Q whose result is an output of the graph stays.
    """

    takes: ClassVar[Stage] = Stage.QDQ
    also_takes: ClassVar[tuple[Stage, ...]] = (Stage.PLACED, Stage.FUSED)
    gives: ClassVar[Stage] = Stage.QDQ

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""
        report, editor = Report(), Editor(graph)
        for node in list(editor.live(ops=["QuantizeLinear"])):
            if not isinstance(node.inputs[0], gs.Constant):
                continue
            report.tell(node, _fold(editor, node))
        editor.commit()
        return report


def _fold(editor: Editor, node: gs.Node) -> str:
    said, source = parameters(node), node.inputs[0]
    if said is None:
        return "its parameters are computed, or are not positive float32 numbers of a known form"
    values = np.asarray(source.values)
    if values.dtype != np.float32:
        return f"its constant is {values.dtype.name}"
    if np.isnan(values).any():
        return "its constant contains NaN"
    if editor.is_output(node.outputs[0]):
        return "its result is an output of the graph"
    editor.replace_uses(node.outputs[0], editor.constant(f"{source.name}_quantized", quantize(values, said.encoding())))
    editor.remove(node)
    return ""
