"""A part of a model's main graph as a model of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.ir import walk
from onnxq.ir.model import Model


def reads(node: gs.Node) -> Iterator[str]:
    """Names of the tensors that a node reads, those that its bodies take from around them included; some are constants,
    and "" stands for an input that is left out."""
    yield from (t.name for t in node.inputs)
    for value in node.attrs.values():
        if isinstance(value, gs.Graph):
            yield from walk.outer_names(value)


def part(
    model: Model, nodes: Sequence[gs.Node], given: Mapping[str, np.dtype[Any]], outputs: Sequence[gs.Variable]
) -> Model:
    """These nodes of the main graph, in its order; shares everything with `model`, which does not change.

    Args:
        given: what other nodes make and these read -> its type; inputs of unknown shape. Inputs of the model that these
            read stay inputs.
        outputs: made by these nodes.
    """
    graph = model.graph
    read = {name for node in nodes for name in reads(node)}
    here = {t.name for node in nodes for t in node.inputs if isinstance(t, gs.Constant)}
    piece = gs.Graph(
        nodes=nodes,
        inputs=[
            *(t for t in graph.inputs if t.name in read),
            *(gs.Variable(name, dtype=dtype) for name, dtype in given.items()),
        ],
        outputs=outputs,
        name=graph.name,
        opset=graph.opset,
        import_domains=graph.import_domains,
        functions=graph.functions,
        ir_version=graph.ir_version,
    )
    overridable = [name for name in model.meta.overridable if name in here]
    return replace(model, graph=piece, meta=replace(model.meta, overridable=overridable, quantization_annotations=[]))
