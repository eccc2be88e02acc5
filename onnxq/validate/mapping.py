"""From a node of the file to the kernel it became in ORT's optimized graph.

ORT keeps a node's name when it swaps the operator (Conv -> QLinearConv), keeps the name of the last output when it
fuses several nodes, and keeps or extends the names of weights: these three are the evidence. Layout passes rename
everything and change no kernel's arithmetic, so the graph that is followed is made without them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import onnx_graphsurgeon as gs

from onnxq.validate.kernels import FAMILIES, HELPERS
from onnxq.validate.network import Network, names

_STEPS = 60


@dataclass(frozen=True)
class Mapping:
    """`file` is the model as saved, `graph` ORT's optimized form of it."""

    file: Network
    graph: Network

    def kernel(self, node: gs.Node) -> gs.Node | None:
        """The kernel that does the work of `node`; None if ORT removed it or, when heavy, if it is not found."""
        family = FAMILIES.get(node.op)
        named = self.graph.nodes.get(node.name)
        if named is not None and (family is None or named[1].op in family):
            return named[1]
        found = self._downstream(node)
        if family is None:
            return self._behind_helpers(found) if found is not None else None
        return self._by_weights(node, family) or (self._upstream(found, family) if found is not None else None)

    def _downstream(self, node: gs.Node) -> gs.Node | None:
        """The kernel that makes the first tensor at or behind the node's output that still exists."""
        queue = deque(names(node.outputs))
        seen = set(queue)
        while queue:
            tensor = queue.popleft()
            if tensor in self.graph.producers:
                return self.graph.producers[tensor]
            for use in self.file.consumers.get(tensor, ()):
                if use.node.op in ("Shape", "Size"):
                    continue
                for output in names(use.node.outputs):
                    if output not in seen:
                        seen.add(output)
                        queue.append(output)
        return None

    def _behind_helpers(self, kernel: gs.Node) -> gs.Node:
        """ORT puts Reshape and the like behind some fused kernels: skip what is not in the file."""
        for _ in range(_STEPS):
            if kernel.name in self.file.nodes or kernel.op not in HELPERS or not kernel.inputs:
                break
            before = self.graph.producers.get(kernel.inputs[0].name)
            if before is None:
                break
            kernel = before
        return kernel

    def _upstream(self, start: gs.Node, family: frozenset[str]) -> gs.Node | None:
        """The nearest kernel of the family at or before `start` that is not the work of another heavy node."""
        queue, seen = deque([start]), {id(start)}
        while queue and len(seen) <= _STEPS:
            kernel = queue.popleft()
            if kernel.op in family and kernel.name not in self._heavy:
                return kernel
            for before in self._before(kernel):
                if id(before) not in seen:
                    seen.add(id(before))
                    queue.append(before)
        return None

    def _before(self, kernel: gs.Node) -> Iterator[gs.Node]:
        for tensor in names(kernel.inputs):
            before = self.graph.producers.get(tensor)
            if before is not None:
                yield before

    def _by_weights(self, node: gs.Node, family: frozenset[str]) -> gs.Node | None:
        """The only kernel of the family that reads the node's weights, under their name or a name made from it."""
        own = self._weights(self.file, node)
        found: dict[int, gs.Node] = {}
        for weight in own:
            for kernel in self._readers.get(weight, ()):
                if kernel.op in family and (kernel.name == node.name or kernel.name not in self._heavy):
                    found[id(kernel)] = kernel
        return next(iter(found.values())) if len(found) == 1 else None

    @cached_property
    def _heavy(self) -> frozenset[str]:
        return frozenset(name for name, (_, n) in self.file.nodes.items() if n.op in FAMILIES)

    @cached_property
    def _readers(self) -> dict[str, list[gs.Node]]:
        """Weight name in the file -> heavy kernels that read it."""
        known = {c for _, n in self.file.nodes.values() if n.op in FAMILIES for c in self._weights(self.file, n)}
        found: dict[str, list[gs.Node]] = {}
        for _, kernel in self.graph.nodes.values():
            if kernel.op not in FAMILIES:
                continue
            for constant in self._weights(self.graph, kernel):
                base = constant
                while base and base not in known:
                    base = base.rpartition("_")[0]
                if base:
                    found.setdefault(base, []).append(kernel)
        return found

    @staticmethod
    def _weights(network: Network, node: gs.Node) -> list[str]:
        """Names of the constants of more than 16 elements that reach the node through Q, DQ and moves."""
        found: list[str] = []
        queue = deque(node.inputs)
        steps = 0
        while queue and steps < _STEPS:
            steps += 1
            tensor = queue.popleft()
            if isinstance(tensor, gs.Constant):
                if tensor.values.size > 16:
                    found.append(tensor.name)
            else:
                before = network.producers.get(tensor.name)
                if before is not None and (before.op in HELPERS or before.op in ("Concat", "Split", "Constant")):
                    queue.extend(before.inputs[:1])
        return found
