"""The channels between two linear ops share one scale, those of the weights behind them, too, along each column: where
some are a hundred times others, the small ones are rounded away. Which of the two layers holds a factor is arbitrary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.pipeline.base import Context, Pass, Report
from onnxq.repair.scales import ENOUGH
from onnxq_passes._edit import Editor
from onnxq_passes._linear import LINEAR, Vector
from onnxq_passes._scaling import NOT_FINITE, Link, Scaled, links

ROUNDS = 500
SETTLED = ENOUGH / 10
"""Relative change of all scales at which a chain has converged: well below what starts it, so that a second run finds
nothing to do."""


@dataclass(frozen=True, kw_only=True)
class EqualizeLayers(Pass):
    """Scale the channels between linear ops so that both sides use the same ranges; exact up to float rounding.

    Cross-layer equalization (Nagel et al. 2019, arXiv 1906.04721): channel i of what the first op gives is divided by
    s_i = sqrt(r1_i / r2_i), the weights that the second op multiplies it with are multiplied by it.

    1. Conv, ConvTranspose, Gemm or MatMul with constant weight and bias (an Add), whose result only such ops read.
    2. In between Relu, LeakyRelu, PRelu, pools. Clip and other functions f with f(c x) != c f(x) are refused.
    3. r1_i is the greatest weight of output channel i of the first op, r2_i that of input channel i of the second ones.
       Where one of them is 0, s is 1.
    4. Chains (a depthwise Conv in the middle) go on until no scale moves. Changes below 1 % are not made.
    5. Refused: shared weights, other readers, weights that would not be finite.

    Where weights have a scale per output channel, those of the first op gain nothing: what gains is the tensor in
    between, which has one scale for all channels, and the input channels of the second op, which share one.
    """

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""
        report, editor = Report(), Editor(graph)
        found: list[tuple[gs.Node, Link]] = []
        for link in links(editor, LINEAR):
            if not isinstance(link, Link):
                report.refuse(*link)
            elif isinstance(link.source, str) or link.elsewhere:
                report.refuse(link.products[0], link.obstacle)
            elif not link.source.linear:
                report.refuse(link.products[0], f"{link.source.root.op} in front is no linear op")
            else:
                found.append((link.source.root, link))
        for (_, link), s in zip(found, _solve(found), strict=True):
            if (np.abs(s - 1) > ENOUGH).any():
                scaled = Scaled()
                scaled.divide(link, s)
                scaled.multiply(link, s)
                if scaled.write(editor):
                    report.rewrites += 1
                else:
                    report.refuse(link.products[0], NOT_FINITE)
        editor.commit()
        return report


class _Layer:
    """How large the weights of a linear op are, and by what its channels have been scaled so far.

    Attributes:
        amax: greatest absolute value over the positions of a kernel, [groups, outputs of a group, inputs of a group].
        given, made: factor of each input and output channel.
    """

    def __init__(self, node: gs.Node) -> None:
        w = np.asarray(node.inputs[1].values, np.float64)
        groups = int(node.attrs.get("group", 1))
        if node.op == "Conv":
            split = w.reshape(groups, w.shape[0] // groups, w.shape[1], -1)
        elif node.op == "ConvTranspose":
            split = w.reshape(groups, w.shape[0] // groups, w.shape[1], -1).swapaxes(1, 2)
        else:
            split = (w if node.attrs.get("transB") else w.T)[None, :, :, None]
        self.amax = np.abs(split).max(axis=-1, initial=0)
        count, outputs, inputs = self.amax.shape
        self.given, self.made = np.ones((count, 1, inputs)), np.ones((count, outputs, 1))

    def outputs(self) -> Vector:
        return np.asarray((self.amax * self.given).max(axis=2, initial=0) * self.made[..., 0]).reshape(-1)

    def inputs(self) -> Vector:
        return np.asarray((self.amax * self.made).max(axis=1, initial=0) * self.given[:, 0]).reshape(-1)


def _solve(found: Sequence[tuple[gs.Node, Link]]) -> list[NDArray[np.float64]]:
    """The factors of each (first op, link), all links together."""
    layers = {id(n): _Layer(n) for root, link in found for n in (root, *link.products)}
    total = [np.ones(link.size) for _, link in found]
    for _ in range(ROUNDS):
        moved = 0.0
        for number, (root, link) in enumerate(found):
            first, readers = layers[id(root)], [layers[id(n)] for n in link.products]
            r1, r2 = first.outputs(), np.max([layer.inputs() for layer in readers], axis=0)
            s = np.sqrt(np.divide(r1, r2, out=np.ones(link.size), where=(r1 > 0) & (r2 > 0)))
            moved = max(moved, float(np.abs(s - 1).max(initial=0)))
            total[number] *= s
            first.made /= s.reshape(first.made.shape)
            for layer in readers:
                layer.given *= s.reshape(layer.given.shape)
        if moved < SETTLED:
            break
    return total
