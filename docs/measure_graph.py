"""Tiny Q/DQ models and what ONNX Runtime makes of them: the words in which the facts of docs/ort.md are written."""

from __future__ import annotations

import collections
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import helper, numpy_helper

from onnxq.errors import ModelError
from onnxq.runtime.session import Level, Session

Array = NDArray[Any]
SHORT = {1: "float", 2: "u8", 3: "s8", 4: "u16", 5: "s16", 6: "int32", 10: "fp16"}
FUSED = ("QLinear", "QGemm", "MatMulInteger", "MatMulNBits", "DynamicQuantize")


@dataclass(frozen=True)
class Enc:
    """Type, scale and zero point of a Q/DQ pair. `zero=None` leaves the zero-point input away."""

    type: str = "uint8"
    scale: ArrayLike = 0.03
    zero: int | None = 128
    axis: int | None = None


U8 = Enc()
U8_RELU = Enc(zero=0)
S8 = Enc("int8", 0.03, 0)
S8_RELU = Enc("int8", 0.03, -128)


class Net:
    """A graph that grows node by node; each method gives the name of the tensor it made. Numbers are seeded."""

    def __init__(self, *, opset: int = 21, ir_version: int = 10, seed: int = 0) -> None:
        self.opset, self.ir_version = opset, ir_version
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}
        self.inputs: list[tuple[str, str, tuple[int | str, ...]]] = []
        self.outputs: list[str] = []

    def input(self, *shape: int | str, type: str = "float32") -> str:
        self.inputs.append((f"x{len(self.inputs)}", type, shape))
        return self.inputs[-1][0]

    def const(self, value: ArrayLike, dtype: Any = None) -> str:
        array = np.asarray(value, dtype)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        name = f"c{len(self.constants)}"
        self.constants[name] = array
        return name

    def node(self, op: str, *inputs: str, outs: int = 1, domain: str = "", **attributes: Any) -> Any:
        """One output: its name. More: a tuple of names."""
        made = [f"t{len(self.nodes)}_{i}" for i in range(outs)]
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), made, name, domain=domain, **attributes))
        return made[0] if outs == 1 else tuple(made)

    def _convert(self, op: str, x: str, e: Enc, shared: Sequence[str] | None) -> str:
        parameters = list(shared) if shared is not None else self.parameters(e)
        attributes: dict[str, Any] = {} if e.axis is None else {"axis": e.axis}
        return str(self.node(op, x, *parameters, **attributes))

    def parameters(self, e: Enc) -> list[str]:
        """New initializers: scale and, if there is one, zero point."""
        scale = np.asarray(e.scale, np.float32)
        zero = [] if e.zero is None else [self.const(np.full(scale.shape, e.zero, e.type))]
        return [self.const(scale), *zero]

    def q(self, x: str, e: Enc = U8, *, shared: Sequence[str] | None = None) -> str:
        return self._convert("QuantizeLinear", x, e, shared)

    def dq(self, x: str, e: Enc = U8, *, shared: Sequence[str] | None = None) -> str:
        return self._convert("DequantizeLinear", x, e, shared)

    def pair(self, x: str, e: Enc = U8, *, shared: Sequence[str] | None = None) -> str:
        """Q and DQ; they share their parameters, as onnxq writes them."""
        shared = shared if shared is not None else self.parameters(e)
        return self.dq(self.q(x, e, shared=shared), e, shared=shared)

    def normal(self, *shape: int, scale: float = 0.1) -> str:
        """A float constant."""
        return self.const(self.rng.normal(0, scale, shape))

    def weight(self, *shape: int, axis: int | None = 0, type: str = "int8", scale: ArrayLike | None = None) -> str:
        """DQ of a 7-bit integer constant (no saturation on any CPU), zero point 0 (u8: 128); one scale per `axis`."""
        if scale is None:
            scale = 0.01 if axis is None else np.linspace(0.005, 0.03, shape[axis])
        zero = 128 if type == "uint8" else 0
        values = self.rng.integers(-63, 64, shape) + zero
        return self.dq(self.const(values.astype(type)), Enc(type, scale, zero, axis))

    def bias32(self, *shape: int, scale: ArrayLike, axis: int | None = 0) -> str:
        """DQ of an int32 constant."""
        values = self.rng.integers(-2000, 2000, shape).astype(np.int32)
        return self.dq(self.const(values), Enc("int32", scale, 0, axis))

    def out(self, *names: str) -> Net:
        self.outputs.extend(names)
        return self

    def bytes(self) -> bytes:
        """The model, serialized. Outputs are untyped: ORT infers their types."""
        number = helper.np_dtype_to_tensor_dtype
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info(n, number(np.dtype(t)), s) for n, t, s in self.inputs],
            [onnx.ValueInfoProto(name=n) for n in self.outputs],
            [numpy_helper.from_array(v, n) for n, v in self.constants.items()],
        )
        imports = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return bytes(helper.make_model(graph, opset_imports=imports, ir_version=self.ir_version).SerializeToString())

    def feeds(self, scale: float = 1.0) -> dict[str, Array]:
        """Normal floats (integers: the whole range), the same on every call; symbolic dimensions are 3."""
        rng, made = np.random.default_rng(7), {}
        for name, type, shape in self.inputs:
            size = [d if isinstance(d, int) else 3 for d in shape]
            if type == "float32":
                made[name] = rng.normal(0, scale, size).astype(np.float32)
            else:
                made[name] = rng.integers(np.iinfo(type).min, np.iinfo(type).max + 1, size).astype(type)
        return made

    def run(
        self,
        level: Level = Level.OFF,
        config: Mapping[str, str] | None = None,
        feeds: Mapping[str, Array] | None = None,
    ) -> Array:
        """First output. OFF is what Q/DQ literally mean."""
        session = Session(self.bytes(), level=level, threads=1, config=config)
        return next(iter(session.run(feeds if feeds is not None else self.feeds()).values()))

    def optimized(
        self, level: Level = Level.ALL, config: Mapping[str, str] | None = None, disabled: Sequence[str] = ()
    ) -> Any:
        """ORT's own graph."""
        with tempfile.TemporaryDirectory(prefix="onnxq-") as folder:
            path = Path(folder) / "o.onnx"
            Session(
                self.bytes(), level=level, threads=1, save_optimized=path, config=config, disabled_optimizers=disabled
            )
            return onnx.load(path).graph

    def kernels(
        self,
        level: Level = Level.ALL,
        config: Mapping[str, str] | None = None,
        disabled: Sequence[str] = (),
        hide: Sequence[str] = ("QuantizeLinear", "DequantizeLinear", "Transpose", "ReorderInput", "ReorderOutput"),
    ) -> str:
        """The kernels that ORT runs, in order of names, with the type that each of those works on which have both an
        integer and a float form: `QLinearConv`, `Conv (float)`, `MaxPool (u8)`. Conversions and layout are left out.
        """
        try:
            graph = self.optimized(level, config, disabled)
        except ModelError:
            return "does not load"
        types = {v.name: v.type.tensor_type.elem_type for v in graph.input}
        types |= {t.name: t.data_type for t in graph.initializer}
        found: collections.Counter[str] = collections.Counter()
        for node in graph.node:  # in order of execution; ORT writes no types of inner tensors
            types.update(dict.fromkeys(node.output, _made(node, types)))
            if node.op_type not in hide:
                found[_label(node, types)] += 1
        return ", ".join(label if count == 1 else f"{label} x{count}" for label, count in sorted(found.items())) or "-"

    def conversions(self, level: Level = Level.ALL, config: Mapping[str, str] | None = None) -> str:
        """How many Q and DQ ORT runs."""
        ops = collections.Counter(n.op_type for n in self.optimized(level, config).node)
        return f"{ops['QuantizeLinear']} Q, {ops['DequantizeLinear']} DQ"


