"""insert-qdq writes what the plan says, and nothing else."""

from __future__ import annotations

from typing import cast

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from numpy.typing import ArrayLike
from quantized import quantize_text
from rewriting import model

from onnxq.encoding import Affine, Granularity, IntType, PerBlock, PerChannel, PerTensor
from onnxq.errors import PassError
from onnxq.ir import text, walk
from onnxq.pipeline.base import Report
from onnxq.plan.plan import Plan, Use, Value, Values
from onnxq.testing import check_pass, default_context
from onnxq_passes.insert_qdq import InsertQdq

U8 = Affine(type="uint8", granularity=PerTensor(), scale=np.array(0.5, np.float32), zero_point=np.array(3, np.uint8))


def _graph() -> gs.Graph:
    x, y = gs.Variable("x", np.float32, (2,)), gs.Variable("y", np.float32, (2,))
    return gs.Graph([gs.Node("Sin", "sin", {}, [x], [y])], [x], [y], opset=21)


def _run(plan: Plan | None, graph: gs.Graph) -> None:
    context = default_context()
    context.plan = plan
    InsertQdq().run(graph, context)


def test_contract() -> None:
    check_pass(InsertQdq)


def test_without_a_plan_it_says_what_to_do() -> None:
    with pytest.raises(PassError, match="needs a plan: calibrate first"):
        _run(None, _graph())


def test_a_plan_for_another_graph_is_refused() -> None:
    plan = Plan(values={Value((), "z"): U8}, uses={Use((), "cos", 0): U8}, decisions={})
    with pytest.raises(PassError, match="made for another graph"):
        _run(plan, _graph())


def test_case_1_one_use_is_rewired_and_the_interface_stays() -> None:
    graph = _graph()
    _run(Plan(values={Value((), "x"): U8}, uses={Use((), "sin", 0): U8}, decisions={}), graph)
    assert [n.op for n in graph.nodes] == ["QuantizeLinear", "DequantizeLinear", "Sin"]
    assert [t.name for t in (*graph.inputs, *graph.outputs)] == ["x", "y"]
    assert graph.nodes[2].inputs[0].name == "x_dequantized"


def test_case_3_an_output_is_written_by_a_dq_under_its_own_name() -> None:
    graph = _graph()
    _run(Plan(values={Value((), "y"): U8}, uses={Use((), "", 0): U8}, decisions={}), graph)
    assert [n.op for n in graph.nodes] == ["Sin", "QuantizeLinear", "DequantizeLinear"]
    assert graph.nodes[0].outputs[0].name == "y_float"
    assert graph.nodes[2].outputs[0] is graph.outputs[0]


def test_names_that_are_taken_already_are_left_alone() -> None:
    """onnxruntime #17760: name clashes give models that do not load."""
    text = """<ir_version: 10, opset_import: ["": 21]> g (float[1,4,8,8] x_quantized) => (float[1,4,8,8] y)
        <float[4,4,3,3] W = {0}, float[4,4,3,3] W_quantized = {0}> {
        x_quantized_quantized = Relu(x_quantized)
        [x_dequantized] a = Conv <pads=[1,1,1,1]> (x_quantized_quantized, W)
        y = Conv <pads=[1,1,1,1]> (a, W_quantized) }"""
    result = quantize_text(text)
    names = [i.name for i in onnx.load_from_string(result.file).graph.initializer]
    assert len(names) == len(set(names))
    assert result.kernels()["QLinearConv"] == 2


def test_case_4_equal_encodings_share_their_parameters() -> None:
    text = """<ir_version: 10, opset_import: ["": 21]> g (float[1,4,8,8] x) => (float[1,4,4,4] y)
        <float[4,4,3,3] W = {0}> {
        a = Conv <pads=[1,1,1,1]> (x, W) p = MaxPool <kernel_shape=[2,2], strides=[2,2]> (a)
        y = Conv <pads=[1,1,1,1]> (p, W) }"""
    graph = onnx.load_from_string(quantize_text(text).file).graph
    scales = {
        n.input[1]
        for n in graph.node
        if n.op_type == "QuantizeLinear" and n.output[0] in ("a_quantized", "p_quantized")
    }
    assert len(scales) == 1
    weights = [n for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] == "W_quantized"]
    assert len(weights) == 1


