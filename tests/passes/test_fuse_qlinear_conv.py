from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from fusing import DATA, OUT, Qdq
from onnx import numpy_helper
from rewriting import bitwise, keep, model

from onnxq.ir import text
from onnxq.testing import check_pass, default_context
from onnxq_passes.fuse_qlinear_conv import FuseQlinearConv
from onnxq_passes.signed_to_unsigned import SignedToUnsigned

PASS = FuseQlinearConv()
CONSTANTS = """float s = {0.02}, uint8 z = {120}, float sy = {0.05}, uint8 zy = {3}, int8[2,1,2,2] w = {1, -2, 30, 4, 5, 60, -7, 8},
    float[2] sw = {0.01, 0.02}, int8[2] zw = {0, 0}, int32[2] b = {5, -9}, float[2] sb = {0.0002, 0.0004}, int32[2] zb = {0, 0}"""
HEAD = f"(float[1,1,4,4] x) => (float[1,2,3,3] y) <{CONSTANTS}> "
GRAPH = (
    HEAD
    + """{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) wd = DequantizeLinear<axis = 0>(w, sw, zw)
    bd = DequantizeLinear<axis = 0>(b, sb, zb) [conv] c = Conv(d, wd, bd) r = QuantizeLinear(c, sy, zy) y = DequantizeLinear(r, sy, zy) }"""
)


def test_contract() -> None:
    check_pass(FuseQlinearConv)


def test_the_whole_group_becomes_one_op() -> None:
    after = (
        HEAD
        + "{ q = QuantizeLinear(x, s, z) [conv_QLinearConv] r = QLinearConv(q, s, z, w, sw, zw, sy, zy, b) y = DequantizeLinear(r, sy, zy) }"
    )
    report = bitwise(PASS, GRAPH, after, rewrites=1)
    assert report.renamed == {"conv_QLinearConv": "conv"}


CONVS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "2D": ((1, 8, 9, 9), (6, 8, 3, 3), {"pads": [1, 1, 1, 1]}),
    "strided": ((2, 4, 9, 9), (6, 4, 3, 3), {"strides": [2, 2], "dilations": [2, 2]}),
    "depthwise": ((1, 8, 9, 9), (8, 1, 3, 3), {"group": 8}),
    "grouped": ((1, 8, 9, 9), (6, 4, 3, 3), {"group": 2, "auto_pad": "SAME_UPPER"}),
    "1D": ((1, 5, 30), (6, 5, 4), {}),
    "3D": ((1, 3, 6, 6, 6), (6, 3, 2, 2, 2), {}),
}


@pytest.mark.parametrize("kind", ["int8", "uint8"])
@pytest.mark.parametrize("channels", [True, False], ids=["per channel", "per tensor"])
@pytest.mark.parametrize("form", CONVS)
def test_bit_for_bit(form: str, channels: bool, kind: str) -> None:
    data, weight, attributes = CONVS[form]
    g = Qdq()
    scale: Any = list(np.linspace(0.00213, 0.00437, weight[0])) if channels else 0.00317
    zero = 0 if kind == "int8" else 128
    w = g.weight(*weight, scale=scale, zero=zero, kind=kind)
    steps = (np.float32(DATA) * np.asarray(scale, np.float32)).astype(np.float32)
    bias = g.op("DequantizeLinear", g.constant(np.arange(weight[0]) * 777 - 1500, "int32"), g.constant(steps), axis=0)
    g.out(g.op("Conv", g.data(*data), w, bias, **attributes))
    made = g.fuse(PASS)
    assert made.ops == {"QuantizeLinear": 1, "QLinearConv": 1}
    assert made.gap == 0
    assert made.spread() > 30


def test_case_1_weights_that_are_computed() -> None:
    g = Qdq()
    g.out(g.op("Conv", g.data(1, 3, 8, 8), g.data(4, 3, 3, 3, scale=0.03, zero=0, kind="int8")))
    made = g.fuse(PASS)
    assert made.ops == {"QuantizeLinear": 2, "QLinearConv": 1}
    assert made.gap == 0


