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
from onnxq.plan.plan import Plan, Use


@dataclass(frozen=True, kw_only=True)
class InsertQdq(Pass):
    """Write the plan into the graph: QuantizeLinear/DequantizeLinear pairs on activations, DequantizeLinear on
    integer weights and biases.

    1. A value with an encoding gets one QuantizeLinear behind its producer and one DequantizeLinear per distinct
       encoding of its uses.
    2. A constant use gets the quantized constant and a DequantizeLinear; equal (constant, encoding) pairs share both.
    3. A graph output that exists in 8 bits only is written by a DequantizeLinear; its name and type stay.
    4. Equal encodings share one scale and one zero-point initializer, whoever uses them.
    """

    takes: ClassVar[Stage] = Stage.FLOAT
    gives: ClassVar[Stage] = Stage.QDQ
    needs: ClassVar[frozenset[str]] = frozenset({"plan"})
    exact: ClassVar[bool] = False

    def run(self, graph: gs.Graph, context: Context) -> Report:
        if context.plan is None:
            raise PassError("insert-qdq needs a plan: calibrate first")
        return _Writer(graph, context.plan).write()


@dataclass
class _Writer:
    graph: gs.Graph
    plan: Plan
    report: Report = field(default_factory=Report)
    taken: set[str] = field(default_factory=set)
    parameters: dict[tuple[object, ...], tuple[gs.Constant, gs.Constant]] = field(default_factory=dict)
    constants: dict[tuple[object, ...], gs.Variable] = field(default_factory=dict)
    behind: dict[int, list[gs.Node]] = field(default_factory=lambda: defaultdict(list))
    front: list[gs.Node] = field(default_factory=list)

    def write(self) -> Report:
        self.taken = walk.tensor_names(self.graph) | {n.name for _, g in walk.graphs(self.graph) for n in g.nodes}
        by_tensor = self._uses_by_tensor()
        for tensor, uses in by_tensor:
            if isinstance(tensor, gs.Constant):
                self._constant(tensor, uses)
            else:
                self._activation(tensor, uses)
        nodes = list(self.front)
        for node in self.graph.nodes:
            nodes.append(node)
            nodes.extend(self.behind.get(id(node), ()))
        self.graph.nodes = nodes
        return self.report

    def _uses_by_tensor(self) -> list[tuple[Any, list[tuple[Any, int, Affine]]]]:
        """Every tensor with quantized uses, in graph order: (holder of the slot, slot, encoding); the holder is a
        node or the graph (outputs).
        """
        found: dict[int, tuple[Any, list[tuple[Any, int, Affine]]]] = {}
        seen = 0
        for path, inner in walk.graphs(self.graph):
            for holder, name, slots in _holders(inner, main=not path):
                for slot, tensor in slots:
                    encoding = self.plan.uses.get(Use(path, name, slot))
                    if encoding is None:
                        continue
                    seen += 1
                    found.setdefault(id(tensor), (tensor, []))[1].append((holder, slot, encoding))
        if seen != len(self.plan.uses):
            raise PassError(
                f"the plan speaks of {len(self.plan.uses)} uses, the graph has {seen} of them: it was "
                "made for another graph"
            )
        return list(found.values())

    # case 2

    def _constant(self, tensor: gs.Constant, uses: Iterable[tuple[Any, int, Affine]]) -> None:
        for holder, slot, encoding in uses:
            key = (tensor.name, encoding.key)
            if key not in self.constants:
                levels = quantize(tensor.values, encoding, room(tensor.values.shape, encoding.type))
                integers = gs.Constant(self._name(f"{tensor.name}_quantized"), levels)
                self.constants[key] = self._dequantize(tensor, integers, encoding, self.front, tuple(tensor.shape))
                self.report.rewrites += 1
            walk.set_input(holder, slot, self.constants[key])

    # cases 1 and 3

    def _activation(self, tensor: gs.Variable, uses: list[tuple[Any, int, Affine]]) -> None:
        place = self.behind[id(tensor.inputs[0])] if tensor.inputs else self.front
        encoding = uses[0][2]
        source = tensor
        outputs = [(slot, e) for holder, slot, e in uses if isinstance(holder, gs.Graph)]
        if outputs:
            source = self._rename_inside(tensor)
        scale, zero = self._parameters(tensor.name, encoding if np.ndim(encoding.scale) == 0 else _scalar(encoding))
        integers = gs.Variable(
            self._name(f"{tensor.name}_quantized"), dtype=np.dtype(encoding.type), shape=tensor.shape
        )
        place.append(
            gs.Node(
                "QuantizeLinear", self._name(f"{tensor.name}_QuantizeLinear"), {}, [source, scale, zero], [integers]
            )
        )
        made: dict[tuple[object, ...], gs.Variable] = {}
        for holder, slot, wanted in uses:
            if isinstance(holder, gs.Graph):
                continue
            if wanted.key not in made:
                made[wanted.key] = self._dequantize(tensor, integers, wanted, place, tensor.shape)
            walk.set_input(holder, slot, made[wanted.key])
        if outputs:
            self._dequantize(tensor, integers, outputs[0][1], place, tensor.shape, into=tensor)
        self.report.rewrites += 1

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


def _holders(graph: gs.Graph, *, main: bool) -> Iterable[tuple[Any, str, list[tuple[int, Any]]]]:
    for node in graph.nodes:
        yield node, node.name, list(enumerate(node.inputs))
    if main:
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
        scale=np.asarray(encoding.scale.reshape(-1)[0]),
        zero_point=np.asarray(encoding.zero_point.reshape(-1)[0]),
    )
