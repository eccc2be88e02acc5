"""What a model file holds, for `onnxq inspect`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.ir import load, walk
from onnxq.validate.coverage import Coverage, coverage_or_note


@dataclass(frozen=True, kw_only=True)
class TensorSummary:
    """An input or output: numpy name of the type ("?" if the file does not say), dimensions as ints, names or None."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True, kw_only=True)
class ModelSummary:
    """One model file.

    Attributes:
        path, bytes: the file; external data counted.
        external: files with external data, by name.
        opset, ir_version, domains: versions; domains besides ai.onnx.
        producer: name and version of the exporter.
        parameters: elements of all float and 8-bit or narrower constants.
        weight_bytes: bytes of all constants.
        nodes: operator type -> how many, bodies of If and Loop included, most frequent first.
        quantized: it holds quantized operators.
        coverage: what ORT makes of it; None: it loads the file without optimizations only.
        notes: what was changed while reading, and why there is no coverage.
    """

    path: Path
    bytes: int
    external: tuple[str, ...]
    opset: int
    ir_version: int
    domains: Mapping[str, int]
    producer: str
    inputs: tuple[TensorSummary, ...]
    outputs: tuple[TensorSummary, ...]
    parameters: int
    weight_bytes: int
    nodes: Mapping[str, int]
    quantized: bool
    coverage: Coverage | None
    notes: tuple[str, ...] = ()


def summarize(path: Path, *, sample: Mapping[str, NDArray[Any]] | None = None) -> ModelSummary:
    """Read a model and look at it through ORT.

    Args:
        path: float or quantized model.
        sample: inputs of one run, to count MACs where shapes are open.

    Raises:
        ModelError: the file can't be read, or ORT refuses it.
    """
    model = load.load(path, keep_overridable=True)
    external = load.external_files(path)
    arrays = _constants(model.graph)
    found, notes = coverage_or_note(path, sample=sample)
    nodes = Counter(n.op for _, inner in walk.graphs(model.graph) for n in inner.nodes)
    return ModelSummary(
        path=path,
        bytes=path.stat().st_size + sum(p.stat().st_size for p in external),
        external=tuple(p.name for p in external),
        opset=model.opset,
        ir_version=model.ir_version,
        domains=dict(sorted(model.meta.domains.items())),
        producer=f"{model.meta.producer_name} {model.meta.producer_version}".strip(),
        inputs=tuple(_tensor(t) for t in model.graph.inputs),
        outputs=tuple(_tensor(t) for t in model.graph.outputs),
        parameters=sum(a.size for a in arrays if a.dtype.kind == "f" or a.dtype.itemsize == 1),
        weight_bytes=sum(a.nbytes for a in arrays),
        nodes=dict(sorted(nodes.items(), key=lambda i: (-i[1], i[0]))),
        quantized=bool(load.is_quantized(model.graph)),
        coverage=found,
        notes=(*model.notes, *notes),
    )


def _constants(graph: gs.Graph) -> list[NDArray[Any]]:
    """Each constant once."""
    found: dict[int, NDArray[Any]] = {}
    for _, inner in walk.graphs(graph):
        for node in inner.nodes:
            for tensor in node.inputs:
                values = walk.constant_array(tensor)
                if values is not None:
                    found[id(tensor)] = values
    return list(found.values())


def _tensor(tensor: gs.Tensor) -> TensorSummary:
    dtype = "?" if tensor.dtype is None else np.dtype(tensor.dtype).name
    shape = tuple(d if isinstance(d, int | str) else None for d in tensor.shape or ())
    return TensorSummary(name=tensor.name, dtype=dtype, shape=shape)
