"""A file of integer operators says what it computes, but no pass can move a Q in it: it is brought back to Q and DQ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq_passes._edit import Editor, input_at, standard
from onnxq_passes._fuse import MICROSOFT
from onnxq_passes._qdq import Parameters
from onnxq_passes._unfuse import CannotUnfuseError, Unfusing, integer_type

PER_COLUMN = 13
"""Opset from which Softmax works along one axis; before, it takes all axes from one on as one."""


@dataclass(frozen=True, kw_only=True)
class UnfuseQlinear(Pass):
    """Make DequantizeLinear -> op -> QuantizeLinear of the integer operators that carry their scales.

    1. QLinearConv, QLinearMatMul; of com.microsoft QGemm, QLinearAdd, Mul, LeakyRelu, Sigmoid, Softmax, Concat, Where,
       AveragePool and GlobalAveragePool.
    2. An int32 bias gets a DequantizeLinear with the scale of the data times that of the weight.
    3. QGemm without scale of its result, and MatMulIntegerToFloat, give a float result: no QuantizeLinear.
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
        for body in work.editor.bodies:
            for node in list(work.editor.live(body)):
                microsoft = node.domain == MICROSOFT
                rule = _RULES.get(node.op) if microsoft or standard(node) else None
                if rule is None:
                    if microsoft and node.op.startswith("QLinear"):
                        work.report.refuse(node, f"{node.op} has no float form here")
                    continue
                if node.attrs.get("channels_last", 0):
                    work.report.refuse(node, "it is in the NHWC form of ONNX Runtime's optimizer")  # case 5
                    continue
                try:
                    rule(work, node)
                except CannotUnfuseError as reason:
                    work.report.refuse(node, str(reason))
        work.editor.commit()
        return work.report


def _triple(work: Unfusing, node: gs.Node, slot: int, axis: int | None = None) -> Parameters:
    """What stands for the data in `slot`, whose scale and zero point follow it."""
    return work.said(node, slot + 1, slot + 2, _kind(work, node.inputs[slot]), axis=axis)


def _kind(work: Unfusing, tensor: gs.Tensor) -> str:
    """The integer type of a tensor; uint8 where neither the file nor its neighbours say it."""
    return integer_type(work.editor, tensor) or "uint8"


def _result(work: Unfusing, node: gs.Node, slot: int) -> Parameters:
    """What stands for the result, whose scale and zero point stand in `slot` and behind it."""
    return work.said(node, slot, slot + 1, _kind(work, node.inputs[0]))


def _bias(work: Unfusing, node: gs.Node, slot: int, data: Parameters, weight: Parameters, factor: float = 1.0) -> Any:
    """The int32 bias and what it stands for (case 2), or None."""
    tensor = input_at(node, slot)
    if tensor is None:
        return None
    scales = np.float32(factor) * data.scale * weight.scale
    zeros = np.zeros(scales.shape, np.int32)
    return tensor, work.spelled(np.asarray(scales, np.float32), zeros, 0)


def _conv(work: Unfusing, node: gs.Node) -> None:
    data, weight, result = _triple(work, node, 0), _triple(work, node, 3, 0), _result(work, node, 6)
    bias = _bias(work, node, 8, data, weight)
    inputs = [work.dequantized(node, node.inputs[0], data), work.dequantized(node, node.inputs[3], weight)]
    if bias is not None:
        inputs.append(work.dequantized(node, *bias))
    work.quantized(node, 0, result)
    work.become(node, "Conv", inputs, {k: v for k, v in node.attrs.items() if k != "channels_last"})


def column_axis(node: gs.Node, scale: gs.Tensor | None, weight: gs.Tensor) -> int:
    """The axis of the columns of a second matrix.

    Raises:
        CannotUnfuseError: its rank is not known, or it has scales of another form.
    """
    rank = len(weight.shape) if weight.shape is not None else None
    if rank is None and (scale is None or int(np.prod(scale.shape)) > 1):
        raise CannotUnfuseError("the rank of its weight is not known")
    return max((rank or 2) - 1, 0)


def _matmul(work: Unfusing, node: gs.Node) -> None:
    axis = column_axis(node, input_at(node, 4), node.inputs[3])
    data, weight, result = _triple(work, node, 0), _triple(work, node, 3, axis), _result(work, node, 6)
    inputs = [work.dequantized(node, node.inputs[0], data), work.dequantized(node, node.inputs[3], weight)]
    work.quantized(node, 0, result)
    work.become(node, "MatMul", inputs, {})


