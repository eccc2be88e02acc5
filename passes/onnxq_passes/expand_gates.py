"""SiLU, HardSwish and GELU between integers: two kernels on bytes in the place of DQ, a float op and Q."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.encoding import LEVELS, IntType
from onnxq.numerics import TINY
from onnxq.optable import GATE, GATED, NEARLY
from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq.plan.gates import USUAL
from onnxq_passes._edit import Editor, standard
from onnxq_passes._qdq import is_dq, is_q, parameters

_STEPS = 255
_CUT = 3.0
"""HardSwish is x * clip(x + 3, 0, 6) / 6."""


@dataclass(frozen=True, kw_only=True)
class ExpandGates(Pass):
    """Write DQ -> SiLU, HardSwish or GELU -> Q as a gate of 8 bits, 0 to 1 in steps of 1/255, times what the DQ gives.

    1. QuickGelu: the gate is Sigmoid(alpha * x); the DequantizeLinear in front of it has alpha in its scale.
    2. HardSwish: the gate is x + 3. Its QuantizeLinear saturates at 0 and 6, and the DequantizeLinear behind that reads
       the same integers as 0 to 1.
    3. Gelu, of either approximation: as QuickGelu, with the alpha that the plan has fitted to the data, or 1.702. That
       is another function, off by up to 0.02.
    4. Which ones: those that the plan puts into integers; without a plan all that stand between DQ and Q, or none.
    5. Refused: a scale per channel or per block; other than 8 bits; an alpha of 0 or less, or beyond any scale; a
       result that is also read in float.

    The gate rounds once more: by half a step, so the result moves by up to x/510.

    Attributes:
        planned: without a plan, none.
    """

    planned: bool = False

    takes: ClassVar[Stage] = Stage.QDQ
    gives: ClassVar[Stage] = Stage.QDQ
    exact: ClassVar[bool] = False

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""
        report, editor, nearly = Report(), Editor(graph), 0
        chosen = frozenset[str]() if self.planned else None
        if context.plan is not None:
            chosen = context.plan.gates
        for node in editor.live():
            if node.op not in GATED or not (standard(node) or node.domain == "com.microsoft"):
                continue
            before = editor.producer(node.inputs[0])
            if before is None or not is_dq(before) or (chosen is not None and node.name not in chosen):
                continue
            alpha = USUAL if context.plan is None else context.plan.alphas.get(node.name, USUAL)
            why = _expand(node, before, editor, alpha)
            report.tell(node, why)
            nearly += node.op in NEARLY and not why
        editor.commit()
        if nearly:
            ops = f"{nearly} op{'s' * (nearly != 1)}"
            report.notes.append(f"GELU is x * sigmoid(alpha * x) in bytes in {ops}, which differs by up to 0.02.")
        return report


def _expand(node: gs.Node, before: gs.Node, editor: Editor, alpha: float) -> str:
    """Rewrite, a Gelu with this alpha, or say why not."""
    data, result = parameters(before), node.outputs[0]
    if data is None or not data.one_byte_scale:
        return "its data has no single scale of 8 bits"
    if editor.is_output(result) or not all(is_q(user) for user, _ in editor.uses(result)):
        return "its result is also read in float"
    if node.op == "QuickGelu":
        alpha = float(node.attrs.get("alpha", 1.702))  # the operator's default
    if node.op != "HardSwish" and not TINY <= alpha * float(data.scale) <= float(np.finfo(np.float32).max):
        return "its alpha is not above 0, or so small or large that no scale takes it in"
    name, integers = f"{node.name}{GATE}", before.inputs[0]
    least = LEVELS[cast(IntType, data.dtype)][0]

    def put(op: str, title: str, inputs: list[gs.Tensor], like: gs.Tensor) -> gs.Tensor:
        output = editor.variable(title, like)
        editor.insert(editor.node(op, inputs, [output], name=title), before=node)
        return output

    def level(title: str, value: int) -> gs.Tensor:
        return editor.constant(title, np.asarray(value, data.dtype))

    def constants(title: str, scale: float, zero_point: int) -> list[gs.Tensor]:
        return [
            editor.constant(f"{title}_scale", np.asarray(scale, np.float32)),
            level(f"{title}_zero_point", zero_point),
        ]

    real = x = before.outputs[0]
    read = to = constants(name, 1 / _STEPS, least)
    if node.op == "HardSwish":
        one = level(f"{name}_one", least + 1)
        three = put("DequantizeLinear", f"{name}_three", [one, *constants(f"{name}_three", _CUT, least)], one)
        three.dtype = np.dtype(np.float32)
        gate = put("Add", name, [real, three], real)
        to = constants(f"{name}_cut", 2 * _CUT / _STEPS, least)
    else:
        if alpha != 1.0:
            scaled = constants(f"{name}_data", alpha * float(data.scale), int(data.zero_point))
            x = put("DequantizeLinear", f"{name}_data", [integers, *scaled], real)
        gate = put("Sigmoid", name, [x], real)
    levels = put("QuantizeLinear", f"{name}_quantized", [gate, *to], integers)
    factor = put("DequantizeLinear", f"{name}_dequantized", [levels, *read], real)
    editor.remove(node)
    product = editor.node("Mul", [real, factor], [result], name=node.name)
    editor.insert(product, before=node)
    product.name = node.name  # that of a node that is gone: plans, costs and reports speak of it
    return ""
