"""Model -> file or bytes: atomic, deterministic, weights streamed one at a time.

A file is ModelProto in protobuf's wire format. Fields of a message may come in any order and repeated fields in several
parts, so the large initializers are appended to the serialized rest by hand: nothing ever holds them all.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto, helper

from onnxq.errors import OutputError
from onnxq.ir import files, tensors, walk
from onnxq.ir.model import Model
from onnxq.ir.protobuf import export_graph, homes, paused_gc

RUN_EMBED_LIMIT = 50_000_000
"""Bytes of weights above which ONNX Runtime gets a file to map instead of a message to copy twice."""

EMBED_LIMIT = 1_800_000_000
"""Bytes of weights above which they go to a file in any case: a serialized message ends at 2 GB."""

WRITE_EMBED_LIMIT = 500_000_000
"""Bytes of weights above which a file gets external data: what is embedded, its readers parse and hold in memory."""

_STREAM_FROM = 1 << 16
"""Bytes from which an initializer is streamed, or written to the external file."""
_ALIGNMENT = 4096
"""Of offsets in the external file, so that a runtime can map each tensor."""
_KNOWN_DOMAINS = {"com.microsoft": 1, "ai.onnx.ml": 3}
_GRAPH_TAG = 7 << 3 | 2
_INITIALIZER_TAG = 5 << 3 | 2
_RAW_DATA_TAG = 9 << 3 | 2


def save(model: Model, path: Path | str, *, embed_limit: int = WRITE_EMBED_LIMIT) -> None:
    """Write a model. The file appears complete or not at all; equal models give equal bytes.

    Args:
        model: what to write.
        path: the .onnx file; above the limit, its weights go to `<name>.data` beside it.
        embed_limit: bytes of weights that may be inside of the file.

    Raises:
        OutputError: the file cannot be written, or what would be written is not a valid model.
    """
    path = Path(path)
    files.check_writable(path)
    try:
        folder = Path(tempfile.mkdtemp(prefix=".onnxq-", dir=path.parent))
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}); choose another output path") from error
    try:
        data_path = folder / f"{path.name}.data" if weight_bytes(model) > embed_limit else None
        _write(model, folder / path.name, data_path)
        _check(folder / path.name, path)
        if data_path is not None:
            data_path.replace(path.parent / data_path.name)
        (folder / path.name).replace(path)
        files.sync_folder(path.parent)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}); choose another path") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def to_bytes(model: Model) -> bytes:
    """The serialized model, weights inside. Equal models give equal bytes.

    Raises:
        OutputError: it would exceed 2 GB.
    """
    if weight_bytes(model) > EMBED_LIMIT:
        raise OutputError("A model above 2 GB does not fit into one message; save it to a file")
    return b"".join(_stream(model))


def to_proto(model: Model, *, value_info: bool = False) -> ModelProto:
    """The ModelProto, weights inside: for small models and tests."""
    with paused_gc():
        return _model_proto(model, homes(model.graph), tensors.to_proto, value_info=value_info)


@dataclass(frozen=True, kw_only=True)
class Structure:
    """A ModelProto whose large tensors are references: `arrays[i]` is the tensor with external location `onnxq:i`."""

    proto: ModelProto
    arrays: list[NDArray[Any]]


def structure(model: Model, *, value_info: bool = False, inline_below: int = 1024) -> Structure:
    """The model without its large weights, for tools that look at structure only."""
    arrays: list[NDArray[Any]] = []

    def write(name: str, array: NDArray[Any]) -> TensorProto:
        if array.nbytes < inline_below or array.dtype == object:
            return tensors.to_proto(name, array)
        tensor = tensors.header(name, array)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=f"onnxq:{len(arrays)}")
        arrays.append(array)
        return tensor

    with paused_gc():
        proto = _model_proto(model, homes(model.graph), write, value_info=value_info)
    return Structure(proto=proto, arrays=arrays)


@contextlib.contextmanager
def runnable(model: Model, *, embed_limit: int = RUN_EMBED_LIMIT) -> Iterator[bytes | Path]:
    """Something that a session can load: the serialized model, or a file.

    Above `embed_limit` bytes of weights it is a temporary file, removed at the end, whose weights ORT maps.

    Weights that are still those of the source's external file are not copied: the file is hard-linked (ONNX Runtime
    refuses absolute paths and links that leave the folder).
    """
    if weight_bytes(model) <= embed_limit:
        yield to_bytes(model)
        return
    sources = {s for a in _arrays(model.graph) if (s := _source(a)) is not None}
    parent = sorted(sources)[0].parent if sources else None
    with contextlib.ExitStack() as stack:
        folder = files.temporary_folder(parent, stack)
        path = folder / "model.onnx"
        _write(model, path, folder / "model.onnx.data", link=True)
        yield path


def weight_bytes(model: Model) -> int:
    """Bytes of all constants, a shared array counted once per tensor."""
    return sum(a.nbytes for a in _arrays(model.graph))


def _arrays(graph: gs.Graph) -> Iterator[NDArray[Any]]:
    seen: set[int] = set()
    for _, inner in walk.graphs(graph):
        for node in inner.nodes:
            for tensor in (*node.inputs, *node.attrs.values()):
                if isinstance(tensor, gs.Constant) and id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield tensor.values
        for tensor in inner.outputs:
            if isinstance(tensor, gs.Constant) and id(tensor) not in seen:
                seen.add(id(tensor))
                yield tensor.values


def _model_proto(
    model: Model,
    initializers: dict[int, list[gs.Constant]],
    write: Any,
    *,
    value_info: bool = False,
) -> ModelProto:
    """The whole message; the main graph's initializers are those of `initializers`."""
    meta = model.meta
    proto = ModelProto(ir_version=model.ir_version)
    for name in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
        if value := getattr(meta, name):
            setattr(proto, name, value)
    proto.graph.CopyFrom(
        export_graph(model.graph, write, model.opset, initializers=initializers, value_info=value_info)
    )
    _complete_graph(model, proto.graph)
    for domain, version in _domains(model):
        proto.opset_import.add(domain=domain, version=version)
    for key in sorted(meta.metadata):
        proto.metadata_props.add(key=key, value=meta.metadata[key])
    return proto


