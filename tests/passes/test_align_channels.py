"""Channels of integer convolutions, filled up."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import convolutions
import numpy as np
import onnx
import pytest
from convolutions import Net, shapes
from fusing import OUT
from rewriting import rewrite, together

from onnxq.ir import load, save
from onnxq.optable import ALIGNED
from onnxq.pipeline.base import Report
from onnxq.runtime.session import Level, optimized
from onnxq.testing import check_pass, default_context
from onnxq_passes.align_channels import AlignChannels
from onnxq_passes.pad_channels import PadChannels

COUNTS = "where every channel counts"


integer = functools.partial(convolutions.integer, AlignChannels())


def kept(g: Net, *reasons: str) -> Report:
    model, report = integer(g, Level.OFF)
    assert report.rewrites == 0 and not any(n.op == "Pad" for n in model.graph.nodes)
    assert sorted(any(part in r.reason for part in reasons) for r in report.refusals) == [True] * len(reasons)
    return report


def middle(count: int, *, bias: str = "", per_channel: bool = True) -> Net:
    """Two Convs with so many channels between them."""
    g = Net()
    wide = g.pair(g.conv(g.data(1, 4, 6, 5), 4, count, bias=bias, per_channel=per_channel))
    g.out(g.conv(wide, count, 16, per_channel=per_channel))
    return g


def test_contract() -> None:
    check_pass(AlignChannels)


@pytest.mark.parametrize("bias", ["", "int32", "float"])
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize(("count", "filled"), [(6, 8), (3, 4), (1, 4), (9, 16), (22, 24)])
def test_case_1_between_two(count: int, filled: int, bias: str, per_channel: bool) -> None:
    model, report = integer(middle(count, bias=bias, per_channel=per_channel))
    assert shapes(model) == [(filled, 4, 3, 3), (16, filled, 3, 3)]
    assert (report.rewrites, report.refusals) == (2, [])


def test_case_1_new_weights_are_zeros() -> None:
    model, _ = integer(middle(6, bias="int32"))
    first, second = (n for n in model.graph.nodes if n.op == "Conv")
    values = [np.asarray(t.inputs[0].inputs[0].values) for t in (*first.inputs[1:], second.inputs[1])]
    assert not values[0][6:].any() and not values[1][6:].any() and not values[2][:, 6:].any()
    assert values[0][:6].all(axis=(1, 2, 3)).any() and values[2].shape == (16, 8, 3, 3)
    scales = np.asarray(first.inputs[1].inputs[0].inputs[1].values)
    assert scales.shape == (8,) and (scales[6:] == scales[5]).all()
    assert [t.shape[1] for n in model.graph.nodes for t in n.outputs if n.op == "Conv"] == [8, 16]


@pytest.mark.parametrize("count", [4, 8, 12, 20])
def test_what_4_divides_stays(count: int) -> None:
    kept(middle(count))


def deep(count: int, around: Callable[[Net, str], str] = lambda g, x: x) -> Net:
    """A depthwise Conv between an expanding and a projecting one, and what is done behind it."""
    g = Net()
    wide = g.pair(g.conv(g.data(1, 4, 6, 5), 4, count, kernel=1))
    g.out(g.conv(around(g, g.pair(g.conv(wide, count, count, group=count, bias="int32"))), count, 16, kernel=1))
    return g


@pytest.mark.parametrize(("count", "filled"), [(24, 32), (6, 16), (72, 80), (17, 32)])
def test_case_1_depthwise(count: int, filled: int) -> None:
    model, report = integer(deep(count))
    assert shapes(model) == [(filled, 4, 1, 1), (filled, 1, 3, 3), (16, filled, 1, 1)]
    assert [n.attrs["group"] for n in model.graph.nodes if n.op == "Conv"] == [1, filled, 1]
    assert report.rewrites == 3


@pytest.mark.parametrize("count", [16, 32])
def test_depthwise_that_16_divides_stays(count: int) -> None:
    kept(deep(count))


def gate(op: str) -> Callable[[Net, str], str]:
    """Squeeze and excite."""

    def around(g: Net, x: str) -> str:
        axes: dict[str, Any] = {"keepdims": 1}
        mean = g.op(op, x) if op.startswith("Global") else g.op(op, x, g.constant([2, -1], "int64"), **axes)
        small = g.pair(g.conv(g.pair(mean), 24, 8, kernel=1))
        each = g.pair(g.op("HardSigmoid", g.conv(small, 8, 24, kernel=1)), 0.0041, 0)
        return g.pair(g.op("Mul", x, each))

    return around


@pytest.mark.parametrize("op", ["GlobalAveragePool", "ReduceMean"])
def test_case_2_squeeze_and_excite(op: str) -> None:
    """Float kernels of what no integer kernel takes see other channels beside theirs; a mean over the same numbers."""
    model, report = integer(deep(24, gate(op)), Level.OFF if op == "ReduceMean" else Level.ALL)
    assert shapes(model)[:2] == [(32, 4, 1, 1), (32, 1, 3, 3)] and report.rewrites == 5


@pytest.mark.parametrize(
    ("around", "reason"),
    [
        (lambda g, x: g.op("ReduceMean", x, g.constant([1], "int64"), keepdims=1), "ReduceMean"),
        (lambda g, x: g.op("ReduceMean", x, g.constant([2, 3], "int64"), keepdims=0), "ReduceMean"),
        (lambda g, x: g.op("ReduceMean", x, g.constant([], "int64")), "ReduceMean"),
        (lambda g, x: g.op("ReduceMax", x, g.constant([-3], "int64")), "ReduceMax"),
        (lambda g, x: g.op("ReduceMean", x), "ReduceMean"),
        (lambda g, x: g.op("Concat", x, x, axis=1), "Concat"),
    ],
)
def test_case_4_all_channels_count(around: Callable[[Net, str], str], reason: str) -> None:
    g = Net()
    x = g.pair(g.conv(g.pair(g.conv(g.data(1, 4, 6, 5), 4, 24, kernel=1)), 24, 24, group=24))
    g.raw(around(g, x))
    kept(g, reason)


def test_case_3_a_gate_of_channels_that_cannot_become_more() -> None:
    """Its Conv reads and makes tensors of one group."""
    g = Net()
    x = g.data(1, 6, 6, 5)
    each = g.pair(g.conv(g.pair(g.op("GlobalAveragePool", x)), 6, 6, kernel=1))
    g.out(g.op("Mul", x, each))
    model, report = integer(g)
    (pad,) = (n for n in model.graph.nodes if n.op == "Pad")
    assert np.asarray(pad.inputs[1].values).tolist() == [0, 0, 0, 0, 0, 2, 0, 0]
    assert shapes(model) == [(6, 8, 1, 1)] and report.rewrites == 1
    assert [r.node for r in report.refusals] == [next(n.name for n in model.graph.nodes if n.op == "Conv")]


@pytest.mark.parametrize("op", ["Relu", "Clip"])
def test_case_1_activations_in_front_of_the_q(op: str) -> None:
    g = Net()
    ends = [g.constant(0), g.constant(6)] if op == "Clip" else []
    wide = g.pair(g.op(op, g.conv(g.data(1, 4, 6, 5), 4, 6), *ends), 0.0237, 0)
    g.out(g.op("Relu", g.conv(wide, 6, 16)), 0.0237, 0)
    assert shapes(integer(g)[0]) == [(8, 4, 3, 3), (16, 8, 3, 3)]


def test_case_2_residual() -> None:
    g = Net()
    x = g.pair(g.conv(g.data(1, 4, 6, 5), 4, 6))
    y = g.pair(g.op("Add", x, g.pair(g.conv(x, 6, 6))))
    g.out(g.conv(y, 6, 16))
    assert shapes(integer(g)[0]) == [(8, 4, 3, 3), (8, 8, 3, 3), (16, 8, 3, 3)]


def test_case_2_float_convs_beside_integer_ones() -> None:
    """They follow; alone they would stay as they are."""

    def start() -> tuple[Net, str]:
        g = Net()
        g.inputs.append(onnx.helper.make_tensor_value_info("x0", onnx.TensorProto.FLOAT, (1, 4, 6, 5)))
        g.feeds["x0"] = np.random.default_rng(1).normal(0, 1.5, (1, 4, 6, 5)).astype(np.float32)
        return g, str(g.op("Conv", "x0", g.constant(np.ones((6, 4, 3, 3)) / 50), pads=[1] * 4))

    g, y = start()
    g.out(g.conv(g.pair(y), 6, 16))
    model, report = integer(g, Level.OFF)
    assert report.rewrites == 2 and model.graph.nodes[0].inputs[1].shape == (8, 4, 3, 3)
    alone, y = start()
    alone.raw(alone.op("Conv", y, alone.constant(np.ones((16, 6, 3, 3)) / 50), pads=[1] * 4))
    kept(alone)


def test_case_4_groups() -> None:
    g = Net()
    wide = g.pair(g.conv(g.data(1, 4, 6, 5), 4, 6))
    g.out(g.conv(wide, 6, 16, group=2))
    kept(g, "works in groups")


def first(count: int, *, outputs: int = 16, kind: str = "uint8", **options: Any) -> Net:
    """A Conv on a picture of the caller's."""
    g = Net()
    zero = 120 if kind == "uint8" else -8
    g.out(g.conv(g.data(1, count, 6, 5, kind=kind, zero=zero), count, outputs, **options), kind=kind, zero=zero)
    return g


