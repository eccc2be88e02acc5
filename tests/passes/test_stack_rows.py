"""Rows under a kernel as channels of a picture."""

from __future__ import annotations

import functools
from typing import Any

import convolutions
import numpy as np
import onnx
import pytest
from convolutions import Net, shapes
from rewriting import bitwise, together

from onnxq.ir import load, save
from onnxq.optable import ROWS
from onnxq.runtime.session import Session, optimized
from onnxq.testing import check_pass, default_context
from onnxq_passes.align_channels import AlignChannels
from onnxq_passes.stack_rows import StackRows

integer = functools.partial(convolutions.integer, StackRows())


def kept(g: Net, *reasons: str) -> None:
    model, report = integer(g)
    assert report.rewrites == 0 and not any(n.op == "Gather" for n in model.graph.nodes)
    assert sorted(any(part in r.reason for part in reasons) for r in report.refusals) == [True] * len(reasons)


def first(count: int, kernel: int = 3, *, outputs: int = 16, high: int = 9, kind: str = "uint8", **options: Any) -> Net:
    g = Net()
    zero = 120 if kind == "uint8" else -8
    data = g.data(1, count, high, 10, kind=kind, zero=zero)
    g.out(g.conv(data, count, outputs, kernel=kernel, **options), kind=kind, zero=zero)
    return g


def test_contract() -> None:
    check_pass(StackRows)


@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize(
    ("count", "kernel", "stacked"),
    [(1, 3, 4), (2, 3, 8), (1, 5, 8), (3, 5, 16), (3, 7, 24), (6, 3, 20), (1, 2, 4), (3, 4, 12)],
)
def test_case_1_kernels(count: int, kernel: int, stacked: int, kind: str) -> None:
    model, report = integer(first(count, kernel, kind=kind, bias="int32"))
    assert shapes(model) == [(16, stacked, 1, kernel)] and (report.rewrites, report.refusals) == (1, [])
    assert AlignChannels().run(model.graph, default_context()).rewrites == 0


ATTRIBUTES: list[dict[str, Any]] = [
    {"strides": [2, 2]},
    {"strides": [3, 1]},
    {"strides": [1, 2]},
    {"dilations": [2, 1]},
    {"dilations": [2, 3], "strides": [2, 1]},
    {"pads": [0, 0, 0, 0]},
    {"pads": [0, 1, 2, 0]},
    {"pads": [2, 0, 0, 3]},
    {"pads": [1, 0, 1, 0], "strides": [4, 4]},
    {"auto_pad": "VALID", "pads": None},
    {"auto_pad": "SAME_UPPER", "pads": None},
    {"auto_pad": "SAME_LOWER", "pads": None},
    {"auto_pad": "SAME_UPPER", "pads": None, "strides": [2, 3]},
    {"auto_pad": "SAME_LOWER", "pads": None, "strides": [2, 3]},
    {"pads": None},
]


@pytest.mark.parametrize("high", [7, 8])
@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("attributes", ATTRIBUTES, ids=str)
def test_case_1_every_window(attributes: dict[str, Any], kernel: int, high: int) -> None:
    model, report = integer(first(2, kernel, high=high, **attributes))
    assert report.rewrites == 1
    conv = next(n for n in model.graph.nodes if n.op == "Conv")
    assert "auto_pad" not in conv.attrs and conv.attrs["kernel_shape"] == [1, kernel]
    assert conv.attrs["strides"][0] == conv.attrs["dilations"][0] == 1


def test_case_1_one_scale_and_a_float_bias() -> None:
    assert integer(first(1, per_channel=False))[1].rewrites == 1
    assert integer(first(1, bias="float"))[1].rewrites == 1


def test_case_1_kernels_that_are_not_square() -> None:
    g = Net()
    w = g.weight(16, 1, 5, 1, scale=0.0041)
    g.out(g.op("Conv", g.data(1, 1, 20, 4), w, strides=[2, 1]))
    model, _ = integer(g)
    assert shapes(model) == [(16, 8, 1, 1)]


