"""Inputs of moves on the grid of the result."""

from __future__ import annotations

import pytest
from rewriting import bitwise, keep, rewrite

from onnxq_passes.align_parameters import AlignParameters

K = "float s = {0.05}, int8 i = {-8}, uint8 z = {120}, float s2 = {0.04}, uint8 z2 = {121}"
MOVE = "[t] c = Transpose(b) [r] f = QuantizeLinear(c, s, z) [e] y = DequantizeLinear(f, s, z)"
HEAD = f"(float[2,3] x, uint8[2,3] p) => (float[3,2] y) <{K}>"


def _pair(scale: str, zero: str) -> str:
    return f"[q] a = QuantizeLinear(x, {scale}, {zero}) [d] b = DequantizeLinear(a, {scale}, {zero})"


def test_the_same_grid_in_another_type() -> None:
    before, after = (f"{HEAD} {{ {_pair('s', zero)} {MOVE} }}" for zero in ("i", "z"))
    bitwise(AlignParameters(), before, after, rewrites=1)


def test_another_scale_only_by_name() -> None:
    before, after = (f"{HEAD} {{ {_pair(*numbers)} {MOVE} }}" for numbers in (("s2", "z2"), ("s", "z")))
    keep(AlignParameters(), before, "only `inexact` aligns it")
    rewrite(AlignParameters(inexact=True), before, after, rewrites=1, atol=0.051)


def test_concat_of_two_scales() -> None:
    head = f"(float[2] x, float[2] w) => (float[4] y) <{K}>"
    other = "[u] g = QuantizeLinear(w, s2, z) [v] h = DequantizeLinear(g, s2, z)"
    rest = MOVE.replace("Transpose(b)", "Concat <axis = 0> (b, h)")
    before = f"{head} {{ {_pair('s', 'z2')} {other} {rest} }}"
    after = f"{head} {{ {_pair('s', 'z')} {other.replace('s2', 's')} {rest} }}"
    rewrite(AlignParameters(inexact=True), before, after, rewrites=2, atol=0.06)


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        (f"{_pair('s', 'i')} [n] n = Neg(b) [g] g = Transpose(n) {MOVE.replace('y =', 'j =')} [k] y = Add(g, j)", "other readers"),
        (f"[d] b = DequantizeLinear(p, s, z2) {MOVE}", "come from no Q"),
        (f"[o] o = DequantizeLinear(p, s, z) {_pair('s2', 'z').replace('(x,', '(o,')} {MOVE}", "requantization"),
    ],
)  # fmt: skip
def test_what_stays(nodes: str, reason: str) -> None:
    keep(AlignParameters(inexact=True), f"{HEAD} {{ {nodes} }}", reason)
