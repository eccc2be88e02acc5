"""Some exporters fold the fake quantization of a weight: the file has floats, all of them multiples of one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq_passes._edit import Editor
from onnxq_passes._qdq import is_dq

_LEVELS = 127
_PARTS = (1, 2, 3, 4)
"""The least gap between two weights may be so many steps."""


@dataclass(frozen=True, kw_only=True)
class RecoverWeights(Pass):
    """Store a float weight that is int8 times one scale as these integers and a DequantizeLinear; bit for bit.

    1. The constant weight of a Conv, ConvTranspose, Gemm or MatMul whose data is dequantized. Left to itself, ONNX
       Runtime would round it to int8 with a scale of its own where a QuantizeLinear follows.
    2. Every element must come back from int8 (levels -127 to 127) and one float32 scale with every bit.
    3. A weight that several ops read is stored once.
    4. Other weights are not rounded: that is the business of calibration.
    """

    takes: ClassVar[Stage] = Stage.QDQ
    also_takes: ClassVar[tuple[Stage, ...]] = (Stage.PLACED,)
    gives: ClassVar[Stage] = Stage.QDQ

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""
        report, editor = Report(), Editor(graph)
        known: dict[int, list[gs.Tensor] | None] = {}
        for node in list(editor.live(ops=["Conv", "ConvTranspose", "Gemm", "MatMul"])):
            weight, maker = node.inputs[1], editor.producer(node.inputs[0])
            if not isinstance(weight, gs.Constant) or maker is None or not is_dq(maker):
                continue
            if id(weight) not in known:
                known[id(weight)] = _stored(editor, weight)
            inputs = known[id(weight)]
            if inputs is None:
                report.refuse(node, f"its weight {weight.name} is no multiple of one step in int8")
                continue
            real = editor.variable(f"{weight.name}_dequantized", weight)
            name = f"{weight.name}_DequantizeLinear"
            editor.insert(editor.node("DequantizeLinear", inputs, [real], name=name), before=node)
            editor.set_input(node, 1, real)
            report.rewrites += 1
        editor.commit()
        return report


def _stored(editor: Editor, weight: gs.Constant) -> list[gs.Tensor] | None:
    """What the DequantizeLinears of a weight read, however many there are; None: it is on no grid."""
    found = _grid(np.asarray(weight.values))
    if found is None:
        return None
    levels, scale = found
    return [
        editor.constant(f"{weight.name}_quantized", levels),
        editor.constant(f"{weight.name}_scale", scale),
        editor.constant(f"{weight.name}_zero_point", np.zeros((), np.int8)),
    ]


def _grid(values: NDArray[Any]) -> tuple[NDArray[np.int8], NDArray[np.float32]] | None:
    """int8 levels and the scale whose products are the values (float32), bit for bit; or None."""
    if not np.isfinite(values).all():
        return None
    sizes = np.unique(np.abs(values)).astype(np.float64)
    sizes = sizes[sizes > 0]
    if not 0 < sizes.size <= _LEVELS:
        return None
    gap = float(np.diff(sizes, prepend=0).min())
    for parts in _PARTS:
        multiples = np.rint(sizes / (gap / parts))
        if multiples.max() > _LEVELS:
            return None
        fitted = np.float32((sizes * multiples).sum() / (multiples * multiples).sum())  # least squares
        for scale in (fitted, np.nextafter(fitted, np.float32(0)), np.nextafter(fitted, np.float32(np.inf))):
            levels = np.asarray(np.clip(np.rint(values / scale), -_LEVELS, _LEVELS)).astype(np.int8)
            if np.asarray(levels.astype(np.float32) * scale).tobytes() == values.tobytes():
                return levels, np.asarray(scale)
    return None
