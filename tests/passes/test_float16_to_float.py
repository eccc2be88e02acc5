from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from rewriting import bitwise, keep, model, rewrite

from onnxq.ir import text, walk
from onnxq.pipeline.base import Report
from onnxq.testing import check_pass, default_context
from onnxq_passes.float16_to_float import Float16ToFloat

PASS = Float16ToFloat()
ONE_AND_A_HALF = 15872  # its bits in float16
BF_ONE_AND_A_HALF = 16320  # and in bfloat16


def test_contract() -> None:
    check_pass(Float16ToFloat)


def test_cases_1_and_2() -> None:
    report = rewrite(
        PASS,
        f"(float16[1] x) => (float16[1] y) <float16[1] w = {{{ONE_AND_A_HALF}}}> {{ [mul] z = Mul(x, w) [last] y = Exp(z) }}",
        """(float16[1] x) => (float16[1] y) <float[1] w = {1.5}> { [x_Cast] x_float = Cast<to = 1>(x)
            [mul] z = Mul(x_float, w) [last] y_float = Exp(z) [y_Cast] y = Cast<to = 10>(y_float) }""",
        rewrites=3,
        atol=1e-2,
    )
    assert "half precision" in report.notes[0]


def test_bfloat16() -> None:
    # ONNX Runtime has no bfloat16 kernels of Mul: the result is compared, not the original run
    graph = text.parse(
        model(
            f"(bfloat16[1] x) => (float[1] y) <bfloat16[1] w = {{{BF_ONE_AND_A_HALF}}}> {{ z = Mul(x, w) y = Cast<to = 1>(z) }}"
        )
    ).graph
    assert PASS.run(graph, default_context()).rewrites == 2
    wanted = """(bfloat16[1] x) => (float[1] y) <float[1] w = {1.5}> { [x_Cast] x_float = Cast<to = 1>(x) z = Mul(x_float, w) y = Cast<to = 1>(z) }"""
    assert text.text(graph) == text.text(text.parse(model(wanted)).graph)
    assert PASS.run(graph, default_context()).rewrites == 0


def test_an_output_that_is_read_inside() -> None:
    rewrite(
        PASS,
        "(float16[2] x) => (float16[2] y, float16[2] z) { [a] y = Neg(x) [b] z = Abs(y) }",
        """(float16[2] x) => (float16[2] y, float16[2] z) { [x_Cast] x_float = Cast<to = 1>(x) [a] y_float = Neg(x_float)
            [y_Cast] y = Cast<to = 10>(y_float) [b] z_float = Abs(y_float) [z_Cast] z = Cast<to = 10>(z_float) }""",
        rewrites=3,
        atol=0,
    )


def test_an_input_that_is_an_output_stays() -> None:
    source = "(float16[2] x, float16[2] v) => (float16[2] x, float16[2] y) { y = Neg(v) }"
    graph = text.parse(model(source)).graph
    PASS.run(graph, default_context())
    assert [t.name for t in graph.outputs] == ["x", "y"]
    assert graph.inputs[0] is graph.outputs[0]


def test_case_3_inner_casts_and_type_attributes() -> None:
    rewrite(
        PASS,
        """(float[2] x) => (float[2] y) <int64[1] s = {2}> { h = Cast<to = 10>(x) k = ConstantOfShape<value = float16[1] {15872}>(s)
            m = Mul(h, k) y = Cast<to = 1>(m) }""",
        """(float[2] x) => (float[2] y) <int64[1] s = {2}> { h = Cast<to = 1>(x) k = ConstantOfShape<value = float[1] {1.5}>(s)
            m = Mul(h, k) y = Cast<to = 1>(m) }""",
        rewrites=2,
        atol=1e-2,
    )


def test_case_4_bodies() -> None:
    source = """(bool c, float16[1] x) => (float16[1] y) { [if] y = If(c) <
        then_branch = p () => (float16[1] t) { t = Exp(x) }, else_branch = q () => (float16[1] e) { h = Cast<to = 10>(x) e = Neg(h) }> }"""
    graph = text.parse(model(source)).graph
    assert PASS.run(graph, default_context()).rewrites == 5
    bodies = dict(walk.graphs(graph))
    assert all(body.outputs[0].dtype == "float32" for path, body in bodies.items() if path)
    rewrite(PASS, source, str(WANTED_BODIES), rewrites=5, atol=1e-2)


