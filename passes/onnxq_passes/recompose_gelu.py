"""Exporters spell GELU out in five to nine ops. As one op it is fast in float, and no Q/DQ falls between its parts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxq.pipeline.base import Context, Pass, Report
from onnxq_passes._edit import Editor
from onnxq_passes._match import close, leak, made_by, not_float, other, plus, polynomial, reader, times

OPSET = 20


@dataclass(frozen=True, kw_only=True)
class RecomposeGelu(Pass):
    """Recognise GELU and make it one Gelu op (opset 20). Exact up to float rounding.

    1. 0.5 * x * (1 + erf(x / sqrt(2))): the product in any association and order, halves and roots by Mul or Div.
    2. 0.5 * x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 * x^3))), the polynomial in any form: `approximate="tanh"`.
    3. Constants count as these numbers if they are their float32, float16 or bfloat16 roundings.
    4. Refused: another constant, a part that is read elsewhere, a type other than float, an opset below 20.
    """

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""
        report, editor = Report(), Editor(graph)
        for core in editor.live(ops=["Erf", "Tanh"]):
            found = _match(core, editor, graph.opset)
            if isinstance(found, _Gelu):
                attrs = {"approximate": "tanh"} if core.op == "Tanh" else {}
                editor.fuse(found.root, found.nodes, "Gelu", [found.x], report, attrs=attrs)
            elif found:
                report.refuse(core, found)
        editor.commit()
        return report


@dataclass(frozen=True, kw_only=True, eq=False)
class _Gelu:
    x: gs.Tensor
    root: gs.Node
    nodes: list[gs.Node]


def _match(core: gs.Node, editor: Editor, opset: int) -> _Gelu | str:
    """The match, or why there is none ("" where nothing resembles a GELU)."""
    one = reader(editor, core.outputs[0], "Add")
    added = plus(one)
    first = reader(editor, one.outputs[0], "Mul") if one is not None else None
    if one is None or added is None or added[1] != 1.0 or first is None:
        return "it is no GELU: not 1 + erf, multiplied, and read nowhere else" if core.op == "Erf" else ""
    reason = "it is no GELU: the factors are not 0.5, x and the sum"
    for x, root, around in _products(first, one.outputs[0], editor):
        inside = _argument(core, x, editor)
        if isinstance(inside, str):
            reason = inside
            continue
        nodes = list({id(n): n for n in (*inside, core, one, *around)}.values())
        if opset < OPSET:
            return f"Gelu needs opset {OPSET}"
        if not_float(x):
            return "only float tensors have a Gelu kernel"
        return leak(editor, nodes, root) or _Gelu(x=x, root=root, nodes=nodes)
    return reason


def _products(first: gs.Node, total: gs.Tensor, editor: Editor) -> Iterator[tuple[gs.Tensor, gs.Node, list[gs.Node]]]:
    """Every (x, root, nodes) for which the root is total * x * 0.5."""
    factor = other(first, total)
    half = times(first)
    if half is not None:  # (total * 0.5) * x
        second = reader(editor, first.outputs[0], "Mul")
        if half[1] == 0.5 and second is not None:
            yield other(second, first.outputs[0]), second, [first, second]
        return
    scaled = made_by(editor, factor, ("Mul", "Div"))
    inner = times(scaled)
    if scaled is not None and inner is not None and inner[1] == 0.5:  # total * (x * 0.5)
        yield inner[0], first, [scaled, first]
    second = reader(editor, first.outputs[0], ("Mul", "Div"))
    outer = times(second)
    if second is not None and outer is not None and outer[1] == 0.5:  # (total * x) * 0.5
        yield factor, second, [first, second]


def _argument(core: gs.Node, x: gs.Tensor, editor: Editor) -> list[gs.Node] | str:
    """The nodes between x and erf or tanh, or what is wrong with them."""
    found = polynomial(editor, core.inputs[0], x)
    if found is None:
        return f"it is no GELU: the argument of {core.op} is not made of x alone"
    terms = {p: c for p, c in found.terms.items() if c}
    if core.op == "Erf":
        right = terms.keys() == {1} and close(terms[1], math.sqrt(0.5))
        return list(found.nodes.values()) if right else "the argument of Erf is not x / sqrt(2)"
    right = terms.keys() == {1, 3} and close(terms[1], math.sqrt(2 / math.pi)) and close(terms[3] / terms[1], 0.044715)
    return list(found.nodes.values()) if right else "the argument of Tanh is not sqrt(2/pi) * (x + 0.044715 * x^3)"
