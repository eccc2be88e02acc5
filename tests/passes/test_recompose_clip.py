from __future__ import annotations

import numpy as np
import pytest
from rewriting import bitwise, keep, together

from onnxq.testing import check_pass
from onnxq_passes.recompose_clip import RecomposeClip

PASS = RecomposeClip()
HEAD = "(float[2,4] x) => (float[2,4] y) <float c = {-0.4}, float zero = {0}, float six = {6}, float top = {inf}>"
RELU = f"{HEAD} {{ [m_Relu] y = Relu(x) }}"


def clip(low: str = "", high: str = "", name: str = "m") -> str:
    """One Clip of x with these bounds; empty: not given."""
    values = f"<float {name}_min = {{{low or 0}}}, float {name}_max = {{{high or 0}}}>"
    bounds = f"{name}_min" * bool(low) + f", {name}_max" * bool(high)
    return f"(float[2,4] x) => (float[2,4] y) {values} {{ [{name}_Clip] y = Clip(x, {bounds}) }}"


def test_contract() -> None:
    check_pass(RecomposeClip)


@pytest.mark.parametrize("op", ["Max(x, zero)", "Max(zero, x)"])
def test_case_1(op: str) -> None:
    report = bitwise(PASS, f"{HEAD} {{ [m] y = {op} }}", RELU, rewrites=1)
    assert report.renamed == {"m_Relu": "m"}


@pytest.mark.parametrize(
    ("op", "bounds"),
    [
        ("Max(x, c)", ("-0.4", "inf")),
        ("Max(c, x)", ("-0.4", "inf")),
        ("Min(x, c)", ("-inf", "-0.4")),
        ("Min(zero, x)", ("-inf", "0")),
        ("Max(x, top)", ("inf", "inf")),
    ],
)
def test_case_2(op: str, bounds: tuple[str, str]) -> None:
    bitwise(PASS, f"{HEAD} {{ [m] y = {op} }}", clip(*bounds), rewrites=1)


@pytest.mark.parametrize("axes", ["[1]", "[1,1]"])
def test_case_2_a_constant_with_axes(axes: str) -> None:
    head = f"(float[2,4] x) => (float[2,4] y) <float{axes} c = {{0}}>"
    bitwise(PASS, f"{head} {{ [m] y = Max(x, c) }}", RELU, rewrites=1)


@pytest.mark.parametrize(
    ("ops", "bounds"),
    [
        ("a = Max(x, zero) [m] y = Min(a, six)", ("0", "6")),
        ("a = Min(six, x) [m] y = Max(a, zero)", ("0", "6")),
        ("a = Relu(x) [m] y = Min(a, six)", ("0", "6")),
        ("a = Min(x, six) [m] y = Relu(a)", ("0", "6")),
        ("a = Clip(x, c, six) [m] y = Max(a, zero)", ("0", "6")),
        ("a = Clip(x, c, six) [m] y = Relu(a)", ("0", "6")),
        ("a = Relu(x) [m] y = Clip(a, c, six)", ("0", "6")),
        ("a = Clip(x, zero, six) [m] y = Min(a, c)", ("-0.4", "-0.4")),
        ("a = Clip(x, c, zero) [m] y = Max(a, six)", ("6", "6")),
        ("a = Clip(x, zero) [m] y = Clip(a, , six)", ("0", "6")),
        ("a = Clip(x, six, six) [m] y = Relu(a)", ("6", "6")),
    ],
)
def test_case_3(ops: str, bounds: tuple[str, str]) -> None:
    rewrites = 1 + ("Max" in ops.split("[m]", maxsplit=1)[0] or "Min" in ops.split("[m]", maxsplit=1)[0])
    bitwise(PASS, f"{HEAD} {{ {ops} }}", clip(*bounds), rewrites=rewrites)


def test_case_3_a_missing_bound_is_the_greatest_number_and_stays_missing() -> None:
    bitwise(PASS, f"{HEAD} {{ a = Clip(x, c) [m] y = Max(a, zero) }}", clip("0"), rewrites=1)
    bitwise(PASS, f"{HEAD} {{ a = Clip(x, , six) [m] y = Min(a, zero) }}", clip(high="0"), rewrites=1)
    bitwise(PASS, f"{HEAD} {{ a = Clip(x, zero) [m] y = Clip(a, c, top) }}", clip("0"), rewrites=1)


def test_case_3_two_relus() -> None:
    bitwise(PASS, f"{HEAD} {{ a = Relu(x) [m] y = Relu(a) }}", RELU, rewrites=1)


def test_case_3_five_in_a_row() -> None:
    ops = "a = Max(x, c) b = Relu(a) d = Min(b, six) e = Clip(d, c, six) [m] y = Max(e, zero)"
    bitwise(PASS, f"{HEAD} {{ {ops} }}", clip("0", "6"), rewrites=5)


def test_case_3_computed_bounds() -> None:
    head = "(float[2,4] x, float low) => (float[2,4] y) <float c = {-0.4}>"
    after = f"{head[:-1]}, float m_min = {{-0.4}}, float m_max = {{inf}}> {{ a = Clip(x, low) [m_Clip] y = Clip(a, m_min, m_max) }}"
    bitwise(PASS, f"{head} {{ a = Clip(x, low) [m] y = Max(a, c) }}", after, rewrites=1)
    keep(PASS, f"{head} {{ a = Relu(x) y = Clip(a, low) }}")


