"""One model with a switch per quantized tensor: which of them are rounded is chosen anew in each run.

An activation gets an If node: on, QuantizeLinear and DequantizeLinear; off, the value itself. Where would be exact,
too, but computes both sides in every run: measured by `docs/measure_switches.py` (docs/sensitivity.md has the figures).
`x + enable * (DQ(Q(x)) - x)` is neither exact (the sum rounds) nor safe (infinity minus infinity is NaN).

A constant of the main graph gets no node at all: it becomes an initializer that a caller may override, and is fed
rounded where its switch is on. So no weight is dequantized or copied in a run. In a body of If, Loop or Scan nobody may
override: there, a constant gets an If that chooses between it and the rounded one. Bodies see the switches, which stand
around them.

All of it is meant for optimizations off, the reference semantics: with everything off, each kernel gets the bits that
it gets in the float model, with everything on those of the Q/DQ model (prepacking off in both, since a weight that may
be overridden is never packed).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.encoding import Affine, PerBlock, PerChannel, PerTensor
from onnxq.errors import PassError
from onnxq.ir import walk
from onnxq.ir.model import Model
from onnxq.numerics import dequantize, quantize
from onnxq.optable import OP_TABLE, data_slots
from onnxq.plan.plan import GraphPath, Plan, Use, Value
from onnxq.sensitivity.switches import ENABLE, Instrumented, Kind, Switch
from onnxq.stats.taps import COPIES, mask_tensors

SQUASHING = frozenset({"Softmax", "Sigmoid", "HardSigmoid", "Tanh"})
"""Ops that saturate: behind them noise does not add up, and where they are certain there is none to be seen."""

Holder = tuple[Any, str, int, Affine]
"""A quantized use: the node or graph that holds it, the node's name ("" for an output of the graph), slot, encoding."""


def instrument(model: Model, plan: Plan) -> Instrumented:
    """A copy of the float model with a switch for each tensor that the plan quantizes, in bodies, too.

    Args:
        model: the normalised float model that the plan was made for; does not change.

    Raises:
        PassError: the plan was made for another graph.
    """
    return _Instrumenting(model.copy(), plan).done()


