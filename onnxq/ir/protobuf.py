"""The bridge between GraphProto and gs.Graph, both ways.

graphsurgeon's own import and export are not used: they lose doc strings, metadata, types other than tensors and
attributes of rare kinds, give shadowed names to the wrong tensor and copy captured initializers. Objects are its own.

What `gs` has no field for is set as an attribute on its objects:
 * `gs.Node.doc_string: str`, `gs.Node.metadata_props: dict[str, str]`, only where the file has them;
 * `gs.Variable.value_info: onnx.ValueInfoProto` on inputs and outputs of graphs, used on export while type and shape
   still agree with the variable;
 * an attribute of a kind that graphsurgeon lacks stays an `onnx.AttributeProto` in `node.attrs`.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto, defs, helper

from onnxq.errors import PassError
from onnxq.ir import tensors

ReadTensor = Callable[[TensorProto], NDArray[Any]]
WriteTensor = Callable[[str, NDArray[Any]], TensorProto]

_SCALAR_FIELDS = {AttributeProto.FLOAT: "f", AttributeProto.INT: "i"}
_LIST_FIELDS = {AttributeProto.FLOATS: "floats", AttributeProto.INTS: "ints"}


class EmptyList(list[Any]):
    """An empty list attribute that remembers its kind (AttributeProto.INTS, FLOATS or STRINGS)."""

    kind: int = AttributeProto.INTS


@contextmanager
def paused_gc() -> Iterator[None]:
    """Garbage collection off: making 100,000 nodes would run it over and over for nothing."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


# ------------------------------------------------------------------------------------------------------------ import


def import_graph(
    proto: GraphProto, read: ReadTensor, opset: int, outer: Sequence[Mapping[str, gs.Tensor]] = ()
) -> gs.Graph:
    """A gs.Graph with the scoping of ONNX: a name means the innermost definition; bodies see the tensors around them.

    Args:
        proto: the graph, without sparse initializers.
        read: gives the array of an initializer or tensor attribute.
        opset: written into the graph.
        outer: names of the graphs around it, innermost last.
    """
    local: dict[str, gs.Tensor] = {}
    for initializer in proto.initializer:
        local[initializer.name] = gs.Constant(initializer.name, read(initializer))
    inputs = []
    for info in proto.input:
        if info.name not in local:
            local[info.name] = _variable(info, keep=True)
            inputs.append(local[info.name])
    for node in proto.node:
        for name in node.output:
            if name and name not in local:
                local[name] = gs.Variable(name)
    for info in proto.value_info:
        tensor = local.get(info.name)
        if isinstance(tensor, gs.Variable) and tensor.dtype is None:
            _describe(tensor, info, keep=False)
    scopes = (*outer, local)
    outputs = []
    for info in proto.output:
        tensor = _find(info.name, scopes)
        if isinstance(tensor, gs.Variable) and not hasattr(tensor, "value_info"):
            _describe(tensor, info, keep=True)
        outputs.append(tensor)
    nodes = [_import_node(node, scopes, read, opset) for node in proto.node]
    return gs.Graph(
        nodes=nodes, inputs=inputs, outputs=outputs, name=proto.name, doc_string=proto.doc_string, opset=opset
    )


def _find(name: str, scopes: Sequence[Mapping[str, gs.Tensor]]) -> gs.Tensor:
    for scope in reversed(scopes):
        if name in scope:
            return scope[name]
    tensor = gs.Variable(name)
    scopes[-1][name] = tensor  # type: ignore[index]
    return tensor


