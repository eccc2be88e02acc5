"""What unfuse-qlinear does with products of two operands, and what unfuse-integer-product shares with it: their bias in
steps of the sums, the columns of their second operand.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.numerics import dequantize
from onnxq_passes._edit import input_at, rank, scalar
from onnxq_passes._qdq import Parameters
from onnxq_passes._unfuse import CannotUnfuseError, Unfusing


def sums(work: Unfusing, data: Parameters, weight: Parameters, factor: float = 1.0) -> Parameters:
    """What int32 sums stand for: steps of the data times steps of the weight."""
    with np.errstate(over="ignore"):
        scales = np.asarray(np.float32(factor) * data.scale * weight.scale)
    return work.spelled(scales, np.zeros(scales.shape, np.int32), 0)


def _bias(
    work: Unfusing, node: gs.Node, slot: int, data: Parameters, weight: Parameters, factor: float = 1.0
) -> tuple[gs.Tensor, Parameters] | None:
    """The int32 bias and what it stands for, or None."""
    tensor = input_at(node, slot)
    return None if tensor is None else (tensor, sums(work, data, weight, factor))


def _conv(work: Unfusing, node: gs.Node) -> None:
    data, weight, result = work.triple(node, 0), work.triple(node, 3, 0), work.result(node, 6)
    bias = _bias(work, node, 8, data, weight)
    inputs = [work.dequantized(node, node.inputs[0], data), work.dequantized(node, node.inputs[3], weight)]
    if bias is not None:
        inputs.append(work.dequantized(node, *bias))
    work.quantized(node, 0, result)
    work.become(node, "Conv", inputs, {k: v for k, v in node.attrs.items() if k != "channels_last"})


def column_axis(scale: gs.Tensor, weight: gs.Tensor) -> int | None:
    """The axis of the columns of a second matrix; None if nobody knows, and one scale needs none.

    Raises:
        CannotUnfuseError: its rank is not known.
    """
    dimensions = rank(weight)
    if dimensions is not None:
        return dimensions - 1
    if scalar(scale) is None:
        raise CannotUnfuseError("the rank of its weight is not known")
    return None


def _matmul(work: Unfusing, node: gs.Node) -> None:
    axis = column_axis(node.inputs[4], node.inputs[3])
    data, weight, result = work.triple(node, 0), work.triple(node, 3, axis), work.result(node, 6)
    inputs = [work.dequantized(node, node.inputs[0], data), work.dequantized(node, node.inputs[3], weight)]
    work.quantized(node, 0, result)
    work.become(node, "MatMul", inputs, {})


def _gemm(work: Unfusing, node: gs.Node) -> None:
    attrs = {k: node.attrs[k] for k in ("alpha", "transA", "transB") if k in node.attrs}
    data, weight = work.triple(node, 0), work.triple(node, 3, 0 if attrs.get("transB") else 1)
    bias = _bias(work, node, 6, data, weight, float(attrs.get("alpha", 1.0)))
    if bias is not None and bias[1].axis is not None and (bias[0].shape is None or len(bias[0].shape) != 1):
        raise CannotUnfuseError("its bias is no vector")
    result = None if input_at(node, 7) is None else work.result(node, 7)
    inputs = [work.dequantized(node, node.inputs[0], data), work.dequantized(node, node.inputs[3], weight)]
    if bias is not None:
        inputs.append(work.dequantized(node, *bias))
    if result is not None:
        work.quantized(node, 0, result)
    work.become(node, "Gemm", inputs, attrs)


def _matmul_to_float(work: Unfusing, node: gs.Node) -> None:
    axis = column_axis(node.inputs[3], node.inputs[1])
    data = work.said(node, 2, 4, 0)
    weight = work.said(node, 3, 5, 1, axis=axis)
    bias = input_at(node, 6)
    steps = _in_steps(work, bias, data, weight)
    add_bias(work, node, bias if steps is None else work.dequantized(node, *steps))
    inputs = [work.dequantized(node, node.inputs[0], data), work.dequantized(node, node.inputs[1], weight)]
    work.become(node, "MatMul", inputs, {})


def _in_steps(
    work: Unfusing, bias: gs.Tensor | None, data: Parameters, weight: Parameters
) -> tuple[gs.Constant, Parameters] | None:
    """A float bias as int32 in steps of the sums, if that is the same to the last bit: ONNX Runtime makes an integer
    Gemm of MatMul and Add with such a bias, but a float one with a float bias.
    """
    try:
        said = sums(work, data, weight)
    except CannotUnfuseError:
        return None  # the product of the scales is no float32
    if not isinstance(bias, gs.Constant) or bias.values.ndim != 1 or said.scale.size not in (1, bias.values.size):
        return None
    values, scale = np.asarray(bias.values), said.scale.astype(np.float64)
    steps = np.rint(values.astype(np.float64) / scale)
    if not (np.abs(steps) < 2**31).all():  # NaN neither
        return None
    integers = steps.astype(np.int32)
    if dequantize(integers, said.encoding()).tobytes() != values.astype(np.float32).tobytes():
        return None
    return work.constant(f"{bias.name}_int32", integers), said


def add_bias(work: Unfusing, node: gs.Node, bias: gs.Tensor | None) -> None:
    """Put an Add of a float bias behind a node; it writes what the node wrote."""
    if bias is None:
        return
    result = node.outputs[0]
    product = work.editor.variable(f"{result.name}_product", result)
    work.editor.set_output(node, 0, product)
    work.editor.insert(work.editor.node("Add", [product, bias], [result], name=f"{node.name}_Add"), after=node)


PRODUCTS: dict[str, Callable[[Unfusing, gs.Node], None]] = {
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
    "QGemm": _gemm,
    "MatMulIntegerToFloat": _matmul_to_float,
}
"""Operator -> what brings it back."""
