"""A read-only view of a graph with what the planner asks all the time: who makes a tensor, who uses it, is it
constant, how large is it. Each body of If, Loop or Scan has a view of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.ir import walk
from onnxq.plan.plan import GraphPath
from onnxq.stats.taps import mask_tensors

Shape = tuple[int | str | None, ...]


@dataclass(frozen=True)
class Consumer:
    """One use of a tensor: `node` is None for a graph output, whose index is `slot`. `path` leads from the graph that
    is looked at to the body that the use is in; () is that graph itself."""

    path: GraphPath
    node: gs.Node | None
    slot: int


class Facts:
    """Built once per plan, linear in the number of nodes.

    Args:
        graph: normalised graph: unique node and tensor names; or a body in it.
        shapes: observed shapes of float tensors, by name (may be partial).
        path: of the body in the main graph.
        around: of the graph that the body stands in.

    Attributes:
        held: what the graphs around give in 8 bits only; known when they are decided.
        masks: see `onnxq.stats.taps.mask_tensors`.
    """

    def __init__(
        self, graph: gs.Graph, shapes: Mapping[str, Shape], path: GraphPath = (), around: Facts | None = None
    ) -> None:
        self.graph = graph
        self.shapes = shapes
        self.path = path
        self.producer: dict[str, gs.Node] = {}
        self.consumers: dict[str, list[Consumer]] = defaultdict(list)
        self.by_name: dict[str, gs.Node] = {}
        self.inputs = {t.name for t in graph.inputs}
        self.around = around
        self.held: frozenset[str] = frozenset()
        self.masks: set[str] = mask_tensors(graph) if around is None else around.masks
        for deeper, inner in walk.graphs(graph):
            for node in inner.nodes:
                for slot, tensor in enumerate(node.inputs):
                    if tensor.name:
                        self.consumers[tensor.name].append(Consumer(deeper, node, slot))
            for slot, tensor in enumerate(inner.outputs):
                self.consumers[tensor.name].append(Consumer(deeper, None, slot))
        for node in graph.nodes:
            self.by_name[node.name] = node
            for tensor in node.outputs:
                self.producer[tensor.name] = node

    def captured(self, name: str) -> bool:
        """True for a tensor that a body takes from the graphs around it."""
        return not self._here(name) and self.around is not None and self.around.known(name)

    def known(self, name: str) -> bool:
        """True for a tensor that this graph or one around it makes or is given."""
        return self._here(name) or (self.around is not None and self.around.known(name))

    def _here(self, name: str) -> bool:
        return name in self.producer or name in self.inputs

    def overridable(self, tensor: Any) -> bool:
        """True for an initializer that a caller may feed: a variable that nobody makes and that is no real input."""
        return bool(tensor.name) and not isinstance(tensor, gs.Constant) and not self.known(tensor.name)

    def constant(self, tensor: Any) -> NDArray[Any] | None:
        """The values of a constant tensor, else None."""
        return tensor.values if isinstance(tensor, gs.Constant) else None

    def shape(self, tensor: Any) -> Shape | None:
        """The shape as far as it is known: observed, else as the graph declares it."""
        if isinstance(tensor, gs.Constant):
            return tuple(tensor.shape)
        observed = self.shapes.get(tensor.name)
        if observed is not None:
            return observed
        return tuple(tensor.shape) if tensor.shape is not None else None

    def size(self, tensor: Any) -> int | None:
        """Number of elements, symbolic dimensions counted as 1; None if unknown."""
        shape = self.shape(tensor)
        return None if shape is None else prod(d for d in shape if isinstance(d, int))

    def is_float(self, tensor: Any) -> bool:
        """False only if the tensor is known to hold something else than float32."""
        if tensor.dtype is not None:
            try:
                return bool(np.dtype(tensor.dtype) == np.float32)
            except TypeError:
                return False
        return True

    def graph_node(self, name: str) -> gs.Node:
        """A node of this graph by its name."""
        return self.by_name[name]

    def sole_consumer(self, tensor: Any) -> gs.Node | None:
        """The only node that uses a tensor, if it is in this graph and the tensor is no output of it."""
        uses = self.consumers.get(tensor.name, [])
        return uses[0].node if len(uses) == 1 and not uses[0].path else None

    def only_edge(self, tensor: Any) -> gs.Node | None:
        """The only node of this graph that a tensor leads to, as runtimes count: graph outputs are no readers, and
        bodies read through the node that owns them.
        """
        found: dict[str, gs.Node] = {}
        edges = 0
        for use in self.consumers.get(tensor.name, []):
            if use.path:
                owner = use.path[0].rpartition("/")[0]
                edges += owner not in found
                found[owner] = self.by_name[owner]
            elif use.node is not None:
                edges += 1
                found[use.node.name] = use.node
        return next(iter(found.values())) if edges == 1 else None

    def declared_float(self, node: gs.Node) -> bool:
        """True if the node computes on floats: at least one input and one output may be float32."""
        return any(self.is_float(t) for t in node.outputs) and any(self.is_float(t) for t in node.inputs if t.name)


def every(graph: gs.Graph, shapes: Mapping[str, Shape]) -> Iterator[Facts]:
    """Of the main graph and of each body in it, outermost first."""
    known: dict[GraphPath, Facts] = {}
    for path, inner in walk.graphs(graph):
        known[path] = Facts(inner, shapes, path, known[path[:-1]] if path else None)
        yield known[path]