def test_case_1_what_stands_before_the_convolution() -> None:
    model, _ = integer(first(1))
    graph = onnx.load_from_string(optimized(save.to_bytes(model))).graph
    at = next(i for i, n in enumerate(graph.node) if n.op_type == "QLinearConv")
    assert [n.op_type for n in graph.node[:at]] == ["QuantizeLinear", "Pad", "Reshape", "Gather", "Transpose"]
    conv = next(n for n in model.graph.nodes if n.op == "Conv")
    names = [n.name for n in model.graph.nodes if n.op in ("Pad", "Reshape", "Gather")]
    assert all(name.startswith(f"{conv.name}{ROWS}") for name in names)


def test_case_1_without_rows_above_or_below_there_is_no_pad() -> None:
    model, _ = integer(first(1, pads=[0, 1, 0, 1]))
    assert "Pad" not in [n.op for n in model.graph.nodes]


def test_case_1_the_same_rows_for_all_that_want_them() -> None:
    g = Net()
    x = g.data(1, 1, 9, 10)
    for kernel, attributes in ((3, {}), (3, {"strides": [1, 2]}), (3, {"strides": [2, 1]}), (5, {})):
        g.out(g.conv(x, 1, 16, kernel=kernel, **attributes))
    g.raw(g.op("Abs", x))
    model, report = integer(g)
    assert (report.rewrites, sum(n.op == "Gather" for n in model.graph.nodes)) == (4, 3)


def test_case_1_two_readings_of_one_picture() -> None:
    """The zero of each fills its rows."""
    g = Net()
    x = g.data(1, 1, 9, 10)
    integers = next(n.input[0] for n in g.nodes if n.op_type == "DequantizeLinear")
    for tensor in (x, g.dq(integers, 0.04, 7)):
        g.out(g.conv(tensor, 1, 16, per_channel=False))
    model, report = integer(g)
    fills = [int(np.asarray(n.inputs[2].values)) for n in model.graph.nodes if n.op == "Pad"]
    assert (report.rewrites, sorted(fills)) == (2, [7, 120])


def test_case_1_two_pictures() -> None:
    """Alike in everything but what they show."""
    g = Net()
    for _ in range(2):
        g.out(g.conv(g.data(1, 1, 9, 10), 1, 16, per_channel=False))
    model, report = integer(g)
    assert (report.rewrites, sum(n.op == "Gather" for n in model.graph.nodes)) == (2, 2)


def test_case_1_only_the_integers_have_a_known_shape() -> None:
    model = load.from_proto(onnx.shape_inference.infer_shapes(first(1).model(), strict_mode=True))
    conv = next(n for n in model.graph.nodes if n.op == "Conv")
    conv.inputs[0].shape = None
    assert StackRows().run(model.graph, default_context()).rewrites == 1


def test_case_1_auto_pad_comes_before_pads() -> None:
    """As in ONNX Runtime; the checker of ONNX sees it otherwise."""
    model = load.from_proto(onnx.shape_inference.infer_shapes(first(1, auto_pad="VALID").model()))
    assert StackRows().run(model.graph, default_context()).rewrites == 1
    conv = next(n for n in model.graph.nodes if n.op == "Conv")
    assert (conv.attrs["pads"], "Pad" in [n.op for n in model.graph.nodes]) == ([0] * 4, False)


