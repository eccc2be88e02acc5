"""Random float graphs for the clean-up passes, as text: fragments that a pass rewrites, and near misses of each.

Every fragment makes a tensor of shape [2,3,4] from earlier ones, so that they go together in any order; it may stand in
the main graph, in a branch of an If, in the body of a Loop or in that of a Scan.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Step:
    """`kind` indexes FRAGMENTS; operands lie `a` and `b` tensors back; `place` chooses where the fragment stands."""

    kind: int
    a: int
    b: int
    place: int


@dataclass(frozen=True)
class Recipe:
    """A graph: its steps, how many of their results are outputs, and whether inner tensors have types."""

    steps: tuple[Step, ...]
    outputs: int = 1
    typed: bool = False


@dataclass(frozen=True)
class Fragment:
    """{o}: output, {a}, {b}: earlier tensors, {n}: a prefix for inner names; `outputs`: of the graph, too; `constants`:
    its own, which no other fragment reads.
    """

    text: str
    outputs: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()


def _numbers(count: int, *changes: float) -> str:
    """The same numbers on every call; `changes` replace the last ones."""
    values = [round(((i * 7) % 11 - 5) / 16, 4) for i in range(count)]
    values[count - len(changes) :] = changes
    return "{" + ", ".join(str(v) for v in values) + "}"


# ruff: noqa: E501  graphs as text, one op after the other
CONSTANTS = ", ".join(
    [
        "float one = {1}, float two = {2}, float three = {3}, float zero = {0}, float six = {6}, float half = {0.5}",
        "float root = {1.41421354}, float fifth = {0.2}, float eps = {0.01}, float alpha = {1.702}",
        "float three_power = {3}, float cubic = {0.044715}, float tanh_k = {0.7978846}",
        "float[4] row = {1, 2, 3, 4}, float[4] row_again = {1, 2, 3, 4}, float[3,1] column = {1, 2, 0.5}",
        "float[4] part = {1, 0.5, 0.25, 2}",
        f"float[2,3,4] full = {_numbers(24)}",
        f"float[4,4] w = {_numbers(16)}, float[4,16] wide = {_numbers(64)}, float[4,16] wide_again = {_numbers(64)}",
        f"float[4,16] wide_other = {_numbers(64, 0.75)}, float[16,4] tall = {_numbers(64)}",
        f"float[3,3,3] kernel = {_numbers(27)}, float[3,1,3] each = {_numbers(9)}, float[3] bias = {{0.5, -1, 2}}",
        "float[3] gamma = {1, 0.5, 2}, float[3] beta = {0, 1, -1}, float[3] mean = {0.1, 0, -0.1}",
        "float[3] variance = {1, 2, 0.5}",
        "int64[1] last = {-1}, int64[1] middle = {1}, int64[3] same = {0, 0, -1}, int64[2] big = {600, 600}",
        "int64[6] nopad = {0, 0, 0, 0, 0, 0}, int64[6] around = {0, 0, 1, 0, 0, 1}, int64[6] channel = {0, 1, 0, 0, 0, 0}",
        "int64[4] picture = {1, 1, 4, 6}, int64[3] flat = {2, 3, 4}, int64[2] far = {2147483647, 2147483647}",
        "int64[2] by_two = {2, 2}, int64[2] sides = {2, 3}, int64[2] cut_a = {0, 0}, int64[2] cut_b = {0, 1}",
        "int64[2] cut_c = {1, 0}, int64[2] cut_d = {1, 1}, float[4,4,1,1] mix = {1, 0, 0.5, 0, 0, 1, 0, 2, 0, 0, 1, 0, 0.25, 0, 0, 1}",
        "int64[1] first = {0}, int64[1] many = {4}, int64[1] third = {3}, int64[1] second_axis = {1}, int64 turns = {2}",
        "bool yes = {1}",
    ]
)
_GATE = "{n}p = Add({a}, three) {n}c = Clip({n}p, zero, six) "
_FOCUS = (
    "{n}i = Abs({a}) {n}p = Reshape({n}i, picture) {n}c = Slice({n}p, cut_a, far, sides, by_two) {n}d = Slice({n}p, cut_b, far, sides, by_two) "
    "{n}e = Slice({n}p, cut_c, far, sides, by_two) {n}f = Slice({n}p, cut_d, far, sides, by_two) "
)
_ERF = "{n}d = Div({a}, root) {n}e = Erf({n}d) {n}s = Add({n}e, one) "
_TURNED = (
    "{n}s = Transpose<perm = [1, 0, 2]>(other) {n}e = Transpose<perm = [2, 1, 0]>({n}s) "
    "{n}t = Transpose<perm = [2, 0, 1]>({a}) {n}m = Op({n}t, {n}e) {n}u = Transpose<perm = [1, 2, 0]>({n}m) "
    "{n}w = Softmax({n}m) {n}k = Softmax({n}u) {n}l = ReduceMax<keepdims = 0>({n}w) {o} = Mul({n}k, {n}l)"
)
_TANH = "{n}q = Pow({a}, three_power) {n}u = Mul(cubic, {n}q) {n}v = Add({a}, {n}u) {n}d = Mul(tanh_k, {n}v) {n}t = Tanh({n}d) {n}s = Add({n}t, one) "
_NORM = (
    "{n}m = ReduceMean({a}, last) {n}d = Sub({a}, {n}m) {n}q = Mul({n}d, {n}d) {n}v = ReduceMean({n}q, last) "
    "{n}s = Add({n}v, eps) {n}r = Sqrt({n}s) "
)
_GAMMA, _BETA = "float[4] {n}g = {4, 1, 0.5, 0.25}", "float[4] {n}h = {0, 1, -0.5, 2}"
_OWN, _OTHER = f"float[4,4] {{n}}w = {_numbers(16)}", f"float[4,4] {{n}}v = {_numbers(16, 0.5, -0.125)}"
_CONV = "{n}c = Conv<pads = [1, 1]>({a}, kernel, bias) "

_FRAGMENTS = tuple(
    f if isinstance(f, Fragment) else Fragment(f)
    for f in (
        # plain
        "{o} = Relu({a})",
        "{o} = Tanh({a})",
        "{o} = Add({a}, {b})",
        "{o} = Mul({a}, two)",
        "{o} = Mul({a}, part)",
        "{o} = Sub(full, {a})",
        "[{n}add] {o} = Add({a}, row)",
        "{n}l, {n}r = Split<axis = -1, num_outputs = 2>({a}) {o} = Concat<axis = 2>({n}r, {n}l)",
        "{o} = custom.block({a}, {b})",
        # constants-to-initializers
        "{n}k = Constant<value_float = 2.0>() {o} = Mul({a}, {n}k)",
        Fragment("{n}k = Constant<value_float = 0.5>() {o} = Mul({a}, {n}k)", ("float {n}k",)),
        Fragment('{n}k = Constant<value_string = "s">() {o} = Relu({a})', ("string {n}k",)),
        "{n}k = Constant<value = float[4] {{1, -1, 2, 0.5}}>() {o} = Mul({a}, {n}k)",
        Fragment("{n}k = Constant<value_floats = [1.0, 2.0, 0.5, 1.0]>() {o} = Mul({a}, {n}k)", ("float[4] {n}k",)),
        # eliminate-dead
        "{n}dead = Exp({a}) {o} = Abs({b})",
        "{o}, {n}i = MaxPool<kernel_shape = [3], pads = [1, 1]>({a})",
        "{n}l, {n}r = Split<axis = -1, num_outputs = 2>({a}) {o} = Concat<axis = 2>({n}l, {n}l)",
        # eliminate-identity
        "{o} = Identity({a})",
        "{o} = Dropout({a})",
        "{n}d, {n}mask = Dropout({a}) {n}w = Where({n}mask, two, one) {o} = Mul({n}d, {n}w)",
        "{o} = Reshape({a}, same)",
        "{o} = Pad({a}, nopad)",
        "{o} = Slice({a}, first, many, last)",
        "{o} = Slice({a}, first, third, second_axis)",
        Fragment("{n}i = Identity(x) {o} = Relu({a})", ("float[2,3,4] {n}i",)),
        # float16-to-float
        "{n}h = Cast<to = 10>({a}) {n}g = Neg({n}h) {o} = Cast<to = 1>({n}g)",
        "{n}h = Cast<to = 10>({a}) {n}f = Cast<to = 1>({n}h) {o} = Relu({n}f)",
        Fragment("{n}h = Cast<to = 10>({a}) {n}l = SequenceConstruct({n}h) {o} = Relu({b})", ("seq(float16[2,3,4]) {n}l",)),
        # fold-batchnorm
        _CONV + "{o} = BatchNormalization({n}c, gamma, beta, mean, variance)",
        _CONV + "{n}k = Mul({n}c, column) {o} = Add({n}k, column)",
        _CONV + "{n}k = BatchNormalization({n}c, gamma, beta, mean, variance) {o} = Add({n}k, {n}c)",
        "{n}k = BatchNormalization({a}, gamma, beta, mean, variance) {o} = Conv<pads = [1, 1]>({n}k, kernel)",
        "{o} = BatchNormalization({a}, gamma, beta, mean, variance)",
        "{n}m = MatMul({a}, w) {n}p = Mul({n}m, part) {o} = Sub({n}p, row)",
        # fold-constants
        "{n}k = Neg(row) {n}l = Add({n}k, two) {o} = Mul({a}, {n}l)",
        "{n}k = Shape(full) {o} = Reshape({a}, {n}k)",
        Fragment("{n}k = Add(row, two) {o} = Add({a}, {n}k)", ("float[4] {n}k",)),
        "{n}k = Expand(two, big) {n}l = ReduceMax<keepdims = 0>({n}k) {o} = Mul({a}, {n}l)",
        # fuse-pad-into-conv
        "{n}p = Pad({a}, around) {o} = Conv({n}p, kernel)",
        "{n}p = Pad({a}, around) {n}c = Conv({n}p, kernel, bias) {n}e = Conv<group = 3>({n}p, each) {o} = Add({n}c, {n}e)",
        "{n}p = Pad({a}, around, one) {o} = Conv({n}p, kernel)",
        '{n}p = Pad<mode = "reflect">({a}, around) {o} = Conv({n}p, kernel)',
        '{n}p = Pad<mode = "reflect">({a}, around) {o} = Conv({n}p, kernel)',
        "{n}p = Pad({a}, around) {n}c = Conv({n}p, kernel) {n}l = ReduceMax({n}p, last) {o} = Add({n}c, {n}l)",
        # lift-matmul-bias
        "{n}m = MatMul({a}, w) {o} = Add({n}m, row)",
        "{n}m = MatMul({a}, w) {o} = Add(row, {n}m)",
        "{n}r = Softplus({a}) {n}m = MatMul({n}r, w) {n}s = Add({n}m, part) {o} = Relu({n}s)",
        "{n}r = Abs({a}) {n}m = MatMul({n}r, w) {n}s = Add(part, {n}m) {o} = Tanh({n}s)",
        # einsum-to-matmul
        '{o} = Einsum<equation = "bij,jk->bik">({a}, w)',
        '{n}m = Einsum<equation = "bid,bjd->bij">({a}, {b}) {o} = Einsum<equation = "bij,bjd->bid">({n}m, {b})',
        '{n}m = Einsum<equation = "kj,bij->bki">(w, {a}) {o} = Transpose<perm = [0, 2, 1]>({n}m)',
        '{n}m = Einsum<equation = "bij,cij->bc">({a}, {b}) {n}t = Tanh({n}m) {o} = Einsum<equation = "bc,cij->bij">({n}t, {b})',
        '{n}s = Einsum<equation = "bij,kij->bk">({a}, {b}) {n}r = ReduceMax<keepdims = 0>({n}s) {o} = Mul({a}, {n}r)',
        '{o} = Einsum<equation = "...ij,jk->...ik">({a}, w)',
        # part-skip-layernorm
        Fragment("{n}s = Add({a}, {b}) {o} = LayerNormalization<epsilon = 0.1>({n}s, {n}g, {n}h)", constants=(_GAMMA, _BETA)),
        Fragment("{n}s = Add({a}, {b}) {n}e = LayerNormalization<epsilon = 0.1>({n}s, {n}g) {o} = Add({n}e, {n}s)", constants=(_GAMMA,)),
        Fragment(
            "{n}f = com.microsoft.SkipLayerNormalization<epsilon = 0.1>({a}, {b}, {n}g, {n}h) {o} = Tanh({n}f)", constants=(_GAMMA, _BETA)
        ),
        # expand-mish
        "{n}s = Softplus({a}) {n}t = Tanh({n}s) {o} = Mul({a}, {n}t)",
        "{n}s = Softplus({a}) {n}t = Tanh({n}s) {o} = Mul({n}t, {a})",
        "{n}s = Softplus({a}) {n}t = Tanh({n}s) {n}m = Mul({n}t, {a}) {o} = Add({n}m, {n}s)",
        "{n}s = Softplus({a}) {n}t = Tanh({n}s) {n}m = Mul({a}, {n}t) {n}k = Sub({n}m, {n}s) {o} = Relu({n}k)",
        # flatten-softmax
        "{o} = Softmax<axis = 0>({a})",
        "{n}s = LogSoftmax<axis = 0>({a}) {o} = Tanh({n}s)",
        "{n}s = Softmax<axis = 0>({a}) {o} = Mul({n}s, {b})",
        "{o} = Softmax<axis = 1>({a})",
        "{n}s = Softmax<axis = 1>({a}) {o} = Mul({n}s, {b})",
        # move-transposes
        "{n}t = Transpose<perm = [0, 2, 1]>({a}) {n}m = Mul({n}t, half) {n}r = Relu({n}m) {o} = Transpose<perm = [0, 2, 1]>({n}r)",
        "{n}t = Transpose<perm = [2, 0, 1]>({a}) {n}u = Transpose<perm = [2, 0, 1]>({b}) {n}s = Add({n}t, {n}u) "
        "{o} = Transpose<perm = [1, 2, 0]>({n}s)",
        "{n}t = Transpose<perm = [0, 2, 1]>({a}) {n}m = ReduceMax({n}t, last) {n}s = Sub({n}t, {n}m) "
        "{o} = Transpose<perm = [0, 2, 1]>({n}s)",
        "{n}t = Transpose<perm = [0, 2, 1]>({a}) {n}s = Concat<axis = 1>({n}t, {n}t) {n}u = Transpose<perm = [0, 2, 1]>({n}s) "
        "{n}l = ReduceMax({n}u, last) {o} = Add({a}, {n}l)",
        *(_TURNED.replace("other", other).replace("Op", op) for other in ("{a}", "{b}") for op in ("Add", "Sub", "Max")),
        # merge-transposes
        "{n}t = Transpose<perm = [0, 2, 1]>({a}) {o} = Transpose<perm = [0, 2, 1]>({n}t)",
        "{n}t = Transpose<perm = [2, 0, 1]>({a}) {o} = Transpose<perm = [1, 2, 0]>({n}t)",
        "{n}t = Transpose<perm = [0, 2, 1]>({a}) {n}r = Abs({n}t) {o} = Transpose<perm = [0, 2, 1]>({n}r)",
        "{n}t = Transpose({a}) {o} = Transpose({n}t)",
        "{n}t = Transpose({a}) {o} = Transpose({n}t)",
        Fragment("{n}t = Transpose({a}) {n}u = Transpose({n}t) {o} = Relu({a})", ("float[2,3,4] {n}u",)),
        # pad-channels
        "{n}c = Conv<pads = [1, 1]>({a}, kernel, bias) {n}r = Relu({n}c) {o} = Conv<pads = [1, 1]>({n}r, kernel)",
        "{n}c = Conv<pads = [1, 1]>({a}, kernel) {n}d = Conv<group = 3, pads = [1, 1]>({n}c, each) {n}h = HardSigmoid({n}d) {n}m = Mul({n}c, {n}h) {o} = Conv<pads = [1, 1]>({n}m, kernel)",
        # cascade-pools
        "{n}p = MaxPool<kernel_shape = [3], pads = [1, 1]>({a}) {n}q = MaxPool<kernel_shape = [5], pads = [2, 2]>({a}) {o} = Sub({n}q, {n}p)",
        "{n}p = MaxPool<kernel_shape = [3], pads = [1, 1]>({a}) {n}q = MaxPool<kernel_shape = [5], pads = [2, 2]>({a}) {o} = Add({n}p, {n}q)",
        "{n}q = MaxPool<kernel_shape = [5], pads = [2, 2]>({a}) {n}d = MaxPool<kernel_shape = [3], pads = [2, 2], dilations = [2]>({a}) "
        "{n}p = MaxPool<kernel_shape = [3], pads = [1, 1]>({a}) {n}s = Sub({n}q, {n}p) {o} = Sub({n}d, {n}s)",
        "{n}q = MaxPool<kernel_shape = [3], auto_pad = \"SAME_UPPER\">({a}) {n}p = MaxPool<kernel_shape = [2], pads = [1, 0]>({a}) {o} = Sub({n}q, {n}p)",
        "{n}q = MaxPool<kernel_shape = [3], pads = [1, 1]>({a}) {n}p = MaxPool<kernel_shape = [3], pads = [2, 2], dilations = [2]>({a}) {o} = Sub({n}q, {n}p)",
        # recompose-clip; what it cuts off is added again: a tensor of one value magnifies rounding in a LayerNormalization
        "{n}m = Max({a}, half) {o} = Sub({n}m, {a})",
        "{n}m = Max({a}, fifth) {n}k = Min(six, {n}m) {o} = Add({n}k, {a})",
        "{n}r = Relu({a}) {n}m = Min({n}r, six) {n}k = Clip({n}m, half, six) {o} = Add({n}k, {a})",
        "{n}c = Clip({a}, fifth) {n}m = Min({n}c, half) {n}k = Add({n}m, {n}c) {o} = Add({n}k, {a})",
        "{n}m = Min({a}, fifth) {n}c = Clip({n}m, half, fifth) {n}k = Max({n}c, six) {o} = Add({n}k, {a})",
        "{n}r = Relu({a}) {n}m = Clip({n}r, half) {n}k = Sub({n}m, {n}r) {o} = Add({n}k, {a})",
        "{n}r = Clip({a}, half) {n}m = Relu({n}r) {n}k = Add({n}m, {n}r) {o} = Add({n}k, {a})",
        "{n}r = Clip({a}, six, fifth) {n}k = Relu({n}r) {o} = Add({n}k, {a})",
        # recompose-focus
        _FOCUS + "{n}j = Concat<axis = 1>({n}c, {n}d, {n}e, {n}f) {o} = Reshape({n}j, flat)",
        _FOCUS + "{n}j = Concat<axis = 1>({n}c, {n}e, {n}d, {n}f) {n}m = Conv({n}j, mix) {o} = Reshape({n}m, flat)",
        _FOCUS + "{n}j = Concat<axis = 1>({n}c, {n}e, {n}d, {n}f) {n}m = Conv({n}j, mix) {n}q = Add({n}m, {n}j) {o} = Reshape({n}q, flat)",
        _FOCUS + "{n}j = Concat<axis = 1>({n}c, {n}d, {n}e, {n}f) {n}m = Conv({n}j, mix) {n}q = Add({n}m, {n}c) {o} = Reshape({n}q, flat)",
        # recompose-gelu
        _ERF + "{n}m = Mul({a}, {n}s) {o} = Mul({n}m, half)",
        _ERF + "{n}h = Mul({a}, half) {o} = Mul({n}h, {n}s)",
        _ERF + "{n}m = Mul({b}, {n}s) {o} = Mul({n}m, half)",
        _ERF + "{n}m = Mul({a}, {n}s) {n}g = Mul({n}m, half) {o} = Add({n}g, {n}e)",
        _TANH + "{n}h = Mul({a}, half) {o} = Mul({n}h, {n}s)",
        _TANH + "{n}h = Mul({a}, fifth) {o} = Mul({n}h, {n}s)",
        # recompose-hardswish
        _GATE + "{n}q = Mul({a}, {n}c) {o} = Div({n}q, six)",
        _GATE + "{o} = Div({n}c, six)",
        "{n}h = HardSigmoid<alpha = 0.16666667, beta = 0.5>({a}) {o} = Mul({a}, {n}h)",
        _GATE + "{n}q = Mul({a}, {n}c) {o} = Mul({n}q, fifth)",
        _GATE + "{n}h = Div({n}c, six) {n}m = Mul({a}, {n}h) {o} = Add({n}m, {n}p)",
        _GATE + "{n}m = Mul({b}, {n}c) {o} = Div({n}m, six)",
        # recompose-layernorm
        _NORM + "{n}n = Div({n}d, {n}r) {n}k = Mul({n}n, row) {o} = Add({n}k, part)",
        _NORM + "{o} = Div({n}d, {n}r)",
        _NORM + "{n}n = Div({n}d, {n}r) {o} = Add({n}n, {n}d)",
        _NORM + "{o} = Div({a}, {n}r)",
        (_NORM + "{o} = Div({n}d, {n}r)").replace("last", "middle"),
        # quantize-dynamic, quantize-weights
        "{n}t = Transpose<perm = [0, 2, 1]>({b}) {n}m = MatMul({a}, {n}t) {n}p = MatMul({n}m, {b}) {o} = Tanh({n}p)",
        # recompose-silu
        "{n}s = Sigmoid({a}) {o} = Mul({a}, {n}s)",
        "{n}k = Mul({a}, alpha) {n}s = Sigmoid({n}k) {o} = Mul({a}, {n}s)",
        "{n}s = Sigmoid({a}) {n}m = Mul({a}, {n}s) {o} = Add({n}m, {n}s)",
        "{n}k = Mul({a}, alpha) {n}s = Sigmoid({n}k) {n}m = Mul({a}, {n}s) {o} = Add({n}m, {n}k)",
        # smooth-activations, equalize-layers
        Fragment("{n}e = LayerNormalization<epsilon = 0.1>({a}, {n}g, {n}h) {o} = MatMul({n}e, {n}w)", constants=(_GAMMA, _BETA, _OWN)),
        Fragment("{n}e = LayerNormalization<epsilon = 0.1>({a}, {n}g) {n}r = Relu({n}e) {o} = MatMul({n}r, {n}w)", constants=(_GAMMA, _OWN)),
        Fragment(
            "{n}e = LayerNormalization<epsilon = 0.1>({a}, {n}g) {n}m = MatMul({n}e, {n}w) {n}k = MatMul({n}e, {n}v) {o} = Add({n}m, {n}k)",
            constants=(_GAMMA, _OWN, _OTHER),
        ),
        Fragment("{n}m = MatMul({a}, {n}w) {n}r = Relu({n}m) {o} = MatMul({n}r, {n}v)", constants=(_OWN, _OTHER)),
        Fragment("{n}m = MatMul({a}, {n}w) {n}k = Add({n}m, {n}h) {o} = MatMul({n}k, {n}v)", constants=(_OWN, _BETA, _OTHER)),
        Fragment(
            "{n}c = Conv({a}, {n}x) {n}r = LeakyRelu({n}c) {o} = Conv<group = 3, pads = [1, 1]>({n}r, {n}y)",
            constants=(f"float[3,3,1] {{n}}x = {_numbers(9)}", f"float[3,1,3] {{n}}y = {_numbers(9)}"),
        ),
        # share-initializers
        "{n}l = MatMul({a}, wide) {n}r = MatMul({b}, wide_again) {n}m = Add({n}l, {n}r) {o} = MatMul({n}m, tall)",
        "{n}l = MatMul({a}, wide) {n}r = MatMul({b}, wide_other) {n}m = Add({n}l, {n}r) {o} = MatMul({n}m, tall)",
        "{n}l = Add({a}, row) {o} = Mul({n}l, row_again)",
    )
)  # fmt: skip
_RARE = (
    "flat)",
    "mix) {o}",
    "Constant<",
    "wide",
    "row_again",
    "Softplus",
    "Add(part, {n}m)",
    "SequenceConstruct",
    "Cast<to = 10>({a}) {n}g",
    "Pad({a}, around) {o}",
    "Pad({a}, around, one)",
    "Shape(full)",
    "Neg(row)",
    "MatMul({n}m, {b})",
    "{n}p = MatMul({n}m",
    "Sigmoid({a}) {o}",
    "Add(row, two)",
    "{n}r)",
    "({n}r, {n}",
    "({n}m, {n}s)",
    "{o} = Add({n}m, {n}k)",
    "{o} = Add({n}e, {n}s)",
    "{o} = LayerNormalization<epsilon = 0.1>({n}s",
    "Softmax<axis = 0>",
    "{n}r = Relu({n}c) {o} = Conv",
    "({n}d) {n}m = Mul({n}c, {n}h) {o} = Conv",
)
FRAGMENTS = (*_FRAGMENTS, *(f for f in _FRAGMENTS for part in _RARE if part in f.text))
"""What only one or two fragments have stands here twice or more."""
_FUNCTION = """
<domain: "custom", opset_import: ["" : 21]>
block (u, v) => (w) { s = Sigmoid(u) p = Mul(u, s) i = Identity(p) w = Add(i, v) }"""
_BODIES = (
    "{o} = If(flag) <then_branch = {n}then () => (float[2,3,4] {n}y) {{ {inner} }}, "
    "else_branch = {n}else () => (float[2,3,4] {n}z) {{ [other] {n}z = Neg({a}) }}>",
    "{o} = Loop(turns, yes, {a}) <body = {n}loop (int64 {n}turn, bool {n}go, float[2,3,4] {n}v) => (bool {n}on, float[2,3,4] {n}y) "
    "{{ [other] {n}on = Identity({n}go) {inner} }}>",
    "{n}w, {o} = Scan<num_scan_inputs = 1, body = {n}scan (float[2,3,4] {n}v, float[3,4] {n}slice) => (float[2,3,4] {n}y, float[3,4] {n}z) "
    "{{ [other] {n}z = Abs({n}slice) {inner} }}>({a}, {b})",
)
PLACES = 10
"""Three in ten fragments stand in a body."""


def build(recipe: Recipe) -> str:
    """The model, in the syntax of onnx.parser. Step i makes tensor t<i>; it reads tensors up to three steps back."""
    names, lines, further, own = ["x"], [], [], []
    for index, step in enumerate(recipe.steps):
        a, b = (names[max(0, len(names) - 1 - back)] for back in (step.a, step.b))
        fragment, n = FRAGMENTS[step.kind], f"n{index}_"
        at_home = step.place >= len(_BODIES) or bool(fragment.outputs)
        if not at_home:
            form = _BODIES[step.place]
            inside = a if step.place == 0 else f"{n}v"
            inner = fragment.text.format(o=f"{n}y", n=f"{n}i_", a=inside, b=b)
            lines.append(form.format(o=f"t{index}", n=n, a=a, b=b, inner=inner))
        else:
            lines.append(fragment.text.format(o=f"t{index}", n=n, a=a, b=b))
            further += [o.format(n=n) for o in fragment.outputs]
        names.append(f"t{index}")
        own += [f", {c.replace('{n}', n if at_home else f'{n}i_')}" for c in fragment.constants]
    made = names[1:]
    outputs = ", ".join([*(f"float[2,3,4] {r}" for r in made[-recipe.outputs :]), *further])
    inner = "".join(f", float[2,3,4] {r}" for r in made[: -recipe.outputs]) if recipe.typed else ""
    head = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1, "custom" : 1]>'
    body = f"g (float[2,3,4] x, bool flag) => ({outputs}) <{CONSTANTS}{''.join(own)}{inner}> {{ {' '.join(lines)} }}"
    return f"{head}\n{body}{_FUNCTION}"


def inputs(seed: int = 0) -> dict[str, NDArray[np.generic]]:
    """Seeded normal numbers; the branch that holds the fragment is taken."""
    values = np.random.default_rng(seed).standard_normal((2, 3, 4)).astype(np.float32)
    return {"x": values, "flag": np.array(True)}


def halves(recipe: Recipe) -> bool:
    """Does the graph compute in half precision anywhere?"""
    return any("<to = 10>" in FRAGMENTS[s.kind].text for s in recipe.steps)
