"""What unfuse-integer-product reads in the constants behind an integer product: in the factor the scale of the second
operand, in what is added to the sums the bias.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq_passes._edit import input_at, rank
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
    if _along_channels(node, np.asarray(scale.values)) is None:
        raise CannotUnfuseError("its factor has several elements that are not one per channel of the result")
    zero = input_at(node, 3)
    if zero is not None and not isinstance(zero, gs.Constant):
        raise CannotUnfuseError("the zero point of its weight is computed at run time")
    kind = integer_type(work.editor, node.inputs[1])
    if zero is None and kind is None:
        raise CannotUnfuseError("the type of its weight is not known")
    zeros: NDArray[Any] = np.zeros((), kind) if zero is None else np.asarray(zero.values)
    return work.spelled(np.asarray(scale.values), zeros, axis)


def bias_of(node: gs.Node, bias: gs.Tensor, channels: int) -> NDArray[np.int32]:
    """What is added to the sums: int32, one for all or one per channel of the result; for `channels` scales as many.

    Args:
        channels: 1, or the number of scales of the weight.

    Raises:
        CannotUnfuseError: it is something else.
    """
    if not isinstance(bias, gs.Constant):
        raise CannotUnfuseError("what is added to its sums is computed at run time")
    values = _along_channels(node, np.asarray(bias.values))
    if values is None:
        raise CannotUnfuseError("what is added to its sums is not one number per channel of the result")
    conv, count = node.op == "ConvInteger", channels
    if conv:  # whose bias has one element per channel in any case
        shape = node.inputs[1].shape
        if shape is None or not isinstance(shape[0], int):
            raise CannotUnfuseError("how many channels it has is not known")
        count = shape[0]
    return np.ascontiguousarray(np.broadcast_to(values, count)) if values.size == 1 and (conv or count > 1) else values


def _along_channels(node: gs.Node, values: NDArray[Any]) -> NDArray[Any] | None:
    """The elements of what is combined with the sums, if that is one for all (rank 0) or one per channel of the result
    ([channels]), and if it does not give the sums more dimensions; else None.
    """
    weight, matrix = node.inputs[1], node.op == "MatMulInteger"
    dimensions = rank(weight) if rank(node.outputs[0]) is None else rank(node.outputs[0])
    if values.ndim > (1 if dimensions is None else dimensions):
        return None
    if values.size == 1:
        return values.reshape(())
    axis = values.ndim - 1 - (0 if matrix else (rank(weight) or 4) - 2)
    if axis < 0 or values.shape[axis] != values.size or (matrix and rank(weight) == 1):
        return None
    known = weight.shape[-1 if matrix else 0] if weight.shape is not None else None
    return None if isinstance(known, int) and known != values.size else values.reshape(-1)
