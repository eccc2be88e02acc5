"""Why: where ranges are not known beforehand, or move, they can be found at run time at little cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.encoding import PerChannel, Scheme
from onnxq.numerics import affine, quantize
from onnxq.pipeline.base import QUANTIZED, Context, Pass, Report, Stage
from onnxq.plan.kinds import weight_of
from onnxq_passes._edit import input_at
from onnxq_passes._kinds import Kinds

_PEEPHOLES = 7


@dataclass(frozen=True, kw_only=True)
class QuantizeDynamic(Pass):
    """Quantize weights, and data at run time: MatMul and Gemm become DynamicQuantizeMatMul, LSTM becomes
    DynamicQuantizeLSTM (com.microsoft).

    1. MatMul, and Gemm with alpha = beta = 1 and no transA, with a constant matrix: int8 with one scale per column; a
       bias goes along, also that of an Add of a constant vector right behind.
    2. LSTM with constant weights: int8 with one scale per gate and unit, bias and peepholes in float.
    3. Which ones: those that the plan names; without a plan all that are possible and not kept float. A weight that is
       read in another form, too, stays, since it would be in the file twice.
    4. Weights use 7 bits on targets that say so.

    The ops stay float at their borders. The scale of the data is that of a whole tensor, all items of a batch together.
    """

    takes: ClassVar[Stage] = Stage.FLOAT
    also_takes: ClassVar[tuple[Stage, ...]] = QUANTIZED
    gives: ClassVar[Stage] = Stage.FLOAT
    exact: ClassVar[bool] = False

    def run(self, graph: gs.Graph, context: Context) -> Report:
        work = Kinds(graph, context)
        for node, _ in work.chosen("dynamic", ("dynamic",)):
            if node.op == "LSTM":
                _lstm(work, node)
            else:
                _product(work, node)
        return work.done()


def _product(work: Kinds, node: gs.Node) -> None:
    weight, tensor = weight_of(node), node.inputs[1]
    assert weight is not None

    def make() -> list[tuple[str, NDArray[Any]]]:
        return _quantized(work, tensor.name, weight)

    inputs: list[gs.Tensor] = [node.inputs[0], *work.constants(id(tensor), make)]
    bias, last = work.bias(node, weight.shape[1])
    work.exchange(node, last, "DynamicQuantizeMatMul", [*inputs, *([] if bias is None else [bias])])


def _lstm(work: Kinds, node: gs.Node) -> None:
    levels: list[gs.Tensor] = []
    parameters: list[gs.Tensor] = []
    for slot in (1, 2):  # [directions, 4 * hidden, inputs]: the integer kernel wants it transposed
        tensor = node.inputs[slot]

        def make(tensor: gs.Constant = tensor) -> list[tuple[str, NDArray[Any]]]:
            turned = np.asarray(tensor.values).transpose(0, 2, 1)
            flat = np.concatenate(list(turned), axis=1)  # [inputs, directions * 4 * hidden]
            (a, q), (b, scale), (c, zero) = _quantized(work, tensor.name, flat)
            back = q.reshape(turned.shape[1], turned.shape[0], turned.shape[2]).transpose(1, 0, 2)
            return [(a, back), *((n, v.reshape(turned.shape[::2])) for n, v in ((b, scale), (c, zero)))]

        one, *rest = work.constants(id(tensor), make)
        levels.append(one)
        parameters += rest
    others = [input_at(node, slot) or gs.Variable.empty() for slot in range(3, _PEEPHOLES + 1)]
    inputs = [node.inputs[0], *levels, *others, *parameters]
    attrs = {name: value for name, value in node.attrs.items() if name != "layout"}
    work.exchange(node, node, "DynamicQuantizeLSTM", inputs, attrs)


def _quantized(work: Kinds, name: str, weight: NDArray[Any]) -> list[tuple[str, NDArray[Any]]]:
    """A matrix in int8 with a scale and a zero point (0) per column."""
    scheme = Scheme(
        type="int8", symmetric=True, granularity=PerChannel(1), reduce_range=work.context.target.reduce_range
    )
    encoding = affine(weight.min(axis=0), weight.max(axis=0), scheme)
    return [
        (f"{name}_quantized", quantize(weight, encoding)),
        (f"{name}_scale", encoding.scale),
        (f"{name}_zero_point", encoding.zero_point),
    ]
