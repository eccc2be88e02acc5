"""Random graphs of what the fusions look for: DQ -> op -> Q in a row and in branches, and near misses of each.

Pictures are [1,4,6,6], tokens [6,8]; every block takes dequantized tensors of that shape and gives one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from fusing import DATA, OUT, Qdq

from onnxq.ir import load
from onnxq.ir.model import Model

PICTURE, TOKENS = (1, 4, 6, 6), (6, 8)


@dataclass(frozen=True)
class Step:
    """`block` indexes the blocks; operands lie `a` and `b` tensors back; `form` and `end` choose variants."""

    block: int
    a: int
    b: int
    form: int
    end: int


@dataclass(frozen=True)
class Recipe:
    """A graph: its steps, pictures or tokens, and whether its data is int8."""

    steps: tuple[Step, ...]
    tokens: bool = False
    signed: bool = False


@dataclass
class Maker(Qdq):
    """`said` remembers scale, zero point and type of each dequantized tensor."""

    tokens: bool = False
    said: dict[str, tuple[float, int, str]] = field(default_factory=dict)

    def pair(self, y: str, scale: float = OUT, zero: int = 100, kind: str = "uint8") -> str:
        out = self.dq(self.q(y, scale, zero, kind), scale, zero, kind)
        self.said[out] = (scale, zero, kind)
        return out

    def bias(self, channels: int, scale: Any, x: str, form: int) -> list[str]:
        """None, int32 with the right scale, float, int32 with another scale."""
        if form == 0 or x not in self.said:
            return []
        if form == 2:
            return [self.constant(np.linspace(-1, 1, channels))]
        steps = np.broadcast_to(np.float32(self.said[x][0]) * np.asarray(scale, np.float32), channels)
        steps = steps * np.float32(2 if form == 3 else 1)
        given = self.constant(np.arange(channels) * 777 - 1500, "int32")
        return [self.op("DequantizeLinear", given, self.constant(steps), axis=0)]


Block = Callable[[Maker, str, str, int, int], str]


def end(g: Maker, y: str, x: str, how: int) -> str:
    """Quantize a result; from 6 on in a way that some fusion does not take."""
    signed = g.said.get(x, (0, 0, "uint8"))[2] == "int8"
    if how == 6:
        g.raw(g.op("Abs", y))
    elif how == 7:
        g.out(y, 0.0317, 90)
    elif how == 8:
        return g.pair(g.op("Relu", y), OUT, 100)
    elif how == 9:
        return g.pair(g.op("Relu", y), OUT, -128 if signed else 0, "int8" if signed else "uint8")
    elif how == 10:
        return g.pair(y, OUT, 20000, "uint16")
    elif how == 11:
        return g.pair(y, OUT, 100 if signed else -28, "uint8" if signed else "int8")
    elif how == 12:
        q = g.q(y, OUT, -28, "int8")
        g.raw(g.op("Mul", g.op("Cast", q, to=1), g.constant(OUT)))
        return g.dq(q, OUT, -28, "int8")
    elif how == 13:
        channels = 6 if g.tokens else 4
        numbers = (g.constant(np.linspace(0.03, 0.06, channels)), g.constant([100] * channels, "uint8"))
        axis = 0 if g.tokens else 1
        return g.op("DequantizeLinear", g.op("QuantizeLinear", y, *numbers, axis=axis), *numbers, axis=axis)
    return g.pair(y, OUT, -28, "int8") if signed else g.pair(y)


def product(g: Maker, x: str, _: str, form: int, how: int) -> str:
    """Conv, Gemm, MatMul with weights of one scale or one per channel (or along the wrong axis)."""
    wrong = form % 16 == 15
    if not g.tokens:
        scale: Any = [0.00213, 0.00317, 0.00237, 0.00437] if form & 1 else 0.00217
        if form % 8 == 6:
            w, more = g.weight(4, 1, 3, 3, scale=0.00917), {"group": 4}
            scale = 0.00917
        else:
            w, more = g.weight(4, 4, 3, 3, scale=scale, axis=1 if wrong else 0), {}
        y = g.op("Conv", x, w, *g.bias(4, scale, x, form >> 3 & 3), pads=[1] * 4, **more)
        return end(g, g.op("Neg", y), x, 0) if form & 32 else end(g, y, x, how)
    scale = list(np.linspace(0.00713, 0.01037, 8)) if form & 1 else 0.00817
    w = g.weight(8, 8, scale=scale, axis=0 if wrong else 1)
    if form % 4 == 3 or form % 8 == 6:
        odd = {"alpha": 0.5} if form % 8 == 6 else {}
        y = g.op("Gemm", x, w, *g.bias(8, scale, x, form >> 3 & 3), **odd)
    else:
        y = g.op("MatMul", x, w)
        if form & 4:
            y = g.op("Add", y, g.constant(np.linspace(-1, 1, 8)))
    if form & 32:
        return end(g, g.op("Neg", y), x, 0)  # a float result
    return end(g, y, x, how)


def elementwise(g: Maker, x: str, y: str, form: int, how: int) -> str:
    """Add, Mul of two tensors; LeakyRelu, Sigmoid, Softmax of one."""
    op = ("Add", "Mul", "LeakyRelu", "Sigmoid", "Softmax")[form % 5]
    return end(g, g.op(op, x, *([y] if form % 5 < 2 else [])), x, how)


def concat(g: Maker, x: str, y: str, form: int, how: int) -> str:
    both = end(g, g.op("Concat", x, y, axis=0 if g.tokens else 1), x, how if how != 13 else 0)
    starts, ends, axes = (g.constant([n], "int64") for n in (2, 8 if g.tokens else 6, 0 if g.tokens else 1))
    return g.pair(g.op("Slice", both, starts, ends, axes))


def where(g: Maker, x: str, y: str, form: int, how: int) -> str:
    shape = TOKENS if g.tokens else PICTURE
    mask = g.constant(np.arange(shape[-1]) % 3 == 0, "bool")
    other = (y, y, g.constant([0.75]), g.constant(np.linspace(0, 1, shape[-1])))[form & 3]
    return end(g, g.op("Where", mask, *((x, other) if form & 4 else (other, x))), x, how)


def pool(g: Maker, x: str, y: str, form: int, how: int) -> str:
    if g.tokens:
        return elementwise(g, x, y, form, how)
    if form % 3 == 0:
        mean = end(g, g.op("GlobalAveragePool", x), x, how)
        return end(g, g.op("Add", y, mean), x, 0)
    dilated = form % 6 == 5
    spread: dict[str, Any] = {"dilations": [2, 2], "pads": [2] * 4} if dilated else {"pads": [1] * 4}
    return end(g, g.op("AveragePool", x, kernel_shape=[3, 3], **spread), x, how)


def movement(g: Maker, x: str, y: str, form: int, how: int) -> str:
    """Equal parameters on both sides in three of four forms."""
    shape = TOKENS if g.tokens else PICTURE
    kind, same = form % 5, form % 4 != 3 and x in g.said
    if kind == 0:
        order = [1, 0] if g.tokens else [0, 1, 3, 2]
        z = g.op("Transpose", x, perm=order)
        z = g.pair(z, *g.said[x]) if same else end(g, z, x, how if how != 13 else 0)
        z = g.op("Transpose", z, perm=order)
    elif kind == 1:
        z = g.op("Reshape", x, g.constant([*shape[:-1][::-1], shape[-1]], "int64"))
        z = g.pair(z, *g.said[x]) if same else end(g, z, x, how if how != 13 else 0)
        z = g.op("Reshape", z, g.constant(shape, "int64"))
    elif kind == 2:
        z = g.op("Gather", x, g.constant(np.arange(shape[-1])[::-1], "int64"), axis=-1)
    elif kind == 3 and not g.tokens:
        z = g.op("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4)
    else:
        pads = [0] * (len(shape) - 1) + [1] + [0] * (len(shape) - 1) + [-1]
        z = g.op("Pad", x, g.constant(pads, "int64"), *([g.constant(0.3)] if form & 8 else []))
    return g.pair(z, *g.said[x]) if same else end(g, z, x, how)


def dynamic(g: Maker, x: str, y: str, form: int, how: int) -> str:
    """DynamicQuantizeLinear and MatMulInteger as onnxruntime.quantization writes them; some forms not quite."""
    if not g.tokens:
        return product(g, x, y, form, how)
    near = form % 12
    data = g.op("Abs", x) if form & 16 else x
    q, s, z = g.op("DynamicQuantizeLinear", data, outs=3)
    columns = bool(form & 1) and near != 7
    w = g.constant(np.random.default_rng(form).integers(-127, 128, (8, 8)), "int8")
    scale = g.constant(np.linspace(0.004, 0.009, 8) if columns else 0.006)
    zero = g.constant([0] * 8 if columns or near == 7 else 0, "int8")
    i = g.op("MatMulInteger", q, w, g.constant(7, "uint8") if near == 8 else z, zero)
    f = g.op("Cast", i, to=1)
    factor = g.op("Mul", g.constant(0.03) if near == 9 else s, g.op("Abs", scale) if near == 10 else scale)
    out = g.op("Mul", f, factor) if form & 2 else g.op("Mul", factor, f)
    if near == 11:
        g.raw(g.op("Mul", f, g.constant(0.0001)))
    if form & 4:
        out = g.op("Add", out, g.constant(np.linspace(-1, 1, 8)))
    return end(g, out, x, 0)


def integers(g: Maker, x: str, y: str, form: int, how: int) -> str:
    """Integer ops as a file may have them: QLinearAdd, MatMulInteger, ConvInteger, moved integers; and near misses."""
    kind, near = form % 4, form // 4 % 2 == 1
    scale, zero = g.constant(0.0413), g.constant(117, "uint8")
    a, b = (g.op("QuantizeLinear", t, scale, zero) for t in (x, y))
    if kind == 0:
        to = (g.constant(OUT), g.constant(100, "uint8"))
        said = g.op("Abs", scale) if near else scale
        r = g.op("QLinearAdd", a, said, zero, b, scale, zero, *to, domain="com.microsoft")
        return g.op("DequantizeLinear", r, *to)
    if kind == 1:
        random = np.random.default_rng(form)
        w = g.constant(random.integers(-127, 128, (8, 8) if g.tokens else (4, 4, 3, 3)), "int8")
        more = {} if g.tokens else {"pads": [1] * 4}
        i = g.op("MatMulInteger" if g.tokens else "ConvInteger", a, w, zero, g.constant(0, "int8"), **more)
        if form & 16:
            biases = np.arange(8) * 777 - 1500
            across = biases[:6] if form & 32 else biases[:4].reshape(4, 1, 1)  # along the width it is no bias
            i = g.op("Add", i, g.constant(biases if g.tokens else across, "int32"))
        if near:
            g.raw(g.op("Mul", g.op("Cast", i, to=1), g.constant(0.0001)))
        return end(g, g.op("Mul", g.op("Cast", i, to=1), g.constant(np.float32(0.0413) * np.float32(0.001))), x, 0)
    shape = TOKENS if g.tokens else PICTURE
    if kind == 2:
        order = [1, 0] if g.tokens else [0, 1, 3, 2]
        moved = g.op("Transpose", g.op("Transpose", a, perm=order), perm=order)
    else:
        pads = g.constant([0] * (len(shape) - 1) + [1] + [0] * (len(shape) - 1) + [-1], "int64")
        moved = g.op("Pad", a, pads, *([] if near else [zero]))
    if near and kind == 2:
        scale = g.constant(0.0513)  # the levels are read on another scale: what stands in front counts
    return g.op("DequantizeLinear", moved, scale, zero)


def shapes(g: Maker, x: str, y: str, form: int, how: int) -> str:
    """Six channels, three or one, a depthwise Conv, then SpaceToDepth or a pool, and Resize; and near misses."""
    if g.tokens:
        return product(g, x, y, form, how)

    def conv(data: str, outputs: int, inputs: int, **attrs: Any) -> str:
        w = g.weight(outputs, inputs, 3, 3, scale=0.00217 if form & 1 else [0.00217] * outputs, axis=0)
        return g.op("Conv", data, w, *g.bias(outputs, 0.00217, data, form & 1), pads=[1] * 4, **attrs)

    near = [form >> 2 & 1 == 1, form >> 2 & 3 == 3, form >> 4 & 1 == 1]
    if form & 1:
        few = 1 if form & 8 or form & 48 != 48 else 3
        if form & 8:
            cut = g.pair(g.op("Neg", g.op("Slice", x, *(g.constant([n], "int64") for n in (0, few, 1)))))
        else:
            cut = g.data(1, few, *PICTURE[2:])
            g.said[cut] = (DATA, 120, "uint8")
        made = g.op("Neg", conv(cut, 4, few)) if near[0] else conv(cut, 4, few)
    else:
        wide = g.pair(conv(x, 6, 4))
        if form & 32:
            wide = g.pair(conv(wide, 6, 1, group=6))
        if near[0]:
            g.raw(g.op("Abs", wide))
        made = conv(wide, 4, 6)
    x = g.pair(made)
    if form % 4:
        deep = g.pair(g.op("SpaceToDepth", g.op("Abs", x), blocksize=2))
        if near[1]:
            g.raw(deep)
        small = g.pair(conv(deep, 4, 16))
    else:
        small = g.pair(g.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]))
    attrs = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    mode = "linear" if near[2] else "nearest"
    return g.pair(g.op("Resize", small, "", g.constant([1, 1, 2, 2]), mode=mode, **attrs))


def stem(g: Maker, form: int) -> str:
    """The first Conv, on a picture with one channel or two; or not the first product."""
    few = 1 + (form >> 2 & 1)
    picture = g.data(1, few, *PICTURE[2:])
    if form & 24 == 24:
        mixed = g.op("MatMul", picture, g.constant(np.random.default_rng(form).normal(0, 0.4, (6, 6))))
        picture = g.pair(mixed, DATA, 120)
    return g.pair(g.op("Conv", picture, g.weight(4, few, 3, 3, scale=0.00217), pads=[1] * 4))


BLOCKS: tuple[Block, ...] = (
    *[product] * 8,
    *[shapes] * 7,
    *[elementwise, concat] * 2,
    *[pool] * 5,
    *[where] * 2,
    *[movement, dynamic] * 2,
    dynamic,
    *[integers] * 5,
)
FORMS, ENDS = 64, 14


def build(recipe: Recipe) -> tuple[Model, dict[str, np.ndarray[Any, Any]]]:
    """The model, with shapes, and its inputs."""
    g = Maker(tokens=recipe.tokens)
    kind, zero = ("int8", -8) if recipe.signed else ("uint8", 120)
    pool_ = []
    for scale in (DATA, 0.0273):
        pool_.append(g.data(*(TOKENS if recipe.tokens else PICTURE), scale=scale, zero=zero, kind=kind))
        g.said[pool_[-1]] = (scale, zero, kind)
    if not recipe.tokens and recipe.steps[0].form & 2:
        pool_.append(stem(g, recipe.steps[0].form))
    for step in recipe.steps:
        a, b = (pool_[max(0, len(pool_) - 1 - back)] for back in (step.a, step.b))
        pool_.append(BLOCKS[step.block](g, a, b, step.form, step.end))
    read = {name for node in g.nodes for name in node.input}
    for name in pool_[2:]:
        if name not in read:
            g.raw(name)
    proto = onnx.shape_inference.infer_shapes(g.model(), strict_mode=True)
    return load.from_proto(proto), g.feeds