def _complete_graph(model: Model, graph: GraphProto) -> None:
    meta = model.meta
    for key in sorted(meta.graph_metadata):
        graph.metadata_props.add(key=key, value=meta.graph_metadata[key])
    if meta.quantization_annotations:
        names = walk.tensor_names(model.graph)
        for data in meta.quantization_annotations:
            annotation = onnx.TensorAnnotation.FromString(data)
            if {annotation.tensor_name, *(p.value for p in annotation.quant_parameter_tensor_names)} <= names:
                graph.quantization_annotation.append(annotation)


def _domains(model: Model) -> list[tuple[str, int]]:
    used = {node.domain for _, graph in walk.graphs(model.graph) for node in graph.nodes if node.domain}
    used.discard("ai.onnx")
    versions = {**_KNOWN_DOMAINS, **model.meta.domains}
    return [("", model.opset), *((d, versions.get(d, 1)) for d in sorted(used))]


def _main_initializers(model: Model, found: dict[int, list[gs.Constant]]) -> list[gs.Constant]:
    """The main graph's initializers, with overridable ones that nobody uses any more."""
    main = list(found.get(id(model.graph), ()))
    if model.meta.keep_overridable:
        names = {c.name for c in main}
        main.extend(c for c in model.meta.overridable_constants if c.name not in names)
    return main


# ---------------------------------------------------------------------------------------------------- the wire format


def _stream(model: Model, external: _External | None = None) -> Iterator[bytes | memoryview]:
    """The serialized model in pieces; large initializers of the main graph inline, or as references to a file."""
    with paused_gc():
        found = homes(model.graph)
        main = _main_initializers(model, found)
        listed = _listed_as_inputs(model, main)
        write = external.write if external is not None else tensors.to_proto
        large: list[gs.Constant] = []
        if external is None:
            large = [c for c in main if _streams(c.values)]
            chosen = {id(c) for c in large}
            found[id(model.graph)] = [c for c in main if id(c) not in chosen]
        else:
            found[id(model.graph)] = main
        proto = _model_proto(model, found, write)
        for constant in listed:
            proto.graph.input.append(
                helper.make_tensor_value_info(
                    constant.name, tensors.onnx_dtype(constant.values.dtype), constant.values.shape
                )
            )
    graph = proto.graph.SerializeToString(deterministic=True)
    proto.ClearField("graph")
    heads = [_initializer_head(c) for c in large]
    total = len(graph) + sum(len(h) + c.values.nbytes for h, c in zip(heads, large, strict=True))
    yield proto.SerializeToString(deterministic=True)
    yield _encode(_GRAPH_TAG) + _encode(total)
    yield graph
    for head, constant in zip(heads, large, strict=True):
        yield head
        yield from tensors.raw_chunks(constant.values)