def _import_node(node: NodeProto, scopes: Sequence[Mapping[str, gs.Tensor]], read: ReadTensor, opset: int) -> gs.Node:
    local = scopes[-1]
    result = gs.Node(
        op=node.op_type,
        name=node.name,
        attrs={a.name: _import_attribute(a, scopes, read, opset) for a in node.attribute},
        inputs=[_find(name, scopes) if name else gs.Variable.empty() for name in node.input],
        outputs=[local[name] if name else gs.Variable.empty() for name in node.output],
        domain=node.domain if node.domain != "ai.onnx" and node.domain else None,
    )
    if node.doc_string:
        result.doc_string = node.doc_string
    if node.metadata_props:
        result.metadata_props = {p.key: p.value for p in node.metadata_props}
    return result


def _import_attribute(
    attribute: AttributeProto, scopes: Sequence[Mapping[str, gs.Tensor]], read: ReadTensor, opset: int
) -> Any:
    kind = attribute.type
    value: Any = attribute
    if kind in _SCALAR_FIELDS:
        value = getattr(attribute, _SCALAR_FIELDS[kind])
    elif kind in _LIST_FIELDS:
        value = list(getattr(attribute, _LIST_FIELDS[kind]))
    elif kind == AttributeProto.TENSOR:
        value = gs.Constant(attribute.t.name, read(attribute.t))
    elif kind == AttributeProto.GRAPH:
        value = import_graph(attribute.g, read, opset, scopes)
    elif kind in (AttributeProto.STRING, AttributeProto.STRINGS):
        try:
            value = attribute.s.decode() if kind == AttributeProto.STRING else [s.decode() for s in attribute.strings]
        except UnicodeDecodeError:
            value = attribute
    if value is attribute:
        value = AttributeProto()
        value.CopyFrom(attribute)  # a copy: a part would keep the whole file in memory
    elif isinstance(value, list) and not value:
        value = EmptyList()
        value.kind = kind
    return value


def _variable(info: ValueInfoProto, *, keep: bool) -> gs.Variable:
    variable = gs.Variable(info.name)
    _describe(variable, info, keep=keep)
    return variable


def _describe(variable: gs.Variable, info: ValueInfoProto, *, keep: bool) -> None:
    variable.dtype, variable.shape, variable.type = type_of(info)
    if keep:
        variable.value_info = ValueInfoProto()
        variable.value_info.CopyFrom(info)


def type_of(info: ValueInfoProto) -> tuple[np.dtype[Any] | None, tuple[int | str | None, ...] | None, str]:
    """(element type, shape, kind) of a value; kind is graphsurgeon's ("tensor_type", "sequence_type", ...)."""
    kind = info.type.WhichOneof("value") or "tensor_type"
    if kind != "tensor_type":
        return None, None, kind
    tensor = info.type.tensor_type
    dtype = tensors.numpy_dtype(tensor.elem_type) if tensor.elem_type else None
    if not tensor.HasField("shape"):
        return dtype, None, kind
    fields = {"dim_value": "dim_value", "dim_param": "dim_param"}
    dims: list[int | str | None] = []
    for dim in tensor.shape.dim:
        field = dim.WhichOneof("value")
        value = getattr(dim, fields[field]) if field else None
        dims.append(None if value == "" else value)
    return dtype, tuple(dims), kind


# ------------------------------------------------------------------------------------------------------------ export


def homes(graph: gs.Graph) -> dict[int, list[gs.Constant]]:
    """Where each initializer is written: the innermost graph that encloses all its uses, so that a weight shared by two
    branches is stored once. id(graph) -> constants in the order of first use.

    Raises:
        PassError: two different constants of one graph have the same name.
    """
    paths: dict[int, tuple[gs.Graph, ...]] = {}
    constants: dict[int, gs.Constant] = {}

    def use(tensor: gs.Tensor, path: tuple[gs.Graph, ...]) -> None:
        key = id(tensor)
        known = paths.get(key)
        if known is None:
            paths[key] = path
            constants[key] = cast(gs.Constant, tensor)
        elif known is not path:
            common = 0
            for a, b in zip(known, path, strict=False):
                if a is not b:
                    break
                common += 1
            paths[key] = known[:common]

    def walk(inner: gs.Graph, path: tuple[gs.Graph, ...]) -> None:
        path = (*path, inner)
        for node in inner.nodes:
            for tensor in node.inputs:
                if isinstance(tensor, gs.Constant):
                    use(tensor, path)
            for value in node.attrs.values():
                if isinstance(value, gs.Graph):
                    walk(value, path)
        for tensor in inner.outputs:
            if isinstance(tensor, gs.Constant):
                use(tensor, path)

    walk(graph, ())
    result: dict[int, list[gs.Constant]] = {}
    names: dict[tuple[int, str], gs.Constant] = {}
    for key, constant in constants.items():
        home = id(paths[key][-1])
        other = names.setdefault((home, constant.name), constant)
        if other is constant:
            result.setdefault(home, []).append(constant)
        elif not _same(other, constant):
            raise PassError(f'two different constants are called "{constant.name}"; give the new one an unused name')
    return result


