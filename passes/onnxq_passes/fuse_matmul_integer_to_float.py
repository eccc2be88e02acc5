"""A MatMul whose result is needed in float can still multiply integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.numerics import dequantize
from onnxq_passes._edit import standard
from onnxq_passes._fuse import CannotFuseError, Fusion, Operand, Work, check_columns, check_signs
from onnxq_passes._qdq import is_q


@dataclass(frozen=True, kw_only=True)
class FuseMatmulIntegerToFloat(Fusion):
    """Make MatMulIntegerToFloat (com.microsoft) of DequantizeLinear -> MatMul with a float result.

    1. Both operands are dequantized; the second one may have a scale per column if it is a matrix.
    2. A following Add of a constant vector, float or int32 behind a DequantizeLinear, becomes the bias. (Left to
       itself, ONNX Runtime makes a float Gemm of such a pair, or one that it can quantize only with an int32 bias.)
    3. A MatMul whose result goes to QuantizeLinear only is left to fuse-qlinear-matmul.
    4. int8 data stays unless `native_int8`: see fuse-qlinear-conv.

    Sums of integers replace float sums: equal up to the rounding of float32.

    Attributes:
        native_int8: fuse int8 data, too.
    """

    exact: ClassVar[bool] = False
    ops: ClassVar[tuple[str, ...]] = ("MatMul",)
    native_int8: bool = False

    def fuse(self, work: Work, node: gs.Node) -> None:
        """Fuse one MatMul."""
        data, weight = work.activation(node.inputs[0]), work.operand(node.inputs[1])
        check_columns(weight, 1)
        check_signs(data, weight, None, native_int8=self.native_int8)
        result = node.outputs[0]
        users = list(work.editor.uses(result))
        if users and not work.editor.is_output(result) and all(is_q(user) for user, _ in users):
            raise CannotFuseError("its result is quantized: QLinearMatMul is its form")  # case 3
        inputs = [data.integers, weight.integers, work.scale(data), work.scale(weight), work.zero(data)]
        inputs.append(work.zero(weight))
        found = _bias(work, node, data, weight)
        if found is None:
            work.exchange(node, "MatMulIntegerToFloat", inputs, result)
            return
        add, bias = found
        work.exchange(node, "MatMulIntegerToFloat", [*inputs, bias], add.outputs[0], removed=[add])


def _bias(work: Work, node: gs.Node, data: Operand, weight: Operand) -> tuple[gs.Node, gs.Tensor] | None:
    """The Add behind and its vector with one number per column (case 2)."""
    use, shape = work.editor.only_use(node.outputs[0]), weight.integers.shape
    if use is None or use[0].op != "Add" or not standard(use[0]) or shape is None or len(shape) < 2:
        return None
    if work.editor.body(use[0]) is not work.editor.body(node):
        return None
    tensor = use[0].inputs[1 - use[1]]
    if isinstance(tensor, gs.Constant):
        values = np.asarray(tensor.values)
    else:
        try:
            given = work.operand(tensor, ("int32",))
        except CannotFuseError:
            return None
        if not isinstance(given.integers, gs.Constant):
            return None
        values = dequantize(np.asarray(given.integers.values), given.said.encoding())
    if values.size != shape[-1] or values.shape[-1:] != (shape[-1],) or values.ndim > _rank(data, shape):
        return None
    if isinstance(tensor, gs.Constant) and values.ndim == 1:
        return use[0], tensor
    return use[0], work.constant(f"{tensor.name}_bias", values.ravel())


def _rank(data: Operand, weight: Sequence[int | str]) -> int:
    """Least rank of the product with a weight of rank 2 or more: an Add of a higher one adds dimensions."""
    shape = data.integers.shape
    return 1 if shape is None else max(len(shape), len(weight)) - (len(shape) == 1)