BEFORE = (
    "(float[1,1,3,4] x) => (uint8[1,2,3,4] y) <float s = {0.02}, uint8 z = {120}, "
    "int8[2,1,3,1] w = {1, 2, 3, 4, 5, 6}, int8 o = {0}, uint8[1,1,3,4] b> { "
    "[q] b = QuantizeLinear(x, s, z) [d] c = DequantizeLinear <axis = 0> (b, s, z) [e] v = DequantizeLinear(w, s, o) "
    "[conv] f = Conv <pads = [1, 0, 1, 0]> (c, v) [r] y = QuantizeLinear(f, s, z) }"
)
AFTER = (
    "(float[1,1,3,4] x) => (uint8[1,2,3,4] y) <float s = {0.02}, uint8 z = {120}, int8 o = {0}, "
    "int8[2,4,1,1] w_rows = {1, 2, 3, 0, 4, 5, 6, 0}, int64[8] conv_rows_pads = {0, 0, 1, 0, 0, 0, 1, 0}, "
    "uint8 conv_rows_fill = {120}, int64[3] conv_rows_lines = {0, 5, 4}, "
    "int64[4,3] conv_rows_indices = {0, 1, 2, 1, 2, 3, 2, 3, 4, 2, 3, 4}> { "
    "[q] b = QuantizeLinear(x, s, z) [conv_rows] b_rows = Pad(b, conv_rows_pads, conv_rows_fill) "
    "[conv_rows_1] b_rows_1 = Reshape(b_rows, conv_rows_lines) "
    "[conv_rows_2] b_rows_2 = Gather <axis = 1> (b_rows_1, conv_rows_indices) "
    "[conv_rows_dequantized] c_rows = DequantizeLinear <axis = 0> (b_rows_2, s, z) "
    "[e_rows] v_rows = DequantizeLinear(w_rows, s, o) "
    "[conv] f = Conv <dilations = [1, 1], kernel_shape = [1, 1], pads = [0, 0, 0, 0], strides = [1, 1]> "
    "(c_rows, v_rows) [r] y = QuantizeLinear(f, s, z) }"
)
PRODUCT = BEFORE.replace("(float[1,1,3,4] x)", "(float[1,1,3,4] a, float[1,1,4,4] p)").replace(
    "{ [q]", "{ [m] x = MatMul(a, p) [q]"
)
HEIGHT = BEFORE.replace("[1,1,3,4]", "[1,1,h,4]")
POINTS = BEFORE.replace("int8[2,1,3,1] w = {1, 2, 3, 4, 5, 6}", "int8[2,1,1,1] w = {1, 2}").replace(
    "[1, 0, 1, 0]", "[0, 0, 0, 0]"
)


def test_many_sites() -> None:
    kept = [(PRODUCT, "computed by products"), (HEIGHT, "height of its picture is not known")]
    together(StackRows(), changed=[(BEFORE, AFTER, 1)], kept=kept, quiet=[POINTS])


def test_case_1_what_is_written() -> None:
    bitwise(StackRows(), BEFORE, AFTER, rewrites=1)


def test_case_1_of_any_batch_and_width() -> None:
    for sizes in (["n"], ["n", "1", "9", "w"]):
        g = first(1)
        proto = g.model()
        for dimension, size in zip(proto.graph.input[0].type.tensor_type.shape.dim, sizes, strict=False):
            if not size.isdigit():
                dimension.dim_param = size
        model = load.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))
        assert StackRows().run(model.graph, default_context()).rewrites == 1
        width = "w" if len(sizes) > 1 else 10
        made = {n.op: n.outputs[0].shape for n in model.graph.nodes if n.op in ("Pad", "Reshape", "Gather")}
        assert made == {"Pad": ["n", 1, 11, width], "Reshape": ["n", 11, width], "Gather": ["n", 4, 9, width]}
        conv = next(n for n in model.graph.nodes if n.op == "Conv")
        assert conv.inputs[0].shape == made["Gather"]
        old, new = (Session(save.to_bytes(m), threads=1).run(g.feeds) for m in (load.from_proto(proto), model))
        assert all(np.array_equal(old[name], new[name]) for name in old)


def test_case_1_a_batch_of_nothing() -> None:
    """ONNX Runtime's QLinearConv takes none, but what stands before it does."""
    proto = first(1).model()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    model = load.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))
    StackRows().run(model.graph, default_context())
    gathered = next(n for n in model.graph.nodes if n.op == "Gather").outputs[0]
    gathered.dtype = np.uint8
    model.graph.outputs = [gathered]
    model.graph.cleanup()
    (found,) = Session(save.to_bytes(model)).run({"x0": np.zeros((0, 1, 9, 10), np.float32)}).values()
    assert found.shape == (0, 4, 9, 10)


