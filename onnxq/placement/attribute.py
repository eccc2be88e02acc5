"""Whose time is it? From the kernels of a profile to the nodes of the file and to conversions between int8 and float.

ORT keeps a node's name when it swaps the operator (with `_token_7` or the like behind it), and the name of the last
output when it fuses: as the name of the tensor, or, in its blocked layout, as the beginning of the kernel's name
(`<tensor>_nchwc`). What has neither name (layout conversions, expanded functions) belongs to its reader. Of an If whose
condition it knows, ORT puts the body in its place, with `_if_then_branch_` before the names of the body's tensors: that
is the If's time, as it is where the body stays.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxq.ir.walk import graphs
from onnxq.optable import ALIGNED, GATE, MOVES, ROWS
from onnxq.runtime.profile import KernelRun, Profile

_SUFFIX = re.compile(r"(_token_\d+|_nchwc|_nhwc)+$")
_INLINED = re.compile(r"^(_if_(then|else)_branch_)+")
_LAYOUT = frozenset({"Transpose", "ReorderInput", "ReorderOutput", "Reshape", "Squeeze", "Unsqueeze", "Cast"})
_CONV_SLOTS = 3
_FOR = {GATE: ("Mul",), ALIGNED: ("Conv",), ROWS: ("Conv",), MOVES: ("Gather", "Transpose")}
_ADDED = re.compile(rf"({'|'.join(_FOR)})(_\d+)?$")
"""Names of nodes that passes add, and the operators for which they do."""

NODE, QUANTIZE, DEQUANTIZE = "node", "quantize", "dequantize"
Owner = tuple[str, str]
"""(NODE, name of a node), or (QUANTIZE, tensor), (DEQUANTIZE, tensor)."""


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """Seconds of one run by owner, and how much each owner's kernel does at once.

    Attributes:
        nodes: node of the file -> seconds of its kernels.
        quantize, dequantize: tensor -> seconds of its conversions.
        lost: seconds of kernels without owner.
        into: node of the file that has no kernel of its own -> node whose kernel does its work.
        call: seconds that a run takes outside of its kernels.
    """

    nodes: Mapping[str, float]
    quantize: Mapping[str, float]
    dequantize: Mapping[str, float]
    lost: float
    into: Mapping[str, str]
    call: float = 0.0

    @property
    def total(self) -> float:
        """All seconds, those without owner included."""
        return math.fsum(
            [*self.nodes.values(), *self.quantize.values(), *self.dequantize.values(), self.lost, self.call]
        )

    def scaled(self, factor: float) -> Attribution:
        """All seconds by another clock."""
        nodes, quantize, dequantize = (
            {name: seconds * factor for name, seconds in each.items()}
            for each in (self.nodes, self.quantize, self.dequantize)
        )
        return Attribution(
            nodes=nodes,
            quantize=quantize,
            dequantize=dequantize,
            lost=self.lost * factor,
            into=self.into,
            call=self.call * factor,
        )


def attribute(profile: Profile, graph: gs.Graph) -> Attribution:
    """Give every kernel of a profile an owner in the graph that was profiled.

    What a run takes outside of kernels is shared by all of them alike.
    """
    between = profile.seconds - profile.call - profile.kernel_seconds
    share = max(between, 0.0) / max(len(profile.kernels), 1)
    owners = _Owners(profile, graph).find()
    sums: dict[str, dict[str, float]] = {kind: defaultdict(float) for kind in (NODE, QUANTIZE, DEQUANTIZE)}
    lost = 0.0
    for kernel in profile.kernels:
        owner = owners.get(kernel.name)
        if owner is None:
            lost += kernel.seconds + share
        else:
            sums[owner[0]][owner[1]] += kernel.seconds + share
    nodes = dict(sums[NODE])
    # a convolution that adds a residual keeps its own output's name
    adding = {owners[k.name][1] for k in profile.kernels if k.op.endswith("Conv") and len(k.inputs) > _CONV_SLOTS}
    return Attribution(
        nodes=nodes,
        quantize=dict(sums[QUANTIZE]),
        dequantize=dict(sums[DEQUANTIZE]),
        lost=lost,
        into=_into(graph, nodes, adding),
        call=profile.call,
    )


def conversion_of(node: gs.Node) -> Owner | None:
    """The tensor that a QuantizeLinear or DequantizeLinear converts; None for another node."""
    if node.op == "QuantizeLinear":
        return QUANTIZE, str(node.inputs[0].name)
    if node.op != "DequantizeLinear":
        return None
    source = node.inputs[0]
    while source.inputs and source.inputs[0].op != "QuantizeLinear" and source.inputs[0].inputs:
        source = source.inputs[0].inputs[0]  # moves of 8-bit values
    made = source.inputs[0] if source.inputs else None
    return DEQUANTIZE, str(made.inputs[0].name if made is not None and made.op == "QuantizeLinear" else source.name)


class _Owners:
    def __init__(self, profile: Profile, graph: gs.Graph) -> None:
        self.kernels = profile.kernels
        self.nodes = {n.name: n for n in graph.nodes}
        self.producer = {t.name: n for n in graph.nodes for t in n.outputs}
        self.inside = {
            t.name: path[0].rpartition("/")[0]
            for path, body in graphs(graph)
            for n in body.nodes
            for t in n.outputs
            if path and t.name
        }
        self.constants = {t.name for n in graph.nodes for t in n.inputs if isinstance(t, gs.Constant)}
        self.optimized = {n.name: n for n in profile.graph.graph.nodes}
        self.readers: dict[str, list[str]] = defaultdict(list)
        for node in profile.graph.graph.nodes:
            for tensor in node.inputs:
                if tensor.name:
                    self.readers[tensor.name].append(node.name)
        self.owners: dict[str, Owner] = {}

    def find(self) -> dict[str, Owner]:
        for kernel in self.kernels:
            owner = self._named(kernel)
            if owner is not None:
                self.owners[kernel.name] = owner
        for kernel in reversed(self.kernels):  # readers first
            if kernel.name not in self.owners:
                owner = self._by_reader(kernel)
                if owner is not None:
                    self.owners[kernel.name] = owner
        return self.owners

    def _named(self, kernel: KernelRun) -> Owner | None:
        if kernel.path:
            return NODE, kernel.path[0].rpartition("/")[0]
        plain = _SUFFIX.sub("", kernel.name)
        node = self.nodes.get(kernel.name) or self.nodes.get(plain)
        if node is not None:
            return self._owner(node)
        made = self.optimized.get(kernel.name)
        names = [plain, *(t.name for t in made.outputs)] if made is not None else [plain]
        for name in names:
            if name in self.producer:
                return self._owner(self.producer[name])
        for name in names:
            holder = self.inside.get(_INLINED.sub("", _SUFFIX.sub("", name))) if _INLINED.match(name) else None
            if holder is not None:
                return NODE, holder
        return None

    def _owner(self, node: gs.Node) -> Owner:
        owner = self._added(node.name) or conversion_of(node) or (NODE, node.name)
        if owner[0] == DEQUANTIZE and owner[1] in self.constants and node.outputs[0].outputs:
            return NODE, node.outputs[0].outputs[0].name  # a weight or a bias that is no part of an integer kernel
        return owner

    def _added(self, name: str) -> Owner | None:
        """For which node a node stands that a pass added behind insert-qdq."""
        found = _ADDED.search(name)
        base = self.nodes.get(name[: found.start()]) if found is not None else None
        return (NODE, base.name) if found is not None and base is not None and base.op in _FOR[found[1]] else None

    def _by_reader(self, kernel: KernelRun) -> Owner | None:
        made = self.optimized.get(kernel.name)
        if made is None:
            return None
        for tensor in made.outputs:
            for reader in self.readers.get(tensor.name, ()):
                owner = self.owners.get(reader)
                if owner is None:
                    continue
                if owner[0] == NODE and kernel.op.rpartition(".")[2] in _LAYOUT:
                    return owner
                before = self._before(owner)
                return owner if before is None else self._owner(before)
        return None

    def _before(self, owner: Owner) -> gs.Node | None:
        """The node of the file whose float result the owner reads first."""
        tensor = owner[1]
        if owner[0] == NODE:
            node = self.nodes.get(owner[1])
            if node is not None and any(isinstance(v, gs.Graph) for v in node.attrs.values()):
                return None  # what it reads first is a condition or a number of turns
            variables = [t.name for t in node.inputs if isinstance(t, gs.Variable)] if node is not None else []
            if not variables:
                return None
            tensor = variables[0]
        node = self.producer.get(tensor)
        while node is not None and conversion_of(node) is not None:
            node = self.producer.get(node.inputs[0].name)
        return node


def _into(graph: gs.Graph, owned: Mapping[str, float], adding: Container[str]) -> dict[str, str]:
    """For nodes that ORT fused into others: fusions keep the last output, so the work is done further down.

    Args:
        adding: convolutions whose kernel does the work of the Add behind them, too.
    """
    producer = {t.name: n.name for n in graph.nodes for t in n.outputs}
    readers: dict[str, list[gs.Node]] = defaultdict(list)
    for node in graph.nodes:
        for tensor in node.inputs:
            if tensor.name:
                readers[tensor.name].append(node)
    found: dict[str, str] = {}
    for node in reversed(list(graph.nodes)):  # topological: readers first
        if node.name in owned or conversion_of(node) is not None:
            continue
        made = (producer.get(t.name) for t in node.inputs)
        before = [name for name in made if name is not None and name in adding]
        if node.op == "Add" and before:
            found[node.name] = before[-1]
            continue
        for reader in _all_readers(node, readers):
            target = reader.name if reader.name in owned else found.get(reader.name)
            if target is not None:
                found[node.name] = target
                break
    return found


def _all_readers(node: gs.Node, readers: Mapping[str, list[gs.Node]]) -> Iterable[gs.Node]:
    for tensor in node.outputs:
        yield from readers.get(tensor.name, ())
