from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from fusing import DATA, OUT, Qdq
from rewriting import keep, model, rewrite, together
from unfusing import unfuse

from onnxq.ir import load, save, text
from onnxq.pipeline.base import Pass
from onnxq.runtime.session import optimized
from onnxq.testing import check_pass, default_context
from onnxq_passes.fuse_matmul_integer_to_float import FuseMatmulIntegerToFloat
from onnxq_passes.fuse_qgemm import FuseQgemm
from onnxq_passes.fuse_qlinear_concat import FuseQlinearConcat
from onnxq_passes.fuse_qlinear_conv import FuseQlinearConv
from onnxq_passes.fuse_qlinear_elementwise import FuseQlinearElementwise
from onnxq_passes.fuse_qlinear_matmul import FuseQlinearMatmul
from onnxq_passes.fuse_qlinear_pool import FuseQlinearPool
from onnxq_passes.fuse_qlinear_where import FuseQlinearWhere
from onnxq_passes.unfuse_qlinear import UnfuseQlinear

PASS = UnfuseQlinear()
SEVERAL: Any = np.linspace(0.00213, 0.00437, 24).astype(np.float32)


def test_contract() -> None:
    check_pass(UnfuseQlinear)


def conv(g: Qdq, kind: str) -> str:
    bias = g.dq(g.constant(np.arange(24) * 311 - 3000, "int32"), np.float32(DATA) * SEVERAL, [0] * 24, "int32")
    weight = g.weight(24, 3, 3, 3, scale=SEVERAL, zero=[0] * 24)
    return str(
        g.op("Conv", g.data(2, 6, 9, 9, kind=kind, zero=5), weight, bias, pads=[1, 1, 0, 2], strides=[2, 1], group=2)
    )


def matmul(g: Qdq, kind: str) -> str:
    return str(
        g.op("MatMul", g.data(2, 6, 40, kind=kind, zero=5), g.weight(40, 24, scale=SEVERAL, zero=[0] * 24, axis=1))
    )


def gemm(g: Qdq, kind: str) -> str:
    bias = g.dq(g.constant(np.arange(24) * 311 - 3000, "int32"), np.float32(DATA) * SEVERAL, [0] * 24, "int32")
    weight = g.weight(24, 40, scale=SEVERAL, zero=[0] * 24)
    return str(g.op("Gemm", g.data(6, 40, kind=kind, zero=5), weight, bias, transB=1))


def scaled_gemm(g: Qdq, kind: str) -> str:
    weight = g.weight(40, 24, scale=0.00317)
    return str(g.op("Gemm", g.data(40, 6, kind=kind, zero=5), weight, transA=1, alpha=0.75))


def unary(op: str, **attributes: Any) -> Callable[[Qdq, str], str]:
    return lambda g, kind: str(g.op(op, g.data(2, 6, 9, 9, kind=kind, zero=5), **attributes))


def binary(op: str) -> Callable[[Qdq, str], str]:
    return lambda g, kind: str(g.op(op, g.data(4, 60, kind=kind, zero=5), g.data(60, scale=0.0177, kind=kind, zero=9)))


def concat(g: Qdq, kind: str) -> str:
    parts = [g.data(4, n, scale=s, kind=kind, zero=5) for n, s in ((30, 0.0177), (20, 0.0319), (10, 0.0251))]
    return str(g.op("Concat", *parts, axis=1))


def where(g: Qdq, kind: str) -> str:
    mask = g.constant(np.arange(60) % 3 == 0, "bool")
    return str(g.op("Where", mask, g.data(4, 60, kind=kind, zero=5), g.data(60, scale=0.0319, kind=kind, zero=9)))