def _affine(kind: str, scale: ArrayLike, zero: ArrayLike, how: Granularity | None = None) -> Affine:
    scales, zeros = np.asarray(scale, np.float32), np.asarray(zero, kind)
    return Affine(type=cast(IntType, kind), granularity=how or PerTensor(), scale=scales, zero_point=zeros)


def _written(graph: str, values: dict[str, Affine], uses: dict[tuple[str, int], Affine]) -> tuple[gs.Graph, Report]:
    context, model_ = default_context(), text.parse(model(graph))
    context.plan = Plan(
        values={Value((), n): e for n, e in values.items()},
        uses={Use((), *u): e for u, e in uses.items()},
        decisions={},
    )
    return model_.graph, InsertQdq().run(model_.graph, context)


def _types(graph: gs.Graph) -> dict[str, tuple[str, tuple[int, ...]]]:
    tensors = [t for n in graph.nodes for t in (*n.inputs, *n.outputs)]
    return {
        t.name: (np.dtype(t.dtype).name, tuple(t.shape)) for t in tensors if t.dtype is not None and t.shape is not None
    }


OTHER = _affine("int8", 0.25, -1)


def test_case_1_each_encoding_has_its_dq_and_readers_in_float_read_on() -> None:
    head = "(float[2,3] x, float[2] other) => (float[2,3] v, float[2] w)"
    nodes = "[first] a = Neg(x) [x_QuantizeLinear] b = Add(x, a) [c] c = Sub(b, x) [d] v = Mul(c, x) [e] w = Neg(other)"
    graph, report = _written(
        f"{head} {{ {nodes} }}", {"x": U8}, {("x_QuantizeLinear", 0): U8, ("c", 1): OTHER, ("d", 1): U8, ("e", 0): U8}
    )
    after = (
        f"{head} <float x_scale = {{0.5}}, uint8 x_zero_point = {{3}}, float x_scale_1 = {{0.25}}, int8 x_zero_point_1 = {{-1}}> {{ "
        "[x_QuantizeLinear_1] x_quantized = QuantizeLinear(x, x_scale, x_zero_point) "
        "[x_DequantizeLinear] x_dequantized = DequantizeLinear(x_quantized, x_scale, x_zero_point) "
        "[x_DequantizeLinear_1] x_dequantized_1 = DequantizeLinear(x_quantized, x_scale_1, x_zero_point_1) "
        "[other_QuantizeLinear] other_quantized = QuantizeLinear(other, x_scale, x_zero_point) "
        "[other_DequantizeLinear] other_dequantized = DequantizeLinear(other_quantized, x_scale, x_zero_point) "
        "[first] a = Neg(x) [x_QuantizeLinear] b = Add(x_dequantized, a) [c] c = Sub(b, x_dequantized_1) "
        "[d] v = Mul(c, x_dequantized) [e] w = Neg(other_dequantized) }"
    )
    assert text.text(graph) == text.text(text.parse(model(after)).graph)
    assert report.rewrites == 2
    types = _types(graph)
    assert types["x_quantized"] == ("uint8", (2, 3))
    assert types["x_dequantized"] == types["x_dequantized_1"] == ("float32", (2, 3))


def test_case_1_scales_per_channel_that_are_equal_are_one_for_the_q() -> None:
    head = "(float[2,3] x) => (float[2,3] y)"
    channels = _affine("uint8", [0.5, 0.5], [3, 3], PerChannel(0))
    graph, _ = _written(f"{head} {{ [a] y = Neg(x) }}", {"x": U8}, {("a", 0): channels})
    after = (
        f"{head} <float x_scale = {{0.5}}, uint8 x_zero_point = {{3}}, float[2] x_scale_1 = {{0.5, 0.5}}, uint8[2] x_zero_point_1 = {{3, 3}}> {{ "
        "[x_QuantizeLinear] x_quantized = QuantizeLinear(x, x_scale, x_zero_point) "
        "[x_DequantizeLinear] x_dequantized = DequantizeLinear <axis = 0> (x_quantized, x_scale_1, x_zero_point_1) [a] y = Neg(x_dequantized) }"
    )
    assert text.text(graph) == text.text(text.parse(model(after)).graph)


