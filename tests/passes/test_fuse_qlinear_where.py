from __future__ import annotations

import numpy as np
import pytest
from fusing import Qdq
from rewriting import bitwise, keep

from onnxq.testing import check_pass
from onnxq_passes.fuse_qlinear_where import FuseQlinearWhere

PASS = FuseQlinearWhere()
CONSTANTS = "float s = {0.02}, uint8 z = {120}, float t = {0.03}, uint8 v = {100}, float u = {0.05}, uint8 w = {90}, float m = {-2.5}, float[1] i = {-inf}"
HEAD = f"(bool[2,3] b, float[2,3] x, float[3] k) => (float[2,3] y) <{CONSTANTS}> {{ q = QuantizeLinear(x, s, z) "
START = HEAD + "d = DequantizeLinear(q, s, z) p = QuantizeLinear(k, t, v) e = DequantizeLinear(p, t, v) "
END = " r = QuantizeLinear(c, u, w) y = DequantizeLinear(r, u, w) }"


def test_contract() -> None:
    check_pass(FuseQlinearWhere)


def test_case_1_the_whole_group_becomes_one_op() -> None:
    after = "p = QuantizeLinear(k, t, v) [w_QLinearWhere] r = com.microsoft.QLinearWhere(b, q, s, z, p, t, v, u, w) y = DequantizeLinear(r, u, w) }"
    bitwise(PASS, START + "[w] c = Where(b, d, e)" + END, HEAD + after, rewrites=1)


@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize("constant", [None, -2.5, 0.0, 1e-3, 7.0])
@pytest.mark.parametrize("first", [True, False])
def test_case_2_bit_for_bit(first: bool, constant: float | None, kind: str) -> None:
    g = Qdq()
    a = g.data(3, 40, kind=kind, zero=9)
    other = g.data(1, 40, kind=kind, scale=0.0317, zero=4) if constant is None else g.constant([[constant]])
    mask = g.constant(np.arange(40) % 3 == 0, "bool")
    g.out(g.op("Where", mask, *((a, other) if first else (other, a))), kind=kind, zero=5)
    made = g.fuse(PASS)
    assert made.ops == {"QuantizeLinear": 1 + (constant is None), "QLinearWhere": 1}
    assert made.gap == 0
    assert made.spread() > 10


@pytest.mark.parametrize(
    ("middle", "reason"),
    [
        ("c = Where(b, d, k)", "k is float"),
        ("c = Where(b, d, i)", "no single finite number"),
        ("c = Where(b, d, e) n = Neg(c)", "reads its output in float"),
    ],
)
def test_near_misses(middle: str, reason: str) -> None:
    keep(PASS, START + middle + END, reason)


def test_near_miss_types_that_differ() -> None:
    keep(PASS, (START + "c = Where(b, d, e)" + END).replace("uint8 v", "int8 v"), "are uint8, int8, uint8")
