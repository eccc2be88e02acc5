"""Names for the nodes and tensors of a model in memory that has unnamed ones or two of one name."""

from __future__ import annotations

from collections import Counter

import onnx_graphsurgeon as gs

from onnxq.ir import walk


def unique_nodes(graph: gs.Graph) -> None:
    """Every node of the graph and its bodies gets a name of its own; names that were unique stay."""
    nodes = [n for _, inner in walk.graphs(graph) for n in inner.nodes]
    count = Counter(n.name for n in nodes)
    taken = set(count)
    for node in nodes:
        if not node.name or count[node.name] > 1:
            count[node.name] -= 1
            node.name = walk.unique_name(taken, f"{node.op}({node.outputs[0].name})" if node.outputs else node.op)


def unique_tensors(graph: gs.Graph) -> None:
    """Bodies side by side may use one name for two tensors: the later ones are renamed."""
    taken: set[str] = set()
    for path, inner in walk.graphs(graph):
        local: dict[int, gs.Tensor] = {id(t): t for t in inner.inputs}
        local.update((id(t), t) for n in inner.nodes for t in n.outputs)
        for tensor in local.values():
            if not tensor.name:
                continue
            if path and tensor.name in taken:
                tensor.name = walk.unique_name(taken, tensor.name)
            taken.add(tensor.name)