def test_case_1_missing_zero_points_are_zeros() -> None:
    """ONNX Runtime leaves such a Conv float; a zero point that is not there is 0, so that writing it is exact."""
    g = Qdq()
    w = g.op("DequantizeLinear", g.constant(np.arange(36).reshape(4, 1, 3, 3) - 18, "int8"), g.constant(0.01))
    q = g.op("QuantizeLinear", g.op("Conv", g.data(1, 1, 8, 8), w), g.constant(0.02))
    g.raw(q, "uint8")
    made = g.fuse(PASS)
    assert made.ops == {"QuantizeLinear": 1, "QLinearConv": 1}
    assert made.gap == 0


def _biased(bias: list[float], **weight: Any) -> Qdq:
    g = Qdq()
    g.out(g.op("Conv", g.data(1, 2, 8, 8), g.weight(3, 2, 3, 3, **weight), g.constant(bias)))
    return g


def test_case_3_a_float_bias() -> None:
    made = _biased([0.5, -1.25, 0.001], scale=[0.001, 0.002, 0.003]).fuse(PASS)
    assert made.ops == {"QuantizeLinear": 1, "QLinearConv": 1}
    assert made.gap <= 1
    biases = [i for i in onnx.load_from_string(made.file).graph.initializer if i.data_type == onnx.TensorProto.INT32]
    steps = np.float64(np.float32(DATA)) * np.asarray([0.001, 0.002, 0.003], np.float32)
    np.testing.assert_array_equal(numpy_helper.to_array(biases[0]), np.rint(np.array([0.5, -1.25, 0.001]) / steps))


@pytest.mark.parametrize("scale", [[1e-9, 0.002, 1e-9], 1e-9], ids=["per channel", "per tensor"])
def test_case_3_a_bias_that_leaves_int32_widens_the_scales(scale: Any) -> None:
    made = _biased([3.0, 1.0, -3.0], scale=scale).fuse(PASS)
    assert made.ops == {"QuantizeLinear": 1, "QLinearConv": 1}
    assert made.gap <= 1
    assert made.spread() >= 3
    assert "widened" in made.reports[0].notes[0]
    assert _biased([3.0, 1.0, -3.0], scale=0.00217).fuse(PASS).reports[0].notes == []


def test_case_3_a_bias_that_leaves_int32_and_a_weight_that_is_computed() -> None:
    g = Qdq()
    w = g.data(4, 3, 3, 3, scale=1e-9, zero=0, kind="int8")
    g.out(g.op("Conv", g.data(1, 3, 8, 8), w, g.constant([3.0, 3, 3, 3])))
    made = g.fuse(PASS)
    assert made.ops["Conv"] == 1
    assert "could be widened" in made.reasons[0]


ACTIVATIONS = {
    "Relu": ("Relu", ()),
    "Relu6": ("Clip", (0.0, 6.0)),
    "exact Clip": ("Clip", (0.0, 255 * 0.02113)),
}


@pytest.mark.parametrize("form", ACTIVATIONS)
def test_case_4_saturation_does_it(form: str) -> None:
    op, bounds = ACTIVATIONS[form]
    g = Qdq()
    c = g.op("Conv", g.data(1, 2, 8, 8), g.weight(3, 2, 3, 3, scale=0.00217))
    g.out(g.op(op, c, *(g.constant(b) for b in bounds)), scale=0.02113, zero=0)
    made = g.fuse(PASS)
    assert made.ops == {"QuantizeLinear": 1, "QLinearConv": 1}
    assert made.gap == 0


@pytest.mark.parametrize(("op", "bounds", "zero"), [("Relu", (), 1), ("Clip", (0.0, 5.0), 0), ("Clip", (0.1, 6.0), 0)])
def test_near_miss_an_activation_that_does_something(op: str, bounds: tuple[float, ...], zero: int) -> None:
    g = Qdq()
    c = g.op("Conv", g.data(1, 2, 8, 8), g.weight(3, 2, 3, 3, scale=0.00217))
    g.out(g.op(op, c, *(g.constant(b) for b in bounds)), scale=0.02, zero=zero)
    made = g.fuse(PASS)
    assert made.ops["Conv"] == 1
    assert "cuts inside of the quantized range" in made.reasons[0]


