"""A choice between two quantized tensors; often one of them is a constant that masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxq_passes._edit import is_constant, scalar
from onnxq_passes._fuse import CannotFuseError, Fusion, Operand, Work


@dataclass(frozen=True, kw_only=True)
class FuseQlinearWhere(Fusion):
    """Make QLinearWhere (com.microsoft) of a Where whose branches and result are quantized.

    1. Both branches are dequantized, with scales of their own; all tensors are of one type, uint8 or int8.
    2. One branch may be a float constant with one finite element c: as integers it is one step of size |c|, or none.
    3. Where all encodings are equal, fuse-integer-movement does better.

    Equal bit for bit.
    """

    ops: ClassVar[tuple[str, ...]] = ("Where",)

    def fuse(self, work: Work, node: gs.Node) -> None:
        """Fuse one Where."""
        choices = node.inputs[1:]
        sources = [None if is_constant(t) else work.activation(t) for t in choices]
        outlet, to = work.quantized(node)
        kinds = [s.type for s in [*sources, to] if s is not None]
        if len(set(kinds)) > 1:
            raise CannotFuseError(f"its branches and its result are {', '.join(kinds)}")
        values = [scalar(t) for t in choices]
        for source, value, tensor in zip(sources, values, choices, strict=True):
            if source is None and (value is None or not np.isfinite(value)):
                raise CannotFuseError(f"its constant branch {tensor.name} is no single finite number")
        branches: list[gs.Tensor] = []
        for source, value, tensor in zip(sources, values, choices, strict=True):
            branches += work.triple(source) if source is not None else _steps(work, tensor, value or 0.0, to)
        work.exchange(node, "QLinearWhere", [node.inputs[0], *branches, work.scale(to), work.zero(to)], outlet)


def _steps(work: Work, tensor: gs.Tensor, value: float, to: Operand) -> list[gs.Tensor]:
    """c = (q - z) * |c| with q - z = 1, 0 or -1 (case 2)."""
    level, zero = (1, 0) if value > 0 else (0, 1 if value < 0 else 0)
    kind = np.dtype(to.type)
    shape = tuple(tensor.shape or ())
    return [
        work.constant(f"{tensor.name}_quantized", np.full(shape, level, kind)),
        work.constant(f"{tensor.name}_scale", np.asarray(abs(value) or 1.0, np.float32)),
        work.constant(f"{tensor.name}_zero_point", np.asarray(zero, kind)),
    ]
