"""Gemm is the one matrix product with a bias of its own: on integers the bias is an int32 added before rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_graphsurgeon as gs

from onnxq_passes._edit import input_at
from onnxq_passes._fuse import CannotFuseError, Fusion, Outlet, Work, check_columns, check_signs
from onnxq_passes._int32_bias import integer_bias


@dataclass(frozen=True, kw_only=True)
class FuseQgemm(Fusion):
    """Make QGemm (com.microsoft) of DequantizeLinear -> Gemm, with or without a QuantizeLinear behind.

    1. The weight has one scale, or one per column of the product: axis 1, with transB axis 0.
    2. The bias is int32 with scale sx * sw and no zero point. ONNX Runtime does not look at the scale when it fuses;
       this pass refuses another one.
    3. Or it is a float vector: it is rounded to int32, which may move a result by one step where it was close to a
       tie; where it leaves int32, the weight scales of its columns are widened.
    4. alpha and beta are 1, or alpha is free where there is no bias.
    5. Without a QuantizeLinear the output is float, equal up to the rounding of float32.
    6. int8 data stays unless `native_int8`: see fuse-qlinear-conv.

    With a QuantizeLinear equal bit for bit in the tests, except case 3.

    Attributes:
        native_int8: fuse int8 data, too.
    """

    exact: ClassVar[bool] = False
    ops: ClassVar[tuple[str, ...]] = ("Gemm",)
    native_int8: bool = False

    def fuse(self, work: Work, node: gs.Node) -> None:
        """Fuse one Gemm."""
        data, weight = work.activation(node.inputs[0]), work.operand(node.inputs[1])
        check_columns(weight, 0 if node.attrs.get("transB", 0) else 1)
        biased = input_at(node, 2) is not None
        if biased and (node.attrs.get("alpha", 1.0) != 1.0 or node.attrs.get("beta", 1.0) != 1.0):
            raise CannotFuseError("alpha or beta is not 1, and QGemm adds its bias as it is")
        check_signs(data, weight, None, native_int8=self.native_int8)
        try:
            outlet: Outlet | None = work.outlet(node)
        except CannotFuseError:
            outlet = None  # case 5
        to = None if outlet is None or outlet.to is None or outlet.to.type != data.type else outlet.to
        bias = integer_bias(work, node, 2, data, weight)
        inputs = [*work.triple(data), bias.weight_integers, bias.scale, work.zero(weight)]
        if bias.tensor is not None:
            inputs.append(bias.tensor)
        if to is not None:
            inputs += [] if bias.tensor is not None else [gs.Variable.empty()]
            inputs += [work.scale(to), work.zero(to)]
        attrs = {k: node.attrs[k] for k in ("alpha", "transA", "transB") if k in node.attrs}
        if outlet is None or to is None:
            work.exchange(node, "QGemm", inputs, node.outputs[0], attrs=attrs)
        else:
            work.exchange(node, "QGemm", inputs, outlet, attrs=attrs)