@dataclass
class _Instrumenting:
    model: Model
    plan: Plan
    taken: set[str] = field(default_factory=set)
    pieces: list[gs.Variable] = field(default_factory=list)
    behind: dict[int, list[gs.Node]] = field(default_factory=dict)
    front: dict[GraphPath, list[gs.Node]] = field(default_factory=lambda: defaultdict(list))
    graphs: list[tuple[GraphPath, gs.Graph]] = field(default_factory=list)
    homes: dict[int, GraphPath] = field(default_factory=dict)

    def done(self) -> Instrumented:
        graph = self.model.graph
        self.graphs = list(walk.graphs(graph))
        for path, inner in self.graphs:
            self.homes.update((id(thing), path) for thing in (inner, *inner.nodes, *inner.inputs))
        self.taken = walk.tensor_names(graph) | {n.name for _, g in walk.graphs(graph) for n in g.nodes}
        names = [t.name for t in graph.outputs]
        places = {name: i for i, name in enumerate(n.name for _, g in self.graphs for n in g.nodes)}
        made: list[tuple[Switch, list[Any]]] = []  # and the nodes and graphs that depend on it
        found, before = self._tensors(), self._heads()
        followed = {tensor.name: self._followed(tensor, uses[0][3]) for tensor, uses in found}
        for tensor, uses in found:
            if isinstance(tensor, gs.Constant):
                made.append(self._constant(tensor, uses, places))
            else:
                made.append(self._activation(tensor, uses, places))
        self._arrange(graph)
        where = {id(node): i for i, node in enumerate(graph.nodes)}
        owners = {node.name: i for i, node in enumerate(graph.nodes)}

        def position(thing: Any) -> int:
            path = self.homes.get(id(thing), ())
            return owners[path[0].rpartition("/")[0]] if path else where[id(thing)]

        placed = [replace(s, position=min(map(position, by)), follows=followed[s.tensor]) for s, by in made]
        outputs = dict(zip(names, (t.name for t in graph.outputs), strict=True))
        heads: dict[str, str] = {}
        for output, (name, node) in before.items():
            at = node.inputs[0].name  # behind its switch
            key = name if outputs.get(name, at) == at else f"{name} in front of {node.name}"
            if at not in outputs.values():
                graph.outputs.append(gs.Variable(at))
            outputs[key] = at
            heads[output] = key
        fed = [name for s in placed for name, _ in s.constants]
        meta = self.model.meta
        kept = meta.overridable if meta.keep_overridable else []
        self.model.meta = replace(meta, overridable=[*kept, *fed], keep_overridable=True)
        return Instrumented(
            model=self.model,
            switches=tuple(sorted(placed, key=lambda s: s.position)),
            outputs=outputs,
            count=len(names),
            heads=heads,
        )

    def _tensors(self) -> list[tuple[Any, list[Holder]]]:
        """Every tensor with quantized uses, in the order of the graphs."""
        found: dict[int, tuple[Any, list[Holder]]] = {}
        seen = 0
        for path, inner in self.graphs:
            for holder, name, slot, tensor in _slots(inner):
                encoding = self.plan.uses.get(Use(path, name, slot))
                if encoding is not None:
                    seen += 1
                    found.setdefault(id(tensor), (tensor, []))[1].append((holder, name, slot, encoding))
        if seen != len(self.plan.uses):
            raise PassError(
                f"the plan speaks of {len(self.plan.uses)} uses, the graph has {seen} of them: it was made for another "
                "graph"
            )
        return list(found.values())

    def _heads(self) -> dict[str, tuple[str, gs.Node]]:
        """Output -> what the last op reads, and that op. Not for outputs that are quantized themselves; a mask among
        the values would be most of the signal. Asked before anything is edited.
        """
        graph = self.model.graph
        unfit = {*mask_tensors(graph), *(t.name for t in graph.inputs)}
        found: dict[str, tuple[str, gs.Node]] = {}
        for slot, tensor in enumerate(graph.outputs):
            node = tensor.inputs[0] if tensor.inputs else None
            while node is not None and node.op in COPIES and not node.domain:
                node = node.inputs[0].inputs[0] if node.inputs[0].inputs else None
            if Use((), "", slot) in self.plan.uses or node is None or node.op not in SQUASHING or node.domain:
                continue
            read = node.inputs[0]
            if not isinstance(read, gs.Variable) or read.name in unfit:
                continue
            maker = read.inputs[0] if read.inputs else None
            while maker is not None and maker.op in COPIES and not maker.domain:  # what it reads, by its first name
                before = maker.inputs[0]
                if Use((), node.name, 0) in self.plan.uses or not before.inputs or before.name in unfit:
                    break
                node, read, maker = maker, before, before.inputs[0]
            found[tensor.name] = read.name, node
        return found

    def _followed(self, tensor: Any, encoding: Affine) -> tuple[str, ...]:
        """Asked before anything is edited."""
        node = tensor.inputs[0] if tensor.inputs else None
        row = OP_TABLE.get(node.op) if node is not None else None
        if node is None or row is None or row.moves is None or row.moves(node) or row.fill is not None:
            return ()
        slots = [s for s in data_slots(node) if node.inputs[s].name]
        read = [self.plan.uses.get(Use(self.homes[id(node)], node.name, s)) for s in slots]
        if not isinstance(encoding.granularity, PerTensor) or any(e != encoding for e in read):
            return ()
        return tuple(dict.fromkeys(node.inputs[s].name for s in slots))

    def _constant(self, tensor: gs.Constant, uses: list[Holder], places: Mapping[str, int]) -> tuple[Switch, list[Any]]:
        """Uses of one encoding read one new initializer, since others may want the constant in float; uses in one body
        one If."""
        made: dict[tuple[object, ...], tuple[gs.Constant, Affine]] = {}
        inner: dict[tuple[GraphPath, object], gs.Node] = {}
        on: gs.Variable | None = None
        for holder, _name, slot, encoding in uses:
            path = self.homes[id(holder)]
            if path:
                on = on or self._piece(tensor)
                key = path, encoding.key
                if key not in inner:
                    rounded = dequantize(quantize(tensor.values, encoding), encoding)
                    inner[key] = self._if(tensor, on, [self._copy(tensor, gs.Constant(self._name("rounded"), rounded))])
                    self.front[path].append(inner[key])
                    self.homes[id(inner[key])] = path
                walk.set_input(holder, slot, inner[key].outputs[0])
                continue
            if encoding.key not in made:
                made[encoding.key] = gs.Constant(self._name(f"{tensor.name}_switched"), tensor.values), encoding
            walk.set_input(holder, slot, made[encoding.key][0])
        readers = [h for h, *_ in uses]
        first = min(readers, key=lambda n: places[n.name])
        kind: Kind = "bias" if uses[0][3].type == "int32" else "weight"
        switch = Switch(
            tensor=tensor.name,
            kind=kind,
            node=first.name,
            op=first.op,
            units=self._units(uses, None, places),
            encoding=uses[0][3],
            flag=None if on is None else len(self.pieces) - 1,
            constants=tuple((constant.name, encoding) for constant, encoding in made.values()),
        )
        return switch, readers

    def _activation(
        self, tensor: gs.Variable, uses: list[Holder], places: Mapping[str, int]
    ) -> tuple[Switch, list[Any]]:
        maker = tensor.inputs[0] if tensor.inputs else None
        here = self.homes[id(tensor if maker is None else maker)]
        on = self._piece(tensor)
        nodes = self.behind.setdefault(id(maker), []) if maker is not None else self.front[here]
        made: dict[tuple[object, ...], gs.Node] = {}
        for holder, _, slot, encoding in uses:
            written = self._written(tensor.name, self.homes[id(holder)]) or encoding
            key = written.key, encoding.key
            if key not in made:
                made[key] = self._either(tensor, on, encoding, written)
                nodes.append(made[key])
                self.homes[id(made[key])] = here
            switched = made[key].outputs[0]
            if isinstance(holder, gs.Graph):
                holder.outputs[slot] = switched
            else:
                walk.set_input(holder, slot, switched)
        switch = Switch(
            tensor=tensor.name,
            kind="activation",
            node="" if maker is None else maker.name,
            op="" if maker is None else maker.op,
            units=self._units(uses, maker, places),
            encoding=uses[0][3],
            flag=len(self.pieces) - 1,
        )
        return switch, list(made.values())

    def _written(self, tensor: str, path: GraphPath) -> Affine | None:
        """The encoding of the Q that a use in a graph reads: of the nearest graph around that has a value."""
        values = (self.plan.values.get(Value(path[:depth], tensor)) for depth in range(len(path), -1, -1))
        return next((value for value in values if value is not None), None)

    def _piece(self, tensor: Any) -> gs.Variable:
        on = gs.Variable(self._name(f"{tensor.name}_on"), dtype=np.bool_, shape=(1,))
        self.pieces.append(on)
        return on

    def _copy(self, near: Any, tensor: Any) -> gs.Node:
        result = gs.Variable(self._name(f"{near.name}_same"), dtype=np.float32)
        return gs.Node("Identity", self._name(f"{near.name}_keep"), {}, [tensor], [result])

    def _if(self, tensor: Any, on: gs.Variable, rounding: list[gs.Node]) -> gs.Node:
        """On: these nodes, of which the last gives the result; off: the tensor itself."""
        keeping = self._copy(tensor, tensor)
        out = gs.Variable(self._name(f"{tensor.name}_switched"), dtype=np.float32, shape=tensor.shape)
        opset = self.model.opset
        branches = {
            "then_branch": gs.Graph(rounding, [], list(rounding[-1].outputs), name="rounded", opset=opset),
            "else_branch": gs.Graph([keeping], [], list(keeping.outputs), name="float", opset=opset),
        }
        return gs.Node("If", self._name(f"{tensor.name}_switch"), branches, [on], [out])

    def _either(self, tensor: gs.Variable, on: gs.Variable, wanted: Affine, written: Affine) -> gs.Node:
        """An If: Q as `written` (one scale, whatever the use's granularity) and DQ as `wanted`, or the value."""
        scale, zero = (np.asarray(p) for p in (written.scale, written.zero_point))
        if scale.ndim:  # per axis with equal scales
            scale, zero = scale.reshape(-1)[0], zero.reshape(-1)[0]
        base = tensor.name
        constants = [
            gs.Constant(self._name(f"{base}_{what}"), np.asarray(values))
            for what, values in (
                ("q_scale", scale), ("q_zero", zero), ("scale", wanted.scale), ("zero", wanted.zero_point),
            )
        ]  # fmt: skip
        integers = gs.Variable(self._name(f"{base}_integers"), dtype=np.dtype(written.type))
        rounded = gs.Variable(self._name(f"{base}_rounded"), dtype=np.float32)
        quantizing = [
            gs.Node("QuantizeLinear", self._name(f"{base}_Q"), {}, [tensor, *constants[:2]], [integers]),
            gs.Node("DequantizeLinear", self._name(f"{base}_DQ"), _axis(wanted), [integers, *constants[2:]], [rounded]),
        ]
        return self._if(tensor, on, quantizing)

    def _units(self, uses: list[Holder], maker: gs.Node | None, places: Mapping[str, int]) -> tuple[str, ...]:
        """The integer ops that make or read a tensor.

        Of a bias that a float Add reads, it is the integer op in front; where there is none, the readers themselves.
        """
        readers = [holder for holder, *_ in uses if isinstance(holder, gs.Node)]
        near = [*readers, *([maker] if maker is not None else [])]
        behind = [node for reader in readers for t in reader.inputs for node in t.inputs]
        decisions = self.plan.decisions
        for nodes in (near, behind):
            found = {n.name for n in nodes if n.name in decisions and decisions[n.name].integer}
            if found:
                break
        else:
            found = {n.name for n in readers if n.name in places}
        return tuple(sorted(found, key=places.__getitem__))

    def _arrange(self, graph: gs.Graph) -> None:
        nodes: list[gs.Node] = []
        if self.pieces:
            vector = gs.Variable(self._name(ENABLE), dtype=np.bool_, shape=(len(self.pieces),))
            vector.name = ENABLE
            graph.inputs.append(vector)
            counted = {"num_outputs": len(self.pieces)} if self.model.opset >= 18 else {}
            attributes = {"axis": 0, **counted}
            nodes.append(gs.Node("Split", self._name("onnxq_enable_split"), attributes, [vector], self.pieces))
        for path, inner in self.graphs:
            first = [*nodes, *self.front[path]] if not path else list(self.front[path])
            inner.nodes = first + [one for node in inner.nodes for one in (node, *self.behind.get(id(node), ()))]

    def _name(self, wish: str) -> str:
        return walk.unique_name(self.taken, wish)


def _slots(graph: gs.Graph) -> Iterator[tuple[Any, str, int, Any]]:
    for node in graph.nodes:
        for slot, tensor in enumerate(node.inputs):
            yield node, node.name, slot, tensor
    for slot, tensor in enumerate(graph.outputs):
        yield graph, "", slot, tensor


def _axis(encoding: Affine) -> dict[str, int]:
    match encoding.granularity:
        case PerChannel(axis):
            return {"axis": axis}
        case PerBlock(axis, size):
            return {"axis": axis, "block_size": size}
        case _:
            return {}
