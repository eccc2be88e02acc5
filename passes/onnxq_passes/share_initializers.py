"""Folding and exporters write the same weights several times; one copy serves all."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.ir.hash import array_hash
from onnxq.ir.walk import constant_array
from onnxq.pipeline.base import QUANTIZED, Context, Pass, Report, Stage
from onnxq_passes._edit import Editor

Key = tuple[str, tuple[int, ...], bytes]


@dataclass(frozen=True, kw_only=True)
class ShareInitializers(Pass):
    """Let equal constants be one, in all graphs of the model; bit for bit.

    1. Two constants are equal if type, shape and every bit agree; the first one in graph order is kept.
    2. Constants of fewer than `least_bytes` stay: sharing them saves nothing and makes graphs hard to read.
    3. With --keep-overridable nothing is merged: a caller may feed one of two equal initializers.

    Attributes:
        least_bytes: size from which constants are looked at.
    """

    also_takes: ClassVar[tuple[Stage, ...]] = QUANTIZED
    least_bytes: int = 256

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""
        report, editor = Report(), Editor(graph)
        if context.keep_overridable:
            return report  # case 3
        alike: dict[Key, dict[int, gs.Constant]] = defaultdict(dict)
        for node in editor.live():
            for tensor in node.inputs:
                values = constant_array(tensor)
                if values is not None and values.nbytes >= self.least_bytes and values.dtype != object:  # case 2
                    # the first bytes tell most constants apart without reading all of a mapped file
                    head = np.ascontiguousarray(values.reshape(-1)[:16]).tobytes()
                    alike[str(values.dtype), values.shape, head].setdefault(id(tensor), tensor)
        for group in alike.values():
            if len(group) > 1:
                report.rewrites += _merge(editor, list(group.values()))
        editor.commit()
        return report


def _merge(editor: Editor, constants: list[gs.Constant]) -> int:
    first: dict[str, gs.Constant] = {}
    merged = 0
    for constant in constants:
        kept = first.setdefault(array_hash(constant.values), constant)  # case 1
        if kept is not constant:
            editor.replace_uses(constant, kept)
            merged += 1
    return merged
