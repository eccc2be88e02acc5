"""NHWC frameworks export a Transpose before and behind each Conv. What is in between runs in NCHW, too, and folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.pipeline.base import Context, Pass, Report
from onnxq_passes._edit import Editor
from onnxq_passes._layout import data, drops, is_free, permutation, ranks, turn


@dataclass(frozen=True, kw_only=True)
class MoveTransposes(Pass):
    """Let the ops between Transposes work in the layout around them, where that leaves fewer Transposes; exact, but for
    the order in which reductions add.

    1. A region is all elementwise ops, Pads, Concats and reductions that hang together behind a Transpose(p). Its
       constants, axes and pads are rewritten for the layout in front of p.
    2. A Transpose(p) in front of it is read past; any other input gets the inverse Transpose.
    3. A Transpose behind it that undoes p is bypassed. A reduction that drops axes needs none if the rest keeps its
       order. Any other reader, and an output of the graph, reads the result through a new Transpose(p).
    4. The region is rewritten if that takes away more Transposes than it adds. One that is still read elsewhere is not
       taken away.
    5. Operands of unknown or smaller rank, unless constant, end a region; so do computed axes, pads and bounds.
    """

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place until nothing changes; it ends, since each rewrite takes Transposes away."""
        report, moved = Report(), set[int]()
        while True:
            rewrites = report.rewrites
            report.refusals.clear()
            _round(graph, context, report, moved)
            if report.rewrites == rewrites:
                return report


def _round(graph: gs.Graph, context: Context, report: Report, moved: set[int]) -> None:
    """Each region once; `moved` are ops of regions that were rewritten, which are not refused between their new
    Transposes."""
    editor, known = Editor(graph), ranks(graph, context)
    seen: set[tuple[int, tuple[int, ...]]] = set()
    changed: set[int] = set()
    for node in editor.live(ops=["Transpose"]):
        perm = permutation(node)
        if perm is None or perm == tuple(range(len(perm))):
            continue
        for reader in list({id(n): n for n, _ in editor.uses(node.outputs[0])}.values()):
            if (id(reader), perm) in seen or not is_free(reader, perm, known):
                continue
            region = _Region(reader, perm, editor, known)
            seen.update((key, perm) for key in region.nodes)
            if not changed.isdisjoint(region.nodes):
                continue  # the next round sees it as it is then
            gone, come = region.balance()
            if gone > come:
                region.rewrite()
                changed.update(region.nodes)
                moved.update(region.nodes)
                report.rewrites += 1
            elif gone > 1 and moved.isdisjoint(region.nodes):
                report.refuse(reader, region.obstacle())
    editor.commit()


class _Region:
    """Ops that hang together, and how they meet the rest."""

    def __init__(self, start: gs.Node, perm: tuple[int, ...], editor: Editor, known: dict[int, int]) -> None:
        self.perm, self.editor, self.body = perm, editor, editor.body(start)
        self.inverse = tuple(int(i) for i in np.argsort(perm))
        self.nodes = {id(start): start}
        pending = [start]
        while pending:
            node = pending.pop()
            for other in [*(editor.producer(t) for t in data(node)), *(n for n, _ in editor.uses(node.outputs[0]))]:
                if other is None or id(other) in self.nodes or editor.body(other) is not self.body:
                    continue
                if is_free(other, perm, known):
                    self.nodes[id(other)] = other
                    pending.append(other)
        self.outputs = {id(n.outputs[0]): n.outputs[0] for n in self.nodes.values() if not drops(n)}
        self.inputs = {id(t): t for n in self.nodes.values() for t in data(n) if id(t) not in self.outputs}

    def _past(self, tensor: gs.Tensor) -> gs.Tensor | None:
        """What a Transpose(p) makes this of."""
        maker = self.editor.producer(tensor)
        return maker.inputs[0] if maker is not None and permutation(maker) == self.perm else None

    def _outside(self, tensor: gs.Tensor) -> tuple[list[gs.Node], bool]:
        """The Transposes that undo p behind a result, and whether anything else reads it."""
        readers = [n for n, _ in self.editor.uses(tensor) if id(n) not in self.nodes]
        undo = [n for n in readers if permutation(n) == self.inverse and not self.editor.is_output(n.outputs[0])]
        return undo, len(undo) < len(readers) or self.editor.is_output(tensor)

    def balance(self) -> tuple[int, int]:
        """Transposes that would vanish, and those that would come."""
        gone = come = 0
        for tensor in self.inputs.values():
            if self._past(tensor) is None:
                come += 1
            elif self.editor.private(tensor, self.nodes.values()):
                gone += 1
        for tensor in self.outputs.values():
            undo, rest = self._outside(tensor)
            gone += len(undo)
            come += rest
        return gone, come

    def obstacle(self) -> str:
        """Why no fewer Transposes would be left."""
        past = [t for t in self.inputs.values() if self._past(t) is not None]
        found = {
            "other inputs of its region would need one": len(past) < len(self.inputs),
            "one in front is also read elsewhere": not all(self.editor.private(t, self.nodes.values()) for t in past),
            "a result is also read as it is": any(self._outside(t)[1] for t in self.outputs.values()),
        }
        return f"no fewer Transposes would be left: {'; '.join(what for what, so in found.items() if so)}"

    def rewrite(self) -> None:
        """Carry it out."""
        editor, moved = self.editor, dict[int, gs.Tensor]()
        behind = {key: self._outside(t) for key, t in self.outputs.items()}
        for key, tensor in self.inputs.items():
            source, maker = self._past(tensor), editor.producer(tensor)
            moved[key] = self._variable(tensor) if source is None else source
            if source is None:
                self._transpose(tensor, moved[key], self.inverse, maker)
            elif maker is not None and editor.private(tensor, self.nodes.values()):
                editor.remove(maker)
        moved |= {key: self._variable(t) for key, t in self.outputs.items()}
        for node in self.nodes.values():
            turn(node, self.perm, editor)
            given: list[gs.Tensor] = list(node.inputs)
            editor.set_inputs(node, [moved.get(id(t), t) for t in given])
            old = node.outputs[0]
            if id(old) not in behind:
                continue
            new, (undo, rest) = moved[id(old)], behind[id(old)]
            editor.set_output(node, 0, new)
            for one in undo:
                editor.replace_uses(one.outputs[0], new)
                editor.remove(one)
            if rest:
                self._transpose(new, old, self.perm, node)

    def _variable(self, tensor: gs.Tensor) -> gs.Variable:
        new = self.editor.variable(f"{tensor.name}_moved", tensor)
        new.shape = None if tensor.shape is None else [tensor.shape[i] for i in self.inverse]
        return new

    def _transpose(self, source: gs.Tensor, result: gs.Tensor, perm: Sequence[int], maker: gs.Node | None) -> None:
        node = self.editor.node("Transpose", [source], [result], name="moved", attrs={"perm": list(perm)})
        if maker is not None and self.editor.body(maker) is self.body:
            self.editor.insert(node, after=maker)
        else:
            self.editor.insert(node, top=self.body)
