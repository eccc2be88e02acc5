"""Half precision has no fast kernels on a CPU, and none of the integer kernels: ORT casts around every op."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.pipeline.base import Context, Pass, Report
from onnxq_passes._edit import BFLOAT16, FLOAT, FLOAT16, Editor, float_type, standard

HALF = (FLOAT16, BFLOAT16)
TYPE_ATTRIBUTES = ("to", "dtype", "output_datatype")
"""Attributes of standard ops that hold an element type."""
_FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Float16ToFloat(Pass):
    """Compute in float what the graph computes in float16 or bfloat16.

    Results differ by the rounding that no longer happens.

    1. Inputs of the main graph keep their type; a Cast to float follows. Outputs keep their type; a Cast from float
       precedes.
    2. Constants, also those in attributes, become float: exactly.
    3. Attributes that name the type of a result (`to` of Cast, `dtype` of ConstantOfShape's kin) name float. So
       inner Casts between half and float do nothing any more, and eliminate-identity removes them.
    4. Bodies of If, Loop and Scan are float throughout.
    5. Half constants that are only read by Casts are no half-precision graph: fold-constants folds them.
    6. Refused for the whole graph: BitCast, ops of unknown domains, sequences of halves at the boundary.
    """

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""
        report, editor = Report(), Editor(graph)
        if not _computes_in_half(editor):
            return report  # case 5
        obstacle = _obstacle(editor)
        if obstacle is not None:
            report.refuse(*obstacle)  # case 6
            return report
        boundary = {id(t) for t in (*graph.inputs, *graph.outputs)}
        for tensor in _tensors(editor):
            if isinstance(tensor, gs.Constant):
                if tensor.values.dtype.name in ("float16", "bfloat16"):
                    tensor.values = _to_float(tensor.values)  # case 2
                    report.rewrites += 1
            elif float_type(tensor) in HALF and id(tensor) not in boundary:
                tensor.dtype = _FLOAT32  # case 4
                report.rewrites += 1
        for node in editor.live():
            if not _boundary_cast(node, editor):
                report.rewrites += _retarget(node)
        for tensor in graph.inputs:
            if _widened(tensor, editor):
                inner = gs.Variable(editor.fresh_tensor(f"{tensor.name}_float"), dtype=_FLOAT32, shape=tensor.shape)
                editor.replace_uses(tensor, inner)
                cast = editor.node("Cast", [tensor], [inner], name=f"{tensor.name}_Cast", attrs={"to": FLOAT})
                editor.insert(cast, top=graph)  # case 1
                report.rewrites += 1
        for tensor in graph.outputs:
            maker, kind = editor.producer(tensor), float_type(tensor)
            if kind in HALF and maker is not None and not _boundary_cast(maker, editor):
                inner = gs.Variable(editor.fresh_tensor(f"{tensor.name}_float"), dtype=_FLOAT32, shape=tensor.shape)
                editor.set_output(maker, next(i for i, t in enumerate(maker.outputs) if t is tensor), inner)
                editor.replace_uses(tensor, inner)
                cast = editor.node("Cast", [inner], [tensor], name=f"{tensor.name}_Cast", attrs={"to": kind})
                editor.insert(cast, after=maker)  # case 1
                report.rewrites += 1
        editor.commit()
        report.notes.append(
            "The model computes in half precision; inside it is float now, its inputs and outputs keep their types."
        )
        return report


def _boundary_cast(node: gs.Node, editor: Editor) -> bool:
    """Is the node a Cast to half whose result is only an output of the main graph?"""
    if node.op != "Cast" or not standard(node) or node.attrs["to"] not in HALF or editor.body(node) is not editor.main:
        return False
    return editor.is_output(node.outputs[0]) and not any(True for _ in editor.uses(node.outputs[0]))


def _widened(tensor: gs.Tensor, editor: Editor) -> bool:
    """Is a tensor half and read by anything but a Cast?"""
    return float_type(tensor) in HALF and any(n.op != "Cast" or not standard(n) for n, _ in editor.uses(tensor))


def _computes_in_half(editor: Editor) -> bool:
    if any(_widened(t, editor) for t in editor.main.inputs):
        return True
    for node in editor.live():
        if _boundary_cast(node, editor):
            continue
        if any(float_type(t) in HALF for t in node.outputs) or (node.op == "Cast" and node.attrs.get("to") in HALF):
            return True
        if node.op != "Cast" and any(isinstance(t, gs.Constant) and float_type(t) in HALF for t in node.inputs):
            return True
    return False


def _obstacle(editor: Editor) -> tuple[gs.Node | str, str] | None:
    for tensor in (*editor.main.inputs, *editor.main.outputs):
        if isinstance(tensor, gs.Variable) and tensor.type != "tensor_type" and _mentions_half(tensor):
            return tensor.name, "a sequence of half-precision tensors at the boundary of the graph"
    for node in editor.live():
        if node.op == "BitCast":
            return node, "BitCast reads the bits of half-precision numbers"
        if not standard(node) and node.domain not in ("com.microsoft", "ai.onnx.ml"):
            return node, f"an op of the domain {node.domain}, which may not compute in float"
    return None


def _mentions_half(tensor: gs.Variable) -> bool:
    return any(f"elem_type: {kind}\n" in str(tensor.value_info) for kind in HALF)


def _tensors(editor: Editor) -> list[gs.Tensor]:
    found: dict[int, gs.Tensor] = {}
    for body in editor.bodies:
        found.update((id(t), t) for t in (*body.inputs, *body.outputs))
    for node in editor.live():
        found.update((id(t), t) for t in (*node.inputs, *node.outputs))
    return list(found.values())


def _retarget(node: gs.Node) -> bool:
    """Case 3: did an attribute change?"""
    changed = False
    for name, value in node.attrs.items():
        if isinstance(value, gs.Constant) and value.values.dtype.name in ("float16", "bfloat16"):
            node.attrs[name] = gs.Constant(value.name, _to_float(value.values))
            changed = True
        elif standard(node) and name in TYPE_ATTRIBUTES and value in HALF:
            node.attrs[name] = FLOAT
            changed = True
    return changed


def _to_float(values: Any) -> Any:
    result = np.asarray(values).astype(np.float32)
    result.flags.writeable = False
    return result
