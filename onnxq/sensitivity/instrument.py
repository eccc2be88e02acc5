"""One model with a switch per quantized tensor: which of them are rounded is chosen anew in each run.

An activation gets an If node: on, QuantizeLinear and DequantizeLinear; off, the value itself. Where would be exact,
too, but computes both sides in every run: measured by `docs/measure_switches.py` (docs/sensitivity.md has the figures).
`x + enable * (DQ(Q(x)) - x)` is neither exact (the sum rounds) nor safe (infinity minus infinity is NaN).

A constant gets no node at all: it becomes an initializer that a caller may override, and is fed rounded where its
switch is on. So no weight is dequantized or copied in a run.

All of it is meant for optimizations off, the reference semantics: with everything off, each kernel gets the bits that
it gets in the float model, with everything on those of the Q/DQ model (prepacking off in both, since a weight that may
be overridden is never packed).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.encoding import Affine, PerBlock, PerChannel, PerTensor
from onnxq.errors import PassError
from onnxq.ir import walk
from onnxq.ir.model import Model
from onnxq.numerics import dequantize, quantize
from onnxq.optable import OP_TABLE, data_slots
from onnxq.plan.plan import Plan, Use
from onnxq.stats.taps import COPIES, mask_tensors

ENABLE = "onnxq_enable"
"""The input that turns activations on: bool, one element per activation."""

SQUASHING = frozenset({"Softmax", "Sigmoid", "HardSigmoid", "Tanh"})
"""Ops that saturate: behind them noise does not add up, and where they are certain there is none to be seen."""

Kind = Literal["activation", "weight", "bias"]

Holder = tuple[Any, str, int, Affine]
"""A quantized use: the node or graph that holds it, the node's name ("" for an output of the graph), slot, encoding."""


@dataclass(frozen=True, kw_only=True)
class Switch:
    """One quantized tensor.

    Attributes:
        tensor: its name in the float model.
        kind: `bias` is a constant of 32 bits.
        node, op: what makes the activation, "" for an input of the model; what reads the constant first.
        units: the integer ops that make or read it, in the order of the graph; of a bias that a float Add reads, the op
            in front.
        type: of the integers.
        flag: position in the vector ENABLE; None for constants.
        constants: (initializer of the instrumented model, encoding); empty for activations.
        follows: tensors that this one is moved from, with its encoding: where these are rounded, rounding it changes
            nothing, since every value lies on its grid already.
        position: in the list of nodes of the instrumented model, the first that depends on the switch.
    """

    tensor: str
    kind: Kind
    node: str
    op: str
    units: tuple[str, ...]
    type: str
    flag: int | None = None
    constants: tuple[tuple[str, Affine], ...] = ()
    follows: tuple[str, ...] = ()
    position: int = 0


@dataclass(frozen=True, kw_only=True)
class Instrumented:
    """A model with switches.

    Attributes:
        model: ENABLE is a further input if there are activations.
        switches: in the order of the graph.
        outputs: what is measured -> where the instrumented model has it: the outputs of the float model by name, and
            what `heads` names.
        count: outputs of the float model, which come first.
        heads: output of the float model that a squashing op makes -> the tensor that this op reads.
        inner: uses in bodies of If, Loop and Scan that the plan quantizes and that have no switch: they are float.
    """

    model: Model
    switches: tuple[Switch, ...]
    outputs: Mapping[str, str]
    count: int
    heads: Mapping[str, str] = field(default_factory=dict)
    inner: int = 0

    @property
    def own(self) -> tuple[str, ...]:
        """The outputs of the float model."""
        return tuple(self.outputs)[: self.count]

    @property
    def flags(self) -> int:
        """Length of ENABLE."""
        return sum(s.flag is not None for s in self.switches)

    def feed(self, on: Collection[int], rounded: Rounded) -> dict[str, NDArray[Any]]:
        """The inputs that turn switches on, all others off.

        Args:
            on: positions in `switches`.
        """
        fed: dict[str, NDArray[Any]] = {}
        if self.flags:
            fed[ENABLE] = np.zeros(self.flags, dtype=np.bool_)
        for index in on:
            switch = self.switches[index]
            if switch.flag is not None:
                fed[ENABLE][switch.flag] = True
            fed.update((name, rounded[name]) for name, _ in switch.constants)
        return fed


class Rounded:
    """The rounded values of the constants that have a switch, by initializer of the instrumented model.

    Args:
        keep: what was made once; else it is made at each look.
    """

    def __init__(self, instrumented: Instrumented, *, keep: bool) -> None:
        self._encodings = {name: e for switch in instrumented.switches for name, e in switch.constants}
        self._values = {
            t.name: t.values
            for node in instrumented.model.graph.nodes
            for t in node.inputs
            if isinstance(t, gs.Constant) and t.name in self._encodings
        }
        self._keep = keep
        self._kept: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name in self._kept:
            return self._kept[name]
        encoding = self._encodings[name]
        found = dequantize(quantize(self._values[name], encoding), encoding)
        if self._keep:
            self._kept[name] = found
        return found


