"""Exporters below opset 17 spell LayerNormalization out in nine ops; as one op it is fast, no Q/DQ falls into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.pipeline.base import Context, Pass, Report
from onnxq_passes._edit import Editor, input_at, ints, scalar
from onnxq_passes._match import dimensions, leak, made_by, not_float, other, plus, reader, rewrite_each

OPSET = 17


@dataclass(frozen=True, kw_only=True)
class RecomposeLayernorm(Pass):
    """Recognise layer normalization and make it one LayerNormalization op (opset 17). Exact up to float rounding.

    1. d = x - ReduceMean(x); d / Sqrt(ReduceMean(d^2) + epsilon), over the same last axes, keeping them. The square
       is a Pow by 2 or d * d; the root is a Sqrt or a Pow by 0.5; the quotient is a Div, or a Mul by a Reciprocal.
       d may be computed twice.
    2. A Mul behind it by a constant of the size of the normalized dimensions is the scale; without one, the scale
       is ones. An Add behind that is the bias.
    3. Refused: other axes, dimensions of unknown size, constants of other shapes, a part that is read elsewhere, a
       root mean square without the mean, a type other than float, an opset below 17.
    4. TensorFlow's x * m + (bias - mean * m), where m is the Reciprocal of the root, or scale times it, is the same.
    """

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""
        return rewrite_each(graph, ["ReduceMean"], partial(_rewrite, context=context, opset=graph.opset))


def _rewrite(variance: gs.Node, editor: Editor, report: Report, *, context: Context, opset: int) -> str | None:
    square = made_by(editor, variance.inputs[0], ("Pow", "Mul"))
    if square is None or not _is_square(square):
        return None  # a mean of something else
    add = reader(editor, variance.outputs[0], "Add")
    epsilon = plus(add)
    root = reader(editor, add.outputs[0], ("Sqrt", "Pow")) if add is not None else None
    if add is None or epsilon is None or root is None or (root.op == "Pow" and scalar(root.inputs[1]) != 0.5):
        return None  # a variance for its own sake
    deviation = made_by(editor, square.inputs[0], "Sub")
    mean = made_by(editor, deviation.inputs[1], "ReduceMean") if deviation is not None else None
    if deviation is None or mean is None or mean.inputs[0] is not deviation.inputs[0]:
        return "it is no layer normalization: the mean is not subtracted before squaring"
    x = deviation.inputs[0]
    quotient = _quotient(root, x, mean, deviation, editor)
    folded = None if quotient is not None else _folded(root, x, mean, editor)
    behind = quotient if folded is None else folded.nodes
    if behind is None:
        return "it is no layer normalization: x - mean is not divided by the root"
    nodes = list({id(n): n for n in (mean, deviation, square, variance, add, root, *behind)}.values())
    shape = dimensions(x, context)
    size = None if shape is None else len(shape)
    axes = _axes(variance, size)
    if axes is None or axes != _axes(mean, size):
        return "it does not normalize over the last axes, keeping them"
    if opset < OPSET:
        return f"LayerNormalization needs opset {OPSET}"
    if not_float(x):
        return "only float tensors have a LayerNormalization kernel"
    sizes = None if shape is None else shape[len(shape) - axes :]
    if sizes is None or not all(isinstance(d, int) and d > 0 for d in sizes):
        return "the size of the normalized dimensions is not known"
    last = behind[-1]
    normal = [int(d) for d in sizes if isinstance(d, int)]
    if folded is not None:
        scale, bias = (_shaped(t, normal, editor) for t in (folded.scale, folded.bias))
        if bias is None or (scale is None) != (folded.scale is None):
            return "its scale and bias are not constants of the size of the normalized dimensions"
    else:
        scale, multiplied = _parameter(last, "Mul", normal, editor)
        if multiplied is not None:
            nodes, last = [*nodes, multiplied], multiplied
        bias, added = _parameter(last, "Add", normal, editor)
        if added is not None:
            nodes, last = [*nodes, added], added
    reason = leak(editor, nodes, last)
    if reason:
        return reason
    inputs = [x, editor.constant(f"{last.name}_scale", np.ones(normal, np.float32)) if scale is None else scale]
    inputs += [] if bias is None else [bias]
    attrs = {"axis": -axes, "epsilon": epsilon[1]}
    editor.fuse(last, nodes, "LayerNormalization", inputs, report, attrs=attrs)
    return None


def _is_square(node: gs.Node) -> bool:
    return scalar(node.inputs[1]) == 2.0 if node.op == "Pow" else node.inputs[0] is node.inputs[1]


def _quotient(root: gs.Node, x: gs.Tensor, mean: gs.Node, deviation: gs.Node, editor: Editor) -> list[gs.Node] | None:
    """The nodes that divide x - mean by the root, last one last."""
    divide = reader(editor, root.outputs[0], ("Div", "Reciprocal"))
    if divide is None:
        return None
    nodes = [divide]
    if divide.op == "Reciprocal":
        product = reader(editor, divide.outputs[0], "Mul")
        if product is None:
            return None
        nodes = [divide, product]
        top = other(product, divide.outputs[0])
    elif divide.inputs[1] is root.outputs[0]:
        top = divide.inputs[0]
    else:
        return None
    if top is deviation.outputs[0]:
        return nodes
    twin = made_by(editor, top, "Sub")
    if twin is None or twin.inputs[0] is not x:
        return None
    again = editor.producer(twin.inputs[1])
    return [twin, *nodes] if again is mean else None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Folded:
    """x * m + (bias - mean * m), where m is scale / root; the last node is the sum."""

    nodes: list[gs.Node]
    scale: gs.Tensor | None
    bias: gs.Tensor


def _folded(root: gs.Node, x: gs.Tensor, mean: gs.Node, editor: Editor) -> _Folded | None:
    inverse = reader(editor, root.outputs[0], "Reciprocal")
    if inverse is None:
        return None
    scaled = reader(editor, inverse.outputs[0], "Mul")
    factor = inverse if scaled is None else scaled
    scale = None if scaled is None else other(scaled, inverse.outputs[0])
    m = factor.outputs[0]
    products = list({id(n): n for n, _ in editor.uses(m)}.values())
    if len(products) != 2 or any(p.op != "Mul" for p in products):
        return None
    moved = next((p for p in products if other(p, m) is mean.outputs[0]), None)
    whole = next((p for p in products if other(p, m) is x), None)
    shift = reader(editor, moved.outputs[0], "Sub") if moved is not None else None
    total = reader(editor, shift.outputs[0], "Add") if shift is not None else None
    if moved is None or whole is None or shift is None or total is None or shift.inputs[1] is not moved.outputs[0]:
        return None
    if other(total, shift.outputs[0]) is not whole.outputs[0]:
        return None
    ends = [whole, moved, shift, total]
    return _Folded(nodes=[inverse, *([] if scaled is None else [scaled]), *ends], scale=scale, bias=shift.inputs[0])


def _axes(node: gs.Node, rank: int | None) -> int | None:
    """How many last axes a ReduceMean takes; None if it takes others, does not keep them, or if that is unknown."""
    tensor = input_at(node, 1)
    axes = ints(tensor) if tensor is not None else node.attrs.get("axes")
    if not axes or node.attrs.get("keepdims") == 0:
        return None
    if rank is not None:
        axes = [a - rank if a >= 0 else a for a in axes]
    return len(axes) if sorted(axes) == list(range(-len(axes), 0)) else None


def _parameter(
    node: gs.Node, op: str, normal: Sequence[int], editor: Editor
) -> tuple[gs.Constant | None, gs.Node | None]:
    """The constant of a following Mul or Add, in the shape of the normalized dimensions, and that node."""
    following = reader(editor, node.outputs[0], op)
    constant = _shaped(other(following, node.outputs[0]), normal, editor) if following is not None else None
    return (None, None) if constant is None else (constant, following)


def _shaped(constant: gs.Tensor | None, normal: Sequence[int], editor: Editor) -> gs.Constant | None:
    """A float constant in the shape of the normalized dimensions; None if it does not have their size."""
    if not isinstance(constant, gs.Constant) or constant.values.dtype != np.float32:
        return None
    if list(constant.shape) == list(normal):
        return constant
    lead = len(constant.shape) - len(normal)
    if [1] * lead + list(normal) != list(constant.shape):
        return None
    return editor.constant(f"{constant.name}_flat", constant.values.reshape(normal))
