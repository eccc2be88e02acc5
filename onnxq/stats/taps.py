"""Taps: the model with further tensors as outputs, and which tensors need one at all. Nothing here changes the user's
graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.ir import walk
from onnxq.ir.model import Model

COPIES = frozenset(
    {"Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "DepthToSpace", "SpaceToDepth"}
)
"""Ops whose output holds exactly the elements of their first input, in another order or shape."""

MASK_OPS = COPIES.union(
    "Add Sub Mul Where Cast Expand Tile Slice Concat Gather Trilu Constant ConstantOfShape".split()  # noqa: SIM905
)
"""Ops that make the huge negative value of an attention mask or carry it on; all others, as Softmax, end the way."""

MASKED = -1e4
"""A constant as low as this is taken for "minus infinity" of a mask; BERT exports write -10000, others -1e9, -3.4e38
or -inf."""


def with_outputs(
    model: Model, names: Sequence[str], nodes: Sequence[gs.Node] = (), inputs: Sequence[gs.Variable] = ()
) -> Model:
    """The same model with more outputs, nodes and inputs; shares the rest with `model`, which does not change.

    The outputs are untyped, so that ONNX Runtime infers their types and wrong annotations do no harm.
    """
    graph = model.graph
    present = set(names_of(graph.outputs))
    tapped = gs.Graph(
        nodes=[*graph.nodes, *nodes],
        inputs=[*graph.inputs, *inputs],
        outputs=[*graph.outputs, *(gs.Variable(n) for n in names if n not in present)],
        name=graph.name,
        opset=graph.opset,
        import_domains=graph.import_domains,
        functions=graph.functions,
        ir_version=graph.ir_version,
    )
    return replace(model, graph=tapped)


def names_of(tensors: Sequence[Any]) -> list[str]:
    """Names of the inputs or outputs of a graph or node."""
    return [t.name for t in tensors]


def produced(graph: gs.Graph) -> list[str]:
    """Names of the graph's inputs and node outputs, in the order of the file."""
    made = [name for node in graph.nodes for name in names_of(node.outputs) if name]
    return list(dict.fromkeys([*names_of(graph.inputs), *made]))


def aliases(graph: gs.Graph) -> dict[str, str]:
    """Tensor -> the tensor whose elements it holds, for outputs of COPIES, followed to the first one.

    The two have the same min, max and distribution (of an array above the histogram's subset, other elements are
    counted).
    """
    root: dict[str, str] = {}
    producer = {name: node for node in graph.nodes for name in names_of(node.outputs) if name}
    for name in producer:
        path = [name]
        while path[-1] not in root:
            node = producer.get(path[-1])
            if node is None or node.op not in COPIES or node.domain not in (None, "", "ai.onnx") or not node.inputs:
                break
            path.append(names_of(node.inputs)[0])
        end = root.get(path[-1], path[-1])
        root.update((p, end) for p in path if p != end)
    return root


def mask_tensors(graph: gs.Graph) -> set[str]:
    """Tensors, those of bodies included, that hold "minus infinity" because of an attention mask: constants at or below
    MASKED and what comes of them by MASK_OPS.

    Their range says nothing about the values that matter: the planner leaves them float, the collector may be told to
        allow infinities.
    A bound of Clip or the bias of a Conv does not make a mask: only MASK_OPS are followed.
    """
    masked: set[str] = set()
    nodes = [node for _, inner in walk.graphs(graph) for node in inner.nodes]
    passed = [pair for node in nodes for pair in walk.passed(node)]
    # one sweep would do on a sorted graph; an unsorted one costs another sweep per wrong step
    while True:
        before = len(masked)
        masked.update(target.name for source, target in passed if _masks(source, masked))
        for node in nodes:
            if node.op in MASK_OPS and (any(_masks(t, masked) for t in node.inputs) or any(map(_low, _given(node)))):
                masked.update(names_of(node.outputs))
                masked.update(names_of([t for t in node.inputs if _masks(t, masked)]))
        if len(masked) == before:
            return masked


def _masks(tensor: Any, masked: Iterable[str]) -> bool:
    return tensor.name in masked or (isinstance(tensor, gs.Constant) and _low(tensor.values))


def _given(node: gs.Node) -> Iterator[object]:
    """The value of a Constant or ConstantOfShape node."""
    yield node.attrs.get("value")
    yield np.asarray(node.attrs.get("value_float", 0.0))
    yield np.asarray(node.attrs.get("value_floats", 0.0), dtype=np.float32)


def _low(values: object) -> bool:
    array = getattr(values, "values", values)
    return isinstance(array, np.ndarray) and array.dtype.kind == "f" and array.size > 0 and float(array.min()) <= MASKED


def clip_to(node: gs.Node) -> tuple[float, float] | None:
    """The constant bounds of a Relu or Clip, infinite where there is none; None for other nodes."""
    if node.domain not in (None, "", "ai.onnx") or node.op not in ("Relu", "Clip"):
        return None
    if node.op == "Relu":
        return 0.0, np.inf
    bounds = walk.clip_bounds(node)
    return bounds if bounds is not None and bounds[0] <= bounds[1] else None


def from_zero(node: gs.Node) -> bool:
    """Is the output of this node at least 0, and 0 wherever it would be less?"""
    bounds = clip_to(node)
    return bounds is not None and bounds[0] == 0