def test_case_5_int8_data() -> None:
    def build() -> Qdq:
        g = Qdq()
        c = g.op("Conv", g.data(1, 2, 8, 8, zero=-8, kind="int8"), g.weight(3, 2, 3, 3, scale=0.00217))
        g.raw(g.dq(g.q(c, OUT, -20, "int8"), OUT, -20, "int8"))
        return g

    kept = build().fuse(PASS)
    assert kept.ops["Conv"] == 1
    assert "run signed-to-unsigned first" in kept.reasons[0]
    for passes in ((SignedToUnsigned(), PASS), (FuseQlinearConv(native_int8=True),)):
        made = build().fuse(*passes)
        assert made.ops == {"QuantizeLinear": 1, "QLinearConv": 1, "DequantizeLinear": 1}
        assert made.gap == 0


NEAR: dict[str, tuple[tuple[str, str], str]] = {
    "axis": (("<axis = 0>(w,", "<axis = 1>(w,"), "wants axis 0"),
    "zero points differ": (("int8[2] zw = {0, 0}", "int8[2] zw = {0, 1}"), "different zero points"),
    "bias scale": (("sb = {0.0002, 0.0004}", "sb = {0.0002, 0.0003}"), "not that of the data times that of the weight"),
    "bias zero point": (("zb = {0, 0}", "zb = {0, 1}"), "has a zero point"),
    "read in float": (("r = Q", "n = Neg(c) r = Q"), "reads its output in float"),
    "relu read twice": (("r = Quantize", "n = Relu(c) r = Quantize"), "reads its output in float"),
    "two encodings": (("r = Q", "n = QuantizeLinear(c, s, zy) r = Q"), "in several encodings"),
    "float data": (("Conv(d,", "Conv(x,"), "x is float"),
    "float weight": (("wd, bd)", "wf, bd)"), "wf is float"),
    "16 bits": (("uint8 zy", "uint16 zy"), "is uint16, the kernel takes uint8 and int8"),
    "not quantized": (
        ("r = QuantizeLinear(c, sy, zy) y = DequantizeLinear(r, sy, zy)", "y = Neg(c)"),
        "reads its output in float",
    ),
}


@pytest.mark.parametrize("case", NEAR)
def test_near_misses(case: str) -> None:
    (old, new), reason = NEAR[case]
    graph = GRAPH.replace(old, new)
    if case == "axis":
        graph = graph.replace(
            "[2,1,2,2] w = {1, -2, 30, 4, 5, 60, -7, 8}", "[2,2,1,2] w = {1, -2, 30, 4, 5, 60, -7, 8}"
        )
        graph = graph.replace("[1,1,4,4] x", "[1,2,3,4] x")
    if case == "float weight":
        graph = graph.replace("wd = Deq", "wi = Deq").replace("[conv]", "wf = Neg(wi) [conv]")
    assert graph != GRAPH
    keep(PASS, graph, reason)


def test_scales_of_shape_1_become_scalars() -> None:
    before = GRAPH.replace("float s = {0.02}, uint8 z = {120}", "float[1] s = {0.02}, uint8[1] z = {120}")
    scalars = HEAD.replace(
        "int32[2] b",
        "float q_scale = {0.02}, uint8 q_zero_point = {120}, float[1] s1 = {0.02}, uint8[1] z1 = {120}, int32[2] b",
    )
    after = """{ q = QuantizeLinear(x, s1, z1) [conv_QLinearConv] r = QLinearConv(q, q_scale, q_zero_point, w, sw, zw, sy, zy, b)
        y = DequantizeLinear(r, sy, zy) }"""
    before = before.replace(" s = {", " s1 = {").replace(" z = {", " z1 = {").replace("s, z)", "s1, z1)")
    bitwise(PASS, before, scalars + after, rewrites=1)


