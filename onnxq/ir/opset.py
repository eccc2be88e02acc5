"""Reach the opset that a target wants, and prove on a sample that the model still means the same.

onnx.version_converter does the work on the model without its weights. It cannot be trusted blindly (measured in
tests/ir/test_opset.py): it turns Upsample and Resize-10 into a Resize with another coordinate mode, names its own
tensors `_v_<n>` even if the user has such names, and leaves the IR version. The first two are repaired here; then both
models run on a sample, and unless the outputs agree the opset stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, version_converter

from onnxq.errors import OnnxqError
from onnxq.ir import tensors, walk
from onnxq.ir.load import store_reader
from onnxq.ir.model import Model
from onnxq.ir.protobuf import import_graph, paused_gc
from onnxq.ir.save import structure
from onnxq.ir.schema import standard_schema

_FAILED = re.compile(r"^\S+:\d+: \w+: Assertion `[^`]*` failed: ")
"""What the converter's C++ says in front of its reason: a file of whoever built it."""

Outputs = dict[str, NDArray[Any]]
Run = Callable[[Model, Mapping[str, NDArray[Any]]], Outputs]
"""Runs a model with the runtime's optimizations off."""

TOLERANCE: Mapping[str, float] = {"float16": 2e-3, "float32": 1e-5, "float64": 1e-9}
"""Largest allowed difference, as a part of the largest magnitude of the output; other types must be equal."""

STEPS = (21, 20, 19, 18, 17, 16, 15, 14, 13)
"""Tried in this order for a model below opset 13, where Q/DQ has no axis yet, if the wanted opset is not reached."""

_MINE = "_v_"
_KEPT = "onnxq:"
_IR_OF_TYPE: dict[int, int] = {
    TensorProto.FLOAT4E2M1: 11,
    TensorProto.FLOAT8E8M0: 12,
    TensorProto.INT2: 13,
    TensorProto.UINT2: 13,
}


def convert(model: Model, opset: int, ir_version: int, sample: Mapping[str, NDArray[Any]] | None, run: Run) -> Model:
    """The model at another opset, or with a note why it stays.

    Args:
        model: what to convert; left as it is.
        opset: wanted version of ai.onnx. If it is out of reach, a model below 13 goes as far as it can, others stay.
        ir_version: wanted IR version.
        sample: inputs for the comparison; None makes up one from the types and shapes of the inputs.
        run: runs a model without optimizations; raises an OnnxqError if it cannot.

    Returns:
        A new Model (constants share their arrays with the old one), or the given one; notes appended.

    Raises:
        OnnxqError: the original model does not run on the given sample.
    """
    if model.opset == opset:
        return _with_ir(model, ir_version)
    try:
        inputs = made_up_sample(model) if sample is None else sample
        expected = run(model, inputs)
    except (OnnxqError, ValueError) as error:
        if sample is not None:
            raise
        model.notes.append(
            f"The opset stays {model.opset}, not {opset}: no made-up sample can show that the meaning stays ({error})."
        )
        return model
    wanted = [opset]
    if model.opset < 13:
        wanted += [s for s in STEPS if model.opset < s < opset]
    reasons: list[str] = []
    for step in wanted:
        try:
            candidate = _with_ir(_converted(model, step), ir_version)
            reason = compare(expected, run(candidate, inputs))
        except (OnnxqError, _ConversionError) as error:
            reasons.append(str(error).rstrip("."))
            continue
        if reason:
            reasons.append(reason)
            continue
        tail = f" ({opset} was not reached: {reasons[0]})" if reasons else ""
        candidate.notes.append(f"Opset {model.opset} became {step}{tail}; both give the same outputs on a sample.")
        return candidate
    model.notes.append(f"The opset stays {model.opset}, not {opset}: {reasons[0]}.")
    return model


def compare(expected: Outputs, got: Outputs) -> str:
    """An empty string if the outputs agree within TOLERANCE, else what differs."""
    for name, a in expected.items():
        b = got.get(name)
        if b is None:
            return f'the converted model has no output "{name}"'
        if isinstance(a, np.ndarray) != isinstance(b, np.ndarray):
            return f'output "{name}" has another type in the converted model'
        if not isinstance(a, np.ndarray):
            if repr(a) != repr(b):
                return f'output "{name}" of the converted model differs on a sample'
            continue
        if a.dtype != b.dtype or a.shape != b.shape:
            return f'output "{name}" of the converted model is {b.dtype}{list(b.shape)}, not {a.dtype}{list(a.shape)}'
        if a.dtype.kind == "f":
            difference = _difference(a.astype(np.float64), b.astype(np.float64))
            if not difference <= TOLERANCE.get(str(a.dtype), 0.0):
                return f'output "{name}" of the converted model differs on a sample by {difference:.3g} of its range'
        elif not np.array_equal(a, b):
            return f'output "{name}" of the converted model differs on a sample'
    return ""


