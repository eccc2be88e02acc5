"""Types and shapes of all tensors, as far as onnx can tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx import AttributeProto, GraphProto, ModelProto, shape_inference

from onnxq.ir import walk
from onnxq.ir.model import Model
from onnxq.ir.protobuf import type_of
from onnxq.ir.save import structure

Known = tuple[np.dtype[Any] | None, tuple[int | str | None, ...] | None]
"""Element type (None: unknown, or no tensor) and shape: int, symbol or None (unknown) per axis; None: unknown rank."""

SHAPED_LIKE_INPUT = frozenset({"QuickGelu", "Gelu", "FastGelu", "BiasGelu"})
"""Of the domain com.microsoft: ops whose only output has the type and shape of the first input."""

_INLINE = 1 << 16
"""Bytes up to which inference may see the values of a constant (shapes are small)."""


def infer(model: Model, *, declared: bool = True) -> dict[str, Known]:
    """What is known about each tensor, inner graphs included; never raises: a failure is a note of the model.

    onnx infers from the inputs; where it cannot (custom operators), the types in the file fill the gaps.

    Args:
        declared: False leaves the gaps, and of the graph's outputs tells what was inferred, not what the file claims.
    """
    known = _inferred(_asked(model, declared=declared), model)
    if not declared:
        return known
    for _, graph in walk.graphs(model.graph):
        for tensor in (*graph.inputs, *graph.outputs):
            _fill(known, tensor)
        for node in graph.nodes:
            for tensor in (*node.inputs, *node.outputs):
                _fill(known, tensor)
    return known


def infer_at(model: Model, points: Sequence[Mapping[str, int]]) -> list[dict[str, Known]]:
    """What `infer(model, declared=False)` would say if the symbols in the shapes of the inputs had these sizes.

    Args:
        points: symbol -> size; symbols that are not there stay open.
    """
    proto = _asked(model, declared=False)
    dims = [d for info in proto.graph.input for d in info.type.tensor_type.shape.dim if d.WhichOneof("value")]
    symbols = [(dim, dim.dim_param) for dim in dims if dim.dim_param]
    found = []
    for point in points:
        for dim, symbol in symbols:
            if symbol in point:
                dim.dim_value = point[symbol]
            else:
                dim.dim_param = symbol
        found.append(_inferred(proto, model))
    return found


def _asked(model: Model, *, declared: bool) -> ModelProto:
    """What inference is given."""
    parts = structure(model, inline_below=_INLINE)
    _stand_in(parts.proto.graph)
    if not declared:
        for info in parts.proto.graph.output:
            info.ClearField("type")  # inference would hand on what the file claims
    return parts.proto


def _inferred(asked: ModelProto, model: Model) -> dict[str, Known]:
    """Empty if inference fails, which is noted once."""
    known: dict[str, Known] = {}
    try:
        proto = shape_inference.infer_shapes(asked, check_type=False, strict_mode=False, data_prop=True)
    except Exception as error:  # the C++ side raises several types
        line = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        note = f"Shape inference failed ({line}); shapes seen while calibrating are used."
        if note not in model.notes:
            model.notes.append(note)
    else:
        _collect(proto.graph, known)
    return known


def _stand_in(graph: GraphProto) -> None:
    """Let Identity stand for ops of which onnx does not know that their output is shaped like their input."""
    for node in graph.node:
        if node.domain == "com.microsoft" and node.op_type in SHAPED_LIKE_INPUT:
            node.op_type, node.domain = "Identity", ""
            del node.input[1:], node.attribute[:]
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                _stand_in(attribute.g)


def _collect(graph: GraphProto, known: dict[str, Known]) -> None:
    for info in (*graph.input, *graph.output, *graph.value_info):
        dtype, shape, _ = type_of(info)
        if shape is not None:
            shape = tuple(map(_dimension, shape))
        known[info.name] = (dtype, shape)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                _collect(attribute.g, known)


def _dimension(size: int | str | None) -> int | str | None:
    """None for what onnx calls unknown, and for the -1 of Paddle's exports, which inference hands on as a size."""
    unknown = size.startswith("unk__") if isinstance(size, str) else size is not None and size < 0
    return None if unknown else size


def _fill(known: dict[str, Known], tensor: gs.Tensor) -> None:
    if not tensor.name:
        return
    if isinstance(tensor, gs.Constant):
        values = tensor.values
        known[tensor.name] = (values.dtype, tuple(int(d) for d in values.shape))
        return
    dtype, shape = known.get(tensor.name, (None, None))
    if dtype is None and tensor.dtype is not None:
        dtype = np.dtype(tensor.dtype)
    if shape is None and tensor.shape is not None:
        shape = tuple(map(_dimension, tensor.shape))
    elif shape is not None and tensor.shape is not None and len(shape) == len(tensor.shape):
        shape = tuple(_dimension(b) if a is None else a for a, b in zip(shape, tensor.shape, strict=True))
    known[tensor.name] = (dtype, shape)
