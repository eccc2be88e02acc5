"""The model as every stage sees it: a graphsurgeon graph and what graphsurgeon has no room for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx_graphsurgeon as gs
from onnx_graphsurgeon.logger import G_LOGGER

from onnxq.ir import walk

G_LOGGER.severity = G_LOGGER.CRITICAL + 1  # it prints to stdout, where our JSON goes; what is critical is raised, too


@dataclass(kw_only=True)
class Meta:
    """What a model file holds besides its graph.

    Doc strings and metadata of nodes travel on the `gs.Node` itself (attributes `doc_string` and `metadata_props`),
    the full types of graph inputs and outputs on the `gs.Variable` (attribute `value_info`): see `onnxq.ir.protobuf`.

    Attributes:
        producer_name, producer_version, domain, model_version, doc_string: fields of the ModelProto, kept on save.
        metadata: metadata_props of the model.
        graph_metadata: metadata_props of the main graph.
        domains: versions of the custom operator sets that the file imports.
        overridable: initializers that were graph inputs, too: a caller of ONNX Runtime could feed them.
        keep_overridable: write them as graph inputs again.
        overridable_constants: with `keep_overridable`, their tensors (so that an unused one is not lost).
        quantization_annotations: serialized TensorAnnotations of the main graph; written for tensors that still exist.
    """

    producer_name: str = ""
    producer_version: str = ""
    domain: str = ""
    model_version: int = 0
    doc_string: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    graph_metadata: dict[str, str] = field(default_factory=dict)
    domains: dict[str, int] = field(default_factory=dict)
    overridable: list[str] = field(default_factory=list)
    keep_overridable: bool = False
    overridable_constants: list[Any] = field(default_factory=list)
    quantization_annotations: list[bytes] = field(default_factory=list)


@dataclass(kw_only=True)
class Model:
    """A loaded model. Passes edit `graph` in place.

    Every array of a constant is read-only; one above 1 MB with external data is an `np.memmap` over its file. To
    change a weight, give the constant a new array.

    Attributes:
        graph: the main graph; bodies of If, Loop and Scan are attributes of their nodes.
        opset: version of the ai.onnx operator set (also in `graph.opset`).
        ir_version: IR version that is written.
        meta: what else the file holds.
        source: the file it came from.
        notes: sentences for the user about what was changed on the way.
    """

    graph: gs.Graph
    opset: int
    ir_version: int
    meta: Meta = field(default_factory=Meta)
    source: Path | None = None
    notes: list[str] = field(default_factory=list)

    def copy(self) -> Model:
        """A model whose graph can be edited without changing this one; the arrays are shared."""
        graph = walk.copy(self.graph)
        by_name = {t.name: t for n in graph.nodes for t in n.inputs if isinstance(t, gs.Constant)}
        kept = [by_name.get(c.name, c) for c in self.meta.overridable_constants]
        meta = replace(
            self.meta, metadata=dict(self.meta.metadata), domains=dict(self.meta.domains), overridable_constants=kept
        )
        return replace(self, graph=graph, meta=meta, notes=list(self.notes))

    def __post_init__(self) -> None:
        self.graph.opset = self.opset
        for inner in self.graph.subgraphs(recursive=True):
            inner.opset = self.opset
