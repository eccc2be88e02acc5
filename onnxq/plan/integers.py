"""What a graph of integer operators must be: the invariants of the stage FUSED.

Sources: the specifications of QLinearConv, QLinearMatMul, ConvInteger and MatMulInteger in ONNX, and ONNX Runtime's
schemas of the domain com.microsoft; a test compares the table below with both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.encoding import LEVELS, Affine, PerTensor
from onnxq.ir import walk
from onnxq.numerics import dequantize, quantize
from onnxq.optable import OP_TABLE, data_slots

Q, DQ = "QuantizeLinear", "DequantizeLinear"
MICROSOFT = "com.microsoft"
OUT = -1
"""In the place of an input slot: output 0."""


class Violation(NamedTuple):
    """A rule that a graph breaks, and where, as a piece of a sentence that names the node."""

    rule: str
    sentence: str


class Group(NamedTuple):
    """An integer tensor and the slots of its scale and zero point; None: there is no such slot."""

    tensor: int
    scale: int | None
    zero: int | None


@dataclass(frozen=True, kw_only=True)
class Form:
    """The inputs of an integer operator.

    Attributes:
        domain: "" or com.microsoft.
        least, most: number of inputs.
        groups: its integer tensors.
        weight: slot of the operand that may have a scale per channel of the result.
        bias: slot of the bias.
        bias_type: of the bias.
        one_type: all groups have the integer type of the first.
    """

    domain: str = MICROSOFT
    least: int
    most: int
    groups: tuple[Group, ...]
    weight: int | None = None
    bias: int | None = None
    bias_type: str = "int32"
    one_type: bool = True


_UNARY = Form(least=5, most=5, groups=(Group(0, 1, 2), Group(OUT, 3, 4)))
_BINARY = Form(least=8, most=8, groups=(Group(0, 1, 2), Group(3, 4, 5), Group(OUT, 6, 7)))
_SUMS = (Group(0, None, 2), Group(1, None, 3))

FORMS: dict[str, Form] = {
    "QLinearConv": Form(domain="", least=8, most=9, groups=_BINARY.groups, weight=3, bias=8, one_type=False),
    "QLinearMatMul": Form(domain="", least=8, most=8, groups=_BINARY.groups, weight=3, one_type=False),
    "ConvInteger": Form(domain="", least=2, most=4, groups=_SUMS, weight=1, one_type=False),
    "MatMulInteger": Form(domain="", least=2, most=4, groups=_SUMS, weight=1, one_type=False),
    "QGemm": Form(
        least=6, most=9, groups=(Group(0, 1, 2), Group(3, 4, 5), Group(OUT, 7, 8)), weight=3, bias=6, one_type=False
    ),
    "MatMulIntegerToFloat": Form(
        least=6,
        most=7,
        groups=(Group(0, 2, 4), Group(1, 3, 5)),
        weight=1,
        bias=6,
        bias_type="float32",
        one_type=False,
    ),
    "DynamicQuantizeMatMul": Form(
        least=3, most=5, groups=(Group(1, 2, 3),), weight=1, bias=4, bias_type="float32", one_type=False
    ),
    "QLinearAdd": _BINARY,
    "QLinearMul": _BINARY,
    "QLinearWhere": Form(least=9, most=9, groups=(Group(1, 2, 3), Group(4, 5, 6), Group(OUT, 7, 8))),
    **dict.fromkeys(
        (
            "QLinearAveragePool",
            "QLinearGlobalAveragePool",
            "QLinearLeakyRelu",
            "QLinearReduceMean",
            "QLinearSigmoid",
            "QLinearSoftmax",
        ),
        _UNARY,
    ),
}
"""Operator -> its form; QLinearConcat has as many inputs as it likes: `form`. Zero points that a schema leaves optional
are asked for, except where the operator has none of a kind that could be 0 for sure (ConvInteger, MatMulInteger,
DynamicQuantizeMatMul)."""

_OPTIONAL_ZERO = frozenset({"ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul"})
INTEGER_OPS = frozenset({*FORMS, "QLinearConcat"})

ONE_AXIS_OPSET = 13
"""Opset from which Softmax works along one axis; before, it takes all axes from one on as one."""


def least_softmax_scale(node: gs.Node, shape: Sequence[int | str | None] | None, opset: int) -> float:
    """The scale of a Softmax's 8-bit result below which QLinearSoftmax gives 0 for its greatest values.

    Its sums wrap around where the scale is below (e - 1) / (255 n), n the elements that are summed (measured, see
    docs/ort.md). Some room is left: 2 / (255 n).

    Args:
        shape: of what it reads; sizes that are not known count as 1, which is on the safe side.
    """
    old = opset < ONE_AXIS_OPSET
    axis = int(node.attrs.get("axis", 1 if old else -1))
    summed: Sequence[int | str | None] = ()
    if shape is not None and -len(shape) <= axis < len(shape):
        summed = shape[axis:] if old else (shape[axis],)
    return 2.0 / (255 * max(1, prod(d for d in summed if isinstance(d, int))))


def form(node: gs.Node) -> Form | None:
    """The form of a node, or None if it is no integer operator that this table knows."""
    if node.op != "QLinearConcat":
        return FORMS.get(node.op)
    parts = tuple(Group(i, i + 1, i + 2) for i in range(2, len(node.inputs) - 2, 3))
    most = 2 + 3 * max(len(parts), 1)
    return Form(least=5, most=most, groups=(*parts, Group(OUT, 0, 1)))


def integer_violations(graph: gs.Graph) -> Iterator[Violation]:
    """What a graph in the stage FUSED must not be.

    1. domain: an operator of the table stands in its own domain.
    2. inputs: it has as many as its kernel reads; scale and zero point of an output come together.
    3. scales: constant, float32, finite, above 0; one for an activation, one or one per channel of the result for a
       weight.
    4. zero points: there, constant, of the type of their tensor and the shape of their scale.
    5. types: 8 bits; no int8 data with a uint8 weight, which has no kernel; results of the type of the data.
    6. bias: constant, int32 (float32 where the result is float), one number per channel.
    7. encodings: who reads integers reads them with the scale and zero point that they were written with.
    8. readers: integers are read by integer operators, DequantizeLinear and ops that move data.
    9. round trips: no DequantizeLinear -> QuantizeLinear with equal parameters between integer operators.
    """
    for _, inner in walk.graphs(graph):
        for node in inner.nodes:
            found = form(node)
            if found is not None:
                yield from _operator(node, found)
    yield from _written_and_read(graph)
    yield from _round_trips(graph)


def _operator(node: gs.Node, found: Form) -> Iterator[Violation]:
    name = f"{node.op} {node.name}"
    if (node.domain or "") not in {found.domain, MICROSOFT if node.op == "QLinearConv" else found.domain}:
        wanted = found.domain or "ai.onnx"
        yield Violation("domain", f"{name} stands in the domain {node.domain or 'ai.onnx'} instead of {wanted}")
    given = len(node.inputs)
    while given and not node.inputs[given - 1].name:
        given -= 1  # absent inputs at the end
    if not found.least <= given <= found.most:
        wanted = str(found.most) if found.least == found.most else f"{found.least} to {found.most}"
        yield Violation("inputs", f"{name} has {given} inputs instead of {wanted}")
        return
    channels = _channels(node, found)
    kinds: list[str] = []
    for group in found.groups:
        tensor = node.outputs[0] if group.tensor == OUT else node.inputs[group.tensor]
        scale, zero = _at(node, group.scale), _at(node, group.zero)
        if group.tensor == OUT and node.op == "QGemm" and scale is None and zero is None:
            continue  # a float result
        what = f"{name}: the scale of {tensor.name}"
        if group.scale is not None:
            if scale is None:
                yield Violation("inputs", f"{what} is missing")
            else:
                yield from _scale(what, scale, channels if group.tensor == found.weight else None)
        yield from _zero(node, tensor, scale, zero)
        kind = _kind(tensor) or _kind(zero)
        if kind:
            kinds.append(kind)
    yield from _types(name, found, kinds)
    if found.bias is not None:
        yield from _bias(name, found, _at(node, found.bias), channels)


def _at(node: gs.Node, slot: int | None) -> gs.Tensor | None:
    if slot is None or slot >= len(node.inputs) or not node.inputs[slot].name:
        return None
    return node.inputs[slot]


def _kind(tensor: gs.Tensor | None) -> str:
    return "" if tensor is None or tensor.dtype is None else np.dtype(tensor.dtype).name


def _channels(node: gs.Node, found: Form) -> int | None:
    """Number of channels of the result; None if the weight's shape is not known."""
    weight = None if found.weight is None else node.inputs[found.weight]
    if weight is None or not weight.shape:
        return None
    first = node.op in ("QLinearConv", "ConvInteger") or (node.op == "QGemm" and bool(node.attrs.get("transB", 0)))
    size = weight.shape[0 if first else -1]
    return size if isinstance(size, int) else None


