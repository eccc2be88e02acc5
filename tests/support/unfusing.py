"""Integer operators made by a fuse pass, and what an unfuse pass makes of them again, compared in ONNX Runtime."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from fusing import Qdq

from onnxq.ir import load, save, text
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
    model = load.from_proto(onnx.load_from_string(made.file))
    reports = []
    for one in passes:
        reports.append(one.run(model.graph, default_context()))
        first = text.text(model.graph)
        assert one.run(model.graph, default_context()).rewrites == 0
        assert text.text(model.graph) == first
    after = save.to_bytes(model)
    onnx.checker.check_model(onnx.load_from_string(after))
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
