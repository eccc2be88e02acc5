"""A file of integer operators says what it computes, but no pass can move a Q in it: it is brought back to Q and DQ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import onnx_graphsurgeon as gs

from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq.plan.integers import ONE_AXIS_OPSET
from onnxq_passes._edit import Editor, standard
from onnxq_passes._fuse import MICROSOFT
from onnxq_passes._unfuse import CannotUnfuseError, Unfusing
from onnxq_passes._unfuse_products import PRODUCTS


@dataclass(frozen=True, kw_only=True)
class UnfuseQlinear(Pass):
    """Make DequantizeLinear -> op -> QuantizeLinear of the integer operators that carry their scales.

    1. QLinearConv, QLinearMatMul; of com.microsoft QGemm, QLinearAdd, Mul, LeakyRelu, Sigmoid, Softmax, Concat, Where,
       AveragePool and GlobalAveragePool.
    2. An int32 bias gets a DequantizeLinear with the scale of the data times that of the weight.
    3. QGemm without scale of its result, and MatMulIntegerToFloat, give a float result: no QuantizeLinear. A float bias
       becomes int32 as in case 2 if that is the same to the last bit.
    4. Zero points that are left out are written. DequantizeLinear of one tensor that say the same are one.
    5. Scales that are computed, scales per row, several scales below opset 13, and the NHWC forms that ONNX Runtime's
       optimizer makes (channels_last) stay.

    What ONNX Runtime computes without optimizations is equal bit for bit for QLinearConcat, Where, LeakyRelu and
    Sigmoid; QLinearConv, MatMul, QGemm and AveragePool add integers where floats are added now, which may move a tie
    by one step; QLinearAdd, Mul, Softmax and GlobalAveragePool round on another way: at most one step. The float
    results of case 3 agree up to the rounding of float32.
    """

    takes: ClassVar[Stage] = Stage.FUSED
    also_takes: ClassVar[tuple[Stage, ...]] = (Stage.QDQ, Stage.PLACED)
    gives: ClassVar[Stage] = Stage.QDQ
    exact: ClassVar[bool] = False

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place, from front to back."""
        work = Unfusing(Editor(graph))
        for node in work.editor.live():
            microsoft = node.domain == MICROSOFT
            rule = _RULES.get(node.op) if microsoft or standard(node) else None
            if rule is None:
                if microsoft and node.op.startswith("QLinear"):
                    work.report.refuse(node, f"{node.op} has no float form here")
                continue
            if node.attrs.get("channels_last"):
                work.report.refuse(node, "it is in the NHWC form of ONNX Runtime's optimizer")  # case 5
                continue
            try:
                rule(work, node)
            except CannotUnfuseError as reason:
                work.report.refuse(node, str(reason))
        work.editor.commit()
        return work.report


def _elementwise(work: Unfusing, node: gs.Node, *, operands: int = 1) -> None:
    """Ops whose inputs are triples, followed by scale and zero point of the result."""
    op = node.op.removeprefix("QLinear")
    attrs = {k: v for k, v in node.attrs.items() if k not in ("channels_last", "opset")}
    if op == "Softmax":
        attrs["axis"] = _softmax_axis(node, work.editor.main.opset)
    said = [work.triple(node, 3 * i) for i in range(operands)]
    result = work.result(node, 3 * operands)
    inputs = [work.dequantized(node, node.inputs[3 * i], s) for i, s in enumerate(said)]
    work.quantized(node, 0, result)
    work.become(node, op, inputs, attrs)


def _softmax_axis(node: gs.Node, opset: int) -> int:
    written = int(node.attrs.get("opset", ONE_AXIS_OPSET))
    axis = int(node.attrs.get("axis", -1))
    if (written < ONE_AXIS_OPSET) != (opset < ONE_AXIS_OPSET) and axis != -1:
        raise CannotUnfuseError(f"its axes are those of opset {written}, the model has opset {opset}")
    return axis


def _concat(work: Unfusing, node: gs.Node) -> None:
    result = work.result(node, 0, 2)
    slots = range(2, len(node.inputs), 3)
    said = [work.triple(node, slot) for slot in slots]
    inputs = [work.dequantized(node, node.inputs[slot], s) for slot, s in zip(slots, said, strict=True)]
    work.quantized(node, 0, result)
    work.become(node, "Concat", inputs, {"axis": node.attrs["axis"]})


def _where(work: Unfusing, node: gs.Node) -> None:
    said = [work.triple(node, slot) for slot in (1, 4)]
    result = work.result(node, 7, 1)
    inputs = [work.dequantized(node, node.inputs[slot], s) for slot, s in zip((1, 4), said, strict=True)]
    work.quantized(node, 0, result)
    work.become(node, "Where", [node.inputs[0], *inputs], {})


_RULES: dict[str, Callable[[Unfusing, gs.Node], None]] = {
    **PRODUCTS,
    "QLinearAdd": partial(_elementwise, operands=2),
    "QLinearMul": partial(_elementwise, operands=2),
    "QLinearLeakyRelu": _elementwise,
    "QLinearSigmoid": _elementwise,
    "QLinearSoftmax": _elementwise,
    "QLinearAveragePool": _elementwise,
    "QLinearGlobalAveragePool": _elementwise,
    "QLinearConcat": _concat,
    "QLinearWhere": _where,
}
