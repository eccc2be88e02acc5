"""Adding, scaling and bending 8-bit numbers moves a quarter of the bytes that float does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import onnx_graphsurgeon as gs

from onnxq.plan.integers import least_softmax_scale
from onnxq_passes._fuse import CannotFuseError, Fusion, Work


@dataclass(frozen=True, kw_only=True)
class FuseQlinearElementwise(Fusion):
    """Make QLinearAdd, Mul, LeakyRelu, Sigmoid and Softmax (com.microsoft) of DQ -> op -> Q.

    1. Add, Mul: both operands are dequantized; all three tensors are of one type, uint8 or int8. At most one step off.
    2. LeakyRelu, Sigmoid: a table of 256 results; equal bit for bit.
    3. Softmax: at most one step off. (ONNX Runtime's kernel is slower than float: the cpu target does not
       ask for it. It wraps around where the scale of the result is below 2 / (255 n), n elements being summed.)
    4. A Relu or Clip in front of the QuantizeLinear vanishes if the saturation of the integers does its work.
    """

    exact: ClassVar[bool] = False
    ops: ClassVar[tuple[str, ...]] = ("Add", "Mul", "LeakyRelu", "Sigmoid", "Softmax")

    def fuse(self, work: Work, node: gs.Node) -> None:
        """Fuse one op."""
        sources = [work.activation(t) for t in node.inputs]
        outlet, to = work.quantized(node)
        if len({s.type for s in [*sources, to]}) > 1:
            raise CannotFuseError(f"its operands and its result are {', '.join(s.type for s in [*sources, to])}")
        attrs: dict[str, Any] = {k: node.attrs[k] for k in ("alpha", "axis") if k in node.attrs}
        if node.op == "Softmax":
            opset = attrs["opset"] = work.editor.main.opset
            least = least_softmax_scale(node, node.inputs[0].shape, opset)
            if float(to.said.scale) < least:
                raise CannotFuseError(f"the scale of its result is below {least:.2g}, where the kernel wraps around")
        inputs = [t for s in sources for t in work.triple(s)]
        work.exchange(node, f"QLinear{node.op}", [*inputs, work.scale(to), work.zero(to)], outlet, attrs=attrs)
