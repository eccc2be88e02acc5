from __future__ import annotations

import pytest
from rewriting import bitwise, keep, model

from onnxq.ir import text
from onnxq.testing import check_pass, default_context
from onnxq_passes.eliminate_identity import EliminateIdentity

PASS = EliminateIdentity()
FRAME = "(float[2,3] x) => (float[2,3] y) <{0}> {{ a = Relu(x) {1} y = Neg(b) }}"
BARE = "(float[2,3] x) => (float[2,3] y) { a = Relu(x) y = Neg(a) }"


def test_contract() -> None:
    check_pass(EliminateIdentity)


@pytest.mark.parametrize(
    ("constants", "op"),
    [
        ("float unused = {0}", "b = Identity(a)"),
        ("float ratio = {0.5}", "b = Dropout(a, ratio)"),
        ("float ratio = {0.5}, bool train = {0}", "b, mask = Dropout(a, ratio, train)"),
        ("float[2,3] a", "b = Cast<to = 1>(a)"),
        ("int64[2] s = {0, -1}, float[n,m] a", "b = Reshape(a, s)"),
        ("int64[2] s = {2, 3}, float[2,3] a", "b = Reshape(a, s)"),
        ("int64[2] s = {1, 3}, float[2,3] a", "b = Expand(a, s)"),
        ("float unused = {0}", "b = Transpose<perm = [0, 1]>(a)"),
        ("int64[4] p = {0, 0, 0, 0}", "b = Pad(a, p)"),
        ("int64[1] s = {0}, int64[1] e = {9223372036854775807}", "b = Slice(a, s, e)"),
        ("int64[1] s = {0}, int64[1] e = {3}, int64[1] d = {1}, float[2,3] a", "b = Slice(a, s, e, d)"),
        ("float unused = {0}", "b = Concat<axis = 0>(a)"),
        ("float unused = {0}", "b = Max(a)"),
        ("float[2,3] a", "b = Flatten(a)"),
    ],
)
def test_cases_1_to_9(constants: str, op: str) -> None:
    bitwise(PASS, FRAME.format(constants, op), BARE, rewrites=1)


@pytest.mark.parametrize(
    ("constants", "op"),
    [
        ("float unused = {0}", "b = Cast<to = 1>(a)"),  # the type of a is not known
        ("int64[2] s = {2, 3}", "b = Reshape(a, s)"),  # the shape of a is not known
        ("int64[2] s = {-1, 3}", "b = Reshape(a, s)"),
        (
            "int64[3] s = {1, 2, 3}, float[2,3] a",
            "c = Reshape(a, s) one = Constant<value_ints = [0]>() b = Squeeze(c, one)",
        ),
        ("int64[4] p = {0, 0, 0, 0}", "c = Transpose<perm = [1, 0]>(a) b = Transpose<perm = [1, 0]>(c)"),
        ("int64[4] p = {0, 1, 0, -1}", "b = Pad(a, p)"),
        ("int64[1] s = {0}, int64[1] e = {3}, int64[1] d = {1}", "b = Slice(a, s, e, d)"),
        (
            "int64[1] s = {-1}, int64[1] e = {-4}, int64[1] d = {1}, int64[1] t = {-1}, float[2,3] a",
            "b = Slice(a, s, e, d, t)",
        ),
        ("float[2,3] k = {0, 0, 0, 0, 0, 0}", "b = Max(a, k)"),
        ("float[2,3] a", "c = Flatten<axis = 0>(a) t = Constant<value_ints = [2, 3]>() b = Reshape(c, t)"),
    ],
)
def test_near_misses_that_are_no_sites(constants: str, op: str) -> None:
    keep(PASS, FRAME.format(constants, op))


def test_case_2_the_mask_is_read() -> None:
    keep(
        PASS,
        "(float[2] x) => (float[2] y, bool[2] m) { a = Neg(x) b, m = Dropout(a) y = Exp(b) }",
        "mask of Dropout is read",
    )


def test_case_2_training_mode() -> None:
    source = (
        """(float[2] x) => (float[2] y) <float r = {0}, bool t = {1}> { a = Neg(x) b = Dropout(a, r, t) y = Exp(b) }"""
    )
    keep(PASS, source, "training mode")


def test_old_opsets() -> None:
    bitwise(
        PASS,
        "(float[2,3] x) => (float[2,3] y) { a = Relu(x) b = Pad<pads = [0, 0, 0, 0]>(a) c = Slice<starts = [0], ends = [2147483647]>(b) d = Dropout(c) y = Neg(d) }",
        BARE,
        rewrites=3,
        opset=9,
    )


def test_case_10_the_producer_takes_the_name_of_the_output_over() -> None:
    bitwise(
        PASS,
        "(float[2] x) => (float[2] y, float[2] z) { a = Relu(x) y = Identity(a) z = Neg(a) }",
        "(float[2] x) => (float[2] y, float[2] z) { y = Relu(x) z = Neg(y) }",
        rewrites=1,
    )


