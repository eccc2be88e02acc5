"""What the fuse passes share, on the fusions of MatMul, Conv and Split."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from fusing import Qdq
from rewriting import bitwise, keep, model, together

from onnxq.ir import text
from onnxq.testing import default_context
from onnxq_passes.fuse_integer_movement import FuseIntegerMovement
from onnxq_passes.fuse_matmul_integer_to_float import FuseMatmulIntegerToFloat
from onnxq_passes.fuse_qlinear_matmul import FuseQlinearMatmul

PASS = FuseQlinearMatmul()
CONSTANTS = "float s = {0.02}, uint8 z = {120}, float sy = {0.05}, uint8 zy = {0}, int8[2,2] w = {1, -2, 30, 4}, float sw = {0.01}, int8 zw = {0}"
HEAD = f"(float[2,2] x) => (float[2,2] y) <{CONSTANTS}> "
IN = "[q] q = QuantizeLinear(x, s, z) [d] d = DequantizeLinear(q, s, z) "
WEIGHT = "[wd] wd = DequantizeLinear(w, sw, zw) "
OUT = "[r] r = QuantizeLinear(c, sy, zy) [e] y = DequantizeLinear(r, sy, zy) "
MADE = "[q] q = QuantizeLinear(x, s, z) [mm_QLinearMatMul] r = QLinearMatMul(q, s, z, w, sw, zw, sy, zy) [e] y = DequantizeLinear(r, sy, zy) "


def graph(nodes: str, head: str = HEAD) -> str:
    return f"{head} {{ {nodes} }}"


WHOLE = graph(IN + WEIGHT + "[mm] c = MatMul(d, wd) " + OUT)


def test_many_sites_some_of_them_in_float() -> None:
    together(
        PASS,
        changed=[(WHOLE, graph(MADE), 1)],
        kept=[(graph(IN + WEIGHT + "[n] n = Neg(wd) [mm] c = MatMul(d, n) " + OUT), "n is float")],
        quiet=[graph("[n] n = Neg(x) [mm] y = MatMul(n, x)")],
    )


def test_an_op_without_a_name_gets_that_of_its_kind() -> None:
    graph_ = text.parse(model(WHOLE.replace("[mm] ", ""))).graph
    for node in graph_.nodes:
        node.name = "" if node.op == "MatMul" else node.name
    report = PASS.run(graph_, default_context())
    assert (report.rewrites, report.renamed) == (1, {})
    assert next(n.name for n in graph_.nodes if n.op == "QLinearMatMul") == "QLinearMatMul"


@pytest.mark.parametrize(
    ("nodes", "outputs", "reason"),
    [
        ("[mm] c = MatMul(d, wd) [n] y = Neg(c)", "", "n reads its output in float"),
        ("[mm] c = MatMul(d, wd) [n] y = Neg(x)", "", "nobody reads its output"),
        ("[mm] c = MatMul(d, wd) [l] l = Relu(c) [n] y = Neg(x)", "", "nobody reads l"),
        ("[mm] c = MatMul(d, wd) [r] r = QuantizeLinear(c, sy, zy) [o] o = QuantizeLinear(c, sy, zy) [n] y = Neg(x)", ", uint8[2,2] r, uint8[2,2] o", "is an output of the graph twice"),
        ("[mm] c = MatMul(d, wd) [r] r = QuantizeLinear(c, sy, zy) [o] o = QuantizeLinear(c, s, zy) [n] y = Neg(x)", ", uint8[2,2] r, uint8[2,2] o", "in several encodings"),
        ("[v] v = Abs(sw) [mm] c = MatMul(d, wd) [l] l = Clip(c, v) [r] r = QuantizeLinear(l, sy, zy) [e] y = DequantizeLinear(r, sy, zy)", "", "a bound of l is no constant"),
        ("[mm] c = MatMul(d, wd) [l] l = Clip(c, , two) [r] r = QuantizeLinear(l, sy, zy) [e] y = DequantizeLinear(r, sy, zy)", "", "l cuts inside of the quantized range"),
    ],
)  # fmt: skip
def test_why_an_output_stays(nodes: str, outputs: str, reason: str) -> None:
    head = HEAD.replace("y)", f"y{outputs})").replace("float sw", "float two = {2}, float sw")
    keep(PASS, graph(IN + WEIGHT + nodes, head), reason)


def test_a_reader_without_a_name_is_told_by_its_kind() -> None:
    graph_ = text.parse(model(graph(IN + WEIGHT + "[mm] c = MatMul(d, wd) [n] y = Neg(c)"))).graph
    graph_.nodes[-1].name = ""
    assert [r.reason for r in PASS.run(graph_, default_context()).refusals] == ["Neg reads its output in float"]


def test_an_output_that_is_quantized_in_another_body() -> None:
    head = HEAD.replace("(float[2,2] x)", "(bool b, float[2,2] x)")
    body = "y = If(b) <then_branch = t () => (float[2,2] f) { [r] r = QuantizeLinear(c, sy, zy) [e] f = DequantizeLinear(r, sy, zy) }, else_branch = u () => (float[2,2] g) { [g] g = Neg(x) }>"
    keep(PASS, graph(IN + WEIGHT + "[mm] c = MatMul(d, wd) " + body, head), "r quantizes its output in another body")


def test_an_output_with_a_scale_per_channel() -> None:
    head = HEAD.replace("float sw", "float[2] sc = {0.05, 0.06}, uint8[2] zc = {0, 0}, float sw")
    out = "[r] r = QuantizeLinear<axis = 1>(c, sc, zc) [e] y = DequantizeLinear<axis = 1>(r, sc, zc)"
    keep(
        PASS,
        graph(IN + WEIGHT + "[mm] c = MatMul(d, wd) " + out, head),
        "has a scale per channel, integer kernels write one scale",
    )


def test_of_equal_quantizers_the_one_that_is_an_output_stays() -> None:
    head = HEAD.replace("y)", "y, uint8[2,2] o)")
    nodes = "[mm] c = MatMul(d, wd) [r] r = QuantizeLinear(c, sy, zy) [o] o = QuantizeLinear(c, sy, zy) [e] y = DequantizeLinear(r, sy, zy)"
    bitwise(
        PASS,
        graph(IN + WEIGHT + nodes, head),
        graph(MADE.replace(" r = ", " o = ").replace("(r,", "(o,"), head),
        rewrites=1,
    )


def test_a_dq_that_is_an_output_stays() -> None:
    head = HEAD.replace("y)", "y, float[2,2] d)")
    bitwise(
        PASS,
        graph(IN + WEIGHT + "[mm] c = MatMul(d, wd) " + OUT, head),
        graph(IN + MADE.partition(") ")[2], head),
        rewrites=1,
    )


@pytest.mark.parametrize("bounds", ["Clip(c, low, high)", "Clip(c, low)", "Clip(c, , high)", "Clip(c)", "Relu(c)"])
def test_a_clip_that_saturation_makes_redundant(bounds: str) -> None:
    """-1 is below what the integers hold, 100 above; a bound that is not there bounds nothing."""
    head = HEAD.replace("float sw", "float low = {-1}, float high = {100}, float sw")
    nodes = f"[mm] c = MatMul(d, wd) [l] l = {bounds} " + OUT.replace("(c,", "(l,")
    bitwise(
        PASS,
        graph(IN + WEIGHT + nodes, head),
        graph(MADE, head.replace("float low = {-1}, float high = {100}, ", "")),
        rewrites=1,
    )


@pytest.mark.parametrize(
    ("bounds", "fused"),
    [
        ("min = 0.0, max = 13.0", 1),
        ("min = 0.5, max = 13.0", 0),
        ("min = 0.0, max = 5.0", 0),
        ("max = 13.0", 1),
        ("min = -1.0", 1),
    ],
)
def test_a_clip_of_an_old_opset(bounds: str, fused: int) -> None:
    """Its bounds are attributes. (ONNX Runtime's QLinearMatMul is of opset 10.)"""
    nodes = f"[mm] c = MatMul(d, wd) [l] l = Clip<{bounds}>(c) " + OUT.replace("(c,", "(l,")
    graph_ = text.parse(model(graph(IN + WEIGHT + nodes), 10)).graph
    assert PASS.run(graph_, default_context()).rewrites == fused


def test_constants_that_are_equal_and_small_are_shared() -> None:
    """Zero points per column that the file leaves out: written once for 64 columns, twice for 65."""
    for columns, written in ((64, 1), (65, 2)):
        g = Qdq()
        for _ in range(2):
            scale = g.constant(np.linspace(0.01, 0.02, columns))
            weight = g.op("DequantizeLinear", g.constant(np.ones((3, columns)), "int8"), scale, axis=1)
            g.raw(g.op("MatMul", g.data(2, 3), weight))
        nodes = onnx.load_from_string(g.fuse(FuseMatmulIntegerToFloat()).file).graph.node
        names = {n.input[5] for n in nodes if n.op_type == "MatMulIntegerToFloat"}
        assert len(names) == written and all(n.endswith("_zero_point") for n in names)


def test_a_kernel_that_is_not_there() -> None:
    source = WHOLE.replace("uint8 z = {120}", "int8 z = {12}").replace("uint8 zy = {0}", "int8 zy = {0}")
    source = source.replace("int8[2,2] w = {1, -2, 30, 4}", "uint8[2,2] w = {1, 2, 30, 4}").replace(
        "int8 zw", "uint8 zw"
    )
    keep(FuseQlinearMatmul(native_int8=True), source, "no kernel for int8 data and a uint8 weight")


@pytest.mark.parametrize(
    ("axis", "reason"),
    [
        (1, None),
        (-1, None),
        (0, "has a scale per index of axis 0, the kernel wants axis 1"),
        (-2, "has a scale per index of axis 0, the kernel wants axis 1"),
    ],
)
def test_the_axis_of_the_columns(axis: int, reason: str | None) -> None:
    head = HEAD.replace("float sw = {0.01}, int8 zw = {0}", "float[2] sw = {0.01, 0.02}, int8[2] zw = {0, 0}")
    source = graph(IN + WEIGHT.replace("Linear(", f"Linear<axis = {axis}>(") + "[mm] c = MatMul(d, wd) " + OUT, head)
    if reason is None:
        bitwise(PASS, source, graph(MADE, head), rewrites=1)
    else:
        keep(PASS, source, reason)


def test_a_scale_that_no_kernel_takes() -> None:
    graph_ = text.parse(model(WHOLE.replace("float s = {0.02}", "float s = {-0.02}"))).graph
    assert [r.reason for r in PASS.run(graph_, default_context()).refusals] == [
        "d has a scale or a type that no integer kernel takes"
    ]


SPLIT = """(float[4] x) => (float[2] y) <float s = {{0.02}}, uint8 z = {{120}}> {{ [q] q = QuantizeLinear(x, s, z) {0} [e] y = DequantizeLinear(r, s, z) }}"""


def test_unread_outputs_in_front_of_a_read_one() -> None:
    before = SPLIT.format(
        "[d] d = DequantizeLinear(q, s, z) [p] a, c = Split<num_outputs = 2>(d) [r] r = QuantizeLinear(c, s, z)"
    )
    after = SPLIT.format("[p] a, r = Split<num_outputs = 2>(q)")
    bitwise(FuseIntegerMovement(), before, after, rewrites=1)
    graph_ = text.parse(model(before.replace("uint8 z =", "int8 z =").replace("{120}", "{12}"))).graph
    graph_.nodes[0].outputs[0].dtype = np.dtype(np.int8)
    assert FuseIntegerMovement().run(graph_, default_context()).rewrites == 1
    assert np.dtype(graph_.nodes[1].outputs[0].dtype) == np.int8


def test_many_moves() -> None:
    before = SPLIT.replace("(float[2] y)", "(float[4] y)").format(
        "[d] d = DequantizeLinear(q, s, z) [p] c = Identity(d) [r] r = QuantizeLinear(c, s, z)"
    )
    after = SPLIT.replace("(float[2] y)", "(float[4] y)").format("[p] r = Identity(q)")
    together(FuseIntegerMovement(), changed=[(before, after, 1)])
