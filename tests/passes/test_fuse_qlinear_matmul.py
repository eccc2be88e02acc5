from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fusing import Qdq
from rewriting import bitwise, keep

from onnxq.testing import check_pass
from onnxq_passes.fuse_qlinear_matmul import FuseQlinearMatmul
from onnxq_passes.signed_to_unsigned import SignedToUnsigned

PASS = FuseQlinearMatmul()
CONSTANTS = """float s = {0.02}, uint8 z = {120}, float sy = {0.05}, uint8 zy = {3},
    int8[3,3] w = {1, -2, 30, 4, 5, 60, -7, 8, 9}, float[3] sw = {0.01, 0.02, 0.03}, int8[3] zw = {0, 1, 2}"""
HEAD = f"(float[2,3] x) => (float[2,3] y) <{CONSTANTS}> "
GRAPH = (
    HEAD
    + """{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) wd = DequantizeLinear<axis = 1>(w, sw, zw)
    [mm] c = MatMul(d, wd) r = QuantizeLinear(c, sy, zy) y = DequantizeLinear(r, sy, zy) }"""
)


def test_contract() -> None:
    check_pass(FuseQlinearMatmul)


def test_the_whole_group_becomes_one_op() -> None:
    after = "{ q = QuantizeLinear(x, s, z) [mm_QLinearMatMul] r = QLinearMatMul(q, s, z, w, sw, zw, sy, zy) y = DequantizeLinear(r, sy, zy) }"
    bitwise(PASS, GRAPH, HEAD + after, rewrites=1)


@pytest.mark.parametrize("shape", [(6, 40), (2, 3, 5, 40), (1, 40)])
@pytest.mark.parametrize("channels", [True, False])
def test_case_2_bit_for_bit(shape: tuple[int, ...], channels: bool) -> None:
    g = Qdq()
    scale: Any = list(np.linspace(0.00213, 0.00437, 24)) if channels else 0.00317
    g.out(g.op("MatMul", g.data(*shape), g.weight(40, 24, scale=scale, axis=1)))
    made = g.fuse(PASS)
    assert made.ops == {"QuantizeLinear": 1, "QLinearMatMul": 1}
    assert made.gap == 0
    assert made.spread() > 15


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_case_1_two_activations(kind: str) -> None:
    g = Qdq()
    b = g.data(2, 3, 40, 6, scale=0.0317, zero=3, kind=kind)
    g.out(g.op("Relu", g.op("MatMul", g.data(2, 3, 5, 40), b)), scale=0.1371, zero=0)
    made = g.fuse(PASS)
    assert made.ops == {"QuantizeLinear": 2, "QLinearMatMul": 1}
    assert made.gap == 0
    assert made.spread() > 30


def test_case_4_int8_data() -> None:
    def build() -> Qdq:
        g = Qdq()
        c = g.op("MatMul", g.data(5, 40, zero=-3, kind="int8"), g.weight(40, 24, scale=0.00317))
        g.raw(g.dq(g.q(c, 0.0517, 4, "int8"), 0.0517, 4, "int8"))
        return g

    kept = build().fuse(PASS)
    assert kept.ops["MatMul"] == 1
    assert "signed-to-unsigned" in kept.reasons[0]
    for passes in ((SignedToUnsigned(), PASS), (FuseQlinearMatmul(native_int8=True),)):
        made = build().fuse(*passes)
        assert made.ops["QLinearMatMul"] == 1
        assert made.gap == 0


NEAR: dict[str, tuple[str, str, str]] = {
    "axis of equal length": ("<axis = 1>(w,", "<axis = 0>(w,", "the kernel wants axis 1"),
    "read in float": ("r = Q", "n = Neg(c) r = Q", "reads its output in float"),
    "float weight": ("MatMul(d, wd)", "MatMul(d, sw)", "sw is float"),
    "16 bits": ("uint8 zy", "uint16 zy", "is uint16"),
    "types differ": ("uint8 zy", "int8 zy", "its data is uint8, its output int8"),
}


@pytest.mark.parametrize("case", NEAR)
def test_near_misses(case: str) -> None:
    old, new, reason = NEAR[case]
    graph = GRAPH.replace(old, new)
    if case == "float weight":
        graph = graph.replace("float[2,3] y)", "float[2] y)")
    keep(PASS, graph, reason)


def test_near_miss_scales_per_channel_of_a_batch_of_matrices() -> None:
    g = Qdq()
    g.out(g.op("MatMul", g.data(2, 5, 4), g.weight(2, 4, 6, scale=list(np.linspace(0.002, 0.004, 6)), axis=2)))
    made = g.fuse(PASS)
    assert made.ops["MatMul"] == 1
    assert "is no matrix" in made.reasons[0]
