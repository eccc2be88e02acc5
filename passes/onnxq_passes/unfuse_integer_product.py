"""MatMulInteger and ConvInteger leave scaling to the nodes behind them: back to one product of dequantized operands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq_passes._edit import FLOAT, Editor, input_at, standard, static_shape
from onnxq_passes._fuse import MICROSOFT
from onnxq_passes._match import made_by, other, reader
from onnxq_passes._qdq import Parameters, parameters
from onnxq_passes._unfuse import CannotUnfuseError, Unfusing
from onnxq_passes._unfuse_factor import bias_of, same, weight_of, weight_scale
from onnxq_passes._unfuse_products import add_bias, column_axis, sums

_DYNAMIC = "its data is quantized dynamically: there is no Q that could move"


@dataclass(frozen=True, kw_only=True)
class UnfuseIntegerProduct(Pass):
    """Make DequantizeLinear -> MatMul or Conv of integer products whose sums are cast and scaled.

    1. MatMulInteger -> Cast -> Mul, and ConvInteger likewise. The factor is scale of the data times scale of the
       weight, multiplied in the graph or before.
    2. A constant that is added to the sums is an int32 bias: it gets a DequantizeLinear with the scale of the data
       times that of the weight.
    3. The data comes from QuantizeLinear or DynamicQuantizeLinear, with the zero point that the product takes.
    4. Dynamically quantized data has no Q that could move, so its products stay. With `dynamic` those of matrices are
       taken apart, too, and DynamicQuantizeMatMul (com.microsoft): DynamicQuantizeLinear -> DequantizeLinear -> MatMul.
       ONNX Runtime makes an integer op of that again, unless an Add of a bias turns it into a float Gemm first.
    5. ConvInteger of dynamically quantized data stays: ONNX Runtime would make a float Conv of it.

    Float sums replace integer sums: equal up to the rounding of float32.

    Attributes:
        dynamic: also products of dynamically quantized data.
    """

    dynamic: bool = False

    takes: ClassVar[Stage] = Stage.FUSED
    also_takes: ClassVar[tuple[Stage, ...]] = (Stage.QDQ, Stage.PLACED)
    gives: ClassVar[Stage] = Stage.QDQ
    exact: ClassVar[bool] = False

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""
        work = Unfusing(Editor(graph))
        for node in work.editor.live():
            try:
                if node.op in ("MatMulInteger", "ConvInteger") and standard(node):
                    _product(work, node, dynamically=self.dynamic)
                elif node.op == "DynamicQuantizeMatMul" and node.domain == MICROSOFT:
                    _dynamic(work, node, dynamically=self.dynamic)
            except CannotUnfuseError as reason:
                work.report.refuse(node, str(reason))
        work.editor.commit()
        return work.report


def _product(work: Unfusing, node: gs.Node, *, dynamically: bool) -> None:
    editor = work.editor
    maker = editor.producer(node.inputs[0])
    if maker is None or maker.op not in ("QuantizeLinear", "DynamicQuantizeLinear") or not standard(maker):
        raise CannotUnfuseError("nothing tells the scale of its data")  # case 3
    dynamic = maker.op == "DynamicQuantizeLinear"
    if dynamic and (node.op == "ConvInteger" or not dynamically):
        raise CannotUnfuseError(_DYNAMIC)  # cases 4 and 5
    if not dynamic and static_shape(maker.inputs[1]) not in ((), (1,)):
        raise CannotUnfuseError("its data has a scale per channel, or nobody knows whether it has")
    data_scale, data_zero = (maker.outputs[1], maker.outputs[2]) if dynamic else (maker.inputs[1], input_at(maker, 2))
    if not same(input_at(node, 2), data_zero):
        raise CannotUnfuseError("its zero point is not that of its data")
    add = reader(editor, node.outputs[0], "Add")
    cast = reader(editor, (add or node).outputs[0], "Cast")
    last = None if cast is None else reader(editor, cast.outputs[0], "Mul")
    if cast is None or last is None or cast.attrs.get("to") != FLOAT:
        raise CannotUnfuseError("its sums are not cast to float and scaled alone")
    factor = other(last, cast.outputs[0])
    scale = weight_scale(work, factor, data_scale)
    axis = 0 if node.op == "ConvInteger" else column_axis(scale, node.inputs[1])
    weight = weight_of(work, node, scale, axis)
    bias = None if add is None else _bias(work, node, other(add, node.outputs[0]), maker, weight)
    data = [node.inputs[0], data_scale] + ([data_zero] if data_zero is not None else [])
    real = work.editor.variable(f"{node.inputs[0].name}_dequantized", node.inputs[0])
    real.dtype = np.dtype(np.float32)
    dq = editor.node("DequantizeLinear", data, [real], name=f"{real.name}_DequantizeLinear")
    editor.insert(dq, before=node)
    result = last.outputs[0]
    product = made_by(editor, factor, "Mul")
    for gone in (add, cast, last):
        if gone is not None:
            editor.remove(gone)
    editor.set_output(node, 0, result)
    if product is not None and editor.private(product.outputs[0], ()):
        editor.remove(product)
    inputs = [real, work.dequantized(node, node.inputs[1], weight)]
    if bias is not None:
        added = work.dequantized(node, *bias)
        if node.op == "ConvInteger":
            inputs.append(added)
        else:
            add_bias(work, node, added)
    work.become(node, node.op.removesuffix("Integer"), inputs, dict(node.attrs))


def _bias(
    work: Unfusing, node: gs.Node, added: gs.Tensor, maker: gs.Node, weight: Parameters
) -> tuple[gs.Constant, Parameters]:
    """The int32 bias in the form that Conv and Add want, and what it stands for (case 2)."""
    data = parameters(maker)
    if data is None:
        raise CannotUnfuseError("its bias is in steps that are computed at run time")
    values = bias_of(node, added, weight.scale.size)
    said = sums(work, data, weight)
    return work.constant(f"{added.name}_bias", values), said


def _dynamic(work: Unfusing, node: gs.Node, *, dynamically: bool) -> None:
    editor = work.editor
    if not dynamically:
        raise CannotUnfuseError(_DYNAMIC)
    axis = column_axis(node.inputs[2], node.inputs[1])
    weight = work.said(node, 2, 3, 1, axis=axis)
    source = node.inputs[0]
    parts = (("quantized", np.uint8, source.shape), ("scale", np.float32, ()), ("zero_point", np.uint8, ()))
    made = [
        gs.Variable(editor.fresh_tensor(f"{source.name}_{end}"), dtype=np.dtype(kind), shape=shape)
        for end, kind, shape in parts
    ]
    name = f"{node.name}_DynamicQuantizeLinear"
    editor.insert(editor.node("DynamicQuantizeLinear", [source], made, name=name), before=node)
    real = editor.variable(f"{source.name}_dequantized", source)
    editor.insert(editor.node("DequantizeLinear", made, [real], name=f"{node.name}_DequantizeLinear"), before=node)
    matrix = work.dequantized(node, node.inputs[1], weight)
    add_bias(work, node, input_at(node, 4))
    work.become(node, "MatMul", [real, matrix], {})
