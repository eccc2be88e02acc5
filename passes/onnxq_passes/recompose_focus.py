"""YOLOX and YOLOv5 cut their picture into a checkerboard with nine ops; ONNX has one for it, four times as fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.ir.walk import constant_array
from onnxq.pipeline.base import Context, Pass, Report
from onnxq_passes._edit import Editor, ints, rank, standard, static_shape
from onnxq_passes._match import leak, made_by, not_float, rewrite_each

_NO_END = (1 << 31) - 1
_RANK, _SPATIAL = 4, (2, 3)


@dataclass(frozen=True, kw_only=True)
class RecomposeFocus(Pass):
    """Make one SpaceToDepth of strided Slices that a Concat joins (the "Focus" layer); bit for bit the same values.

    1. Concat on axis 1 of the b * b pictures x[:, :, i::b, j::b], each by one Slice or two, in any order. Sizes that b
       does not divide would not fit the Concat, so they need not be known.
    2. SpaceToDepth puts the pictures in the order of (i, j). If the Concat does not, every reader has to be a Conv
       (group 1, constant weights): its input channels are put into that order, and its sums are added up in it.
    3. Refused: a Slice that is read elsewhere, another order for other readers, a type other than float.
    """

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""
        return rewrite_each(graph, ["Concat"], _rewrite)


def _rewrite(node: gs.Node, editor: Editor, report: Report) -> str | None:
    cuts = [_cut(editor, tensor) for tensor in node.inputs]
    found = [cut for cut in cuts if cut is not None]
    if not found or len(found) != len(cuts):
        return None
    x, step = found[0][:2]
    if step * step != len(cuts) or not _pictures(editor, node, x):
        return None
    if int(node.attrs["axis"]) % _RANK != 1:
        return None
    if any(source is not x or other != step for source, other, _, _ in found):
        return None
    order = [row * step + column for _, _, (row, column), _ in found]
    if sorted(order) != list(range(len(order))):
        return None
    if not_float(x):
        return "only float tensors have a fast SpaceToDepth kernel"
    slices = {id(n): n for _, _, _, nodes in found for n in nodes}
    nodes = [*slices.values(), node]
    reason = leak(editor, nodes, node)
    if reason:
        return reason
    uses = list(editor.uses(node.outputs[0]))
    if order != sorted(order):
        if editor.is_output(node.outputs[0]) or not all(_reorderable(user, slot) for user, slot in uses):
            return "its order is not that of SpaceToDepth, and something else than Convs with constant weights reads it"
        for weights in {id(user.inputs[1]): user.inputs[1] for user, _ in uses}.values():
            blocks = np.split(np.asarray(constant_array(weights)), len(order), axis=1)
            ordered = np.concatenate([blocks[order.index(k)] for k in range(len(order))], axis=1)
            constant = editor.constant(f"{weights.name}_blocks", ordered)
            for conv in [user for user, _ in uses if user.inputs[1] is weights]:
                editor.set_input(conv, 1, constant)
    editor.fuse(node, nodes, "SpaceToDepth", [x], report, attrs={"blocksize": step})
    return None


def _pictures(editor: Editor, node: gs.Node, x: gs.Tensor) -> bool:
    """Are there four dimensions? Files without inner types tell it by the weights of the Conv behind."""
    known = {rank(tensor) for tensor in (x, node.outputs[0], *node.inputs)}
    known |= {rank(user.inputs[1]) for user, slot in editor.uses(node.outputs[0]) if user.op == "Conv" and slot == 0}
    return known - {None} == {_RANK}


def _reorderable(user: gs.Node, slot: int) -> bool:
    return (
        user.op == "Conv"
        and standard(user)
        and slot == 0
        and int(user.attrs.get("group", 1)) == 1
        and constant_array(user.inputs[1]) is not None
    )


def _cut(editor: Editor, tensor: gs.Tensor) -> tuple[gs.Tensor, int, tuple[int, int], Sequence[gs.Node]] | None:
    """What is cut, every how many rows and columns, from which on, and the Slices; None if it is no such picture."""
    first: dict[int, tuple[int, int]] = {}
    nodes: list[gs.Node] = []
    while len(first) < len(_SPATIAL):
        node = made_by(editor, tensor, "Slice")
        taken = None if node is None else _taken(node)
        if node is None or not taken or any(axis in first for axis in taken):
            return None
        first.update(taken)
        nodes.append(node)
        tensor = node.inputs[0]
    if sorted(first) != list(_SPATIAL):
        return None
    (row, down), (column, across) = first[2], first[3]
    return (tensor, down, (row, column), nodes) if down == across else None


def _taken(node: gs.Node) -> dict[int, tuple[int, int]] | None:
    """Axis -> (start, step from 2 on) of a Slice of a picture that goes on to the end; None for others."""
    if len(node.inputs) < 5:
        return None
    starts, ends, axes, steps = (ints(tensor) for tensor in node.inputs[1:])
    if starts is None or ends is None or axes is None or steps is None:
        return None
    dims = static_shape(node.inputs[0])
    if dims is not None and len(dims) != _RANK:
        return None
    found: dict[int, tuple[int, int]] = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        at = axis % _RANK
        if start < 0 or step < 2 or end < (_NO_END if dims is None else min(dims[at], _NO_END)):
            return None
        found[at] = (start, step)
    return found
