"""Every exporter spells Q and DQ its own way; passes, checkers and ONNX Runtime's fusions want one spelling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import onnx_graphsurgeon as gs

from onnxq.encoding import LEVELS, IntType
from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq_passes._edit import Editor, input_at, scalar
from onnxq_passes._fuse import MICROSOFT
from onnxq_passes._qdq import attributes, is_dq, is_q, parameters

WIDE = 21
"""Least opset whose QuantizeLinear makes 16-bit integers."""


@dataclass(frozen=True, kw_only=True)
class CanonicaliseQdq(Pass):
    """Write QuantizeLinear and DequantizeLinear in one way; bit for bit.

    1. Those of com.microsoft become those of the standard domain, if the opset has the integer type.
    2. One scale has rank 0, and so has its zero point; `axis` goes.
    3. A zero point that is left out is written; `output_dtype` and `saturate`, which say nothing more then, go.
    4. With several scales `axis` is written, and counts from the front where the rank is known.
    5. A Clip of the integers between a Q and its readers that cuts nothing off goes. One that does stays (7-bit data
       of PyTorch): ONNX Runtime runs it on the integers, while a Clip of floats would keep the op in front in float.
    6. Parameters that are computed at run time, and types other than float32, stay as they are.
    """

    takes: ClassVar[Stage] = Stage.QDQ
    also_takes: ClassVar[tuple[Stage, ...]] = (Stage.PLACED, Stage.FUSED)
    gives: ClassVar[Stage] = Stage.QDQ

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""
        report, editor = Report(), Editor(graph)
        for node in editor.live():
            if node.op in ("QuantizeLinear", "DequantizeLinear"):
                reason = _spell(editor, node, report)
                if reason:
                    report.refuse(node, reason)
        for node in list(editor.live(ops=["Clip"])):
            maker = editor.producer(node.inputs[0])
            if maker is not None and is_q(maker):
                reason = _cuts(node, maker) or editor.bypass(node)
                report.rewrites += reason is None
                if reason:
                    report.refuse(node, reason)
        editor.commit()
        return report


def _spell(editor: Editor, node: gs.Node, report: Report) -> str | None:
    """Why a Q or DQ stays as it is written, or None."""
    foreign = node.domain == MICROSOFT
    if foreign:
        node.domain = None  # for `parameters`; put back where it stays
    said = parameters(node)
    reason = None
    if not (is_q(node) or is_dq(node)):
        reason = "its domain is not known"
    elif said is None:
        reason = "its parameters are computed, or are not positive float32 numbers of a known form"
    elif foreign and said.dtype in ("uint16", "int16") and editor.main.opset < WIDE:
        reason = f"the standard domain has {said.dtype} from opset {WIDE} on, the model has {editor.main.opset}"
    if reason is not None or said is None:
        node.domain = MICROSOFT if foreign else node.domain
        return reason
    attrs: dict[str, Any] = attributes(said)
    shape = node.inputs[0].shape
    if said.axis is not None and said.axis < 0 and shape is not None:
        attrs["axis"] = said.axis + len(shape)
    changed = foreign
    for slot, values in ((1, said.scale), (2, said.zero_point)):
        given = input_at(node, slot)
        if isinstance(given, gs.Constant) and tuple(given.shape) == values.shape:
            continue
        name = given.name if given is not None else f"{node.name}_zero_point"
        editor.set_inputs(node, [*node.inputs[:slot], editor.constant(name, values), *node.inputs[slot + 1 :]])
        changed = True
    if dict(node.attrs) != attrs:
        node.attrs.clear()
        node.attrs.update(attrs)
        changed = True
    report.rewrites += changed
    return None


def _cuts(node: gs.Node, maker: gs.Node) -> str | None:
    """What a Clip of integers cuts off, or None."""
    said = parameters(maker)
    if said is None:
        return "the type of its integers is not known"
    low, high = LEVELS[cast(IntType, said.dtype)]
    for slot, end in ((1, low), (2, high)):
        given = input_at(node, slot)
        value = end if given is None else scalar(given)
        if value is None:
            return "its bounds are computed"
        if (value > end) if end == low else (value < end):
            return f"it cuts the levels of {said.dtype} at {value:g}: ONNX Runtime runs it on the integers"
    return None
