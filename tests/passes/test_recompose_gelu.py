from __future__ import annotations

import pytest
from rewriting import keep, rewrite

from onnxq.testing import check_pass
from onnxq_passes.recompose_gelu import RecomposeGelu

PASS = RecomposeGelu()
ATOL = 1e-6  # rounding of float32 at magnitude 3
CONSTANTS = "float r = {1.41421354}, float i = {0.70710677}, float one = {1}, float half = {0.5}, float two = {2}"
TANH = "float k = {0.7978846}, float c = {0.044715}, float one = {1}, float half = {0.5}, float two = {2}, float three = {3}"
HEAD = "(float[2,8] x) => (float[2,8] y)"
GELU = "{{ {0} e = Erf(d) s = Add(e, one) {1} }}"


def test_contract() -> None:
    check_pass(RecomposeGelu)


@pytest.mark.parametrize("argument", ["d = Div(x, r)", "d = Mul(x, i)", "d = Mul(i, x)"])
@pytest.mark.parametrize(
    "product",
    [
        "m = Mul(x, s) [last] y = Mul(m, half)",
        "m = Mul(s, x) [last] y = Mul(half, m)",
        "m = Mul(x, s) [last] y = Div(m, two)",
        "h = Mul(x, half) [last] y = Mul(h, s)",
        "h = Div(x, two) [last] y = Mul(s, h)",
        "h = Mul(half, s) [last] y = Mul(x, h)",
        "h = Mul(s, half) [last] y = Mul(h, x)",
    ],
)
def test_case_1_every_association(argument: str, product: str) -> None:
    report = rewrite(
        PASS,
        f"{HEAD} <{CONSTANTS}> " + GELU.format(argument, product),
        f"{HEAD} {{ [last_Gelu] y = Gelu(x) }}",
        rewrites=1,
        atol=ATOL,
    )
    assert report.renamed == {"last_Gelu": "last"}


@pytest.mark.parametrize(
    "polynomial",
    [
        "q = Pow(x, three) u = Mul(c, q) v = Add(x, u) d = Mul(k, v)",
        "p = Mul(x, x) q = Mul(p, x) u = Mul(q, c) v = Add(u, x) d = Mul(v, k)",
        "p = Mul(x, x) u = Mul(c, p) v = Add(one, u) w = Mul(x, k) d = Mul(w, v)",
    ],
)
def test_case_2_tanh(polynomial: str) -> None:
    rewrite(
        PASS,
        f"{HEAD} <{TANH}> {{ {polynomial} t = Tanh(d) s = Add(one, t) h = Mul(half, x) [last] y = Mul(h, s) }}",
        f'{HEAD} {{ [last_Gelu] y = Gelu<approximate = "tanh">(x) }}',
        rewrites=1,
        atol=ATOL,
    )


def test_case_3_the_root_in_float16() -> None:
    source = f"{HEAD} <{CONSTANTS.replace('1.41421354', '1.4140625')}> " + GELU.format(
        "d = Div(x, r)", "m = Mul(x, s) [last] y = Mul(m, half)"
    )
    rewrite(PASS, source, f"{HEAD} {{ [last_Gelu] y = Gelu(x) }}", rewrites=1, atol=1e-3)


def test_x_that_is_itself_scaled() -> None:
    rewrite(
        PASS,
        f"{HEAD} <{CONSTANTS}> {{ z = Mul(x, two) d = Div(z, r) e = Erf(d) s = Add(e, one) m = Mul(z, s) [last] y = Mul(m, half) }}",
        f"{HEAD} <float two = {{2}}> {{ z = Mul(x, two) [last_Gelu] y = Gelu(z) }}",
        rewrites=1,
        atol=ATOL,
    )


def test_two_in_a_row() -> None:
    ops = (
        "d{0} = Div({1}, r) e{0} = Erf(d{0}) s{0} = Add(e{0}, one) m{0} = Mul({1}, s{0}) [l{0}] {2} = Mul(m{0}, half) "
    )
    source = f"{HEAD} <{CONSTANTS}> {{ " + ops.format(1, "x", "z") + ops.format(2, "z", "y") + "}"
    rewrite(PASS, source, f"{HEAD} {{ [l1_Gelu] z = Gelu(x) [l2_Gelu] y = Gelu(z) }}", rewrites=2, atol=ATOL)