def _streams(array: NDArray[Any]) -> bool:
    return array.nbytes >= _STREAM_FROM and tensors.streamable(array)


def _initializer_head(constant: gs.Constant) -> bytes:
    """Everything of one initializer field up to its data."""
    header: bytes = tensors.header(constant.name, constant.values).SerializeToString(deterministic=True)
    size = constant.values.nbytes
    raw = _encode(_RAW_DATA_TAG) + _encode(size)
    return _encode(_INITIALIZER_TAG) + _encode(len(header) + len(raw) + size) + header + raw


def _encode(value: int) -> bytes:
    """Protobuf's varint.

    >>> _encode(300).hex()
    'ac02'
    """
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _listed_as_inputs(model: Model, main: list[gs.Constant]) -> list[gs.Constant]:
    """Initializers that are written as graph inputs, too: all in IR 3, else the overridable ones if they are kept."""
    if model.ir_version < 4:
        return main
    if not model.meta.keep_overridable:
        return []
    by_name = {c.name: c for c in main}
    return [by_name[n] for n in model.meta.overridable if n in by_name]


# ------------------------------------------------------------------------------------------------------------- files


class _External:
    """Writes large arrays to one file and gives references to it; or links files that hold them already."""

    def __init__(self, path: Path, *, link: bool) -> None:
        self.path = path
        self.link = link
        self.file: IO[bytes] = path.open("wb")
        self.linked: dict[Path, str] = {}

    def write(self, name: str, array: NDArray[Any]) -> TensorProto:
        if not _streams(array):
            return tensors.to_proto(name, array)
        tensor = tensors.header(name, array)
        location, offset = self._place(array)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", str(offset)), ("length", str(array.nbytes))):
            tensor.external_data.add(key=key, value=value)
        return tensor

    def _place(self, array: NDArray[Any]) -> tuple[str, int]:
        source = _source(array) if self.link else None
        if source is not None and isinstance(array, np.memmap):
            if source not in self.linked:
                name = f"source{len(self.linked)}.data"
                with contextlib.suppress(OSError):
                    os.link(source, self.path.parent / name)
                    self.linked[source] = name
            if source in self.linked:
                return self.linked[source], array.offset
        offset = -(-self.file.tell() // _ALIGNMENT) * _ALIGNMENT
        self.file.write(b"\0" * (offset - self.file.tell()))
        for chunk in tensors.raw_chunks(array):
            self.file.write(chunk)
        return self.path.name, offset


def _source(array: NDArray[Any]) -> Path | None:
    """The file behind a whole, unchanged memory map."""
    if isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap) and array.filename is not None:
        return Path(array.filename)
    return None


def _write(model: Model, path: Path, data_path: Path | None, *, link: bool = False) -> None:
    external = _External(data_path, link=link) if data_path is not None else None
    try:
        with path.open("wb") as file:
            for piece in _stream(model, external):
                file.write(piece)
            file.flush()
            if not link:  # what is only run for a moment need not survive a crash
                os.fsync(file.fileno())
        if external is not None:
            external.file.flush()
            if not link:
                os.fsync(external.file.fileno())
    finally:
        if external is not None:
            external.file.close()


_NO_RANK = "Field 'shape' of 'type' is required"


def _but_for_ranks(path: Path) -> str | None:
    """What else onnx.checker finds in a file with inputs or outputs of unknown rank, which ORT takes; None: nothing."""
    proto = onnx.load(path, load_external_data=False)
    for value in (*proto.graph.input, *proto.graph.output):
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()
    ranked = path.with_name(f"{path.name}.ranked")  # beside it, where its external data is
    try:
        ranked.write_bytes(proto.SerializeToString())
        onnx.checker.check_model(str(ranked))
    except onnx.checker.ValidationError as error:
        return str(error)
    finally:
        ranked.unlink(missing_ok=True)
    return None


def _check(path: Path, shown: Path) -> None:
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        reason = _but_for_ranks(path) if _NO_RANK in str(error) else str(error)
        if reason is None:
            return
        line = (reason.strip() or "no reason given").splitlines()[0]
        raise OutputError(
            f"{shown} was not written: onnx.checker refuses the result ({line}); --verify-each finds the pass"
        ) from error
