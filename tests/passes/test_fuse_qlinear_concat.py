from __future__ import annotations

import pytest
from fusing import Qdq
from rewriting import bitwise, keep

from onnxq.testing import check_pass
from onnxq_passes.fuse_qlinear_concat import FuseQlinearConcat

PASS = FuseQlinearConcat()
CONSTANTS = "float s = {0.02}, uint8 z = {120}, float t = {0.03}, uint8 v = {100}, float u = {0.05}, uint8 w = {90}"
HEAD = f"(float[2,3] x, float[2,1] k) => (float[2,4] y) <{CONSTANTS}> {{ q = QuantizeLinear(x, s, z) "
GRAPH = (
    HEAD
    + """d = DequantizeLinear(q, s, z) p = QuantizeLinear(k, t, v) e = DequantizeLinear(p, t, v)
    [join] c = Concat<axis = 1>(d, e) r = QuantizeLinear(c, u, w) y = DequantizeLinear(r, u, w) }"""
)


def test_contract() -> None:
    check_pass(FuseQlinearConcat)


def test_the_whole_group_becomes_one_op() -> None:
    after = "p = QuantizeLinear(k, t, v) [join_QLinearConcat] r = com.microsoft.QLinearConcat<axis = 1>(u, w, q, s, z, p, t, v) y = DequantizeLinear(r, u, w) }"
    bitwise(PASS, GRAPH, HEAD + after, rewrites=1)


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_bit_for_bit(kind: str) -> None:
    g = Qdq()
    parts = [g.data(2, n, 30, scale=0.011 * n, zero=n, kind=kind) for n in (1, 2, 3)]
    g.out(g.op("Concat", *parts, axis=-2), kind=kind)
    made = g.fuse(PASS)
    assert made.ops == {"QuantizeLinear": 3, "QLinearConcat": 1}
    assert made.gap == 0
    assert made.spread() > 50


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("(d, e)", "(d, k)", "k is float"),
        ("uint8 v", "int8 v", "are uint8, int8, uint8"),
        ("r = Q", "n = Neg(c) r = Q", "reads its output in float"),
        ("uint8 w", "uint16 w", "is uint16"),
    ],
)
def test_near_misses(old: str, new: str, reason: str) -> None:
    keep(PASS, GRAPH.replace(old, new), reason)
