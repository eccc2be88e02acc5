from __future__ import annotations

from typing import Any

import pytest
from fusing import Qdq
from rewriting import keep, rewrite

from onnxq.testing import check_pass
from onnxq_passes.fuse_qlinear_elementwise import FuseQlinearElementwise

PASS = FuseQlinearElementwise()
CONSTANTS = "float s = {0.02}, uint8 z = {120}, float t = {0.03}, uint8 v = {100}, float u = {0.05}, uint8 w = {90}"
START = (
    f"(float[2,3] x, float[3] k) => (float[2,3] y) <{CONSTANTS}> {{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) "
    "p = QuantizeLinear(k, t, v) e = DequantizeLinear(p, t, v) "
)
END = " r = QuantizeLinear(c, u, w) y = DequantizeLinear(r, u, w) }"


def test_contract() -> None:
    check_pass(FuseQlinearElementwise)


def test_case_1_the_whole_group_becomes_one_op() -> None:
    before = START + "[add] c = Add(d, e)" + END
    after = (
        f"(float[2,3] x, float[3] k) => (float[2,3] y) <{CONSTANTS}> {{ q = QuantizeLinear(x, s, z) p = QuantizeLinear(k, t, v) "
        "[add_QLinearAdd] r = com.microsoft.QLinearAdd(q, s, z, p, t, v, u, w) y = DequantizeLinear(r, u, w) }"
    )
    rewrite(PASS, before, after, rewrites=1, atol=0.05001)


STEPS = {"Add": 1, "Mul": 1, "LeakyRelu": 0, "Sigmoid": 0, "Softmax": 1}
"""Greatest gap to DQ -> op -> Q in steps of the output."""


@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize("op", STEPS)
def test_steps(op: str, kind: str) -> None:
    g = Qdq()
    zero = 0 if kind == "int8" else 128
    inputs = [g.data(4, 6, 50, scale=0.0231, zero=zero + 3, kind=kind)]
    if op in ("Add", "Mul"):
        inputs.append(g.data(6, 1, scale=0.0177, zero=zero - 5, kind=kind))
    attributes: dict[str, Any] = {"LeakyRelu": {"alpha": 0.13}, "Softmax": {"axis": 1}}.get(op, {})
    scale = {"Sigmoid": 1 / 256, "Softmax": 1 / 256}.get(op, 0.0411)
    g.out(g.op(op, *inputs, **attributes), scale, (-128 if kind == "int8" else 0) if scale < 0.01 else zero, kind)
    made = g.fuse(PASS)
    assert made.ops == {"QuantizeLinear": len(inputs), f"QLinear{op}": 1}
    assert made.gap <= STEPS[op]
    assert made.spread() > 50


def test_case_3_softmax_before_opset_13_flattens() -> None:
    g = Qdq(opset=11)
    g.out(g.op("Softmax", g.data(4, 3, 5), axis=1), 1 / 256, 0)
    made = g.fuse(PASS)
    assert made.ops["QLinearSoftmax"] == 1
    assert made.gap <= 1


@pytest.mark.parametrize(("opset", "summed"), [(21, 8), (11, 24)])
def test_case_3_softmax_whose_kernel_would_wrap_around_stays(opset: int, summed: int) -> None:
    """Measured in docs/ort.md: below a scale of (e - 1) / (255 n)."""
    for scale, fused in ((2.01 / (255 * summed), 1), (1.5 / (255 * summed), 0)):
        g = Qdq(opset=opset)
        g.out(g.op("Softmax", g.data(40, 3, 8), axis=1 if opset < 13 else -1), scale, 0)
        made = g.fuse(PASS)
        assert made.ops.get("QLinearSoftmax", 0) == fused
        why = f"the scale of its result is below {2 / (255 * summed):.2g}, where the kernel wraps around"
        assert made.reasons == ([] if fused else [why])
        assert made.gap <= 1


def test_case_4_relu_behind_add() -> None:
    g = Qdq()
    g.out(g.op("Relu", g.op("Add", g.data(4, 50), g.data(4, 50))), 0.0217, 0)
    made = g.fuse(PASS)
    assert made.ops == {"QuantizeLinear": 2, "QLinearAdd": 1}
    assert made.gap <= 1


@pytest.mark.parametrize(
    ("middle", "reason"),
    [
        ("c = Add(d, k)", "k is float"),
        ("c = Add(s, d)", "s is float"),
        ("c = Mul(d, e) n = Neg(c)", "reads its output in float"),
    ],
)
def test_near_misses(middle: str, reason: str) -> None:
    keep(PASS, START + middle + END, reason)


def test_near_miss_types_that_differ() -> None:
    keep(PASS, (START + "c = Add(d, e)" + END).replace("uint8 v = {100}", "int8 v = {100}"), "are uint8, int8, uint8")
    keep(PASS, (START + "c = Add(d, e)" + END).replace("uint8 w", "uint16 w"), "is uint16")


def test_near_miss_ops_without_a_kernel() -> None:
    keep(PASS, START + "c = Sub(d, e)" + END)
