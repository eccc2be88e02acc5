"""What the passes share that give ops weights in integers and leave float around them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.encoding import Kind
from onnxq.pipeline.base import Context, Report
from onnxq.plan.kinds import OPS, refusal
from onnxq.plan.reasons import matches
from onnxq_passes._edit import Editor, input_at, standard

MICROSOFT = "com.microsoft"


@dataclass
class Kinds:
    """The edits and the report of one pass."""

    graph: gs.Graph
    context: Context
    report: Report = field(default_factory=Report)
    _made: dict[object, list[gs.Constant]] = field(default_factory=dict)
    editor: Editor = field(init=False)

    def __post_init__(self) -> None:
        self.editor = Editor(self.graph)

    def chosen(self, wanted: Kind, kinds: tuple[Kind, ...]) -> list[tuple[gs.Node, Kind]]:
        """The nodes that get a kind, looked up before anything is edited.

        Args:
            wanted: for every node that can have it, if there is no plan.
            kinds: that the pass writes: with a plan, the nodes to which it gives one of them.
        """
        plan = self.context.plan
        found: list[tuple[gs.Node, Kind]] = []
        for node in self.editor.live(ops=OPS[wanted]):
            kind = wanted if plan is None else plan.kinds.get(node.name)
            if kind is None or kind not in kinds:
                continue
            pattern = matches(node, self.context.keep_float)
            reason = refusal(node, kind) if pattern is None else f'kept float by the pattern "{pattern}"'
            if reason:
                self.report.refuse(node, reason)
            else:
                found.append((node, kind))
        return found

    def constants(self, key: object, make: Callable[[], list[tuple[str, NDArray[Any]]]]) -> list[gs.Constant]:
        """Constants by what they were made of: nodes that share a weight share its integers."""
        if key not in self._made:
            self._made[key] = [self.editor.constant(name, values) for name, values in make()]
        return self._made[key]

    def bias(self, node: gs.Node, columns: int) -> tuple[gs.Tensor | None, gs.Node]:
        """The bias of a Gemm or of the Add of a constant vector behind a MatMul, and the last node of both."""
        if node.op == "Gemm":
            bias = input_at(node, 2)
            return (self._vector(bias) if isinstance(bias, gs.Constant) else None), node
        use = self.editor.only_use(node.outputs[0])
        if use is None or use[0].op != "Add" or not standard(use[0]):
            return None, node
        other = use[0].inputs[1 - use[1]]
        if not isinstance(other, gs.Constant) or tuple(other.shape) != (columns,):
            return None, node
        return (other, use[0]) if self.editor.body(use[0]) is self.editor.body(node) else (None, node)

    def _vector(self, bias: gs.Constant) -> gs.Constant:
        values = np.asarray(bias.values)
        return bias if values.ndim == 1 else self.editor.constant(f"{bias.name}_vector", values.reshape(-1))

    def exchange(
        self, node: gs.Node, last: gs.Node, op: str, inputs: list[gs.Tensor], attrs: dict[str, Any] | None = None
    ) -> None:
        """Put an op of com.microsoft, under the name of `node`, in the place of `node` up to `last`."""
        results = list(last.outputs)
        if last is not node:
            self.editor.remove(last)
        self.editor.remove(node)
        new = self.editor.node(op, inputs, results, name=f"{node.name}_{op}", attrs=attrs, domain=MICROSOFT)
        self.editor.insert(new, before=last)
        new.name = node.name  # that of a node that is gone: plans, costs and reports speak of it
        self.report.rewrites += 1

    def done(self) -> Report:
        """Make the edits real."""
        self.editor.commit()
        return self.report