WANTED_BODIES = """(bool c, float16[1] x) => (float16[1] y) { [x_Cast] x_float = Cast<to = 1>(x) [if] y_float = If(c) <
    then_branch = p () => (float[1] t) { t = Exp(x_float) }, else_branch = q () => (float[1] e) { h = Cast<to = 1>(x_float) e = Neg(h) }>
    [y_Cast] y = Cast<to = 10>(y_float) }"""


def test_case_5_fp16_weights_behind_a_cast_are_left_alone() -> None:
    keep(
        PASS,
        f"(float[1] x) => (float[1] y) <float16[1] w = {{{ONE_AND_A_HALF}}}> {{ f = Cast<to = 1>(w) y = Mul(x, f) }}",
    )


def test_case_5_near_miss_a_cast_down() -> None:
    bitwise(
        PASS,
        "(float[2] x) => (bool[2] y) { h = Cast<to = 10>(x) y = IsNaN(h) }",
        "(float[2] x) => (bool[2] y) { h = Cast<to = 1>(x) y = IsNaN(h) }",
        rewrites=1,
    )


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("(float16[1] x) => (float16[1] y) { [op] y = their.domain.Op(x) }", "op of the domain their.domain"),
        ("(float16[1] x) => (uint16[1] y) { [op] y = BitCast<to = 4>(x) }", "reads the bits"),
        (
            "(seq(float16[1]) x) => (float[1] y) { [op] z = ConcatFromSequence<axis = 0>(x) y = Cast<to = 1>(z) }",
            "sequence of half",
        ),
    ],
)
def test_case_6_refusals(source: str, reason: str) -> None:
    text_before = model(source).replace('"com.microsoft" : 1', '"com.microsoft" : 1, "their.domain" : 1')
    if "seq(" in source:
        source = source.replace("y = Cast<to = 1>(z)", "h = Cast<to = 10>(z) y = Cast<to = 1>(h)")
        text_before = model(source)
    graph = text.parse(text_before).graph
    before = text.text(graph)
    report = PASS.run(graph, default_context())
    assert report.rewrites == 0
    assert reason in report.refusals[0].reason
    assert text.text(graph) == before


def test_case_1_casts_that_are_there_already() -> None:
    keep(PASS, "(float16[2] x) => (float16[2] y) { f = Cast<to = 1>(x) g = Exp(f) y = Cast<to = 10>(g) }")


def test_case_1_near_miss_the_cast_output_is_read_inside() -> None:
    rewrite(
        PASS,
        "(float[2] x) => (float16[2] y, float[2] z) { [down] y = Cast<to = 10>(x) e = Exp(y) [up] z = Cast<to = 1>(e) }",
        "(float[2] x) => (float16[2] y, float[2] z) { [down] y_float = Cast<to = 1>(x) [y_Cast] y = Cast<to = 10>(y_float) "
        "e = Exp(y_float) [up] z = Cast<to = 1>(e) }",
        rewrites=2,
        atol=1e-2,
    )


def converted(source: str, opset: int = 21) -> tuple[gs.Graph, Report]:
    graph = text.parse(model(source, opset)).graph
    return graph, PASS.run(graph, default_context())


def test_every_part_counts_and_has_its_type_and_shape() -> None:
    """Two inputs, two outputs, two constants, two tensors in between, two nodes that name a type."""
    graph, report = converted(
        "(float16[2] x, float16[2] v) => (float16[2] y, float16[2] z) <float16[2] k = {15872, 15872}, float16[2] l = {15872, 15872}, float16[2] a, float16[2] b> "
        "{ a = Mul(x, k) b = Mul(v, l) c = Cast<to = 10>(a) d = Cast<to = 10>(b) y = Neg(c) z = Neg(d) }"
    )
    assert report.rewrites == 10
    made = {
        t.name: (np.dtype(t.dtype).name, tuple(t.shape))
        for n in graph.nodes
        for t in (*n.inputs, *n.outputs)
        if t.name.endswith("_float")
    }
    assert made == dict.fromkeys(("x_float", "v_float", "y_float", "z_float"), ("float32", (2,)))
    constants = [t for n in graph.nodes for t in n.inputs if isinstance(t, gs.Constant)]
    assert [t.values.flags.writeable for t in constants] == [False, False]


