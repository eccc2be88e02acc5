"""Random float models of the ops that real networks are made of, small enough for a run in milliseconds.

A model is built from a list of steps (numbers only, so that hypothesis shrinks them): each step names an op and how far
back its operands lie; a step that does not fit the shapes it finds is left out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

IR = {21: 10, 17: 8, 13: 7}


@dataclass(frozen=True)
class Step:
    """`op` indexes OPS; operands lie `a` and `b` tensors back; `variant` chooses among forms of the op."""

    op: int
    a: int
    b: int
    variant: int


@dataclass(frozen=True)
class Recipe:
    """Everything that a model is made from.

    Attributes:
        vectors: the input is [N, 6, 16] (tokens) and not [N, 4, 8, 8] (a picture).
        dynamic: the batch dimension is symbolic.
        middle: index of a tensor that is a graph output, too, whoever reads it; -1 for none.
    """

    steps: tuple[Step, ...]
    opset: int = 21
    vectors: bool = False
    dynamic: bool = False
    middle: int = -1


@dataclass
class Builder:
    """A graph in the making. `pool` holds (name, shape with batch 2)."""

    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)
    pool: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    read: set[str] = field(default_factory=set)
    weights: dict[tuple[int, ...], str] = field(default_factory=dict)
    flag: bool = False
    count: int = 0

    def name(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def constant(self, array: NDArray[Any], prefix: str = "k") -> str:
        name = self.name(prefix)
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def floats(self, *shape: int, scale: float = 1.0, mean: float = 0.0, prefix: str = "w") -> str:
        random = np.random.default_rng([self.count, *shape])
        return self.constant((random.standard_normal(shape) * scale + mean).astype(np.float32), prefix)

    def weight(self, *shape: int, fan: int, shared: bool) -> str:
        """Scaled by 1 / sqrt(fan-in) so that signals keep their size; `shared` takes an earlier one of the shape."""
        if not (shared and shape in self.weights):
            self.weights[shape] = self.floats(*shape, scale=fan**-0.5)
        return self.weights[shape]

    def node(self, op: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> list[str]:
        made = [self.name("t") for _ in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), made, self.name(f"{op}_"), **attributes))
        self.read.update(inputs)
        return made

    def give(self, name: str, *shape: int) -> None:
        self.pool.append((name, tuple(shape)))


Operand = tuple[str, tuple[int, ...]]
Op = Callable[[Builder, Operand, Operand, int], None]


def conv(m: Builder, x: Operand, _: Operand, v: int) -> None:
    if len(x[1]) != 4:
        return
    n, c, h, w = x[1]
    out, stride = (4, 8)[v & 1], 2 if v & 2 and h % 2 == 0 and w % 2 == 0 else 1
    inputs = [x[0], m.weight(out, c, 3, 3, fan=9 * c, shared=bool(v & 4))]
    if v & 8:
        inputs.append(m.floats(out, scale=0.3))
    (y,) = m.node("Conv", inputs, pads=[1, 1, 1, 1], strides=[stride, stride])
    m.give(y, n, out, h // stride, w // stride)


def pointwise(m: Builder, x: Operand, _: Operand, v: int) -> None:
    if len(x[1]) != 4:
        return
    n, c, h, w = x[1]
    out = (4, 8)[v & 1]
    (y,) = m.node("Conv", [x[0], m.weight(out, c, 1, 1, fan=c, shared=bool(v & 4)), m.floats(out, scale=0.3)])
    m.give(y, n, out, h, w)


def depthwise(m: Builder, x: Operand, _: Operand, v: int) -> None:
    if len(x[1]) != 4:
        return
    n, c, h, w = x[1]
    groups = c if v & 1 or c % 2 else 2
    (y,) = m.node(
        "Conv",
        [x[0], m.floats(c, c // groups, 3, 3, scale=0.3), m.floats(c, scale=0.3)],
        pads=[1, 1, 1, 1],
        group=groups,
    )
    m.give(y, n, c, h, w)


def conv_transpose(m: Builder, x: Operand, _: Operand, v: int) -> None:
    if len(x[1]) != 4 or x[1][2] > 8:
        return
    n, c, h, w = x[1]
    inputs = [x[0], m.floats(c, 4, 2, 2, scale=c**-0.5)]
    if v & 1:
        inputs.append(m.floats(4, scale=0.3))
    (y,) = m.node("ConvTranspose", inputs, strides=[2, 2])
    m.give(y, n, 4, h * 2, w * 2)


def batchnorm(m: Builder, x: Operand, _: Operand, v: int) -> None:
    if len(x[1]) not in (3, 4):
        return
    c = x[1][1]
    variance = m.constant((np.random.default_rng(m.count).random(c) + 0.5).astype(np.float32))
    inputs = [x[0], m.floats(c, scale=0.2, mean=1.0), m.floats(c, scale=0.2), m.floats(c, scale=0.2), variance]
    m.give(m.node("BatchNormalization", inputs)[0], *x[1])


def relu(m: Builder, x: Operand, _: Operand, v: int) -> None:
    m.give(m.node("Relu", [x[0]])[0], *x[1])


def clip(m: Builder, x: Operand, _: Operand, v: int) -> None:
    low, high = ((0.0, 6.0), (-1.0, 1.0), (0.25, 2.0), (-3.0, 0.0))[v & 3]
    bounds = [m.constant(np.float32(b)) for b in (low, high)]
    m.give(m.node("Clip", [x[0], *(bounds if not v & 4 else bounds[:1])])[0], *x[1])


def unary(m: Builder, x: Operand, _: Operand, v: int) -> None:
    ops = ["LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "Softmax", "Neg"]
    op = ops[v % len(ops)]
    m.give(m.node(op, [x[0]])[0], *x[1])


def swish(m: Builder, x: Operand, _: Operand, v: int) -> None:
    if v & 1:
        (gate,) = m.node("Sigmoid", [x[0]])
    elif v & 2:
        three, zero, six = (m.constant(np.float32(k)) for k in (3.0, 0.0, 6.0))
        (shifted,) = m.node("Add", [x[0], three])
        (cut,) = m.node("Clip", [shifted, zero, six])
        (gate,) = m.node("Div", [cut, six])
    else:
        (gate,) = m.node("HardSigmoid", [x[0]], alpha=1 / 6, beta=0.5)
    m.give(m.node("Mul", [x[0], gate])[0], *x[1])


def add(m: Builder, x: Operand, y: Operand, v: int) -> None:
    if x[1] != y[1]:
        return
    m.give(m.node(("Add", "Mul", "Sub")[v % 3 if v & 8 else 0], [x[0], y[0]])[0], *x[1])


def scale(m: Builder, x: Operand, _: Operand, v: int) -> None:
    op = ("Add", "Mul", "Add", "Div")[v & 3]
    shape = (x[1][1], *[1] * (len(x[1]) - 2)) if v & 4 and len(x[1]) > 2 else x[1][-1:] if v & 8 else ()
    k = m.floats(*shape, scale=0.2, mean=1.0)
    m.give(m.node(op, [k, x[0]] if v & 16 and op != "Div" else [x[0], k])[0], *x[1])


def concat(m: Builder, x: Operand, y: Operand, v: int) -> None:
    if len(x[1]) != len(y[1]) or len(x[1]) < 3 or x[1][2:] != y[1][2:] or x[1][1] + y[1][1] > 16:
        return
    m.give(m.node("Concat", [x[0], y[0]], axis=1)[0], x[1][0], x[1][1] + y[1][1], *x[1][2:])


def pool(m: Builder, x: Operand, _: Operand, v: int) -> None:
    if len(x[1]) != 4:
        return
    n, c, h, w = x[1]
    op = ("MaxPool", "AveragePool")[v & 1]
    if v & 2 and h % 2 == 0 and w % 2 == 0:
        m.give(m.node(op, [x[0]], kernel_shape=[2, 2], strides=[2, 2])[0], n, c, h // 2, w // 2)
    else:
        m.give(m.node(op, [x[0]], kernel_shape=[3, 3], pads=[1, 1, 1, 1])[0], n, c, h, w)


def squeeze_excite(m: Builder, x: Operand, _: Operand, v: int) -> None:
    if len(x[1]) != 4:
        return
    n, c = x[1][:2]
    (mean,) = m.node("GlobalAveragePool", [x[0]])
    if v & 1:
        (f,) = m.node("Flatten", [mean])
        m.give(f, n, c)
        return
    (inner,) = m.node("Conv", [mean, m.weight(c, c, 1, 1, fan=c, shared=False), m.floats(c, scale=0.3)])
    (gate,) = m.node("Sigmoid" if v & 2 else "HardSigmoid", [inner])
    m.give(m.node("Mul", [x[0], gate] if v & 4 else [gate, x[0]])[0], *x[1])


def move(m: Builder, x: Operand, _: Operand, v: int) -> None:
    shape = x[1]
    kind = v % 6
    if kind == 0:
        order = [0, *range(2, len(shape)), 1] if v & 8 else [0, *range(1, len(shape))[::-1]]
        m.give(m.node("Transpose", [x[0]], perm=order)[0], *(shape[i] for i in order))
    elif kind == 1 and len(shape) == 4:
        target = m.constant(np.array([0, shape[1], -1], np.int64))
        m.give(m.node("Reshape", [x[0], target])[0], *shape[:2], shape[2] * shape[3])
    elif kind == 2 and len(shape) >= 3:
        m.give(m.node("Flatten", [x[0]])[0], shape[0], int(np.prod(shape[1:])))
    elif kind == 3 and shape[1] >= 4:
        parts = [m.constant(np.array([k], np.int64)) for k in (1, shape[1] - 1, 1)]
        m.give(m.node("Slice", [x[0], *parts])[0], shape[0], shape[1] - 2, *shape[2:])
    elif kind == 4 and shape[1] % 2 == 0:
        halves = m.constant(np.array([shape[1] // 2] * 2, np.int64))
        for name in m.node("Split", [x[0], halves], 2, axis=1):
            m.give(name, shape[0], shape[1] // 2, *shape[2:])
    elif kind == 5 and len(shape) == 3 and shape[1] >= 3 and v & 8:
        index = m.constant(np.array([0, 2, 1], np.int64))
        m.give(m.node("Gather", [x[0], index], axis=1)[0], shape[0], 3, shape[2])
    elif kind == 5:
        axes = m.constant(np.array([1], np.int64))
        (wide,) = m.node("Unsqueeze", [x[0], axes])
        m.give(m.node("Squeeze", [wide, axes])[0], *shape)


def resize(m: Builder, x: Operand, _: Operand, v: int) -> None:
    if len(x[1]) != 4 or x[1][2] > 8:
        return
    n, c, h, w = x[1]
    scales = m.constant(np.array([1, 1, 2, 2], np.float32))
    options = {"mode": "linear"} if v & 1 else {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}
    m.give(m.node("Resize", [x[0], "", scales], **options)[0], n, c, h * 2, w * 2)


def reduce(m: Builder, x: Operand, _: Operand, v: int) -> None:
    if len(x[1]) < 3:
        return
    op, keep = ("ReduceMean", "ReduceMax")[v & 1], int(bool(v & 2))
    if m.opset >= 18:
        (y,) = m.node(op, [x[0], m.constant(np.array([-1], np.int64))], keepdims=keep)
    else:
        (y,) = m.node(op, [x[0]], axes=[-1], keepdims=keep)
    m.give(y, *x[1][:-1], *([1] if keep else []))


def pad(m: Builder, x: Operand, _: Operand, v: int) -> None:
    if len(x[1]) != 4 or x[1][2] > 8:
        return
    n, c, h, w = x[1]
    pads = m.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
    value = [m.constant(np.float32(0.5))] if v & 1 else []
    m.give(m.node("Pad", [x[0], pads, *value])[0], n, c, h + 2, w + 2)


def linear(m: Builder, x: Operand, _: Operand, v: int) -> None:
    k = x[1][-1]
    if len(x[1]) not in (2, 3) or k > 512:
        return
    out = k if v & 16 and k <= 16 else 16
    if len(x[1]) == 2 and v & 1:
        turned = bool(v & 2)
        shape = (out, k) if turned else (k, out)
        inputs = [x[0], m.weight(*shape, fan=k, shared=bool(v & 4))]
        if v & 8:
            inputs.append(m.floats(out, scale=0.3))
        (y,) = m.node("Gemm", inputs, transB=int(turned))
    else:
        (y,) = m.node("MatMul", [x[0], m.weight(k, out, fan=k, shared=bool(v & 4))])
        if v & 8:
            b = m.floats(out, scale=0.3)
            (y,) = m.node("Add", [b, y] if v & 1 else [y, b])
    m.give(y, *x[1][:-1], out)


def attention(m: Builder, x: Operand, y: Operand, v: int) -> None:
    if len(x[1]) != 3 or x[1] != y[1] or x[1][-1] > 64:
        return
    (turned,) = m.node("Transpose", [y[0]], perm=[0, 2, 1])
    (scores,) = m.node("MatMul", [x[0], turned])
    (scaled,) = m.node("Mul", [scores, m.constant(np.float32(x[1][-1] ** -0.5))])
    (soft,) = m.node("Softmax", [scaled], axis=-1)
    m.give(m.node("MatMul", [soft, y[0]])[0], *x[1])


def layer_norm(m: Builder, x: Operand, _: Operand, v: int) -> None:
    if len(x[1]) != 3 or m.opset < 17 or x[1][-1] < 4:
        return
    c = x[1][-1]
    m.give(m.node("LayerNormalization", [x[0], m.floats(c, scale=0.2, mean=1.0), m.floats(c)])[0], *x[1])


def branch(m: Builder, x: Operand, _: Operand, v: int) -> None:
    """If flag: a convolution or a product; else: Neg. The body captures tensor and weight."""
    shape = x[1]
    if len(shape) == 4:
        op, w = "Conv", m.weight(shape[1], shape[1], 1, 1, fan=shape[1], shared=bool(v & 4))
    elif shape[-1] <= 64:
        op, w = "MatMul", m.weight(shape[-1], shape[-1], fan=shape[-1], shared=bool(v & 4))
    else:
        return
    bodies = []
    for inner, inputs in ((op, [x[0], w]), ("Neg", [x[0]])):
        out = m.name("t")
        info = helper.make_tensor_value_info(out, TensorProto.FLOAT, [None] * len(shape))
        node = helper.make_node(inner, inputs, [out], m.name(f"{inner}_"))
        bodies.append(helper.make_graph([node], m.name("body"), [], [info]))
    m.flag = True
    m.read.update([x[0], w])
    m.give(m.node("If", ["flag"], then_branch=bodies[0], else_branch=bodies[1])[0], *shape)


def hide(m: Builder, x: Operand, _: Operand, v: int) -> None:
    """Something in the way that normalising removes."""
    if v & 1:
        m.give(m.node("Identity", [x[0]])[0], *x[1])
    elif v & 2:
        m.give(m.node("Dropout", [x[0]])[0], *x[1])
    else:
        (half,) = m.node("Cast", [x[0]], to=TensorProto.FLOAT)
        m.give(half, *x[1])


def odd_conv(m: Builder, x: Operand, _: Operand, v: int) -> None:
    """Dilated, padded by auto_pad, of one dimension; dead and tiny channels."""
    if len(x[1]) not in (3, 4):
        return
    n, c, size = x[1][0], x[1][1], x[1][2:]
    w = np.random.default_rng(m.count).standard_normal((4, c, *[3] * len(size))).astype(np.float32)
    w *= np.float32((c * 3 ** len(size)) ** -0.5)
    if v & 1:
        w[0], w[1] = 0, w[1] * 1e-9
    inputs = [x[0], m.constant(w, "w")]
    if v & 2:
        inputs.append(m.constant(np.array([2, -1.5, 0, 0.1], np.float32)))
    if v & 4 and min(size) >= 2:
        (y,) = m.node("Conv", inputs, auto_pad="SAME_UPPER" if v & 8 else "SAME_LOWER", strides=[2] * len(size))
        m.give(y, n, 4, *((d + 1) // 2 for d in size))
    else:
        (y,) = m.node("Conv", inputs, dilations=[2] * len(size), pads=[2] * 2 * len(size))
        m.give(y, n, 4, *size)


def shuffle(m: Builder, x: Operand, _: Operand, v: int) -> None:
    if len(x[1]) != 4 or x[1][1] % 4:
        return
    n, c, h, w = x[1]
    if v & 1:
        m.give(m.node("DepthToSpace", [x[0]], blocksize=2)[0], n, c // 4, h * 2, w * 2)
        return
    (five,) = m.node("Reshape", [x[0], m.constant(np.array([0, 2, c // 2, h, w], np.int64))])
    (turned,) = m.node("Transpose", [five], perm=[0, 2, 1, 3, 4])
    (y,) = m.node("Reshape", [turned, m.constant(np.array([0, c, h, w], np.int64))])
    m.give(y, n, c, h, w)


def pick(m: Builder, x: Operand, y: Operand, v: int) -> None:
    if x[1] != y[1]:
        return
    kind = v % 5
    if kind == 0:
        (mask,) = m.node("Greater", [x[0], y[0]])
        m.give(m.node("Where", [mask, x[0], y[0] if v & 8 else m.constant(np.float32(0.5))])[0], *x[1])
    elif kind == 1:
        m.give(m.node("Max" if v & 8 else "Min", [x[0], y[0]])[0], *x[1])
    elif kind == 2:
        m.give(m.node("Sum", [x[0], y[0], x[0]])[0], *x[1])
    elif kind == 3:
        wide = m.node("Mul", [y[0], m.constant(np.float32(100))])[0] if v & 8 else x[0]
        last = len(x[1]) - 1
        if x[1][last] <= 16:
            m.give(m.node("Concat", [x[0], wide, x[0]], axis=-1)[0], *x[1][:last], x[1][last] * 3)
    elif len(x[1]) == 4:
        (mean,) = m.node("GlobalAveragePool", [y[0]])
        m.give(m.node("Add", [x[0], mean] if v & 8 else [mean, x[0]])[0], *x[1])


def odd_linear(m: Builder, x: Operand, _: Operand, v: int) -> None:
    """Biases of other shapes, alpha, transA, a weight that is a transposed initializer."""
    k = x[1][-1]
    if len(x[1]) not in (2, 3) or k > 64:
        return
    if len(x[1]) == 3 or v & 1:
        (w,) = m.node("Transpose", [m.weight(16, k, fan=k, shared=bool(v & 4))], perm=[1, 0])
        (y,) = m.node("MatMul", [x[0], w])
        if v & 8:
            b = m.floats(*((16,), (1, 16), ())[(v >> 1) % 3], scale=0.3)
            (y,) = m.node("Add", [y, b])
    else:
        bias = ((1, 16), (16,), (1,), (2, 1))[(v >> 1) & 3]
        inputs = [x[0], m.weight(k, 16, fan=k, shared=False), m.floats(*bias, scale=0.3)]
        (y,) = m.node("Gemm", inputs, **({"alpha": 0.5, "beta": 2.0} if v & 8 else {}))
    m.give(y, *x[1][:-1], 16)


def spread(m: Builder, x: Operand, _: Operand, v: int) -> None:
    shape = list(x[1])
    if int(np.prod(shape)) > 2000:
        return
    if v & 1:
        repeats = [1] * len(shape)
        repeats[1] = 2
        (y,) = m.node("Tile", [x[0], m.constant(np.array(repeats, np.int64))])
        shape[1] *= 2
    elif len(shape) == 4 and v & 2:
        pads = m.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
        if min(shape[2:]) < 2 or shape[2] > 8:
            return
        (y,) = m.node("Pad", [x[0], pads], mode="reflect")
        shape[2:] = [shape[2] + 2, shape[3] + 2]
    elif len(shape) == 4:
        (y,) = m.node("GlobalMaxPool", [x[0]])
        shape[2:] = [1, 1]
        if v & 4:
            (y,) = m.node("Expand", [y, m.constant(np.array([1, 1, 4, 4], np.int64))])
            shape[2:] = [4, 4]
    else:
        return
    m.give(y, *shape)


OPS: tuple[Op, ...] = (
    conv, relu, add, linear, pointwise, clip, concat, pool, move, scale, depthwise, swish, unary, squeeze_excite,
    batchnorm, attention, resize, reduce, conv_transpose, pad, layer_norm, branch, hide,
    odd_conv, shuffle, pick, odd_linear, spread,
)  # fmt: skip
COMMON = 10
"""The first ones, which most networks consist of."""


def build(recipe: Recipe) -> onnx.ModelProto:
    """The model. Every tensor that nobody reads is a graph output."""
    m = Builder(recipe.opset)
    shape = (2, 6, 16) if recipe.vectors else (2, 4, 8, 8)
    m.give("x", *shape)
    for step in recipe.steps:
        first, second = (m.pool[max(0, len(m.pool) - 1 - back)] for back in (step.a, step.b))
        OPS[step.op % len(OPS)](m, first, second, step.variant)
    made = m.pool[1:]
    if not made:
        relu(m, m.pool[0], m.pool[0], 0)
        made = m.pool[1:]
    results = [p for i, p in enumerate(made) if p[0] not in m.read or i == recipe.middle] or made[-1:]
    batch: list[int | str] = ["N" if recipe.dynamic else 2]

    def info(name: str, dims: tuple[int, ...]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [*(batch if dims[0] == 2 else [None]), *dims[1:]])

    inputs = [info("x", shape)]
    if m.flag:
        inputs.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
    graph = helper.make_graph(m.nodes, "random", inputs, [info(*p) for p in results], m.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", recipe.opset)], ir_version=IR[recipe.opset])
    onnx.checker.check_model(model, full_check=True)
    return model


def inputs(recipe: Recipe, model: onnx.ModelProto, count: int) -> list[dict[str, NDArray[Any]]]:
    """Seeded normal samples."""
    random = np.random.default_rng(len(recipe.steps))
    out: list[dict[str, NDArray[Any]]] = []
    for index in range(count):
        sample: dict[str, NDArray[Any]] = {}
        for spec in model.graph.input:
            if spec.name == "flag":
                sample["flag"] = np.array(index % 2 == 0)
            else:
                dims = [d.dim_value or 2 for d in spec.type.tensor_type.shape.dim]
                sample[spec.name] = random.standard_normal(dims).astype(np.float32)
        out.append(sample)
    return out


def drawn(seed: int) -> Recipe:
    """A recipe by chance, for tests that count: two of three steps take common ops."""
    chance = random.Random(seed)
    steps = tuple(
        Step(
            op=chance.randrange(COMMON if chance.random() < 2 / 3 else len(OPS)),
            a=chance.choice((0, 0, 0, 0, 1, 2)),
            b=chance.choice((1, 0, 2, 3, 5)),
            variant=chance.randrange(32),
        )
        for _ in range(chance.randint(2, 12))
    )
    return Recipe(
        steps=steps,
        opset=chance.choice(sorted(IR)),
        vectors=chance.random() < 0.5,
        dynamic=chance.random() < 0.5,
        middle=chance.randint(-1, 5),
    )
