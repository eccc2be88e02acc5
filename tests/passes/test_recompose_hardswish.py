from __future__ import annotations

import pytest
from rewriting import keep, model, rewrite, together

from onnxq.ir import text
from onnxq.testing import check_pass, default_context
from onnxq_passes.recompose_hardswish import RecomposeHardswish

PASS = RecomposeHardswish()
ATOL = 1e-6
HEAD = "(float[4,8] x) => (float[4,8] y)"
CONSTANTS = "float three = {3}, float zero = {0}, float six = {6}, float sixth = {0.16666667}, float one = {1}, float half = {0.5}, float fifth = {0.2}"
SWISH = f"{HEAD} {{ [z_HardSwish] y = HardSwish(x) }}"
GATE = "a = Add(x, three) c = Clip(a, zero, six) "


def test_contract() -> None:
    check_pass(RecomposeHardswish)


@pytest.mark.parametrize(
    "ops",
    [
        "h = HardSigmoid<alpha = 0.16666667, beta = 0.5>(x) [z] y = Mul(x, h)",
        GATE + "m = Mul(x, c) [z] y = Div(m, six)",
        GATE + "m = Mul(c, x) [z] y = Mul(m, sixth)",
        GATE + "h = Div(c, six) [z] y = Mul(x, h)",
        GATE + "h = Mul(sixth, c) [z] y = Mul(h, x)",
        GATE + "w = Div(x, six) [z] y = Mul(w, c)",
        "a = Add(three, x) c = Clip(a, zero, six) h = Div(c, six) [z] y = Mul(x, h)",
        "w = Div(x, six) a = Add(w, half) c = Clip(a, zero, one) [z] y = Mul(x, c)",
        "a = Add(x, three) w = Div(a, six) c = Clip(w, zero, one) [z] y = Mul(x, c)",
    ],
)
def test_cases_1_2_and_4_hardswish(ops: str) -> None:
    report = rewrite(PASS, f"{HEAD} <{CONSTANTS}> {{ {ops} }}", SWISH, rewrites=1, atol=ATOL)
    assert report.renamed == {"z_HardSwish": "z"}


def test_old_clip() -> None:
    source = f"{HEAD} <{CONSTANTS}> {{ a = Add(x, three) c = Clip<min = 0.0, max = 6.0>(a) [z] y = Div(c, six) }}"
    rewrite(PASS, source, HARD_SIGMOID.format(0.16666667), rewrites=1, atol=ATOL, opset=10)


HARD_SIGMOID = HEAD + " {{ [z_HardSigmoid] y = HardSigmoid<alpha = {}, beta = 0.5>(x) }}"


@pytest.mark.parametrize("ops", [GATE + "[z] y = Div(c, six)", GATE + "[z] y = Mul(c, sixth)"])
def test_case_3_hard_sigmoid(ops: str) -> None:
    rewrite(PASS, f"{HEAD} <{CONSTANTS}> {{ {ops} }}", HARD_SIGMOID.format(0.16666667), rewrites=1, atol=ATOL)


def test_case_4_hard_sigmoid() -> None:
    source = f"{HEAD} <{CONSTANTS}> {{ w = Mul(x, fifth) a = Add(w, half) [z] y = Clip(a, zero, one) }}"
    rewrite(PASS, source, HARD_SIGMOID.format(0.2), rewrites=1, atol=ATOL)


def test_case_4_another_slope_is_no_hardswish() -> None:
    rewrite(
        PASS,
        f"{HEAD} <{CONSTANTS}> {{ w = Mul(x, fifth) a = Add(w, half) [z] c = Clip(a, zero, one) y = Mul(x, c) }}",
        HEAD + " { [z_HardSigmoid] c = HardSigmoid<alpha = 0.2, beta = 0.5>(x) y = Mul(x, c) }",
        rewrites=1,
        atol=ATOL,
    )


@pytest.mark.parametrize(
    ("ops", "reason"),
    [
        (GATE + "m = Mul(x, c) y = Mul(m, fifth)", "not divided by 6"),
        (GATE + "y = Mul(c, fifth)", "factor behind Clip(x + 3, 0, 6) is not 1/6"),
        (GATE + "m = Mul(x, c) y = Add(m, c)", "not divided by 6, or is read elsewhere"),
        (GATE + "n = Neg(x) m = Mul(n, c) y = Div(m, six)", "not divided by 6"),
        (GATE + "h = Div(c, six) m = Mul(x, h) y = Add(m, a)", "result of its Add is also read elsewhere"),
        (GATE + "w = Div(x, six) m = Mul(w, c) y = Add(m, w)", "result of its Div is also read elsewhere"),
    ],
)
def test_case_5_near_misses(ops: str, reason: str) -> None:
    keep(PASS, f"{HEAD} <{CONSTANTS}> {{ {ops} }}", reason)


@pytest.mark.parametrize(
    "ops",
    [
        "y = Clip(x, zero, six)",
        "a = Add(x, half) y = Clip(a, zero, six)",
        "a = Add(x, half) y = Clip(a, zero, one)",
        "a = Add(x, three) y = Clip(a, zero, three)",
        "a = Mul(x, x) y = Clip(a, zero, one)",
        "h = HardSigmoid(x) y = Mul(x, h)",
        "h = HardSigmoid<alpha = 0.16666667, beta = 0.5>(x) y = Add(x, h)",
    ],
)
def test_ordinary_clips_and_hard_sigmoids_are_no_sites(ops: str) -> None:
    keep(PASS, f"{HEAD} <{CONSTANTS}> {{ {ops} }}")


