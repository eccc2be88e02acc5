"""A DQ per reader."""

from __future__ import annotations

from rewriting import bitwise, keep, together

from onnxq_passes.split_dequantize import SplitDequantize

K = "float s = {0.05}, uint8 z = {120}"
D = "[d] a = DequantizeLinear(p, s, z)"


def test_each_further_reader_gets_a_copy() -> None:
    head = f"(uint8[2] p) => (float[2] y, float[2] w) <{K}>"
    bitwise(
        SplitDequantize(),
        f"{head} {{ {D} [n] y = Neg(a) [m] w = Mul(a, a) }}",
        f"{head} {{ {D} [d_1] a_1 = DequantizeLinear(p, s, z) [n] y = Neg(a) [m] w = Mul(a_1, a_1) }}",
        rewrites=1,
    )


def test_an_output_keeps_the_dq() -> None:
    head = f"(uint8[2] p) => (float[2] y, float[2] a) <{K}>"
    bitwise(
        SplitDequantize(),
        f"{head} {{ {D} [n] y = Neg(a) }}",
        f"{head} {{ {D} [d_1] a_1 = DequantizeLinear(p, s, z) [n] y = Neg(a_1) }}",
        rewrites=1,
    )


def test_bodies_are_readers() -> None:
    head = f"(bool c, uint8[2] p) => (float[2] y) <{K}>"
    body = "y = If(c) <then_branch = g () => (float[2] t) {{ [r] t = Neg(a) }}, else_branch = h () => (float[2] u) {{ [v] u = Abs({}) }}>"
    bitwise(
        SplitDequantize(),
        f"{head} {{ {D} {body.format('a')} }}",
        f"{head} {{ {D} [d_1] a_1 = DequantizeLinear(p, s, z) {body.format('a_1')} }}",
        rewrites=1,
    )


def test_one_reader_is_enough() -> None:
    keep(SplitDequantize(), f"(uint8[2] p) => (float[2] y) <{K}> {{ {D} [m] y = Mul(a, a) }}")


def test_many_sites() -> None:
    head = f"(uint8[2] p) => (float[2] y, float[2] w) <{K}>"
    before = f"{head} {{ {D} [n] y = Neg(a) [m] w = Mul(a, a) }}"
    after = f"{head} {{ {D} [d_1] a_1 = DequantizeLinear(p, s, z) [n] y = Neg(a) [m] w = Mul(a_1, a_1) }}"
    quiet = f"(float[2] p) => (float[2] y, float[2] w) <{K}> {{ [d] a = Exp(p) [n] y = Neg(a) [m] w = Abs(a) }}"
    together(SplitDequantize(), changed=[(before, after, 1)], quiet=[quiet])


def test_a_copy_has_the_attributes() -> None:
    head = "(uint8[2,3] p) => (float[2,3] y, float[2,3] w) <float[2] s = {0.05, 0.06}, uint8[2] z = {1, 2}>"
    d = "[d] a = DequantizeLinear <axis = 0> (p, s, z)"
    bitwise(
        SplitDequantize(),
        f"{head} {{ {d} [n] y = Neg(a) [m] w = Abs(a) }}",
        f"{head} {{ {d} [d_1] a_1 = DequantizeLinear <axis = 0> (p, s, z) [n] y = Neg(a) [m] w = Abs(a_1) }}",
        rewrites=1,
    )
