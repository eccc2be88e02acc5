"""A SpaceToDepth in front of integer convolutions moves floats one by one; bytes can go in whole rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.optable import MOVES
from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq_passes._channels import store, stored
from onnxq_passes._edit import Editor
from onnxq_passes._qdq import is_q, parameters


@dataclass(frozen=True, kw_only=True)
class SplitSpaceToDepth(Pass):
    """Write SpaceToDepth -> Q -> DQ -> Conv as Q, Transposes of whole rows and of channels to the end, DQ, Conv.

    1. With channels last, b neighbours in a row are b times as many channels as they stand: only the rows of a block
       have to become channels. The Transpose back meets the one of ONNX Runtime's integer convolution and vanishes.
    2. Channels come in another order then: column, row, channel instead of row, column, channel. The weights of the
       Convs follow.
    3. Refused: a picture of unknown size; other readers than Q with one scale of 8 bits, and behind it DQ and Convs in
       one group with constant weights.

    The integers are the same; the sums of the Convs are, too, in integer kernels. YOLOX and early YOLOv5 begin so.
    """

    takes: ClassVar[Stage] = Stage.QDQ
    also_takes: ClassVar[tuple[Stage, ...]] = (Stage.PLACED,)
    gives: ClassVar[Stage] = Stage.QDQ
    exact: ClassVar[bool] = False

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""
        report, editor = Report(), Editor(graph)
        for node in editor.live(ops=["SpaceToDepth"]):
            use = editor.only_use(node.outputs[0])
            if use is None or not is_q(use[0]):
                continue
            report.tell(node, _split(node, use[0], editor))
        editor.commit()
        return report


def _split(node: gs.Node, behind: gs.Node, editor: Editor) -> str:
    """Rewrite, or say why not."""
    said, picture = parameters(behind), node.inputs[0]
    if said is None or not said.one_byte_scale:
        return "its result has no single scale of 8 bits"
    shape = picture.shape
    if shape is None or len(shape) != 4 or not all(isinstance(size, int) for size in shape[1:]):
        return "its data is no picture of known size"
    convs = _convs(behind.outputs[0], editor)
    if convs is None:
        return "its result is also read by others than Convs in one group with constant weights"
    batch, (channels, rows, columns) = shape[0], (int(size) for size in shape[1:])
    block = int(node.attrs["blocksize"])
    high, deep = rows // block, block * channels
    pixels = [high, columns // block, block * deep]
    levels = editor.variable(f"{picture.name}_levels", behind.outputs[0])
    levels.shape = [batch, channels, rows, columns]
    editor.remove(node)
    editor.remove(behind)
    numbers, attrs = behind.inputs[1:], dict(behind.attrs)
    quantize = editor.node(behind.op, [picture, *numbers], [levels], name=f"{node.name}{MOVES}", attrs=attrs)
    editor.insert(quantize, before=behind)
    steps: list[tuple[str, list[int]]] = [
        ("Reshape", [channels, high, block, columns]),
        ("Transpose", [0, 3, 1, 2, 4]),  # rows of a block become channels
        ("Reshape", [deep, high, columns]),
        ("Transpose", [0, 2, 3, 1]),
        ("Reshape", pixels),  # and so do columns, as they stand
        ("Transpose", [0, 3, 1, 2]),
    ]
    source = levels
    for number, (op, axes) in enumerate(steps):
        inputs = [source]
        if op == "Reshape":
            inputs.append(editor.constant(f"{node.name}_shape", np.asarray([0, *axes])))
        source = behind.outputs[0]
        if number < len(steps) - 1:
            source = editor.variable(f"{node.outputs[0].name}_{op.lower()}", behind.outputs[0])
            source.shape = None
        how = {"perm": axes} if op == "Transpose" else {}
        new = editor.node(op, inputs, [source], name=f"{node.name}{MOVES}", attrs=how)
        editor.insert(new, before=behind)
        if number == 1:
            new.name = node.name  # that of a node that is gone: plans, costs and reports speak of it
    for conv in convs:
        weights = np.asarray(stored(editor, conv.inputs[1]))
        parts = weights.reshape(len(weights), block, block, channels, *weights.shape[2:])
        store(editor, conv, 1, np.swapaxes(parts, 1, 2).reshape(weights.shape), "by_columns")
    return ""


def _convs(tensor: gs.Tensor, editor: Editor) -> list[gs.Node] | None:
    """All that read the integers, behind a DQ; None if it is anything else than Convs in one group."""
    found: list[gs.Node] = []
    if editor.is_output(tensor):
        return None
    for maker, _ in editor.uses(tensor):
        said = parameters(maker)
        if said is None or said.axis is not None or editor.is_output(maker.outputs[0]):
            return None
        for conv, slot in editor.uses(maker.outputs[0]):
            one = conv.op == "Conv" and slot == 0 and int(conv.attrs.get("group", 1)) == 1
            if not one or stored(editor, conv.inputs[1]) is None:
                return None
            found.append(conv)
    return found