@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize(("count", "filled"), [(3, 4), (1, 4), (6, 8), (7, 8)])
def test_case_3_a_picture(count: int, filled: int, kind: str) -> None:
    model, report = integer(first(count, kind=kind, bias="int32"))
    pad = next(n for n in model.graph.nodes if n.op == "Pad")
    conv = next(n for n in model.graph.nodes if n.op == "Conv")
    assert pad.name == f"{conv.name}{ALIGNED}" and conv.inputs[0].inputs[0].inputs[0].inputs[0] is pad
    amounts, fill = (np.asarray(t.values) for t in pad.inputs[1:])
    assert amounts.tolist() == [0, 0, 0, 0, 0, filled - count, 0, 0]
    assert fill.dtype == kind and fill == (120 if kind == "uint8" else -8)
    assert [list(t.shape) for t in (pad.outputs[0], conv.inputs[0])] == [[1, filled, 6, 5]] * 2
    assert shapes(model) == [(16, filled, 3, 3)] and (report.rewrites, report.refusals) == (1, [])


def test_case_3_one_pad_for_all_readers() -> None:
    g = Net()
    x = g.data(1, 3, 6, 5)
    g.out(g.conv(x, 3, 16))
    g.out(g.conv(x, 3, 8, kernel=1))
    g.raw(g.op("Abs", x))
    model, report = integer(g)
    assert sum(n.op == "Pad" for n in model.graph.nodes) == 1 and report.rewrites == 2
    assert shapes(model) == [(16, 4, 3, 3), (8, 4, 1, 1)]