def test_case_10_chain_to_the_output() -> None:
    bitwise(
        PASS,
        "(float[2] x) => (float[2] y) { a = Relu(x) b = Identity(a) c = Identity(b) y = Identity(c) }",
        "(float[2] x) => (float[2] y) { y = Relu(x) }",
        rewrites=3,
    )


def test_case_10_input_to_output() -> None:
    keep(PASS, "(float[2] x) => (float[2] y) { y = Identity(x) }", "joins an input or a constant to an output")


def test_case_10_two_outputs() -> None:
    source = "(float[2] x) => (float[2] y, float[2] z) { y = Relu(x) z = Identity(y) }"
    keep(PASS, source, "joins two outputs")


def test_case_10_an_outer_tensor_stays_behind_its_identity() -> None:
    source = """(bool c, float[2] x) => (float[2] y) { a = Relu(x) y = If(c) <
        then_branch = p () => (float[2] t) { t = Identity(a) }, else_branch = q () => (float[2] e) { e = Neg(a) }> }"""
    keep(PASS, source, "joins an input or a constant to an output")


def test_in_bodies() -> None:
    source = """(bool c, float[2] x) => (float[2] y) {{ a = Relu(x) y = If(c) <
        then_branch = p () => (float[2] t) {{ {0} }}, else_branch = q () => (float[2] e) {{ e = Neg(a) }}> }}"""
    bitwise(PASS, source.format("b = Identity(a) t = Exp(b)"), source.format("t = Exp(a)"), rewrites=1)


@pytest.mark.parametrize(
    ("constants", "op", "opset"),
    [
        ("int64[2] s = {0, 3}, float[2,3] a", "b = Reshape(a, s)", 21),
        ("int64[2] s = {0, 3}, float[2,3] a", "b = Reshape<allowzero = 0>(a, s)", 21),
        ("int64[2] s = {-1, 3}, float[2,3] a", "b = Reshape<allowzero = 1>(a, s)", 21),
        ("int64[2] s = {0, 0}, float[n,m] a", "b = Reshape(a, s)", 21),
        ("int64[1] s = {1}, float[2,3] a", "b = Expand(a, s)", 21),
        ("int64[2] s = {2, 1}, float[2,3] a", "b = Expand(a, s)", 21),
        ("float[2,3] a", "b = Flatten<axis = -1>(a)", 21),
        ("int64[4] p = {0, 0, 0, 0}", "b = Pad(a, p)", 11),
        ("float unused = {0}", "b = Slice<axes = [1], starts = [0], ends = [2147483647]>(a)", 9),
        ("float[2,3] a", "b = Slice<axes = [1], starts = [0], ends = [3]>(a)", 9),
        ("float[2,3] a", "b = Slice<starts = [0, 0], ends = [2, 4]>(a)", 9),
        ("int64[1] s = {0}, int64[1] e = {3}, int64[1] d = {1}, float[2,3] a", "b = Slice(a, s, e, d)", 10),
        ("int64[1] s = {0}, int64[1] e = {3}, int64[1] d = {1}, int64[1] t = {1}, float[2,3] a", "b = Slice(a, s, e, d, t)", 21),
        ("int64[2] s = {0, 0}, int64[2] e = {2, 3}, int64[2] t = {1, 1}, float[2,3] a", "b = Slice(a, s, e, , t)", 21),
    ],
)  # fmt: skip
def test_cases_4_to_9_in_every_spelling(constants: str, op: str, opset: int) -> None:
    bitwise(PASS, FRAME.format(constants, op), BARE, rewrites=1, opset=opset)


def test_case_5_a_vector_is_its_own_transpose() -> None:
    bitwise(
        PASS,
        "(float[3] x) => (float[3] y) <float[3] a> { a = Relu(x) b = Transpose(a) y = Neg(b) }",
        "(float[3] x) => (float[3] y) { a = Relu(x) y = Neg(a) }",
        rewrites=1,
    )


