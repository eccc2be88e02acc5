"""Q/DQ graphs with arrays of any shape, a pass over them, and the gap between before and after in ONNX Runtime."""

from __future__ import annotations

import collections
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxq.ir import load, save, text
from onnxq.pipeline.base import Pass, Report
from onnxq.runtime.session import Level, Session
from onnxq.testing import default_context

TYPES = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8, "uint16": TensorProto.UINT16}


DATA, OUT = 0.0213571, 0.0518237
"""Default scales: of no simple ratio, so that no result lies on a tie, where the order of a float sum decides."""


@dataclass
class Qdq:
    """A graph in the making; every method gives the name of a tensor."""

    opset: int = 21
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    feeds: dict[str, NDArray[Any]] = field(default_factory=dict)

    def constant(self, values: ArrayLike, kind: str = "float32") -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def data(self, *shape: int, scale: float = DATA, zero: int = 120, kind: str = "uint8", fill: Any = None) -> str:
        """A float input of the graph, between Q and DQ."""
        name = f"x{len(self.inputs)}"
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        random = np.random.default_rng(len(self.inputs))
        self.feeds[name] = np.full(shape, fill, np.float32) if fill else random.normal(0, 1.5, shape).astype("float32")
        return self.dq(self.q(name, scale, zero, kind), scale, zero, kind)

    def weight(
        self, *shape: int, scale: ArrayLike = 0.01, zero: ArrayLike = 0, kind: str = "int8", axis: int = 0
    ) -> str:
        """Random integers and a DQ; a list of scales is per channel."""
        random = np.random.default_rng(99)
        low = 0 if kind.startswith("u") else -127
        values = random.integers(low, low + 255, shape)
        zeros = np.broadcast_to(np.asarray(zero), np.shape(scale))
        return self.dq(self.constant(values, kind), scale, zeros, kind, axis)

    def q(self, tensor: str, scale: ArrayLike, zero: ArrayLike, kind: str = "uint8") -> str:
        return self.op("QuantizeLinear", tensor, self.constant(scale), self.constant(zero, kind))

    def dq(self, tensor: str, scale: ArrayLike, zero: ArrayLike, kind: str = "uint8", axis: int = 0) -> str:
        channel = {"axis": axis} if np.ndim(scale) else {}
        return self.op("DequantizeLinear", tensor, self.constant(scale), self.constant(zero, kind), **channel)

    def op(self, op: str, *inputs: str, outs: int = 1, **attributes: Any) -> Any:
        names = [f"t{len(self.nodes)}_{i}" for i in range(outs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, f"n{len(self.nodes)}", **attributes))
        return names[0] if outs == 1 else names

    def out(self, tensor: str, scale: float = OUT, zero: int = 100, kind: str = "uint8") -> None:
        """The tensor, quantized, is an output of the graph."""
        self.raw(self.q(tensor, scale, zero, kind), kind)

    def raw(self, tensor: str, kind: str = "float32") -> None:
        """The tensor is an output of the graph."""
        self.outputs.append(helper.make_tensor_value_info(tensor, TYPES.get(kind, TensorProto.FLOAT), None))

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "g", self.inputs, self.outputs, self.constants)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def fuse(self, *passes: Pass) -> Fused:
        """Run passes and both graphs."""
        proto = onnx.shape_inference.infer_shapes(self.model(), strict_mode=True)
        before = proto.SerializeToString()
        model = load.from_proto(proto)
        reports = []
        for one in passes:
            reports.append(one.run(model.graph, default_context()))
            first = text.text(model.graph)
            assert one.run(model.graph, default_context()).rewrites == 0
            assert text.text(model.graph) == first
        after = save.to_bytes(model)
        onnx.checker.check_model(onnx.load_from_string(after))
        old, new = (Session(m, level=Level.OFF, threads=1) for m in (before, after))
        assert (old.inputs, old.outputs) == (new.inputs, new.outputs)
        a, b = old.run(self.feeds), new.run(self.feeds)
        assert [v.dtype for v in a.values()] == [v.dtype for v in b.values()]
        gaps = {k: np.abs(a[k].astype(np.float64) - b[k].astype(np.float64)) for k in a}
        ops = collections.Counter(n.op_type for n in onnx.load_from_string(after).graph.node)
        return Fused(reports, ops, float(max(g.max(initial=0) for g in gaps.values())), a, after)


@dataclass
class Fused:
    """What came out: `gap` is the greatest difference of an output (in steps for integer outputs)."""

    reports: list[Report]
    ops: collections.Counter[str]
    gap: float
    outputs: dict[str, NDArray[Any]]
    file: bytes

    @property
    def reasons(self) -> list[str]:
        return [r.reason for report in self.reports for r in report.refusals]

    def spread(self) -> int:
        """Number of different values in the outputs: a test on constants proves nothing."""
        return min(len(np.unique(v)) for v in self.outputs.values())
