"""Back to float."""

from __future__ import annotations

import pytest
from rewriting import bitwise, keep, rewrite, together

from onnxq_passes.strip_qdq import StripQdq

K = "float s = {0.05}, uint8 z = {128}, float s2 = {0.06}"


def test_pairs_and_weights() -> None:
    head = f"(float[1,2] x) => (float[1,2] y) <{K}, int8[2,2] w = {{1, 2, 3, 4}}, float[2] t = {{0.5, 0.25}}"
    nodes = (
        "[q] a = QuantizeLinear(x, s, z) [d] b = DequantizeLinear(a, s, z) [w] c = DequantizeLinear <axis = 1> (w, t) "
        "[m] e = MatMul(b, c) [r] f = QuantizeLinear(e, s, z) [g] y = DequantizeLinear(f, s, z)"
    )
    after = f"{head}, float[2,2] w_float = {{0.5, 0.5, 1.5, 1}}> {{ [m] y = MatMul(x, w_float) }}"
    rewrite(StripQdq(), f"{head}> {{ {nodes} }}".replace("int8[2,2]", "uint8[2,2]"), after, rewrites=5, atol=0.1)


def test_weights_alone_are_exact() -> None:
    head = "(float[1,2] x) => (float[1,2] y) <float s = {0.3}, uint8[2] w = {7, 9}"
    bitwise(
        StripQdq(),
        f"{head}> {{ [w] c = DequantizeLinear(w, s) [m] y = Add(x, c) }}",
        f"{head}, float[2] w_float = {{2.1000001, 2.7}}> {{ [m] y = Add(x, w_float) }}",
        rewrites=1,
    )


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ("[n] o = Neg(x) [q] a = QuantizeLinear(o, s, z) [d] y = DequantizeLinear(a, s2, z)", "not those of the Q"),
        ("[d] y = DequantizeLinear(p, s, z)", "integer op or an input"),
        ("[q] a = QuantizeLinear(x, s, z) [d] y = DequantizeLinear(a, s, z)", "joins an input"),
        ("[n] o = Neg(x) [q] a = QuantizeLinear(o, e, z) [d] y = DequantizeLinear(a, e, z)", "not constant"),
    ],
)
def test_what_stays(nodes: str, reason: str) -> None:
    keep(StripQdq(), f"(float[2] x, uint8[2] p, float e) => (float[2] y) <{K}> {{ {nodes} }}", reason)


def test_many_sites() -> None:
    head = f"(float[2] x, uint8[2] p) => (float[2] y) <{K}>"
    pair = "[q] a = QuantizeLinear(x, s, z) [d] b = DequantizeLinear(a, s, z)"
    together(
        StripQdq(),
        changed=[(f"{head} {{ {pair} [n] y = Neg(b) }}", f"{head} {{ [n] y = Neg(x) }}", 2)],
        kept=[(f"{head} {{ [d] b = DequantizeLinear(p, s, z) [n] y = Neg(b) }}", "an integer op or an input")],
        quiet=[f"(float[2] x) => (float[2] y) <{K}> {{ [o] o = Identity(x) [e] e = Exp(x) [n] y = Neg(x) }}"],
        atol=10,
    )


def test_constants_and_integer_ops_that_stay() -> None:
    keep(
        StripQdq(),
        "(float[2] x) => (float[2] y) <float s = {0.3}, uint8[2] w = {7, 9}> { [w] y = DequantizeLinear(w, s) }",
        "joins an input or a constant",
    )
    keep(
        StripQdq(),
        f"(uint8[2] p) => (float[2] y) <{K}> {{ [m] a = Max(p) [d] b = DequantizeLinear(a, s, z) [n] y = Neg(b) }}",
        "an integer op or an input",
    )
