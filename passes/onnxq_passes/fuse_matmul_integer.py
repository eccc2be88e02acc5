"""A MatMul whose result is needed in float can multiply integers with standard ONNX operators alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq_passes._edit import standard
from onnxq_passes._fuse import CannotFuseError, Fusion, Work, check_columns
from onnxq_passes._int32_bias import in_steps
from onnxq_passes._integer_product import check_float_result, check_int8, check_sums, steps, write


@dataclass(frozen=True, kw_only=True)
class FuseMatmulInteger(Fusion):
    """Make MatMulInteger -> Cast -> Mul of DequantizeLinear -> MatMul with a float result.

    1. Both operands are dequantized; the second one may have a scale and a zero point per column if it is a matrix.
       Mul multiplies with sx * sw, shape [] or [N].
    2. An Add behind stays as it is; if what it adds is a constant int32 vector with scale sx * sw and no zero point,
       it is added to the int32 sums.
    3. A MatMul whose result goes to QuantizeLinear only is left to fuse-qlinear-matmul.
    4. Sums that could leave int32, and products of scales that are no normal float32, are refused.
    5. int8 data stays unless `native_int8`: see fuse-qlinear-conv.

    The sums are exact. What is rounded to float32 is sx * sw, Cast (sums above 2**24) and Mul, so a result is at most
    2**-24 * 3 * |result| off, where the sums of a float MatMul are off by more.

    No built-in pipeline has this pass: fuse-matmul-integer-to-float does the same in one operator. It is for runtimes
    that know the operators of the standard and no others.

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
        check_float_result(work, node, "QLinearMatMul")
        check_int8(data, native_int8=self.native_int8)
        step, shape = steps(data, weight), weight.integers.shape
        if shape is None:
            raise CannotFuseError("the number of terms of its sums is not known")
        terms = (max(len(shape) - 2, 0),)
        check_sums(data, weight, terms)
        inputs = [data.integers, weight.integers, work.zero(data), work.zero(weight)]
        found = _bias(work, node, shape, step)
        if found is None:
            write(work, node, "MatMulInteger", inputs, step, node.outputs[0])
            return
        add, bias = found
        check_sums(data, weight, terms, bias)
        write(work, node, "MatMulInteger", inputs, step, add.outputs[0], integer_bias=bias, removed=[add])


def _bias(
    work: Work, node: gs.Node, shape: Sequence[int | str], step: NDArray[np.float32]
) -> tuple[gs.Node, NDArray[Any]] | None:
    """The Add behind and its vector, if that is in steps of the sums (case 2); `shape`: of the weight."""
    use = work.editor.only_use(node.outputs[0])
    if use is None or use[0].op != "Add" or not standard(use[0]) or len(shape) < 2:
        return None
    if work.editor.body(use[0]) is not work.editor.body(node):
        return None
    try:
        given = work.operand(use[0].inputs[1 - use[1]], ("int32",))
    except CannotFuseError:
        return None
    if not isinstance(given.integers, gs.Constant) or given.said.zero_point.any():
        return None
    values, scale = np.asarray(given.integers.values), given.said.scale
    if values.shape != (shape[-1],) or scale.shape not in ((), step.shape) or not in_steps(scale, step):
        return None
    return use[0], values