def test_case_2_constants_by_channel_and_by_block() -> None:
    head = "(float[2,3] x) => (float[2,3] v) <float[2,3] W = {1, 2, 3, 4, 5, 6}"
    nodes = "[a] a = Add(x, W) [b] b = Add(a, W) [c] v = Add(b, W)"
    channels = _affine("int8", [0.5, 1], [0, 1], PerChannel(0))
    blocks = _affine("int8", [[1], [2]], [[0], [0]], PerBlock(1, 3))
    graph, report = _written(f"{head}> {{ {nodes} }}", {}, {("a", 1): channels, ("b", 1): blocks, ("c", 1): channels})
    after = (
        f"{head}, int8[2,3] W_quantized = {{2, 4, 6, 5, 6, 7}}, float[2] W_scale = {{0.5, 1}}, int8[2] W_zero_point = {{0, 1}}, "
        "int8[2,3] W_quantized_1 = {1, 2, 3, 2, 2, 3}, float[2,1] W_scale_1 = {1, 2}, int8[2,1] W_zero_point_1 = {0, 0}> { "
        "[W_DequantizeLinear] W_dequantized = DequantizeLinear <axis = 0> (W_quantized, W_scale, W_zero_point) "
        "[W_DequantizeLinear_1] W_dequantized_1 = DequantizeLinear <axis = 1, block_size = 3> (W_quantized_1, W_scale_1, W_zero_point_1) "
        "[a] a = Add(x, W_dequantized) [b] b = Add(a, W_dequantized_1) [c] v = Add(b, W_dequantized) }"
    )
    assert text.text(graph) == text.text(text.parse(model(after)).graph)
    assert report.rewrites == 2
    assert _types(graph)["W_dequantized"] == ("float32", (2, 3))


def test_case_3_who_reads_the_output_inside_reads_what_was_computed() -> None:
    head = "(float[2,3] x) => (float[2,3] y, float[2,3] z)"
    nodes = "[a] y = Neg(x) [b] z = Sub(x, y)"
    graph, report = _written(f"{head} {{ {nodes} }}", {"y": U8}, {("", 0): U8})
    after = (
        f"{head} <float y_scale = {{0.5}}, uint8 y_zero_point = {{3}}> {{ [a] y_float = Neg(x) "
        "[y_QuantizeLinear] y_quantized = QuantizeLinear(y_float, y_scale, y_zero_point) "
        "[y_DequantizeLinear] y = DequantizeLinear(y_quantized, y_scale, y_zero_point) [b] z = Sub(x, y_float) }"
    )
    assert text.text(graph) == text.text(text.parse(model(after)).graph)
    assert report.rewrites == 1
    types = _types(graph)
    assert types["y"] == types["y_float"] == ("float32", (2, 3))
    assert graph.nodes[0].outputs[0].inputs == [graph.nodes[0]]


@pytest.mark.parametrize(
    ("scales", "zeros", "how", "attributes"),
    [
        ("float[2] x_scale_1 = {0.5, 0.5}", "uint8[2] x_zero_point_1 = {3, 3}", PerChannel(0), "axis = 0"),
        (
            "float[2,1] x_scale_1 = {0.5, 0.5}",
            "uint8[2,1] x_zero_point_1 = {3, 3}",
            PerBlock(1, 3),
            "axis = 1, block_size = 3",
        ),
    ],
)
def test_case_4_the_one_scale_of_many_is_shared_too(scales: str, zeros: str, how: Granularity, attributes: str) -> None:
    head = "(float[2,3] x, float[2,3] v) => (float[2,3] y, float[2,3] w)"
    shape = (2, 1) if isinstance(how, PerBlock) else (2,)
    many = _affine("uint8", np.full(shape, 0.5), np.full(shape, 3), how)
    graph, _ = _written(
        f"{head} {{ [a] y = Neg(x) [b] w = Neg(v) }}", {"x": U8, "v": U8}, {("a", 0): many, ("b", 0): U8}
    )
    after = (
        f"{head} <float x_scale = {{0.5}}, uint8 x_zero_point = {{3}}, {scales}, {zeros}> {{ "
        "[x_QuantizeLinear] x_quantized = QuantizeLinear(x, x_scale, x_zero_point) "
        f"[x_DequantizeLinear] x_dequantized = DequantizeLinear <{attributes}> (x_quantized, x_scale_1, x_zero_point_1) "
        "[v_QuantizeLinear] v_quantized = QuantizeLinear(v, x_scale, x_zero_point) "
        "[v_DequantizeLinear] v_dequantized = DequantizeLinear(v_quantized, x_scale, x_zero_point) "
        "[a] y = Neg(x_dequantized) [b] w = Neg(v_dequantized) }"
    )
    assert text.text(graph) == text.text(text.parse(model(after)).graph)