def _same(a: gs.Constant, b: gs.Constant) -> bool:
    x, y = a.values, b.values
    if x is y or x.dtype != y.dtype or x.shape != y.shape:
        return bool(x is y)
    return bool(x.tolist() == y.tolist() if x.dtype == object else x.tobytes() == y.tobytes())


def export_graph(
    graph: gs.Graph,
    write: WriteTensor,
    opset: int,
    *,
    initializers: Mapping[int, Sequence[gs.Constant]],
    value_info: bool = False,
) -> GraphProto:
    """The GraphProto of a graph and the graphs inside.

    Args:
        graph: what to write.
        write: makes the TensorProto of an array (inside, or a reference to a file).
        opset: tells the kind of an attribute that Python does not tell (an empty list, an int for a float).
        initializers: of this and the inner graphs, from `homes`.
        value_info: also write the types of inner tensors; off in files: after rewriting, they may be wrong, and
            nobody needs them.
    """
    proto = GraphProto(name=graph.name or "graph")
    if graph.doc_string:
        proto.doc_string = graph.doc_string
    proto.node.extend(_export_node(n, write, opset, initializers, value_info) for n in graph.nodes)
    proto.input.extend(_export_info(t) for t in graph.inputs)
    proto.output.extend(_export_info(t) for t in graph.outputs)
    proto.initializer.extend(write(c.name, c.values) for c in initializers.get(id(graph), ()))
    if value_info:
        boundary = {id(t) for t in (*graph.inputs, *graph.outputs)}
        for node in graph.nodes:
            for tensor in node.outputs:
                if tensor.name and tensor.dtype is not None and id(tensor) not in boundary:
                    proto.value_info.append(_export_info(tensor))
    return proto


def _export_node(
    node: gs.Node,
    write: WriteTensor,
    opset: int,
    initializers: Mapping[int, Sequence[gs.Constant]],
    value_info: bool,
) -> NodeProto:
    proto = NodeProto(op_type=node.op)
    if node.name:
        proto.name = node.name
    if node.domain:
        proto.domain = node.domain
    proto.input.extend(t.name for t in node.inputs)
    proto.output.extend(t.name for t in node.outputs)
    if node.attrs:
        kinds = _attribute_kinds(node.op, node.domain or "", opset)
        for name, value in node.attrs.items():
            if isinstance(value, gs.Graph):
                inner = export_graph(value, write, opset, initializers=initializers, value_info=value_info)
                proto.attribute.append(AttributeProto(name=name, type=AttributeProto.GRAPH, g=inner))
            else:
                proto.attribute.append(_export_attribute(name, value, kinds.get(name), write))
    doc_string = getattr(node, "doc_string", "")
    if doc_string:
        proto.doc_string = doc_string
    for key, text in sorted(getattr(node, "metadata_props", {}).items()):
        proto.metadata_props.add(key=key, value=text)
    return proto


