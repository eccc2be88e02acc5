"""Between integer convolutions channels come last, and there ONNX Runtime's Resize goes element by element."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.ir.walk import constant_array
from onnxq.optable import MOVES
from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq_passes._channels import drop
from onnxq_passes._edit import Editor, input_at
from onnxq_passes._qdq import dequantizer, is_q, parameters

_LAST, _FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
"""Channels from axis 1 to the end, and back."""

_ROWS, _COLUMNS = 1, 2
"""Axes of a picture whose channels come last."""


@dataclass(frozen=True, kw_only=True)
class GatherResize(Pass):
    """Write DQ -> Resize to whole multiples, of nearest neighbours -> Q as two Gathers of whole pixels' integers.

    1. Both Q/DQ say the same, one scale of 8 bits; the data has four dimensions whose last two are known; height and
       width grow to whole multiples, each element becoming a block; then a Transpose moves the channels to the end,
       one Gather repeats columns, one rows, and a Transpose moves the channels back: bit for bit the same.
    2. Refused: a Resize between such Q/DQ that computes values, shrinks, or rounds so that blocks are of unequal size;
       a picture whose height and width are not known.

    ONNX Runtime's integer convolutions have the channels last, so the Transposes meet their like and vanish; a Resize
    there takes nine times as long as the Gathers.
    """

    takes: ClassVar[Stage] = Stage.QDQ
    also_takes: ClassVar[tuple[Stage, ...]] = (Stage.PLACED,)
    gives: ClassVar[Stage] = Stage.QDQ

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""
        report, editor = Report(), Editor(graph)
        for node in editor.live(ops=["Resize"]):
            made, use = dequantizer(editor, node.inputs[0]), editor.only_use(node.outputs[0])
            if made is None or use is None or not is_q(use[0]):
                continue
            said = made[1]
            if parameters(use[0]) != said or not said.one_byte_scale:
                continue
            if not said.round_trips:
                report.refuse(node, "its scale is at the end of float32, where Q(DQ(q)) is not q")
                continue
            factors = _factors(node)
            if isinstance(factors, str):
                report.refuse(node, factors)
                continue
            _gather(node, made[0], use[0], factors, editor)
            report.rewrites += 1
        editor.commit()
        return report


def _gather(node: gs.Node, before: gs.Node, behind: gs.Node, factors: tuple[int, int], editor: Editor) -> None:
    integers = before.inputs[0]

    def put(op: str, inputs: list[gs.Tensor], sizes: list[object], **attrs: object) -> gs.Node:
        output = editor.variable(f"{node.outputs[0].name}_{op.lower()}", integers)
        output.shape = sizes
        new = editor.node(op, inputs, [output], name=f"{node.name}{MOVES}", attrs=attrs)
        editor.insert(new, before=behind)
        return new

    sizes: list[Any] = [node.inputs[0].shape[axis] for axis in _LAST]
    made = put("Transpose", [integers], list(sizes), perm=_LAST)
    for axis, factor in ((_COLUMNS, factors[1]), (_ROWS, factors[0])):
        if factor == 1:
            continue
        places = editor.constant(f"{node.name}_indices", np.repeat(np.arange(sizes[axis]), factor))
        sizes[axis] *= factor
        made = put("Gather", [made.outputs[0], places], list(sizes), axis=axis)
    editor.remove(node)
    made.name = node.name  # that of a node that is gone: plans, costs and reports speak of it
    editor.remove(behind)
    back = editor.node(
        "Transpose", made.outputs, [behind.outputs[0]], name=f"{node.name}{MOVES}", attrs={"perm": _FIRST}
    )
    editor.insert(back, before=behind)
    drop(editor, node.inputs[0])


def _factors(node: gs.Node) -> tuple[int, int] | str:
    """How often each row and each column is repeated, or why there are no such numbers."""
    if node.attrs.get("mode", "nearest") != "nearest":
        return "it computes new values"
    shape = node.inputs[0].shape
    if shape is None or len(shape) != 4 or not all(isinstance(size, int) and size for size in shape[2:]):
        return "its data is no picture of known height and width"
    if node.attrs.get("axes") is not None or node.attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        return "its scales or sizes are for some axes, or only bounds"
    scales = _scales(node, shape)
    if scales is None:
        return "how much it grows is computed at run time, or no whole number, or batch or channels grow"
    if scales == (1, 1):
        return "it does not grow"
    if not all(_blocks(node, scale) for scale in scales):
        return "its elements do not become blocks of one size"
    return scales


def _scales(node: gs.Node, shape: Sequence[Any]) -> tuple[int, int] | None:
    scales, sizes = (input_at(node, slot) for slot in (2, 3))
    given = constant_array(scales) if scales is not None else None
    if given is None or not given.size:
        asked = constant_array(sizes) if sizes is not None else None
        if asked is None or asked.size != len(shape) or not all(isinstance(size, int) for size in shape):
            return None
        given = asked / np.asarray(shape)
    if given.size != len(shape):
        return None
    whole = [int(g) for g in given]
    if any(w != g or w < 1 for w, g in zip(whole, given, strict=True)) or whole[:2] != [1, 1]:
        return None
    return whole[2], whole[3]


def _blocks(node: gs.Node, scale: int) -> bool:
    """Does each element become `scale` equal ones? By the formulas of Resize in the ONNX specification."""
    mode = node.attrs.get("coordinate_transformation_mode", "half_pixel")
    rounding = node.attrs.get("nearest_mode", "round_prefer_floor")
    out = np.arange(8 * scale)
    if mode == "asymmetric":
        place = out / scale
    elif mode in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric"):
        place = (out + 0.5) / scale - 0.5
    else:
        return False
    low, high = np.ceil(place - 0.5), np.floor(place + 0.5)
    rounded = {
        "floor": np.floor(place),
        "ceil": np.ceil(place),
        "round_prefer_floor": low,
        "round_prefer_ceil": high,
    }[rounding]
    return np.array_equal(rounded, out // scale)
