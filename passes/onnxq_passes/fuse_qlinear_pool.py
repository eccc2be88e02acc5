"""Average pooling sums integers and rescales once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_graphsurgeon as gs

from onnxq_passes._fuse import CannotFuseError, Fusion, Work

_ATTRIBUTES = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")


@dataclass(frozen=True, kw_only=True)
class FuseQlinearPool(Fusion):
    """Make QLinearAveragePool and QLinearGlobalAveragePool (com.microsoft) of DQ -> pool -> Q.

    1. AveragePool without dilations; equal bit for bit in the tests.
    2. GlobalAveragePool: at most one step off.
    3. A Relu or Clip in front of the QuantizeLinear vanishes if the saturation of the integers does its work.
    """

    exact: ClassVar[bool] = False
    ops: ClassVar[tuple[str, ...]] = ("AveragePool", "GlobalAveragePool")

    def fuse(self, work: Work, node: gs.Node) -> None:
        """Fuse one pool."""
        source = work.activation(node.inputs[0])
        outlet, to = work.quantized(node)
        if source.type != to.type:
            raise CannotFuseError(f"its data is {source.type}, its output {to.type}")
        if any(d != 1 for d in node.attrs.get("dilations", ())):
            raise CannotFuseError("QLinearAveragePool knows no dilations")
        attrs = {k: node.attrs[k] for k in _ATTRIBUTES if k in node.attrs}
        work.exchange(
            node, f"QLinear{node.op}", [*work.triple(source), work.scale(to), work.zero(to)], outlet, attrs=attrs
        )