@pytest.mark.parametrize(
    ("argument", "product", "reason"),
    [
        ("d = Div(x, two)", "m = Mul(x, s) y = Mul(m, half)", "not x / sqrt(2)"),
        ("d = Mul(x, x)", "m = Mul(x, s) y = Mul(m, half)", "not x / sqrt(2)"),
        ("n = Neg(x) d = Div(n, r)", "m = Mul(x, s) y = Mul(m, half)", "not made of x alone"),
        ("d = Div(x, r)", "m = Mul(x, s) y = Mul(m, two)", "factors are not 0.5, x and the sum"),
        ("d = Div(x, r)", "m = Mul(x, s) y = Div(two, m)", "factors are not 0.5, x and the sum"),
        ("d = Div(x, r)", "n = Neg(x) m = Mul(n, s) y = Mul(m, half)", "not made of x alone"),
        ("d = Div(x, r)", "m = Mul(x, s) n = Mul(m, half) y = Add(n, s)", "not 1 + erf, multiplied"),
        ("d = Div(x, r)", "m = Mul(x, s) n = Mul(m, half) y = Add(n, e)", "not 1 + erf, multiplied"),
        ("d = Div(x, r)", "m = Mul(x, s) n = Mul(m, half) y = Add(n, d)", "result of its Div is also read elsewhere"),
        ("d = Div(x, r)", "h = Mul(x, half) n = Mul(h, s) y = Add(n, h)", "result of its Mul is also read elsewhere"),
        ("d = Div(x, r)", "y = Sub(s, x)", "not 1 + erf, multiplied"),
    ],
)
def test_case_4_near_misses(argument: str, product: str, reason: str) -> None:
    keep(PASS, f"{HEAD} <{CONSTANTS}> " + GELU.format(argument, product), reason)


def test_case_4_not_one() -> None:
    source = f"{HEAD} <{CONSTANTS}> {{ d = Div(x, r) e = Erf(d) s = Add(e, two) m = Mul(x, s) y = Mul(m, half) }}"
    keep(PASS, source, "not 1 + erf")


@pytest.mark.parametrize("polynomial", ["q = Mul(x, x) u = Mul(c, q) v = Add(x, u) d = Mul(k, v)", "d = Mul(x, k)"])
def test_case_4_another_polynomial(polynomial: str) -> None:
    source = f"{HEAD} <{TANH}> {{ {polynomial} t = Tanh(d) s = Add(one, t) h = Mul(half, x) y = Mul(h, s) }}"
    keep(PASS, source, "not sqrt(2/pi) * (x + 0.044715 * x^3)")


def test_an_ordinary_tanh_is_no_site() -> None:
    keep(PASS, f"{HEAD} {{ t = Tanh(x) y = Mul(t, x) }}")


def test_case_4_opset() -> None:
    source = f"{HEAD} <{CONSTANTS}> " + GELU.format("d = Div(x, r)", "m = Mul(x, s) y = Mul(m, half)")
    keep(PASS, source, "Gelu needs opset 20", opset=19)


def test_case_4_type() -> None:
    source = f"{HEAD} <{TANH}> {{ q = Pow(x, three) u = Mul(c, q) v = Add(x, u) d = Mul(k, v) t = Tanh(d) s = Add(one, t) h = Mul(half, x) y = Mul(h, s) }}"
    keep(PASS, source.replace("float", "double"), "only float tensors")


def test_x_that_is_itself_halved() -> None:
    """The half of x is none of the GELU's: of two ways to read the product the second is right."""
    rewrite(
        PASS,
        f"{HEAD} <{CONSTANTS}> {{ z = Mul(x, half) d = Div(z, r) e = Erf(d) s = Add(e, one) m = Mul(z, s) [last] y = Mul(m, half) }}",
        f"{HEAD} <float half = {{0.5}}> {{ z = Mul(x, half) [last_Gelu] y = Gelu(z) }}",
        rewrites=1,
        atol=ATOL,
    )


def test_case_4_the_least_opset() -> None:
    source = f"{HEAD} <{CONSTANTS}> " + GELU.format("d = Div(x, r)", "m = Mul(x, s) [last] y = Mul(m, half)")
    rewrite(PASS, source, f"{HEAD} {{ [last_Gelu] y = Gelu(x) }}", rewrites=1, atol=ATOL, opset=20)


@pytest.mark.parametrize(
    "product", ["h = Mul(s, two) y = Mul(x, h)", "h = Mul(s, half) y = Neg(h)", "h = Mul(x, two) y = Mul(h, s)"]
)
def test_case_4_near_misses_without_a_half(product: str) -> None:
    keep(PASS, f"{HEAD} <{CONSTANTS}> " + GELU.format("d = Div(x, r)", product), "factors are not 0.5, x and the sum")


def test_case_4_near_miss_a_sum_without_a_constant() -> None:
    source = f"{HEAD} <{CONSTANTS}> {{ d = Div(x, r) e = Erf(d) s = Add(e, x) m = Mul(x, s) y = Mul(m, half) }}"
    keep(PASS, source, "not 1 + erf")
