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
    _graph(model.graph, state, _exact)
    return state.hexdigest()


def array_hash(array: NDArray[Any]) -> str:
    """SHA-256 of type, shape and values."""
    state = hashlib.sha256()
    _exact(array, state)
    return state.hexdigest()


_Write = Callable[[NDArray[Any], Any], None]


def _graph(graph: gs.Graph, state: Any, values: _Write) -> None:
    seen: set[int] = set()
    _walk(graph, state, values, seen)


def _walk(graph: gs.Graph, state: Any, values: _Write, seen: set[int]) -> None:
    put = state.update
    put(f"graph {[_info(t) for t in graph.inputs]!r} {[_info(t) for t in graph.outputs]!r}\n".encode())
    for node in graph.nodes:
        ends = ([t.name for t in node.inputs], [t.name for t in node.outputs])
        put(f"node {node.op!r} {node.domain or ''!r} {node.name!r} {ends!r}\n".encode("utf-8", "surrogateescape"))
        for tensor in node.inputs:
            if isinstance(tensor, gs.Constant) and id(tensor) not in seen:
                seen.add(id(tensor))
                put(f"constant {tensor.name!r} ".encode())
                values(tensor.values, state)
        for name in sorted(node.attrs):
            put(f"attribute {name!r} ".encode())
            _attribute(node.attrs[name], state, values, seen)
    for tensor in graph.outputs:
        if isinstance(tensor, gs.Constant) and id(tensor) not in seen:
            seen.add(id(tensor))
            put(f"constant {tensor.name!r} ".encode())
            values(tensor.values, state)
    put(b"end\n")


def _attribute(value: Any, state: Any, values: _Write, seen: set[int]) -> None:
    if isinstance(value, gs.Graph):
        _walk(value, state, values, seen)
    elif isinstance(value, gs.Constant):
        values(value.values, state)
    elif isinstance(value, np.ndarray):
        values(value, state)
    elif isinstance(value, AttributeProto):
        state.update(value.SerializeToString(deterministic=True))
    elif isinstance(value, (list, tuple)):
        state.update(repr([_plain(v) for v in value]).encode())
    else:
        state.update(repr(_plain(value)).encode())
    state.update(b"\n")


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _info(tensor: gs.Tensor) -> tuple[str, str, str]:
    dtype = "" if tensor.dtype is None else str(tensor.dtype)
    return tensor.name, dtype, repr(None if tensor.shape is None else list(tensor.shape))


def _cheap(array: NDArray[Any], state: Any) -> None:
    state.update(f"{array.dtype} {array.shape} ".encode())
    if array.nbytes > _SMALL or array.dtype == object:
        address = array.__array_interface__["data"][0] if array.dtype.kind in "biufc" else 0
        state.update(f"{id(array)} {address}".encode())
    else:
        state.update(array.tobytes())


def _exact(array: NDArray[Any], state: Any) -> None:
    state.update(f"{array.dtype} {array.shape} ".encode())
    for chunk in tensors.raw_chunks(array):
        state.update(chunk)
