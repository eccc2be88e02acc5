"""What unfuse-integer-product reads in the constants behind an integer product: in the factor the scale of the second
operand, in what is added to the sums the bias.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq_passes._edit import rank, scalar
from onnxq_passes._match import made_by, other
from onnxq_passes._qdq import Parameters
from onnxq_passes._unfuse import CannotUnfuseError, Unfusing


def same(one: gs.Tensor | None, two: gs.Tensor | None) -> bool:
    """One tensor, constants of one equal element, or one left out where the other one is 0."""
    if one is two:
        return True
    first, second = (0.0 if t is None else scalar(t) for t in (one, two))
    return first is not None and first == second


def weight_scale(work: Unfusing, factor: gs.Tensor, data: gs.Tensor) -> gs.Constant:
    """The scale of the weight: the other operand of factor = data * weight, or the quotient of two constants.

    Args:
        data: the one scale of the data.
    """
    product = made_by(work.editor, factor, "Mul")
    if product is not None and any(t is data for t in product.inputs):
        weight = other(product, data)
        if isinstance(weight, gs.Constant):
            return weight
    if not isinstance(factor, gs.Constant) or not isinstance(data, gs.Constant):
        raise CannotUnfuseError("its factor is not the scale of its data times that of its weight")
    return work.constant(f"{factor.name}_weight", np.asarray(np.asarray(factor.values) / np.asarray(data.values)))


def weight_of(work: Unfusing, node: gs.Node, scale: gs.Constant, axis: int | None) -> Parameters:
    """What stands for the second operand. Several scales lie along the channels of the result: the last dimension of a
    matrix, the second one of a Conv.
    """
    if _along_channels(node, np.asarray(scale.values)) is None:
        raise CannotUnfuseError("its factor has several elements that are not one per channel of the result")
    return work.spelled(np.asarray(scale.values), work.zeros(node, 3, 1), axis)


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
    return np.ascontiguousarray(np.broadcast_to(values, count)) if conv or count > 1 else values


def _along_channels(node: gs.Node, values: NDArray[Any]) -> NDArray[Any] | None:
    """The elements of what is combined with the sums, if that is one for all (rank 0) or one per channel of the result
    ([channels]), and if it does not give the sums more dimensions; else None.
    """
    shape, matrix = node.inputs[1].shape, node.op == "MatMulInteger"
    dimensions = rank(node.outputs[0])
    if dimensions is None:  # at least these: the product of a vector and a matrix has one less than the matrix
        dimensions = (2 if shape is None else len(shape)) - int(matrix)
    if values.ndim > dimensions:
        return None
    if values.size == 1:
        return values.reshape(())
    if shape is None or len(shape) == 1:  # of a Conv the rank, of a matrix the columns; a vector has none
        return None
    axis = values.ndim - 1 if matrix else values.ndim + 1 - len(shape)
    fits = axis >= 0 and values.shape[axis] == values.size == shape[-1 if matrix else 0]
    return values.reshape(-1) if fits else None
