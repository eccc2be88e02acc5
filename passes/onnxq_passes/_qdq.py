"""What a QuantizeLinear or a DequantizeLinear says, as a value: the one reader of Q and DQ nodes for all passes."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.encoding import LEVELS, Affine, Granularity, IntType, PerBlock, PerChannel, PerTensor
from onnxq.numerics import dequantize, quantize
from onnxq_passes._edit import FLOAT, Editor, input_at, standard

_TYPES = {2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32"}
"""TensorProto.DataType to the integer types of LEVELS."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Parameters:
    """real = (q - zero_point) * scale, with scale > 0 and finite.

    Attributes:
        scale: float32; rank 0 (per tensor), shape [C] (per channel), or the rank of the tensor (per block).
        zero_point: integers of `dtype`, same shape as scale; zeros where the node omits it.
        axis: the axis of the channels or blocks as written (it may be negative); None: per tensor.
        block_size: elements per block; 0: not per block.
        dtype: integer type of q.
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[Any]
    axis: int | None
    block_size: int
    dtype: str

    @cached_property
    def key(self) -> tuple[object, ...]:
        """Hashable identity, exact to the bit."""
        numbers = (self.scale.shape, self.scale.tobytes(), self.zero_point.tobytes())
        return (self.dtype, self.axis, self.block_size, *numbers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Parameters) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def encoding(self) -> Affine:
        """The same as the value that plans speak of."""
        granularity: Granularity = PerTensor()
        if self.axis is not None:
            granularity = PerBlock(self.axis, self.block_size) if self.block_size else PerChannel(self.axis)
        kind = cast(IntType, self.dtype)
        return Affine(type=kind, granularity=granularity, scale=self.scale, zero_point=self.zero_point)

    @property
    def one_byte_scale(self) -> bool:
        """8 bits, with one scale for all."""
        return self.axis is None and self.dtype in ("uint8", "int8")

    @cached_property
    def round_trips(self) -> bool:
        """Q(DQ(q)) == q for every q: tried for each level and scale. False for int32, and for scales so small or so
        large that the product loses steps.
        """
        if self.dtype == "int32":
            return False
        pairs = zip(self.scale.ravel(), self.zero_point.ravel(), strict=True)
        return all(_round_trips(cast(IntType, self.dtype), scale, zero) for scale, zero in set(pairs))


@functools.lru_cache(maxsize=1 << 16)
def _round_trips(kind: IntType, scale: np.float32, zero: np.integer[Any]) -> bool:
    low, high = LEVELS[kind]
    levels = np.arange(low, high + 1)
    one = Affine(type=kind, granularity=PerTensor(), scale=np.asarray(scale), zero_point=np.asarray(zero))
    with np.errstate(over="ignore"):
        return np.array_equal(quantize(dequantize(levels, one), one), levels)


def is_q(node: gs.Node | None) -> bool:
    """True for QuantizeLinear of the standard domain."""
    return node is not None and node.op == "QuantizeLinear" and standard(node)


def is_dq(node: gs.Node | None) -> bool:
    """True for DequantizeLinear of the standard domain."""
    return node is not None and node.op == "DequantizeLinear" and standard(node)


def parameters(node: gs.Node) -> Parameters | None:
    """What a Q or DQ says.

    The type of a Q is that of its zero point, else `output_dtype`, else uint8; that of a DQ is that of its zero point,
    else of its input. A scale of one element and rank 1 counts as per tensor, as in ONNX Runtime.

    Returns:
        None if the node is no Q or DQ, if scale or zero point are computed, if the scale is not float32, positive and
        finite, if the integer type is none of LEVELS, or if an attribute asks for another precision.
    """
    if not (is_q(node) or is_dq(node)) or len(node.inputs) < 2:
        return None
    if node.attrs.get("precision", FLOAT) not in (0, FLOAT):
        return None
    asked = int(node.attrs.get("output_dtype", 0))
    zero = input_at(node, 2)
    if not isinstance(node.inputs[1], gs.Constant) or not (zero is None or isinstance(zero, gs.Constant)):
        return None
    scale: NDArray[Any] = np.asarray(node.inputs[1].values)
    if scale.dtype != np.float32 or not (np.isfinite(scale) & (scale > 0)).all():
        return None
    kind: str | None
    if isinstance(zero, gs.Constant):
        kind = _name(zero.dtype)
    elif is_q(node):
        kind = _TYPES.get(asked or 2)
    else:
        kind = _type_of(node.inputs[0])
    if kind not in LEVELS or (is_dq(node) and asked not in (0, FLOAT)):
        return None
    zeros = np.asarray(zero.values) if isinstance(zero, gs.Constant) else np.zeros(scale.shape, kind)
    block = int(node.attrs.get("block_size", 0))
    single = scale.size == 1 and not block
    if single:
        scale, zeros = scale.reshape(()), zeros.reshape(())
    if zeros.shape != scale.shape:
        return None
    axis = None if single else int(node.attrs.get("axis", 1))
    return Parameters(scale=scale, zero_point=zeros, axis=axis, block_size=block, dtype=kind)


def _type_of(tensor: gs.Tensor) -> str | None:
    """The integer type of a quantized tensor, from the file or from the Q that made it."""
    if tensor.dtype is not None:
        return _name(tensor.dtype)
    said = parameters(tensor.inputs[0]) if tensor.inputs else None
    return None if said is None else said.dtype


def _name(dtype: Any) -> str | None:
    """The name of a type; None for a number, as graphsurgeon gives it where numpy has no such type."""
    return None if isinstance(dtype, int) else np.dtype(dtype).name


def attributes(said: Parameters) -> dict[str, Any]:
    """The attributes of a Q or DQ that says this (the integer type stands in the zero point)."""
    if said.axis is None:
        return {}
    return {"axis": said.axis, "block_size": said.block_size} if said.block_size else {"axis": said.axis}


def dequantizer(editor: Editor, tensor: gs.Tensor) -> tuple[gs.Node, Parameters] | None:
    """The DQ that makes a tensor, with what it says; None if something else does or if it cannot be read."""
    maker = editor.producer(tensor)
    if maker is None or not is_dq(maker):
        return None
    said = parameters(maker)
    return None if said is None else (maker, said)