def test_case_1_a_picture_that_was_turned_first() -> None:
    """As exports from TensorFlow begin."""
    g = Net()
    g.inputs.append(onnx.helper.make_tensor_value_info("x0", onnx.TensorProto.FLOAT, [1, 9, 10, 1]))
    g.feeds["x0"] = np.random.default_rng(0).normal(0, 1.5, (1, 9, 10, 1)).astype(np.float32)
    turned = g.op("Transpose", g.op("Sub", "x0", g.constant(0.5)), perm=[0, 3, 1, 2])
    g.out(g.conv(g.pair(turned), 1, 16))
    assert integer(g)[1].rewrites == 1


@pytest.mark.parametrize(("count", "kernel"), [(3, 3), (4, 3), (8, 3), (7, 3), (1, 1), (3, 1), (3, 2)])
def test_case_2_nothing_gained(count: int, kernel: int) -> None:
    kept(first(count, kernel))


@pytest.mark.parametrize("options", [{"group": 2}, {"zero": 3}, {"zero": 128, "kind": "uint8"}])
def test_near_misses(options: dict[str, Any]) -> None:
    g = Net()
    g.out(g.conv(g.data(1, 2, 9, 10), 2, 16, per_channel=False, **options))
    kept(g)


def test_weights_of_the_caller_stay() -> None:
    g = Net()
    g.out(g.op("Conv", g.data(1, 1, 9, 10), g.data(16, 1, 3, 3)))
    kept(g)


def test_a_float_result_is_no_integer_kernel() -> None:
    g = Net()
    g.raw(g.conv(g.data(1, 1, 9, 10), 1, 16))
    kept(g)


def test_lines_are_no_pictures() -> None:
    g = Net()
    g.out(g.op("Conv", g.data(1, 1, 30), g.weight(16, 1, 3, scale=0.0041)))
    kept(g)


def test_behind_a_product_there_is_no_picture() -> None:
    g = Net()
    wide = g.pair(g.op("Abs", g.pair(g.conv(g.data(1, 4, 9, 10), 4, 2))))
    g.out(g.conv(wide, 2, 16))
    kept(g, "computed by products")


@pytest.mark.parametrize("known", ["h", "0", ""])
def test_case_3_an_unknown_height(known: str) -> None:
    proto = first(1).model()
    if known:
        height = proto.graph.input[0].type.tensor_type.shape.dim[2]
        height.dim_value = 0
        if known == "h":
            height.dim_param = known
        proto = onnx.shape_inference.infer_shapes(proto, strict_mode=True)
    model = load.from_proto(proto)
    report = StackRows().run(model.graph, default_context())
    assert (report.rewrites, [r.reason for r in report.refusals]) == (0, ["the height of its picture is not known"])


@pytest.mark.parametrize(("auto", "rewrites"), [("SAME_UPPER", 0), ("SAME_LOWER", 0), ("VALID", 1)])
def test_case_3_an_unknown_width(auto: str, rewrites: int) -> None:
    proto = first(1, auto_pad=auto, pads=None).model()
    proto.graph.input[0].type.tensor_type.shape.dim[3].dim_param = "w"
    model = load.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))
    report = StackRows().run(model.graph, default_context())
    assert report.rewrites == rewrites
    assert [r.reason for r in report.refusals] == [
        "auto_pad says how many rows it adds, and its picture's width is not known"
    ][rewrites:]


@pytest.mark.parametrize(("opset", "rewrites"), [(12, 0), (13, 2)])
def test_case_3_old_opsets(opset: int, rewrites: int) -> None:
    g = Net(opset=opset)
    for _ in range(2):
        g.out(g.conv(g.data(1, 1, 9, 10), 1, 16, per_channel=False))
    model = load.from_proto(onnx.shape_inference.infer_shapes(g.model(), strict_mode=True))
    report = StackRows().run(model.graph, default_context())
    assert (report.rewrites, ["Pad takes 8 bits" in r.reason for r in report.refusals]) == (
        rewrites,
        [True] * (2 - rewrites),
    )