@functools.lru_cache(maxsize=4096)
def _attribute_kinds(op: str, domain: str, opset: int) -> Mapping[str, int]:
    """Attribute name -> AttributeProto type, as the schema of the op has it; empty for ops that onnx does not know."""
    if domain not in ("", "ai.onnx"):
        return {}
    try:
        schema = defs.get_schema(op, opset, "")
    except defs.SchemaError:
        return {}
    return {name: int(cast(Any, a.type).value) for name, a in schema.attributes.items()}


def attribute_bytes(node: gs.Node, name: str, opset: int) -> bytes:
    """An attribute (not a graph, not a tensor) as it is written: `1` and `1.0` are equal where the op wants a float."""
    kind = _attribute_kinds(node.op, node.domain or "", opset).get(name)
    data: bytes = _export_attribute(name, node.attrs[name], kind, tensors.to_proto).SerializeToString(
        deterministic=True
    )
    return data


def _export_attribute(name: str, value: Any, kind: int | None, write: WriteTensor) -> AttributeProto:
    if isinstance(value, AttributeProto):
        proto = AttributeProto()
        proto.CopyFrom(value)
        proto.name = name
        return proto
    if isinstance(value, gs.Constant):
        return AttributeProto(name=name, type=AttributeProto.TENSOR, t=write(value.name, value.values))
    if isinstance(value, np.ndarray) and (value.ndim != 1 or kind == AttributeProto.TENSOR):
        return AttributeProto(name=name, type=AttributeProto.TENSOR, t=write("", value))
    if isinstance(value, (type, np.dtype)):
        value = tensors.onnx_dtype(value)
    if isinstance(value, (str, bytes)):
        data = value.encode() if isinstance(value, str) else value
        return AttributeProto(name=name, type=AttributeProto.STRING, s=data)
    if isinstance(value, (bool, int, float, np.generic)):
        is_float = kind == AttributeProto.FLOAT or isinstance(value, (float, np.floating))
        if is_float:
            return AttributeProto(name=name, type=AttributeProto.FLOAT, f=float(value))
        return AttributeProto(name=name, type=AttributeProto.INT, i=int(value))
    items = list(value)
    if not items and kind is None:
        kind = value.kind if isinstance(value, EmptyList) else AttributeProto.INTS
    if items and kind not in (AttributeProto.FLOATS, AttributeProto.STRINGS):
        if isinstance(items[0], (str, bytes)):
            kind = AttributeProto.STRINGS
        else:
            floats = any(isinstance(v, (float, np.floating)) for v in items)
            kind = AttributeProto.FLOATS if floats else AttributeProto.INTS
    if kind == AttributeProto.STRINGS:
        strings = [v.encode() if isinstance(v, str) else v for v in items]
        return AttributeProto(name=name, type=AttributeProto.STRINGS, strings=strings)
    if kind == AttributeProto.FLOATS:
        return AttributeProto(name=name, type=AttributeProto.FLOATS, floats=[float(v) for v in items])
    return AttributeProto(name=name, type=AttributeProto.INTS, ints=[int(v) for v in items])


def _export_info(tensor: gs.Tensor) -> ValueInfoProto:
    original = getattr(tensor, "value_info", None)
    shape = None if tensor.shape is None else tuple(tensor.shape)
    kind = getattr(tensor, "type", None) or "tensor_type"
    if original is not None:
        dtype, old_shape, old_kind = type_of(original)
        if old_kind == kind and (kind != "tensor_type" or (_dtype_equal(dtype, tensor.dtype) and old_shape == shape)):
            info = ValueInfoProto()
            info.CopyFrom(original)
            info.name = tensor.name
            return info
    if tensor.dtype is None:
        return ValueInfoProto(name=tensor.name)
    return helper.make_tensor_value_info(tensor.name, tensors.onnx_dtype(tensor.dtype), shape)


def _dtype_equal(a: np.dtype[Any] | None, b: Any) -> bool:
    if a is None or b is None:
        return a is b
    return tensors.onnx_dtype(a) == tensors.onnx_dtype(b)