def test_case_3_an_output_that_a_body_reads_quantized() -> None:
    source = """(bool c, float[2] x) => (float[2] y, float[2] z) {{ [a] {a} = Neg(x) {more} [if] z = If(c) <
        then_branch = t () => (float[2] p) {{ [p] p = Neg({read}) }}, else_branch = e () => (float[2] q) {{ [q] q = Abs(x) }}> }}"""
    graph = text.parse(model(source.format(a="y", more="", read="y"))).graph
    path = next(path for path, body in walk.graphs(graph) if any(n.name == "p" for n in body.nodes))
    context = default_context()
    context.plan = Plan(values={Value((), "y"): U8}, uses={Use((), "", 0): U8, Use(path, "p", 0): U8}, decisions={})
    InsertQdq().run(graph, context)
    more = (
        "[y_QuantizeLinear] y_quantized = QuantizeLinear(y_float, y_scale, y_zero_point) "
        "[y_DequantizeLinear] y_dequantized = DequantizeLinear(y_quantized, y_scale, y_zero_point) "
        "[y_DequantizeLinear_1] y = DequantizeLinear(y_quantized, y_scale, y_zero_point)"
    )
    after = source.format(a="y_float", more=more, read="y_dequantized")
    after = after.replace(") {", ") <float y_scale = {0.5}, uint8 y_zero_point = {3}> {", 1)
    assert text.text(graph) == text.text(text.parse(model(after)).graph)


NESTED = """(bool c, float[2] x) => (float[2] v, float[2] z) {{ [a] a = Neg(x) {outer} [v] v = Abs({a}) [if] z = If(c) <
    then_branch = t () => (float[2] p) {{ {first} [m] m = Neg({b}) [in] p = If(c) <
        then_branch = u () => (float[2] r) {{ {second} [r] r = Sub(m, {d}) }}, else_branch = w () => (float[2] s) {{ [s] s = Abs(m) }}> }},
    else_branch = e () => (float[2] q) {{ [q] q = Abs(x) }}> }}"""
PAIR = "[a_QuantizeLinear{0}] a_quantized{0} = QuantizeLinear(a, {1}) [a_DequantizeLinear{0}] a_dequantized{0} = DequantizeLinear(a_quantized{0}, {1})"
TWO = "<float a_scale = {0.5}, uint8 a_zero_point = {3}, float a_scale_1 = {0.25}, int8 a_zero_point_1 = {-1}>"


def _nested(values: dict[int, Affine], uses: dict[int, Affine]) -> gs.Graph:
    """`NESTED` with encodings of the tensor a by depth: of its values, and of what reads it."""
    graph = text.parse(model(NESTED.format(outer="", first="", second="", a="a", b="a", d="a"))).graph
    paths = {n.name: path for path, body in walk.graphs(graph) for n in body.nodes}
    depths = [(paths["v"], "v", 0), (paths["m"], "m", 0), (paths["r"], "r", 1)]
    context = default_context()
    context.plan = Plan(
        values={Value(depths[d][0], "a"): e for d, e in values.items()},
        uses={Use(*depths[d]): e for d, e in uses.items()},
        decisions={},
    )
    InsertQdq().run(graph, context)
    return graph


def _same(graph: gs.Graph, after: str, constants: str) -> None:
    assert text.text(graph) == text.text(text.parse(model(after.replace(") {", f") {constants} {{", 1))).graph)


def test_case_5_a_body_reads_the_integers_of_the_graph_around_where_it_has_the_same_encoding() -> None:
    graph = _nested({0: U8, 1: U8, 2: U8}, {0: U8, 1: U8, 2: U8})
    inside = "[a_DequantizeLinear_{0}] a_dequantized_{0} = DequantizeLinear(a_quantized, a_scale, a_zero_point)"
    after = NESTED.format(
        outer=PAIR.format("", "a_scale, a_zero_point"),
        first=inside.format(1),
        second=inside.format(2),
        a="a_dequantized",
        b="a_dequantized_1",
        d="a_dequantized_2",
    )
    _same(graph, after, "<float a_scale = {0.5}, uint8 a_zero_point = {3}>")


