"""Random Q/DQ graphs for the passes that move, merge, cancel, split and align Q and DQ, as text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rewriting import model


@dataclass(frozen=True)
class Step:
    """`kind` indexes KINDS, `numbers` PARAMETERS; operands lie `a` and `b` tensors back; `place`: in which body."""

    kind: int
    a: int
    b: int
    numbers: int
    place: int


@dataclass(frozen=True)
class Recipe:
    """A graph: its steps, how many of their results are outputs, and whether inner tensors have types."""

    steps: tuple[Step, ...]
    outputs: int = 1
    typed: bool = False


# ruff: noqa: E501  graphs as text, one op after the other
CONSTANTS = (
    "float s1 = {0.05}, uint8 z1 = {120}, float s2 = {0.025}, uint8 z2 = {0}, int8 i1 = {-8}, int8 i2 = {-128}, "
    "float[3] sv = {0.05, 0.02, 0.1}, uint8[3] zv = {120, 0, 128}, float zero = {0}, float six = {6}, float off = {0.33}, "
    "int64[3] same = {2, 3, 4}, int64[2] flat = {6, 4}, int64[1] first = {0}, int64[1] two = {2}, int64[1] four = {4}, int64[1] last = {2}, "
    "int64[4] order = {3, 1, 0, 2}, int64[6] shift = {0, 0, 1, 0, 0, -1}, bool[4] mask = {1, 0, 1, 1}, float[1,1,4] row = {0.5, 0, -1, 1.5}, int64[1] ends = {-1}, int64 turns = {2}, bool yes = {1}, "
    "uint8[4,4] stored = {120, 130, 110, 125, 1, 140, 117, 119, 121, 90, 150, 120, 118, 122, 130, 99}, float[1] sr = {0.05}, uint8[1] zr = {120}, "
    "uint8[3,4] rows = {120, 130, 110, 125, 1, 40, 17, 19, 121, 90, 150, 120}, int64[1] twelve = {12}, int64[2] rank2 = {3, 4}, uint8 least = {0}, uint8 half = {127}, "
    "float[4,4] grid = {0.5, 0, -0.25, 0, 0, 1, 0, 0.25, -1, 0, 0.75, 0, 0, 0.5, 0, 1}, float[4,4] loose = {0.5, 0, -0.33, 0, 0, 1, 0, 0.25, -1, 0, 0.75, 0, 0, 0.5, 0, 1}"
)
PARAMETERS = (("", "s1, z1"), ("", "s2, z2"), ("", "s1, i1"), ("", "s2, i2"), ("<axis = 1>", "sv, zv"), ("", "e, z1"))
# {o}: output, {a}, {b}: earlier tensors of shape [2,3,4], {n}: a prefix for inner names, {p}, {q}: attributes and numbers
PAIR = "{n}q = QuantizeLinear {p}({a}, {q}) {o} = DequantizeLinear {p}({n}q, {q})"
MOVES = (
    "{n}t = Transpose<perm = [0, 2, 1]>({a}) {o} = Transpose<perm = [0, 2, 1]>({n}t)",
    "{n}t = Reshape({a}, flat) {o} = Reshape({n}t, same)",
    "{o} = Identity({a})",
    "{n}l = Slice({a}, first, two, last) {n}r = Slice({b}, two, four, last) {o} = Concat<axis = 2>({n}r, {n}l)",
    "{n}l, {n}r = Split<axis = -1, num_outputs = 2>({a}) {o} = Concat<axis = 2>({n}r, {n}l)",
    "{o} = Gather<axis = 2>({a}, order)",
    "{o} = Max({a}, {b})",
    "{o} = Where(mask, {a}, {b})",
    "{o} = Where(mask, {a}, row)",
    "{o} = Pad({a}, shift)",
    "{o} = Pad({a}, shift, off)",
    "{o} = MaxPool<kernel_shape = [3], pads = [1, 1]>({a})",
    "{o}, {n}i = TopK({a}, four)",
    "{n}m = ReduceMax({a}, ends) {o} = Expand({n}m, same)",
)
OTHERS = ("{o} = Neg({a})", "{o} = Add({a}, {b})", "{o} = Relu({a})", "{o} = Clip({a}, zero, six)")
TYPICAL = (
    "{n}q = QuantizeLinear {p}({a}, {q}) {n}r = QuantizeLinear {p}({a}, {q}) {n}s = DequantizeLinear {p}({n}q, {q}) "
    "{n}u = DequantizeLinear {p}({n}r, {q}) {o} = Add({n}s, {n}u)",
    "{n}q = QuantizeLinear {p}({a}, {q}) {n}r = QuantizeLinear({a}, s2, z2) {n}s = DequantizeLinear {p}({n}q, {q}) "
    "{n}u = DequantizeLinear({n}r, s2, z2) {o} = Add({n}s, {n}u)",
    "{n}r = Relu({a}) {n}q = QuantizeLinear({n}r, s2, z2) {o} = DequantizeLinear({n}q, s2, z2)",
    "{n}r = Clip({a}, zero, six) {n}q = QuantizeLinear {p}({n}r, {q}) {o} = DequantizeLinear {p}({n}q, {q})",
    "{n}q = QuantizeLinear({a}, s1, i1) {n}d = DequantizeLinear({n}q, s1, i1) {n}g = Gather<axis = 2>({n}d, order) "
    "{n}r = QuantizeLinear({n}g, s1, z1) {o} = DequantizeLinear({n}r, s1, z1)",
    "{n}q = QuantizeLinear({a}, s1, i1) {n}d = DequantizeLinear({n}q, s1, i1) {n}g = Gather<axis = 2>({n}d, order) "
    "{n}r = QuantizeLinear({n}g, s2, i2) {o} = DequantizeLinear({n}r, s2, i2)",
    *[
        "{n}q = QuantizeLinear({a}, s1, z1) {n}d = DequantizeLinear({n}q, s1, z1) {n}r = QuantizeLinear({n}d, s2, z2) "
        "{o} = DequantizeLinear({n}r, s2, z2)"
    ]
    * 4,
)
ALIGNED = (
    "{n}q = QuantizeLinear({a}, s1, i1) {n}d = DequantizeLinear({n}q, s1, i1) {n}g = Concat<axis = 2>({n}d) "
    "{n}r = QuantizeLinear({n}g, s1, z1) {o} = DequantizeLinear({n}r, s1, z1)",
    "{n}q = QuantizeLinear({a}, s1, z1) {n}d = DequantizeLinear({n}q, s1, z1) {n}g = MaxPool<kernel_shape = [3], pads = [1, 1]>({n}d) "
    "{n}r = QuantizeLinear({n}g, s2, z2) {o} = DequantizeLinear({n}r, s2, z2)",
)
FOREIGN = (
    "{n}w = DequantizeLinear(stored, s1, z1) {n}t = Transpose<perm = [1, 0]>({n}w) {o} = MatMul({a}, {n}t)",
    "{n}w = DequantizeLinear<axis = 0>(rows, sv, zv) {n}t = Reshape({n}w, twelve) {n}u = Reshape({n}t, rank2) {o} = Mul({a}, {n}u)",
    "{n}q = QuantizeLinear(row, s1, z1) {n}d = DequantizeLinear({n}q, s1, z1) {o} = Add({a}, {n}d)",
    "{n}q = QuantizeLinear(row, e, z1) {n}d = DequantizeLinear({n}q, e, z1) {o} = Add({a}, {n}d)",
    "{n}q = QuantizeLinear({a}, s1) {o} = DequantizeLinear({n}q, s1)",
    "{n}q = QuantizeLinear({a}, sr, zr) {o} = DequantizeLinear({n}q, sr, zr)",
    "{n}q = com.microsoft.QuantizeLinear({a}, s1, z1) {o} = com.microsoft.DequantizeLinear({n}q, s1, z1)",
    "{n}q = QuantizeLinear({a}, s1, z1) {n}c = Clip({n}q, least, half) {o} = DequantizeLinear({n}c, s1, z1)",
    "{n}q = QuantizeLinear({a}, s1, z1) {n}d = DequantizeLinear({n}q, s1, z1) {o} = MatMul({n}d, grid)",
    "{n}q = QuantizeLinear({a}, s1, z1) {n}d = DequantizeLinear({n}q, s1, z1) {o} = MatMul({n}d, loose)",
)
"""As exporters write them."""
_BYTES = "{n}q = QuantizeLinear({a}, s1, z1) {n}d = DequantizeLinear({n}q, s1, z1) "
GATES = (
    _BYTES
    + "{n}g = com.microsoft.QuickGelu<alpha = 1.0>({n}d) {n}r = QuantizeLinear({n}g, s2, z1) {o} = DequantizeLinear({n}r, s2, z1)",
    _BYTES + "{n}g = HardSwish({n}d) {n}r = QuantizeLinear({n}g, s1, z1) {o} = DequantizeLinear({n}r, s1, z1)",
    _BYTES + "{o} = com.microsoft.QuickGelu<alpha = 1.0>({n}d)",
    _BYTES
    + "{n}g = HardSwish({n}d) {n}r = QuantizeLinear({n}g, s1, z1) {n}s = DequantizeLinear({n}r, s1, z1) {o} = Add({n}g, {n}s)",
)
KINDS = (
    *[PAIR] * 8,
    *TYPICAL,
    *TYPICAL[2:4] * 2,
    *MOVES,
    *OTHERS,
    *ALIGNED * 3,
    ALIGNED[0],
    *FOREIGN,
    *FOREIGN[:4],
    *[FOREIGN[0]] * 4,
    *FOREIGN[-2:],
    *GATES,
)
_BODIES = (
    "{o} = If(flag) <then_branch = {n}then () => (float[2,3,4] {n}y) {{ {inner} }}, "
    "else_branch = {n}else () => (float[2,3,4] {n}z) {{ {n}z = Neg({a}) }}>",
    "{o} = Loop(turns, yes, {a}) <body = {n}loop (int64 {n}turn, bool {n}go, float[2,3,4] {n}v) => (bool {n}on, float[2,3,4] {n}y) "
    "{{ {n}on = Identity({n}go) {inner} }}>",
)
PLACES = 12
"""One in six fragments stands in a body."""


def build(recipe: Recipe) -> str:
    """The model, in the syntax of onnx.parser. Step i makes tensor t<i> of shape [2,3,4]."""
    names, lines = ["x"], []
    for index, step in enumerate(recipe.steps):
        a, b = (names[max(0, len(names) - 1 - back)] for back in (step.a, step.b))
        attributes, values = PARAMETERS[step.numbers]
        n, fragment = f"n{index}_", KINDS[step.kind]
        if step.place < len(_BODIES):
            inside = a if step.place == 0 else f"{n}v"
            inner = fragment.format(o=f"{n}y", n=f"{n}i_", a=inside, b=b, p=attributes, q=values)
            lines.append(_BODIES[step.place].format(o=f"t{index}", n=n, a=a, inner=inner))
        else:
            lines.append(fragment.format(o=f"t{index}", n=n, a=a, b=b, p=attributes, q=values))
        names.append(f"t{index}")
    made = names[1:]
    shapes = ", ".join(f"float[2,3,4] {r}" for r in made[-recipe.outputs :])
    inner = "".join(f", float[2,3,4] {n}" for n in made[: -recipe.outputs]) if recipe.typed else ""
    return model(f"(float[2,3,4] x, float e, bool flag) => ({shapes}) <{CONSTANTS}{inner}> {{ {' '.join(lines)} }}")


def inputs() -> dict[str, NDArray[np.generic]]:
    """Normal numbers, ties, numbers beyond all levels, a negative zero; `e` is a scale that is no constant."""
    values = np.random.default_rng(0).normal(0, 3, 24).astype(np.float32)
    values[:6] = [-0.0, 0.025, 0.075, 1e9, -1e9, 0.0125]
    return {"x": values.reshape(2, 3, 4), "e": np.array(0.05, np.float32), "flag": np.array(True)}
