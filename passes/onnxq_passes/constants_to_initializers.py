"""A Constant node is a constant in disguise: as an initializer, every later pass sees it as one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.ir import tensors
from onnxq.pipeline.base import QUANTIZED, Context, Pass, Report, Stage
from onnxq_passes._edit import Editor

_PLAIN = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}


@dataclass(frozen=True, kw_only=True)
class ConstantsToInitializers(Pass):
    """Turn Constant nodes into initializers of the same name, in all graphs.

    1. `value`: the tensor.
    2. `value_float`, `value_floats`: float32 of rank 0 and 1. `value_int`, `value_ints`: int64 of rank 0 and 1.
    3. `sparse_value`: the dense tensor.
    4. Strings (`value_string`, `value_strings`, a string tensor) stay nodes: no kernel of interest reads them.
    5. A Constant that is itself an output of a graph stays a node: ONNX Runtime wants outputs of bodies to be
       computed.
    """

    also_takes: ClassVar[tuple[Stage, ...]] = QUANTIZED

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""
        report, editor = Report(), Editor(graph)
        for node in editor.live(ops=["Constant"]):
            tensor = node.outputs[0]
            if editor.is_output(tensor):
                report.refuse(node, "its value is an output of the graph")  # case 5
                continue
            values = _values(node)
            if values is None:
                report.refuse(node, "string constants stay nodes")  # case 4
                continue
            editor.remove(node)
            tensor.to_constant(values)
            report.rewrites += 1
        editor.commit()
        return report


def _values(node: gs.Node) -> NDArray[Any] | None:
    for name, value in node.attrs.items():
        if name == "value":
            return None if value.values.dtype.kind in "OSU" else value.values  # case 1
        if name in _PLAIN:
            return np.array(value, dtype=_PLAIN[name])  # case 2
        if name == "sparse_value":
            return tensors.sparse_to_array(value.sparse_tensor, None, node.name)  # case 3
    return None