def test_a_float_graph_says_nothing() -> None:
    _, report = converted("(float[1] x) => (float[1] y) <float[1] k = {2}> { y = Mul(x, k) }")
    assert (report.rewrites, report.notes, report.refusals) == (0, [], [])


def test_case_1_an_input_that_is_cast_to_half_only() -> None:
    rewrite(
        PASS,
        "(float16[2] x) => (float[2] y) { h = Cast<to = 10>(x) e = Exp(h) y = Cast<to = 1>(e) }",
        "(float16[2] x) => (float[2] y) { h = Cast<to = 1>(x) e = Exp(h) y = Cast<to = 1>(e) }",
        rewrites=1,
        atol=1e-2,
    )


def test_case_1_an_output_behind_a_cast_beside_one_that_is_computed_in_half() -> None:
    rewrite(
        PASS,
        "(float[2] x) => (float16[2] y, float[2] z) { y = Cast<to = 10>(x) h = Cast<to = 10>(x) e = Exp(h) z = Cast<to = 1>(e) }",
        "(float[2] x) => (float16[2] y, float[2] z) { y = Cast<to = 10>(x) h = Cast<to = 1>(x) e = Exp(h) z = Cast<to = 1>(e) }",
        rewrites=1,
        atol=2e-2,
    )


def test_case_4_a_cast_that_gives_the_result_of_a_body() -> None:
    source = """(bool c, float[1] x) => (float[1] y) {{ h = If(c) <then_branch = p () => ({0}[1] t) {{ t = Cast<to = {1}>(x) }},
        else_branch = q () => ({0}[1] e) {{ e = Cast<to = {1}>(x) }}> y = Cast<to = 1>(h) }}"""
    rewrite(PASS, source.format("float16", 10), source.format("float", 1), rewrites=4, atol=1e-2)


def test_case_4_a_value_that_a_body_does_not_read() -> None:
    graph, _ = converted(
        """(int64 n, bool c, float16[1] x, float16[1] w) => (float16[1] y, float16[1] z) { y, z = Loop(n, c, x, w) <body = b (int64 i, bool d, float16[1] u, float16[1] v)
        => (bool e, float16[1] s, float16[1] t) { e = Identity(d) s = Neg(v) t = Abs(v) }> }"""
    )
    (body,) = (b for path, b in walk.graphs(graph) if path)
    assert [np.dtype(t.dtype).name for t in body.inputs[2:]] == ["float32", "float32"]


def test_case_3_a_bfloat16_value() -> None:
    graph, report = converted(
        f"(float[2] x) => (float[2] y) <int64[1] s = {{2}}> {{ k = ConstantOfShape<value = bfloat16[1] {{{BF_ONE_AND_A_HALF}}}>(s) h = Cast<to = 16>(x) m = Mul(h, k) y = Cast<to = 1>(m) }}"
    )
    assert report.rewrites == 2
    assert (
        graph.nodes[0].attrs["value"].values.tolist() == [1.5]
        and graph.nodes[0].attrs["value"].values.dtype == np.float32
    )


def test_case_5_near_miss_half_constants_that_are_computed_with() -> None:
    rewrite(
        PASS,
        f"(float[1] x) => (float[1] y) <float16[1] w = {{{ONE_AND_A_HALF}}}> {{ z = Neg(w) f = Cast<to = 1>(z) y = Mul(x, f) }}",
        "(float[1] x) => (float[1] y) <float[1] w = {1.5}> { z = Neg(w) f = Cast<to = 1>(z) y = Mul(x, f) }",
        rewrites=1,
        atol=0,
    )


@pytest.mark.parametrize(
    "node", ["y = com.microsoft.Gelu(x)", "y = ai.onnx.ml.Scaler<offset = [0.0], scale = [1.0]>(x)"]
)
def test_case_6_near_miss_domains_that_compute_in_float(node: str) -> None:
    graph, report = converted(f"(float16[1] x) => (float16[1] y) {{ {node} }}")
    assert (report.rewrites, report.refusals) == (2, [])
    assert [n.op for n in graph.nodes][::2] == ["Cast", "Cast"]


def test_case_6_near_miss_a_sequence_of_floats() -> None:
    _, report = converted(
        "(seq(float[1]) x) => (float[1] y) { z = ConcatFromSequence<axis = 0>(x) h = Cast<to = 10>(z) y = Cast<to = 1>(h) }"
    )
    assert (report.rewrites, report.refusals) == (1, [])
