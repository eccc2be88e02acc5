"""Least and greatest values of tensors inside the bodies of If, Loop and Scan, carried out to the main graph.

A body gives four vectors over its tensors: least value, greatest value, a sum that is NaN if a value was, and elements
seen. Neutral are +inf, -inf, 0 and 0, so that "never reached" is a count of 0 and combining is min, max, + and +:

1. If: each branch gives its own vectors, and neutral ones for the other.
2. Loop and Scan: the vectors travel along as further state, from neutral ones; no iteration is kept.
3. A body inside a body: its vectors are joined to those of the body around it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.ir import walk
from onnxq.ir.model import Model
from onnxq.ir.walk import tensor_names, unique_name

KINDS = ("min", "max", "sum", "count")
_NEUTRAL: Mapping[str, Any] = {"min": np.float32(np.inf), "max": np.float32(-np.inf), "sum": np.float32(0), "count": 0}
_JOIN = {"min": "Min", "max": "Max", "sum": "Add", "count": "Add"}
_REDUCE = {"min": "ReduceMin", "max": "ReduceMax", "sum": "ReduceSum", "count": "Size"}
_FLOAT = 1


@dataclass(frozen=True, kw_only=True)
class Block:
    """Tensors of which one control-flow node of the main graph (or one branch of it) gives vectors.

    Attributes:
        tensors: names, of all levels below.
        outputs: kind -> output of the main graph, float32 [tensors], int64 [tensors] for "count".
    """

    tensors: tuple[str, ...]
    outputs: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Inside:
    """A model that tells of tensors in its bodies.

    Attributes:
        model: with more outputs on its control-flow nodes.
        blocks: what they hold.
    """

    model: Model
    blocks: tuple[Block, ...]

    @property
    def outputs(self) -> list[str]:
        """Names to fetch besides the taps."""
        return [name for block in self.blocks for name in block.outputs.values()]

    def read(self, found: Mapping[str, NDArray[Any]]) -> dict[str, tuple[np.float32, np.float32, bool, int]]:
        """Tensor -> least, greatest, whether there was NaN, and elements, of one run; only what was reached."""
        out = {}
        for block in self.blocks:
            low, high, total, count = (found[block.outputs[k]].reshape(-1) for k in KINDS)
            for i, name in enumerate(block.tensors):
                if count[i]:
                    out[name] = (low[i], high[i], bool(np.isnan(total[i])), int(count[i]))
        return out


def inside(model: Model, tensors: Collection[str], floats: Collection[str]) -> Inside:
    """Let a model tell of tensors in its bodies.

    Args:
        model: not changed; the new one shares its arrays.
        tensors: names of any graph; those of the main graph are passed over.
        floats: names of all tensors known to be floating point; others are passed over.
    """
    wanted = {n for n in tensors if n in floats}
    holders = {path[0] for path, g in walk.graphs(model.graph) if path and any(n in wanted for n in _own(g, wanted))}
    if not holders:
        return Inside(model=model, blocks=())
    graph = walk.copy(model.graph)
    graph.import_domains, graph.functions = model.graph.import_domains, model.graph.functions
    graph.ir_version = model.graph.ir_version
    maker = _Maker(tensor_names(graph), wanted)
    blocks = [block for node in list(graph.nodes) for block in maker.node(node)]
    return Inside(
        model=replace(model, graph=graph),
        blocks=tuple(Block(tensors=n, outputs={k: v.name for k, v in vs.items()}) for n, vs in blocks),
    )


_Vectors = dict[str, Any]
"""Kind -> variable."""


class _Maker:
    def __init__(self, names: set[str], wanted: Collection[str]) -> None:
        self.names, self.wanted = names, wanted

    def node(self, node: gs.Node) -> list[tuple[tuple[str, ...], _Vectors]]:
        """Give a control-flow node its further outputs; names and vectors of each block, none for other nodes."""
        if node.op == "If":
            return self._if(node)
        if node.op in ("Loop", "Scan"):
            return self._loop(node)
        return []

    def _if(self, node: gs.Node) -> list[tuple[tuple[str, ...], _Vectors]]:
        branches = ("then_branch", "else_branch")
        made = [(branch, *self._body(node.attrs[branch])) for branch in branches]
        blocks = []
        for branch, tensors, vectors in made:
            if not tensors:
                continue
            outer = self._vectors("if")
            for other in branches:
                given = vectors if other == branch else self._neutral(node.attrs[other], len(tensors))
                node.attrs[other].outputs.extend(given[k] for k in KINDS)
            node.outputs.extend(outer[k] for k in KINDS)
            blocks.append((tensors, outer))
        return blocks

    def _loop(self, node: gs.Node) -> list[tuple[tuple[str, ...], _Vectors]]:
        body: gs.Graph = node.attrs["body"]
        tensors, vectors = self._body(body)
        if not tensors:
            return []
        if node.op == "Loop":  # inputs M, cond, states; body (i, cond, states) -> (cond, states, scans)
            states = len(node.inputs) - 2
            at_input, at_body_input, at_body_output, at_output = len(node.inputs), 2 + states, 1 + states, states
        else:  # inputs states, scans; body (states, slices) -> (states, scans)
            states = len(node.inputs) - int(node.attrs["num_scan_inputs"])
            at_input = at_body_input = at_body_output = at_output = states
        start = {k: gs.Constant(self._new(f"{k}_start"), self._empty(k, len(tensors))) for k in KINDS}
        before, after, outer = self._vectors("before"), self._vectors("after"), self._vectors("loop")
        for kind in KINDS:
            before[kind].dtype, before[kind].shape = start[kind].values.dtype, (len(tensors),)
            body.nodes.append(gs.Node(_JOIN[kind], after[kind].name, {}, [before[kind], vectors[kind]], [after[kind]]))
        _insert(node.inputs, at_input, [start[k] for k in KINDS])
        _insert(body.inputs, at_body_input, [before[k] for k in KINDS])
        _insert(body.outputs, at_body_output, [after[k] for k in KINDS])
        _insert(node.outputs, at_output, [outer[k] for k in KINDS])
        return [(tensors, outer)]

    def _body(self, graph: gs.Graph) -> tuple[tuple[str, ...], _Vectors]:
        """Names of the wanted tensors of a body and the bodies in it, and its vectors."""
        blocks = [block for node in list(graph.nodes) for block in self.node(node)]
        own = _own(graph, self.wanted)
        if own:
            blocks.insert(0, (tuple(own), self._reduced(graph, own)))
        if not blocks:
            return (), {}
        whole = self._vectors("body")
        for kind in KINDS:
            parts = [vectors[kind] for _, vectors in blocks]
            graph.nodes.append(gs.Node("Concat", whole[kind].name, {"axis": 0}, parts, [whole[kind]]))
        return tuple(name for tensors, _ in blocks for name in tensors), whole

    def _reduced(self, graph: gs.Graph, names: list[str]) -> _Vectors:
        whole = self._vectors("own")
        one = gs.Constant(self._new("one"), np.array([1], dtype=np.int64))
        parts: dict[str, list[gs.Variable]] = {k: [] for k in KINDS}
        for name in names:
            single = gs.Variable(self._new(f"{name}_float"))
            graph.nodes.append(gs.Node("Cast", single.name, {"to": _FLOAT}, [gs.Variable(name)], [single]))
            for kind in KINDS:
                scalar, flat = (gs.Variable(self._new(f"{name}_{kind}")) for _ in range(2))
                attrs = {} if kind == "count" else {"keepdims": 0}
                graph.nodes.append(gs.Node(_REDUCE[kind], scalar.name, attrs, [single], [scalar]))
                graph.nodes.append(gs.Node("Reshape", flat.name, {}, [scalar, one], [flat]))
                parts[kind].append(flat)
        for kind in KINDS:
            graph.nodes.append(gs.Node("Concat", whole[kind].name, {"axis": 0}, parts[kind], [whole[kind]]))
        return whole

    def _neutral(self, graph: gs.Graph, size: int) -> _Vectors:
        """Vectors of a branch for tensors of the other one."""
        vectors = self._vectors("neutral")
        for kind, variable in vectors.items():
            constant = gs.Constant(self._new(f"{kind}_neutral"), self._empty(kind, size))
            graph.nodes.append(gs.Node("Identity", variable.name, {}, [constant], [variable]))
        return vectors

    def _empty(self, kind: str, size: int) -> NDArray[Any]:
        return np.full(size, _NEUTRAL[kind], dtype=np.int64 if kind == "count" else np.float32)

    def _vectors(self, label: str) -> _Vectors:
        """New variables, typed: a body must say the types of what it gives."""
        return {
            k: gs.Variable(self._new(f"{label}_{k}"), np.dtype(np.int64 if k == "count" else np.float32), None)
            for k in KINDS
        }

    def _new(self, base: str) -> str:
        return unique_name(self.names, f"onnxq_{base}")


def _own(graph: gs.Graph, wanted: Collection[str]) -> list[str]:
    """The wanted tensors that a body takes from its node or makes itself."""
    names = [t.name for t in graph.inputs] + [t.name for node in graph.nodes for t in node.outputs]
    return [n for n in dict.fromkeys(names) if n in wanted]


def _insert(tensors: list[Any], place: int, more: list[Any]) -> None:
    """`tensors[place:place] = more`; without graphsurgeon's back references, which nobody reads in our copy."""
    list.__setitem__(tensors, slice(place, place), more)