def _scale(what: str, scale: gs.Tensor, channels: int | None) -> Iterator[Violation]:
    values = walk.constant_array(scale)
    if values is None:
        yield Violation("scales", f"{what} is computed at run time")
        return
    if values.dtype != np.float32 or not np.isfinite(values).all() or not (values > 0).all():
        yield Violation("scales", f"{what} is no finite float32 above 0")
    if values.size not in (1, channels):
        wanted = "1" if channels is None else f"1 or {channels}"
        yield Violation("scales", f"{what} has {values.size} elements instead of {wanted}")


def _zero(node: gs.Node, tensor: gs.Tensor, scale: gs.Tensor | None, zero: gs.Tensor | None) -> Iterator[Violation]:
    what = f"{node.op} {node.name}: the zero point of {tensor.name}"
    if zero is None:
        if node.op not in _OPTIONAL_ZERO:
            yield Violation("zero points", f"{what} is missing")
        return
    values = walk.constant_array(zero)
    if values is None:
        if node.op not in _OPTIONAL_ZERO:  # behind DynamicQuantizeLinear they are computed
            yield Violation("zero points", f"{what} is computed at run time")
        return
    kind = _kind(tensor)
    if kind and kind != values.dtype.name:
        yield Violation("zero points", f"{what} is {values.dtype.name}, the tensor {kind}")
    scales = None if scale is None else walk.constant_array(scale)
    if scales is not None and scales.size != values.size:
        yield Violation("zero points", f"{what} has {values.size} elements, its scale {scales.size}")


