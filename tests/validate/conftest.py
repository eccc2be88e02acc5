"""Tiny models as text, and data sets that live in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from onnxq.data.sample import Sample


class ListData:
    """Samples given as (inputs, label)."""

    def __init__(self, items: Sequence[tuple[dict[str, Any], Any]], *, labelled: bool = True) -> None:
        self.items = items
        self.labelled = labelled
        self.description = f"{len(items)} samples of a list"
        self.skipped: list[str] = []

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Sample]:
        for i, (inputs, label) in enumerate(self.items):
            yield Sample(index=i, name=f"item {i}", inputs=inputs, label=label)


@pytest.fixture
def data() -> type[ListData]:
    return ListData


@pytest.fixture
def build() -> Callable[..., bytes]:
    """`build("agraph (...) => (...) {...}", w=array)` -> serialized model, opset 21 and com.microsoft."""

    def make(graph: str, opset: int = 21, meta: dict[str, str] | None = None, **weights: np.ndarray[Any, Any]) -> bytes:
        head = f'<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]>'
        model = onnx.parser.parse_model(f"{head} {graph}")
        for name, value in weights.items():
            model.graph.initializer.append(numpy_helper.from_array(value, name))
        for i, node in enumerate(model.graph.node):
            node.name = node.name or f"{node.op_type}_{i}"
        onnx.helper.set_model_props(model, meta or {})
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString())

    return make


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[bytes], Path]:
    """Writes a model into a fresh file."""
    count = iter(range(1000))

    def save(model: bytes) -> Path:
        path = tmp_path / f"model{next(count)}.onnx"
        path.write_bytes(model)
        return path

    return save


class Net:
    """A Q/DQ graph, node by node. Every method returns the name of the tensor it makes; nodes are called after it."""

    def __init__(self, *shape: int, name: str = "x", dtype: int = onnx.TensorProto.FLOAT) -> None:
        self.inputs = [onnx.helper.make_tensor_value_info(name, dtype, shape)]
        self.outputs: list[Any] = []
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.rng = np.random.default_rng(0)

    def op(self, op: str, *inputs: str, out: str, outputs: int = 1, domain: str = "", **attrs: Any) -> str:
        names = [out] if outputs == 1 else [f"{out}{i}" for i in range(outputs)]
        self.nodes.append(onnx.helper.make_node(op, inputs, names, name=out, domain=domain, **attrs))
        return names[0]

    def const(self, value: Any, name: str, dtype: str = "float32") -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def weight(self, *shape: int, name: str) -> str:
        return self.const(self.rng.normal(size=shape) * 0.1, name)

    def q(self, x: str, out: str, scale: Any = 0.02, zero: Any = 128, dtype: str | None = "uint8", **attrs: Any) -> str:
        parts = [x, self.const(scale, f"{out}_s")]
        if dtype:
            parts.append(self.const(np.broadcast_to(zero, np.shape(scale)), f"{out}_z", dtype))
        return self.op("QuantizeLinear", *parts, out=out, **attrs)

    def dq(
        self, x: str, out: str, scale: Any = 0.02, zero: Any = 128, dtype: str | None = "uint8", **attrs: Any
    ) -> str:
        parts = [x, self.const(scale, f"{out}_s")]
        if dtype:
            parts.append(self.const(np.broadcast_to(zero, np.shape(scale)), f"{out}_z", dtype))
        return self.op("DequantizeLinear", *parts, out=out, **attrs)

    def pair(self, x: str, out: str, **how: Any) -> str:
        return self.dq(self.q(x, f"{out}_q", **how), out, **how)

    def int8(self, *shape: int, name: str, scale: Any = 0.001, **attrs: Any) -> str:
        """A DQ of an s8 weight."""
        values = self.const(self.rng.integers(-127, 128, shape), f"{name}_v", "int8")
        return self.dq(values, name, scale=scale, zero=0, dtype="int8", **attrs)

    def result(self, name: str, dtype: int = onnx.TensorProto.FLOAT) -> None:
        self.outputs.append(onnx.helper.make_tensor_value_info(name, dtype, None))

    def model(self, opset: int = 21, meta: dict[str, str] | None = None) -> bytes:
        graph = onnx.helper.make_graph(self.nodes, "g", self.inputs, self.outputs, self.constants)
        domains = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid("com.microsoft", 1)]
        model = onnx.helper.make_model(graph, opset_imports=domains, ir_version=10)
        onnx.helper.set_model_props(model, meta or {})
        model = onnx.shape_inference.infer_shapes(model)  # fills in the shapes of outputs
        del model.graph.value_info[:]
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString())


@pytest.fixture
def net() -> type[Net]:
    return Net