CASES: dict[str, tuple[Callable[[Qdq, str], str], Pass, int]] = {
    "Conv": (conv, FuseQlinearConv(native_int8=True), 0),
    "MatMul": (matmul, FuseQlinearMatmul(native_int8=True), 0),
    "Gemm": (gemm, FuseQgemm(native_int8=True), 0),
    "Gemm, alpha": (scaled_gemm, FuseQgemm(native_int8=True), 0),
    "Add": (binary("Add"), FuseQlinearElementwise(), 1),
    "Mul": (binary("Mul"), FuseQlinearElementwise(), 1),
    "LeakyRelu": (unary("LeakyRelu", alpha=0.13), FuseQlinearElementwise(), 0),
    "Sigmoid": (unary("Sigmoid"), FuseQlinearElementwise(), 0),
    "Softmax": (unary("Softmax", axis=1), FuseQlinearElementwise(), 1),
    "AveragePool": (unary("AveragePool", kernel_shape=[3, 2], pads=[1, 0, 0, 1], strides=[2, 1]), FuseQlinearPool(), 0),
    "GlobalAveragePool": (unary("GlobalAveragePool"), FuseQlinearPool(), 1),
    "Concat": (concat, FuseQlinearConcat(), 0),
    "Where": (where, FuseQlinearWhere(), 0),
}
"""op -> graph, the pass that fuses it, and the greatest gap to the integer kernel in steps of the output."""


@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize("op", CASES)
def test_steps(op: str, kind: str) -> None:
    build, fuse, steps = CASES[op]
    g = Qdq()
    small = op in ("Sigmoid", "Softmax")
    g.out(build(g, kind), 1 / 256 if small else OUT, -100 if small and kind == "int8" else 9, kind)
    made = unfuse(g, PASS, fused=[fuse])
    assert made.rewrites == 1
    assert made.ops[op.partition(",")[0]] == 1
    assert not any(name.startswith(("QLinear", "QGemm")) for name in made.ops)
    assert made.gap <= steps
    assert made.spread > 4


@pytest.mark.parametrize("op", ["Gemm", "MatMul"])
def test_case_3_a_float_result(op: str) -> None:
    g = Qdq()
    result = (gemm if op == "Gemm" else matmul)(g, "uint8")
    g.raw(result if op == "Gemm" else g.op("Add", result, g.constant(np.linspace(-1, 1, 24))))
    made = unfuse(g, PASS, fused=[FuseQgemm() if op == "Gemm" else FuseMatmulIntegerToFloat()])
    assert made.rewrites == 1
    assert made.ops[op] == 1 and made.ops["QuantizeLinear"] == 1
    assert made.gap < 1e-5


STEPS = np.float32(DATA) * SEVERAL


@pytest.mark.parametrize(
    ("bias", "integer"),
    [
        ((np.arange(24) * 311 - 3000).astype(np.float32) * STEPS, True),
        (np.zeros(24), True),
        (np.linspace(-1, 1, 24), False),  # between the steps
        ((np.arange(24) * 311 - 3000).astype(np.float32) * STEPS * np.float32(1 + 2**-22), False),  # by two bits
        (np.full(24, 3e9) * STEPS, False),  # beyond int32
    ],
)
def test_case_3_a_float_bias_that_lies_on_the_steps(bias: Any, integer: bool) -> None:
    """It was int32 before somebody fused it; ONNX Runtime makes a float Gemm of the Add of a float bias."""
    g = Qdq()
    matrix = g.op("MatMul", g.data(6, 40, zero=5), g.weight(40, 24, scale=SEVERAL, zero=[0] * 24, axis=1))
    g.raw(g.op("Add", matrix, g.constant(bias)))
    made = unfuse(g, PASS, fused=[FuseMatmulIntegerToFloat()])
    assert made.ops == {"QuantizeLinear": 1, "DequantizeLinear": 3 if integer else 2, "MatMul": 1, "Add": 1}
    assert made.gap < 1e-5 * max(1.0, float(np.abs(bias).max()))
    kernels = kernels_of(g, PASS, FuseMatmulIntegerToFloat())
    assert (kernels["QGemm"], kernels["Gemm"]) == ((1, 0) if integer else (0, 1))


