"""Walking graphs and the graphs inside their nodes, in linear time.

graphsurgeon's own ways are traps at 100,000 nodes: `nodes.remove(x)`, `x in nodes` and assigning to `node.inputs[i]`
compare nodes by content, and `Graph.toposort` recurses. The functions here go by identity.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

Path = tuple[str, ...]
"""Where a graph is: one step `node_name/attribute` per level, () is the main graph."""


class Consumer(NamedTuple):
    """One use of a tensor: input `slot` of `node` in the graph at `path`."""

    path: Path
    node: gs.Node
    slot: int


class Producer(NamedTuple):
    """Where a tensor comes from: output `slot` of `node` in the graph at `path`."""

    path: Path
    node: gs.Node
    slot: int


def graphs(graph: gs.Graph, path: Path = ()) -> Iterator[tuple[Path, gs.Graph]]:
    """The graph and all bodies of If, Loop and Scan in it, outermost first.

    The list of nodes is read when the generator gets there: don't add or remove nodes with bodies while walking.
    """
    yield path, graph
    for index, node in enumerate(graph.nodes):
        for name, value in node.attrs.items():
            if isinstance(value, gs.Graph):
                yield from graphs(value, (*path, f"{node.name or f'{node.op}#{index}'}/{name}"))


def consumers(graph: gs.Graph) -> dict[str, list[Consumer]]:
    """Tensor name -> its uses as an input of nodes, those in inner graphs included; needs unique names."""
    found: dict[str, list[Consumer]] = {}
    for path, inner in graphs(graph):
        for node in inner.nodes:
            for slot, tensor in enumerate(node.inputs):
                if tensor.name:
                    found.setdefault(tensor.name, []).append(Consumer(path, node, slot))
    return found


def producers(graph: gs.Graph) -> dict[str, Producer]:
    """Tensor name -> the node that makes it, inner graphs included; needs unique names."""
    return {
        tensor.name: Producer(path, node, slot)
        for path, inner in graphs(graph)
        for node in inner.nodes
        for slot, tensor in enumerate(node.outputs)
        if tensor.name
    }


def passed(node: gs.Node) -> Iterator[tuple[gs.Tensor, gs.Tensor]]:
    """(source, target) of what an If, Loop or Scan hands to and takes from its bodies, whole or in slices."""
    if node.op == "If":
        for branch in ("then_branch", "else_branch"):
            yield from zip(node.attrs[branch].outputs, node.outputs, strict=False)
    elif node.op == "Loop":
        body = node.attrs["body"]
        yield from zip(node.inputs[2:], body.inputs[2:], strict=False)
        yield from zip(body.outputs[1:], body.inputs[2:], strict=False)
        yield from zip(body.outputs[1:], node.outputs, strict=False)
    elif node.op == "Scan":
        body = node.attrs["body"]
        states = len(node.inputs) - int(node.attrs["num_scan_inputs"])
        yield from zip(node.inputs, body.inputs, strict=False)
        yield from zip(body.outputs[:states], body.inputs, strict=False)
        yield from zip(body.outputs, node.outputs, strict=False)


def outer_names(graph: gs.Graph) -> set[str]:
    """Names of the variables that a graph (with the graphs inside) takes from around it; constants do not count."""
    return set(_outer(graph))


def _outer(graph: gs.Graph) -> dict[str, None]:
    local = {t.name for t in graph.inputs}
    local.update(t.name for n in graph.nodes for t in n.outputs)
    found: dict[str, None] = {}
    for node in graph.nodes:
        for tensor in node.inputs:
            if tensor.name and isinstance(tensor, gs.Variable) and tensor.name not in local:
                found[tensor.name] = None
        for name in _inner_names(node):
            if name not in local:
                found[name] = None
    for tensor in graph.outputs:
        if isinstance(tensor, gs.Variable) and tensor.name not in local:
            found[tensor.name] = None
    return found


def _inner_names(node: gs.Node) -> dict[str, None]:
    """Names that the bodies of a node take from outside, in order."""
    found: dict[str, None] = {}
    for value in node.attrs.values():
        if isinstance(value, gs.Graph):
            found.update(_outer(value))
    return found


def remove_nodes(graph: gs.Graph, ids: Collection[int]) -> None:
    """Take the nodes with these `id()` out of one graph and cut their connections, in one pass over the list."""
    gone = set(ids)
    if not gone:
        return
    kept = []
    for node in graph.nodes:
        if id(node) not in gone:
            kept.append(node)
            continue
        for tensors, field in ((node.inputs, "outputs"), (node.outputs, "inputs")):
            for tensor in {id(t): t for t in tensors}.values():
                ends = getattr(tensor, field)
                if ends:
                    list.__setitem__(ends, slice(None), [n for n in ends if id(n) not in gone])
            list.clear(tensors)
    graph.nodes = kept


def set_input(node: gs.Node, slot: int, tensor: gs.Tensor) -> None:
    """`node.inputs[slot] = tensor` by identity (graphsurgeon compares the content of the old tensor's consumers)."""
    old = node.inputs[slot]
    for index, user in enumerate(old.outputs):
        if user is node:
            list.__delitem__(old.outputs, index)
            break
    list.__setitem__(node.inputs, slot, tensor)
    list.append(tensor.outputs, node)


def toposort(graph: gs.Graph) -> bool:
    """Put the nodes of a graph and of the graphs inside in topological order: iterative, and a sorted list stays.

    Nodes on a cycle keep their order at the end. Returns True if everything was in order already.
    """
    unchanged = True
    for _, inner in list(graphs(graph)):
        unchanged &= _toposort_one(inner)
    return unchanged


def _toposort_one(graph: gs.Graph) -> bool:
    nodes = graph.nodes
    made_by = {t.name: i for i, n in enumerate(nodes) for t in n.outputs if t.name}
    needs: list[set[int]] = []
    in_order = True
    for index, node in enumerate(nodes):
        names = [t.name for t in node.inputs if t.name]
        names.extend(_inner_names(node))
        wanted = {made_by[n] for n in names if n in made_by}
        needs.append(wanted)
        in_order &= all(i < index for i in wanted)
    if in_order:
        return True
    missing = [len(n) for n in needs]
    users: list[list[int]] = [[] for _ in nodes]
    for index, wanted in enumerate(needs):
        for producer in wanted:
            users[producer].append(index)
    ready = [i for i, count in enumerate(missing) if count == 0]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for user in users[index]:
            missing[user] -= 1
            if missing[user] == 0:
                heapq.heappush(ready, user)
    done = set(order)
    order.extend(i for i in range(len(nodes)) if i not in done)
    graph.nodes = [nodes[i] for i in order]
    return False


def copy(graph: gs.Graph) -> gs.Graph:
    """A copy of a graph and the graphs inside: new nodes and tensors, shared arrays.

    `gs.Graph.copy` loses doc strings, metadata and the types of sequences.
    """
    return _copy(graph, {})


def _copy(graph: gs.Graph, made: dict[int, gs.Tensor]) -> gs.Graph:
    def twin(tensor: gs.Tensor) -> gs.Tensor:
        known = made.get(id(tensor))
        if known is not None:
            return known
        new: gs.Tensor
        if isinstance(tensor, gs.Constant):
            new = gs.Constant(tensor.name, tensor.values)
        else:
            new = gs.Variable(tensor.name, tensor.dtype, tensor.shape, getattr(tensor, "type", "tensor_type"))
            info = getattr(tensor, "value_info", None)
            if info is not None:
                new.value_info = info
        if tensor.name:
            made[id(tensor)] = new
        return new

    inputs = [twin(t) for t in graph.inputs]
    nodes = []
    for node in graph.nodes:
        new = gs.Node(
            node.op, node.name, {}, [twin(t) for t in node.inputs], [twin(t) for t in node.outputs], node.domain
        )
        for extra in ("doc_string", "metadata_props"):
            if hasattr(node, extra):
                setattr(new, extra, getattr(node, extra))
        nodes.append(new)
    for node, new in zip(graph.nodes, nodes, strict=True):  # bodies last: they capture tensors of any node
        for name, value in node.attrs.items():
            if isinstance(value, gs.Graph):
                new.attrs[name] = _copy(value, made)
            else:
                new.attrs[name] = list(value) if isinstance(value, list) and value else value
    outputs = [twin(t) for t in graph.outputs]
    return gs.Graph(nodes, inputs, outputs, name=graph.name, doc_string=graph.doc_string, opset=graph.opset)


def tensor_names(graph: gs.Graph) -> set[str]:
    """All tensor names in a graph and the graphs inside."""
    names: set[str] = set()
    for _, inner in graphs(graph):
        names.update(t.name for t in (*inner.inputs, *inner.outputs))
        for node in inner.nodes:
            names.update(t.name for t in node.inputs)
            names.update(t.name for t in node.outputs)
    names.discard("")
    return names


def unique_name(taken: gs.Graph | set[str], base: str) -> str:
    """`base`, or `base_1`, `base_2`, ... whichever is not taken; with a set, the name is added to it.

    With a graph, all of it is searched on each call: build the set once with `tensor_names` for more than a few.

    >>> names = {"x", "x_1"}
    >>> unique_name(names, "x"), unique_name(names, "x")
    ('x_2', 'x_3')
    """
    names = taken if isinstance(taken, set) else tensor_names(taken)
    candidate = base
    number = 0
    while candidate in names:
        number += 1
        candidate = f"{base}_{number}"
    if isinstance(taken, set):
        taken.add(candidate)
    return candidate


def constant_array(tensor: Any) -> NDArray[Any] | None:
    """The values of a constant tensor (a memory map stays one), None for a variable."""
    if not isinstance(tensor, gs.Constant):
        return None
    values: NDArray[Any] = tensor.values
    return values if isinstance(values, np.memmap) else np.asarray(values)


def clip_bounds(node: gs.Node) -> tuple[float, float] | None:
    """The constant bounds of a Clip, of inputs or (below opset 11) attributes; infinite where absent; None if computed
    at run time.
    """
    bounds = [float(node.attrs.get("min", float("-inf"))), float(node.attrs.get("max", float("inf")))]
    for index, tensor in enumerate(node.inputs[1:3]):
        if tensor.name:
            values = constant_array(tensor)
            if values is None or values.size != 1:
                return None
            bounds[index] = float(values.reshape(-1)[0])
    return bounds[0], bounds[1]