def test_case_3_of_any_batch_and_size() -> None:
    for sizes in (["n"], ["n", "c", "h", "w"]):
        model, _ = integer(first(3), sizes={"x0": sizes})
        assert shapes(model) == [(16, 4, 3, 3)]
        pad = next(n for n in model.graph.nodes if n.op == "Pad")
        assert pad.outputs[0].shape[:2] == ["n", 4]
    unknown = first(3)
    proto = unknown.model()
    model = load.from_proto(proto)
    assert AlignChannels().run(model.graph, default_context()).rewrites == 1


def test_case_3_and_4_outputs_that_have_to_stay() -> None:
    """The input is filled up all the same."""
    model, report = integer(first(3, outputs=18))
    assert shapes(model) == [(18, 4, 3, 3)] and report.rewrites == 1
    assert [COUNTS in r.reason or "graph output" in r.reason for r in report.refusals] == [True]


def test_only_quantize_pad_and_transpose_stand_before_the_first_convolution() -> None:
    model, _ = integer(first(3))
    graph = onnx.load_from_string(optimized(save.to_bytes(model))).graph
    at = next(i for i, n in enumerate(graph.node) if n.op_type == "QLinearConv")
    assert sorted(n.op_type for n in graph.node[:at]) == ["Pad", "QuantizeLinear", "Transpose"]