def kernels_of(graph: Qdq, *passes: Pass) -> Counter[str]:
    """Operators of ONNX Runtime's optimized graph behind the fusion and the way back."""
    back, fuse = passes
    parsed = load.from_proto(onnx.load_from_string(graph.fuse(fuse).file))
    back.run(parsed.graph, default_context())
    return Counter(n.op_type for n in onnx.load_from_string(optimized(save.to_bytes(parsed))).graph.node)


CONSTANTS = "float s = {0.02}, uint8 z = {120}, float t = {0.03}, uint8 v = {100}, float u = {0.05}, uint8 w = {90}"
HEAD = f"(float[2,3] x, float[3] k) => (float[2,3] y) <{CONSTANTS}> "
QS = "{ q = QuantizeLinear(x, s, z) p = QuantizeLinear(k, t, v) "
END = " y = DequantizeLinear(r, u, w) }"


def test_case_1_the_op_keeps_its_name_and_its_result_too() -> None:
    after = (
        "(float[2,3] x, float[3] k) => (float[2,3] y) <float s = {0.02}, uint8 z = {120}, float t = {0.03}, uint8 v = {100}, float u = {0.05}, uint8 w = {90}, "
        "float q_scale = {0.02}, uint8 q_zero_point = {120}, float p_scale = {0.03}, uint8 p_zero_point = {100}, float r_scale = {0.05}, uint8 r_zero_point = {90}> "
        "{ q = QuantizeLinear(x, s, z) p = QuantizeLinear(k, t, v) [q_DequantizeLinear] a = DequantizeLinear(q, q_scale, q_zero_point) "
        "[p_DequantizeLinear] b = DequantizeLinear(p, p_scale, p_zero_point) [add] c = Add(a, b) "
        "[r_QuantizeLinear] r = QuantizeLinear(c, r_scale, r_zero_point) y = DequantizeLinear(r, u, w) }"
    )
    before = HEAD + QS + "[add] r = com.microsoft.QLinearAdd(q, s, z, p, t, v, u, w)" + END
    rewrite(
        PASS,
        before,
        after.replace(" a = ", " q_dequantized = ")
        .replace(" b = ", " p_dequantized = ")
        .replace("Add(a, b)", "Add(q_dequantized, p_dequantized)")
        .replace(" c = ", " r_float = ")
        .replace("Linear(c,", "Linear(r_float,"),
        rewrites=1,
        atol=0.05001,
    )


def test_beside_what_stays() -> None:
    head = f"(float[2,3] x) => (float[2,3] y) <{CONSTANTS}> "
    before = head + "{ q = QuantizeLinear(x, s, z) [a] r = com.microsoft.QLinearSigmoid(q, s, z, u, w)" + END
    after = (
        head[:-2]
        + ", float q_scale = {0.02}, uint8 q_zero_point = {120}, float r_scale = {0.05}, uint8 r_zero_point = {90}> "
        "{ q = QuantizeLinear(x, s, z) [q_DequantizeLinear] q_dequantized = DequantizeLinear(q, q_scale, q_zero_point) "
        "[a] r_float = Sigmoid(q_dequantized) [r_QuantizeLinear] r = QuantizeLinear(r_float, r_scale, r_zero_point)"
        + END
    )
    pool = (
        f"(float[1,2,3,4] x) => (float[1,1,1,4] y) <{CONSTANTS}> {{ q = QuantizeLinear(x, s, z) "
        "[a] r = com.microsoft.QLinearGlobalAveragePool<channels_last = 1>(q, s, z, u, w)" + END
    )
    computed = (
        f"(float[2,3] x, float e) => (float[2,3] y) <{CONSTANTS}> {{ q = QuantizeLinear(x, s, z) "
        "[a] r = com.microsoft.QLinearSigmoid(q, s, z, e, w)" + END
    )
    together(
        PASS,
        changed=[(before, after, 1)],
        kept=[(pool, "NHWC form"), (computed, "computed at run time")],
        quiet=["(float[2,3] x) => (float[2,3] y) { [a] y = com.microsoft.Gelu(x) }"],
        turns=1,  # constants of equal sites are shared
        atol=1e-6,
    )


