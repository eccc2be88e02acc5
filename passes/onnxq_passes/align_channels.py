"""Integer convolutions are slow where channels do not come in fours, depthwise ones where they do not in sixteens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.optable import ALIGNED
from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq_passes._channels import Channels, Group, drop, integer_conv
from onnxq_passes._edit import Editor
from onnxq_passes._qdq import dequantizer

_FOUR = 4
_EIGHT = 8
_SIXTEEN = 16
_PAD = 13


@dataclass(frozen=True, kw_only=True)
class AlignChannels(Pass):
    """Give integer Convs channels of zeros, up to the numbers that fast kernels want.

    1. A Conv between DQ and Q, of 8 bits, in one group, has numbers of input and output channels that 4 divides; else
       they are filled up, to a multiple of 4 up to 4, of 8 beyond. A depthwise one has a multiple of 16.
    2. Tensors that hang together have one number of channels, as in `pad-channels`; here they do so behind Q and DQ
       with one scale, too. Weights and biases of the new channels are 0.
    3. Where channels cannot become more, a Pad of the integers goes in front of a Conv in one group that reads them: of
       a picture with three channels. Its name is that of the Conv with `_aligned`.
    4. Refused: output channels that cannot become more (the reasons of `pad-channels`), a depthwise Conv of those.

    ONNX Runtime's kernels without a copy of the input (MLAS, ConvSym) and its fast depthwise kernel ask for that on
    x86-64; all else goes through a matrix of copied pixels, or channel by channel.
    """

    takes: ClassVar[Stage] = Stage.QDQ
    also_takes: ClassVar[tuple[Stage, ...]] = (Stage.PLACED,)
    gives: ClassVar[Stage] = Stage.QDQ
    exact: ClassVar[bool] = False

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""
        report, editor = Report(), Editor(graph)
        channels = Channels(graph, editor, quantized=True)
        sizes, wider = dict[int, int](), dict[int, int]()
        padded: dict[object, gs.Tensor] = {}
        for group in channels.groups:
            found = _Found(group, channels, editor)
            if not found.missing:
                continue
            if group.makers and not group.reason:
                sizes[id(group)] = found.missing
                continue
            if found.makers:
                report.refuse(found.makers[0], group.reason)
            for conv in found.readers:
                shape = channels.filters[id(conv)].values.shape
                more = -shape[1] % _FOUR
                if more and graph.opset < _PAD:
                    report.refuse(conv, f"Pad takes 8 bits and computed amounts from opset {_PAD} on")
                elif more:
                    _lead(conv, shape, more, padded, editor)
                    wider[id(conv)] = more
        report.rewrites = channels.fill(sizes, wider)
        editor.commit()
        return report


class _Found:
    """The integer Convs of a group that want more channels.

    Attributes:
        missing: how many.
        makers: Convs whose output they are, depthwise ones among them.
        readers: Convs in one group that read them.
    """

    def __init__(self, group: Group, channels: Channels, editor: Editor) -> None:
        count = group.count
        deep = [n for n in group.makers if channels.filters[id(n)].depthwise and integer_conv(n, editor)]
        self.makers: list[gs.Node] = []
        self.readers: list[gs.Node] = []
        self.missing = 0
        if deep and count % _SIXTEEN:
            self.makers, self.missing = deep, -count % _SIXTEEN
        if count % _FOUR:
            both = {id(n): n for n in (*group.makers, *group.readers)}.values()  # a gate of channels is in one group
            whole = [n for n in both if channels.filters[id(n)].groups == 1 and integer_conv(n, editor)]
            self.makers = [*self.makers, *(n for n in whole if any(n is m for m in group.makers))]
            self.readers = [n for n in whole if any(n is r for r in group.readers)]
            if whole and not self.missing:
                self.missing = -count % (_FOUR if count <= _FOUR else _EIGHT)


def _lead(conv: gs.Node, shape: tuple[int, ...], more: int, padded: dict[object, gs.Tensor], editor: Editor) -> None:
    """Let a Conv with weights of this shape read its input behind a Pad of `more` channels."""
    made = dequantizer(editor, conv.inputs[0])
    assert made is not None
    maker, said = made
    source = maker.inputs[0]
    key = id(source), said.key
    if key not in padded:
        rank = len(shape)
        name = f"{conv.name}{ALIGNED}"
        amounts = np.zeros(2 * rank, np.int64)
        amounts[rank + 1] = more
        fills = [editor.constant(f"{name}_pads", amounts), editor.constant(f"{name}_fill", said.zero_point)]
        outputs = [editor.variable(f"{tensor.name}{ALIGNED}", tensor) for tensor in (source, conv.inputs[0])]
        for tensor in outputs:
            if tensor.shape is not None:
                tensor.shape = [tensor.shape[0], shape[1] + more, *tensor.shape[2:]]
        editor.insert(editor.node("Pad", [source, *fills], outputs[:1], name=name), before=conv)
        twin = editor.node(
            maker.op, [outputs[0], *maker.inputs[1:]], outputs[1:], name=f"{name}_dequantized", attrs=dict(maker.attrs)
        )
        editor.insert(twin, before=conv)
        padded[key] = outputs[1]
    before = conv.inputs[0]
    editor.set_input(conv, 0, padded[key])
    drop(editor, before)
