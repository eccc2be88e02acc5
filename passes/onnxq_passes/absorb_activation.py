"""Saturation is an activation, too: what QuantizeLinear clips need not be clipped before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.encoding import LEVELS, Affine, IntType, PerChannel, PerTensor
from onnxq.numerics import quantize
from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq_passes._edit import Editor, input_at, scalar
from onnxq_passes._qdq import Parameters, is_q, parameters

_INF = float("inf")


@dataclass(frozen=True, kw_only=True)
class AbsorbActivation(Pass):
    """Remove Relu and Clip whose work the QuantizeLinear behind them does by saturating; bit for bit.

    1. Q(Clip(x, a, b)) = Q(x) exactly if Q(a) is the least and Q(b) the greatest level, since Q is monotone. Relu is
       Clip(x, 0, inf), ReLU6 is Clip(x, 0, 6); a missing bound is infinite.
    2. Every reader must be a Q that passes this test, each with its own parameters (per channel: every channel); an
       output of the graph keeps the activation.
    3. Chains (Relu -> Clip) go from back to front.
    4. Bounds that are computed, that are NaN, or that stand in the wrong order are refused.

    Where x is NaN, the result is that of Q(NaN).
    """

    takes: ClassVar[Stage] = Stage.QDQ
    gives: ClassVar[Stage] = Stage.QDQ

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place, from the last op to the first."""
        report, editor = Report(), Editor(graph)
        for body in reversed(editor.bodies):
            for node in reversed(list(editor.live(body, ["Relu", "Clip"]))):
                readers = list(editor.uses(node.outputs[0]))
                if not any(is_q(n) and s == 0 for n, s in readers):
                    continue
                reason = self._obstacle(editor, node, readers)
                if reason:
                    report.refuse(node, reason)
                    continue
                editor.replace_uses(node.outputs[0], node.inputs[0])
                editor.remove(node)
                report.rewrites += 1
        editor.commit()
        return report

    def _obstacle(self, editor: Editor, node: gs.Node, readers: list[tuple[gs.Node, int]]) -> str:
        if editor.is_output(node.outputs[0]):
            return "its result is an output of the graph"
        bounds = _bounds(node)
        if bounds is None:
            return "its bounds are computed, or in the wrong order"
        for reader, slot in readers:
            if not is_q(reader) or slot != 0:
                return f"{reader.name} reads its result in float"
            said = parameters(reader)
            if said is None:
                return f"the parameters of {reader.name} are not constant or not regular"
            if not _saturates(said, *bounds):
                return f"{reader.name} has levels beyond its bounds"
        return ""


def _bounds(node: gs.Node) -> tuple[float, float] | None:
    if node.op == "Relu":
        return 0.0, _INF
    found = []
    for slot, attribute, default in ((1, "min", -_INF), (2, "max", _INF)):
        given = input_at(node, slot)
        value = float(node.attrs.get(attribute, default)) if given is None else scalar(given)
        if value is None:
            return None
        found.append(value)
    return (found[0], found[1]) if found[0] <= found[1] else None


def _saturates(said: Parameters, low: float, high: float) -> bool:
    """Q(low) is the least level and Q(high) the greatest, for every scale."""
    if said.block_size:
        return False
    least, most = LEVELS[cast(IntType, said.dtype)]
    kind = PerTensor() if said.axis is None else PerChannel(0)  # the bound once per scale: the axis is 0
    one = Affine(type=cast(IntType, said.dtype), granularity=kind, scale=said.scale, zero_point=said.zero_point)
    return all(
        bool((quantize(np.full(said.scale.shape, bound, np.float32), one) == level).all())
        for bound, level in ((low, least), (high, most))
    )
