from __future__ import annotations

from typing import Any

import pytest
from fusing import Qdq
from rewriting import bitwise, keep

from onnxq.testing import check_pass
from onnxq_passes.fuse_qlinear_pool import FuseQlinearPool

PASS = FuseQlinearPool()
HEAD = "(float[1,1,4,4] x) => (float[1,1,2,2] y) <float s = {0.02}, uint8 z = {120}, float u = {0.05}, uint8 w = {90}> { q = QuantizeLinear(x, s, z) "
GRAPH = (
    HEAD
    + "d = DequantizeLinear(q, s, z) [pool] c = AveragePool<kernel_shape = [2, 2], strides = [2, 2]>(d) r = QuantizeLinear(c, u, w) y = DequantizeLinear(r, u, w) }"
)


def test_contract() -> None:
    check_pass(FuseQlinearPool)


def test_the_whole_group_becomes_one_op() -> None:
    after = "[pool_QLinearAveragePool] r = com.microsoft.QLinearAveragePool<kernel_shape = [2, 2], strides = [2, 2]>(q, s, z, u, w) y = DequantizeLinear(r, u, w) }"
    bitwise(PASS, GRAPH, HEAD + after, rewrites=1)


POOLS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "2D": ((1, 3, 11, 11), {"kernel_shape": [3, 3], "strides": [2, 2]}),
    "1D": ((1, 3, 40), {"kernel_shape": [3]}),
    "3D": ((1, 3, 6, 6, 6), {"kernel_shape": [2, 2, 2]}),
    "padded": ((1, 3, 9, 9), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    "padding counts": ((1, 3, 9, 9), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    "ceil": ((1, 3, 10, 10), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    "same": ((1, 3, 10, 10), {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
}


@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize("form", POOLS)
def test_case_1_bit_for_bit(form: str, kind: str) -> None:
    shape, attributes = POOLS[form]
    g = Qdq()
    g.out(g.op("AveragePool", g.data(*shape, zero=7, kind=kind), **attributes), 0.0217, 11, kind)
    made = g.fuse(PASS)
    assert made.ops == {"QuantizeLinear": 1, "QLinearAveragePool": 1}
    assert made.gap == 0
    assert made.spread() > 20


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_case_2_one_step(kind: str) -> None:
    g = Qdq()
    g.out(g.op("GlobalAveragePool", g.data(4, 64, 7, 7, zero=7, kind=kind)), 0.00417, 11, kind)
    made = g.fuse(PASS)
    assert made.ops == {"QuantizeLinear": 1, "QLinearGlobalAveragePool": 1}
    assert made.gap <= 1
    assert made.spread() > 20


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("strides = [2, 2]", "dilations = [2, 2]", "no dilations"),
        ("uint8 w", "int8 w", "its data is uint8, its output int8"),
        ("r = Q", "n = Neg(c) r = Q", "reads its output in float"),
        ("uint8 z", "uint16 z", "is uint16"),
    ],
)
def test_near_misses(old: str, new: str, reason: str) -> None:
    keep(PASS, GRAPH.replace(old, new), reason)
