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
@pytest.mark.parametrize("constant", [None, -2.5, 0.0, 1e-3, 0.6, 7.0])
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


@pytest.mark.parametrize(
    ("value", "level", "scale", "zero"), [("-2.5", 0, "2.5", 1), ("0", 0, "1", 0), ("7", 1, "7", 0)]
)
def test_case_2_the_constant_as_integers(value: str, level: int, scale: str, zero: int) -> None:
    head = HEAD.replace("m = {-2.5}", f"m = {{{value}}}")
    new = f", uint8 m_quantized = {{{level}}}, float m_scale = {{{scale}}}, uint8 m_zero_point = {{{zero}}}> {{"
    after = "[w_QLinearWhere] r = com.microsoft.QLinearWhere(b, q, s, z, m_quantized, m_scale, m_zero_point, u, w) y = DequantizeLinear(r, u, w) }"
    before = head + "d = DequantizeLinear(q, s, z) [w] c = Where(b, d, m)" + END
    if level == zero:  # equal constants are one
        new, after = new.replace(", uint8 m_zero_point = {0}", ""), after.replace("m_zero_point", "m_quantized")
    bitwise(PASS, before, head.replace("> {", new) + after, rewrites=1)


def test_case_2_the_constant_keeps_its_rank() -> None:
    head = HEAD.replace("float m", "float[1,1,1] m").replace("float[2,3] y", "float[1,2,3] y")
    new = ", uint8[1,1,1] m_quantized = {0}, float m_scale = {2.5}, uint8 m_zero_point = {1}> {"
    after = "[w_QLinearWhere] r = com.microsoft.QLinearWhere(b, q, s, z, m_quantized, m_scale, m_zero_point, u, w) y = DequantizeLinear(r, u, w) }"
    before = head + "d = DequantizeLinear(q, s, z) [w] c = Where(b, d, m)" + END
    bitwise(PASS, before, head.replace("> {", new) + after, rewrites=1)
