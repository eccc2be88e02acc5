"""DQ -> Q with equal parameters goes, any other stays."""

from __future__ import annotations

import pytest
from rewriting import bitwise, keep, together

from onnxq_passes.cancel_dq_q import CancelDqQ

K = "float s = {0.05}, uint8 z = {120}, float s2 = {0.06}, uint8 z2 = {121}, float big = {3e37}, int8 i = {120}"


def test_a_double_pair_becomes_one() -> None:
    head = f"(float[2] x) => (float[2] y) <{K}>"
    first, last = "[q] a = QuantizeLinear(x, s, z)", "[f] y = DequantizeLinear({}, s, z)"
    bitwise(
        CancelDqQ(),
        f"{head} {{ {first} [d] b = DequantizeLinear(a, s, z) [r] c = QuantizeLinear(b, s, z) {last.format('c')} }}",
        f"{head} {{ {first} {last.format('a')} }}",
        rewrites=1,
    )


def test_the_dq_stays_for_others_and_the_output_keeps_its_name() -> None:
    head = f"(float[2] x) => (float[2] w, uint8[2] y) <{K}>"
    bitwise(
        CancelDqQ(),
        f"{head} {{ [q] a = QuantizeLinear(x, s, z) [d] b = DequantizeLinear(a, s, z) [n] w = Neg(b) [r] y = QuantizeLinear(b, s, z) }}",
        f"{head} {{ [q] y = QuantizeLinear(x, s, z) [d] b = DequantizeLinear(y, s, z) [n] w = Neg(b) }}",
        rewrites=1,
    )


@pytest.mark.parametrize(
    ("dq", "q", "reason"),
    [
        ("a, s, z", "b, s2, z", "parameters differ"),
        ("a, s, z", "b, s, z2", "parameters differ"),
        ("a, s, z", "b, s, i", "parameters differ"),
        ("a, s, z", "b, e, z", "not constant"),
        ("a, big, z", "b, big, z", "is not q"),
    ],
)
def test_what_stays(dq: str, q: str, reason: str) -> None:
    graph = f"(uint8[2] p, float e) => (float[2] y) <{K}> {{ [m] a = Max(p) [d] b = DequantizeLinear({dq}) [q] c = QuantizeLinear({q}) [f] y = DequantizeLinear(c, s2, {'i' if q.endswith('i') else 'z'}) }}"
    keep(CancelDqQ(), graph, reason)


def test_an_input_does_not_go_straight_to_an_output() -> None:
    graph = (
        f"(uint8[2] p) => (uint8[2] y) <{K}> {{ [d] b = DequantizeLinear(p, s, z) [q] y = QuantizeLinear(b, s, z) }}"
    )
    keep(CancelDqQ(), graph, "joins an input")


def test_many_sites() -> None:
    head = f"(float[2] x, uint8[2] p) => (float[2] y) <{K}>"
    behind = "[f] y = DequantizeLinear(c, s, z)"
    pair = "[d] b = DequantizeLinear(a, s, z) [r] c = QuantizeLinear(b, s, z)"
    before = f"{head} {{ [q] a = QuantizeLinear(x, s, z) {pair} {behind} }}"
    together(
        CancelDqQ(),
        changed=[(before, before.replace(pair, "").replace("(c,", "(a,"), 1)],
        kept=[(before.replace("(b, s,", "(b, s2,"), "parameters differ")],
        quiet=[f"{head} {{ [n] b = Neg(x) [r] c = QuantizeLinear(b, s, z) {behind} }}"],
    )