@pytest.mark.parametrize(
    ("constants", "op", "opset"),
    [
        ("float[2,3] a", "c = Cast<to = 11>(a) b = Cast<to = 1>(c)", 21),
        ("int64[2] s = {3, 2}, float[2,3] a", "b = Reshape(a, s)", 21),
        ("int64[2] s = {3, -1}, float[2,3] a", "b = Reshape(a, s)", 21),
        ("int64[2] s = {0, -1}", "b = Reshape(a, s)", 21),
        ("int64[1] s = {-1}, float[2,3] a", "b = Reshape(a, s)", 21),
        ("int64[2] s = {2, 3}, float[2,3] a", "m = Mul(s, two) b = Reshape(a, m)", 21),
        ("int64[3] s = {2, 1, 1}, float[2,3] a", "b = Expand(a, s)", 21),
        ("int64[2] s = {2, 3}, float[1,3] c", "c = ReduceMax(a, zero) b = Expand(c, s)", 21),
        ("int64[2] s = {2, 3}", "b = Expand(a, s)", 21),
        ("float[2,3] a", "n = Shape(a) b = Expand(a, n)", 21),
        ("float[2,3] a", "c = Flatten<axis = -2>(a) b = Reshape(c, t)", 21),
        ("float[2,3] a", "b = Transpose(a)", 21),
        ("float unused = {0}", "b = Transpose(a)", 21),
        ("float[2,3] a", "b = Slice<axes = [1], starts = [0], ends = [2]>(a)", 9),
        ("int64[1] s = {0}, int64[1] e = {2}, int64[1] d = {1}, float[2,3] a", "b = Slice(a, s, e, d)", 21),
        ("int64[1] s = {0}, int64[1] e = {3}, int64[1] d = {1}, float[2,3] a", "n = Sub(d, zero) b = Slice(a, s, e, n)", 21),
        ("int64[1] s = {0}, int64[1] e = {3}, int64[1] d = {1}, float[2,3] a", "n = Sub(s, zero) b = Slice(a, n, e, d)", 21),
        ("int64[1] s = {0}, int64[1] e = {3}, int64[1] d = {1}, float[2,3] a", "n = Sub(e, zero) b = Slice(a, s, n, d)", 21),
        ("int64[1] s = {0}, int64[1] e = {3}, int64[1] d = {1}, int64[1] t = {2}, float[2,3] a", "b = Slice(a, s, e, d, t)", 21),
        ("int64[1] s = {0}, int64[1] e = {3}, int64[1] d = {1}, int64[1] t = {1}, float[2,3] a", "n = Sub(t, zero) b = Slice(a, s, e, d, n)", 21),
        ("int64[1] s = {1}, int64[1] e = {3}, float[2,3] a", "b = Slice(a, s, e)", 21),
        ("int64[1] s = {0}, int64[1] e = {2}, int64[1] d = {1}, float[2,3] a", "b = Slice(a, s, e, d)", 10),
        ("int64[2] s = {0, 0}, float[n,m] a", "b = Reshape<allowzero = 1>(a, s)", 21),
    ],
)  # fmt: skip
def test_near_misses_of_every_rule(constants: str, op: str, opset: int) -> None:
    """Other sizes, unknown ones, fewer dimensions, numbers that are computed."""
    more = ", int64[1] zero = {0}, int64 two = {2}, int64[2] t = {2, 3}" if opset > 12 else ""
    source = f"(float[2,3] x) => (float y) <{constants}{more}> {{ a = Relu(x) {op} y = Neg(b) }}"
    report = PASS.run(text.parse(model(source, opset)).graph, default_context())
    assert (report.rewrites, report.refusals) == (0, [])


def test_case_4_a_zero_that_means_zero() -> None:
    """With `allowzero` it is no copied dimension."""
    source = "(float[0,3] x) => (float[p,q] y) <int64[2] s = {{0, 3}}> {{ a = Relu(x) b = Reshape<allowzero = {0}>(a, s) y = Neg(b) }}"
    assert PASS.run(text.parse(model(source.format(1))).graph, default_context()).rewrites == 0
    known = source.replace("int64[2]", "float[0,3] a, int64[2]")
    assert PASS.run(text.parse(model(known.format(1))).graph, default_context()).rewrites == 0
    assert PASS.run(text.parse(model(known.format(0))).graph, default_context()).rewrites == 0


def test_case_4_ones_are_sizes_like_others() -> None:
    source = "(float[1,3] x) => (float[1,3] y) <int64[2] s = {1, 3}, float[1,3] a> { a = Relu(x) b = Reshape(a, s) y = Neg(b) }"
    bitwise(PASS, source, "(float[1,3] x) => (float[1,3] y) { a = Relu(x) y = Neg(a) }", rewrites=1)


def test_case_2_a_mask_that_is_an_output_or_that_a_node_reads() -> None:
    for tail, outputs in (("", ", bool[2] m"), ("w = Cast<to = 1>(m)", ", float[2] w")):
        source = f"(float[2] x) => (float[2] y{outputs}) {{ a = Neg(x) b, m = Dropout(a) y = Exp(b) {tail} }}"
        keep(PASS, source, "mask of Dropout is read")


def test_case_10_an_output_says_more_of_a_tensor_than_the_tensor_it_takes_over() -> None:
    """Behind Identity, the shape of `a` is known: that of the output y."""
    source = (
        "(float[2,3] x) => (float[2,3] y, float[2,3] z, float[2,3] w) <int64[2] s = {2, 3}> "
        "{ [r] a = Relu(x) [k] b = Reshape(a, s) [n] z = Neg(b) [i] y = Identity(a) [j] c = Identity(x) [m] w = Abs(c) }"
    )
    after = (
        "(float[2,3] x) => (float[2,3] y, float[2,3] z, float[2,3] w) { [r] y = Relu(x) [n] z = Neg(y) [m] w = Abs(x) }"
    )
    bitwise(PASS, source, after, rewrites=3)


def test_what_is_refused_is_said_once() -> None:
    source = (
        "(float[2,3] x) => (float[2,3] y, float[2,3] z, float[2,3] w) "
        "{ [r] a = Relu(x) [i] y = Identity(a) [n] z = Neg(y) [j] w = Identity(x) }"
    )
    report = PASS.run(text.parse(model(source)).graph, default_context())
    assert (report.rewrites, len(report.refusals)) == (1, 1)