def test_case_5_a_body_with_another_encoding_has_its_own_q() -> None:
    graph = _nested({0: U8, 1: OTHER, 2: OTHER}, {0: U8, 1: OTHER, 2: OTHER})
    inside = "[a_DequantizeLinear_2] a_dequantized_2 = DequantizeLinear(a_quantized_1, a_scale_1, a_zero_point_1)"
    after = NESTED.format(
        outer=PAIR.format("", "a_scale, a_zero_point"),
        first=PAIR.format("_1", "a_scale_1, a_zero_point_1"),
        second=inside,
        a="a_dequantized",
        b="a_dequantized_1",
        d="a_dequantized_2",
    )
    _same(graph, after, TWO)


def test_case_5_a_use_stands_where_the_nearest_graph_has_a_value() -> None:
    """The innermost body has none: it reads what the body around it dequantizes."""
    graph = _nested({0: U8, 1: OTHER}, {0: U8, 2: OTHER})
    after = NESTED.format(
        outer=PAIR.format("", "a_scale, a_zero_point"),
        first=PAIR.format("_1", "a_scale_1, a_zero_point_1"),
        second="",
        a="a_dequantized",
        b="a",
        d="a_dequantized_1",
    )
    _same(graph, after, TWO)


def test_case_5_only_a_body_reads_it() -> None:
    graph = _nested({1: U8}, {1: U8, 2: U8})
    after = NESTED.format(
        outer="", first=PAIR.format("", "a_scale, a_zero_point"), second="", a="a", b="a_dequantized", d="a_dequantized"
    )
    _same(graph, after, "<float a_scale = {0.5}, uint8 a_zero_point = {3}>")


def test_case_5_bodies_side_by_side_are_named_in_the_order_of_the_graph() -> None:
    source = """(bool c, float[2] x) => (float[2] z) {{ [a] a = Neg(x) [if] z = If(c) <
        then_branch = t () => (float[2] p) {{ {0} [p] p = Neg({1}) }}, else_branch = e () => (float[2] q) {{ {2} [q] q = Abs({3}) }}> }}"""
    graph = text.parse(model(source.format("", "a", "", "a"))).graph
    paths = {n.name: path for path, body in walk.graphs(graph) for n in body.nodes}
    order = [n.name for _, body in walk.graphs(graph) for n in body.nodes if n.name in "pq"]
    assert sorted(order, key=lambda n: paths[n]) != order
    context = default_context()
    encodings = dict(zip(order, (U8, OTHER), strict=True))
    context.plan = Plan(
        values={Value(paths[n], "a"): e for n, e in encodings.items()},
        uses={Use(paths[n], n, 0): e for n, e in encodings.items()},
        decisions={},
    )
    InsertQdq().run(graph, context)
    named = {
        n: i.inputs[0].name for n, i in ((n.name, n) for _, body in walk.graphs(graph) for n in body.nodes) if n in "pq"
    }
    assert named == {order[0]: "a_dequantized", order[1]: "a_dequantized_1"}


def test_case_5_the_graph_around_writes_the_integers_even_if_only_a_body_reads_them() -> None:
    graph = _nested({0: U8, 1: U8}, {1: U8})
    outer = "[a_QuantizeLinear] a_quantized = QuantizeLinear(a, a_scale, a_zero_point)"
    inside = "[a_DequantizeLinear] a_dequantized = DequantizeLinear(a_quantized, a_scale, a_zero_point)"
    after = NESTED.format(outer=outer, first=inside, second="", a="a", b="a_dequantized", d="a")
    _same(graph, after, "<float a_scale = {0.5}, uint8 a_zero_point = {3}>")


def test_case_1_the_q_has_the_encoding_of_the_value_not_of_its_first_use() -> None:
    head = "(float[2,3] x) => (float[2,3] y)"
    graph, _ = _written(f"{head} {{ [a] y = Neg(x) }}", {"x": OTHER}, {("a", 0): U8})
    after = (
        f"{head} <float x_scale = {{0.25}}, int8 x_zero_point = {{-1}}, float x_scale_1 = {{0.5}}, uint8 x_zero_point_1 = {{3}}> {{ "
        "[x_QuantizeLinear] x_quantized = QuantizeLinear(x, x_scale, x_zero_point) "
        "[x_DequantizeLinear] x_dequantized = DequantizeLinear(x_quantized, x_scale_1, x_zero_point_1) [a] y = Neg(x_dequantized) }"
    )
    assert text.text(graph) == text.text(text.parse(model(after)).graph)


