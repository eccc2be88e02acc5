from __future__ import annotations

import numpy as np
import pytest
from fusing import Qdq
from rewriting import bitwise, keep, model

from onnxq.ir import text
from onnxq.testing import check_pass, default_context
from onnxq_passes.signed_to_unsigned import SignedToUnsigned

PASS = SignedToUnsigned()
CONSTANTS = "float s = {0.02}, int8 z = {-8}"
HEAD = "(float[2,3] x) => (float[2,3] y) "


def test_contract() -> None:
    check_pass(SignedToUnsigned)


def test_case_1_quantizer_and_readers_change_together() -> None:
    bitwise(
        PASS,
        HEAD
        + f"<{CONSTANTS}> {{ q = QuantizeLinear(x, s, z) a = DequantizeLinear(q, s, z) b = DequantizeLinear(q, s, z) y = Add(a, b) }}",
        HEAD
        + "<float s = {0.02}, uint8 q_zero_point_uint8 = {120}> { q = QuantizeLinear(x, s, q_zero_point_uint8) "
        + "a = DequantizeLinear(q, s, q_zero_point_uint8) b = DequantizeLinear(q, s, q_zero_point_uint8) y = Add(a, b) }",
        rewrites=1,
    )


def test_case_1_without_zero_points_and_per_channel() -> None:
    g = Qdq()
    scale = g.constant([0.01, 0.02, 0.03])
    x = g.data(2, 3, kind="uint8")
    q = g.op("QuantizeLinear", x, scale, axis=1, output_dtype=3)
    g.raw(g.op("DequantizeLinear", q, scale, axis=1))
    made = g.fuse(PASS)
    assert made.reports[0].rewrites == 1
    assert made.gap == 0
    assert made.spread() > 3


def test_case_2_integers_that_others_read() -> None:
    keep(
        PASS,
        HEAD + f"<{CONSTANTS}> {{ q = QuantizeLinear(x, s, z) y = Cast<to = 1>(q) }}",
        "reads the int8 numbers themselves",
    )
    keep(
        PASS,
        f"(float[2,3] x) => (int8[2,3] q) <{CONSTANTS}> {{ q = QuantizeLinear(x, s, z) }}",
        "is an output of the graph",
    )


def test_case_3_weights() -> None:
    g = Qdq()
    a, b = g.data(2, 3), g.data(3, 4, kind="int8", zero=0)
    w = g.dq(g.q(g.constant(np.ones((4, 2))), 0.01, 0, "int8"), 0.01, 0, "int8")
    g.raw(g.op("MatMul", g.op("MatMul", a, b), w))
    made = g.fuse(PASS)
    assert made.reports[0].rewrites == 0


def test_near_miss_unsigned_and_16_bits() -> None:
    for kind in ("uint8", "int16"):
        graph = (
            HEAD
            + f"<float s = {{0.02}}, {kind} z = {{8}}> {{ q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }}"
        )
        keep(PASS, graph)


def test_many_sites_in_every_body_beside_nodes_of_other_kinds() -> None:
    """Equal zero points are one constant."""
    ends = "<float s = {0.02}, int8 z = {-8}, int8 low = {-128}, int8 high = {127}, float k = {0.5}"
    new = ", uint8 first_zero_point_uint8 = {120}, uint8 second_zero_point_uint8 = {0}, uint8 third_zero_point_uint8 = {255}"
    body = (
        "{{ w = If(c) <then_branch = g () => (float[2,3] t) {{ [q] third = QuantizeLinear(x, s, {0}) [d] o = DequantizeLinear(third, s, {0}) [m] t = Neg(o) }}, "
        "else_branch = h () => (float[2,3] e) {{ [o] e = Neg(x) }}> "
        "[n] first = QuantizeLinear(x, s, {1}) [p] a = DequantizeLinear(first, s, {1}) [r] second = QuantizeLinear(a, s, {2}) "
        "[u] b = DequantizeLinear(second, s, {2}) [v] also = QuantizeLinear(b, s, {1}) [x] y = DequantizeLinear(also, s, {1}) }}"
    )
    head = "(bool c, float[2,3] x) => (float[2,3] y, float[2,3] w) "
    names = (f"{n}_zero_point_uint8" for n in ("third", "first", "second"))
    bitwise(
        PASS,
        f"{head}{ends}> {body.format('high', 'z', 'low')}",
        f"{head}{ends}{new}> {body.format(*names)}",
        rewrites=4,
    )


def test_the_tensor_between_becomes_uint8() -> None:
    graph = text.parse(
        model(f"{HEAD}<{CONSTANTS}> {{ q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }}")
    ).graph
    assert PASS.run(graph, default_context()).rewrites == 1
    assert np.dtype(graph.nodes[0].outputs[0].dtype) == np.uint8