def _types(name: str, found: Form, kinds: list[str]) -> Iterator[Violation]:
    wide = next((k for k in kinds if k not in ("uint8", "int8")), None)
    if wide is not None:
        yield Violation("types", f"{name} has a tensor of {wide}, its kernel takes uint8 and int8")
    elif found.one_type and len(set(kinds)) > 1:
        yield Violation("types", f"{name} has tensors of different types: {', '.join(kinds)}")
    elif not found.one_type and kinds[:2] == ["int8", "uint8"]:
        yield Violation("types", f"{name} has int8 data and a uint8 weight, for which there is no kernel")
    elif not found.one_type and len(kinds) == 3 and kinds[2] != kinds[0]:
        yield Violation("types", f"{name} reads {kinds[0]} and writes {kinds[2]}")


def _bias(name: str, found: Form, bias: gs.Tensor | None, channels: int | None) -> Iterator[Violation]:
    if bias is None:
        return
    values = walk.constant_array(bias)
    if values is None:
        yield Violation("bias", f"the bias of {name} is computed at run time")
        return
    if values.dtype.name != found.bias_type:
        yield Violation("bias", f"the bias of {name} is {values.dtype.name} instead of {found.bias_type}")
    if channels is not None and values.size != channels:
        yield Violation("bias", f"the bias of {name} has {values.size} elements for {channels} channels")


# integers between nodes

_Encoding = tuple[bytes, bytes]


def _encoding(node: gs.Node, group: Group) -> _Encoding | None:
    """Scale and zero point of one tensor of a node, per tensor; None if they are not constant, or per channel."""
    scale, zero = _at(node, group.scale), _at(node, group.zero)
    values = None if scale is None else walk.constant_array(scale)
    zeros = None if zero is None else walk.constant_array(zero)
    if values is None or zeros is None or values.size != 1 or zeros.size != 1:
        return None
    return values.tobytes(), zeros.astype(np.int64).tobytes()