def test_case_5_type() -> None:
    keep(PASS, f"{HEAD} <{CONSTANTS}> {{ {GATE} y = Div(c, six) }}".replace("float", "double"), "only float tensors")


def test_case_5_opset() -> None:
    keep(PASS, f"{HEAD} <{CONSTANTS}> {{ {GATE} m = Mul(x, c) y = Div(m, six) }}", "HardSwish needs opset 14", opset=13)


def test_case_5_opset_hard_sigmoid_at_most() -> None:
    rewrite(
        PASS,
        f"{HEAD} <{CONSTANTS}> {{ {GATE} [z] h = Div(c, six) y = Mul(x, h) }}",
        HEAD + " { [z_HardSigmoid] h = HardSigmoid<alpha = 0.16666667, beta = 0.5>(x) y = Mul(x, h) }",
        rewrites=1,
        atol=ATOL,
        opset=13,
    )


MORE = CONSTANTS + ", float less = {-3}, float below = {-0.5}"


@pytest.mark.parametrize(
    "ops",
    [
        "h = HardSigmoid<alpha = 0.16666667>(x) [z] y = Mul(x, h)",
        "a = Sub(x, less) c = Clip(a, zero, six) h = Div(c, six) [z] y = Mul(x, h)",
        "a = Sub(x, less) w = Div(a, six) c = Clip(w, zero, one) [z] y = Mul(x, c)",
        "a = Add(x, three) w = Mul(a, sixth) c = Clip(w, zero, one) [z] y = Mul(x, c)",
        "w = Div(x, six) a = Sub(w, below) c = Clip(a, zero, one) [z] y = Mul(x, c)",
        GATE + "w = Mul(x, sixth) [z] y = Mul(w, c)",
    ],
)
def test_cases_1_2_and_4_in_other_words(ops: str) -> None:
    rewrite(PASS, f"{HEAD} <{MORE}> {{ {ops} }}", SWISH, rewrites=1, atol=ATOL)
    rewrite(PASS, f"{HEAD} <{MORE}> {{ {ops} }}", SWISH, rewrites=1, atol=ATOL, opset=14)


@pytest.mark.parametrize(
    "ops",
    [
        "y = Clip(x)",
        "a = Add(x, three) y = Clip(a, zero)",
        "w = Mul(x, fifth) a = Add(w, half) y = Clip(a, zero, three)",
        "w = Mul(x, fifth) a = Add(w, half) y = Clip(a, half, one)",
        "w = Mul(x, x) a = Add(w, half) y = Clip(a, zero, one)",
        "w = Mul(x, x) y = Clip(w, zero, one)",
        "a = Add(x, x) w = Div(a, six) y = Clip(w, zero, one)",
        "w = Div(x, six) y = Clip(w, zero, one)",
        "h = HardSigmoid<alpha = 0.16666667, beta = 0.4>(x) y = Mul(x, h)",
        "n = Neg(x) h = HardSigmoid<alpha = 0.16666667, beta = 0.5>(x) y = Mul(n, h)",
    ],
)
def test_more_that_are_no_sites(ops: str) -> None:
    keep(PASS, f"{HEAD} <{MORE}> {{ {ops} }}")


@pytest.mark.parametrize(
    ("ops", "reason"),
    [
        (GATE + "w = Div(x, fifth) y = Mul(w, c)", "not divided by 6"),
        (GATE + "n = Neg(x) w = Div(n, six) y = Mul(w, c)", "not divided by 6"),
        (GATE + "w = Mul(x, x) y = Mul(w, c)", "not divided by 6"),
        (GATE + "h = Div(c, six) y = Add(h, a)", "result of its Add is also read elsewhere"),
    ],
)
def test_case_5_more_near_misses(ops: str, reason: str) -> None:
    keep(PASS, f"{HEAD} <{MORE}> {{ {ops} }}", reason)


def test_case_3_the_gate_of_something_else() -> None:
    rewrite(
        PASS,
        f"{HEAD} <{MORE}> {{ {GATE} n = Neg(x) [z] h = Div(c, six) y = Mul(n, h) }}",
        HEAD + " { n = Neg(x) [z_HardSigmoid] h = HardSigmoid<alpha = 0.16666667, beta = 0.5>(x) y = Mul(n, h) }",
        rewrites=1,
        atol=ATOL,
    )


def test_many_sites_beside_ops_of_other_domains() -> None:
    head = f"{HEAD} <{CONSTANTS}>"
    together(
        PASS,
        changed=[(f"{head} {{ {GATE} h = Div(c, six) [z] y = Mul(x, h) }}", SWISH, 1)],
        kept=[(f"{head} {{ {GATE} y = Mul(c, fifth) }}", "not 1/6")],
        quiet=[f"{head} {{ y = Clip(x, zero, six) }}"],
        atol=ATOL,
    )
    source = f"{head} {{ {GATE.replace('Clip', 'com.example.Clip')} y = Div(c, six) }}"
    assert PASS.run(text.parse(model(source)).graph, default_context()).rewrites == 0


def test_case_5_the_least_opset_has_the_op() -> None:
    keep(PASS, f"{HEAD} <{CONSTANTS}> {{ {GATE} m = Mul(x, c) y = Mul(m, fifth) }}", "not divided by 6", opset=14)