@pytest.mark.parametrize(
    "options",
    [{"zero": 3}, {"zero": 128, "kind": "uint8"}],
)
def test_weights_that_no_fast_kernel_takes(options: dict[str, Any]) -> None:
    g = Net()
    g.out(g.conv(g.data(1, 3, 6, 5), 3, 16, per_channel=False, **options))
    kept(g)


def test_data_that_no_integer_kernel_takes() -> None:
    wide = Net()
    wide.out(wide.conv(wide.data(1, 3, 6, 5, kind="uint16", zero=30000), 3, 16))
    kept(wide)
    each = Net()
    each.inputs.append(onnx.helper.make_tensor_value_info("x0", onnx.TensorProto.FLOAT, (1, 3, 6, 5)))
    each.feeds["x0"] = np.ones((1, 3, 6, 5), np.float32)
    numbers = each.constant([0.02, 0.03, 0.04]), each.constant([1, 2, 3], "uint8")
    x = each.op("DequantizeLinear", each.op("QuantizeLinear", "x0", *numbers, axis=1), *numbers, axis=1)
    each.out(each.conv(x, 3, 16))
    kept(each)


def test_a_float_result_is_no_integer_kernel() -> None:
    for readers in ("output", "Relu", "both"):
        g = Net()
        y = g.conv(g.data(1, 3, 6, 5), 3, 16)
        if readers == "Relu":
            y = g.op("Relu", y)
        if readers == "both":
            g.out(y)
        g.raw(y)
        kept(g)


def test_case_4_a_body() -> None:
    g = Net()
    wide = g.pair(g.conv(g.data(1, 4, 6, 5), 4, 6))
    ends = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in ("p", "q")]
    bodies = [
        onnx.helper.make_graph([onnx.helper.make_node(op, [wide], [end.name], op)], op, [], [end])
        for op, end in zip(("Neg", "Abs"), ends, strict=True)
    ]
    g.raw(g.op("If", g.constant(True, "bool"), then_branch=bodies[0], else_branch=bodies[1]))
    g.out(g.conv(wide, 6, 16))
    model, report = integer(g)
    assert [len(report.refusals), report.rewrites] == [1, 1], "the Conv behind it gets a Pad"
    assert shapes(model) == [(6, 4, 3, 3), (16, 8, 3, 3)]