def instrument(model: Model, plan: Plan) -> Instrumented:
    """A copy of the float model with a switch for each tensor of the main graph that the plan quantizes.

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
    front: list[gs.Node] = field(default_factory=list)

    def done(self) -> Instrumented:
        graph = self.model.graph
        self.taken = walk.tensor_names(graph) | {n.name for _, g in walk.graphs(graph) for n in g.nodes}
        names = [t.name for t in graph.outputs]
        places = {name: i for i, name in enumerate(n.name for n in graph.nodes)}
        made: list[tuple[Switch, gs.Node]] = []  # and the first node that depends on it
        found, before = self._tensors(), self._heads()
        followed = {tensor.name: self._followed(tensor, uses[0][3]) for tensor, uses in found}
        for tensor, uses in found:
            if isinstance(tensor, gs.Constant):
                made.append(self._constant(tensor, uses, places))
            else:
                made.append(self._activation(tensor, uses, places))
        self._arrange(graph)
        where = {id(node): i for i, node in enumerate(graph.nodes)}
        placed = [replace(s, position=where[id(first)], follows=followed[s.tensor]) for s, first in made]
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
            inner=sum(bool(use.path) for use in self.plan.uses),
        )

    def _tensors(self) -> list[tuple[Any, list[Holder]]]:
        """Every tensor with quantized uses in the main graph, in its order."""
        found: dict[int, tuple[Any, list[Holder]]] = {}
        seen = 0
        for holder, name, slot, tensor in _slots(self.model.graph):
            encoding = self.plan.uses.get(Use((), name, slot))
            if encoding is not None:
                seen += 1
                found.setdefault(id(tensor), (tensor, []))[1].append((holder, name, slot, encoding))
        wanted = sum(not use.path for use in self.plan.uses)
        if seen != wanted:
            raise PassError(
                f"the plan speaks of {wanted} uses in the main graph, the graph has {seen} of them: it was made for "
                "another graph"
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
            if isinstance(read, gs.Variable) and read.name not in unfit:
                found[tensor.name] = read.name, node
        return found

    def _followed(self, tensor: Any, encoding: Affine) -> tuple[str, ...]:
        """Asked before anything is edited."""
        node = tensor.inputs[0] if tensor.inputs else None
        row = OP_TABLE.get(node.op) if node is not None else None
        if node is None or row is None or row.moves is None or row.moves(node) or row.fill is not None:
            return ()
        slots = [s for s in data_slots(node) if node.inputs[s].name]
        read = [self.plan.uses.get(Use((), node.name, s)) for s in slots]
        if not isinstance(encoding.granularity, PerTensor) or any(e != encoding for e in read):
            return ()
        return tuple(dict.fromkeys(node.inputs[s].name for s in slots))

    def _constant(self, tensor: gs.Constant, uses: list[Holder], places: Mapping[str, int]) -> tuple[Switch, gs.Node]:
        """Uses of one encoding read one new initializer, since others may want the constant in float."""
        made: dict[tuple[object, ...], tuple[gs.Constant, Affine]] = {}
        for holder, _name, slot, encoding in uses:
            if encoding.key not in made:
                made[encoding.key] = gs.Constant(self._name(f"{tensor.name}_switched"), tensor.values), encoding
            walk.set_input(holder, slot, made[encoding.key][0])
        first = min((h for h, *_ in uses), key=lambda n: places[n.name])
        kind: Kind = "bias" if uses[0][3].type == "int32" else "weight"
        switch = Switch(
            tensor=tensor.name,
            kind=kind,
            node=first.name,
            op=first.op,
            units=self._units(uses, None, places),
            type=uses[0][3].type,
            constants=tuple((constant.name, encoding) for constant, encoding in made.values()),
        )
        return switch, first

    def _activation(self, tensor: gs.Variable, uses: list[Holder], places: Mapping[str, int]) -> tuple[Switch, gs.Node]:
        maker = tensor.inputs[0] if tensor.inputs else None
        on = gs.Variable(self._name(f"{tensor.name}_on"), dtype=np.bool_, shape=(1,))
        self.pieces.append(on)
        nodes = self.behind.setdefault(id(maker), []) if maker is not None else self.front
        made: dict[tuple[object, ...], gs.Node] = {}
        for holder, _, slot, encoding in uses:
            if encoding.key not in made:
                made[encoding.key] = self._either(tensor, on, encoding, uses[0][3])
                nodes.append(made[encoding.key])
            switched = made[encoding.key].outputs[0]
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
            type=uses[0][3].type,
            flag=len(self.pieces) - 1,
        )
        return switch, made[uses[0][3].key]

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
        same = gs.Variable(self._name(f"{base}_same"), dtype=np.float32)
        out = gs.Variable(self._name(f"{base}_switched"), dtype=np.float32, shape=tensor.shape)
        quantizing = [
            gs.Node("QuantizeLinear", self._name(f"{base}_Q"), {}, [tensor, *constants[:2]], [integers]),
            gs.Node("DequantizeLinear", self._name(f"{base}_DQ"), _axis(wanted), [integers, *constants[2:]], [rounded]),
        ]
        keeping = [gs.Node("Identity", self._name(f"{base}_keep"), {}, [tensor], [same])]
        opset = self.model.opset
        branches = {
            "then_branch": gs.Graph(quantizing, [], [rounded], name="rounded", opset=opset),
            "else_branch": gs.Graph(keeping, [], [same], name="float", opset=opset),
        }
        return gs.Node("If", self._name(f"{base}_switch"), branches, [on], [out])

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
        nodes.extend(self.front)
        for node in graph.nodes:
            nodes.append(node)
            nodes.extend(self.behind.get(id(node), ()))
        graph.nodes = nodes

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