def _data(node: Any) -> list[str]:
    return list(node.input[1:] if node.op_type == "Where" else node.input)


def _made(node: Any, types: Mapping[str, int]) -> int:
    """Type of a node's outputs; an operator that is not named here keeps that of its data."""
    match node.op_type:
        case "DequantizeLinear" | "MatMulIntegerToFloat" | "MatMulNBits" | "DynamicQuantizeMatMul":
            return 1
        case "QuantizeLinear":
            return types[node.input[2]] if len(node.input) > 2 else 2
        case "QGemm":
            return types[node.input[0]] if len(node.input) > 7 else 1
        case "Cast":
            return next(int(a.i) for a in node.attribute if a.name == "to")
        case "QLinearConcat" | "QLinearWhere":
            return 2
        case _:
            return types.get(_data(node)[0], 0)


def _label(node: Any, types: Mapping[str, int]) -> str:
    if node.op_type.startswith(FUSED):
        return str(node.op_type)
    return f"{node.op_type} ({SHORT.get(types.get(_data(node)[0], 0), '?')})"


def fails(net: Net) -> str:
    """How a model that loads fails when it runs, "" if it runs."""
    try:
        net.run(Level.ALL)
    except ModelError:
        return "fails when it runs"
    return ""


def difference(net: Net, level: Level = Level.ALL, config: Mapping[str, str] | None = None) -> tuple[float, float]:
    """Greatest absolute difference to optimizations off, and the greatest absolute output there."""
    exact = net.run(Level.OFF).astype(np.float64)
    return float(np.abs(net.run(level, config).astype(np.float64) - exact).max()), float(np.abs(exact).max())


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.2g}" if abs(value) < 10 else f"{value:.0f}"


def verdict(net: Net, *, step: float | None) -> list[str]:
    """Kernels, greatest difference to OFF, greatest output, and a word.

    Args:
        step: scale of the output's Q, None for a float output; differences of one step or of 1e-5 are rounding.
    """
    try:
        worst, largest = difference(net)
    except ModelError:
        return [net.kernels(), "", "", "fails when it runs"]
    if step is None and worst < 1e-5 * largest:  # how much less than that depends on the CPU
        return [net.kernels(), "below 1e-5", _number(largest), "float rounding"]
    word = "exact" if worst == 0 else "rounding" if worst <= 1.01 * (step or 0) else "**wrong**"
    return [net.kernels(), _number(worst), _number(largest), word]
