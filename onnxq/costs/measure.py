"""Micro-benchmarks: one op at a time, for what the profiles of models did not give.

An op alone finds its inputs in the processor's caches, so these times go into `Cost.alone`, which stands back where
the same key was seen in a model.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.costs.key import CostKey, Operand
from onnxq.costs.observe import observe
from onnxq.costs.table import CostTable, this_machine
from onnxq.errors import ModelError, UsageError
from onnxq.ir.model import Meta, Model
from onnxq.ir.save import to_bytes
from onnxq.runtime.profile import Profile, profile
from onnxq.runtime.session import Level

OPSET = 21
IR_VERSION = 10

ROUNDS = 3
RUNS = 20

_TYPES: dict[str, Any] = {
    "float": np.float32, "double": np.float64, "float16": np.float16, "uint8": np.uint8, "int8": np.int8,
    "uint16": np.uint16, "int16": np.int16, "int32": np.int32, "int64": np.int64, "bool": np.bool_,
}  # fmt: skip
_INTEGER = ("QLinear", "QGemm", "MatMulInteger", "DynamicQuantize", "QuantizeLinear", "DequantizeLinear")
_ACTIVATIONS = {"Clip": (0.0, 6.0), "HardSigmoid": (0.2, 0.5), "LeakyRelu": (0.01,)}
_TARGET_SHAPE = frozenset({"Reshape", "Expand"})

Profiler = Callable[..., Profile]
"""`onnxq.runtime.profile.profile`; tests give their own."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What micro-benchmarks gave.

    Attributes:
        table: the costs.
        refused: key -> why it could not be run by itself.
    """

    table: CostTable
    refused: dict[CostKey, str]


def measure(
    keys: Iterable[CostKey], *, rounds: int = ROUNDS, runs: int = RUNS, profiler: Profiler = profile
) -> Measured:
    """Run kernels one by one, each as a model of one node, with optimizations off.

    Args:
        keys: what to measure, with its number of threads.
        rounds: observations of each; all keys take turns, so that noise from outside hits all.
        runs: timed runs per observation.

    Raises:
        UsageError: rounds or runs below 1.
    """
    if rounds < 1 or runs < 1:
        raise UsageError("a micro-benchmark needs at least one round and one run")
    wanted = list(dict.fromkeys(keys))
    refused: dict[CostKey, str] = {}
    table = CostTable(machine=this_machine())
    for _ in range(rounds):
        for key in wanted:
            if key in refused:
                continue
            try:
                model, inputs = one_node(key)
                found = profiler(to_bytes(model), [inputs], threads=key.threads, runs=runs, level=Level.OFF)
            except ModelError as error:
                refused[key] = str(error)
                continue
            table = table.merge(observe(found, threads=key.threads, alone=True))
    costs = {key: cost for key, cost in table.costs.items() if key in set(wanted)}
    for key in wanted:
        if key not in costs and key not in refused:
            refused[key] = "ONNX Runtime ran another kernel in its place"
    return Measured(table=CostTable(machine=table.machine, costs=costs), refused=refused)


def one_node(key: CostKey) -> tuple[Model, dict[str, NDArray[Any]]]:
    """A model that runs just this kernel, and inputs for it; both depend on nothing but the key.

    Raises:
        ModelError: that takes values which the key does not tell (indices, axes), or a type without numpy form.
    """
    random = np.random.default_rng(zlib.crc32(str(key).encode()))
    tensors: list[gs.Tensor] = []
    fed: dict[str, NDArray[Any]] = {}
    for slot, operand in enumerate(key.inputs):
        if not operand.dtype:
            tensors.append(gs.Variable(""))
            continue
        values = _values(key, operand, random)
        if operand.constant:
            tensors.append(gs.Constant(f"c{slot}", values))
        else:
            tensors.append(gs.Variable(f"x{slot}", _dtype(operand), list(operand.shape)))
            fed[f"x{slot}"] = values
    made = [gs.Variable(f"y{i}" if o.dtype else "", _dtype(o), list(o.shape)) for i, o in enumerate(key.outputs)]
    domain = key.op.rpartition(".")[0]
    attributes: dict[str, Any] = {n: list(v) if isinstance(v, tuple) else v for n, v in key.attributes}
    if (fused := attributes.get("activation")) in _ACTIVATIONS:
        attributes["activation_params"] = list(_ACTIVATIONS[str(fused)])
    node = gs.Node(key.kind, "kernel", attributes, tensors, made, domain or None)
    inputs = [t for t in tensors if isinstance(t, gs.Variable) and t.name]
    graph = gs.Graph([node], inputs, [t for t in made if t.name], name="one", opset=OPSET)
    meta = Meta(domains={domain: 1} if domain else {})
    return Model(graph=graph, opset=OPSET, ir_version=IR_VERSION, meta=meta), fed


def _dtype(operand: Operand) -> Any:
    try:
        return np.dtype(_TYPES[operand.dtype]) if operand.dtype else None
    except KeyError as error:
        raise ModelError(f"tensors of {operand.dtype} cannot be made up") from error


def _values(key: CostKey, operand: Operand, random: np.random.Generator) -> NDArray[Any]:
    dtype, shape = _dtype(operand), operand.shape
    if operand.constant and operand.dtype == "int64":
        if key.kind in _TARGET_SHAPE and len(key.outputs) == 1:
            return np.array(key.outputs[0].shape, dtype=np.int64)
        raise ModelError(f"{key.kind} takes indices or axes that its cost key does not tell")
    if operand.constant and len(shape) <= 1:
        return _small(key, operand, random)
    if dtype.kind == "f":
        return random.standard_normal(shape).astype(dtype)
    if dtype.kind == "b":
        return random.integers(0, 2, shape).astype(dtype)
    low, high = {"uint8": (0, 256), "int8": (-127, 128)}.get(operand.dtype, (0, 1))
    return random.integers(low, high, shape).astype(dtype)


def _small(key: CostKey, operand: Operand, random: np.random.Generator) -> NDArray[Any]:
    """Biases, scales and zero points: scales of integer ops above 0, zero points of signed types 0."""
    dtype, shape = _dtype(operand), operand.shape
    if dtype.kind == "f":
        integer = key.kind.startswith(_INTEGER)
        return (random.uniform(0.01, 0.03, shape) if integer else random.standard_normal(shape)).astype(dtype)
    if operand.dtype == "uint8":
        return np.full(shape, 128, dtype)
    return np.zeros(shape, dtype)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One op in a tiny model, float and as DQ -> op -> Q with u8 activations and s8 weights.

    Attributes:
        op: type, of ai.onnx or com.microsoft.
        shapes: of the inputs that are computed.
        weights: shapes of the constant inputs behind them; a bias is the last one, of rank 1.
        out: shape of the output.
        attributes: of the node.
        channel: axis of the weights' scales; None: one scale.
        integer: the quantized form is wanted, too.
        activation: a type behind the op, which ORT fuses into it in float; Clip is that from 0 to 6.
        closed: there is a Q behind the op in it; otherwise the op gives floats.
    """

    op: str
    shapes: tuple[tuple[int, ...], ...]
    out: tuple[int, ...]
    weights: tuple[tuple[int, ...], ...] = ()
    attributes: tuple[tuple[str, Any], ...] = ()
    channel: int | None = None
    integer: bool = True
    activation: str = ""
    closed: bool = True


