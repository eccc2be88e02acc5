from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fusing import DATA, Qdq
from rewriting import bitwise, keep

from onnxq.testing import check_pass
from onnxq_passes.fuse_qgemm import FuseQgemm
from onnxq_passes.signed_to_unsigned import SignedToUnsigned

PASS = FuseQgemm()
CONSTANTS = """float s = {0.02}, uint8 z = {120}, float sy = {0.05}, uint8 zy = {3}, int8[2,2] w = {1, -2, 30, 4},
    float[2] sw = {0.01, 0.02}, int8[2] zw = {0, 0}, int32[2] b = {5, -9}, float[2] sb = {0.0002, 0.0004}, int32[2] zb = {0, 0}"""
HEAD = f"(float[2,2] x) => (float[2,2] y) <{CONSTANTS}> "
GRAPH = (
    HEAD
    + """{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) wd = DequantizeLinear<axis = 0>(w, sw, zw)
    bd = DequantizeLinear<axis = 0>(b, sb, zb) [fc] c = Gemm<transB = 1>(d, wd, bd) r = QuantizeLinear(c, sy, zy) y = DequantizeLinear(r, sy, zy) }"""
)


def test_contract() -> None:
    check_pass(FuseQgemm)


def test_the_whole_group_becomes_one_op() -> None:
    after = "{ q = QuantizeLinear(x, s, z) [fc_QGemm] r = com.microsoft.QGemm<transB = 1>(q, s, z, w, sw, zw, b, sy, zy) y = DequantizeLinear(r, sy, zy) }"
    bitwise(PASS, GRAPH, HEAD + after, rewrites=1)


@pytest.mark.parametrize("bias", [None, "int32", "float"])
@pytest.mark.parametrize("quantized", [True, False])
@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("channels", [True, False])
def test_bit_for_bit_or_float_rounding(channels: bool, transposed: int, quantized: bool, bias: str | None) -> None:
    g = Qdq()
    scale: Any = np.linspace(0.00213, 0.00437, 24).astype(np.float32) if channels else np.float32(0.00317)
    shape = (24, 40) if transposed else (40, 24)
    inputs = [g.data(6, 40), g.weight(*shape, scale=scale, axis=0 if transposed else 1)]
    if bias == "int32":
        steps = g.constant(np.broadcast_to(np.float32(DATA) * scale, (24,)))
        inputs.append(g.op("DequantizeLinear", g.constant(np.arange(24) * 911 - 7000, "int32"), steps, axis=0))
    elif bias == "float":
        inputs.append(g.constant(np.linspace(-1, 1, 24)))
    c = g.op("Gemm", *inputs, transB=transposed)
    if quantized:
        g.out(c)
    else:
        g.raw(c)
    made = g.fuse(PASS)
    assert made.ops == {"QuantizeLinear": 1, "QGemm": 1}
    if bias == "float":
        assert made.gap <= (1 if quantized else DATA * 0.00437)
    else:
        assert made.gap <= (0 if quantized else 1e-5)
    assert made.spread() > 15


def test_case_4_alpha_without_a_bias() -> None:
    g = Qdq()
    g.out(g.op("Gemm", g.data(40, 6), g.weight(40, 24, scale=0.00317), alpha=0.731, transA=1))
    made = g.fuse(PASS)
    assert made.ops == {"QuantizeLinear": 1, "QGemm": 1}
    assert made.gap == 0


def test_case_5_a_result_that_is_read_in_float_and_quantized() -> None:
    g = Qdq()
    c = g.op("Gemm", g.data(6, 40), g.weight(40, 24, scale=0.00317))
    g.raw(g.op("Neg", c))
    g.raw(g.dq(g.q(c, 0.0517, 100), 0.0517, 100))
    made = g.fuse(PASS)
    assert made.ops == {"QuantizeLinear": 2, "QGemm": 1, "Neg": 1, "DequantizeLinear": 1}
    assert made.gap <= 1e-5


def test_case_6_int8_data() -> None:
    g = Qdq()
    g.raw(g.op("Gemm", g.data(6, 40, kind="int8"), g.weight(40, 24, scale=0.00317)))
    made = g.fuse(PASS)
    assert made.ops["Gemm"] == 1
    assert "signed-to-unsigned" in made.reasons[0]
    made = g.fuse(SignedToUnsigned(), PASS)
    assert made.ops == {"QuantizeLinear": 1, "QGemm": 1}
    assert made.gap <= 1e-5


NEAR: dict[str, tuple[str, str, str]] = {
    "axis of equal length": ("<axis = 0>(w,", "<axis = 1>(w,", "the kernel wants axis 0"),
    "bias scale that ONNX Runtime does not check": (
        "sb = {0.0002, 0.0004}",
        "sb = {0.0002, 0.0005}",
        "not that of the data",
    ),
    "bias zero point": ("zb = {0, 0}", "zb = {1, 0}", "has a zero point"),
    "alpha": ("transB = 1", "alpha = 0.5, transB = 1", "alpha or beta"),
    "beta": ("transB = 1", "beta = 0.5, transB = 1", "alpha or beta"),
    "bias that is computed": ("bd)", "n)", "is computed in the graph"),
    "float data": ("(d, wd", "(x, wd", "x is float"),
    "16 bits": ("uint8 z =", "uint16 z =", "is uint16"),
}


@pytest.mark.parametrize("case", NEAR)
def test_near_misses(case: str) -> None:
    old, new, reason = NEAR[case]
    graph = GRAPH.replace(old, new)
    if "computed" in case:
        graph = graph.replace("[fc]", "n = Neg(bd) [fc]")
    keep(PASS, graph, reason)


@pytest.mark.parametrize("axis", [0, 1])
def test_case_1_a_product_that_is_not_transposed(axis: int) -> None:
    g = Qdq()
    g.out(g.op("Gemm", g.data(6, 24), g.weight(24, 24, scale=np.linspace(0.002, 0.004, 24), axis=axis)))
    made = g.fuse(PASS)
    assert made.ops["QGemm"] == axis
    assert made.gap == 0


def test_case_5_an_output_of_another_type() -> None:
    g = Qdq()
    g.out(g.op("Gemm", g.data(6, 40), g.weight(40, 24, scale=0.00317)), kind="int8", zero=3)
    made = g.fuse(PASS)
    assert made.ops == {"QuantizeLinear": 2, "QGemm": 1}
    assert made.gap <= 1


def test_case_6_native_int8() -> None:
    g = Qdq()
    g.out(g.op("Gemm", g.data(6, 40, kind="int8", zero=-8), g.weight(40, 24, scale=0.00317)), kind="int8", zero=3)
    made = g.fuse(FuseQgemm(native_int8=True))
    assert made.ops == {"QuantizeLinear": 1, "QGemm": 1}
    assert made.gap == 0


def test_case_3_near_miss_a_float_bias_per_row() -> None:
    g = Qdq()
    g.out(g.op("Gemm", g.data(6, 24), g.weight(24, 8, scale=0.003), g.constant(np.linspace(-1, 1, 48).reshape(6, 8))))
    made = g.fuse(PASS)
    assert made.ops["QGemm"] == 0
    assert "is no vector of finite float32" in made.reasons[0]
