"""Convolutions between Q and DQ, and passes that must leave their integers as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from fusing import OUT, Qdq

from onnxq.ir import load, save
from onnxq.ir.model import Model
from onnxq.pipeline.base import Pass, Report
from onnxq.runtime.session import Level, Session
from onnxq.testing import default_context


class Net(Qdq):
    """Convolutions between Q and DQ."""

    def conv(
        self,
        x: str,
        inputs: int,
        outputs: int,
        *,
        group: int = 1,
        kernel: int = 3,
        bias: str = "",
        per_channel: bool = True,
        zero: int = 0,
        kind: str = "int8",
        **attributes: Any,
    ) -> str:
        scale: Any = list(np.linspace(0.003, 0.005, outputs)) if per_channel else 0.0041
        w = self.weight(outputs, inputs // group, kernel, kernel, scale=scale, zero=zero, kind=kind)
        more = []
        if bias == "int32":
            steps = np.broadcast_to(np.float32(0.0213571) * np.asarray(scale, np.float32), outputs)
            more = [
                self.op(
                    "DequantizeLinear", self.constant(np.arange(outputs) * 777, "int32"), self.constant(steps), axis=0
                )
            ]
        elif bias:
            more = [self.constant(np.linspace(-1, 1, outputs))]
        attributes = {"pads": [kernel // 2] * 4, **attributes}
        return str(self.op("Conv", x, w, *more, group=group, **attributes))

    def pair(self, tensor: str, scale: Any = OUT, zero: Any = 100, kind: str = "uint8") -> str:
        return self.dq(self.q(tensor, scale, zero, kind), scale, zero, kind)


def integer(
    pass_: Pass, g: Qdq, level: Level = Level.ALL, sizes: dict[str, Sequence[Any]] | None = None
) -> tuple[Model, Report]:
    """The model behind the pass and its report; in integer kernels the outputs are the same bit for bit, a second run
    finds nothing, and nothing is left that nobody reads.
    """
    proto = g.model()
    for value in proto.graph.input:
        for dimension, size in zip(value.type.tensor_type.shape.dim, (sizes or {}).get(value.name, ()), strict=False):
            dimension.dim_param = str(size)
    model = load.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))
    before = save.to_bytes(model.copy())
    report = pass_.run(model.graph, default_context())
    assert pass_.run(model.graph, default_context()).rewrites == 0
    ends = {t.name for t in model.graph.outputs}
    assert all(t.outputs or t.name in ends for n in model.graph.nodes for t in n.outputs)
    after = save.to_bytes(model.copy())
    onnx.checker.check_model(onnx.load_from_string(after), full_check=True)
    old, new = (Session(m, level=level, threads=1).run(g.feeds) for m in (before, after))
    assert all(np.array_equal(old[name], new[name]) for name in old)
    return model, report


def shapes(model: Model) -> list[tuple[int, ...]]:
    """Of the weights of all Convs."""
    return [tuple(n.inputs[1].inputs[0].inputs[0].shape) for n in model.graph.nodes if n.op == "Conv"]
