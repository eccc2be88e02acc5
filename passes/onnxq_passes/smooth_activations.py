"""The outputs of normalizations have channels of very different ranges, and one scale for all of them: outliers cost
the others their bits. Scales that move into the weights, where there is one scale per column, cost much less.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.errors import ConfigError, PassError
from onnxq.pipeline.base import Context, Pass, Report
from onnxq.repair.scales import Site, migration, moves, rows
from onnxq_passes._edit import Editor
from onnxq_passes._linear import Vector
from onnxq_passes._scaling import NORMS, NOT_FINITE, Link, Scaled, links

PRODUCTS = ("MatMul", "Gemm")
BRANCHES = ("refuse", "mul")
SIGMAS = 4.0
"""Standard deviations that a normalized value is taken to reach where no samples tell."""


@dataclass(frozen=True, kw_only=True)
class SmoothActivations(Pass):
    """Move ranges of activations into weights: X W = (X / s) (s W). Exact up to float rounding.

    s = max|X|^alpha / max|W|^(1 - alpha) per channel (SmoothQuant).

    1. LayerNormalization, RMSNormalization and their Skip forms (scale and shift are divided by s), in front of one or
       several MatMul and Gemm with constant weights (their rows are multiplied). Without samples the range of a
       channel is taken to be 4 |scale| + |shift|.
    2. With given `scales` also behind a Mul by constants or a linear op, with Add of constants, Relu, LeakyRelu and
       PRelu in between.
    3. A tensor that is read elsewhere, too, or that another op makes (Gelu), is refused; with `branches: mul` a Mul
       by 1/s goes in front of the products, which costs its time in each run.
    4. Refused: shared weights, weights that would not be finite.

    Attributes:
        alpha: 0 to 1; how much of the activations' range is moved.
        branches: `refuse` or `mul`, see 3.
        scales: tensor -> s of its channels, from `onnxq.repair.smooth`; only these tensors are smoothed then. Not for
            pipeline files.

    Raises:
        ConfigError: a setting is none of these.
    """

    alpha: float = 0.5
    branches: Literal["refuse", "mul"] = "refuse"
    scales: Mapping[str, NDArray[np.float64]] | None = field(default=None, metadata={"yaml": False})

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"smooth-activations: alpha must be 0 to 1, not {self.alpha}")
        if self.branches not in BRANCHES:
            raise ConfigError(f'smooth-activations: branches must be {" or ".join(BRANCHES)}, not "{self.branches}"')

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""
        report, editor = Report(), Editor(graph)
        given = dict(self.scales or {})
        for link in self._links(editor, report):
            s = self._scale(link) if self.scales is None else given.pop(link.tensor.name, None)
            if isinstance(s, str):
                report.refuse(link.products[0], s)
            elif s is not None and moves(s):
                _apply(link, s, editor, report)
        if given:
            raise PassError(f"smooth-activations has scales for {sorted(given)[0]}, which is no site of this graph")
        editor.commit()
        return report

    def sites(self, graph: gs.Graph) -> tuple[Site, ...]:
        """Where `scales` may be given, those in bodies of If, Loop and Scan left out."""
        editor, report = Editor(graph), Report()
        return tuple(
            Site(
                tensor=link.tensor.name,
                source=maker.name if isinstance(link.source, str) else link.source.root.name,
                products=tuple(n.name for n in link.products),
                weights=tuple(_matrix(n) for n in link.products),
                branch=bool(link.obstacle),
            )
            for link in self._links(editor, report)
            if (maker := editor.producer(link.tensor)) is not None and editor.body(maker) is graph
        )

    def _links(self, editor: Editor, report: Report) -> Iterator[Link]:
        for found in list(links(editor, PRODUCTS)):
            if not isinstance(found, Link):
                report.refuse(*found)
            elif found.obstacle and self.branches == "refuse":
                report.refuse(found.products[0], found.obstacle)
            else:
                yield found

    def _scale(self, link: Link) -> Vector | str:
        if isinstance(link.source, str) or (root := link.source.root).op not in NORMS:
            return "what range the channels of its input have is only known from samples"
        gamma, *beta = (np.abs(n.inputs[s].values) for n, s in link.source.constants if n is root)
        reach = SIGMAS * gamma + (beta[0] if beta else 0)
        return migration(reach, rows([_matrix(n) for n in link.products]), self.alpha)


def _matrix(node: gs.Node) -> NDArray[np.float64]:
    """The weight of a product, [K, N]."""
    w = np.asarray(node.inputs[1].values)
    return w.T if node.attrs.get("transB") else w


def _apply(link: Link, s: Vector, editor: Editor, report: Report) -> None:
    scaled = Scaled()
    scaled.multiply(link, s)
    if not link.obstacle:
        scaled.divide(link, s)
    if not scaled.write(editor):
        report.refuse(link.products[0], NOT_FINITE)
        return
    maker = editor.producer(link.tensor)
    if link.obstacle and maker is not None:
        divided = editor.variable(f"{link.tensor.name}_smoothed", link.tensor)
        factor = editor.constant(f"{link.tensor.name}_factor", (1 / s).astype(link.products[0].inputs[1].values.dtype))
        mul = editor.node("Mul", [link.tensor, factor], [divided], name=f"{maker.name}_smooth")
        editor.insert(mul, after=maker)
        report.renamed[mul.name] = maker.name
        for node in link.products:
            editor.set_input(node, 0, divided)
    report.rewrites += 1
