"""A Conv whose result is needed in float can multiply integers with standard ONNX operators alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.numerics import dequantize
from onnxq_passes._edit import input_at
from onnxq_passes._fuse import CannotFuseError, Fusion, Operand, Work
from onnxq_passes._int32_bias import in_steps
from onnxq_passes._integer_product import check_float_result, check_int8, check_sums, steps, write
from onnxq_passes._qdq import is_dq


@dataclass(frozen=True, kw_only=True)
class FuseConvInteger(Fusion):
    """Make ConvInteger -> Cast -> Mul of DequantizeLinear -> Conv with a float result.

    1. The weight is uint8 or int8, with one scale or one per output channel (axis 0), and one zero point: ONNX Runtime
       has no kernel for several. Mul multiplies with sx * sw, shape [] or [O, 1, 1].
    2. An int32 bias with scale sx * sw and no zero point is added to the int32 sums, every other constant bias in
       float behind Mul.
    3. A Conv whose result goes to QuantizeLinear only is left to fuse-qlinear-conv.
    4. Sums that could leave int32, and products of scales that are no normal float32, are refused.
    5. int8 data stays unless `native_int8`: see fuse-qlinear-conv.

    The sums are exact. What is rounded to float32 is sx * sw, Cast (sums above 2**24), Mul and the float Add, so a
    result is at most 2**-24 * (3 * |sx * sw * sum| + |result|) off, where the sums of a float Conv are off by more.

    No built-in pipeline has this pass: ONNX Runtime's ConvInteger is slower than its float Conv on x86. It is for
    runtimes that know the operators of the standard and no others.

    Attributes:
        native_int8: fuse int8 data, too.
    """

    exact: ClassVar[bool] = False
    ops: ClassVar[tuple[str, ...]] = ("Conv",)
    native_int8: bool = False

    def fuse(self, work: Work, node: gs.Node) -> None:
        """Fuse one Conv."""
        data, weight = work.activation(node.inputs[0]), work.operand(node.inputs[1])
        shape = weight.integers.shape
        if shape is None:
            raise CannotFuseError("the rank of its weight is not known")
        if not weight.per_tensor and weight.said.axis not in (0, -len(shape)):
            raise CannotFuseError(
                f"its weight has a scale per index of axis {weight.said.axis}, one per output channel is axis 0"
            )
        if np.unique(weight.said.zero_point).size > 1:
            raise CannotFuseError("the channels of its weight have different zero points, ConvInteger has one")
        check_float_result(work, node, "QLinearConv")
        check_int8(data, native_int8=self.native_int8)
        step = steps(data, weight)
        integer, real = _bias(work, node, step)
        check_sums(data, weight, tuple(range(1, len(shape))), integer)
        column = (-1, *[1] * (len(shape) - 2))
        zero = work.zero(weight) if weight.per_tensor else work.constant(f"{weight.integers.name}_zero", _one(weight))
        write(
            work,
            node,
            "ConvInteger",
            [data.integers, weight.integers, work.zero(data), zero],
            step.reshape(column) if step.ndim else step,
            node.outputs[0],
            integer_bias=None if integer is None else integer.reshape(column),
            float_bias=None if real is None else real.reshape(column),
            attrs=dict(node.attrs),
        )


def _one(weight: Operand) -> NDArray[Any]:
    """The zero point that all channels have."""
    return np.asarray(weight.said.zero_point.min())


def _bias(work: Work, node: gs.Node, step: NDArray[np.float32]) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
    """The bias as int32 in steps of the sums, or as float32 (case 2)."""
    tensor = input_at(node, 2)
    if tensor is None:
        return None, None
    if isinstance(tensor, gs.Constant):
        return None, np.asarray(tensor.values)
    if not is_dq(work.editor.producer(tensor)):
        raise CannotFuseError(f"its bias {tensor.name} is computed in the graph")
    given = work.operand(tensor, ("int32", "int8", "uint8"))
    if not isinstance(given.integers, gs.Constant):
        raise CannotFuseError(f"its bias {given.integers.name} is computed in the graph")
    values, scale = np.asarray(given.integers.values), given.said.scale
    same = scale.shape in ((), step.shape) and in_steps(scale, step)
    if given.type == "int32" and same and not given.said.zero_point.any():
        return values, None
    return None, dequantize(values, given.said.encoding())
