"""Ops that hand their input through unchanged only stand in the way of every pattern."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.ir.tensors import onnx_dtype
from onnxq.pipeline.base import QUANTIZED, Context, Pass, Report, Stage
from onnxq_passes._edit import Editor, input_at, ints, rank, scalar, static_shape


@dataclass(frozen=True, kw_only=True)
class EliminateIdentity(Pass):
    """Remove ops whose output is their input, bit for bit.

    1. Identity.
    2. Dropout in inference (no `training_mode` input before opset 12, false or omitted after), if the mask is not
       read.
    3. Cast to the type that the input is known to have.
    4. Reshape to the shape that the input is known to have, also by copied (0) and one inferred (-1) dimensions;
       Expand likewise.
    5. Transpose with the identity permutation.
    6. Pad by nothing.
    7. Slice of everything.
    8. Concat of one tensor; Sum, Max, Min and Mean of one tensor.
    9. Flatten of a rank-2 tensor at axis 1.
    10. If the output is an output of the graph, the producer of the input takes its name over. An input, a constant
        or a tensor of an outer graph that goes straight to an output, and a tensor that is an output already, keep
        the op.
    """

    also_takes: ClassVar[tuple[Stage, ...]] = QUANTIZED

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""
        report, editor = Report(), Editor(graph)
        while _swept(editor, report, graph.opset):
            report.refusals.clear()
        editor.commit()
        return report


def _swept(editor: Editor, report: Report, opset: int) -> bool:
    """Go through all nodes once; True: an output took the place of a tensor of which less was known, look again."""
    again = False
    for node in editor.live(ops=_RULES):
        result = node.outputs[0]
        reason = _RULES[node.op](node, editor, opset)
        if reason is None:
            reason = editor.bypass(node)  # case 10
            report.rewrites += reason is None
            again |= reason is None and editor.is_output(result)
        if reason:
            report.refuse(node, reason)
    return again


# Each rule returns None if the node does nothing, "" if it does something (no site), else why it might do something.


def _identity(node: gs.Node, editor: Editor, opset: int) -> str | None:
    return None


def _dropout(node: gs.Node, editor: Editor, opset: int) -> str | None:
    training = input_at(node, 2)
    if training is not None and scalar(training) != 0:
        return "Dropout in training mode"
    for mask in node.outputs[1:]:
        if mask.name and (editor.is_output(mask) or any(True for _ in editor.uses(mask))):
            return "the mask of Dropout is read"
    return None


def _cast(node: gs.Node, editor: Editor, opset: int) -> str | None:
    source = node.inputs[0].dtype
    if source is None:
        return ""
    return None if onnx_dtype(source) == int(node.attrs["to"]) else ""


def _reshape(node: gs.Node, editor: Editor, opset: int) -> str | None:
    wanted = ints(node.inputs[1])
    if wanted is None:
        return ""
    if node.attrs.get("allowzero") and 0 in wanted:
        return ""
    copied = [d for d in wanted if d != 0]
    if len(wanted) == rank(node.inputs[0]) and copied in ([], [-1]):
        return None  # (0, 0, -1): nothing left to infer but the same dimension
    shape = static_shape(node.inputs[0])
    if shape is None or len(shape) != len(wanted) or 0 in shape:
        return ""
    full = [s if d == 0 else d for s, d in zip(shape, wanted, strict=True)]
    same = all(d in (s, -1) for s, d in zip(shape, full, strict=True))
    return None if same else ""


def _expand(node: gs.Node, editor: Editor, opset: int) -> str | None:
    wanted, shape = ints(node.inputs[1]), node.inputs[0].shape
    if wanted is None or shape is None or len(wanted) > len(shape):
        return ""
    tail = shape[len(shape) - len(wanted) :]
    return None if all(w in (1, s) for w, s in zip(wanted, tail, strict=True)) else ""


def _transpose(node: gs.Node, editor: Editor, opset: int) -> str | None:
    perm = node.attrs.get("perm")
    if perm is None:
        size = rank(node.inputs[0])
        return None if size is not None and size < 2 else ""
    return None if list(perm) == sorted(perm) else ""


def _pad(node: gs.Node, editor: Editor, opset: int) -> str | None:
    pads = node.attrs.get("pads") if opset < 11 else ints(node.inputs[1])
    return None if pads is not None and not any(pads) else ""


def _slice(node: gs.Node, editor: Editor, opset: int) -> str | None:
    starts, ends = _bounds(node, opset)
    if starts is None or ends is None or any(starts):
        return ""
    steps = [1] * len(starts)
    if opset >= 10:
        axes_input, steps_input = input_at(node, 3), input_at(node, 4)
        axes = list(range(len(starts))) if axes_input is None else ints(axes_input)
        if steps_input is not None:
            steps = ints(steps_input) or [0]
    else:
        axes = list(node.attrs.get("axes", range(len(starts))))
    if axes is None or any(s != 1 for s in steps):
        return ""
    shape = node.inputs[0].shape
    for axis, end in zip(axes, ends, strict=True):
        size = shape[axis] if shape is not None else None
        if end < np.iinfo(np.int32).max and not (isinstance(size, int) and end >= size):
            return ""
    return None


def _bounds(node: gs.Node, opset: int) -> tuple[list[int] | None, list[int] | None]:
    if opset < 10:
        return list(node.attrs["starts"]), list(node.attrs["ends"])
    return ints(node.inputs[1]), ints(node.inputs[2])


def _one_input(node: gs.Node, editor: Editor, opset: int) -> str | None:
    return None if len(node.inputs) == 1 else ""


def _flatten(node: gs.Node, editor: Editor, opset: int) -> str | None:
    return None if rank(node.inputs[0]) == 2 and node.attrs.get("axis", 1) in (1, -1) else ""


_RULES = {
    "Identity": _identity,
    "Dropout": _dropout,
    "Cast": _cast,
    "Reshape": _reshape,
    "Expand": _expand,
    "Transpose": _transpose,
    "Pad": _pad,
    "Slice": _slice,
    "Concat": _one_input,
    "Sum": _one_input,
    "Max": _one_input,
    "Min": _one_input,
    "Mean": _one_input,
    "Flatten": _flatten,
}
