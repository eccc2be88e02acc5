"""The weights of linear ops, by output channel: how many there are, how they are scaled, how they are replaced."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq_passes._edit import Editor, input_at

Vector = NDArray[np.float64]
LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def channels(node: gs.Node, weight: gs.Constant) -> int | None:
    """Number of output channels (columns of a matrix), or None for a MatMul whose weight is no matrix."""
    shape = weight.shape
    if node.op == "Conv":
        return int(shape[0])
    if node.op == "ConvTranspose":
        return int(shape[1] * node.attrs.get("group", 1))
    if len(shape) != 2:
        return None
    return int(shape[0] if node.op == "Gemm" and node.attrs.get("transB") else shape[1])


def scale_outputs(node: gs.Node, w: NDArray[Any], scale: Vector) -> Vector:
    """The weight with output channel i multiplied by scale[i]; `scale` has one element per channel."""
    if node.op == "Conv":
        return np.asarray(w * scale.reshape(-1, *[1] * (w.ndim - 1)))
    if node.op == "ConvTranspose":
        groups = int(node.attrs.get("group", 1))  # output channel g * (C/g) + j is w[i of group g, j]
        split = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
        return np.asarray((split * scale.reshape(groups, 1, -1, *[1] * (w.ndim - 2))).reshape(w.shape))
    return np.asarray(w * (scale[:, None] if node.attrs.get("transB") else scale))


def scale_inputs(node: gs.Node, w: NDArray[Any], scale: Vector) -> Vector:
    """The weight [O, I/groups, ...] of a Conv with input channel i multiplied by scale[i]; `scale` has shape [I]."""
    groups = int(node.attrs.get("group", 1))
    split = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
    return np.asarray((split * scale.reshape(groups, 1, -1, *[1] * (w.ndim - 2))).reshape(w.shape))


def rounded(values: Vector, dtype: Any) -> NDArray[Any] | None:
    """The values in a float type, or None if one of them does not fit into it."""
    with np.errstate(over="ignore"):
        result = values.astype(dtype)
    result.flags.writeable = False
    return result if np.isfinite(result).all() else None


def replace_constant(editor: Editor, node: gs.Node, slot: int, values: NDArray[Any], name: str) -> None:
    """Let a slot, or the one behind the last, read new values: under the name of the old constant if nobody else reads
    that, else under a new one.
    """
    old = input_at(node, slot)
    alone = isinstance(old, gs.Constant) and editor.only_use(old) is not None
    new = gs.Constant(old.name, values) if alone and old is not None else editor.constant(name, values)
    editor.set_input(node, slot, new)
