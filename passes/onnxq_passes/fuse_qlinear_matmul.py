"""A MatMul whose result is quantized again never needs float."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_graphsurgeon as gs

from onnxq_passes._fuse import Fusion, Work, check_columns, check_signs


@dataclass(frozen=True, kw_only=True)
class FuseQlinearMatmul(Fusion):
    """Make QLinearMatMul of DequantizeLinear -> MatMul -> QuantizeLinear.

    1. Both operands are dequantized, constant or not; of any rank.
    2. The second one may have a scale per column if it is a matrix.
    3. A Relu or Clip in front of the QuantizeLinear vanishes if the saturation of the integers does its work.
    4. int8 data stays unless `native_int8`: see fuse-qlinear-conv.

    Equal bit for bit in the tests; a float sum in another order may move a tie by one step.

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
        outlet, to = work.quantized(node)
        check_signs(data, weight, to, native_int8=self.native_int8)
        inputs = [*work.triple(data), *work.triple(weight), work.scale(to), work.zero(to)]
        work.exchange(node, "QLinearMatMul", inputs, outlet, domain=None)