def test_operators_of_other_domains_are_none_of_its_business() -> None:
    for node in ("QLinearAdd(q, s, z, q, s, z, u, w)", "QLinearPow(q, s, z, u, w)"):
        graph = parsed(HEAD + QS + f"[a] r = elsewhere.{node}" + END, 21)
        report = PASS.run(graph, default_context())
        assert (report.rewrites, report.refusals) == (0, [])


@pytest.mark.parametrize(
    "node",
    [
        "QLinearSigmoid(q, s, , u, )",
        "QLinearMul(q, s, , q, s, , u, )",
        "QLinearConcat<axis = 0>(u, , q, s, )",
        "QLinearWhere(c, q, s, , q, s, , u, )",
    ],
)
def test_case_4_a_zero_point_that_is_left_out_has_the_type_of_the_data(node: str) -> None:
    head = (
        f"(float[2,3] x, bool[2,3] c) => (float[2,3] y) <{CONSTANTS}, int8 i = {{7}}> {{ q = QuantizeLinear(x, s, i) "
    )
    graph = parsed(head + f"[a] r = com.microsoft.{node} y = DequantizeLinear(r, u, i) }}", 21)
    assert PASS.run(graph, default_context()).rewrites == 1
    numbers = [n.inputs[2].values for n in graph.nodes if n.op in ("QuantizeLinear", "DequantizeLinear")]
    assert [(str(v.dtype), int(v)) for v in numbers] == [("int8", 7), ("int8", 0), ("int8", 0), ("int8", 7)]


def test_case_4_integers_of_a_type_that_nobody_tells_stay() -> None:
    made = "[o] m = com.microsoft.QLinearReduceMean<axes = [1], keepdims = 1>(q, s, z, u, w) "
    graph = parsed(HEAD + QS + made + "[a] r = com.microsoft.QLinearSigmoid(m, s, , u, )" + END, 21)
    reasons = [r.reason for r in PASS.run(graph, default_context()).refusals]
    assert len(reasons) == 2 and "says the type of its integers" in reasons[1]


def test_case_4_one_dq_for_equal_readers_and_zero_points_are_written() -> None:
    """ONNX Runtime 1.31.1 loads no QLinearAdd without zero points, and aborts on such a QLinearSigmoid: text only."""
    body = (
        QS
        + "[a] m = com.microsoft.QLinearAdd(q, s, , q, s, z, u, ) [b] r = com.microsoft.QLinearMul(q, s, , m, u, , u, ) y = DequantizeLinear(r, u, z) }"
    )
    graph = parsed(HEAD + body, 21)
    assert PASS.run(graph, default_context()).rewrites == 2
    made = [(n.name, [t.name for t in n.inputs]) for n in graph.nodes if n.op == "DequantizeLinear"]
    zeros = {t.name: int(t.values) for n in graph.nodes for t in n.inputs[2:3]}
    assert [name for name, _ in made[:3]] == ["q_DequantizeLinear", "q_DequantizeLinear_1", "m_DequantizeLinear"]
    assert [zeros[inputs[2]] for _, inputs in made[:3]] == [0, 120, 0]
    assert [n.op for n in graph.nodes if n.name in ("a", "b")] == ["Add", "Mul"]


def test_case_5_what_stays() -> None:
    graph = "(float[2,3] x, float e) => (float[2,3] y) <" + CONSTANTS + "> "
    keep(
        PASS,
        graph + "{ q = QuantizeLinear(x, s, z) [a] r = com.microsoft.QLinearSigmoid(q, e, z, u, w)" + END,
        "computed at run time",
    )
    pool = "(float[1,2,3,4] x) => (float[1,1,1,4] y) <" + CONSTANTS + "> { q = QuantizeLinear(x, s, z) "
    keep(
        PASS,
        pool + "[a] r = com.microsoft.QLinearGlobalAveragePool<channels_last = 1>(q, s, z, u, w)" + END,
        "NHWC form",
    )
    graph = parsed(
        HEAD + QS + "[a] r = com.microsoft.QLinearReduceMean<axes = [1], keepdims = 1>(q, s, z, u, w)" + END, 21
    )
    report = PASS.run(graph, default_context())
    assert [r.reason for r in report.refusals] == ["QLinearReduceMean has no float form here"]


