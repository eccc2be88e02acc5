"""What the recompose passes share: constants as exporters write them, scalings, polynomials of one tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
import onnx_graphsurgeon as gs

from onnxq.pipeline.base import Context, Report
from onnxq_passes._edit import FLOAT, Editor, float_type, scalar, standard

_DEPTH = 12


def rewrite_each(
    graph: gs.Graph, ops: Sequence[str], rewrite: Callable[[gs.Node, Editor, Report], str | None]
) -> Report:
    """Ask `rewrite` for each node of these ops, in all bodies; what it says is why a node stays, None that it does not
    or that there is nothing to say."""
    report, editor = Report(), Editor(graph)
    for node in editor.live(ops=ops):
        reason = rewrite(node, editor, report)
        if reason:
            report.refuse(node, reason)
    editor.commit()
    return report


def close(value: float, target: float) -> bool:
    """Is a constant of a graph the number `target`, as float32, float16 or bfloat16 store it or its reciprocal?

    >>> close(0.70710677, 2**-0.5), close(0.7071, 2**-0.5), close(1 / 1.4140625, 2**-0.5)
    (True, False, True)
    """
    kinds = (np.float32, np.float16, ml_dtypes.bfloat16)
    stored = [number for k in kinds for number in (float(k(target)), 1 / float(k(1 / target)))]
    return any(math.isclose(value, number, rel_tol=3e-7) for number in stored)


def plus(node: gs.Node | None) -> tuple[gs.Tensor, float] | None:
    """(x, c) if the node is x + c with a scalar constant."""
    if node is None or not standard(node) or node.op not in ("Add", "Sub"):
        return None
    first, second = node.inputs
    right = scalar(second)
    if right is not None:
        return first, right if node.op == "Add" else -right
    left = scalar(first)
    return (second, left) if left is not None and node.op == "Add" else None


def times(node: gs.Node | None) -> tuple[gs.Tensor, float] | None:
    """(x, c) if the node is x * c or x / (1 / c) with a scalar constant."""
    if node is None or not standard(node) or node.op not in ("Mul", "Div"):
        return None
    first, second = node.inputs
    right = scalar(second)
    if right is not None:
        return (first, right) if node.op == "Mul" else (first, 1 / right) if right else None
    left = scalar(first)
    return (second, left) if left is not None and node.op == "Mul" else None


def reader(editor: Editor, tensor: gs.Tensor, op: str | Sequence[str]) -> gs.Node | None:
    """The only reader of a tensor, if it is one of these standard ops."""
    use = editor.only_use(tensor)
    wanted = (op,) if isinstance(op, str) else op
    return use[0] if use is not None and use[0].op in wanted and standard(use[0]) else None


def made_by(editor: Editor, tensor: gs.Tensor, op: str | Sequence[str]) -> gs.Node | None:
    """The producer of a tensor, if it is one of these standard ops."""
    node = editor.producer(tensor)
    wanted = (op,) if isinstance(op, str) else op
    return node if node is not None and node.op in wanted and standard(node) else None


def other(node: gs.Node, tensor: gs.Tensor) -> gs.Tensor:
    """The other input of a node with two inputs."""
    first, second = node.inputs
    return second if first is tensor else first


def leak(editor: Editor, nodes: Sequence[gs.Node], root: gs.Node) -> str | None:
    """Why matched nodes cannot vanish: a result, other than that of `root`, that is read outside; or None."""
    for node in nodes:
        if node is not root and not editor.private(node.outputs[0], nodes):
            return f"the result of its {node.op} is also read elsewhere"
    return None


def not_float(tensor: gs.Tensor) -> bool:
    """True if the type is known and is not float32."""
    return tensor.dtype is not None and float_type(tensor) != FLOAT


def dimensions(tensor: gs.Tensor, context: Context) -> tuple[int | str | None, ...] | None:
    """The shape as the graph has it; where the graph lacks it, as it was seen while calibrating."""
    seen = context.observed_shapes.get(tensor.name)
    shape = tensor.shape
    if shape is None:
        return seen
    if seen is None or len(seen) != len(shape):
        return tuple(shape)
    return tuple(known if isinstance(known, int) else other for known, other in zip(shape, seen, strict=True))


@dataclass
class Polynomial:
    """A polynomial of one tensor.

    Attributes:
        terms: power -> coefficient.
        nodes: the nodes that compute it, by id.
    """

    terms: dict[int, float]
    nodes: dict[int, gs.Node] = field(default_factory=dict)


def polynomial(editor: Editor, tensor: gs.Tensor, x: gs.Tensor, depth: int = _DEPTH) -> Polynomial | None:
    """`tensor` as a polynomial of `x`, through Add, Sub, Mul, Div by a constant, Pow by 2 or 3; or None."""
    if tensor is x:
        return Polynomial({1: 1.0})
    value = scalar(tensor)
    if value is not None:
        return Polynomial({0: value})
    node = editor.producer(tensor)
    if node is None or depth == 0 or not standard(node) or node.op not in ("Add", "Sub", "Mul", "Div", "Pow"):
        return None
    left = polynomial(editor, node.inputs[0], x, depth - 1)
    if left is None:
        return None
    right = polynomial(editor, node.inputs[1], x, depth - 1)
    if right is None:
        return None
    terms = _combine(node.op, left.terms, right.terms)
    return None if terms is None else Polynomial(terms, {**left.nodes, **right.nodes, id(node): node})


def _combine(op: str, a: dict[int, float], b: dict[int, float]) -> dict[int, float] | None:
    if op in ("Add", "Sub"):
        sign = 1 if op == "Add" else -1
        return {p: a.get(p, 0.0) + sign * b.get(p, 0.0) for p in a.keys() | b.keys()}
    if op == "Mul":
        return _product(a, b)
    constant = b.get(0) if b.keys() == {0} else None
    if op == "Div":
        return {p: c / constant for p, c in a.items()} if constant else None
    if constant not in (2.0, 3.0):
        return None
    square = _product(a, a)
    return square if constant == 2.0 else _product(square, a)


def _product(a: dict[int, float], b: dict[int, float]) -> dict[int, float]:
    result: dict[int, float] = {}
    for p, c in a.items():
        for q, d in b.items():
            result[p + q] = result.get(p + q, 0.0) + c * d
    return result
