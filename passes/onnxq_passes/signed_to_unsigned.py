"""On x86 the kernels for uint8 data and int8 weights are several times faster than those for int8 data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq_passes._edit import Editor
from onnxq_passes._fuse import CannotFuseError, Work, encoded
from onnxq_passes._qdq import is_dq, parameters

_MATRICES = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True, kw_only=True)
class SignedToUnsigned(Pass):
    """Move int8 data between QuantizeLinear and DequantizeLinear to uint8: every zero point grows by 128.

    1. A QuantizeLinear to int8 and all DequantizeLinear behind it change together; each integer grows by 128, and
       the real numbers stay, bit for bit.
    2. Integers that anything else reads, or that are an output of the graph, stay.
    3. Weights stay: quantized constants, and second operands of Conv, Gemm and MatMul.
    4. An int8 constant with one scale that only other ops read moves: they want operands of one type.
    """

    takes = Stage.QDQ
    also_takes = (Stage.PLACED,)
    gives = Stage.PLACED

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""
        work = Work(Editor(graph))
        for node in work.editor.live(ops=["QuantizeLinear"]):
            try:
                _shift(work, node)
            except CannotFuseError as reason:
                work.report.refuse(node, str(reason))
        for node in work.editor.live(ops=["DequantizeLinear"]):
            _shift_constant(work, node)
        work.editor.commit()
        return work.report


def _shift(work: Work, node: gs.Node) -> None:
    editor, tensor = work.editor, node.outputs[0]
    try:
        given = encoded(node, tensor, ("int8",))
    except CannotFuseError:
        return  # another type, or nothing that a kernel takes
    if isinstance(node.inputs[0], gs.Constant):
        return  # case 3
    if editor.is_output(tensor):
        raise CannotFuseError(f"{tensor.name} is an output of the graph")  # case 2
    readers = [user for user, _ in editor.uses(tensor)]
    behind = []
    for user, slot in editor.uses(tensor):
        if not is_dq(user) or slot != 0:
            raise CannotFuseError(f"{user.name} reads the int8 numbers themselves")  # case 2
        behind.append(encoded(user, tensor, ("int8",)))
    uses = [use for user in readers for use in editor.uses(user.outputs[0])]
    if uses and all(user.op in _MATRICES and slot == 1 for user, slot in uses):
        return  # case 3
    for one in [given, *behind]:
        zero = work.constant(f"{tensor.name}_zero_point_uint8", _shifted(one.said.zero_point))
        editor.set_inputs(one.source, [*one.source.inputs[:2], zero])
    node.attrs.pop("output_dtype", None)
    tensor.dtype = np.dtype(np.uint8)
    work.report.rewrites += 1


def _shift_constant(work: Work, node: gs.Node) -> None:
    """Case 4."""
    editor, tensor, said = work.editor, node.inputs[0], parameters(node)
    if not isinstance(tensor, gs.Constant) or said is None or said.dtype != "int8" or said.axis is not None:
        return
    uses = list(editor.uses(node.outputs[0]))
    if not uses or editor.is_output(node.outputs[0]) or any(user.op in _MATRICES for user, _ in uses):
        return  # case 3
    name = f"{tensor.name}_uint8"
    levels = work.constant(name, _shifted(np.asarray(tensor.values)))
    zero = work.constant(f"{name}_zero_point", _shifted(said.zero_point))
    editor.set_inputs(node, [levels, node.inputs[1], zero])
    work.report.rewrites += 1


def _shifted(integers: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Each int8 number plus 128: the same bits, the top one turned over."""
    turned: NDArray[np.uint8] = np.asarray(integers.view(np.uint8) ^ np.uint8(128))  # rank 0 would become a scalar
    return turned
