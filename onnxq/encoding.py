"""How a tensor is represented: small frozen values that the plan maps uses and produced values to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Kind: TypeAlias = Literal["dynamic", "weights8", "weights4"]
"""How an op that is float at its borders computes with integers: `onnxq.plan.kinds` says which ops can."""

IntType: TypeAlias = Literal["uint8", "int8", "uint16", "int16", "int32"]

LEVELS: dict[IntType, tuple[int, int]] = {
    "uint8": (0, 255),
    "int8": (-128, 127),
    "uint16": (0, 65535),
    "int16": (-32768, 32767),
    "int32": (-(2**31), 2**31 - 1),
}


@dataclass(frozen=True)
class PerTensor:
    """One scale for the whole tensor; scale and zero point have rank 0."""


@dataclass(frozen=True)
class PerChannel:
    """One scale per index of `axis`; scale and zero point have shape [dim(axis)].

    >>> PerChannel(axis=0)
    PerChannel(axis=0)
    """

    axis: int


@dataclass(frozen=True)
class PerBlock:
    """One scale per `size` elements along `axis`; scale has the rank of the tensor."""

    axis: int
    size: int


Granularity: TypeAlias = PerTensor | PerChannel | PerBlock


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """What the target wants of an encoding, before its range is known.

    Attributes:
        type: integer type of the quantized values.
        symmetric: zero point fixed at 0 for signed types (range [-amax, amax]).
        granularity: who shares a scale.
        reduce_range: leave one bit unused (weights on CPUs whose u8 x s8 products saturate in pairs).
    """

    type: IntType
    symmetric: bool
    granularity: Granularity = PerTensor()
    reduce_range: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Affine:
    """real = (q - zero_point) * scale. ONNX QuantizeLinear / DequantizeLinear.

    Attributes:
        type: integer type of q.
        granularity: PerTensor (scale, zero_point of rank 0), PerChannel (shape [C]) or PerBlock.
        scale: float32, > 0.
        zero_point: integer array of `type`, same shape as scale.
    """

    type: IntType
    granularity: Granularity
    scale: NDArray[np.float32]
    zero_point: NDArray[Any]

    @property
    def key(self) -> tuple[object, ...]:
        """Hashable identity, exact to the bit: equal keys share one scale and one zero-point initializer."""
        return (self.type, self.granularity, self.scale.shape, self.scale.tobytes(), self.zero_point.tobytes())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Affine) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def real_range(self) -> tuple[float, float]:
        """The least and the greatest real number of a per-tensor encoding."""
        low, high = LEVELS[self.type]
        zero, scale = int(self.zero_point.min()), float(self.scale.max())
        return (low - zero) * scale, (high - zero) * scale


@dataclass(frozen=True)
class Float:
    """Not quantized."""


FLOAT = Float()
Encoding: TypeAlias = Affine | Float
