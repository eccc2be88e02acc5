"""y = x * scale + shift per channel: what BatchNormalization, and Add, Sub, Mul, Div by a constant, do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq_passes._edit import Editor

Vector = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Affine:
    """One per-channel map: `scale` and `shift` are float64 of shape [channels] or [1]."""

    scale: Vector
    shift: Vector

    def then(self, other: Affine) -> Affine:
        """This map and then the other one."""
        return Affine(scale=self.scale * other.scale, shift=self.shift * other.scale + other.shift)


def affine(node: gs.Node, editor: Editor, channels: int, axis: int, rank: int | None) -> Affine | str | None:
    """The map that a node is, for data with `channels` channels on `axis` (negative: counted from the end).

    Returns:
        the map; a reason if the node looks like one but is none; None if it is something else.
    """
    if node.op == "BatchNormalization":
        return batch_norm(node, editor)
    if node.op not in ("Add", "Sub", "Mul", "Div"):
        return None
    first, second = node.inputs
    if isinstance(first, gs.Constant) == isinstance(second, gs.Constant):
        return None
    constant = first if isinstance(first, gs.Constant) else second
    values = per_channel(constant, channels, axis, rank)
    if values is None:
        return f"the constant of {node.op} is not one number per channel"
    zero, one = np.zeros(1), np.ones(1)
    if node.op == "Add":
        return Affine(scale=one, shift=values)
    if node.op == "Mul":
        return Affine(scale=values, shift=zero)
    if node.op == "Sub":
        return Affine(scale=one, shift=-values) if constant is second else Affine(scale=-one, shift=values)
    if constant is first:
        return None  # c / x
    return "the constant of Div has a zero" if not values.all() else Affine(scale=1 / values, shift=zero)


def batch_norm(node: gs.Node, editor: Editor) -> Affine | str:
    """BatchNormalization in inference: scale = gamma / sqrt(var + epsilon), shift = beta - mean * scale."""
    if node.attrs.get("training_mode"):
        return "BatchNormalization in training mode"
    if node.attrs.get("spatial") == 0:
        return "BatchNormalization with one mean per element (spatial=0)"
    if any(t.name and (editor.is_output(t) or any(True for _ in editor.uses(t))) for t in node.outputs[1:]):
        return "the running statistics of BatchNormalization are read"
    if not all(isinstance(t, gs.Constant) for t in node.inputs[1:]):
        return "the parameters of BatchNormalization are not constant"
    gamma, beta, mean, var = (np.asarray(t.values, np.float64).ravel() for t in node.inputs[1:])
    spread = var + float(node.attrs.get("epsilon", 1e-5))
    if not (spread > 0).all():
        return "the variance of BatchNormalization is not positive"
    scale = gamma / np.sqrt(spread)
    return Affine(scale=scale, shift=beta - mean * scale)


def per_channel(constant: gs.Constant, channels: int, axis: int, rank: int | None) -> Vector | None:
    """The constant as [channels] or [1], if it broadcasts along `axis` (negative) and adds no dimension, else None."""
    values: NDArray[Any] = np.asarray(constant.values)
    if values.ndim > 1 and (rank is None or values.ndim > rank):
        return None
    wanted = [1] * values.ndim
    if -axis <= values.ndim:
        wanted[axis] = channels
    if values.size != 1 and list(values.shape) != wanted:
        return None
    return values.astype(np.float64).ravel()
