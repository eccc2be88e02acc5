"""What the unfuse passes share: float operands and results around an op that read and wrote integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.encoding import LEVELS
from onnxq.optable import PER_CHANNEL_OPSET
from onnxq.pipeline.base import Report
from onnxq_passes._edit import Editor, input_at
from onnxq_passes._qdq import Parameters, attributes, is_dq, is_q, parameters


class CannotUnfuseError(Exception):
    """Why an integer op stays, in words for a user."""


@dataclass
class Unfusing:
    """The edits and the report of one pass. Everything is checked before the first edit of a node."""

    editor: Editor
    report: Report = field(default_factory=Report)
    _constants: dict[tuple[object, ...], gs.Constant] = field(default_factory=dict)
    _dqs: dict[tuple[object, ...], gs.Tensor] = field(default_factory=dict)

    # questions

    def said(self, node: gs.Node, scale: int, zero: int, like: int, *, axis: int | None = None) -> Parameters:
        """What a DQ or Q with the scale and the zero point in these slots says.

        Args:
            like: slot of an input that has the type of the zero point, for where that is left out.
            axis: that of the channels, if there is more than one scale.

        Raises:
            CannotUnfuseError: they are computed, or of a form that Q and DQ do not have.
        """
        given = input_at(node, scale)
        if not isinstance(given, gs.Constant):
            raise CannotUnfuseError("its scales are computed at run time")
        return self.spelled(np.asarray(given.values), self.zeros(node, zero, like), axis)

    def zeros(self, node: gs.Node, slot: int, like: int) -> NDArray[Any]:
        """The zero points in a slot; 0 in the type of the input in slot `like` where they are left out.

        Raises:
            CannotUnfuseError: they are computed, or that type is not known.
        """
        given = input_at(node, slot)
        if given is None:
            kind = integer_type(self.editor, node.inputs[like])
            if kind is None:
                raise CannotUnfuseError("neither a zero point nor the file says the type of its integers")
            return np.zeros((), kind)
        if not isinstance(given, gs.Constant):
            raise CannotUnfuseError("its zero points are computed at run time")
        return np.asarray(given.values)

    def spelled(self, scales: NDArray[Any], zeros: NDArray[Any], axis: int | None) -> Parameters:
        """One scale and zero point of rank 0, or one of each per channel.

        Raises:
            CannotUnfuseError: the numbers or the shapes are none of Q and DQ.
        """
        if scales.dtype != np.float32 or not (np.isfinite(scales) & (scales > 0)).all():
            raise CannotUnfuseError("a scale is no positive float32")
        if zeros.dtype.name not in LEVELS:
            raise CannotUnfuseError(f"a zero point is {zeros.dtype.name}")
        if scales.size == 1 and zeros.size == 1:
            axis, scales, zeros = None, scales.reshape(()), zeros.reshape(())
        elif axis is None:
            raise CannotUnfuseError("it has a scale per channel of its data")
        else:
            if any(v.size != max(v.shape, default=1) for v in (scales, zeros)):
                raise CannotUnfuseError("its scales are those of a batch of matrices")
            if self.editor.main.opset < PER_CHANNEL_OPSET:
                raise CannotUnfuseError(
                    f"DequantizeLinear has a scale per channel from opset {PER_CHANNEL_OPSET} on, the model has "
                    f"{self.editor.main.opset}"
                )
            size = max(scales.size, zeros.size)
            scales, zeros = (np.ascontiguousarray(np.broadcast_to(v.reshape(-1), size)) for v in (scales, zeros))
        return Parameters(scale=scales, zero_point=zeros, axis=axis, block_size=0, dtype=zeros.dtype.name)

    def triple(self, node: gs.Node, slot: int, axis: int | None = None) -> Parameters:
        """What stands for the data in `slot`, whose scale and zero point follow it."""
        return self.said(node, slot + 1, slot + 2, slot, axis=axis)

    def result(self, node: gs.Node, slot: int, like: int = 0) -> Parameters:
        """What stands for the result, whose scale and zero point stand in `slot` and behind it."""
        return self.said(node, slot, slot + 1, like)

    # edits

    def dequantized(self, node: gs.Node, tensor: gs.Tensor, said: Parameters) -> gs.Tensor:
        """The float form of an integer tensor, for `node`; a DQ that says the same serves several readers."""
        body = self.editor.body(node)
        key = (id(body), id(tensor), said.key)
        if key not in self._dqs:
            into = self.editor.variable(f"{tensor.name}_dequantized", tensor)
            into.dtype = np.dtype(np.float32)
            self._dqs[key] = into
            dq = self.editor.node(
                "DequantizeLinear",
                [tensor, *self._numbers(tensor, said)],
                [into],
                name=f"{tensor.name}_DequantizeLinear",
                attrs=attributes(said),
            )
            self.editor.insert(dq, before=node)
        return self._dqs[key]

    def quantized(self, node: gs.Node, slot: int, said: Parameters) -> None:
        """An output becomes float, and a Q behind it writes what the output was; one scale for all of it."""
        result = node.outputs[slot]
        real = self.editor.variable(f"{result.name}_float", result)
        real.dtype = np.dtype(np.float32)
        self.editor.set_output(node, slot, real)
        q = self.editor.node(
            "QuantizeLinear",
            [real, *self._numbers(result, said)],
            [result],
            name=f"{result.name}_QuantizeLinear",
        )
        self.editor.insert(q, after=node)

    def become(self, node: gs.Node, op: str, inputs: Sequence[gs.Tensor], attrs: dict[str, Any]) -> None:
        """Make a node a float op of the standard domain, under its name."""
        node.op, node.domain = op, None
        node.attrs.clear()
        node.attrs.update(attrs)
        self.editor.set_inputs(node, inputs)
        self.report.rewrites += 1

    def constant(self, name: str, values: NDArray[Any]) -> gs.Constant:
        """A constant; equal ones are shared."""
        key = (str(values.dtype), values.shape, values.tobytes())
        if key not in self._constants:
            self._constants[key] = self.editor.constant(name, values)
        return self._constants[key]

    def _numbers(self, tensor: gs.Tensor, said: Parameters) -> list[gs.Tensor]:
        return [
            self.constant(f"{tensor.name}_scale", said.scale),
            self.constant(f"{tensor.name}_zero_point", said.zero_point),
        ]


def integer_type(editor: Editor, tensor: gs.Tensor) -> str | None:
    """`uint8`, `int8` ... of an integer tensor, from the file, the Q that makes it or a DQ that reads it; else None."""
    if tensor.dtype is not None and not isinstance(tensor.dtype, int):
        return str(np.dtype(tensor.dtype).name)
    maker = editor.producer(tensor)
    near = [n for n, slot in editor.uses(tensor) if slot == 0 and is_dq(n)]
    found = [parameters(n) for n in ([maker, *near] if maker is not None and is_q(maker) else near)]
    return next((said.dtype for said in found if said is not None), None)
