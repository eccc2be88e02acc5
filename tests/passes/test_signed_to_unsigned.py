from __future__ import annotations

import numpy as np
from fusing import Qdq
from rewriting import bitwise, keep

from onnxq.testing import check_pass
from onnxq_passes.signed_to_unsigned import SignedToUnsigned

PASS = SignedToUnsigned()
CONSTANTS = "float s = {0.02}, int8 z = {-8}"
HEAD = "(float[2,3] x) => (float[2,3] y) "


def test_contract() -> None:
    check_pass(SignedToUnsigned)


def test_case_1_quantizer_and_readers_change_together() -> None:
    bitwise(
        PASS,
        HEAD
        + f"<{CONSTANTS}> {{ q = QuantizeLinear(x, s, z) a = DequantizeLinear(q, s, z) b = DequantizeLinear(q, s, z) y = Add(a, b) }}",
        HEAD
        + "<float s = {0.02}, uint8 q_zero_point_uint8 = {120}> { q = QuantizeLinear(x, s, q_zero_point_uint8) "
        + "a = DequantizeLinear(q, s, q_zero_point_uint8) b = DequantizeLinear(q, s, q_zero_point_uint8) y = Add(a, b) }",
        rewrites=1,
    )


def test_case_1_without_zero_points_and_per_channel() -> None:
    g = Qdq()
    scale = g.constant([0.01, 0.02, 0.03])
    x = g.data(2, 3, kind="uint8")
    q = g.op("QuantizeLinear", x, scale, axis=1, output_dtype=3)
    g.raw(g.op("DequantizeLinear", q, scale, axis=1))
    made = g.fuse(PASS)
    assert made.reports[0].rewrites == 1
    assert made.gap == 0
    assert made.spread() > 3


def test_case_2_integers_that_others_read() -> None:
    keep(
        PASS,
        HEAD + f"<{CONSTANTS}> {{ q = QuantizeLinear(x, s, z) y = Cast<to = 1>(q) }}",
        "reads the int8 numbers themselves",
    )
    keep(
        PASS,
        f"(float[2,3] x) => (int8[2,3] q) <{CONSTANTS}> {{ q = QuantizeLinear(x, s, z) }}",
        "is an output of the graph",
    )


def test_case_3_weights() -> None:
    g = Qdq()
    a, b = g.data(2, 3), g.data(3, 4, kind="int8", zero=0)
    w = g.dq(g.q(g.constant(np.ones((4, 2))), 0.01, 0, "int8"), 0.01, 0, "int8")
    g.raw(g.op("MatMul", g.op("MatMul", a, b), w))
    made = g.fuse(PASS)
    assert made.reports[0].rewrites == 0


def test_near_miss_unsigned_and_16_bits() -> None:
    for kind in ("uint8", "int16"):
        graph = (
            HEAD
            + f"<float s = {{0.02}}, {kind} z = {{8}}> {{ q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }}"
        )
        keep(PASS, graph)