def test_case_2_names_the_tensor_that_a_dq_reads_per_block() -> None:
    graph = (
        "(float[2,2] x) => (float[2,2] y) <float[2] s = {0.1, 0.2}, int8[2] z = {1, 2}, float[2,1] b = {0.1, 0.2}, int8[2,1] o = {1, 2}> "
        "{ [q] q = QuantizeLinear <axis = 0> (x, s, z) [d] y = DequantizeLinear <axis = 1, block_size = 2> (q, b, o) }"
    )
    keep(PASS, graph, "d has a scale per block")


def test_case_3_a_reader_at_the_place_of_the_weight_is_no_weight_to_other_ops() -> None:
    """The second operand of an Add, and a MatMul that also reads it as data: no weights."""
    for op, operands in (("Add", "x, a"), ("MatMul", "a, a")):
        head = "(float[2,2] x) => (float[2,2] y) <float s = {0.02}"
        nodes = (
            f"{{ [q] q = QuantizeLinear(x, s, {{0}}) [d] a = DequantizeLinear(q, s, {{0}}) [n] y = {op}({operands}) }}"
        )
        bitwise(
            PASS,
            f"{head}, int8 z = {{-8}}> {nodes.replace('{0}', 'z')}",
            f"{head}, uint8 q_zero_point_uint8 = {{120}}> {nodes.replace('{0}', 'q_zero_point_uint8')}",
            rewrites=1,
        )


C = "int8[3] k = {-128, 0, 127}"


def test_case_4_constants_of_other_ops_move() -> None:
    head = "(float[2,3] x) => (float[2,3] y, float[2,3] w) <float s = {0.02}"
    nodes = "{{ [d] a = DequantizeLinear({0}) [e] b = DequantizeLinear({1}) [n] y = Add(x, a) [m] c = Mul(x, b) [r] w = Sub(c, a) }}"
    bitwise(
        PASS,
        f"{head}, {C}, int8 z = {{-8}}, int8[3] j = {{1, 2, 3}}> {nodes.format('k, s, z', 'j, s')}",
        f"{head}, uint8[3] k_uint8 = {{0, 128, 255}}, uint8 k_uint8_zero_point = {{120}}, uint8[3] j_uint8 = {{129, 130, 131}}, "
        f"uint8 j_uint8_zero_point = {{128}}> {nodes.format('k_uint8, s, k_uint8_zero_point', 'j_uint8, s, j_uint8_zero_point')}",
        rewrites=2,
    )


@pytest.mark.parametrize(
    ("constants", "nodes"),
    [
        ("uint8[3] k = {0, 1, 2}, uint8 z = {8}", "[d] a = DequantizeLinear(k, s, z) [n] y = Add(x, a)"),
        ("int16[3] k = {0, 1, 2}, int16 z = {8}", "[d] a = DequantizeLinear(k, s, z) [n] y = Add(x, a)"),
        (f"{C}, int8[3] z = {{1, 2, 3}}, float[3] v = {{0.1, 0.2, 0.3}}", "[d] a = DequantizeLinear <axis = 0> (k, v, z) [n] y = Add(x, a)"),
        (f"{C}, int8 z = {{8}}, float g", "[g] g = Exp(s) [d] a = DequantizeLinear(k, g, z) [n] y = Add(x, a)"),
        (f"{C}, int8 z = {{8}}", "[d] a = DequantizeLinear(k, s, z) [n] y = Neg(x)"),
        ("int8[3,3] k = {1, 2, 3, 4, 5, 6, 7, 8, 9}, int8 z = {8}", "[d] a = DequantizeLinear(k, s, z) [m] b = MatMul(x, a) [n] y = Add(b, a)"),
    ],
)  # fmt: skip
def test_case_4_constants_that_stay(constants: str, nodes: str) -> None:
    """Other types, scales per channel or computed, constants that nobody or a matrix op reads."""
    keep(PASS, f"(float[3,3] x) => (float[3,3] y) <float s = {{0.02}}, {constants}> {{ {nodes} }}")


def test_case_4_a_constant_that_is_an_output_stays() -> None:
    head = f"(float[2,3] x) => (float[2,3] y, float[3] a) <float s = {{0.02}}, {C}, int8 z = {{8}}>"
    keep(PASS, f"{head} {{ [d] a = DequantizeLinear(k, s, z) [n] y = Add(x, a) }}")


def test_data_that_is_no_constant_is_not_moved_alone() -> None:
    keep(
        PASS,
        f"(int8[2,3] q) => (float[2,3] y) <{CONSTANTS}> {{ [d] a = DequantizeLinear(q, s, z) [n] y = Neg(a) }}",
        inputs={"q": np.array([[-128, 0, 127], [1, 2, 3]], np.int8)},
    )
