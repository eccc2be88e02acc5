from __future__ import annotations

import pytest
from rewriting import bitwise, keep, model

from onnxq.ir import text
from onnxq.testing import check_pass, default_context
from onnxq_passes.fold_constants import FoldConstants

PASS = FoldConstants()


def test_contract() -> None:
    check_pass(FoldConstants)


@pytest.mark.parametrize(
    ("constants", "op", "result"),
    [
        ("float[2] a = {1, 2}, float[2] b = {3, 4}", "k = Add(a, b)", "float[2] k = {4, 6}"),
        ("float[2] a = {4, 9}", "k = Sqrt(a)", "float[2] k = {2, 3}"),
        ("float[2] a = {1, 2}, float[2] b = {3, 4}", "k = Sub(a, b)", "float[2] k = {-2, -2}"),
        ("float[1,2] a = {1, 2}", "t = Transpose(a) o = Squeeze(t) k = Identity(o)", "float[2] k = {1, 2}"),
        (
            "float[2] a = {1, 2}, int64[1] x0 = {0}",
            "u = Unsqueeze(a, x0) k = Concat<axis = 1>(u)",
            "float[1,2] k = {1, 2}",
        ),
        ("float[3] a = {1, 2, 3}, int64[2] i = {2, -3}", "k = Gather(a, i)", "float[2] k = {3, 1}"),
        ("int32[2] a = {1, 2}", "k = Cast<to = 1>(a)", "float[2] k = {1, 2}"),
        ("float[2] a = {1.5, -2.5}", "i = Cast<to = 7>(a) k = Cast<to = 1>(i)", "float[2] k = {1, -2}"),
        ("int64[1] s = {2}", "k = ConstantOfShape<value = float[1] {3}>(s)", "float[2] k = {3, 3}"),
        ("float[2] a = {1, 2}, float[2] b = {2, 2}", "k = Div(a, b)", "float[2] k = {0.5, 1}"),
    ],
)
def test_case_1(constants: str, op: str, result: str) -> None:
    frame = f"(float[2] x) => ({shape(result)} y) <{{0}}> {{{{ {{1}} z = Add(x, k) y = Neg(z) }}}}"
    nodes = op.count("(")
    bitwise(PASS, frame.format(constants, op), frame.format(result, ""), rewrites=nodes)


def shape(result: str) -> str:
    return result.split(" ", maxsplit=1)[0]


def test_case_1_fp16_weights_behind_a_cast() -> None:
    bitwise(
        PASS,
        "(float[2] x) => (float[2] y) <float16[2] w = {15872, 16640}> { f = Cast<to = 1>(w) y = Mul(x, f) }",
        "(float[2] x) => (float[2] y) <float[2] f = {1.5, 2.5}> { y = Mul(x, f) }",
        rewrites=1,
    )


def test_case_1_in_bodies() -> None:
    source = """(bool c, float[2] x) => (float[2] y) <{1}> {{ y = If(c) <
        then_branch = p () => (float[2] t) {{ {0} t = Add(x, k) }}, else_branch = q () => (float[2] e) {{ e = Neg(x) }}> }}"""
    before, after = source.format("k = Neg(a)", "float[2] a = {1, 2}"), source.format("", "float[2] k = {-1, -2}")
    bitwise(PASS, before, after, rewrites=1)


def test_case_2_shape() -> None:
    bitwise(
        PASS,
        "(float[2,3] x, int64[2] v) => (int64[2] y) { s = Shape(x) y = Add(v, s) }",
        "(float[2,3] x, int64[2] v) => (int64[2] y) <int64[2] s = {2, 3}> { y = Add(v, s) }",
        rewrites=1,
    )


def test_case_2_the_known_dimension_of_a_shape_with_unknown_ones() -> None:
    bitwise(
        PASS,
        "(float[n,3] x, int64 v) => (int64 y) <int64 one = {1}, int64 two = {2}> { s = Shape(x) d = Gather(s, one) e = Mul(d, two) y = Add(v, e) }",
        "(float[n,3] x, int64 v) => (int64 y) <int64 e = {6}> { s = Shape(x) y = Add(v, e) }",
        rewrites=2,
    )


