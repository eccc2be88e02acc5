"""TensorFlow and hand-written code clip by Max and Min with a number; as Clip or Relu it fuses, or vanishes in int8."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.ir.walk import clip_bounds
from onnxq.pipeline.base import Context, Pass, Report
from onnxq_passes._edit import Editor, float_type, input_at, rank, scalar
from onnxq_passes._match import made_by, not_float, other, rewrite_each

_OPSET = 11
"""The bounds of Clip are inputs from here on."""

_MOST = float(np.finfo(np.float32).max)
"""What Clip takes for a bound that is not given (its specification): not infinity."""

_OTHER_TYPE = "only float tensors are looked at"


@dataclass(frozen=True, kw_only=True)
class RecomposeClip(Pass):
    """Make Max and Min with a constant number Clip or Relu, and one of several in a row. Exact, to the bit.

    1. Max(x, 0), either order, is Relu(x).
    2. Max(x, c) is Clip(x, c, inf), Min(x, c) is Clip(x, -inf, c). The constant is one number with no more axes than x.
    3. Two in a row, Relu and Clip with constant bounds among them, are one: Clip(Clip(x, a, b), c, d) is
       Clip(x, clip(a, c, d), clip(b, c, d)).
    4. Refused: an opset below 11, a type other than float, x of unknown rank beside a constant with axes; of two in a
       row bounds in the wrong order, and a first one that is also read elsewhere.

    A LeakyRelu that is cut at -0.4 by Max takes a table in int8 so, and nothing for the cut, which is what the
    QuantizeLinear behind it does by saturating.
    """

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""

        def rewrite(node: gs.Node, editor: Editor, report: Report) -> str | None:
            return _rewrite(node, editor, report, graph.opset)

        return rewrite_each(graph, ["Max", "Min", "Clip", "Relu"], rewrite)


def _rewrite(node: gs.Node, editor: Editor, report: Report, opset: int) -> str | None:
    if node.op in ("Clip", "Relu"):
        x, bounds = node.inputs[0], _bounds(node)
    else:
        number = next((t for t in node.inputs if scalar(t) is not None), None)
        if number is None or len(node.inputs) != 2 or float_type(number) is None:
            return None
        x, bounds = other(node, number), _cut(node, number)
        reason = _obstacle(x, number)
        if reason:
            return reason
    nodes, first = [node], made_by(editor, x, ("Clip", "Relu"))
    inner = None if first is None else _bounds(first)
    if bounds is None or (node.op in ("Clip", "Relu") and inner is None):
        return None  # computed, or alone
    if first is not None and inner is not None:
        apart = _apart(editor, x, bounds, inner)
        if apart and node.op in ("Clip", "Relu"):
            return apart
        if not apart:  # case 3
            nodes, x = [first, node], first.inputs[0]
            low, high = (min(max(bound, bounds[0]), bounds[1]) for bound in inner)
            bounds = low, high
    if not_float(x):
        return _OTHER_TYPE
    if opset < _OPSET:
        return f"it needs opset {_OPSET}, the model has {opset}"
    _fuse(node, nodes, x, bounds, editor, report)
    return None


def _obstacle(x: gs.Tensor, number: gs.Tensor) -> str:
    if not_float(number):
        return _OTHER_TYPE
    length, axes = rank(x), len(number.shape)
    if length is None and axes:
        return "the rank of its input is not known"
    return "its constant has more axes than its input" if axes > (length or 0) else ""


def _apart(editor: Editor, between: gs.Tensor, *bounds: tuple[float, float]) -> str | None:
    """Why two in a row stay two."""
    if editor.only_use(between) is None:
        return "the first of two in a row is also read elsewhere"
    return None if all(low <= high for low, high in bounds) else "bounds in the wrong order"


def _cut(node: gs.Node, number: gs.Tensor) -> tuple[float, float] | None:
    """What a Max or Min with this number cuts at; None if that is NaN."""
    value = scalar(number)
    if value is None or math.isnan(value):
        return None
    return (value, math.inf) if node.op == "Max" else (-math.inf, value)


def _bounds(node: gs.Node) -> tuple[float, float] | None:
    """What a Relu or Clip cuts at; None if that is computed."""
    if node.op == "Relu":
        return 0.0, math.inf
    bounds = clip_bounds(node)
    if bounds is None:
        return None
    given = [input_at(node, slot) is not None for slot in (1, 2)]
    low, high = (bound if there else math.copysign(_MOST, bound) for bound, there in zip(bounds, given, strict=True))
    return low, high


def _fuse(
    node: gs.Node, nodes: list[gs.Node], x: gs.Tensor, bounds: tuple[float, float], editor: Editor, report: Report
) -> None:
    if bounds == (0.0, math.inf):
        editor.fuse(node, nodes, "Relu", [x], report)
        return
    inputs = [x]
    for name, bound, least in (("min", bounds[0], -_MOST), ("max", bounds[1], _MOST)):
        given = editor.constant(f"{node.name}_{name}", np.array(bound, np.float32))
        inputs.append(given if bound != least else gs.Variable.empty())
    editor.fuse(node, nodes, "Clip", inputs if inputs[-1].name else inputs[:-1], report)
