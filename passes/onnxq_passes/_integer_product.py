"""What fuse-conv-integer and fuse-matmul-integer share: int32 sums that cannot wrap, and their way back to float."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.encoding import LEVELS
from onnxq_passes._edit import FLOAT
from onnxq_passes._fuse import CannotFuseError, Operand, Work
from onnxq_passes._qdq import is_q

_MOST = LEVELS["int32"][1]


def check_float_result(work: Work, node: gs.Node, other: str) -> None:
    """Raises:
    CannotFuseError: the result goes to QuantizeLinear only, or to nobody.
    """
    result = node.outputs[0]
    if work.editor.is_output(result):
        return
    users = list(work.editor.uses(result))
    if not users:
        raise CannotFuseError("nobody reads its output")
    if all(is_q(user) for user, _ in users):
        raise CannotFuseError(f"its result is quantized: {other} is its form")


def check_int8(data: Operand, *, native_int8: bool) -> None:
    """Raises:
    CannotFuseError: the data is int8, and `native_int8` is not set.
    """
    if data.type == "int8" and not native_int8:
        raise CannotFuseError("int8 data is slower than float on x86: run signed-to-unsigned first, or set native_int8")


def check_sums(data: Operand, weight: Operand, terms: Sequence[int], bias: NDArray[Any] | None = None) -> None:
    """Float sums never wrap, those of int32 do: refuse where numbers of these encodings could make them.

    Args:
        terms: axes of the weight over which a sum runs.
        bias: int32, one per sum.

    Raises:
        CannotFuseError: |sum| may be greater than 2**31 - 1, or the number of its terms is not known.
    """
    factor = _reach(data)
    if isinstance(weight.integers, gs.Constant):
        values = np.asarray(weight.integers.values).astype(np.int32)
        zeros = weight.said.zero_point.astype(np.int32)
        if weight.said.axis is not None:
            zeros = np.expand_dims(zeros, [a for a in range(values.ndim) if a != weight.said.axis % values.ndim])
        each = np.abs(values - zeros).sum(axis=tuple(terms), dtype=np.int64)
        most = int(each.max(initial=0)) * factor
    else:
        known = [weight.integers.shape[a] for a in terms]
        if not all(isinstance(d, (int, np.integer)) for d in known):
            raise CannotFuseError("the number of terms of its sums is not known")
        most = math.prod(int(d) for d in known) * factor * _reach(weight)
    if most + (0 if bias is None else int(np.abs(bias.astype(np.int64)).max(initial=0))) > _MOST:
        raise CannotFuseError("its sums may leave int32")


def _reach(operand: Operand) -> int:
    """Greatest |q - zero_point|."""
    low, high = LEVELS[operand.type]
    zeros = operand.said.zero_point.astype(np.int64)
    return int(max((high - zeros).max(initial=0), (zeros - low).max(initial=0)))


def steps(data: Operand, weight: Operand) -> NDArray[np.float32]:
    """sx * sw, rounded once.

    Raises:
        CannotFuseError: it is no normal float32.
    """
    exact = data.said.scale.astype(np.float64) * weight.said.scale.astype(np.float64)
    limits = np.finfo(np.float32)
    if not ((exact >= limits.tiny) & (exact <= limits.max)).all():
        raise CannotFuseError("the product of its scales is no normal float32")
    return np.asarray(exact, np.float32)


def write(
    work: Work,
    node: gs.Node,
    op: str,
    inputs: Sequence[gs.Tensor],
    step: NDArray[np.float32],
    result: gs.Tensor,
    *,
    integer_bias: NDArray[Any] | None = None,
    float_bias: NDArray[Any] | None = None,
    attrs: dict[str, Any] | None = None,
    removed: Sequence[gs.Node] = (),
) -> None:
    """Put op -> [Add int32] -> Cast -> Mul by `step` -> [Add float] in the place of `node`.

    Args:
        step, integer_bias, float_bias: in a shape that broadcasts to the result.
        result: the float tensor that the last of them writes.
        removed: nodes that vanish with `node`.
    """
    editor, base = work.editor, node.name or op

    def between(suffix: str, kind: type[np.generic]) -> gs.Variable:
        made = editor.variable(f"{result.name}_{suffix}", result)
        made.dtype = np.dtype(kind)
        return made

    chain: list[tuple[str, list[gs.Tensor], dict[str, Any], type[np.generic]]] = []
    if integer_bias is not None:
        chain.append(("Add", [work.constant(f"{base}_bias", integer_bias.astype(np.int32))], {}, np.int32))
    chain.append(("Cast", [], {"to": FLOAT}, np.float32))
    chain.append(("Mul", [work.constant(f"{base}_scale", step)], {}, np.float32))
    if float_bias is not None:
        chain.append(("Add", [work.constant(f"{base}_bias", float_bias.astype(np.float32))], {}, np.float32))
    last = between("sum", np.int32)
    work.exchange(node, op, inputs, last, attrs=attrs, domain=None, removed=removed)
    for place, (kind, more, attributes, dtype) in enumerate(chain):
        into = result if place == len(chain) - 1 else between(kind.lower(), dtype)
        editor.insert(editor.node(kind, [last, *more], [into], name=f"{base}_{kind}", attrs=attributes), before=node)
        last = into
