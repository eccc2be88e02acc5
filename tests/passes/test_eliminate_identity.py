from __future__ import annotations

import pytest
from rewriting import bitwise, keep

from onnxq.testing import check_pass
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