@pytest.mark.parametrize(
    ("node", "attributes"),
    [
        ("QLinearGlobalAveragePool<channels_last = 0>(q, s, z, u, w)", {}),
        ("QLinearAveragePool<kernel_shape = [2, 2], channels_last = 0>(q, s, z, u, w)", {"kernel_shape": [2, 2]}),
        ("QLinearConv<channels_last = 0, group = 2>(q, s, z, f, t, v, u, w)", {"group": 2}),
    ],
)
def test_the_float_op_has_no_attribute_of_the_integer_one(node: str, attributes: dict[str, Any]) -> None:
    """ONNX Runtime's optimizer writes channels_last = 0, too, which is the form of the standard."""
    head = f"(float[1,2,3,4] x) => (y) <{CONSTANTS}, uint8[2,1,1,1] f = {{3, 4}}> {{ q = QuantizeLinear(x, s, z) "
    graph = parsed(head + f"[a] r = com.microsoft.{node}" + END, 21)
    assert PASS.run(graph, default_context()).rewrites == 1
    assert [n.attrs for n in graph.nodes if n.name == "a"] == [attributes]


def parsed(graph: str, opset: int) -> Any:
    return text.parse(model(graph, opset)).graph


def rewrites(graph: str, opset: int) -> int:
    return PASS.run(parsed(graph, opset), default_context()).rewrites


def test_case_5_per_channel_below_opset_13() -> None:
    head = (
        "(float[1,1,2,2] x) => (float[1,2,2,2] y) <"
        + CONSTANTS
        + ", int8[2,1,1,1] f = {3, -4}, float[{0}] o = {{0.1, 0.2}}, int8[{0}] i = {{0, 0}}> "
    )
    body = "{ q = QuantizeLinear(x, s, z) [c] r = QLinearConv(q, s, z, f, o, i, u, w)" + END
    several = head.replace("[{0}]", "[2]").replace("{{", "{").replace("}}", "}")
    keep(PASS, several + body, "from opset 13 on, the model has 12", opset=12)
    one = head.replace("[{0}]", "").replace("{{0.1, 0.2}}", "{0.1}").replace("{{0, 0}}", "{0}")
    assert rewrites(one + body, 12) == 1


def test_softmax_of_another_opset_keeps_its_axes() -> None:
    soft = HEAD + QS + "[a] r = com.microsoft.QLinearSoftmax<axis = 0, opset = {}>(q, s, z, u, w)" + END
    keep(PASS, soft.replace("{}", "11"), "its axes are those of opset 11")
    keep(PASS, soft.replace("{}", "11").replace("= 0", "= 1"), "its axes are those of opset 11")
    assert rewrites(soft.replace("{}", "13"), 21) == 1
    assert rewrites(soft.replace("{}", "13"), 13) == 1
    assert rewrites(soft.replace("{}", "12"), 12) == 1
    for last in (soft.replace("{}", "11").replace("= 0", "= -1"), soft.replace("axis = 0, opset = {}", "opset = 11")):
        graph = parsed(last, 21)  # the last axis alone is the same in each opset
        assert PASS.run(graph, default_context()).rewrites == 1
        assert [n.attrs for n in graph.nodes if n.op == "Softmax"] == [{"axis": -1}]


def test_softmax_without_opset_is_of_the_newest() -> None:
    soft = HEAD + QS + "[a] r = com.microsoft.QLinearSoftmax<axis = 0>(q, s, z, u, w)" + END
    assert (rewrites(soft, 21), rewrites(soft, 12)) == (1, 0)
