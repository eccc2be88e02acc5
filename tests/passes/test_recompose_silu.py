from __future__ import annotations

import pytest
from rewriting import bitwise, keep, rewrite

from onnxq.testing import check_pass
from onnxq_passes.recompose_silu import RecomposeSilu

PASS = RecomposeSilu()
HEAD = "(float[2,8] x) => (float[2,8] y) <float a = {1.702}, float b = {2}>"


def test_contract() -> None:
    check_pass(RecomposeSilu)


@pytest.mark.parametrize("product", ["Mul(x, s)", "Mul(s, x)"])
def test_case_1(product: str) -> None:
    report = bitwise(
        PASS,
        f"{HEAD} {{ s = Sigmoid(x) [mul] y = {product} }}",
        f"{HEAD} {{ [mul_QuickGelu] y = com.microsoft.QuickGelu<alpha = 1.0>(x) }}",
        rewrites=1,
    )
    assert report.renamed == {"mul_QuickGelu": "mul"}


@pytest.mark.parametrize(("scaling", "alpha"), [("Mul(x, a)", "1.702"), ("Mul(a, x)", "1.702"), ("Div(x, b)", "0.5")])
def test_case_2(scaling: str, alpha: str) -> None:
    rewrite(
        PASS,
        f"{HEAD} {{ z = {scaling} s = Sigmoid(z) [mul] y = Mul(x, s) }}",
        f"{HEAD} {{ [mul_QuickGelu] y = com.microsoft.QuickGelu<alpha = {alpha}>(x) }}",
        rewrites=1,
        atol=1e-6,
    )


@pytest.mark.parametrize(
    "ops", ["s = Sigmoid(x) m = Mul(x, s) y = Add(m, s)", "z = Mul(x, a) s = Sigmoid(z) m = Mul(x, s) y = Add(m, z)"]
)
def test_case_3_read_elsewhere(ops: str) -> None:
    keep(PASS, f"{HEAD} {{ {ops} }}", "is also read elsewhere")


def test_case_3_type() -> None:
    keep(PASS, "(double[2] x) => (double[2] y) { s = Sigmoid(x) y = Mul(x, s) }", "only float tensors")


@pytest.mark.parametrize(
    "ops",
    ["n = Neg(x) s = Sigmoid(n) y = Mul(x, s)", "s = Sigmoid(x) y = Mul(s, s)", "s = HardSigmoid(x) y = Mul(x, s)"],
)
def test_other_gates_are_no_sites(ops: str) -> None:
    keep(PASS, f"{HEAD} {{ {ops} }}")


def test_in_bodies() -> None:
    source = """(bool c, float[2] x) => (float[2] y) {{ y = If(c) <then_branch = p () => (float[2] t) {{ {0} }},
        else_branch = q () => (float[2] e) {{ e = Neg(x) }}> }}"""
    before = source.format("s = Sigmoid(x) [mul] t = Mul(x, s)")
    bitwise(PASS, before, source.format("[mul_QuickGelu] t = com.microsoft.QuickGelu<alpha = 1.0>(x)"), rewrites=1)


def test_near_miss_a_sum_with_its_sigmoid() -> None:
    keep(PASS, "(float[2] x) => (float[2] y) { s = Sigmoid(x) y = Add(x, s) }")


def test_either_factor_may_be_the_gate() -> None:
    """The first factor is a Sigmoid, too, but of something else."""
    rewrite(
        PASS,
        "(float[2] x) => (float[2] y) { [s] s = Sigmoid(x) [t] t = Sigmoid(s) [m] y = Mul(s, t) }",
        "(float[2] x) => (float[2] y) { [s] s = Sigmoid(x) [m_QuickGelu] y = com.microsoft.QuickGelu<alpha = 1.0>(s) }",
        rewrites=1,
        atol=1e-6,
    )
