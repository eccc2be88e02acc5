"""Edits of a graph and of its If/Loop/Scan bodies, in linear time, by identity.

graphsurgeon's own lists compare nodes deeply, one by one, whenever an element leaves them. `Editor` therefore records
what is removed, inserted and rewired, answers questions about the graph as it will be, and rebuilds each touched list
once in `commit()`.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.ir import walk
from onnxq.pipeline.base import Report

FLOAT, FLOAT16, DOUBLE, BFLOAT16 = 1, 10, 11, 16
"""TensorProto.DataType of the float types that the passes name."""


class Editor:
    """The edits of one pass.

    Attributes:
        bodies: the main graph and every subgraph, outermost first.
    """

    def __init__(self, graph: gs.Graph) -> None:
        self.main = graph
        self.bodies: list[gs.Graph] = [body for _, body in walk.graphs(graph)]
        self._body: dict[int, gs.Graph] = {}
        self._node_names: set[str] = set()
        self._tensor_names: set[str] = set()
        self._outputs: set[int] = set()
        self._dead: dict[int, gs.Node] = {}
        self._before: dict[int, list[gs.Node]] = {}
        self._after: dict[int, list[gs.Node]] = {}
        self._top: dict[int, list[gs.Node]] = {}
        self._touched: dict[int, gs.Tensor] = {}
        self._users: dict[int, tuple[gs.Tensor, OrderedDict[int, gs.Node]]] = {}
        self._numbers: dict[str, int] = {}
        for body in self.bodies:
            self._outputs.update(id(t) for t in body.outputs)
            self._tensor_names.update(t.name for t in [*body.inputs, *body.outputs])
            for node in body.nodes:
                self._body[id(node)] = body
                self._node_names.add(node.name)
                self._tensor_names.update(t.name for t in node.inputs)
                self._tensor_names.update(t.name for t in node.outputs)

    # Questions

    def live(self, body: gs.Graph | None = None, ops: Iterable[str] | None = None) -> Iterator[gs.Node]:
        """Nodes that the graph had at the start and still has.

        Args:
            body: only of this graph.
            ops: only these operators of the standard domain.
        """
        wanted = None if ops is None else frozenset(ops)
        for one in self.bodies if body is None else (body,):
            for node in one.nodes:
                if id(node) not in self._dead and (wanted is None or (node.op in wanted and standard(node))):
                    yield node

    def alive(self, node: gs.Node) -> bool:
        """True until the node is removed."""
        return id(node) not in self._dead

    def body(self, node: gs.Node) -> gs.Graph:
        """The graph or subgraph that holds the node."""
        return self._body[id(node)]

    def producer(self, tensor: gs.Tensor) -> gs.Node | None:
        """The node that computes a tensor, or None for inputs, constants and omitted inputs."""
        for node in tensor.inputs:
            if id(node) not in self._dead and any(t is tensor for t in node.outputs):
                return node
        return None

    def uses(self, tensor: gs.Tensor) -> Iterator[tuple[gs.Node, int]]:
        """Each (consumer, input slot), in every body; graph outputs do not count. Edit after iterating, not while."""
        for node in self._readers(tensor).values():
            for slot, source in enumerate(node.inputs):
                if source is tensor:
                    yield node, slot

    def is_output(self, tensor: gs.Tensor) -> bool:
        """True for outputs of the main graph and of bodies."""
        return id(tensor) in self._outputs

    def only_use(self, tensor: gs.Tensor) -> tuple[gs.Node, int] | None:
        """The one (consumer, slot), or None if there are none or several, or if the tensor is an output."""
        if self.is_output(tensor):
            return None
        first: tuple[gs.Node, int] | None = None
        for use in self.uses(tensor):
            if first is not None:
                return None
            first = use
        return first

    def private(self, tensor: gs.Tensor, nodes: Iterable[gs.Node]) -> bool:
        """True if nothing but `nodes` reads the tensor: it may vanish with them."""
        inside = {id(n) for n in nodes}
        return not self.is_output(tensor) and all(id(n) in inside for n, _ in self.uses(tensor))

    # Edits

    def remove(self, node: gs.Node) -> None:
        """Take a node out, with everything in its bodies."""
        self._dead[id(node)] = node
        self._touch(*node.inputs, *node.outputs)
        for tensor in node.inputs:
            self._forget(tensor, node)
        for body in node.subgraphs():
            for inner in body.nodes:
                self.remove(inner)

    def set_input(self, node: gs.Node, slot: int, tensor: gs.Tensor) -> None:
        """Let one input slot read another tensor."""
        self.set_inputs(node, [*node.inputs[:slot], tensor, *node.inputs[slot + 1 :]])

    def set_inputs(self, node: gs.Node, tensors: Sequence[gs.Tensor]) -> None:
        """Replace all inputs of a node."""
        self._touch(*node.inputs)
        for tensor in node.inputs:
            self._forget(tensor, node)
        list.__setitem__(node.inputs, slice(None), tensors)
        for tensor in tensors:
            self._read(tensor, node)

    def set_output(self, node: gs.Node, slot: int, tensor: gs.Tensor) -> None:
        """Let one output slot of a node write another tensor; whoever wrote that tensor before must be removed."""
        self._touch(node.outputs[slot])
        list.__setitem__(node.outputs, slot, tensor)
        list.append(tensor.inputs, node)

    def replace_uses(self, old: gs.Tensor, new: gs.Tensor) -> None:
        """Let every consumer of `old` read `new` (graph outputs keep `old`)."""
        for node, slot in list(self.uses(old)):
            self.set_input(node, slot, new)

    def bypass(self, node: gs.Node, slot: int = 0) -> str | None:
        """Remove a node whose output 0 equals its input `slot`; names of outputs stay.

        Returns:
            None if that was done, else why it cannot be.
        """
        source, result = node.inputs[slot], node.outputs[0]
        if not self.is_output(result):
            self.replace_uses(result, source)
            self.remove(node)
            return None
        maker = self.producer(source)
        if maker is None or self.body(maker) is not self.body(node):
            return "it joins an input or a constant to an output of the graph"
        if self.is_output(source):
            return "it joins two outputs of the graph"
        self.remove(node)
        self.replace_uses(source, result)
        self.set_output(maker, next(i for i, t in enumerate(maker.outputs) if t is source), result)
        return None

    def insert(
        self, node: gs.Node, *, before: gs.Node | None = None, after: gs.Node | None = None, top: gs.Graph | None = None
    ) -> None:
        """Put a new node before or after one that the graph had at the start, or at the top of a body."""
        anchor = before if before is not None else after
        body = top if top is not None else self._body[id(anchor)]
        places = self._before if before is not None else self._after
        (self._top.setdefault(id(body), []) if anchor is None else places.setdefault(id(anchor), [])).append(node)
        self._body[id(node)] = body

    def node(
        self,
        op: str,
        inputs: Sequence[gs.Tensor],
        outputs: Sequence[gs.Tensor],
        *,
        name: str,
        attrs: dict[str, Any] | None = None,
        domain: str | None = None,
    ) -> gs.Node:
        """A new node, not yet placed, under a unique name; the former producers of its outputs must be removed."""
        node = gs.Node(op, name=self.fresh_node(name), attrs=dict(attrs or {}), domain=domain)
        for tensor in inputs:
            list.append(node.inputs, tensor)
            self._read(tensor, node)
        for tensor in outputs:
            list.append(node.outputs, tensor)
            list.append(tensor.inputs, node)
        return node

    def fuse(
        self,
        root: gs.Node,
        matched: Iterable[gs.Node],
        op: str,
        inputs: Sequence[gs.Tensor],
        report: Report,
        *,
        attrs: dict[str, Any] | None = None,
        domain: str | None = None,
    ) -> gs.Node:
        """Replace `matched` nodes, whose result is output 0 of `root`, by one new node in the place of `root`."""
        for node in matched:
            self.remove(node)
        new = self.node(op, inputs, [root.outputs[0]], name=f"{root.name}_{op}", attrs=attrs, domain=domain)
        self.insert(new, before=root)
        report.renamed[new.name] = root.name
        report.rewrites += 1
        return new

    def constant(self, name: str, values: NDArray[Any]) -> gs.Constant:
        """A new constant under a unique name that starts with `name`."""
        return gs.Constant(self.fresh_tensor(name), np.ascontiguousarray(values) if values.ndim else values)

    def variable(self, name: str, like: gs.Tensor) -> gs.Variable:
        """A new tensor with the type and shape of another one, under a unique name that starts with `name`."""
        return gs.Variable(self.fresh_tensor(name), dtype=like.dtype, shape=like.shape)

    def fresh_node(self, name: str) -> str:
        """`name`, or `name_1`, `name_2` ... if it is taken by a node."""
        return _fresh(name, self._node_names, self._numbers)

    def fresh_tensor(self, name: str) -> str:
        """`name`, or `name_1`, `name_2` ... if it is taken by a tensor."""
        return _fresh(name, self._tensor_names, self._numbers)

    def commit(self) -> None:
        """Make the edits real: each touched list is rebuilt once."""
        for body in self.bodies:
            nodes: list[gs.Node] = list(self._top.get(id(body), ()))
            for node in body.nodes:
                nodes += self._before.get(id(node), ())
                nodes.append(node)
                nodes += self._after.get(id(node), ())
            body.nodes = [n for n in nodes if id(n) not in self._dead]
        for tensor in self._touched.values():
            maker = self.producer(tensor)
            list.__setitem__(tensor.outputs, slice(None), [n for n, _ in self.uses(tensor)])
            list.__setitem__(tensor.inputs, slice(None), [] if maker is None else [maker])
        for node in self._dead.values():
            list.clear(node.inputs)
            list.clear(node.outputs)
        self._before, self._after, self._top, self._touched, self._dead, self._users = {}, {}, {}, {}, {}, {}

    def _readers(self, tensor: gs.Tensor) -> OrderedDict[int, gs.Node]:
        """The living nodes that read a tensor; looked up once, kept up to date by the edits."""
        known = self._users.get(id(tensor))
        if known is None:
            living = (n for n in tensor.outputs if id(n) not in self._dead)
            known = tensor, OrderedDict((id(n), n) for n in living if any(t is tensor for t in n.inputs))
            self._users[id(tensor)] = known
        return known[1]

    def _read(self, tensor: gs.Tensor, node: gs.Node) -> None:
        list.append(tensor.outputs, node)
        known = self._users.get(id(tensor))
        if known is not None:
            known[1][id(node)] = node

    def _forget(self, tensor: gs.Tensor, node: gs.Node) -> None:
        known = self._users.get(id(tensor))
        if known is not None:
            known[1].pop(id(node), None)

    def _touch(self, *tensors: gs.Tensor) -> None:
        for tensor in tensors:
            self._touched[id(tensor)] = tensor


def _fresh(name: str, taken: set[str], numbers: dict[str, int]) -> str:
    candidate = name
    while candidate in taken or not candidate:
        numbers[name] = numbers.get(name, 0) + 1
        candidate = f"{name}_{numbers[name]}"
    taken.add(candidate)
    return candidate


# Questions about single tensors and nodes


def standard(node: gs.Node) -> bool:
    """True for operators of the ONNX standard domain."""
    return node.domain in (None, "", "ai.onnx")


def is_constant(tensor: gs.Tensor) -> bool:
    """True for constants; False for produced tensors, graph inputs and omitted inputs."""
    return isinstance(tensor, gs.Constant)


def scalar(tensor: gs.Tensor) -> float | None:
    """The value of a numeric constant with one element, else None."""
    if not isinstance(tensor, gs.Constant) or math.prod(tensor.shape) != 1:
        return None
    values = np.asarray(tensor.values)
    return None if values.dtype.kind in ("O", "U", "S") else float(values.astype(np.float64).reshape(()))


def ints(tensor: gs.Tensor) -> list[int] | None:
    """The elements of an integer constant, else None."""
    if not isinstance(tensor, gs.Constant):
        return None
    values = np.asarray(tensor.values)
    return [int(v) for v in values.reshape(-1)] if values.dtype.kind in ("i", "u") else None


def static_shape(tensor: gs.Tensor) -> tuple[int, ...] | None:
    """The shape if every dimension is a known number, else None."""
    shape = tensor.shape
    if shape is None or not all(isinstance(d, (int, np.integer)) and d >= 0 for d in shape):
        return None
    return tuple(int(d) for d in shape)


def rank(tensor: gs.Tensor) -> int | None:
    """Number of dimensions, or None if unknown."""
    return None if tensor.shape is None else len(tensor.shape)


def input_at(node: gs.Node, slot: int) -> gs.Tensor | None:
    """The input in a slot, or None if it is omitted."""
    return node.inputs[slot] if slot < len(node.inputs) and node.inputs[slot].name else None


def float_type(tensor: gs.Tensor) -> int | None:
    """FLOAT, FLOAT16, BFLOAT16 or DOUBLE; None for other and for unknown types."""
    dtype = tensor.dtype
    if dtype is None:
        return None
    if isinstance(dtype, (int, np.integer)):
        return int(dtype) if int(dtype) in (FLOAT, FLOAT16, DOUBLE, BFLOAT16) else None
    return {"float32": FLOAT, "float16": FLOAT16, "float64": DOUBLE, "bfloat16": BFLOAT16}.get(np.dtype(dtype).name)
