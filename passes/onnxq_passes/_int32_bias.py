"""The bias of an integer Conv or Gemm: int32 in steps of sx * sw, given in the file or made from a float one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.encoding import LEVELS
from onnxq.numerics import dequantize, quantize
from onnxq_passes._edit import input_at
from onnxq_passes._fuse import CannotFuseError, Operand, Work
from onnxq_passes._qdq import is_dq


@dataclass(frozen=True)
class Bias:
    """An int32 bias (None: the op has none), and the weight, whose scale may have been widened for it."""

    tensor: gs.Tensor | None
    weight_integers: gs.Tensor
    scale: gs.Tensor


def in_steps(scale: NDArray[Any], steps: NDArray[Any]) -> bool:
    """Is this the scale of a bias, sx * sw? Up to 1e-5 of it, a few roundings of float32 (the `rtol` of numpy).

    Raises:
        ValueError: they have different numbers of channels.
    """
    return bool(np.isclose(scale, steps, atol=0).all())


def integer_bias(work: Work, node: gs.Node, slot: int, data: Operand, weight: Operand) -> Bias:
    """The bias of a Conv or Gemm whose data and weight are quantized.

    A float constant becomes round(b / (sx * sw)), an error of at most half a step of the accumulator. Where that
    leaves int32, the scale of the channel's weights is widened until it fits.

    Raises:
        CannotFuseError: it is computed in the graph, or quantized with another scale or a zero point.
    """
    plain = Bias(None, weight.integers, work.scale(weight))
    tensor = input_at(node, slot)
    if tensor is None:
        return plain
    steps = _steps(data, weight)
    if is_dq(work.editor.producer(tensor)):
        given = work.operand(tensor, ("int32",))
        if given.said.zero_point.any():
            raise CannotFuseError(f"the bias {given.integers.name} has a zero point")
        try:
            fits = in_steps(given.said.scale, steps)
        except ValueError:
            raise CannotFuseError(f"the bias {given.integers.name} has other channels than the weight") from None
        if not fits:
            raise CannotFuseError(
                f"the scale of the bias {given.integers.name} is not that of the data times that of the weight"
            )
        return replace(plain, tensor=given.integers)
    if not isinstance(tensor, gs.Constant):
        raise CannotFuseError(f"its bias {tensor.name} is computed in the graph")
    values: NDArray[Any] = np.asarray(tensor.values)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise CannotFuseError(f"its bias {tensor.name} is no vector of finite float32")
    limit = _limit(weight, values.size)
    if (np.abs(values) > steps * limit).any():
        weight, plain = _widen(work, node, data, weight, values, limit)
        steps = _steps(data, weight)
    levels = np.rint(values / steps).astype(np.int32)
    return replace(plain, tensor=work.constant(f"{tensor.name}_int32", levels))


def _steps(data: Operand, weight: Operand) -> NDArray[np.float64]:
    """sx * sw, exactly."""
    return np.asarray(data.said.scale.astype(np.float64) * weight.said.scale)


def _limit(weight: Operand, channels: int) -> int:
    """Greatest |bias| that leaves room for the products: K terms of at most 255 * 128."""
    size = math.prod(int(d) for d in (weight.integers.shape or ()) if isinstance(d, (int, np.integer)))
    return max(LEVELS["int32"][1] - size // max(channels, 1) * 255 * 128, 2**30)


def _widen(
    work: Work, node: gs.Node, data: Operand, weight: Operand, values: NDArray[Any], limit: int
) -> tuple[Operand, Bias]:
    """The weight with scales so wide that the bias fits; its integers are rounded again."""
    if not isinstance(weight.integers, gs.Constant):
        raise CannotFuseError("its bias leaves int32, and the weight is no constant whose scale could be widened")
    least = np.abs(values).astype(np.float64) / (float(data.said.scale) * limit)
    if weight.per_tensor:
        least = np.asarray(least.max())
    wide = np.maximum(weight.said.scale, least).astype(np.float32)
    wide = np.where(wide < least, np.nextafter(wide, np.float32(np.inf)), wide)
    said = replace(weight.said, scale=wide)
    real = dequantize(np.asarray(weight.integers.values), weight.said.encoding())
    count = int((wide > weight.said.scale).sum())
    work.report.notes.append(f"{node.name}: {count} weight scales were widened, the bias would overflow int32.")
    integers = work.constant(f"{weight.integers.name}_widened", quantize(real, said.encoding()))
    scale = work.constant(f"{weight.integers.name}_scale_widened", wide)
    return replace(weight, said=said), Bias(None, integers, scale)
