"""Dynamic quantization writes five ops per MatMul, which one kernel does together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxq_passes._edit import FLOAT, input_at, standard
from onnxq_passes._fuse import CannotFuseError, Fusion, Work


@dataclass(frozen=True, kw_only=True)
class FuseDynamicQuantizeMatmul(Fusion):
    """Make DynamicQuantizeMatMul (com.microsoft) of DynamicQuantizeLinear, MatMulInteger, Cast and Mul.

    1. The product is cast to float and multiplied with the scale of the data times that of the weight (in either
       order); both the weight's scale and its zero point are constants.
    2. The scale of the weight has one element, or one per column of a matrix.
    3. A following Add of a constant vector, one number per column, becomes the bias.

    Equal up to the rounding of float32.
    """

    exact: ClassVar[bool] = False
    ops: ClassVar[tuple[str, ...]] = ("MatMulInteger",)

    def near(self, work: Work, node: gs.Node) -> bool:
        """Is its data dynamically quantized?"""
        return _maker(work, node.inputs[0], "DynamicQuantizeLinear") is not None

    def fuse(self, work: Work, node: gs.Node) -> None:
        """Fuse one MatMulInteger."""
        dynamic = _maker(work, node.inputs[0], "DynamicQuantizeLinear")
        assert dynamic is not None
        if input_at(node, 2) is not dynamic.outputs[2]:
            raise CannotFuseError("its zero point is not that of its data")
        weight, zero = node.inputs[1], input_at(node, 3)
        if zero is not None and not isinstance(zero, gs.Constant):
            raise CannotFuseError("the zero point of its weight is no constant")
        cast = _reader(work, node.outputs[0], "Cast")
        if cast is None or cast.attrs.get("to") != FLOAT:
            raise CannotFuseError("its product is not cast to float alone")
        last = _reader(work, cast.outputs[0], "Mul")
        if last is None:
            raise CannotFuseError("its product is not multiplied with the scales alone")
        scales = _maker(work, last.inputs[1 if last.inputs[0] is cast.outputs[0] else 0], "Mul")
        if scales is None or not any(t is dynamic.outputs[1] for t in scales.inputs):
            raise CannotFuseError("its product is not multiplied with the scale of its data times that of its weight")
        scale = scales.inputs[1 if scales.inputs[0] is dynamic.outputs[1] else 0]
        if not isinstance(scale, gs.Constant) or np.asarray(scale.values).dtype != np.float32:
            raise CannotFuseError("the scale of its weight is no constant")
        shape = tuple(weight.shape or ())
        if tuple(scale.shape) not in ((), (1,), shape[1:] if len(shape) == 2 else ()):
            raise CannotFuseError("its weight has scales that are not one per column of a matrix")
        if zero is not None and tuple(zero.shape) != tuple(scale.shape):
            raise CannotFuseError("the scale and the zero point of its weight have different shapes")
        inputs = [dynamic.inputs[0], weight, scale, zero if zero is not None else gs.Variable.empty()]
        end, gone = last.outputs[0], [cast, last]
        add = _reader(work, end, "Add")
        if add is not None:
            bias = add.inputs[1 if add.inputs[0] is end else 0]
            if isinstance(bias, gs.Constant) and len(shape) > 1 and tuple(bias.shape) == shape[-1:]:
                inputs.append(bias)
                end = add.outputs[0]
                gone.append(add)
        while not inputs[-1].name:
            inputs.pop()
        work.exchange(node, "DynamicQuantizeMatMul", inputs, end, removed=gone)
        work.drop([scales, dynamic])


def _maker(work: Work, tensor: gs.Tensor, op: str) -> gs.Node | None:
    made = work.editor.producer(tensor)
    return made if made is not None and made.op == op and standard(made) else None


def _reader(work: Work, tensor: gs.Tensor, op: str) -> gs.Node | None:
    use = work.editor.only_use(tensor)
    return use[0] if use is not None and use[0].op == op and standard(use[0]) else None
