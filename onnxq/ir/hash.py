"""Two hashes of a graph: a cheap one that notices a rewrite, an exact one that identifies a model.

Both are independent of PYTHONHASHSEED; only the exact one is independent of memory addresses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import AttributeProto

from onnxq.ir import tensors, walk
from onnxq.ir.model import Model
from onnxq.ir.protobuf import attribute_bytes

_SMALL = 64
"""Bytes up to which the cheap hash reads a constant's values."""


def structural(graph: gs.Graph) -> str:
    """A hash over ops, names, attributes, connections and small constants; a large constant counts by identity, type
    and shape. Compare it only within one process, before and after a pass."""
    state = hashlib.blake2b(digest_size=16)
    _graph(graph, state, _cheap)
    return state.hexdigest()


def model_hash(model: Model) -> str:
    """SHA-256 over the graph with all values, opset and IR version: equal on every machine for the same model.

    Metadata, doc strings and the names of files do not count; names of nodes and tensors do.
    """
    state = hashlib.sha256()
    used = {node.domain for _, graph in walk.graphs(model.graph) for node in graph.nodes}
    domains = sorted((d, v) for d, v in model.meta.domains.items() if d in used)
    state.update(f"opset {model.opset} ir {model.ir_version} {domains!r}\n".encode())
    _graph(model.graph, state, _exact, model.opset)
    return state.hexdigest()


def array_hash(array: NDArray[Any]) -> str:
    """SHA-256 of type, shape and values."""
    state = hashlib.sha256()
    _exact(array, state)
    return state.hexdigest()


_Write = Callable[[NDArray[Any], Any], None]


def _graph(graph: gs.Graph, state: Any, values: _Write, opset: int | None = None) -> None:
    _walk(graph, state, values, opset, set())


def _walk(graph: gs.Graph, state: Any, values: _Write, opset: int | None, seen: set[int]) -> None:
    put = state.update
    put(f"graph {[_info(t) for t in graph.inputs]!r} {[_info(t) for t in graph.outputs]!r}\n".encode())
    for node in graph.nodes:
        ends = ([t.name for t in node.inputs], [t.name for t in node.outputs])
        put(f"node {node.op!r} {node.domain or ''!r} {node.name!r} {ends!r}\n".encode())
        _constants(node.inputs, state, values, seen)
        for name in sorted(node.attrs):
            put(f"attribute {name!r} ".encode())
            value = node.attrs[name]
            if isinstance(value, gs.Graph):
                _walk(value, state, values, opset, seen)
            elif isinstance(value, gs.Constant):
                values(value.values, state)
            elif opset is None and not isinstance(value, (AttributeProto, np.ndarray)):
                put(repr(value).encode())
            else:
                put(attribute_bytes(node, name, opset or graph.opset))
            put(b"\n")
    _constants(graph.outputs, state, values, seen)
    put(b"end\n")


def _constants(ends: list[Any], state: Any, values: _Write, seen: set[int]) -> None:
    for tensor in ends:
        if isinstance(tensor, gs.Constant) and id(tensor) not in seen:
            seen.add(id(tensor))
            state.update(f"constant {tensor.name!r} ".encode())
            values(tensor.values, state)


def _info(tensor: gs.Tensor) -> tuple[str, str, str]:
    dtype = "" if tensor.dtype is None else str(tensor.dtype)
    return tensor.name, dtype, repr(None if tensor.shape is None else list(tensor.shape))


def _cheap(array: NDArray[Any], state: Any) -> None:
    state.update(f"{array.dtype.num} {array.shape} ".encode())
    if array.nbytes > _SMALL or array.dtype == object:
        address = array.__array_interface__["data"][0] if array.dtype.kind in "biufc" else 0
        state.update(f"{id(array)} {address}".encode())
    else:
        state.update(array.tobytes())


def _exact(array: NDArray[Any], state: Any) -> None:
    state.update(f"{array.dtype} {array.shape} ".encode())
    for chunk in tensors.raw_chunks(array):
        state.update(chunk)
