"""Integer operators made by a fuse pass, and what an unfuse pass makes of them again, compared in ONNX Runtime."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from fusing import Qdq

from onnxq.ir import load, save, text
from onnxq.ir.model import Model
from onnxq.pipeline.base import Pass
from onnxq.runtime.session import Level, Session
from onnxq.testing import default_context


@dataclass
class Unfused:
    """What came out: `gap` is the greatest difference of an output to that of the integer operators (in steps for
    integer outputs).
    """

    ops: collections.Counter[str]
    reasons: list[str]
    rewrites: int
    gap: float
    spread: int


def unfuse(graph: Qdq, *passes: Pass, fused: Sequence[Pass] = ()) -> Unfused:
    """Fuse a Q/DQ graph, unfuse it, and compare both in ONNX Runtime without optimizations."""
    made = graph.fuse(*fused)
    proto = onnx.load_from_string(made.file)
    known = onnx.shape_inference.infer_shapes(graph.model()).graph.value_info  # onnx knows no type of fused operators
    proto.graph.value_info.extend(known)
    model = load.from_proto(onnx.shape_inference.infer_shapes(proto))
    reports = []
    for one in passes:
        reports.append(one.run(model.graph, default_context()))
        first = text.text(model.graph)
        assert one.run(model.graph, default_context()).rewrites == 0
        assert text.text(model.graph) == first
    after = save.to_bytes(model)
    onnx.checker.check_model(onnx.load_from_string(after))
    well_typed(model)
    old, new = (Session(m, level=Level.OFF, threads=1) for m in (made.file, after))
    assert (old.inputs, old.outputs) == (new.inputs, new.outputs)
    a, b = old.run(graph.feeds), new.run(graph.feeds)
    assert [v.dtype for v in a.values()] == [v.dtype for v in b.values()]
    return Unfused(
        ops=collections.Counter(n.op_type for n in onnx.load_from_string(after).graph.node),
        reasons=[r.reason for report in reports for r in report.refusals],
        rewrites=sum(report.rewrites for report in reports),
        gap=max(float(np.abs(a[k].astype(np.float64) - b[k].astype(np.float64)).max(initial=0)) for k in a),
        spread=min(len(np.unique(v)) for v in a.values()),
    )


def well_typed(model: Model) -> None:
    """Every tensor that a node makes has the type and the shape that onnx infers."""
    inferred = onnx.shape_inference.infer_shapes(onnx.load_from_string(save.to_bytes(model)), strict_mode=True)
    wanted = {
        v.name: (v.type.tensor_type.elem_type, tuple(d.dim_value for d in v.type.tensor_type.shape.dim))
        for v in inferred.graph.value_info
    }
    told = {
        t.name: (
            None if t.dtype is None else onnx.helper.np_dtype_to_tensor_dtype(np.dtype(t.dtype)),
            t.shape and tuple(t.shape),
        )
        for node in model.graph.nodes
        for t in node.outputs
    }
    wrong = {name: (told[name], wanted[name]) for name in wanted if told[name] != wanted[name]}
    assert not wrong, wrong