QUIET = (
    "(uint8[1,4,4] x) => (uint8[1,4,4] y) <float s = {0.02}, uint8 z = {120}, int8[4,4,1] w = {1, 2, 3, 4, 5, 6, 7, 8, "
    "9, 10, 11, 12, 13, 14, 15, 16}, int8 o = {0}> { [d] a = DequantizeLinear(x, s, z) [e] b = DequantizeLinear(w, s, o) "
    "[conv] c = Conv(a, b) [q] y = QuantizeLinear(c, s, z) }"
)
LEAD = (
    "(uint8[1,3,4] x) => (uint8[1,4,4] y) <float s = {0.02}, uint8 z = {120}, int8[4,3,1] w = {1, 2, 3, 4, 5, 6, 7, 8, "
    "9, 10, 11, 12}, int8 o = {0}> { [d] a = DequantizeLinear <axis = 0> (x, s, z) [e] b = DequantizeLinear(w, s, o) "
    "[conv] c = Conv(a, b) [q] y = QuantizeLinear(c, s, z) }"
)
LED = (
    "(uint8[1,3,4] x) => (uint8[1,4,4] y) <float s = {0.02}, uint8 z = {120}, int8[4,4,1] w_padded = {1, 2, 3, 0, 4, 5, "
    "6, 0, 7, 8, 9, 0, 10, 11, 12, 0}, int8 o = {0}, int64[6] conv_aligned_pads = {0, 0, 0, 0, 1, 0}, "
    "uint8 conv_aligned_fill = {120}> { [conv_aligned] x_aligned = Pad(x, conv_aligned_pads, conv_aligned_fill) "
    "[conv_aligned_dequantized] a_aligned = DequantizeLinear <axis = 0> (x_aligned, s, z) "
    "[e_padded] b_padded = DequantizeLinear(w_padded, s, o) [conv] c = Conv(a_aligned, b_padded) "
    "[q] y = QuantizeLinear(c, s, z) }"
)
FILL = (
    "(uint8[1,4,2] x) => (uint8[1,4,2] y) <float s = {{0.02}}, uint8 z = {{120}}, {0}, int8 n = {{0}}, "
    "float[4] r = {{0.01, 0.02, 0.03, 0.04}}, int8[4] u = {{0, 0, 0, 0}}> {{ [d] a = DequantizeLinear(x, s, z) {1} "
    "[q] g = QuantizeLinear(c, s, z) [f] h = DequantizeLinear(g, s, z) {2} [p] y = QuantizeLinear(l, s, z) }}"
)
EACH = FILL.format(
    "int8[2,4,1] w = {1, 2, 3, 4, 5, 6, 7, 8}, float[2] t = {0.01, 0.03}, int8[2] o = {0, 0}, int32[2] k = {9, -9}, "
    "float[2] m = {0.0002, 0.0006}, int8[4,2,1] v = {1, 2, 3, 4, 5, 6, 7, 8}",
    "[e] b = DequantizeLinear <axis = 0> (w, t, o) [i] j = DequantizeLinear <axis = 0> (k, m) [first] c = Conv(a, b, j)",
    "[o2] v2 = DequantizeLinear <axis = 0> (v, r, u) [second] l = Conv(h, v2)",
)
EACH_FILLED = FILL.format(
    "int8[4,4,1] w_padded = {1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0}, "
    "float[4] t_padded = {0.01, 0.03, 0.03, 0.03}, int8[4] o_padded = {0, 0, 0, 0}, int32[4] k_padded = {9, -9, 0, 0}, "
    "float[4] m_padded = {0.0002, 0.0006, 0.0006, 0.0006}, "
    "int8[4,4,1] v_padded = {1, 2, 0, 0, 3, 4, 0, 0, 5, 6, 0, 0, 7, 8, 0, 0}",
    "[e_padded] b_padded = DequantizeLinear <axis = 0> (w_padded, t_padded, o_padded) "
    "[i_padded] j_padded = DequantizeLinear <axis = 0> (k_padded, m_padded) [first] c = Conv(a, b_padded, j_padded)",
    "[o2_padded] v2_padded = DequantizeLinear <axis = 0> (v_padded, r, u) [second] l = Conv(h, v2_padded)",
)
ALL = FILL.format(
    "int8[2,4,1] w = {1, 2, 3, 4, 5, 6, 7, 8}, int8[4,2,1] v = {1, 2, 3, 4, 5, 6, 7, 8}",
    "[e] b = DequantizeLinear(w, s, n) [first] c = Conv(a, b)",
    "[o2] v2 = DequantizeLinear(v, s, n) [second] l = Conv(h, v2)",
)
ALL_FILLED = FILL.format(
    "int8[4,4,1] w_padded = {1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0}, "
    "int8[4,4,1] v_padded = {1, 2, 0, 0, 3, 4, 0, 0, 5, 6, 0, 0, 7, 8, 0, 0}",
    "[e_padded] b_padded = DequantizeLinear(w_padded, s, n) [first] c = Conv(a, b_padded)",
    "[o2_padded] v2_padded = DequantizeLinear(v_padded, s, n) [second] l = Conv(h, v2_padded)",
)
OUTPUT = (
    "(uint8[1,4,2] x) => (uint8[1,2,2] y) <float s = {0.02}, uint8 z = {120}, int8[2,4,1] w = {1, 2, 3, 4, 5, 6, 7, 8}, "
    "int8 o = {0}> { [d] a = DequantizeLinear(x, s, z) [e] b = DequantizeLinear(w, s, o) [conv] c = Conv(a, b) "
    "[q] y = QuantizeLinear(c, s, z) }"
)


