"""Concatenation rescales what it joins, so that the parts may keep their own ranges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_graphsurgeon as gs

from onnxq_passes._fuse import CannotFuseError, Fusion, Work


@dataclass(frozen=True, kw_only=True)
class FuseQlinearConcat(Fusion):
    """Make QLinearConcat (com.microsoft) of a Concat of dequantized tensors that is quantized again.

    1. Every input is dequantized, with scales of its own; all tensors are of one type, uint8 or int8.
    2. Where all encodings are equal, fuse-integer-movement does better.

    Equal bit for bit.
    """

    ops: ClassVar[tuple[str, ...]] = ("Concat",)

    def fuse(self, work: Work, node: gs.Node) -> None:
        """Fuse one Concat."""
        sources = [work.activation(t) for t in node.inputs]
        outlet, to = work.quantized(node)
        if len({s.type for s in [*sources, to]}) > 1:
            raise CannotFuseError(f"its operands and its result are {', '.join(s.type for s in [*sources, to])}")
        inputs = [work.scale(to), work.zero(to), *(t for s in sources for t in work.triple(s))]
        work.exchange(node, "QLinearConcat", inputs, outlet, attrs={"axis": node.attrs["axis"]})