def test_near_miss_a_scale_per_channel_of_the_data() -> None:
    g = Qdq()
    scales = g.constant([0.02, 0.03])
    q = g.op("QuantizeLinear", g.data(1, 2, 8, 8), scales, g.constant([1, 2], "uint8"), axis=1)
    g.out(g.op("Conv", g.dq(q, [0.02, 0.03], [1, 2], axis=1), g.weight(3, 2, 3, 3, scale=0.00217)))
    made = g.fuse(PASS)
    assert made.ops["Conv"] == 1
    assert "has a scale per channel" in made.reasons[0]


def test_near_miss_scales_that_are_computed() -> None:
    graph = GRAPH.replace("q = Q", "ss = Abs(s) q = Q").replace("DequantizeLinear(q, s,", "DequantizeLinear(q, ss,")
    keep(PASS, graph, "is no constant")


def test_near_miss_an_output_that_is_one_of_the_graph_in_float() -> None:
    g = Qdq()
    c = g.op("Conv", g.data(1, 2, 8, 8), g.weight(3, 2, 3, 3, scale=0.00217))
    g.out(c)
    g.raw(c)
    made = g.fuse(PASS)
    assert made.ops["Conv"] == 1
    assert "an output of the graph in float" in made.reasons[0]


def test_several_equal_quantizers_and_readers() -> None:
    g = Qdq()
    x = g.data(1, 2, 8, 8)
    c = g.op("Conv", x, g.weight(3, 2, 3, 3, scale=0.00217))
    g.out(c)
    g.raw(g.op("Neg", g.dq(g.q(c, OUT, 100), OUT, 100)))
    g.raw(g.op("Neg", x))
    made = g.fuse(PASS)
    assert made.ops == {"QuantizeLinear": 1, "QLinearConv": 1, "DequantizeLinear": 2, "Neg": 2}
    assert made.gap == 0


def test_case_1_an_axis_counted_from_behind() -> None:
    behind = GRAPH.replace("<axis = 0>(w,", "<axis = -4>(w,")
    made, same = (text.parse(model(g)) for g in (behind, GRAPH))
    assert behind != GRAPH
    assert [PASS.run(m.graph, default_context()).rewrites for m in (made, same)] == [1, 1]
    assert text.text(made.graph) == text.text(same.graph)


@pytest.mark.parametrize(("axis", "rewrites"), [(0, 1), (-1, 0)])
def test_case_1_a_weight_of_unknown_rank(axis: int, rewrites: int) -> None:
    graph = GRAPH.replace("wd = DequantizeLinear<axis = 0>(w,", f"wm = Max(w) wd = DequantizeLinear<axis = {axis}>(wm,")
    made = text.parse(model(graph))
    report = PASS.run(made.graph, default_context())
    assert (report.rewrites, len(report.refusals)) == (rewrites, 1 - rewrites)


def test_near_miss_an_output_of_another_type() -> None:
    g = Qdq()
    g.out(g.op("Conv", g.data(1, 2, 8, 8), g.weight(3, 2, 3, 3, scale=0.00217)), kind="int8", zero=3)
    made = g.fuse(PASS)
    assert made.reasons == ["its data is uint8, its output int8"]


def _at_the_limit(terms: int, steps: list[float]) -> Qdq:
    """A Conv with as many terms a sum, all steps 2**-10, and a bias of so many steps."""
    g = Qdq()
    w = g.dq(g.constant(np.ones((len(steps), terms, 1)), "int8"), 2.0**-5, 0, "int8")
    bias = g.constant([s * 2.0**-10 for s in steps])
    g.out(g.op("Conv", g.data(1, terms, 1, scale=2.0**-5), w, bias), scale=8192.0)
    return g


@pytest.mark.parametrize(
    ("terms", "limit"), [(1, 2**31 - 1 - 255 * 128), (3, 2**31 - 1 - 3 * 255 * 128), (40000, 2**30)]
)
@pytest.mark.parametrize("channels", [1, 2])
def test_case_3_room_for_the_products(terms: int, limit: int, channels: int) -> None:
    """int32 less 255 * 128 a term, but not less than half of int32: the last float32 that fits, and the next one."""
    fits = limit if limit == 2**30 else limit + 1 - 128
    for steps, notes in ((fits, 0), (-fits, 0), (fits + 128, 1)):
        made = _at_the_limit(terms, [float(steps), 1.0][:channels]).fuse(PASS)
        assert made.ops["QLinearConv"] == 1
        assert len(made.reports[0].notes) == notes


