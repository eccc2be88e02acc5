"""Ops that do the same in any order of the dimensions, and how their constants, axes and pads follow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.ir import walk
from onnxq.pipeline.base import Context
from onnxq_passes._edit import Editor, input_at, ints, is_constant, standard
from onnxq_passes._match import dimensions

UNARY = frozenset(
    (
        *("Abs", "Cast", "Ceil", "Celu", "Clip", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish"),
        *("Identity", "LeakyRelu", "Log", "Mish", "Neg", "QuickGelu", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid"),
        *("Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu"),
    )
)
BINARY = frozenset(("Add", "Div", "Max", "Mean", "Min", "Mul", "PRelu", "Pow", "Sub", "Sum"))
REDUCE = frozenset(("ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare"))


def permutation(node: gs.Node) -> tuple[int, ...] | None:
    """What a Transpose says it does, else None."""
    perm = node.attrs.get("perm") if node.op == "Transpose" and standard(node) else None
    return None if perm is None else tuple(int(i) for i in perm)


def is_data(node: gs.Node, slot: int) -> bool:
    """True for the operands that have the layout."""
    return node.op in BINARY or node.op == "Concat" or slot == 0


def data(node: gs.Node) -> list[gs.Tensor]:
    """The operands that have the layout, without the constant ones."""
    return [t for i, t in enumerate(node.inputs) if is_data(node, i) and t.name and not is_constant(t)]


def drops(node: gs.Node) -> bool:
    """True for reductions that keep fewer dimensions."""
    return node.op in REDUCE and node.attrs.get("keepdims", 1) == 0


def axes(node: gs.Node, size: int) -> list[int]:
    """The constant axes of a reduction, counted from the front; empty if they are computed or left out."""
    return [a % size for a in _numbers(node, 1, "axes") or []]


def ranks(graph: gs.Graph, context: Context) -> dict[int, int]:
    """Ranks by the id of the tensor: those that are told, and what follows from Transposes and elementwise ops."""
    known: dict[int, int] = {}

    def look(tensor: gs.Tensor) -> int | None:
        shape = dimensions(tensor, context)
        return len(shape) if shape is not None else known.get(id(tensor))

    for _, body in walk.graphs(graph):
        for node in body.nodes:
            perm = permutation(node)
            found = [len(perm)] if perm is not None else []
            if node.op in UNARY or node.op in BINARY or node.op in ("Concat", "Pad") or node.op in REDUCE:
                found = [r for t in node.inputs if t.name and is_data(node, node.inputs.index(t)) and (r := look(t))]
            if found and not drops(node):
                known[id(node.outputs[0])] = max(found)
            for tensor in node.inputs:
                if (size := look(tensor)) is not None:
                    known[id(tensor)] = size
    return known


def is_free(node: gs.Node, perm: Sequence[int], known: dict[int, int]) -> bool:
    """True for an op that can work in the layout in front of a Transpose(perm) as well as in the one behind it."""
    size = len(perm)
    if len(node.outputs) != 1 or not (standard(node) or node.op == "QuickGelu"):
        return False
    given = data(node)
    if not given or any(known.get(id(t)) != size for t in given):
        return False
    if node.op in UNARY:
        return all(is_constant(t) or not t.name for t in node.inputs[1:])
    if node.op in BINARY:
        return all(len(t.shape) <= size for t in node.inputs if isinstance(t, gs.Constant))
    if node.op == "Concat":
        return len(given) == len(node.inputs)
    if node.op == "Pad":
        pads = _numbers(node, 1, "pads")
        return pads is not None and len(pads) == 2 * size and input_at(node, 3) is None
    if node.op not in REDUCE or not axes(node, size):
        return False
    rest = [perm[a] for a in range(size) if a not in axes(node, size)]
    return not drops(node) or rest == sorted(rest)


def turn(node: gs.Node, perm: Sequence[int], editor: Editor) -> None:
    """Rewrite constants, axes and pads for the layout in front of a Transpose(perm)."""
    size, inverse = len(perm), [int(i) for i in np.argsort(perm)]
    if node.op == "Concat":
        node.attrs["axis"] = perm[int(node.attrs["axis"]) % size]
    elif node.op in REDUCE:
        _write(node, "axes", [perm[a] for a in axes(node, size)], editor)
    elif node.op == "Pad":
        pads = _numbers(node, 1, "pads") or []
        _write(node, "pads", [pads[half + i] for half in (0, size) for i in inverse], editor)
    elif node.op in BINARY:
        for slot, tensor in enumerate(node.inputs):
            if isinstance(tensor, gs.Constant) and np.asarray(tensor.values).size > 1:
                values = np.asarray(tensor.values)
                wide = values.reshape((1,) * (size - values.ndim) + values.shape).transpose(inverse)
                editor.set_input(node, slot, editor.constant(f"{tensor.name}_moved", wide))


def _numbers(node: gs.Node, slot: int, attribute: str) -> list[int] | None:
    tensor = input_at(node, slot)
    return ints(tensor) if tensor is not None else node.attrs.get(attribute)


def _write(node: gs.Node, attribute: str, values: list[int], editor: Editor) -> None:
    if attribute in node.attrs:
        node.attrs[attribute] = values
    else:
        editor.set_input(node, 1, editor.constant(f"{node.name}_{attribute}", np.array(values, np.int64)))
