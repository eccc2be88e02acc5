"""A read-only view of a model for coverage: unique names, who makes and who reads each tensor, what flows on it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.ir import load, walk
from onnxq.ir.model import Model
from onnxq.ir.names import unique_nodes, unique_tensors
from onnxq.validate.kernels import words

Kind = Literal["float", "quant", "other"]

_OTHER = words(
    "Shape Size ArgMax ArgMin NonZero Equal Greater GreaterOrEqual Less LessOrEqual And Or Not Xor IsNaN IsInf "
    "NonMaxSuppression MatMulInteger ConvInteger StringNormalizer"
)
_FLOAT = words(
    "DequantizeLinear MatMulIntegerToFloat DynamicQuantizeMatMul DynamicQuantizeLSTM QAttention MatMulNBits "
    "GatherBlockQuantized RandomNormal RandomUniform RandomNormalLike RandomUniformLike TfIdfVectorizer"
)
_DATA_SLOT = {"Where": 1, "OneHot": 2}
_FIRST_ONLY = frozenset({"TopK", "MaxPool", "Unique", "DynamicQuantizeLinear", "Dropout"})
_FLOAT_TYPES = frozenset({1, 10, 11, 16})  # TensorProto: float, float16, double, bfloat16


@dataclass(frozen=True)
class Network:
    """`graph` with every node and tensor name unique; made by `read` or `view`."""

    model: Model

    @property
    def graph(self) -> gs.Graph:
        """The main graph."""
        return self.model.graph

    @cached_property
    def nodes(self) -> dict[str, tuple[walk.Path, gs.Node]]:
        """Node name -> where it is; all bodies, in order."""
        return {n.name: (path, n) for path, inner in walk.graphs(self.graph) for n in inner.nodes}

    @cached_property
    def producers(self) -> dict[str, gs.Node]:
        """Tensor name -> node."""
        return {t: p.node for t, p in walk.producers(self.graph).items()}

    @cached_property
    def consumers(self) -> dict[str, list[walk.Consumer]]:
        """Tensor name -> uses."""
        return walk.consumers(self.graph)

    @cached_property
    def results(self) -> frozenset[str]:
        """Names of the outputs of the graph and of every body."""
        return frozenset(t.name for _, inner in walk.graphs(self.graph) for t in inner.outputs)

    @cached_property
    def kinds(self) -> dict[str, Kind]:
        """What each tensor holds: float numbers, quantized numbers, or other things (indices, shapes, truth values)."""
        kinds: dict[str, Kind] = {}
        _kinds(self.graph, kinds)
        return kinds

    @cached_property
    def quantized(self) -> bool:
        """It has Q or DQ."""
        return any(n.op in ("QuantizeLinear", "DequantizeLinear") for _, n in self.nodes.values())

    @cached_property
    def static(self) -> frozenset[str]:
        """Tensors that depend on constants and shapes only: they are no work at run time."""
        found: set[str] = set()
        for _, inner in walk.graphs(self.graph):
            for node in inner.nodes:
                has_body = any(isinstance(v, gs.Graph) for v in node.attrs.values())
                fixed = all(isinstance(t, gs.Constant) or not t.name or t.name in found for t in node.inputs)
                if node.op in ("Shape", "Size") or (fixed and not has_body and not node.op.startswith("Random")):
                    found.update(t.name for t in node.outputs)
        return frozenset(found)

    def kind(self, tensor: gs.Tensor) -> Kind:
        """Of a variable or a constant."""
        return _kind(tensor, self.kinds)


def read(path: Path) -> Network:
    """The view of a model file.

    Raises:
        ModelError: it cannot be read.
    """
    return view(load.load(path, keep_overridable=True))


def view(model: Model) -> Network:
    """The view of a loaded model; unnamed and clashing nodes and tensors of `model` get names."""
    unique_nodes(model.graph)
    unique_tensors(model.graph)
    return Network(model)


def array(tensor: gs.Tensor) -> NDArray[Any] | None:
    """The values of a constant."""
    return walk.constant_array(tensor)


def _kinds(graph: gs.Graph, kinds: dict[str, Kind]) -> None:
    for tensor in graph.inputs:
        kinds[tensor.name] = _of_dtype(tensor.dtype, constant=False)
    for node in graph.nodes:
        bodies = [v for v in node.attrs.values() if isinstance(v, gs.Graph)]
        for body in bodies:
            _kinds(body, kinds)
        ordered = _outputs(node, bodies, kinds)
        for tensor, kind in zip(node.outputs, ordered, strict=True):
            if tensor.name:
                kinds[tensor.name] = kind


def _outputs(node: gs.Node, bodies: list[gs.Graph], kinds: dict[str, Kind]) -> list[Kind]:
    count = len(node.outputs)
    if bodies:
        results = bodies[0].outputs[1:] if node.op == "Loop" else bodies[0].outputs
        kinds_of: list[Kind] = [_kind(t, kinds) for t in results[:count]]
        rest: list[Kind] = ["other"] * (count - len(kinds_of))
        return kinds_of + rest
    first: Kind = _first(node, kinds)
    if node.op in _FIRST_ONLY:
        others: list[Kind] = ["other"] * (count - 1)
        return [first, *others] if count else []
    return [first] * count


def _first(node: gs.Node, kinds: dict[str, Kind]) -> Kind:
    if node.op in _FLOAT:
        return "float"
    if node.op in _OTHER:
        return "other"
    if node.op in ("QuantizeLinear", "DynamicQuantizeLinear") or node.op.startswith("QLinear"):
        return "quant"
    if node.op == "QGemm":
        return "quant" if len(node.inputs) > 7 and bool(node.inputs[7].name) else "float"
    if node.op == "Cast":
        return "float" if node.attrs.get("to") in _FLOAT_TYPES or _is_float(node.attrs.get("to")) else "other"
    if node.op == "Constant":
        return _constant(node)
    if node.op == "ConstantOfShape":
        value = node.attrs.get("value")
        return "float" if value is None else _of_dtype(np.dtype(value.values.dtype), constant=True)
    slot = _DATA_SLOT.get(node.op, 0)
    return _kind(node.inputs[slot], kinds) if len(node.inputs) > slot else "other"


def _constant(node: gs.Node) -> Kind:
    for name, value in node.attrs.items():
        if name in ("value_float", "value_floats"):
            return "float"
        if name == "value":
            return _of_dtype(np.dtype(value.values.dtype), constant=True)
    return "other"


def _kind(tensor: gs.Tensor, kinds: dict[str, Kind]) -> Kind:
    if isinstance(tensor, gs.Constant):
        return _of_dtype(tensor.values.dtype, constant=True)
    return kinds.get(tensor.name, "other")


def _is_float(dtype: Any) -> bool:
    """Float types of numpy and of ml_dtypes (bfloat16 is kind V there)."""
    if dtype is None or isinstance(dtype, int):
        return False
    return bool(np.dtype(dtype).kind == "f" or np.dtype(dtype).name == "bfloat16")


def _of_dtype(dtype: Any, *, constant: bool) -> Kind:
    if _is_float(dtype):
        return "float"
    if constant and dtype is not None and np.dtype(dtype).name in ("int8", "uint8", "int4", "uint4", "int2", "uint2"):
        return "quant"
    return "other"


def names(tensors: Iterable[gs.Tensor]) -> list[str]:
    """Non-empty names."""
    return [t.name for t in tensors if t.name]