def _gemm(work: Unfusing, node: gs.Node) -> None:
    attrs = {k: node.attrs[k] for k in ("alpha", "transA", "transB") if k in node.attrs}
    data, weight = _triple(work, node, 0), _triple(work, node, 3, 0 if attrs.get("transB", 0) else 1)
    bias = _bias(work, node, 6, data, weight, float(attrs.get("alpha", 1.0)))
    if bias is not None and bias[1].axis is not None and (bias[0].shape is None or len(bias[0].shape) != 1):
        raise CannotUnfuseError("its bias is no vector")
    result = None if input_at(node, 7) is None else _result(work, node, 7)
    inputs = [work.dequantized(node, node.inputs[0], data), work.dequantized(node, node.inputs[3], weight)]
    if bias is not None:
        inputs.append(work.dequantized(node, *bias))
    if result is not None:
        work.quantized(node, 0, result)
    work.become(node, "Gemm", inputs, attrs)


def _matmul_to_float(work: Unfusing, node: gs.Node) -> None:
    axis = column_axis(node, input_at(node, 3), node.inputs[1])
    data = work.said(node, 2, 4, _kind(work, node.inputs[0]))
    weight = work.said(node, 3, 5, _kind(work, node.inputs[1]), axis=axis)
    add_bias(work, node, input_at(node, 6))
    inputs = [work.dequantized(node, node.inputs[0], data), work.dequantized(node, node.inputs[1], weight)]
    work.become(node, "MatMul", inputs, {})


def add_bias(work: Unfusing, node: gs.Node, bias: gs.Tensor | None) -> None:
    """Put an Add of a float bias behind a node; it writes what the node wrote."""
    if bias is None:
        return
    result = node.outputs[0]
    product = work.editor.variable(f"{result.name}_product", result)
    work.editor.set_output(node, 0, product)
    work.editor.insert(work.editor.node("Add", [product, bias], [result], name=f"{node.name}_Add"), after=node)


def _elementwise(op: str, operands: int) -> Callable[[Unfusing, gs.Node], None]:
    """Ops whose inputs are triples, followed by scale and zero point of the result."""

    def rule(work: Unfusing, node: gs.Node) -> None:
        attrs = {k: v for k, v in node.attrs.items() if k not in ("channels_last", "opset")}
        if op == "Softmax":
            attrs["axis"] = _softmax_axis(node, work.editor.main.opset)
        said = [_triple(work, node, 3 * i) for i in range(operands)]
        result = _result(work, node, 3 * operands)
        inputs = [work.dequantized(node, node.inputs[3 * i], s) for i, s in enumerate(said)]
        work.quantized(node, 0, result)
        work.become(node, op, inputs, attrs)

    return rule


def _softmax_axis(node: gs.Node, opset: int) -> int:
    written = int(node.attrs.get("opset", PER_COLUMN))
    axis = int(node.attrs.get("axis", -1))
    if (written < PER_COLUMN) != (opset < PER_COLUMN) and axis != -1:
        raise CannotUnfuseError(f"its axes are those of opset {written}, the model has opset {opset}")
    return axis


def _concat(work: Unfusing, node: gs.Node) -> None:
    result = work.said(node, 0, 1, _kind(work, node.inputs[2]))
    slots = range(2, len(node.inputs), 3)
    said = [_triple(work, node, slot) for slot in slots]
    inputs = [work.dequantized(node, node.inputs[slot], s) for slot, s in zip(slots, said, strict=True)]
    work.quantized(node, 0, result)
    work.become(node, "Concat", inputs, {"axis": node.attrs["axis"]})


def _where(work: Unfusing, node: gs.Node) -> None:
    said = [_triple(work, node, slot) for slot in (1, 4)]
    result = work.said(node, 7, 8, _kind(work, node.inputs[1]))
    inputs = [work.dequantized(node, node.inputs[slot], s) for slot, s in zip((1, 4), said, strict=True)]
    work.quantized(node, 0, result)
    work.become(node, "Where", [node.inputs[0], *inputs], {})


_RULES: dict[str, Callable[[Unfusing, gs.Node], None]] = {
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
    "QGemm": _gemm,
    "MatMulIntegerToFloat": _matmul_to_float,
    "QLinearAdd": _elementwise("Add", 2),
    "QLinearMul": _elementwise("Mul", 2),
    "QLinearLeakyRelu": _elementwise("LeakyRelu", 1),
    "QLinearSigmoid": _elementwise("Sigmoid", 1),
    "QLinearSoftmax": _elementwise("Softmax", 1),
    "QLinearAveragePool": _elementwise("AveragePool", 1),
    "QLinearGlobalAveragePool": _elementwise("GlobalAveragePool", 1),
    "QLinearConcat": _concat,
    "QLinearWhere": _where,
}
