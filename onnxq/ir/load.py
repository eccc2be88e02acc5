"""File -> Model.

Weights leave the protobuf first (into read-only arrays or memory maps); what follows, inlining of local functions
included, works on the small rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, TensorProto, inliner

from onnxq.errors import ModelError
from onnxq.ir import tensors, walk
from onnxq.ir.model import Meta, Model
from onnxq.ir.protobuf import ReadTensor, import_graph, paused_gc

OPSETS = range(7, 27)
"""Versions of ai.onnx that can be read (what ONNX Runtime 1.31 runs)."""
IR_VERSIONS = range(3, 14)
"""IR versions that can be read."""

_FREE_OPSET = 21
"""Of a model without any op of ai.onnx: every version is right, so the one that most targets want."""

_MARK = "onnxq:"
_LARGE = 1 << 10
"""Bytes from which a tensor is taken out of the protobuf while it is worked on."""
_PROTOBUF_LIMIT = (1 << 31) - 1


def load(path: Path | str, *, keep_overridable: bool = False) -> Model:
    """Read a model file.

    Args:
        path: the .onnx file; external data is looked up beside it and mapped, not read.
        keep_overridable: initializers that are also graph inputs stay inputs when the model is saved; otherwise they
            become constants, and a note says so.

    Raises:
        ModelError: the file is missing, empty, truncated, no ONNX file, or of a version out of range.
    """
    path = Path(path)
    proto = read_proto(path)
    return from_proto(proto, folder=path.parent, where=str(path), source=path, keep_overridable=keep_overridable)


def read_proto(path: Path) -> ModelProto:
    """The ModelProto of a file, external data not loaded.

    Raises:
        ModelError: as `load`.
    """
    if path.is_dir():
        inside = sorted(p.name for p in path.glob("*.onnx"))
        hint = f'did you mean "{path / inside[0]}"?' if inside else "give the path of an .onnx file"
        raise ModelError(f"{path} is a folder, not a model; {hint}")
    try:
        size = path.stat().st_size
        if size > _PROTOBUF_LIMIT:
            raise ModelError(
                f"{path} is {size} bytes long, but an ONNX file ends at 2 GB; save the model with external data"
            )
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"{path} does not exist; give the path of an .onnx file") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    if not data:
        raise ModelError(f"{path} is empty; export or download the model again")
    proto = ModelProto()
    try:
        proto.ParseFromString(data)
    except Exception as error:  # google.protobuf.message.DecodeError; its module is private to the implementation
        raise ModelError(_not_parsed(path, data)) from error
    if not proto.HasField("graph") or not proto.ir_version:
        raise ModelError(_not_parsed(path, data))
    return proto


def declared_inputs(path: Path) -> list[tuple[str, np.dtype[Any], tuple[int | str | None, ...]]] | None:
    """Name, element type and shape of each input that a file wants, None if one is not a tensor of known rank.

    Raises:
        ModelError: as `load`.
    """
    graph = read_proto(path).graph
    made = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    found = []
    for value in graph.input:
        kind = value.type.tensor_type
        if value.name in made:
            continue
        if not kind.elem_type or not kind.HasField("shape"):
            return None
        sizes = ((d.dim_value if d.HasField("dim_value") else -1, d.dim_param or None) for d in kind.shape.dim)
        shape = (size if size >= 0 else symbol for size, symbol in sizes)  # some exporters write -1 for an open one
        found.append((value.name, tensors.numpy_dtype(kind.elem_type), tuple(shape)))
    return found


def external_files(path: Path) -> list[Path]:
    """The files beside a model that hold its external data, sorted; [] if all of it is inside.

    Raises:
        ModelError: as `load`.
    """
    found = {
        entry.value
        for tensor in _tensors(read_proto(path))
        if tensor.data_location == TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return sorted(path.parent / name for name in found)


def from_proto(
    proto: ModelProto,
    *,
    folder: Path | None = None,
    where: str = "the model",
    source: Path | None = None,
    keep_overridable: bool = False,
) -> Model:
    """A Model from a ModelProto (which is emptied of its weights on the way).

    Raises:
        ModelError: versions out of range, damaged or missing data.
    """
    opset = _check_versions(proto, where)
    notes: list[str] = []
    store: list[NDArray[Any]] = []
    sparse = _take_tensors(proto, folder, where, store)
    if sparse:
        notes.append(f"{_count(sparse, 'sparse initializer')} became dense, as ONNX Runtime does on load.")
    functions = len(proto.functions)
    if functions:
        try:
            inlined = inliner.inline_local_functions(proto, convert_version=True)
        except Exception as error:  # the C++ side raises RuntimeError and its own types
            raise ModelError(
                f"{where}: a local function cannot be inlined ({_line(error)}); export without functions"
            ) from error
        notes.append(f"{_count(functions, 'local function')} inlined.")
    else:
        inlined = proto
    if proto.training_info:
        notes.append("Training information was left out.")
    if proto.configuration:
        notes.append("Multi-device configurations were left out.")

    read = store_reader(store, where)
    with paused_gc():
        graph = import_graph(inlined.graph, read, opset)
        sorted_ok = walk.toposort(graph)
    if not sorted_ok:
        notes.append("Nodes were put in topological order.")
    meta = _meta(proto)
    named = {i.name for i in inlined.graph.input}
    constants = [i.name for i in inlined.graph.initializer if i.name in named]
    if proto.ir_version >= 4:  # in IR 3 every initializer is listed as an input, and none can be fed
        meta.overridable = constants
    if meta.overridable:
        if keep_overridable:
            meta.keep_overridable = True
            known = _constants(graph)
            arrays = {i.name: i for i in inlined.graph.initializer}
            meta.overridable_constants = [known.get(n) or gs.Constant(n, read(arrays[n])) for n in meta.overridable]
        else:
            names = ", ".join(f'"{n}"' for n in constants[:3]) + (", ..." if len(constants) > 3 else "")
            notes.append(
                f"{_count(len(constants), 'initializer')} that could be fed as an input became constant ({names}); "
                "--keep-overridable keeps them."
            )
    return Model(graph=graph, opset=opset, ir_version=proto.ir_version, meta=meta, source=source, notes=notes)


def store_reader(store: Sequence[NDArray[Any]], where: str = "the model") -> ReadTensor:
    """Reads tensors that are inside of the protobuf, or marked as `onnxq:<index in store>`."""

    def read(tensor: TensorProto) -> NDArray[Any]:
        mark = _mark_of(tensor)
        return store[mark] if mark is not None else tensors.to_array(tensor, None, where)

    return read


def _constants(graph: gs.Graph) -> dict[str, gs.Constant]:
    """Constants of the main graph and those that inner graphs capture, by name; the outermost wins."""
    found: dict[str, gs.Constant] = {}
    for _, inner in walk.graphs(graph):
        for node in inner.nodes:
            for tensor in node.inputs:
                if isinstance(tensor, gs.Constant):
                    found.setdefault(tensor.name, tensor)
    return found


def load_float(path: Path, *, keep_overridable: bool) -> Model:
    """Load a model that is to be quantized.

    Raises:
        ModelError: it cannot be read, or is quantized already.
    """
    model = load(path, keep_overridable=keep_overridable)
    found = is_quantized(model.graph)
    if found:
        raise ModelError(
            f"{path} is quantized already (it has {', '.join(found)}): give the float model, look at this one with "
            f"onnxq inspect, or let passes work on it with onnxq run import {path} -o out.onnx"
        )
    return model


def is_quantized(graph: gs.Graph) -> list[str]:
    """Types of the quantized operators in a graph and its inner graphs, sorted; empty for a float model."""
    quantized = {
        "QuantizeLinear",
        "DequantizeLinear",
        "MatMulInteger",
        "ConvInteger",
        "MatMulNBits",
        "MatMulIntegerToFloat",
    }
    return sorted(
        {
            node.op
            for _, inner in walk.graphs(graph)
            for node in inner.nodes
            if node.op in quantized or node.op.startswith(("QLinear", "DynamicQuantize", "QGemm", "QAttention"))
        }
    )


def _check_versions(proto: ModelProto, where: str) -> int:
    if proto.ir_version not in IR_VERSIONS:
        raise ModelError(
            f"{where} has IR version {proto.ir_version}, but {IR_VERSIONS[0]} to {IR_VERSIONS[-1]} can be read; "
            "export it with another version of onnx"
        )
    versions = [i.version for i in proto.opset_import if i.domain in ("", "ai.onnx")]
    if not versions:
        if _uses_default_domain(proto.graph):
            raise ModelError(f"{where} does not say which version of the ai.onnx operator set it uses; export it again")
        return _FREE_OPSET
    opset = int(max(versions))
    if opset < OPSETS[0]:
        raise ModelError(
            f"{where} uses opset {opset}, but ONNX Runtime, by which a conversion would have to be checked, runs none "
            f"below {OPSETS[0]} in full; export it with opset 13 or later, or convert it with onnx.version_converter "
            "and check the result yourself"
        )
    if opset not in OPSETS:
        raise ModelError(
            f"{where} uses opset {opset}, but {OPSETS[0]} to {OPSETS[-1]} can be read; export it with another opset"
        )
    return opset


def _uses_default_domain(graph: GraphProto) -> bool:
    return any(node.domain in ("", "ai.onnx") for node in graph.node)


def _take_tensors(proto: ModelProto, folder: Path | None, where: str, store: list[NDArray[Any]]) -> int:
    """Move the values of all large or external tensors to `store`, leave a mark; returns the number of sparse ones."""
    sparse_count = 0
    for tensor in _tensors(proto):
        external = tensor.data_location == TensorProto.EXTERNAL
        if external or (tensor.ByteSize() >= _LARGE and tensor.data_type != TensorProto.STRING):
            store.append(tensors.to_array(tensor, folder, where))
            _set_mark(tensor, len(store) - 1)
    for graph in _graphs(proto.graph):
        for sparse in graph.sparse_initializer:
            array = tensors.sparse_to_array(sparse, folder, where)
            dense = tensors.header(sparse.values.name, array)
            _set_mark(dense, len(store))
            store.append(array)
            graph.initializer.append(dense)
            sparse_count += 1
        del graph.sparse_initializer[:]
    return sparse_count


def _set_mark(tensor: TensorProto, index: int) -> None:
    for name in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
        tensor.ClearField(name)
    del tensor.external_data[:]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=f"{_MARK}{index}")


def _mark_of(tensor: TensorProto) -> int | None:
    if tensor.data_location != TensorProto.EXTERNAL or not tensor.external_data:
        return None
    value = tensor.external_data[0].value
    return int(value[len(_MARK) :]) if value.startswith(_MARK) else None


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    yield from _inner(graph.node)


def _inner(nodes: Iterable[Any]) -> Iterator[GraphProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _graphs(attribute.g)


def _tensors(proto: ModelProto) -> Iterator[TensorProto]:
    """Initializers and tensor attributes of the graph, its inner graphs and the local functions."""
    holders: list[GraphProto | FunctionProto] = [*_graphs(proto.graph), *proto.functions]
    for function in proto.functions:
        holders.extend(_inner(function.node))
    for holder in holders:
        if isinstance(holder, GraphProto):
            yield from holder.initializer
        for node in holder.node:
            for attribute in node.attribute:
                if attribute.type == AttributeProto.TENSOR:
                    yield attribute.t


def _meta(proto: ModelProto) -> Meta:
    return Meta(
        producer_name=proto.producer_name,
        producer_version=proto.producer_version,
        domain=proto.domain,
        model_version=proto.model_version,
        doc_string=proto.doc_string,
        metadata={p.key: p.value for p in proto.metadata_props},
        graph_metadata={p.key: p.value for p in proto.graph.metadata_props},
        domains={i.domain: i.version for i in proto.opset_import if i.domain not in ("", "ai.onnx")},
        quantization_annotations=[a.SerializeToString() for a in proto.graph.quantization_annotation],
    )


def _not_parsed(path: Path, data: bytes) -> str:
    if data[4:8] == b"ORTM":
        return (
            f"{path} is in ONNX Runtime's own ORT format, not an ONNX file; give the .onnx file that it was made from"
        )
    if data.startswith(b"version https://git-lfs"):
        return f"{path} is a Git LFS pointer, not the model itself; run git lfs pull"
    wanted = _wire_end(data)
    if wanted is not None and wanted > len(data):
        return f"{path} is truncated: it has {len(data)} bytes of {wanted} or more; copy or download it again"
    return f"{path} is not an ONNX file (it is no serialized ModelProto); give a model exported to ONNX"


def _wire_end(data: bytes) -> int | None:
    """How long a serialized ModelProto must at least be by its own length fields; None if this is no ModelProto.

    Walks the top-level fields as protobuf encodes them (tag = number << 3 | wire type, varints, lengths).
    """
    at = 0
    known_fields = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if not 1 <= number <= 30 or wire not in (0, 2):
            return None
        value, at = _varint(data, at)
        if at < 0:
            return len(data) + 1 if known_fields else None
        if known_fields == 0 and (number, wire) != (1, 0):  # every exporter writes ir_version first
            return None
        known_fields += 1
        if wire == 2:
            at += value
    return at if known_fields > 1 or at > len(data) else len(data) + 1


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """(value, position behind it); position -1 where the data ends inside."""
    value = shift = 0
    while 0 <= at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    return value, -1


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
