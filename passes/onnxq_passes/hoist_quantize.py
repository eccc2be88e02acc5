"""The earlier a tensor becomes 8-bit, the less memory moves: Q goes up through ops that only move numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.errors import ConfigError
from onnxq.optable import Op
from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq_passes import _moves
from onnxq_passes._edit import Editor, is_constant
from onnxq_passes._qdq import Parameters, dequantizer, is_q, parameters


@dataclass(frozen=True, kw_only=True)
class HoistQuantize(Pass):
    """Quantize in front of an op that moves data what is quantized behind it; bit for bit.

    1. x -> op -> Q becomes x -> Q -> DQ -> op -> Q (form `pair`, which ONNX Runtime and TensorRT read as an integer op)
       or x -> Q -> op (form `bare`). The op table says which ops move data.
    2. Chains move step by step, from the last op to the first. A fork is passed if every reader is a Q with the same
       parameters; a reader in float, an output of the graph, or another Q keeps it where it is.
    3. Every data input gets its Q; one that an equal DQ makes is left alone (`bare`: is read in integers); a
       constant is quantized at once. An input that another DQ makes stays: a requantization is nobody's gain (`pair`).
    4. A per-channel axis is carried to the other side where it arrives whole, blocks are not.
    5. `pair` wants parameters with Q(DQ(q)) == q; `bare` wants an opset whose op takes 8 bits, and puts Q of the
       number that Pad fills with.

    NaN in front of an op that compares (MaxPool, ReduceMax, TopK ...) may end up as another number.

    Attributes:
        form: `pair` or `bare`.
    """

    takes: ClassVar[Stage] = Stage.QDQ
    gives: ClassVar[Stage] = Stage.QDQ

    form: str = "pair"

    def __post_init__(self) -> None:
        if self.form not in _moves.FORMS:
            raise ConfigError(f'hoist-quantize: form "{self.form}" is unknown: give {" or ".join(_moves.FORMS)}')

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place, from the last op to the first."""
        report, editor = Report(), Editor(graph)
        for body in reversed(editor.bodies):
            for node in reversed(list(editor.live(body))):
                row = _moves.mover(node)
                if row is not None:
                    self._hoist(editor, node, row, report)
        editor.commit()
        return report

    def _hoist(self, editor: Editor, node: gs.Node, row: Op, report: Report) -> None:
        behind = [u for t in node.outputs for u in editor.uses(t) if is_q(u[0]) and u[1] == 0]
        if not behind:
            return
        like = min((n for n, _ in behind), key=lambda n: n.name)  # lists of readers have no fixed order
        plan = self._plan(editor, node, row, like)
        if isinstance(plan, str):
            report.refuse(node, plan)
            return
        said, front = plan
        slots = _moves.sources(node)
        numbers = _moves.scale_inputs(editor, like, said)
        work = [s for s in slots if self.form == "bare" or not _moves.dequantized_equal(editor, node.inputs[s], front)]
        if not work:
            return
        made: dict[int, gs.Tensor] = {}
        for slot in work:
            source = node.inputs[slot]
            if id(source) not in made:
                made[id(source)] = self._quantized(editor, node, source, front, numbers)
            editor.set_input(node, slot, made[id(source)])
        if self.form == "bare":
            _moves.fill_integer(editor, node, row, said)
            places = range(len(node.outputs)) if row.results is None else row.results
            for tensor in [node.outputs[p] for p in places]:
                for reader, _ in list(editor.uses(tensor)):
                    editor.bypass(reader)
            for tensor in [node.outputs[p] for p in places]:
                tensor.dtype = np.dtype(said.dtype)
        report.rewrites += 1

    def _quantized(
        self, editor: Editor, node: gs.Node, source: gs.Tensor, said: Parameters, numbers: list[gs.Tensor]
    ) -> gs.Tensor:
        equal = _moves.dequantized_equal(editor, source, said)
        if equal is not None and said.round_trips:
            return equal.inputs[0]  # form `bare`: see `work`
        if isinstance(source, gs.Constant):
            small: gs.Tensor = _moves.integers(editor, source, said)
        else:
            q = _moves.q_node(editor, source, said, numbers)
            editor.insert(q, before=node)
            small = q.outputs[0]
        if self.form == "bare":
            return small
        dq = _moves.dq_node(editor, small, said, numbers)
        editor.insert(dq, before=node)
        return dq.outputs[0]

    def _plan(self, editor: Editor, node: gs.Node, row: Op, like: gs.Node) -> tuple[Parameters, Parameters] | str:
        """What the Qs behind the op say and what those in front will say; or why it stays."""
        said = parameters(like)
        if said is None:
            return "the parameters of the Q behind it are not constant or not regular"
        outputs = _moves.results(editor, node, row)
        if isinstance(outputs, str):
            return outputs
        written = 0
        for tensor in outputs:
            if editor.is_output(tensor):
                return "its result is an output of the graph"
            for reader, slot in editor.uses(tensor):
                if not is_q(reader) or slot != 0:
                    return f"{reader.name} reads its result in float"
                if parameters(reader) != said:
                    return f"{reader.name} quantizes its result with other parameters"
                if self.form == "bare" and editor.body(reader) is not editor.body(node):
                    return f"{reader.name} stands in another body"
                written += editor.is_output(reader.outputs[0])
        if self.form == "bare" and written > 1:
            return "two outputs of the graph hold the integers"
        reason = _moves.obstacle(editor, node, row, said, self.form)
        if not reason and self.form == "bare":
            reason = _moves.fill_obstacle(node, row)
        if reason:
            return reason
        front = _moves.carried(node, said, back=True)
        if isinstance(front, str):
            return front
        for slot in _moves.sources(node):
            tensor = node.inputs[slot]
            if is_constant(tensor) and np.asarray(tensor.values).dtype != np.float32:
                return f"its input {slot} is not float32"
            before = dequantizer(editor, tensor)
            if self.form == "pair" and before is not None and before[1] != front:
                return "its input is dequantized with other parameters"
        return said, front
