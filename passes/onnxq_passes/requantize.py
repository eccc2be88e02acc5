"""A change of scale is part of the model, and ONNX Runtime must not merge it away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq_passes._edit import Editor
from onnxq_passes._qdq import Parameters, is_dq, is_q, parameters


@dataclass(frozen=True, kw_only=True)
class Requantize(Pass):
    """Keep a change of parameters, Q -> DQ -> Q -> DQ, as it is at every optimization level; bit for bit.

    ONNX Runtime's CPU makes one pair of two from BASIC on, if both have one scale and the same integer type, and
    rounds differently from then on. Only for target `cpu`:

    1. The DQ in the middle becomes per channel with equal scales, which has the same values and which ONNX Runtime
       leaves alone. It takes the first axis whose size is known and is not 1.
    2. A pair whose types differ, or that is per channel already, needs nothing; likewise a DQ or an inner tensor that
       somebody else reads, or that is an output.
    3. If no axis has a known size, the pair stays and is reported.
    """

    takes: ClassVar[Stage] = Stage.QDQ
    gives: ClassVar[Stage] = Stage.QDQ

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place, in one walk."""
        report, editor = Report(), Editor(graph)
        if context.target.name != "cpu":
            return report
        vectors: dict[tuple[object, ...], tuple[gs.Constant, gs.Constant]] = {}
        for dq in editor.live(ops=["DequantizeLinear"]):
            said = self._merged_by_ort(editor, dq)
            if said is None:
                continue
            axis = _axis(editor, dq)
            if axis is None:
                report.refuse(dq, "no axis has a known size: ONNX Runtime will merge this double pair")
                continue
            index, size = axis
            key = (size, said.key)
            if key not in vectors:
                vectors[key] = (
                    editor.constant(f"{dq.inputs[1].name}_vector", np.full(size, said.scale, np.float32)),
                    editor.constant(f"{dq.name}_zero_points", np.full(size, said.zero_point, said.dtype)),
                )
            editor.set_inputs(dq, [dq.inputs[0], *vectors[key]])
            dq.attrs["axis"] = index
            report.rewrites += 1
        editor.commit()
        return report

    def _merged_by_ort(self, editor: Editor, dq: gs.Node) -> Parameters | None:
        """The parameters of the first pair, if its DQ stands in the middle of a double pair."""
        said, before = parameters(dq), editor.producer(dq.inputs[0])
        if said is None or said.axis is not None or before is None or not is_q(before) or parameters(before) != said:
            return None
        if editor.only_use(dq.inputs[0]) is None:
            return None
        use = editor.only_use(dq.outputs[0])
        if use is None or not is_q(use[0]) or use[1] != 0:
            return None
        behind = parameters(use[0])
        if behind is None or behind.axis is not None or behind.dtype != said.dtype or behind == said:
            return None
        return said if any(is_dq(n) for n, _ in editor.uses(use[0].outputs[0])) else None


def _axis(editor: Editor, dq: gs.Node) -> tuple[int, int] | None:
    """An axis of known size, from the shape of any tensor of the chain."""
    before = editor.producer(dq.inputs[0])
    chain = [dq.inputs[0], dq.outputs[0], *(before.inputs[:1] if before is not None else [])]
    for tensor in chain:
        known = [
            (i, int(d)) for i, d in enumerate(tensor.shape or ()) if isinstance(d, (int, np.integer)) and int(d) > 1
        ]
        if known:
            return known[0]
    return None
