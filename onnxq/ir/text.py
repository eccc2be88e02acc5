"""Canonical text of a graph, for tests and for comparing; and models from onnx.parser syntax.

One node per line, in the order of the list; equal graphs give equal text on every machine. Small constants stand by
value, large ones by shape and the start of their SHA-256. onnx.printer would drop 4-bit data and metadata.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import AttributeProto, parser

from onnxq.errors import ModelError
from onnxq.ir.hash import array_hash
from onnxq.ir.load import from_proto
from onnxq.ir.model import Model

_SMALL = 16
"""Elements up to which a constant stands by value."""
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_./:\[\]-]+")


def text(graph: gs.Graph | Model) -> str:
    """The canonical text; of a Model with its versions and metadata.

    graph main(x: float32[N,4]) -> (y: float32[N,2])
      const w = float32[4,2] sha256:1f0c9b7a2e55
      const s = float32[] 0.5
      h = MatMul(x, w) "mm"
      y = com.microsoft.FastGelu(h) {flag=1}
    """
    lines: list[str] = []
    if isinstance(graph, Model):
        model, graph = graph, graph.graph
        lines.append(f"opset {model.opset} ir {model.ir_version}")
        used = sorted({n.domain for n in graph.nodes if n.domain})
        lines.extend(f"domain {_name(d)} {model.meta.domains.get(d, 1)}" for d in used)
        lines.extend(f"metadata {_name(k)} = {json.dumps(v)}" for k, v in sorted(model.meta.metadata.items()))
    seen: set[int] = set()
    _graph(graph, f"graph {_name(graph.name or 'graph')}", "", lines, seen)
    return "\n".join(lines) + "\n"


def parse(source: str) -> Model:
    """A model written in the syntax of onnx.parser.

    Raises:
        ModelError: the source does not follow the syntax.
    """
    try:
        proto = parser.parse_model(source)
    except parser.ParseError as error:
        line = " ".join(str(error).split())
        raise ModelError(f"The model text does not follow the syntax of onnx.parser: {line}") from error
    return from_proto(proto, where="the model text")


def _graph(graph: gs.Graph, title: str, indent: str, lines: list[str], seen: set[int]) -> None:
    inputs = ", ".join(_typed(t) for t in graph.inputs)
    outputs = ", ".join(_typed(t) for t in graph.outputs)
    lines.append(f"{indent}{title}({inputs}) -> ({outputs})")
    indent += "  "
    for node in graph.nodes:
        for tensor in node.inputs:
            if isinstance(tensor, gs.Constant) and id(tensor) not in seen:
                seen.add(id(tensor))
                lines.append(f"{indent}const {_name(tensor.name)} = {_values(tensor.values)}")
        lines.append(indent + _node(node))
        for name in sorted(node.attrs):
            value = node.attrs[name]
            if isinstance(value, gs.Graph):
                _graph(value, name, indent + "  ", lines, seen)
        for key, value in sorted(getattr(node, "metadata_props", {}).items()):
            lines.append(f"{indent}  metadata {_name(key)} = {json.dumps(value)}")
    for tensor in graph.outputs:
        if isinstance(tensor, gs.Constant) and id(tensor) not in seen:
            seen.add(id(tensor))
            lines.append(f"{indent}const {_name(tensor.name)} = {_values(tensor.values)}")


def _node(node: gs.Node) -> str:
    outputs = ", ".join(_name(t.name) for t in node.outputs)
    inputs = ", ".join(_name(t.name) for t in node.inputs)
    op = f"{node.domain}.{node.op}" if node.domain else node.op
    attributes = ", ".join(
        f"{name}={_value(node.attrs[name])}"
        for name in sorted(node.attrs)
        if not isinstance(node.attrs[name], gs.Graph)
    )
    line = f"{outputs} = {op}({inputs})"
    if attributes:
        line += f" {{{attributes}}}"
    if node.name:
        line += f" {json.dumps(node.name, ensure_ascii=False)}"
    return line


def _name(name: str) -> str:
    """A name as it is if it is plain, in quotes otherwise; `_` for an omitted input or output."""
    if not name:
        return "_"
    return name if name != "_" and _PLAIN_NAME.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def _typed(tensor: gs.Tensor) -> str:
    if tensor.dtype is None:
        return _name(tensor.name)
    if tensor.shape is None:
        return f"{_name(tensor.name)}: {np.dtype(tensor.dtype)}"
    dims = ",".join("?" if d is None else str(d) for d in tensor.shape)
    return f"{_name(tensor.name)}: {np.dtype(tensor.dtype)}[{dims}]"


def _values(array: NDArray[Any]) -> str:
    head = f"{'string' if array.dtype == object else array.dtype}[{','.join(map(str, array.shape))}]"
    if array.size > _SMALL:
        return f"{head} sha256:{array_hash(array)[:12]}"
    items = [_scalar(v) for v in array.ravel()]
    return f"{head} {items[0]}" if array.ndim == 0 else f"{head} {{{', '.join(items)}}}"


def _value(value: Any) -> str:
    if isinstance(value, gs.Constant):
        return _values(value.values)
    if isinstance(value, np.ndarray):
        return _values(value)
    if isinstance(value, AttributeProto):
        return " ".join(str(value).split())
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_value(v) for v in value)}]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    """Numbers as short as they round-trip; an attribute of type float has 32 bits."""
    if isinstance(value, (str, bytes)):
        return json.dumps(value if isinstance(value, str) else value.decode("latin-1"), ensure_ascii=False)
    if isinstance(value, float) and not isinstance(value, np.generic):
        return str(np.float32(value))
    return str(value)
