"""What hoist-quantize and sink-dequantize share: which ops move data here, and how Q and DQ are written anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.encoding import LEVELS, IntType
from onnxq.numerics import dequantize, quantize
from onnxq.optable import OP_TABLE, Op, data_slots, moved_axis
from onnxq_passes._edit import Editor, input_at, standard
from onnxq_passes._qdq import Parameters, attributes, dequantizer

FORMS = ("pair", "bare")
"""pair: the op stays float between DQ and Q, as ONNX Runtime and TensorRT want it; bare: it moves integers."""


def mover(node: gs.Node) -> Op | None:
    """The row of an op that can move data, else None."""
    row = OP_TABLE.get(node.op) if standard(node) else None
    return row if row is not None and row.moves is not None else None


def sources(node: gs.Node) -> list[int]:
    """Input slots that carry data and are not omitted."""
    return [s for s in data_slots(node) if node.inputs[s].name]


def results(editor: Editor, node: gs.Node, row: Op) -> list[gs.Tensor] | str:
    """The outputs that carry moved data and that somebody reads; or which other output is read."""
    slots = range(len(node.outputs)) if row.results is None else row.results
    for slot, tensor in enumerate(node.outputs):
        if slot not in slots and (editor.is_output(tensor) or any(True for _ in editor.uses(tensor))):
            return f"its output {slot} is read, and depends on ties"
    return [node.outputs[s] for s in slots if editor.is_output(node.outputs[s]) or any(editor.uses(node.outputs[s]))]


def carried(node: gs.Node, said: Parameters, *, back: bool = False) -> Parameters | str:
    """What a Q or DQ on the other side of the op says: the same, but for the axis; or why there is none."""
    if said.axis is None:
        return said
    if said.block_size:
        return "blocks are not carried through ops"
    axis = moved_axis(node, said.axis, back=back)
    if isinstance(axis, str):
        return f"its scales are per channel, and {axis}"
    return Parameters(scale=said.scale, zero_point=said.zero_point, axis=axis, block_size=0, dtype=said.dtype)


def obstacle(editor: Editor, node: gs.Node, row: Op, said: Parameters, form: str) -> str:
    """Why this op cannot work on integers of these parameters; "" if it can."""
    assert row.moves is not None
    reason = row.moves(node)
    if reason:
        return reason
    if form == "bare":
        if said.dtype not in ("uint8", "int8"):
            return f"the integer form of {node.op} was not checked for {said.dtype}"
        if editor.main.opset < row.min_opset:
            return f"{node.op} takes 8-bit integers from opset {row.min_opset} on, the model has {editor.main.opset}"
        if row.fill is not None and said.axis is not None:
            return f"{node.op} fills with one number, the scales are per channel"
        return ""
    return "" if said.round_trips else "Q(DQ(q)) is not q for every q of these parameters"


def on_grid(tensor: gs.Constant, said: Parameters) -> bool:
    """True for a float32 constant whose every bit survives Q and DQ; with scales per channel nobody knows."""
    if said.axis is not None:
        return False
    values, encoding = np.asarray(tensor.values), said.encoding()
    if not np.isfinite(values).all():
        return False
    return dequantize(quantize(values, encoding), encoding).tobytes() == values.tobytes()


def scale_inputs(editor: Editor, like: gs.Node, said: Parameters) -> list[gs.Tensor]:
    """Scale and zero point of a node that says what `like` says; the zero point is always written."""
    zero = input_at(like, 2)
    return [like.inputs[1], zero if zero is not None else editor.constant(f"{like.name}_zero_point", said.zero_point)]


def q_node(editor: Editor, source: gs.Tensor, said: Parameters, numbers: Sequence[gs.Tensor]) -> gs.Node:
    """A QuantizeLinear, not yet placed."""
    into = editor.variable(f"{source.name}_quantized", source)
    into.dtype = np.dtype(said.dtype)
    name = f"{source.name}_QuantizeLinear"
    return editor.node("QuantizeLinear", [source, *numbers], [into], name=name, attrs=attributes(said))


def dq_node(
    editor: Editor, source: gs.Tensor, said: Parameters, numbers: Sequence[gs.Tensor], into: gs.Tensor | None = None
) -> gs.Node:
    """A DequantizeLinear, not yet placed."""
    if into is None:
        into = editor.variable(f"{source.name.removesuffix('_quantized')}_dequantized", source)
        into.dtype = np.dtype(np.float32)
    name = f"{source.name.removesuffix('_quantized')}_DequantizeLinear"
    return editor.node("DequantizeLinear", [source, *numbers], [into], name=name, attrs=attributes(said))


def integers(editor: Editor, tensor: gs.Constant, said: Parameters) -> gs.Constant:
    """A float constant, quantized."""
    return editor.constant(f"{tensor.name}_quantized", quantize(np.asarray(tensor.values), said.encoding()))


def fill_integer(editor: Editor, node: gs.Node, row: Op, said: Parameters) -> None:
    """The number that the op writes where no data goes becomes its integer; `fill_obstacle` was asked before."""
    if row.fill is None:
        return
    if node.attrs.get("mode", "constant") != "constant":
        forget_fill(editor, node, row.fill)
        return
    given = input_at(node, row.fill)
    values = np.asarray(given.values) if isinstance(given, gs.Constant) else np.zeros(())
    one = editor.constant(f"{node.name}_fill", quantize(values, said.encoding()))
    padding = [gs.Variable.empty()] * (row.fill - len(node.inputs))
    editor.set_inputs(node, [*node.inputs[: row.fill], *padding, one, *node.inputs[row.fill + 1 :]])


def forget_fill(editor: Editor, node: gs.Node, slot: int) -> None:
    """A Pad that copies has no use for the number, but takes it in the type of its data only."""
    if input_at(node, slot) is not None:
        editor.set_input(node, slot, gs.Variable.empty())


def fill_obstacle(node: gs.Node, row: Op, grid: Parameters | None = None) -> str:
    """Why the number that the op writes where no data goes cannot be an integer; "" if it can.

    Args:
        grid: the number must be one of those that these parameters stand for; None: a Q behind the op rounds it.
    """
    if row.fill is None or node.attrs.get("mode", "constant") != "constant":
        return ""
    given = input_at(node, row.fill)
    if given is None:
        return ""
    if not isinstance(given, gs.Constant):
        return "the number that it fills with is computed"
    if grid is not None and not on_grid(given, grid):
        return "the number that it fills with is not on the grid of the integers"
    return ""


def dequantized_equal(editor: Editor, tensor: gs.Tensor, said: Parameters) -> gs.Node | None:
    """The DQ with exactly these parameters that makes a tensor, else None."""
    found = dequantizer(editor, tensor)
    return found[0] if found is not None and found[1] == said else None


def same_grid(one: Parameters, other: Parameters) -> bool:
    """Both stand for the same real numbers, level by level in order (uint8 and int8 with shifted zero points)."""
    return one.axis is None and other.axis is None and _grid(one) == _grid(other)


def _grid(said: Parameters) -> tuple[float, int, int]:
    """Scale, number of the level that stands for 0, number of the last level."""
    low, high = LEVELS[cast(IntType, said.dtype)]
    return float(said.scale), int(said.zero_point) - low, high - low
