"""TensorFlow-style "same" padding is exported as a Pad before the Conv; integer kernels pad by themselves, but have
no Pad.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx_graphsurgeon as gs

from onnxq.ir.walk import constant_array
from onnxq.pipeline.base import Context, Pass, Report
from onnxq_passes._edit import Editor


@dataclass(frozen=True, kw_only=True)
class FusePadIntoConv(Pass):
    """Move zero padding of the spatial dimensions from a Pad into the Conv behind it; exact up to the order of float
    sums.

    1. The Pad is constant, its value 0, its amounts known, none negative, none on the batch or channel dimension.
    2. Every reader of the Pad is a Conv that takes it as data, with explicit pads (auto_pad NOTSET or VALID); then
       all of them pad more.
    3. Pads in a row, one by one.
    """

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""
        report, editor = Report(), Editor(graph)
        pads = (node for body in reversed(editor.bodies) for node in reversed(list(editor.live(body, ["Pad"]))))
        for node in pads:  # the last one first: what it leaves is a Pad in front of a Conv
            uses = list(editor.uses(node.outputs[0]))
            if not uses or any(user.op != "Conv" for user, _ in uses):
                continue
            amounts = _amounts(node)
            reason = _reason(node, amounts) or _reason_of_users(uses) or _output_reason(editor, node)
            if reason or amounts is None:
                report.refuse(node, reason)
                continue
            spatial = len(amounts) // 2
            extra = [*amounts[2:spatial], *amounts[spatial + 2 :]]
            for conv, _ in uses:
                old = conv.attrs.get("pads") or [0] * len(extra)
                conv.attrs["pads"] = [int(a) + int(b) for a, b in zip(old, extra, strict=True)]
                conv.attrs.pop("auto_pad", None)
                editor.set_input(conv, 0, node.inputs[0])
            editor.remove(node)
            report.rewrites += 1
        editor.commit()
        return report


def _amounts(node: gs.Node) -> list[int] | None:
    """Begin and end padding of every dimension, from the attribute (opset 2) or the input (opset 11, `axes` from 18
    on).
    """
    if "pads" in node.attrs:
        return [int(p) for p in node.attrs["pads"]]
    pads = constant_array(node.inputs[1]) if len(node.inputs) > 1 else None
    if pads is None:
        return None
    amounts = [int(p) for p in pads]
    if len(node.inputs) < 4 or not node.inputs[3].name:
        return amounts
    axes, shape = constant_array(node.inputs[3]), node.inputs[0].shape or node.outputs[0].shape
    if axes is None or shape is None:
        return None
    full = [0] * (2 * len(shape))
    for index, axis in enumerate(axes):
        place = int(axis) % len(shape)
        full[place], full[place + len(shape)] = amounts[index], amounts[index + len(axes)]
    return full


def _reason(node: gs.Node, amounts: list[int] | None) -> str:
    if node.attrs.get("mode", "constant") != "constant":
        return f"it pads with mode {node.attrs['mode']}, a Conv pads with zeros"  # case 1
    value: Any = node.attrs.get("value", 0.0)
    if len(node.inputs) > 2 and node.inputs[2].name:
        values = constant_array(node.inputs[2])
        value = None if values is None else float(values.reshape(-1)[0])
    if value != 0:
        return "it pads with another value than 0" if value is not None else "its value is computed at run time"
    if amounts is None:
        return "its amounts are computed at run time"
    rank = len(amounts) // 2
    if any(amounts[i] for i in (0, 1, rank, rank + 1)):
        return "it pads the batch or the channels"
    return "it crops (a negative amount)" if min(amounts) < 0 else ""


def _reason_of_users(uses: list[tuple[gs.Node, int]]) -> str:
    for conv, slot in uses:
        if slot != 0:
            return f"{conv.name} reads it as a weight"  # case 2
        if conv.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            return f"{conv.name} pads by auto_pad, whose amount depends on the shape"
    return ""


def _output_reason(editor: Editor, node: gs.Node) -> str:
    return "it is an output of the graph" if editor.is_output(node.outputs[0]) else ""
