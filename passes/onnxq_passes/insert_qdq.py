"""Why: the plan says which use of which tensor is quantized; somebody has to write it into the graph, and nothing more.

This pass decides nothing. What it writes can be predicted from the plan alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.encoding import Affine, PerBlock, PerChannel, PerTensor
from onnxq.errors import PassError
from onnxq.ir import walk
from onnxq.ir.spill import room
from onnxq.numerics import quantize
from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq.plan.plan import GraphPath, Plan, Use, Value


@dataclass(frozen=True, kw_only=True)
class InsertQdq(Pass):
    """Write the plan into the graph: QuantizeLinear/DequantizeLinear pairs on activations, DequantizeLinear on
    integer weights and biases.

    1. A value with an encoding gets one QuantizeLinear behind its producer and one DequantizeLinear per distinct
       encoding of its uses.
    2. A constant use gets the quantized constant and a DequantizeLinear; equal (constant, encoding) pairs share both.
    3. A graph output that exists in 8 bits only is written by a DequantizeLinear; its name and type stay.
    4. Equal encodings share one scale and one zero-point initializer, whoever uses them.
    5. In a body of If, Loop or Scan, all this stands in the body. A value that the body takes from around is
       dequantized there from the integers around, if there are any of the same encoding, else quantized there.
    6. A bias that the plan gives anew takes the place of the one that the graph has, or of none, before all this.
    """

    takes: ClassVar[Stage] = Stage.FLOAT
    gives: ClassVar[Stage] = Stage.QDQ
    needs: ClassVar[frozenset[str]] = frozenset({"plan"})
    exact: ClassVar[bool] = False

    def run(self, graph: gs.Graph, context: Context) -> Report:
        if context.plan is None:
            raise PassError("insert-qdq needs a plan: calibrate first")
        return _Writer(graph, context.plan).write()


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A use in the graph at `path`: `holder` is the node that reads, or the graph whose output it is."""

    path: GraphPath
    holder: Any
    slot: int
    encoding: Affine