def test_case_4() -> None:
    keep(PASS, f"{HEAD} {{ y = Max(x, zero) }}", "it needs opset 11", opset=10)
    double = "(double[2] x) => (double[2] y) <double c = {0}>"
    keep(PASS, f"{double} {{ y = Max(x, c) }}", "only float tensors")
    keep(PASS, f"{double} {{ a = Relu(x) y = Clip(a, c) }}", "only float tensors")


def test_opset_11_is_enough() -> None:
    bitwise(PASS, f"{HEAD} {{ [m] y = Max(x, zero) }}", RELU, rewrites=1, opset=11)


def test_case_4_shapes() -> None:
    keep(PASS, "(float[4] x) => (float[1,4] y) <float[1,1] c = {0}> { y = Max(x, c) }", "more axes than its input")
    keep(PASS, "(float x) => (float[1] y) <float[1] c = {0}> { y = Max(c, x) }", "more axes than its input")
    unknown = (
        "(float[2,4] x, int64[n] s) => (float[o,p] y) <float{0} c = {{0}}> {{ r = Reshape(x, s) [m] y = Max(r, c) }}"
    )
    sizes = {"s": np.array([4, 2])}
    keep(PASS, unknown.format("[1]"), "the rank of its input is not known", inputs=sizes)
    after = "(float[2,4] x, int64[n] s) => (float[o,p] y) { r = Reshape(x, s) [m_Relu] y = Relu(r) }"
    bitwise(PASS, unknown.format(""), after, rewrites=1, inputs=sizes)


@pytest.mark.parametrize("ops", ["a = Relu(x) y = Clip(a, six, zero)", "a = Clip(x, six, zero) y = Relu(a)"])
def test_case_4_bounds_in_the_wrong_order(ops: str) -> None:
    keep(PASS, f"{HEAD} {{ {ops} }}", "bounds in the wrong order")


@pytest.mark.parametrize("ops", ["a = Relu(x) b = Clip(a, c, six)", "a = Clip(x, c, six) b = Relu(a)"])
def test_case_4_the_first_is_read_elsewhere(ops: str) -> None:
    keep(PASS, f"{HEAD} {{ {ops} y = Add(a, b) }}", "also read elsewhere")


def test_a_number_behind_what_cannot_join_is_a_clip_of_its_own() -> None:
    for first in ("Clip(x, six, zero)", "Clip(x, six)"):
        tail = "y = Add(b, a)" if first == "Clip(x, six)" else "y = Abs(b)"
        before = f"{HEAD} {{ a = {first} [m] b = Max(a, c) {tail} }}"
        wanted = f"{HEAD[:-1]}, float m_min = {{-0.4}}, float m_max = {{inf}}> {{ a = {first} [m_Clip] b = Clip(a, m_min, m_max) {tail} }}"
        bitwise(PASS, before, wanted, rewrites=1)


@pytest.mark.parametrize(
    "ops",
    [
        "y = Relu(x)",
        "y = Clip(x, zero, six)",
        "a = Tanh(x) y = Clip(a, zero, six)",
        "y = Max(x, zero, c)",
        "y = Add(x, six)",
        "a = Tanh(x) y = Max(a, x)",
    ],
)
def test_these_are_no_sites(ops: str) -> None:
    keep(PASS, f"{HEAD} {{ {ops} }}")


def test_not_a_number_and_integers_are_no_sites() -> None:
    keep(PASS, "(float[2] x) => (float[2] y) <float c = {nan}> { y = Max(x, c) }")
    keep(PASS, "(int64[2] x) => (int64[2] y) <int64 c = {0}> { y = Max(x, c) }")


def test_the_first_is_an_output() -> None:
    head = "(float[2,4] x) => (float[2,4] a, float[2,4] y) <float six = {6}"
    before = f"{head}> {{ a = Relu(x) [m] y = Min(a, six) }}"
    after = f"{head}, float m_min = {{-inf}}, float m_max = {{6}}> {{ a = Relu(x) [m_Clip] y = Clip(a, m_min, m_max) }}"
    bitwise(PASS, before, after, rewrites=1)


def test_in_bodies() -> None:
    source = """(bool c, float[2] x) => (float[2] y) {{ y = If(c) <then_branch = p () => (float[2] t)
        <float zero = {{0}}> {{ {0} }}, else_branch = q () => (float[2] e) {{ e = Neg(x) }}> }}"""
    bitwise(PASS, source.format("[m] t = Max(x, zero)"), source.format("[m_Relu] t = Relu(x)"), rewrites=1)


def test_several_in_one_graph() -> None:
    double = "(double[2] x) => (double[2] y) <double c = {0}> { [k] y = Max(x, c) }"
    together(
        PASS,
        changed=[
            (f"{HEAD} {{ [m] y = Max(x, zero) }}", RELU.replace(HEAD, "(float[2,4] x) => (float[2,4] y)"), 1),
            (f"{HEAD} {{ [f] a = Max(x, c) [m] y = Min(a, six) }}", clip("-0.4", "6"), 2),
        ],
        kept=[
            (double, "only float tensors"),
            (f"{HEAD} {{ [a] a = Relu(x) [k] y = Clip(a, six, zero) }}", "bounds in the wrong order"),
        ],
        quiet=[f"{HEAD} {{ [k] y = Clip(x, zero, six) }}", f"{HEAD} {{ [k] y = Max(x, zero, c) }}"],
    )
