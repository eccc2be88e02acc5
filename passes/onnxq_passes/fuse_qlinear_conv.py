"""Convolutions are most of the work of a vision model; on integers they are several times faster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxq_passes._fuse import CannotFuseError, Fusion, Work, check_signs
from onnxq_passes._int32_bias import integer_bias


@dataclass(frozen=True, kw_only=True)
class FuseQlinearConv(Fusion):
    """Make QLinearConv of DequantizeLinear -> Conv -> QuantizeLinear, in any number of dimensions and groups.

    1. The weight is uint8 or int8, with one scale or one per output channel (axis 0) and equal zero points; constant
       or not.
    2. The bias is int32 with scale sx * sw and no zero point.
    3. Or it is a float constant: it is rounded to int32, which may move a result by one step where it was close to a
       tie; where it leaves int32, the weight scales of its channels are widened.
    4. A Relu or Clip in front of the QuantizeLinear vanishes if the saturation of the integers does its work.
    5. int8 data stays: on x86 the kernel for it is slower than float; run signed-to-unsigned first. `native_int8`
       fuses it, for ARM.

    Equal bit for bit in the tests, except case 3; a float sum in another order may move a tie by one step.

    Attributes:
        native_int8: fuse int8 data, too.
    """

    exact: ClassVar[bool] = False
    ops: ClassVar[tuple[str, ...]] = ("Conv",)
    native_int8: bool = False

    def fuse(self, work: Work, node: gs.Node) -> None:
        """Fuse one Conv."""
        data, weight = work.activation(node.inputs[0]), work.operand(node.inputs[1])
        if not weight.per_tensor and weight.said.axis not in (0, -_rank(weight.integers)):
            raise CannotFuseError(
                f"its weight has a scale per index of axis {weight.said.axis}, QLinearConv wants axis 0"
            )
        if np.unique(weight.said.zero_point).size > 1:
            raise CannotFuseError("the channels of its weight have different zero points")
        outlet, to = work.quantized(node)
        check_signs(data, weight, to, native_int8=self.native_int8)
        bias = integer_bias(work, node, 2, data, weight)
        inputs = [
            *work.triple(data),
            *(bias.weight_integers, bias.scale, work.zero(weight)),
            *(work.scale(to), work.zero(to)),
        ]
        if bias.tensor is not None:
            inputs.append(bias.tensor)
        work.exchange(node, "QLinearConv", inputs, outlet, attrs=dict(node.attrs), domain=None)


def _rank(tensor: gs.Tensor) -> int:
    return 0 if tensor.shape is None else len(tensor.shape)
