"""One graph rewrite."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxq.ir import walk
from onnxq.pipeline.base import Context, Pass, Report


@dataclass(frozen=True, kw_only=True)
class MergeRelus(Pass):
    """Let a Relu behind a Relu read what the first one reads.

    Attributes:
        limit: rewrite at most so many; the others are refused.
    """

    limit: int = 1000

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place; the first Relu stays for its other readers."""
        report = Report()
        for _, inner in walk.graphs(graph):
            for node in inner.nodes:
                first = node.inputs[0].inputs[0] if node.op == "Relu" and node.inputs[0].inputs else None
                if first is None or first.op != "Relu":
                    continue
                if report.rewrites == self.limit:
                    report.refuse(node, f"the limit of {self.limit} is reached")
                    continue
                node.inputs[0] = first.inputs[0]
                report.rewrites += 1
        return report