def test_case_2_slice_of_a_shape() -> None:
    bitwise(
        PASS,
        "(float[n,3,4] x, int64[2] v) => (int64[2] y) <int64[1] a = {1}, int64[1] b = {3}> { s = Shape(x) d = Slice(s, a, b) y = Add(v, d) }",
        "(float[n,3,4] x, int64[2] v) => (int64[2] y) <int64[2] d = {3, 4}> { s = Shape(x) y = Add(v, d) }",
        rewrites=1,
    )


def test_case_2_size() -> None:
    bitwise(
        PASS,
        "(float[2,3] x, int64 v) => (int64 y) { s = Size(x) y = Add(v, s) }",
        "(float[2,3] x, int64 v) => (int64 y) <int64 s = {6}> { y = Add(v, s) }",
        rewrites=1,
    )


@pytest.mark.parametrize(
    "ops",
    [
        "s = Shape(x) t = Size(x)",
        "s = Shape(x) t = Gather(s, zero)",
        "s = Shape(x) r = Slice(s, from, to) t = Gather(r, zero)",
    ],
)
def test_case_2_near_miss_unknown_dimensions(ops: str) -> None:
    constants = "int64 zero = {0}, int64[1] from = {0}, int64[1] to = {2}"
    keep(PASS, f"(float[n,3] x) => (int64 y) <{constants}> {{ {ops} y = Neg(t) }}")


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        ("k = RandomNormalLike(a)", "random"),
        ("k = QuantizeLinear(a, s)", "never folded"),
        ("k = Tile(a, many)", "grow by more than 1048576 bytes"),
        ("k = Expand(a, large)", "grow by more than 1048576 bytes"),
        ("k = ConstantOfShape(large)", "grow by more than 1048576 bytes"),
        ("k = Range(zero, million, one)", "grow by more than 1048576 bytes"),
    ],
)
def test_cases_3_and_4_refusals(op: str, reason: str) -> None:
    constants = (
        "float[1] a = {1}, float s = {1}, int64[1] many = {300000}, int64[1] large = {300000}, "
        "int64 zero = {0}, int64 million = {1000000}, int64 one = {1}"
    )
    keep(PASS, f"(float x) => (float z, int64[1] y) <{constants}> {{ {op} y = Shape(k) z = Neg(x) }}", reason)


def test_case_4_near_miss_below_the_limit() -> None:
    bitwise(
        FoldConstants(limit=8),
        "(float[3] x) => (float[3] y) <float[1] a = {1}, int64[1] s = {3}> { k = Expand(a, s) y = Add(x, k) }",
        "(float[3] x) => (float[3] y) <float[3] k = {1, 1, 1}> { y = Add(x, k) }",
        rewrites=1,
    )
    source = "(float[6] x) => (float[6] y) <float[1] a = {1}, int64[1] s = {6}> { k = Expand(a, s) y = Add(x, k) }"
    keep(FoldConstants(limit=8), source, "grow by more than 8 bytes")


def test_case_3_other_domains_and_bodies() -> None:
    keep(PASS, "(float[1] x) => (float[1] y) <float[1] a = {1}> { k = com.microsoft.QuickGelu(a) y = Add(x, k) }")


def test_case_5_an_output() -> None:
    keep(PASS, "() => (float[1] y) <float[1] a = {1}> { y = Neg(a) }", "its value is an output")


def test_an_op_that_fails_stays() -> None:
    source = "(float x) => (float y, float[m] z) <int64[1] i = {7}, float[1] a = {1}> { y = Neg(x) k = GatherElements(a, i) z = Neg(k) }"
    graph = text.parse(model(source)).graph
    report = PASS.run(graph, default_context())
    assert report.rewrites == 0
    assert "it cannot be computed" in report.refusals[0].reason
