"""Moving numbers does not need their meaning: between equal encodings the integers move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.numerics import quantize
from onnxq.optable import OP_TABLE, data_slots
from onnxq_passes import _moves
from onnxq_passes._edit import input_at, scalar
from onnxq_passes._fuse import BYTES, CannotFuseError, Fusion, Operand, Work

_WIDE = frozenset(
    {"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Gather", "GatherElements", "Expand", "Tile"}
    | {"Split", "Concat"}
)
"""Ops for whose 16-bit forms ONNX Runtime's CPU has kernels."""


@dataclass(frozen=True, kw_only=True)
class FuseIntegerMovement(Fusion):
    """Let ops that move data run on the integers of DequantizeLinear -> op -> QuantizeLinear.

    1. All inputs and outputs have one encoding; then Q(op(DQ(q))) = op(q), bit for bit. A scale per channel is fine
       where the op carries its axis along whole, and the outputs have it there.
    2. The op table says which ops move data, from which opset on they take 8-bit integers, and which inputs and
       outputs it moves; other outputs (Indices of TopK) must not be read, because they depend on ties.
    3. Pad fills with Q(c) for its constant c, which is the zero point for 0.
    4. 16-bit integers where ONNX Runtime has kernels: Transpose, Reshape, Flatten, Squeeze, Unsqueeze, Slice, Gather,
       GatherElements, Expand, Tile, Split, Concat.
    5. Encodings for which Q(DQ(q)) is not q (scales at the end of float32) stay.
    """

    ops: ClassVar[tuple[str, ...]] = tuple(op for op, row in OP_TABLE.items() if row.moves is not None)

    def fuse(self, work: Work, node: gs.Node) -> None:
        """Fuse one op."""
        types = (*BYTES, "uint16", "int16") if node.op in _WIDE else BYTES
        row = OP_TABLE[node.op]
        assert row.moves is not None  # by `ops`
        reason = row.moves(node)
        if reason:
            raise CannotFuseError(reason)
        if work.editor.main.opset < row.min_opset:
            raise CannotFuseError(f"{node.op} takes 8-bit integers from opset {row.min_opset} on")
        slots = data_slots(node)
        results = range(len(node.outputs)) if row.results is None else row.results
        for slot, tensor in enumerate(node.outputs):
            if slot not in results and (work.editor.is_output(tensor) or any(True for _ in work.editor.uses(tensor))):
                raise CannotFuseError(f"its output {tensor.name} depends on ties")
        sources = {slot: work.operand(node.inputs[slot], types) for slot in slots}
        outlets = [work.outlet(node, slot, skip=False, types=types, channels=True) for slot in results]
        first = sources[slots[0]]
        ends = [o.to for o in outlets if o.to is not None]
        if not ends:
            raise CannotFuseError("nobody reads its output")
        carried = _moves.carried(node, first.said)
        if isinstance(carried, str):
            raise CannotFuseError(carried)
        if any(s.said != first.said for s in sources.values()) or any(e.said != carried for e in ends):
            raise CannotFuseError("its inputs and outputs have different encodings")
        if not first.said.round_trips:
            raise CannotFuseError("its scale is at the end of float32, where Q(DQ(q)) is not q")
        inputs: dict[int, Any] = {slot: one.integers for slot, one in sources.items()}
        if row.fill is not None:
            self._fill(work, node, row.fill, first)
        work.feed(node, inputs, outlets)

    def _fill(self, work: Work, node: gs.Node, slot: int, first: Operand) -> None:
        """Write the quantized fill value (case 3)."""
        if node.attrs.get("mode", "constant") != "constant":
            _moves.forget_fill(work.editor, node, slot)
            return
        given = input_at(node, slot)
        value = 0.0 if given is None else scalar(given)
        if value is None or np.isnan(value):
            raise CannotFuseError("its fill value is no constant")
        level = quantize(np.asarray(value), first.said.encoding())
        name = given.name if given is not None else f"{node.name}_fill"
        fill = work.constant(f"{name}_quantized", level)
        work.editor.set_inputs(node, [*node.inputs[:slot], fill, *node.inputs[slot + 1 :]])
