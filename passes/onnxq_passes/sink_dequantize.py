"""The later a tensor becomes float again, the less memory moves: DQ goes down through ops that only move numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.errors import ConfigError
from onnxq.optable import Op
from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq_passes import _moves
from onnxq_passes._edit import Editor
from onnxq_passes._qdq import Parameters, dequantizer, is_q, parameters


@dataclass(frozen=True, kw_only=True)
class SinkDequantize(Pass):
    """Dequantize behind an op that moves data what is dequantized in front of it; bit for bit.

    1. DQ -> op becomes DQ -> op -> Q -> DQ (form `pair`, which ONNX Runtime and TensorRT read as an integer op) or
       op -> DQ (form `bare`). The op table says which ops move data.
    2. Chains move step by step, from the first op to the last. A DQ with several readers stays for the others. An
       output of the graph keeps its name and type.
    3. Ops with several inputs (Concat, Where, Max) want DQs with equal parameters on all of them; a constant goes
       along if it lies on the grid, bit by bit.
    4. A Q behind the op with the same parameters reads the op itself; one with other parameters keeps it where it is
       (`pair`), since a double pair with two scales is merged wrongly by ONNX Runtime.
    5. A per-channel axis is carried to the other side where it arrives whole, blocks are not.
    6. `pair` wants parameters with Q(DQ(q)) == q; `bare` wants an opset whose op takes 8 bits, and puts the integer
       of the number that Pad fills with.

    Attributes:
        form: `pair` or `bare`.
    """

    takes: ClassVar[Stage] = Stage.QDQ
    gives: ClassVar[Stage] = Stage.QDQ

    form: str = "pair"

    def __post_init__(self) -> None:
        if self.form not in _moves.FORMS:
            raise ConfigError(f'sink-dequantize: form "{self.form}" is unknown: give {" or ".join(_moves.FORMS)}')

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place, from the first op to the last."""
        report, editor = Report(), Editor(graph)
        for body in editor.bodies:
            for node in editor.live(body):
                row = _moves.mover(node)
                if row is not None:
                    self._sink(editor, node, row, report)
        editor.commit()
        return report

    def _sink(self, editor: Editor, node: gs.Node, row: Op, report: Report) -> None:
        slots = _moves.sources(node)
        found = [dequantizer(editor, node.inputs[s]) for s in slots]
        first = next((f for f in found if f is not None), None)
        if first is None:
            return
        plan = self._plan(editor, node, row, *first)
        if isinstance(plan, str):
            report.refuse(node, plan)
            return
        outputs, behind = plan
        if not outputs:
            return
        dq, said = first
        numbers = _moves.scale_inputs(editor, dq, said)
        if self.form == "bare":
            for slot in slots:
                self._read_integers(editor, node, slot, said)
            _moves.fill_integer(editor, node, row, said)
        for tensor in outputs:
            self._dequantize(editor, node, tensor, behind, numbers)
        report.rewrites += 1

    def _read_integers(self, editor: Editor, node: gs.Node, slot: int, said: Parameters) -> None:
        tensor = node.inputs[slot]
        if isinstance(tensor, gs.Constant):
            editor.set_input(node, slot, _moves.integers(editor, tensor, said))
            return
        dq = editor.producer(tensor)
        assert dq is not None
        editor.set_input(node, slot, dq.inputs[0])
        if editor.private(tensor, ()):
            editor.remove(dq)

    def _dequantize(
        self, editor: Editor, node: gs.Node, tensor: gs.Tensor, said: Parameters, numbers: list[gs.Tensor]
    ) -> None:
        slot = next(i for i, t in enumerate(node.outputs) if t is tensor)
        inside = editor.variable(f"{tensor.name}_{'quantized' if self.form == 'bare' else 'float'}", tensor)
        if self.form == "bare":
            inside.dtype = np.dtype(said.dtype)
            editor.set_output(node, slot, inside)
            editor.insert(_moves.dq_node(editor, inside, said, numbers, into=tensor), after=node)
            return
        readers = [(n, s) for n, s in editor.uses(tensor) if not _stays(n, s, said)]
        if editor.is_output(tensor):
            editor.set_output(node, slot, inside)
            for reader, place in list(editor.uses(tensor)):
                if _stays(reader, place, said):
                    editor.set_input(reader, place, inside)
            source, into = inside, tensor
        else:
            source, into = tensor, None
        q = _moves.q_node(editor, source, said, numbers)
        dq = _moves.dq_node(editor, q.outputs[0], said, numbers, into=into)
        editor.insert(q, after=node)
        editor.insert(dq, after=node)
        for reader, place in readers:
            editor.set_input(reader, place, dq.outputs[0])

    def _plan(
        self, editor: Editor, node: gs.Node, row: Op, dq: gs.Node, said: Parameters
    ) -> tuple[list[gs.Tensor], Parameters] | str:
        """The outputs that get a DQ, and what it says; or why there is none."""
        outputs = _moves.results(editor, node, row)
        if isinstance(outputs, str):
            return outputs
        for slot in _moves.sources(node):
            tensor = node.inputs[slot]
            if isinstance(tensor, gs.Constant):
                if not _moves.on_grid(tensor, said):
                    return f"its constant input {slot} is not on the grid of the integers"
            elif (other := dequantizer(editor, tensor)) is None:
                return f"its input {slot} is not dequantized"
            elif other[1] != said:
                return "its inputs are dequantized with different parameters"
        reason = _moves.obstacle(editor, node, row, said, self.form) or _moves.fill_obstacle(node, row, said)
        if reason:
            return reason
        behind = _moves.carried(node, said)
        if isinstance(behind, str):
            return behind
        if self.form == "bare":
            return outputs, behind
        wanted = []
        for tensor in outputs:
            stay = [_stays(n, s, behind) for n, s in editor.uses(tensor)]
            foreign = next((n for n, s in editor.uses(tensor) if is_q(n) and s == 0 and parameters(n) != behind), None)
            if foreign is not None:
                return f"{foreign.name} quantizes its result with other parameters"
            if editor.is_output(tensor) or not all(stay):
                wanted.append(tensor)
        return wanted, behind


def _stays(reader: gs.Node, slot: int, said: Parameters) -> bool:
    """True for a Q with the same parameters: it reads the op itself."""
    return is_q(reader) and slot == 0 and parameters(reader) == said
