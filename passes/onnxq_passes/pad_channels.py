"""Float convolutions work on blocks of 16 (or 8) channels; where there are 88, the layout is undone around many ops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_graphsurgeon as gs

from onnxq.pipeline.base import QUANTIZED, Context, Pass, Report, Stage
from onnxq_passes._channels import Channels
from onnxq_passes._edit import Editor


@dataclass(frozen=True, kw_only=True)
class PadChannels(Pass):
    """Give Convs output channels of zeros, up to a multiple; exact up to the order of float sums.

    1. Tensors that hang together by activations, pools, depthwise Convs and by Add, Sub and Mul with each other have
       one number of channels. The Convs that make them get more output channels, with weights and biases of 0, the
       Convs that read them more input channels, with weights of 0: what activations make of a 0 counts for nothing.
    2. Refused: what reaches a graph output, a body, an op of another type, a constant with several elements, a Conv in
       groups, or a Conv whose weights are no constants.
    3. With a plan, only if it asks for it; then its multiple counts.

    ONNX Runtime's blocked layout (NCHWc) has 16 channels to a block with AVX-512, else 8. Placement by cost tries this.

    Attributes:
        multiple: of the number of channels.
    """

    multiple: int = 16

    takes: ClassVar[Stage] = Stage.FLOAT
    also_takes: ClassVar[tuple[Stage, ...]] = QUANTIZED
    gives: ClassVar[Stage] = Stage.FLOAT

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""
        report = Report()
        multiple = self.multiple if context.plan is None else context.plan.channel_multiple
        if multiple > 1:
            editor = Editor(graph)
            channels, sizes = Channels(graph, editor), dict[int, int]()
            for group in channels.groups:
                if not group.makers or all(count % multiple == 0 for count, _ in group.channels):
                    continue
                if group.reason:
                    report.refuse(group.makers[0], group.reason)
                else:
                    sizes[id(group)] = -group.count % multiple
            report.rewrites = channels.fill(sizes)
            editor.commit()
        return report