def _difference(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Largest difference relative to the largest finite magnitude; infinite if NaN or infinities are elsewhere."""
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)) or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    if not finite.any():
        return 0.0
    top = float(np.abs(a[finite]).max())
    return float(np.abs(a[finite] - b[finite]).max()) / (top or 1.0)


def made_up_sample(model: Model, free: int = 1) -> Outputs:
    """Inputs from types and shapes alone: floats of a fixed distribution, integers 0 and 1, unknown dimensions `free`.

    Raises:
        ValueError: an input is no tensor of numbers, or of unknown rank.
    """
    rng = np.random.default_rng(0)
    result: Outputs = {}
    for tensor in model.graph.inputs:
        if tensor.dtype is None or tensor.shape is None or np.dtype(tensor.dtype).kind not in "fiub":
            raise ValueError(f'input "{tensor.name}" is not a tensor of numbers with a known rank')
        shape = tuple(d if isinstance(d, int) and d > 0 else free for d in tensor.shape)
        dtype = np.dtype(tensor.dtype)
        values = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
        result[tensor.name] = values.astype(dtype)
    return result


class _ConversionError(Exception):
    """The conversion itself failed; the text says why."""


def _with_ir(model: Model, ir_version: int) -> Model:
    """The same model with the wanted IR version, if the element types of its constants exist there."""
    needed = ir_version
    for _, graph in walk.graphs(model.graph):
        for node in graph.nodes:
            for tensor in node.inputs:
                if isinstance(tensor, gs.Constant):
                    needed = max(needed, _IR_OF_TYPE.get(tensors.onnx_dtype(tensor.dtype), 0))
    return model if model.ir_version == needed else replace(model, ir_version=needed, notes=model.notes)


def _converted(model: Model, opset: int) -> Model:
    """Raises _ConversionError with a reason."""
    old = {(level, n.outputs[0].name): n for level, n in _nodes(model.graph) if n.outputs}
    renamed = _hide_names(model.graph)
    try:
        parts = structure(model, value_info=True)
    finally:
        for tensor, name in renamed:
            tensor.name = name
    parts.proto.ir_version = max(parts.proto.ir_version, 4)  # below, every initializer would have to be an input
    try:
        proto = version_converter.convert_version(parts.proto, opset)
    except Exception as error:  # the C++ side raises several types
        if not _same_signatures(model, opset):
            line = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            line = _FAILED.sub("", line)
            raise _ConversionError(f"onnx.version_converter cannot convert it ({line})") from error
        proto = ModelProto()
        proto.CopyFrom(parts.proto)
    with paused_gc():
        graph = import_graph(proto.graph, store_reader(parts.arrays), opset)
    _show_names(graph, [name for _, name in renamed])
    _repair(graph, model, old, opset)
    boundary = ([t.name for t in graph.inputs], [t.name for t in graph.outputs])
    if boundary != ([t.name for t in model.graph.inputs], [t.name for t in model.graph.outputs]):
        raise _ConversionError("onnx.version_converter changed the inputs or outputs")
    for tensor, before in zip(
        (*graph.inputs, *graph.outputs), (*model.graph.inputs, *model.graph.outputs), strict=True
    ):
        if isinstance(tensor, gs.Variable) and isinstance(before, gs.Variable):
            tensor.dtype, tensor.shape, tensor.type = before.dtype, before.shape, before.type
            if hasattr(before, "value_info"):
                tensor.value_info = before.value_info
    graph.doc_string = model.graph.doc_string
    constants = {t.name: t for _, n in _nodes(graph) for t in n.inputs if isinstance(t, gs.Constant)}
    meta = replace(
        model.meta,
        overridable_constants=[constants.get(c.name, c) for c in model.meta.overridable_constants],
    )
    return replace(model, graph=graph, opset=opset, meta=meta, notes=list(model.notes))


def _nodes(graph: gs.Graph) -> Iterator[tuple[int, gs.Node]]:
    """All nodes with the number of their graph in walking order, which conversion keeps."""
    for level, (_, inner) in enumerate(walk.graphs(graph)):
        for node in inner.nodes:
            yield level, node


def _all_tensors(graph: gs.Graph) -> list[gs.Tensor]:
    found: dict[int, gs.Tensor] = {}
    for _, inner in walk.graphs(graph):
        for tensor in (*inner.inputs, *inner.outputs, *(t for n in inner.nodes for t in (*n.inputs, *n.outputs))):
            found[id(tensor)] = tensor
    return list(found.values())


def _hide_names(graph: gs.Graph) -> list[tuple[gs.Tensor, str]]:
    """Rename the user's tensors that look like the converter's; returns them with their names."""
    renamed = [(t, t.name) for t in _all_tensors(graph) if t.name.startswith(_MINE)]
    for tensor, name in renamed:
        tensor.name = _KEPT + name
    return renamed


def _show_names(graph: gs.Graph, taken: list[str]) -> None:
    """Give the converter's own tensors unused names and the user's theirs back."""
    everything = _all_tensors(graph)
    names = {t.name for t in everything} | set(taken)
    for tensor in everything:
        if tensor.name.startswith(_MINE):
            tensor.name = walk.unique_name(names, f"converted{tensor.name}")
    for tensor in everything:
        if tensor.name.startswith(_KEPT + _MINE):
            tensor.name = tensor.name[len(_KEPT) :]


def _repair(graph: gs.Graph, model: Model, old: Mapping[tuple[int, str], gs.Node], opset: int) -> None:
    """Write Upsample and Resize-10 as ONNX Runtime computes them, restore node metadata, drop dead constants."""
    names = walk.tensor_names(graph)
    for level, node in list(_nodes(graph)):
        before = old.get((level, node.outputs[0].name)) if node.outputs else None
        if before is None:
            continue
        if hasattr(before, "metadata_props"):
            node.metadata_props = before.metadata_props
        if model.opset <= 10 < opset and before.op in ("Upsample", "Resize") and not before.domain:
            _write_resize(node, before, opset, names)
    for _, inner in walk.graphs(graph):
        outputs = {id(t) for t in inner.outputs}
        dead = {
            id(n)
            for n in inner.nodes
            if n.op == "Constant" and not n.outputs[0].outputs and id(n.outputs[0]) not in outputs
        }
        walk.remove_nodes(inner, dead)


def _write_resize(node: gs.Node, before: gs.Node, opset: int, names: set[str]) -> None:
    """Resize-11 and later with the meaning of Upsample-7, Upsample-9 and Resize-10 in ONNX Runtime.

    Coordinates are asymmetric (x_in = x_out / scale); nearest is the floor when enlarging, the ceiling when shrinking.
    """
    data = node.inputs[0]
    out = node.outputs[0].name
    if len(before.inputs) == 1:
        values = np.asarray(before.attrs["scales"], dtype=np.float32)
        scales = gs.Constant(walk.unique_name(names, f"{out}_scales"), values)
    else:
        wanted = before.inputs[1].name
        found = [t for t in node.inputs if t.name == wanted]
        if not found:
            raise _ConversionError(f'onnx.version_converter lost the scales of "{before.name or out}"')
        scales = found[0]
    factors = walk.constant_array(scales)
    shrinks = factors is not None and bool((factors < 1).any()) and not bool((factors > 1).any())
    mode = before.attrs.get("mode", "nearest")
    node.op = "Resize"
    node.attrs = {"mode": mode, "coordinate_transformation_mode": "asymmetric"}
    if mode == "nearest":
        node.attrs["nearest_mode"] = "ceil" if shrinks else "floor"
    roi = (
        gs.Variable.empty()
        if opset >= 13
        else gs.Constant(walk.unique_name(names, f"{out}_roi"), np.zeros(0, np.float32))
    )
    for slot in range(len(node.inputs) - 1, -1, -1):
        tensor = node.inputs[slot]
        list.__setitem__(tensor.outputs, slice(None), [n for n in tensor.outputs if n is not node])
    list.clear(node.inputs)
    node.inputs.extend([data, roi, scales])


@dataclass(frozen=True)
class _Signature:
    attributes: tuple[tuple[str, str, str], ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def _signature(op: str, opset: int) -> _Signature | None:
    schema = standard_schema(op, opset)
    if schema is None:
        return None
    return _Signature(
        attributes=tuple((name, str(a.type), str(a.default_value)) for name, a in sorted(schema.attributes.items())),
        inputs=tuple(i.name for i in schema.inputs),
        outputs=tuple(o.name for o in schema.outputs),
    )


def _same_signatures(model: Model, opset: int) -> bool:
    """True if every op has the same inputs, outputs and attributes at both opsets: then only the number has to change
    (the sample decides)."""
    ops = {n.op for _, n in _nodes(model.graph) if not n.domain}
    pairs = [(_signature(op, model.opset), _signature(op, opset)) for op in sorted(ops)]
    return all(a is not None and a == b for a, b in pairs)
