"""Weights in blocks of few bits, as MatMulNBits and GatherBlockQuantized (com.microsoft) read them.

Row n of a matrix [N, K] is cut into blocks of `size` along K; the last one is filled up with zeros. Each block has a
scale s and a zero point z, and real = (q - z) * s with q in 0 .. 2**bits - 1; without zero points, z is 2**(bits - 1).
Source: the operators' descriptions in ONNX Runtime's ContribOperators.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.numerics import TINY

_CHUNK = 1 << 22
"""Elements that are searched at a time."""

_SHRINK = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
"""Shares of a block's range that the search tries: with few levels, finer steps for most are worth clipping some."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Blocks:
    """A matrix [N, K] in blocks.

    Attributes:
        bits: 4 or 8.
        size: elements per block.
        columns: K.
        levels: uint8 [N, blocks * size], one element per number.
        scale: float32 [N, blocks], above 0.
        zero: uint8 [N, blocks], one element per number; None: 2**(bits - 1) everywhere.
    """

    bits: int
    size: int
    columns: int
    levels: NDArray[np.uint8]
    scale: NDArray[np.float32]
    zero: NDArray[np.uint8] | None

    @property
    def packed(self) -> NDArray[np.uint8]:
        """The levels as bytes [N, blocks, size * bits / 8]: of two 4-bit numbers the first one is in the low half."""
        rows, blocks = self.scale.shape
        return _packed(self.levels, self.bits).reshape(rows, blocks, -1)

    @property
    def rows(self) -> NDArray[np.uint8]:
        """The levels as bytes [N, K * bits / 8], without those that fill up; K is even with 4 bits."""
        return _packed(self.levels[:, : self.columns], self.bits)

    @property
    def packed_zero(self) -> NDArray[np.uint8] | None:
        """The zero points as bytes [N, (blocks * bits + 7) / 8]."""
        return None if self.zero is None else _packed(self.zero, self.bits)

    @property
    def real(self) -> NDArray[np.float32]:
        """What it stands for, float32 [N, K]."""
        rows, blocks = self.scale.shape
        zero = np.float32(1 << (self.bits - 1)) if self.zero is None else self.zero[:, :, None].astype(np.float32)
        steps = self.levels.reshape(rows, blocks, self.size).astype(np.float32) - zero
        real: NDArray[np.float32] = (steps * self.scale[:, :, None]).reshape(rows, -1)[:, : self.columns]
        return real


def in_blocks(weight: NDArray[Any], *, bits: int, size: int, symmetric: bool, search: bool) -> Blocks:
    """Round each block to the nearest levels.

    Args:
        weight: finite, [N, K].
        symmetric: no zero points.
        search: try narrower ranges, and take for each block the one with the least mean squared error.
    """
    rows, columns = weight.shape
    blocks = -(-columns // size)
    levels: NDArray[np.uint8] = np.empty((rows, blocks * size), dtype=np.uint8)
    scale: NDArray[np.float32] = np.empty((rows, blocks), dtype=np.float32)
    zero: NDArray[np.uint8] = np.empty((rows, blocks), dtype=np.uint8)
    step = max(1, _CHUNK // max(blocks * size, 1))
    for start in range(0, rows, step):
        part = slice(start, start + step)
        padded = np.zeros((len(range(*part.indices(rows))), blocks * size), dtype=np.float32)
        padded[:, :columns] = weight[part]
        found = _search(padded.reshape(-1, blocks, size), bits, symmetric, _SHRINK if search else _SHRINK[:1])
        levels[part] = found[0].reshape(-1, blocks * size)
        scale[part], zero[part] = found[1][..., 0], found[2][..., 0]
    return Blocks(
        bits=bits, size=size, columns=columns, levels=levels, scale=scale, zero=None if symmetric else zero
    )  # fmt: skip


def _search(x: NDArray[np.float32], bits: int, symmetric: bool, shares: tuple[float, ...]) -> list[NDArray[Any]]:
    """Levels, scales and zero points of blocks along the last axis; the latter two keep it with one element."""
    low = np.minimum(x.min(axis=-1, keepdims=True), 0)
    high = np.maximum(x.max(axis=-1, keepdims=True), 0)
    best: list[NDArray[Any]] = []
    least = None
    for share in shares:
        scale, zero = _parameters(low * np.float32(share), high * np.float32(share), bits, symmetric)
        levels = np.clip(np.rint(x / scale) + zero, 0, (1 << bits) - 1)
        if len(shares) == 1:
            return [levels.astype(np.uint8), scale, zero.astype(np.uint8)]
        error = np.square((levels - zero) * scale - x).sum(axis=-1, keepdims=True)
        found = [levels.astype(np.uint8), scale, zero.astype(np.uint8)]
        if least is None:
            best, least = found, error
            continue
        better = error < least
        best = [np.where(better, new, old) for new, old in zip(found, best, strict=True)]
        least = np.minimum(error, least)
    return best


def _parameters(
    low: NDArray[np.float32], high: NDArray[np.float32], bits: int, symmetric: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scale and zero point of ranges that hold 0, both float32."""
    top, middle = (1 << bits) - 1, 1 << (bits - 1)
    if symmetric:
        scale = np.maximum(np.maximum(-low, high) / np.float32(middle - 1), np.float32(TINY))
        return scale, np.full_like(scale, middle)
    scale = np.maximum((high - low) / np.float32(top), np.float32(TINY))
    return scale, np.clip(np.rint(-low / scale), 0, top)


def _packed(numbers: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    if bits == 8:
        return numbers
    if numbers.shape[1] % 2:
        numbers = np.pad(numbers, ((0, 0), (0, 1)))
    pairs: NDArray[np.uint8] = np.asarray(numbers[:, ::2] | (numbers[:, 1::2] << 4), dtype=np.uint8)
    return pairs