@pytest.mark.parametrize("how", [PerChannel(0), PerBlock(1, 3)])
def test_case_1_without_a_value_the_q_has_the_one_scale_of_its_first_use(how: Granularity) -> None:
    shape = (2, 1) if isinstance(how, PerBlock) else (2,)
    many = _affine("uint8", np.full(shape, 0.5), np.full(shape, 3), how)
    graph, _ = _written("(float[2,3] x) => (float[2,3] y) { [a] y = Neg(x) }", {}, {("a", 0): many})
    q = graph.nodes[0]
    assert (q.op, q.attrs, q.inputs[1].name) == ("QuantizeLinear", {}, "x_scale")
    assert [(np.asarray(t.values).shape, np.asarray(t.values).item()) for t in q.inputs[1:]] == [((), 0.5), ((), 3)]
    assert np.dtype(q.outputs[0].dtype) == np.uint8


def test_equal_single_scales_are_shared_whether_a_value_or_a_use_says_them() -> None:
    head = "(float[2,3] x, float[2,3] v) => (float[2,3] y, float[2,3] w)"
    many = _affine("uint8", [0.5, 0.5], [3, 3], PerChannel(0))
    graph, _ = _written(f"{head} {{ [a] y = Neg(x) [b] w = Neg(v) }}", {"v": U8}, {("a", 0): many, ("b", 0): U8})
    first, second = (n for n in graph.nodes if n.op == "QuantizeLinear")
    assert first.inputs[1] is second.inputs[1] and first.inputs[2] is second.inputs[2]


CONV = """<ir_version: 8, opset_import: ["": 21]>
g (float[1,1,2,2] x) => (float[1,2,2,2] y) <float[2,1,1,1] w = {1, 2}, float[2] b = {0.5, 1}> {
    [conv] y = Conv(INPUTS)
}"""


@pytest.mark.parametrize(("inputs", "name"), [("x, w, b", "b_corrected"), ("x, w", "conv_bias_corrected")])
def test_case_6_a_bias_of_the_plan_takes_the_place_of_the_one_that_is_there_or_of_none(inputs: str, name: str) -> None:
    graph = text.parse(CONV.replace("INPUTS", inputs)).graph
    use = Use((), "conv", 2)
    integers = Affine(
        type="int32", granularity=PerTensor(), scale=np.array(0.25, np.float32), zero_point=np.array(0, np.int32)
    )
    values = Values(np.array([0.75, -1.5], np.float32))
    _run(Plan(values={}, uses={use: integers}, decisions={}, biases={use: values}), graph)
    (conv,) = (n for n in graph.nodes if n.op == "Conv")
    assert len(conv.inputs) == 3
    levels = conv.inputs[2].inputs[0].inputs[0]
    assert levels.name == f"{name}_quantized"
    assert levels.values.tolist() == [3, -6]


def test_case_6_a_float_bias_stays_float() -> None:
    graph = text.parse(CONV.replace("INPUTS", "x, w, b")).graph
    values = Values(np.array([0.75, -1.5], np.float32))
    _run(Plan(values={}, uses={}, decisions={}, biases={Use((), "conv", 2): values}), graph)
    assert [n.op for n in graph.nodes] == ["Conv"]
    assert np.array_equal(graph.nodes[0].inputs[2].values, values.array)


@pytest.mark.parametrize("use", [Use((), "conv", 4), Use((), "other", 2), Use(("body",), "conv", 2)])
def test_case_6_a_bias_of_another_graph_is_refused(use: Use) -> None:
    graph = text.parse(CONV.replace("INPUTS", "x, w, b")).graph
    plan = Plan(values={}, uses={}, decisions={}, biases={use: Values(np.zeros(2, np.float32))})
    with pytest.raises(PassError, match="a bias that the graph has no place for: it was made for another"):
        _run(plan, graph)


def test_case_6_each_bias_is_a_rewrite() -> None:
    source = CONV.replace("=> (float[1,2,2,2] y)", "=> (float[1,2,2,2] y, float[1,2,2,2] z)")
    graph = text.parse(source.replace("INPUTS)", "x, w, b) [other] z = Conv(x, w)")).graph
    context = default_context()
    biases = {Use((), name, 2): Values(np.full(2, value, np.float32)) for name, value in (("conv", 1), ("other", 2))}
    context.plan = Plan(values={}, uses={}, decisions={}, biases=biases)
    assert InsertQdq().run(graph, context).rewrites == 2
    assert [n.inputs[2].values.tolist() for n in graph.nodes] == [[1, 1], [2, 2]]
