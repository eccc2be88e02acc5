from __future__ import annotations

from rewriting import bitwise, keep, model

from onnxq.ir import text
from onnxq.testing import check_pass, default_context
from onnxq_passes.eliminate_dead import EliminateDead

PASS = EliminateDead()


def test_contract() -> None:
    check_pass(EliminateDead)


def test_case_1_a_chain_that_nobody_reads() -> None:
    bitwise(
        PASS,
        "(float[2] x) => (float[2] y) <float[2] w = {1, 2}> { a = Exp(x) b = Add(a, w) y = Relu(x) }",
        "(float[2] x) => (float[2] y) { y = Relu(x) }",
        rewrites=2,
    )


BODY = """(bool c, float[2] x) => (float[2] y) {{ a = Exp(x) {0} y = If(c) <
    then_branch = p () => (float[2] t) {{ {1} t = Relu(a) }}, else_branch = q () => (float[2] e) {{ e = Neg(x) }}> }}"""


def test_case_1_in_a_body_and_what_only_it_captured() -> None:
    bitwise(PASS, BODY.format("b = Abs(x)", "u = Neg(b)"), BODY.format("", ""), rewrites=2)


def test_case_1_near_miss_captured_by_a_body() -> None:
    keep(
        PASS,
        BODY.format("b = Abs(x)", "v = Neg(b) w = Shape(v)")
        .replace("t = Relu(a)", "z = Cast<to = 1>(w) t = Mul(z, a)")
        .replace("[2] x", "[1] x"),
    )


def test_case_1_a_dead_if_goes_with_its_bodies() -> None:
    bitwise(
        PASS,
        "(bool c, float[2] x) => (float[2] z) { a = Exp(x) y = If(c) < then_branch = p () => (float[2] t) { t = Relu(a) }, "
        "else_branch = q () => (float[2] e) { e = Neg(x) }> z = Abs(x) }",
        "(bool c, float[2] x) => (float[2] z) { z = Abs(x) }",
        rewrites=2,
    )


def test_case_2_unused_optional_outputs() -> None:
    bitwise(
        PASS,
        "(float[1,1,4,4] x) => (float[1,1,2,2] y) { y, i = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x) }",
        "(float[1,1,4,4] x) => (float[1,1,2,2] y) { y = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x) }",
        rewrites=1,
    )


def test_case_2_near_miss_the_indices_are_read() -> None:
    keep(
        PASS,
        "(float[1,1,4,4] x) => (float[1,1,2,2] y, int64[1,1,2,2] z) { y, i = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x) z = Neg(i) }",
    )


def test_case_3_outputs_that_an_op_must_have() -> None:
    keep(PASS, "(float[4] x, float[3] unused) => (float[2] y) { y, rest = Split<num_outputs = 2>(x) }")


def test_case_2_several_in_one_graph() -> None:
    bitwise(
        PASS,
        "(float[2,3] x) => (float[2,3] y, float[2,3] z) <float[3] s = {1, 2, 3}> { a = Exp(x) y, m, i = LayerNormalization(x, s) z, n, j = LayerNormalization(y, s) }",
        "(float[2,3] x) => (float[2,3] y, float[2,3] z) <float[3] s = {1, 2, 3}> { y = LayerNormalization(x, s) z = LayerNormalization(y, s) }",
        rewrites=5,
    )


def test_case_2_an_omitted_output_in_front_of_one_that_is_read() -> None:
    graph = text.parse(
        model(
            "(float[2,3] x) => (float[2,3] y, float[2,1] z) <float[3] s = {1, 2, 3}> { y, m, i = LayerNormalization(x, s) z = Neg(i) }"
        )
    ).graph
    assert PASS.run(graph, default_context()).rewrites == 1
    assert [t.name for t in graph.nodes[0].outputs] == ["y", "", "i"]


POOL = "v, i = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x)"


def test_case_2_near_misses_the_values_are_not_read_and_the_indices_are_an_output() -> None:
    keep(PASS, f"(float[1,1,4,4] x) => (int64[1,1,2,2] z) {{ {POOL} z = Neg(i) }}")
    keep(PASS, f"(float[1,1,4,4] x) => (float[1,1,2,2] z, int64[1,1,2,2] i) {{ {POOL} z = Neg(v) }}")