def _groups(node: gs.Node) -> tuple[Group, ...]:
    if node.op == Q:
        return (Group(OUT, 1, 2),)
    if node.op == DQ:
        return (Group(0, 1, 2),)
    found = form(node)
    return () if found is None else tuple(g for g in found.groups if g.scale is not None)


def _written_and_read(graph: gs.Graph) -> Iterator[Violation]:
    """Rules 7 and 8: follow integers from who writes them, through what moves them, to who reads them."""
    uses = walk.consumers(graph)
    for _, inner in walk.graphs(graph):
        for writer in inner.nodes:
            made = next((g for g in _groups(writer) if g.tensor == OUT), None)
            if made is None or (writer.op == "QGemm" and _at(writer, made.scale) is None):
                continue
            encoding = _encoding(writer, made)
            todo, seen = [writer.outputs[0].name], {writer.outputs[0].name}
            while todo:
                for use in uses.get(todo.pop(), []):
                    reader = use.node
                    row = OP_TABLE.get(reader.op)
                    if row is not None and row.moves is not None:
                        if use.slot in data_slots(reader):
                            moved = [t.name for t in reader.outputs if t.name and t.name not in seen]
                            todo += moved
                            seen.update(moved)
                        continue
                    yield from _read(writer, encoding, reader, use.slot)


def _read(writer: gs.Node, encoding: _Encoding | None, reader: gs.Node, slot: int) -> Iterator[Violation]:
    if reader.op not in INTEGER_OPS and reader.op != DQ:
        sentence = f"{reader.op} {reader.name} reads the integers that {writer.op} {writer.name} makes"
        yield Violation("readers", sentence)
        return
    group = next((g for g in _groups(reader) if g.tensor == slot), None)
    other = None if group is None else _encoding(reader, group)
    if encoding is not None and other is not None and encoding != other:
        yield Violation(
            "encodings",
            f"{reader.op} {reader.name} reads the integers that {writer.op} {writer.name} makes in another encoding",
        )


def _round_trips(graph: gs.Graph) -> Iterator[Violation]:
    """Rule 9; not where the scale is so small or large that Q(DQ(q)) is not q."""
    made, uses = walk.producers(graph), walk.consumers(graph)
    for _, inner in walk.graphs(graph):
        for first in inner.nodes:
            source = made.get(first.inputs[0].name) if first.op == DQ else None
            if source is None or source.node.op not in INTEGER_OPS:
                continue
            for use in uses.get(first.outputs[0].name, []):
                last = use.node
                if last.op != Q or _encoding(first, Group(0, 1, 2)) != _encoding(last, Group(OUT, 1, 2)):
                    continue
                behind = [u.node for u in uses.get(last.outputs[0].name, []) if u.node.op in INTEGER_OPS]
                if behind and _survives(first, last):
                    yield Violation(
                        "round trips",
                        f"{DQ} {first.name} and {Q} {last.name} between {source.node.op} {source.node.name} and "
                        f"{behind[0].op} {behind[0].name} do nothing",
                    )


def _survives(first: gs.Node, last: gs.Node) -> bool:
    """Q(DQ(q)) = q for each q."""
    arrays: list[NDArray[Any] | None] = [walk.constant_array(t) for n in (first, last) for t in n.inputs[1:3]]
    scale, zero, _, other = arrays if len(arrays) == 4 else [None] * 4
    if scale is None or zero is None or other is None or zero.dtype != other.dtype or zero.dtype.name not in LEVELS:
        return False
    low, high = LEVELS[zero.dtype.name]
    levels = np.arange(low, high + 1).astype(zero.dtype)
    one = Affine(type=zero.dtype.name, granularity=PerTensor(), scale=scale.reshape(()), zero_point=zero.reshape(()))
    with np.errstate(over="ignore"):
        return bool(np.array_equal(quantize(dequantize(levels, one), one), levels))