@pytest.mark.parametrize(("before", "after"), [(EACH, EACH_FILLED), (ALL, ALL_FILLED)])
def test_case_2_what_is_written(before: str, after: str) -> None:
    """New channels have the scale of the last one; a single scale is nobody's copy."""
    rewrite(AlignChannels(), before, after, rewrites=2, atol=0)


def test_case_3_what_is_written() -> None:
    rewrite(AlignChannels(), LEAD, LED, rewrites=1, atol=0)


def test_many_sites() -> None:
    changed = [(LEAD, LED, 1), (EACH, EACH_FILLED, 2), (ALL, ALL_FILLED, 2)]
    together(AlignChannels(), changed=changed, kept=[(OUTPUT, "reach the graph output")], quiet=[QUIET])


def test_shapes_of_weights_follow() -> None:
    model, _ = integer(middle(6))
    assert [n.inputs[1].shape for n in model.graph.nodes if n.op == "Conv"] == [[8, 4, 3, 3], [16, 8, 3, 3]]


@pytest.mark.parametrize("bias", ["", "int32", "float"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_case_3_weights_and_biases(bias: str, per_channel: bool) -> None:
    model, report = integer(first(3, bias=bias, per_channel=per_channel))
    assert shapes(model) == [(16, 4, 3, 3)] and report.rewrites == 1


def test_case_3_the_integer_convolution_gets_four_channels() -> None:
    model, _ = integer(first(3, bias="int32"))
    graph = onnx.load_from_string(optimized(save.to_bytes(model))).graph
    (conv,) = [n for n in graph.node if n.op_type == "QLinearConv"]
    (weights,) = [i for i in graph.initializer if i.name == conv.input[3]]
    assert list(weights.dims) == [16, 4, 3, 3]


def test_case_3_channels_that_another_op_counts() -> None:
    """What a Split or a Concat makes stays; the Conv behind it reads a Pad."""
    for joins in (False, True):
        g = Net()
        wide = g.data(1, 6, 6, 5)
        one, other = g.op("Split", wide, outs=2, axis=1, num_outputs=2)
        parts = [g.pair(one), g.pair(other)]
        if joins:
            g.out(g.conv(g.pair(g.op("Concat", *parts, axis=1)), 6, 16))
        else:
            for part in parts:
                g.out(g.conv(part, 3, 16))
        model, report = integer(g)
        assert set(shapes(model)) == {(16, 8 if joins else 4, 3, 3)}
        assert (report.rewrites, report.refusals) == (1 if joins else 2, [])


def test_case_4_a_split_behind_a_conv() -> None:
    g = Net()
    wide = g.pair(g.conv(g.data(1, 4, 6, 5), 4, 6))
    for part in g.op("Split", wide, outs=2, axis=1, num_outputs=2):
        g.raw(part)
    kept(g, "reach Split")


def test_case_4_a_depthwise_conv_whose_channels_stay() -> None:
    g = Net()
    wide = g.pair(g.conv(g.data(1, 4, 6, 5), 4, 20, kernel=1))
    g.out(g.conv(wide, 20, 20, group=20))
    kept(g, "reach the graph output")


@pytest.mark.parametrize("count", [1, 6])
def test_case_4_a_quantized_constant_is_no_tensor_with_more_channels(count: int) -> None:
    g = Net()
    wide = g.pair(g.conv(g.data(1, 4, 6, 5), 4, 6))
    table = g.dq(g.constant(np.arange(count).reshape(1, count, 1, 1), "uint8"), 0.02, 3)
    g.out(g.op("Relu", g.op("Add", wide, table)))
    kept(g, "DequantizeLinear")


@pytest.mark.parametrize(
    ("options", "axes"),
    [({"axes": [2, 3], "keepdims": 1}, None), ({"axes": [-1]}, None), ({}, [2, 3]), ({}, [-2, -1]), ({"keepdims": 1}, [3])],
)  # fmt: skip
def test_case_2_means_over_pixels(options: dict[str, Any], axes: list[int] | None) -> None:
    """Axes as an attribute (until opset 17) or as an input; dimensions are kept where nothing is said."""
    model, report = integer(reduced(options, axes), Level.OFF)
    assert report.rewrites == 2 and shapes(model) == [(8, 4, 3, 3), (16, 8, 1, 1)]


@pytest.mark.parametrize("axes", [[0], [0, 2], [1, 2], [-4]])
def test_case_4_means_over_pictures_and_channels(axes: list[int]) -> None:
    g = Net()
    g.raw(g.op("ReduceMean", g.pair(g.conv(g.data(1, 4, 6, 5), 4, 6)), g.constant(axes, "int64")))
    kept(g, "ReduceMean")


@pytest.mark.parametrize(("axes", "known"), [([2, 3], True), ([-1], False), ([2, -1], False)])
def test_case_2_means_of_unknown_shapes(axes: list[int], known: bool) -> None:
    """Nobody knows what the last axis is of a tensor of unknown rank."""
    model = load.from_proto(reduced({}, axes).model())
    report = AlignChannels().run(model.graph, default_context())
    assert ["ReduceMean" in r.reason for r in report.refusals] == [True] * (not known)
    assert shapes(model)[0] == ((8 if known else 6), 4, 3, 3)


def reduced(options: dict[str, Any], axes: list[int] | None) -> Net:
    """A mean between two Convs of six channels."""
    g = Net(opset=17 if axes is None else 21)
    wide = g.pair(g.conv(g.data(1, 4, 6, 5), 4, 6))
    mean = g.op("ReduceMean", wide, *([] if axes is None else [g.constant(axes, "int64")]), **options)
    g.out(g.conv(g.pair(mean), 6, 16, kernel=1))
    return g


def test_float_weights_and_unsigned_ones_make_no_integer_kernel() -> None:
    unsigned = Net()
    unsigned.out(unsigned.conv(unsigned.data(1, 3, 6, 5), 3, 16, per_channel=False, kind="uint8"))
    kept(unsigned)
    real = Net()
    real.out(real.op("Conv", real.data(1, 3, 6, 5), real.constant(np.ones((16, 3, 3, 3)) / 50), pads=[1] * 4))
    kept(real)


@pytest.mark.parametrize("axis", [1, 0])
def test_case_4_weights_with_other_scales(axis: int) -> None:
    """Per input channel, or in blocks of output channels: no constants that can become more."""
    g = Net()
    wide = g.pair(g.conv(g.data(1, 4, 6, 5), 4, 6))
    values = g.constant(np.arange(96).reshape(16, 6, 1, 1), "int8")
    if axis == 1:
        w = g.op("DequantizeLinear", values, g.constant(np.linspace(0.003, 0.005, 6)), axis=1)
    else:
        scales = g.constant(np.linspace(0.003, 0.005, 48).reshape(8, 6, 1, 1))
        w = g.op("DequantizeLinear", values, scales, axis=0, block_size=2)
    g.out(g.op("Conv", wide, w))
    kept(g, "are no constants")


def test_only_this_pass_looks_behind_q_and_dq() -> None:
    """`pad-channels`, with which it shares its groups, is for float graphs: each pair and each DQ is foreign to it."""
    g = Net()
    wide = g.pair(g.op("Conv", g.data(1, 4, 6, 5), g.constant(np.ones((6, 4, 3, 3)) / 50), pads=[1] * 4))
    g.raw(g.op("Conv", wide, g.constant(np.ones((16, 6, 3, 3)) / 50)))
    stored = Net()
    stored.raw(stored.conv(stored.op("Relu", stored.conv(stored.data(1, 4, 6, 5), 4, 6)), 6, 16))
    for one in (g, stored):
        model = load.from_proto(one.model())
        assert PadChannels(multiple=4).run(model.graph, default_context()).rewrites == 0


def test_case_3_two_readings_of_one_picture() -> None:
    """Each Conv has a DQ of its own scale behind a Pad of its own fill."""
    g = Net()
    x = g.data(1, 3, 6, 5)
    other = g.dq(g.nodes[0].output[0], 0.05, 3)
    for data in (x, other):
        g.out(g.conv(data, 3, 16))
    model, report = integer(g)
    fills = sorted(int(n.inputs[2].values) for n in model.graph.nodes if n.op == "Pad")
    assert (report.rewrites, fills) == (2, [3, 120])


def test_case_4_weights_whose_zero_is_another_number() -> None:
    """Also of Convs that only follow."""
    g = Net()
    wide = g.pair(g.conv(g.data(1, 4, 6, 5), 4, 6, per_channel=False, zero=3))
    g.out(g.conv(wide, 6, 16))
    model, report = integer(g, Level.OFF)
    assert shapes(model) == [(6, 4, 3, 3), (16, 8, 3, 3)] and report.rewrites == 1


def test_case_1_a_zero_point_that_is_omitted() -> None:
    g = Net()
    x = g.data(1, 4, 6, 5)
    levels = np.random.default_rng(3).integers(-127, 128, (6, 4, 1, 1))
    w = g.op("DequantizeLinear", g.constant(levels, "int8"), g.constant(np.linspace(0.003, 0.005, 6)), "", axis=0)
    g.out(g.conv(g.pair(g.op("Conv", x, w)), 6, 16))
    assert shapes(integer(g)[0]) == [(8, 4, 1, 1), (16, 8, 3, 3)]


@pytest.mark.parametrize(("opset", "rewrites"), [(10, 0), (12, 0), (13, 1)])
def test_case_3_old_opsets_have_no_such_pad(opset: int, rewrites: int) -> None:
    g = Net(opset=opset)
    g.out(g.conv(g.data(1, 3, 6, 5), 3, 16, per_channel=False))
    proto = g.model()
    model = load.from_proto(proto)
    report = AlignChannels().run(model.graph, default_context())
    assert (report.rewrites, ["from opset 13 on" in r.reason for r in report.refusals]) == (rewrites, [True][rewrites:])


@pytest.mark.parametrize("numbers", [(OUT, 30000, "uint16"), ([OUT] * 16, [100] * 16, "uint8")])
def test_a_result_that_is_no_8_bit_tensor(numbers: tuple[Any, Any, str]) -> None:
    g = Net()
    scale, zero, kind = numbers
    more = {"axis": 1} if isinstance(scale, list) else {}
    y = g.conv(g.data(1, 3, 6, 5), 3, 16)
    q = g.op("QuantizeLinear", y, g.constant(scale), g.constant(zero, kind), **more)
    g.raw(g.op("DequantizeLinear", q, g.constant(scale), g.constant(zero, kind), **more))
    kept(g)
