"""What unfuse-integer-product reads in the factor behind an integer product: the scale of the second operand."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq_passes._edit import input_at
from onnxq_passes._match import made_by, other
from onnxq_passes._qdq import Parameters
from onnxq_passes._unfuse import CannotUnfuseError, Unfusing, integer_type


def same(one: gs.Tensor | None, two: gs.Tensor | None) -> bool:
    """One tensor, equal constants, or one left out where the other one is 0."""
    if one is two:
        return True
    values = [np.asarray(t.values).reshape(-1) if isinstance(t, gs.Constant) else None for t in (one, two)]
    if (one is not None and values[0] is None) or (two is not None and values[1] is None):
        return False
    first, second = (np.zeros(1) if v is None else v for v in values)
    return first.size == second.size and bool((first == second).all())


def weight_scale(work: Unfusing, factor: gs.Tensor, data: gs.Tensor) -> gs.Constant:
    """The scale of the weight: the other operand of factor = data * weight, or the quotient of two constants."""
    product = made_by(work.editor, factor, "Mul")
    if product is not None and any(t is data for t in product.inputs):
        weight = other(product, data)
        if isinstance(weight, gs.Constant):
            return weight
    if not isinstance(factor, gs.Constant) or not isinstance(data, gs.Constant) or int(np.prod(data.shape)) != 1:
        raise CannotUnfuseError("its factor is not the scale of its data times that of its weight")
    quotient = np.asarray(factor.values, np.float64) / np.asarray(data.values, np.float64).reshape(())
    return work.constant(f"{factor.name}_weight", np.asarray(quotient, np.float32))


def weight_of(work: Unfusing, node: gs.Node, scale: gs.Constant, axis: int) -> Parameters:
    """What stands for the second operand. Several scales lie along the channels of the result: the last dimension of a
    matrix, the second one of a Conv.
    """
    rank, shape = scale.values.ndim, tuple(scale.shape)
    behind = 0 if node.op == "MatMulInteger" else len(node.inputs[1].shape or (0,) * 4) - 2
    if scale.values.size > 1 and (rank <= behind or shape[rank - 1 - behind] != scale.values.size):
        raise CannotUnfuseError("its factor has several elements that are not one per channel of the result")
    zero = input_at(node, 3)
    if zero is not None and not isinstance(zero, gs.Constant):
        raise CannotUnfuseError("the zero point of its weight is computed at run time")
    kind = integer_type(work.editor, node.inputs[1])
    if zero is None and kind is None:
        raise CannotUnfuseError("the type of its weight is not known")
    zeros: NDArray[Any] = np.zeros((), kind) if zero is None else np.asarray(zero.values)
    return work.spelled(np.asarray(scale.values), zeros, axis)