def tiny(case: Case, *, integer: bool) -> tuple[Model, dict[str, NDArray[Any]]]:
    """The model of a case, and inputs for it, which are float in both forms, as are the outputs."""
    random = np.random.default_rng(zlib.crc32(repr((case.op, case.shapes, case.weights)).encode()))
    nodes: list[gs.Node] = []

    def node(op: str, inputs: Sequence[gs.Tensor], dtype: Any = np.float32, **more: Any) -> gs.Variable:
        domain, _, kind = op.rpartition(".")
        out = gs.Variable(f"t{len(nodes)}", dtype)
        nodes.append(gs.Node(kind, f"n{len(nodes)}", more, list(inputs), [out], domain or None))
        return out

    def constant(values: Any, dtype: Any) -> gs.Constant:
        constants.append(gs.Constant(f"c{len(constants)}", np.asarray(values, dtype)))
        return constants[-1]

    def pair(tensor: gs.Tensor) -> gs.Variable:
        scale, zero = constant(0.05, np.float32), constant(128, np.uint8)
        return node("DequantizeLinear", [node("QuantizeLinear", [tensor, scale, zero], np.uint8), scale, zero])

    def weight(shape: tuple[int, ...]) -> gs.Tensor:
        if len(shape) == 1 or not integer:
            return constant(random.standard_normal(shape), np.float32)
        channels = () if case.channel is None else (shape[case.channel],)
        scale = constant(random.uniform(0.01, 0.02, channels), np.float32)
        quantized = constant(random.integers(-127, 128, shape), np.int8)
        more: dict[str, Any] = {"axis": case.channel} if case.channel is not None else {}
        return node("DequantizeLinear", [quantized, scale, constant(np.zeros(channels), np.int8)], **more)

    constants: list[gs.Constant] = []
    inputs = [gs.Variable(f"x{i}", np.float32, list(shape)) for i, shape in enumerate(case.shapes)]
    given: list[gs.Tensor] = [pair(x) for x in inputs] if integer else list(inputs)
    made = node(case.op, [*given, *map(weight, case.weights)], **dict(case.attributes))
    if case.activation:
        bounds = [constant(value, np.float32) for value in (0.0, 6.0)] if case.activation == "Clip" else []
        made = node(case.activation, [made, *bounds])
    if integer and case.closed:
        made = pair(made)
    made.shape = list(case.out)
    graph = gs.Graph(nodes, inputs, [made], name="tiny", opset=OPSET)
    fed = {f"x{i}": random.standard_normal(shape).astype(np.float32) for i, shape in enumerate(case.shapes)}
    model = Model(graph=graph, opset=OPSET, ir_version=IR_VERSION, meta=Meta(domains={"com.microsoft": 1}))
    return model, fed


def measure_cases(
    cases: Iterable[Case],
    *,
    threads: int = 1,
    rounds: int = ROUNDS,
    runs: int = RUNS,
    profiler: Profiler = profile,
    told: Callable[[str], None] = lambda _: None,
) -> CostTable:
    """Profile the float and the quantized form of each case in turn, optimizations on, and take every kernel's time:
    of the op, of Q and DQ, and of the layout conversions around it.

    Args:
        told: is called with a line for each case and round.

    Raises:
        ModelError: a case does not run.
        UsageError: rounds, runs or threads below 1.
    """
    if rounds < 1 or runs < 1 or threads < 1:
        raise UsageError("a micro-benchmark needs at least one round, one run and one thread")
    table = CostTable(machine=this_machine())
    wanted = list(cases)
    for turn in range(rounds):
        for case in wanted:
            for integer in (False, True) if case.integer else (False,):
                model, inputs = tiny(case, integer=integer)
                found = profiler(to_bytes(model), [inputs], threads=threads, runs=runs)
                table = table.merge(observe(found, threads=threads, alone=True))
            told(f"round {turn + 1} of {rounds}: {case.op} {case.shapes} {case.weights}")
    return table
