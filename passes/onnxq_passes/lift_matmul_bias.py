"""ONNX Runtime 1.31 puts a Reshape and a second Q/DQ pair in front of a batched MatMul whose sum with a bias it turns
into Gemm; for int8 activations that pair contradicts itself (`output_dtype` against the zero point), and the file does
not load. It leaves a bias of rank 2 alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxq.ir.walk import constant_array
from onnxq.pipeline.base import Context, Pass, Report
from onnxq_passes._edit import Editor, rank


@dataclass(frozen=True, kw_only=True)
class LiftMatmulBias(Pass):
    """Write the constant bias [N] of a batched MatMul as [1, N]; exact.

    1. An Add of a constant of rank 1 and of a MatMul with a constant weight.
    2. The sum has a known rank of 3 or more, so that its shape stays.
    """

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""
        report, editor = Report(), Editor(graph)
        for node in editor.live(ops=["Add"]):
            for slot in (0, 1):
                bias = constant_array(node.inputs[slot])
                product = editor.producer(node.inputs[1 - slot])
                if bias is None or bias.ndim != 1 or product is None or product.op != "MatMul":
                    continue
                if constant_array(product.inputs[1]) is None:
                    continue
                size = rank(product.outputs[0]) or rank(node.outputs[0]) or rank(product.inputs[0])
                if size is None:
                    report.refuse(node, "the rank of the product is not known")  # case 2
                elif size >= 3:
                    editor.set_input(node, slot, editor.constant(f"{node.inputs[slot].name}_row", bias[None]))
                    report.rewrites += 1
        editor.commit()
        return report
