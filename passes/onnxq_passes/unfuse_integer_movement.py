"""An op that moves integers hides where Q and DQ would go: it is put between a DQ and a Q, where passes expect it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.numerics import dequantize
from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq_passes import _moves
from onnxq_passes._edit import Editor, input_at
from onnxq_passes._qdq import Parameters, is_dq, is_q, parameters
from onnxq_passes._unfuse import CannotUnfuseError, Unfusing


@dataclass(frozen=True, kw_only=True)
class UnfuseIntegerMovement(Pass):
    """Make DequantizeLinear -> op -> QuantizeLinear of ops that move integers; bit for bit.

    1. The op table says which ops move data. What the integers stand for is told by the QuantizeLinear in front, else
       by the DequantizeLinears behind the op and the movements that follow it, which must agree.
    2. All inputs that carry data stand for the same, per tensor; a constant gets a DequantizeLinear, too, and the
       number that Pad fills with becomes a real one.
    3. Constants that are moved stay: fold-constants computes them.
    4. Parameters with which Q(DQ(q)) is not q stay.
    """

    takes: ClassVar[Stage] = Stage.FUSED
    also_takes: ClassVar[tuple[Stage, ...]] = (Stage.QDQ, Stage.PLACED)
    gives: ClassVar[Stage] = Stage.QDQ

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place, from front to back: a chain hands on what its first tensor stands for."""
        work = Unfusing(Editor(graph))
        known: dict[int, Parameters] = {}
        behind = _behind(work.editor)
        for node in work.editor.live():
            if is_q(node) and (made := parameters(node)) is not None:
                known[id(node.outputs[0])] = made
                continue
            try:
                _unfuse(work, node, known, behind)
            except CannotUnfuseError as reason:
                work.report.refuse(node, str(reason))
        work.editor.commit()
        return work.report


def _unfuse(work: Unfusing, node: gs.Node, known: dict[int, Parameters], behind: dict[int, list[Parameters]]) -> None:
    row = _moves.mover(node)
    if row is None or all(isinstance(t, gs.Constant) for t in node.inputs if t.name):
        return  # case 3
    slots = _moves.sources(node)
    tensors = [node.inputs[s] for s in slots]
    front = [known[id(t)] for t in tensors if id(t) in known]
    found = front or [said for t in node.outputs for said in behind.get(id(t), [])]
    if not found:
        return  # it moves other things than quantized data
    said = found[0]
    outputs = _moves.results(work.editor, node, row)
    if isinstance(outputs, str):
        raise CannotUnfuseError(outputs)
    if any(one != said for one in found):
        raise CannotUnfuseError("its integers stand for different numbers")
    if front and any(id(t) not in known and not isinstance(t, gs.Constant) for t in tensors):
        raise CannotUnfuseError("nothing tells what one of its inputs stands for")
    if said.axis is not None:
        raise CannotUnfuseError("its integers have a scale per channel")
    reason = _moves.obstacle(work.editor, node, row, said, "pair")
    if reason:
        raise CannotUnfuseError(reason)
    if row.fill is not None and not _copies(node) and not isinstance(input_at(node, row.fill), gs.Constant):
        raise CannotUnfuseError("it fills with the integer 0, or with one that is computed")
    for slot in slots:
        work.editor.set_input(node, slot, work.dequantized(node, node.inputs[slot], said))
    if row.fill is not None:
        _fill(work, node, row.fill, said)
    for slot, tensor in enumerate(node.outputs):
        if any(tensor is t for t in outputs):
            known[id(tensor)] = said
            work.quantized(node, slot, said)
        elif row.results is None or slot in row.results:
            tensor.dtype = np.dtype(np.float32)  # nobody reads it
    work.report.rewrites += 1


def _copies(node: gs.Node) -> bool:
    """Does a Pad copy what it fills with from its data?"""
    return bool(node.attrs.get("mode", "constant") != "constant")


def _fill(work: Unfusing, node: gs.Node, slot: int, said: Parameters) -> None:
    """The number that the op fills with becomes the real one that it stands for."""
    if _copies(node):
        _moves.forget_fill(work.editor, node, slot)
    else:
        given = cast(gs.Constant, node.inputs[slot])
        values = dequantize(np.asarray(given.values), said.encoding())
        work.editor.set_input(node, slot, work.constant(f"{given.name}_float", values))


def _behind(editor: Editor) -> dict[int, list[Parameters]]:
    """What the DequantizeLinears say that read a tensor, or what a chain of movements makes of it: the whole chain is
    known at once, so that one run does all.
    """
    found: dict[int, list[Parameters]] = {}
    for node in reversed(list(editor.live())):  # what is in bodies comes first
        if is_dq(node):
            said = parameters(node)
            here, sources = [] if said is None else [said], [node.inputs[0]]
        elif _moves.mover(node) is not None:
            here = [said for tensor in node.outputs for said in found.get(id(tensor), [])]
            sources = [node.inputs[slot] for slot in _moves.sources(node)]
        else:
            continue
        for tensor in sources:
            known = found.setdefault(id(tensor), [])
            known += [said for said in dict.fromkeys(here) if said not in known]
    return found