@dataclass
class _Writer:
    graph: gs.Graph
    plan: Plan
    report: Report = field(default_factory=Report)
    taken: set[str] = field(default_factory=set)
    parameters: dict[tuple[object, ...], tuple[gs.Constant, gs.Constant]] = field(default_factory=dict)
    levels: dict[tuple[object, ...], gs.Constant] = field(default_factory=dict)
    constants: dict[tuple[object, ...], gs.Variable] = field(default_factory=dict)
    homes: dict[int, GraphPath] = field(default_factory=dict)
    behind: dict[int, list[gs.Node]] = field(default_factory=lambda: defaultdict(list))
    front: dict[GraphPath, list[gs.Node]] = field(default_factory=lambda: defaultdict(list))

    def write(self) -> Report:
        graphs = list(walk.graphs(self.graph))
        self.taken = walk.tensor_names(self.graph) | {n.name for _, g in graphs for n in g.nodes}
        self.homes = {id(n): path for path, g in graphs for n in g.nodes}
        self._biases()
        for tensor, uses in self._uses_by_tensor():
            if isinstance(tensor, gs.Constant):
                self._constant(tensor, uses)
            else:
                self._activation(tensor, uses)
        for path, inner in graphs:
            nodes = list(self.front[path])
            for node in inner.nodes:
                nodes.append(node)
                nodes.extend(self.behind.get(id(node), ()))
            inner.nodes = nodes
        return self.report

    def _uses_by_tensor(self) -> list[tuple[Any, list[_Found]]]:
        """Every tensor with quantized uses, in graph order."""
        found: dict[int, tuple[Any, list[_Found]]] = {}
        seen = 0
        for path, inner in walk.graphs(self.graph):
            for holder, name, slots in _holders(inner):
                for slot, tensor in slots:
                    encoding = self.plan.uses.get(Use(path, name, slot))
                    if encoding is None:
                        continue
                    seen += 1
                    use = _Found(path=path, holder=holder, slot=slot, encoding=encoding)
                    found.setdefault(id(tensor), (tensor, []))[1].append(use)
        if seen != len(self.plan.uses):
            raise PassError(
                f"the plan speaks of {len(self.plan.uses)} uses, the graph has {seen} of them: it was "
                "made for another graph"
            )
        return list(found.values())

    # case 6

    def _biases(self) -> None:
        nodes = {node.name: node for node in self.graph.nodes} if self.plan.biases else {}
        for use, values in sorted(self.plan.biases.items()):
            node = nodes.get(use.node)
            if node is None or use.path or use.slot > len(node.inputs):
                raise PassError(
                    f"the plan gives {use.node} a bias that the graph has no place for: it was made for another graph"
                )
            old = node.inputs[use.slot].name if use.slot < len(node.inputs) else ""
            constant = gs.Constant(self._name(f"{old or f'{node.name}_bias'}_corrected"), values.array)
            if use.slot == len(node.inputs):
                node.inputs.append(constant)
            else:
                walk.set_input(node, use.slot, constant)
            self.report.rewrites += 1

    # case 2

    def _constant(self, tensor: gs.Constant, uses: Iterable[_Found]) -> None:
        for use in uses:
            key = (tensor.name, use.encoding.key)
            if key not in self.levels:
                levels = quantize(tensor.values, use.encoding, room(tensor.values.shape, use.encoding.type))
                self.levels[key] = gs.Constant(self._name(f"{tensor.name}_quantized"), levels)
                self.report.rewrites += 1
            place = (use.path, *key)
            if place not in self.constants:
                self.constants[place] = self._dequantize(
                    tensor, self.levels[key], use.encoding, self.front[use.path], tuple(tensor.shape)
                )
            walk.set_input(use.holder, use.slot, self.constants[place])

    # cases 1, 3 and 5

    def _activation(self, tensor: gs.Variable, uses: list[_Found]) -> None:
        by_home: dict[GraphPath, list[_Found]] = {}
        for use in uses:
            home = self._home(tensor, use.path)
            by_home.setdefault(home, []).append(use)
            for depth in range(len(home)):
                if Value(home[:depth], tensor.name) in self.plan.values:
                    by_home.setdefault(home[:depth], [])
        source = self._rename_inside(tensor) if any(isinstance(u.holder, gs.Graph) for u in uses) else tensor
        made: dict[tuple[GraphPath, object], gs.Variable] = {}
        for home in sorted(by_home, key=len):
            here = by_home[home]
            written = tensor.inputs or source.inputs
            producer = written[0] if written else None
            inside = self.homes.get(id(producer)) == home
            place = self.behind[id(producer)] if inside else self.front[home]
            encoding = self.plan.values.get(Value(home, tensor.name)) or here[0].encoding
            whole = _scalar(encoding)
            around = [home[:depth] for depth in range(len(home))]
            integers = next((made[p, whole.key] for p in reversed(around) if (p, whole.key) in made), None)
            if integers is None:
                integers = made[home, whole.key] = self._quantize(tensor, source, whole, place)
            self._read(tensor, integers, here, place)
        self.report.rewrites += 1

    def _home(self, tensor: gs.Variable, path: GraphPath) -> GraphPath:
        """The graph where the DQ of a use stands: the nearest one in which the tensor has a value."""
        while path and Value(path, tensor.name) not in self.plan.values:
            path = path[:-1]
        return path

    def _quantize(
        self, tensor: gs.Variable, source: gs.Variable, encoding: Affine, place: list[gs.Node]
    ) -> gs.Variable:
        scale, zero = self._parameters(tensor.name, encoding)
        integers = gs.Variable(
            self._name(f"{tensor.name}_quantized"), dtype=np.dtype(encoding.type), shape=tensor.shape
        )
        name = self._name(f"{tensor.name}_QuantizeLinear")
        place.append(gs.Node("QuantizeLinear", name, {}, [source, scale, zero], [integers]))
        return integers

    def _read(self, tensor: gs.Variable, integers: gs.Variable, uses: Iterable[_Found], place: list[gs.Node]) -> None:
        """One DQ per encoding, and one for a graph output."""
        made: dict[tuple[object, ...], gs.Variable] = {}
        output: Affine | None = None
        for use in uses:
            if isinstance(use.holder, gs.Graph):
                output = output or use.encoding
                continue
            key = use.encoding.key
            if key not in made:
                made[key] = self._dequantize(tensor, integers, use.encoding, place, tensor.shape)
            walk.set_input(use.holder, use.slot, made[key])
        if output is not None:
            self._dequantize(tensor, integers, output, place, tensor.shape, into=tensor)

    def _rename_inside(self, tensor: gs.Variable) -> gs.Variable:
        """The graph output keeps its name; what computed it writes a new tensor."""
        source = gs.Variable(self._name(f"{tensor.name}_float"), dtype=tensor.dtype, shape=tensor.shape)
        producer = tensor.inputs[0]
        slot = next(i for i, t in enumerate(producer.outputs) if t is tensor)
        list.__setitem__(producer.outputs, slot, source)
        list.append(source.inputs, producer)
        list.clear(tensor.inputs)
        for consumer in list(tensor.outputs):
            for index, used in enumerate(consumer.inputs):
                if used is tensor:
                    walk.set_input(consumer, index, source)
        return source

    # shared parts

    def _dequantize(
        self, tensor: Any, integers: Any, encoding: Affine, place: list[gs.Node], shape: Any, into: Any = None
    ) -> gs.Variable:
        scale, zero = self._parameters(tensor.name, encoding)
        real = (
            into
            if into is not None
            else gs.Variable(self._name(f"{tensor.name}_dequantized"), dtype=np.float32, shape=shape)
        )
        name = self._name(f"{tensor.name}_DequantizeLinear")
        place.append(gs.Node("DequantizeLinear", name, _attributes(encoding), [integers, scale, zero], [real]))
        return real

    def _parameters(self, base: str, encoding: Affine) -> tuple[gs.Constant, gs.Constant]:
        if encoding.key not in self.parameters:
            self.parameters[encoding.key] = (
                gs.Constant(self._name(f"{base}_scale"), np.asarray(encoding.scale)),
                gs.Constant(self._name(f"{base}_zero_point"), np.asarray(encoding.zero_point)),
            )
        return self.parameters[encoding.key]

    def _name(self, wish: str) -> str:
        return walk.unique_name(self.taken, wish)


def _holders(graph: gs.Graph) -> Iterable[tuple[Any, str, list[tuple[int, Any]]]]:
    for node in graph.nodes:
        yield node, node.name, list(enumerate(node.inputs))
    yield graph, "", list(enumerate(graph.outputs))


def _attributes(encoding: Affine) -> dict[str, Any]:
    match encoding.granularity:
        case PerChannel(axis):
            return {"axis": axis}
        case PerBlock(axis, size):
            return {"axis": axis, "block_size": size}
        case _:
            return {}


def _scalar(encoding: Affine) -> Affine:
    """The per-tensor form of a per-axis encoding whose scales are all equal."""
    return Affine(
        type=encoding.type,
        granularity=PerTensor(),
        scale=np.asarray(encoding.scale.min()),
        zero_point=np.asarray(encoding.zero_point.min()),
    )