def test_case_3_the_widened_scale_is_the_least_that_will_do() -> None:
    """Twice the room is twice the scale, to the bit; other factors are rounded up."""
    for factor in (2.0, 2.2, 2.6, 3.1):
        steps = float(np.float32(factor * 2**30))
        made = _at_the_limit(40000, [steps]).fuse(PASS)
        constants = {i.name: numpy_helper.to_array(i) for i in onnx.load_from_string(made.file).graph.initializer}
        (wide,) = (v for n, v in constants.items() if n.endswith("_scale_widened"))
        assert wide.dtype == np.float32
        exact = steps / 2**30 * 2.0**-5
        assert float(np.nextafter(wide, np.float32(0))) < exact <= float(wide)


def test_case_3_what_is_written_where_a_bias_overflows() -> None:
    head = """(float[1,1,1,1] x) => (uint8[1,3,1,1] y) <float s = {1}, uint8 z = {0}, int8[3,1,1,1] w = {64, 64, 64}, float[3] sw = {1, 1e-12, 1e-12},
        int8[3] zw = {0, 0, 0}"""
    old, new = (
        "float[3] b = {2, 2, -3}",
        "int8[3,1,1,1] w_widened = {64, 0, 0}, float[3] w_scale_widened = {%s}, int32[3] b_int32 = {2, %s}",
    )
    room = 2**31 - 1 - 255 * 128
    wide = [np.float32(v / room) for v in (2.0, 3.0)]
    wide = [
        w if float(w) >= v / room else np.nextafter(w, np.float32(1)) for w, v in zip(wide, (2.0, 3.0), strict=True)
    ]
    levels = [int(np.rint(2 / float(wide[0]))), int(np.rint(-3 / float(wide[1])))]
    made = new % (", ".join(repr(float(v)) for v in (1.0, *wide)), ", ".join(map(str, levels)))
    q = "{ q = QuantizeLinear(x, s, z) "
    before = f"{head}, {old}> {q} d = DequantizeLinear(q, s, z) v = DequantizeLinear<axis = 0>(w, sw, zw) [c] t = Conv(d, v, b) y = QuantizeLinear(t, s, z) }}"
    after = f"{head}, {made}> {q} [c_QLinearConv] y = QLinearConv(q, s, z, w_widened, w_scale_widened, zw, s, z, b_int32) }}"
    report = bitwise(PASS, before, after, rewrites=1)
    assert report.notes == ["c: 2 weight scales were widened, the bias would overflow int32."]


@pytest.mark.parametrize("bias", ["inf, 0, 0", "nan, 0, 0"])
def test_case_3_near_miss_a_bias_that_is_no_number(bias: str) -> None:
    values = [float(v) for v in bias.split(",")]
    made = _biased(values, scale=0.00217).fuse(PASS)
    assert made.ops["Conv"] == 1
    assert "is no vector of finite float32" in made.reasons[0]


def test_case_3_near_miss_a_bias_of_another_number_of_channels() -> None:
    graph = GRAPH.replace("int32[2] b = {5, -9}", "int32[3] b = {5, -9, 1}").replace(
        "float[2] sb = {0.0002, 0.0004}", "float[3] sb = {1, 1, 1}"
    )
    graph = text.parse(model(graph.replace("int32[2] zb = {0, 0}", "int32[3] zb = {0, 0, 0}"))).graph
    report = PASS.run(graph, default_context())
    assert [r.reason for r in report.refusals] == ["the bias b has other channels than the weight"]


@pytest.mark.parametrize(("scale", "fused"), [("0.00020001", 0), ("0.000200001", 1)])
def test_case_2_a_scale_of_the_bias_that_is_a_little_off(scale: str, fused: int) -> None:
    """By 5e-5 or 5e-6 of it: the first is another scale, the second is rounding."""
    graph = text.parse(model(GRAPH.replace("sb = {0.0002,", f"sb = {{{scale},"))).graph
    assert PASS.run(graph, default_context()).rewrites == fused
