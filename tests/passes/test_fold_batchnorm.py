from __future__ import annotations

import re

import numpy as np
import pytest
from rewriting import keep, model, rewrite, together

from onnxq.ir import text
from onnxq.testing import assert_rewrite, check_pass, default_context
from onnxq_passes.fold_batchnorm import FoldBatchnorm

PASS = FoldBatchnorm()
BN = "float[2] g = {1, 2}, float[2] h = {0.5, -1}, float[2] m = {1, -1}, float[2] v = {3, 0}"
EPS = "BatchNormalization<epsilon = 1.0>"  # scale = g / sqrt(v + 1) = {0.5, 2}, shift = h - m * scale = {0, 1}
CONV = "(float[1,1,3,3] x) => (float[1,2,3,3] y)"


def test_contract() -> None:
    check_pass(FoldBatchnorm)


def test_case_1_conv_without_bias() -> None:
    rewrite(
        PASS,
        f"{CONV} <float[2,1,1,1] w = {{4, 3}}, {BN}> {{ [conv] c = Conv(x, w) [bn] y = {EPS}(c, g, h, m, v) }}",
        f"{CONV} <float[2,1,1,1] w = {{2, 6}}, float[2] conv_bias = {{0, 1}}> {{ [conv] y = Conv(x, w, conv_bias) }}",
        rewrites=1,
        atol=1e-6,
    )


def test_case_1_conv_with_bias() -> None:
    rewrite(
        PASS,
        f"{CONV} <float[2,1,1,1] w = {{4, 3}}, float[2] b = {{6, 7}}, {BN}> {{ [conv] c = Conv(x, w, b) [bn] y = {EPS}(c, g, h, m, v) }}",
        f"{CONV} <float[2,1,1,1] w = {{2, 6}}, float[2] b = {{3, 15}}> {{ [conv] y = Conv(x, w, b) }}",
        rewrites=1,
        atol=1e-5,
    )


def test_case_1_a_chain_of_constants() -> None:
    rewrite(
        PASS,
        CONV
        + """ <float[2,1,1,1] w = {4, 3}, float[2,1,1] p = {2, 3}, float[1,2,1,1] q = {1, -1}, float h = {0.5}, float two = {2}>
        { [conv] c = Conv(x, w) a = Mul(p, c) b = Add(a, q) d = Sub(b, h) y = Div(d, two) }""",
        CONV
        + " <float[2,1,1,1] w = {4, 4.5}, float[2] conv_bias = {0.25, -0.75}> { [conv] y = Conv(x, w, conv_bias) }",
        rewrites=4,
        atol=1e-6,
    )


def test_case_1_constant_minus_result() -> None:
    rewrite(
        PASS,
        CONV + " <float[2,1,1,1] w = {4, 3}, float one = {1}> { [conv] c = Conv(x, w) y = Sub(one, c) }",
        CONV + " <float[2,1,1,1] w = {-4, -3}, float[2] conv_bias = {1, 1}> { [conv] y = Conv(x, w, conv_bias) }",
        rewrites=1,
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("constant", "op", "reason"),
    [
        ("float[2] p = {2, 3}", "y = Mul(c, p)", "not one number per channel"),  # along the width
        ("float[2,1,2] p = {1, 2, 3, 4}", "y = Mul(c, p)", "not one number per channel"),
        (
            "float[2,1,1,1,1] p = {1, 2}",
            "r = Mul(c, p) z = Constant<value_ints = [0]>() s = ReduceSum<keepdims = 0>(r, z) y = Neg(s)",
            "not one number",
        ),
        ("float[2,1,1] p = {1, 0}", "y = Div(c, p)", "has a zero"),
        ("float[2,1,1] p = {1e38, 1e38}", "a = Mul(c, p) y = Mul(a, p)", "would not be finite"),
    ],
)
def test_case_1_and_7_near_misses(constant: str, op: str, reason: str) -> None:
    source = (
        f"(float[1,1,1,2] x) => (float[p,q,r,s] y) <float[2,1,1,1] w = {{4, 3}}, {constant}> {{ c = Conv(x, w) {op} }}"
    )
    keep(PASS, source, reason, inputs={"x": np.zeros((1, 1, 1, 2), np.float32)})


def test_a_residual_add_is_no_site() -> None:
    keep(PASS, "(float[1,1,2,2] x) => (float[1,1,2,2] y) <float[1,1,1,1] w = {4}> { c = Conv(x, w) y = Add(c, x) }")


def test_constant_divided_by_the_result_is_no_site() -> None:
    source = "(float[1,1,2,2] x) => (float[1,1,2,2] y) <float[1,1,1,1] w = {4}, float one = {1}> { c = Conv(x, w) y = Div(one, c) }"
    keep(PASS, source)


GROUPED = "(float[1,4,2,2] x) => (float[1,4,2,2] y)"


def test_case_2_conv_transpose_with_groups() -> None:
    rewrite(
        PASS,
        GROUPED
        + " <float[4,2,1,1] w = {1, 2, 3, 4, 5, 6, 7, 8}, float[4,1,1] p = {1, 10, 100, 1000}> { [ct] c = ConvTranspose<group = 2>(x, w) y = Mul(c, p) }",
        GROUPED
        + " <float[4,2,1,1] w = {1, 20, 3, 40, 500, 6000, 700, 8000}> { [ct] y = ConvTranspose<group = 2>(x, w) }",
        rewrites=1,
        atol=1e-2,
    )


@pytest.mark.parametrize(("matrix", "attribute"), [("1, 2, 3, 4", ""), ("1, 3, 2, 4", "<transB = 1>")])
@pytest.mark.parametrize(("c", "folded"), [(", float[2] c = {5, 6}", "5, 13"), ("", "0, 1")])
def test_case_3_gemm(matrix: str, attribute: str, c: str, folded: str) -> None:
    scaled = "0.5, 4, 1.5, 8" if not attribute else "0.5, 1.5, 4, 8"
    beta = {"": ""}.get(c, "beta = 2.0")
    attributes = "<" + ", ".join(a for a in (attribute.strip("<>"), beta) if a) + ">" if attribute or beta else ""
    third = ", c" if c else ""
    name = "c" if c else "fc_bias"
    folded = {"5, 13": "5, 25"}.get(folded, folded)  # 2 * {5, 6} * {0.5, 2} + {0, 1}
    rewrite(
        PASS,
        f"(float[3,2] x) => (float[3,2] y) <float[2,2] w = {{{matrix}}}{c}, {BN}> {{ [fc] a = Gemm{attributes}(x, w{third}) y = {EPS}(a, g, h, m, v) }}",
        f"(float[3,2] x) => (float[3,2] y) <float[2,2] w = {{{scaled}}}, float[2] {name} = {{{folded}}}> {{ [fc] y = Gemm{attribute}(x, w, {name}) }}",
        rewrites=1,
        atol=1e-4,
    )


def test_case_4_matmul_scaled_needs_no_bias() -> None:
    rewrite(
        PASS,
        "(float[2,3,2] x) => (float[2,3,2] y) <float[2,2] w = {1, 2, 3, 4}, float[2] p = {10, 100}> { [mm] a = MatMul(x, w) y = Mul(a, p) }",
        "(float[2,3,2] x) => (float[2,3,2] y) <float[2,2] w = {10, 200, 30, 400}> { [mm] y = MatMul(x, w) }",
        rewrites=1,
        atol=1e-3,
    )


def test_case_4_matmul_with_bias_and_batchnorm() -> None:
    report = rewrite(
        PASS,
        f"(float[3,2] x) => (float[3,2] y) <float[2,2] w = {{1, 2, 3, 4}}, float[2] b = {{4, 5}}, float[3,2] a, {BN}> "
        f"{{ [mm] a = MatMul(x, w) [add] c = Add(a, b) [bn] y = {EPS}(c, g, h, m, v) }}",
        "(float[3,2] x) => (float[3,2] y) <float[2,2] w = {0.5, 4, 1.5, 8}, float[2] add_constant = {2, 11}> "
        "{ [mm] mm_product = MatMul(x, w) [add_bias] y = Add(mm_product, add_constant) }",
        rewrites=2,
        atol=1e-4,
    )
    assert report.renamed == {"add_bias": "add"}


def test_case_4_lone_bias_stays() -> None:
    keep(
        PASS,
        "(float[3,2] x) => (float[3,2] y) <float[2,2] w = {1, 2, 3, 4}, float[2] b = {4, 5}> { a = MatMul(x, w) y = Add(a, b) }",
    )


def test_case_4_near_miss_batchnorm_of_rank_3() -> None:
    source = f"(float[1,2,2] x) => (float[1,2,2] y) <float[2,2] w = {{1, 2, 3, 4}}, float[1,2,2] a, {BN}> {{ a = MatMul(x, w) y = {EPS}(a, g, h, m, v) }}"
    keep(PASS, source, "no linear op next to it")


def test_case_5_batchnorm_before_a_conv() -> None:
    rewrite(
        PASS,
        f"(float[1,2,3,3] x) => (float[1,1,3,3] y) <float[1,2,1,1] w = {{4, 3}}, {BN}> {{ [bn] a = {EPS}(x, g, h, m, v) [conv] y = Conv(a, w) }}",
        "(float[1,2,3,3] x) => (float[1,1,3,3] y) <float[1,2,1,1] w = {2, 6}, float[1] conv_bias = {3}> { [conv] y = Conv(x, w, conv_bias) }",
        rewrites=1,
        atol=1e-5,
    )


def test_case_5_with_groups() -> None:
    rewrite(
        PASS,
        f"(float[1,2,3,3] x) => (float[1,2,3,3] y) <float[2,1,1,1] w = {{4, 3}}, float[2] b = {{1, 1}}, {BN}> "
        f"{{ [bn] a = {EPS}(x, g, h, m, v) [conv] y = Conv<group = 2>(a, w, b) }}",
        "(float[1,2,3,3] x) => (float[1,2,3,3] y) <float[2,1,1,1] w = {2, 6}, float[2] b = {1, 4}> { [conv] y = Conv<group = 2>(x, w, b) }",
        rewrites=1,
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("conv", "reason"),
    [
        ("y = Conv<pads = [1, 1, 1, 1]>(a, w)", "pads with zeros"),
        ('y = Conv<auto_pad = "SAME_UPPER">(a, w)', "pads with zeros"),
        ("y = Conv(a, x)", "not constant"),
        ("c = Conv(a, w) y = Sub(c, a)", "no linear op next to it"),
        ("y = Relu(a)", "no linear op next to it"),
    ],
)
def test_case_5_and_7_near_misses(conv: str, reason: str) -> None:
    source = f"(float[1,2,1,1] x) => (float[p,q,r,s] y) <float[1,2,1,1] w = {{4, 3}}, {BN}> {{ a = {EPS}(x, g, h, m, v) {conv} }}"
    keep(PASS, source, reason)


def test_case_6_a_shared_weight_is_copied() -> None:
    rewrite(
        PASS,
        CONV.replace("y)", "y, float[1,2,3,3] z)")
        + " <float[2,1,1,1] w = {4, 3}, float two = {2}> { [c1] c = Conv(x, w) y = Mul(c, two) [c2] z = Conv(x, w) }",
        CONV.replace("y)", "y, float[1,2,3,3] z)")
        + " <float[2,1,1,1] w = {4, 3}, float[2,1,1,1] w_folded = {8, 6}> { [c1] y = Conv(x, w_folded) [c2] z = Conv(x, w) }",
        rewrites=1,
        atol=1e-6,
    )


def test_case_6_near_miss_the_result_is_read_elsewhere() -> None:
    source = (
        CONV + " <float[2,1,1,1] w = {4, 3}, float two = {2}> { [c1] c = Conv(x, w) s = Mul(c, two) y = Add(s, c) }"
    )
    keep(PASS, source, "result of the Conv before it is also read elsewhere")


def test_case_6_near_miss_the_result_is_an_output() -> None:
    source = (
        CONV.replace("y)", "y, float[1,2,3,3] c)")
        + " <float[2,1,1,1] w = {4, 3}, float two = {2}> { [c1] c = Conv(x, w) y = Mul(c, two) }"
    )
    keep(PASS, source, "result of the Conv before it is also read elsewhere")


@pytest.mark.parametrize(
    ("bn", "reason"),
    [
        ("y = BatchNormalization<epsilon = 0.0>(c, g, h, m, v)", "variance of BatchNormalization is not positive"),
        (f"n = Neg(g) y = {EPS}(c, n, h, m, v)", "parameters of BatchNormalization are not constant"),
        ("y, q, r = BatchNormalization<epsilon = 1.0, training_mode = 1>(c, g, h, m, v)", "training mode"),
    ],
)
def test_case_7_batchnorms_that_stay(bn: str, reason: str) -> None:
    zeros = {"x": np.ones((1, 1, 3, 3), np.float32)}
    keep(PASS, f"{CONV} <float[2,1,1,1] w = {{4, 3}}, {BN}> {{ c = Conv(x, w) {bn} }}", reason, inputs=zeros)


def test_a_bias_that_is_computed() -> None:
    source = (
        CONV
        + " <float[2,1,1,1] w = {4, 3}, float[2] b = {1, 2}, float two = {2}> { n = Neg(b) c = Conv(x, w, n) y = Mul(c, two) }"
    )
    keep(PASS, source, "bias of Conv is not constant")


def test_in_bodies() -> None:
    source = """(bool c, float[1,1,3,3] x) => (float[1,2,3,3] y) <float[2,1,1,1] w = {{{0}}}, float two = {{2}}> {{ y = If(c) <
        then_branch = p () => (float[1,2,3,3] t) {{ [conv] {1} }}, else_branch = q () => (float[1,2,3,3] e) {{ e = Concat<axis = 1>(x, x) }}> }}"""
    before = model(source.format("4, 3", "u = Conv(x, w) t = Mul(u, two)"))
    after = model(source.format("8, 6", "t = Conv(x, w)").replace(", float two = {2}", ""))
    assert_rewrite(PASS, before, after, rewrites=1, atol=1e-6)


def test_a_reader_in_a_body_is_no_site() -> None:
    source = """(bool c, float[1,1,3,3] x) => (float[1,1,3,3] y) <float[1,1,1,1] w = {4}, float two = {2}> { u = Conv(x, w) y = If(c) <
        then_branch = p () => (float[1,1,3,3] t) { t = Mul(u, two) }, else_branch = q () => (float[1,1,3,3] e) { e = Neg(x) }> }"""
    keep(PASS, source)


def test_the_product_is_rounded_once() -> None:
    """Three scales in float32 steps would give another last bit than the float64 product does."""
    scales = np.array([1.1, 1.3, 1.7], np.float32)
    source = CONV.replace("float[1,2", "float[1,1") + (
        " <float[1,1,1,1] w = {0.7}, float p = {1.1}, float q = {1.3}, float r = {1.7}>"
        " { c = Conv(x, w) a = Mul(c, p) b = Mul(a, q) y = Mul(b, r) }"
    )
    graph = text.parse(model(source)).graph
    PASS.run(graph, default_context())
    (folded,) = graph.nodes[0].inputs[1].values.reshape(-1)
    assert folded == np.float32(np.float64(np.float32(0.7)) * scales.astype(np.float64).prod())
    assert re.search(r"y = Conv\(x, w\)", text.text(graph))


def test_case_1_each_op_with_one_number_per_channel() -> None:
    """Three channels, so that neither one number nor a number for each of two passes for them."""
    head = "(float[1,1,2,2] x) => (float[1,3,2,2] y) <float[3,1,1,1] w = {%s}, float[3,1,1] k = {1, 2, 4}"
    for op, weights, bias in (
        ("Add(c, k)", "1, 2, 4", "1, 2, 4"),
        ("Add(k, c)", "1, 2, 4", "1, 2, 4"),
        ("Sub(c, k)", "1, 2, 4", "-1, -2, -4"),
        ("Sub(k, c)", "-1, -2, -4", "1, 2, 4"),
        ("Mul(c, k)", "1, 4, 16", ""),
        ("Div(c, k)", "1, 1, 1", ""),
    ):
        more, slot = (f", float[3] conv_bias = {{{bias}}}", ", conv_bias") if bias else ("", "")
        rewrite(
            PASS,
            f"{head % '1, 2, 4'}> {{ [conv] c = Conv(x, w) y = {op} }}",
            f"{head % weights}{more}> {{ [conv] y = Conv(x, w{slot}) }}".replace(", float[3,1,1] k = {1, 2, 4}", ""),
            rewrites=1,
            atol=1e-5,
        )


def test_case_1_near_miss_a_constant_that_adds_a_dimension() -> None:
    graph = "(float[1,1,2,2] x) => (float[1,1,2,2,2] y) <float[2,1,1,1] w = {1, 2}, float[1,1,2,1,1] k = {1, 2}> { c = Conv(x, w) y = Mul(c, k) }"
    keep(PASS, graph, "not one number per channel")


def test_case_4_near_miss_a_rank_that_is_not_known() -> None:
    graph = "(float[3,2] x) => (float[3,2] y) <float[2,2] w = {1, 2, 3, 4}, float[1,2] k = {1, 2}> { a = MatMul(x, w) y = Mul(a, k) }"
    keep(PASS, graph, "not one number per channel")
    known = graph.replace(", float[1,2] k", ", float[3,2] a, float[1,2] k")
    after = "(float[3,2] x) => (float[3,2] y) <float[2,2] w = {1, 4, 3, 8}> { y = MatMul(x, w) }"
    rewrite(PASS, known, after, rewrites=1, atol=1e-4)


@pytest.mark.parametrize("epsilon", ["", "<epsilon = 0.25>"])
def test_a_batchnorm_is_computed_in_float64(epsilon: str) -> None:
    """Step by step in float32 the last bit would be another; epsilon is 1e-5 where the file has none."""
    source = f"{CONV} <float[2,1,1,1] w = {{4, 3}}, float[2] g = {{1.1, 0.7}}, float[2] h = {{0.3, -1.7}}, float[2] m = {{1.3, -0.9}}, float[2] v = {{0.6, 0.013}}> {{ [conv] c = Conv(x, w) y = BatchNormalization{epsilon}(c, g, h, m, v) }}"
    graph = text.parse(model(source)).graph
    assert PASS.run(graph, default_context()).rewrites == 1
    g, h, m, v = (np.float32(a).astype(np.float64) for a in ([1.1, 0.7], [0.3, -1.7], [1.3, -0.9], [0.6, 0.013]))
    scale = g / np.sqrt(v + (0.25 if epsilon else 1e-5))
    _, weight, bias = graph.nodes[0].inputs
    np.testing.assert_array_equal(weight.values.ravel(), (np.array([4, 3]) * scale).astype(np.float32))
    np.testing.assert_array_equal(bias.values, (h - m * scale).astype(np.float32))


STATISTICS = "y, p, q = BatchNormalization(c, g, h, m, v)"


@pytest.mark.parametrize(
    ("node", "outputs", "wanted"),
    [
        ("y = BatchNormalization<spatial = 0>(c, g, h, m, v)", "", "spatial=0"),
        ("y = BatchNormalization<spatial = 1>(c, g, h, m, v)", "", None),
        (STATISTICS, "", None),
        (f"{STATISTICS} n = Neg(p)", ", float[2] n", "running statistics"),
        (STATISTICS, ", float[2] p", "running statistics"),
        (STATISTICS, ", float[2] q", "running statistics"),
    ],
)
def test_case_7_batchnorms_of_older_opsets(node: str, outputs: str, wanted: str | None) -> None:
    """With a mean per element, and with outputs for training; ONNX Runtime runs neither, so nothing is compared."""
    head = CONV.replace("y)", f"y{outputs})")
    graph = text.parse(
        model(
            f"{head} <float[2,1,1,1] w = {{4, 3}}, {BN.replace('v = {3, 0}', 'v = {3, 1}')}> {{ [conv] c = Conv(x, w) {node} }}",
            8,
        )
    ).graph
    report = PASS.run(graph, default_context())
    assert report.rewrites == (wanted is None)
    assert [wanted in r.reason for r in report.refusals if wanted] == [True] * (wanted is not None)


def test_case_7_a_batchnorm_without_a_neighbour_whose_statistics_are_read() -> None:
    graph = text.parse(
        model(
            f"(float[1,2,3,3] x) => (float[1,2,3,3] y, float[2] p) <{BN}> {{ y, p, q = BatchNormalization(x, g, h, m, v) }}",
            8,
        )
    ).graph
    assert "running statistics" in PASS.run(graph, default_context()).refusals[0].reason


def test_many_sites() -> None:
    w = "float[2,1,1,1] w = {4, 3}, float two = {2}"
    ahead = f"(float[1,2,3,3] x) => (float[1,1,3,3] y) <float[1,2,1,1] w = {{4, 3}}, {BN}> {{ [bn] a = {EPS}(x, g, h, m, v) [conv] y = Conv(a, w) }}"
    together(
        PASS,
        changed=[
            (
                f"{CONV} <{w}> {{ [conv] c = Conv(x, w) a = Mul(c, two) y = Mul(a, two) }}",
                f"{CONV} <float[2,1,1,1] w = {{16, 12}}> {{ [conv] y = Conv(x, w) }}",
                2,
            ),
            (
                ahead,
                "(float[1,2,3,3] x) => (float[1,1,3,3] y) <float[1,2,1,1] w = {2, 6}, float[1] conv_bias = {3}> { [conv] y = Conv(x, w, conv_bias) }",
                1,
            ),
        ],
        kept=[
            (f"{CONV} <{w}> {{ c = Conv(x, w) a = Mul(c, two) y = Add(a, c) }}", "also read elsewhere"),
            (f"(float[1,2,3,3] x) => (float[1,2,3,3] y) <{BN}> {{ y = {EPS}(x, g, h, m, v) }}", "no linear op"),
        ],
        quiet=[
            "(float[2,2] x) => (float[2,2] y) <float[2,2] k = {1, 2, 3, 4}, float[2] b = {1, 2}> { c = Mul(x, k) y = Add(c, b) }",
            "(float[2,2] x) => (float[2,2] y) <float[2,2] k = {1, 2, 3, 4}> { c = Add(x, k) y = MatMul(c, k) }",
        ],
        atol=1e-4,
    )


@pytest.mark.parametrize(
    ("tail", "reasons"),
    [
        ("y = Neg(a)", []),
        ("y = Div(two, a)", []),
        ("y = Add(a, k)", ["not one number per channel"]),
        ("n = Mul(a, two) y = Add(n, a)", ["result of the Mul before it is also read elsewhere"]),
    ],
)
def test_case_1_a_chain_is_folded_as_far_as_it_goes(tail: str, reasons: list[str]) -> None:
    head = f"{CONV} <float[2,1,1,1] w = {{{{{{0}}}}}}, float two = {{{{2}}}}, float[3] k = {{{{1, 2, 3}}}}> "
    before = head.format("4, 3") + f"{{ [conv] c = Conv(x, w) a = Mul(c, two) {tail} }}"
    after = head.format("8, 6") + f"{{ [conv] a = Conv(x, w) {tail} }}"
    report = rewrite(PASS, before, after, rewrites=1, refused=reasons, atol=1e-5)
    assert len(report.refusals) == len(reasons)


def test_case_4_a_chain_of_a_matmul_as_far_as_it_goes() -> None:
    head = f"(float[1,2,2] x) => (float[1,2,2] y) <float[2,2] w = {{{{{{0}}}}}}, float[1,2,2] a, float[2] k = {{{{2, 4}}}}, {BN.replace('{', '{{').replace('}', '}}')}> "
    norm = f"y = {EPS}(a, g, h, m, v) }}"
    before = head.format("1, 2, 3, 4") + "{ [mm] c = MatMul(x, w) a = Mul(c, k) " + norm
    rewrite(
        PASS,
        before,
        head.format("2, 8, 6, 16") + "{ [mm] a = MatMul(x, w) " + norm,
        rewrites=1,
        refused=["no linear op"],
        atol=1e-4,
    )


def test_case_3_gemm_knows_its_rank() -> None:
    head = "(float[3,2] x) => (float[n,m,k] y) <float[2,2] w = {1, 2, 3, 4}, float[2] c = {5, 6}"
    gemm = "[fc] a = Gemm(x, w, c)"
    rewrite(
        PASS,
        f"{head}, float[1,2] k = {{2, 3}}> {{ {gemm} b = Mul(a, k) y = Unsqueeze(b, i) }}".replace(
            "> {", ", int64[1] i = {0}> {"
        ),
        "(float[3,2] x) => (float[n,m,k] y) <float[2,2] w = {2, 6, 6, 12}, float[2] c = {10, 18}, int64[1] i = {0}> { [fc] b = Gemm(x, w, c) y = Unsqueeze(b, i) }",
        rewrites=1,
        atol=1e-4,
    )
    keep(PASS, f"{head}, float[1,1,2] k = {{2, 3}}> {{ {gemm} y = Mul(a, k) }}", "not one number per channel")


def test_case_4_a_difference_is_a_bias_too() -> None:
    keep(
        PASS,
        "(float[3,2] x) => (float[3,2] y) <float[2,2] w = {1, 2, 3, 4}, float[2] b = {4, 5}> { a = MatMul(x, w) y = Sub(a, b) }",
    )


def test_case_4_the_last_op_gives_its_name_where_there_was_no_add() -> None:
    report = rewrite(
        PASS,
        f"(float[3,2] x) => (float[3,2] y) <float[2,2] w = {{1, 2, 3, 4}}, float[2] k = {{2, 4}}, float[3,2] a, {BN}> "
        f"{{ [mm] a = MatMul(x, w) [one] b = Mul(a, k) [bn] c = {EPS}(b, g, h, m, v) [two] y = Mul(c, k) }}",
        "(float[3,2] x) => (float[3,2] y) <float[2,2] w = {2, 64, 6, 128}, float[2] two_constant = {0, 4}> "
        "{ [mm] mm_product = MatMul(x, w) [two_bias] y = Add(mm_product, two_constant) }",
        rewrites=3,
        atol=1e-3,
    )
    assert report.renamed == {"two_bias": "two"}


def test_case_5_a_conv_that_says_that_it_does_not_pad() -> None:
    source = '(float[1,2,3,3] x) => (float[1,1,3,3] y) <float[1,2,1,1] w = {{{0}}}, {1}> {{ {2} [conv] y = Conv<auto_pad = "VALID">({3}) }}'
    rewrite(
        PASS,
        source.format("4, 3", BN, f"[bn] a = {EPS}(x, g, h, m, v)", "a, w"),
        source.format("2, 6", "float[1] conv_bias = {3}", "", "x, w, conv_bias"),
        rewrites=1,
        atol=1e-5,
    )


def test_case_5_and_6_a_shared_weight_is_copied() -> None:
    source = "(float[1,2,3,3] x) => (float[1,1,3,3] y, float[1,1,3,3] z) <float[1,2,1,1] w = {{4, 3}}, {0}> {{ {1} [conv] y = Conv({2}) [other] z = Conv(x, w) }}"
    rewrite(
        PASS,
        source.format(BN, f"[bn] a = {EPS}(x, g, h, m, v)", "a, w"),
        source.format("float[1,2,1,1] w_folded = {2, 6}, float[1] conv_bias = {3}", "", "x, w_folded, conv_bias"),
        rewrites=1,
        atol=1e-5,
    )


@pytest.mark.parametrize(
    "norm", ["float[2] g = {1e38, 1}, float[2] h = {0, 0}", "float[2] g = {1, 1}, float[2] h = {3e38, 3e38}"]
)
def test_case_5_and_7_near_miss_weights_or_a_bias_that_overflow(norm: str) -> None:
    rest = "float[2] m = {0, 0}, float[2] v = {0, 0}"
    source = f"(float[1,2,1,1] x) => (float[1,1,1,1] y) <float[1,2,1,1] w = {{40, 3}}, {norm}, {rest}> {{ a = {EPS}(x, g, h, m, v) y = Conv(a, w) }}"
    keep(PASS, source, "would not be finite", inputs={"x": np.zeros((1, 2, 1, 1), np.float32)})


def test_case_6_near_miss_an_affine_reader_behind_another_one() -> None:
    source = (
        CONV
        + " <float[2,1,1,1] w = {4, 3}, float two = {2}> { [c1] c = Conv(x, w) r = Relu(c) s = Mul(c, two) y = Add(s, r) }"
    )
    keep(PASS, source, "result of the Conv before it is also read elsewhere")


@pytest.mark.parametrize(
    ("attribute", "shape", "before", "after"),
    [
        ("", "3,2", "1, 1, 1, 1, 1, 1", "2, 3, 2, 3, 2, 3"),
        ("<transB = 0>", "3,2", "1, 1, 1, 1, 1, 1", "2, 3, 2, 3, 2, 3"),
        ("<transB = 1>", "2,3", "1, 1, 1, 1, 1, 1", "2, 2, 2, 3, 3, 3"),
    ],
)
def test_case_3_matrices_that_are_not_square(attribute: str, shape: str, before: str, after: str) -> None:
    source = "(float[4,3] x) => (float[4,2] y) <float[{0}] w = {{{1}}}{2}> {{ [fc] {3} }}"
    rewrite(
        PASS,
        source.format(shape, before, ", float[2] k = {2, 3}", f"a = Gemm{attribute}(x, w) y = Mul(a, k)"),
        source.format(shape, after, "", f"y = Gemm{attribute}(x, w)"),
        rewrites=1,
        atol=1e-5,
    )


def test_case_2_conv_transpose_without_groups() -> None:
    source = "(float[1,2,2,2] x) => (float[1,3,2,2] y) <float[2,3,1,1] w = {{{0}}}{1}> {{ [ct] {2} }}"
    rewrite(
        PASS,
        source.format("1, 2, 3, 4, 5, 6", ", float[3,1,1] k = {1, 10, 100}", "c = ConvTranspose(x, w) y = Mul(c, k)"),
        source.format("1, 20, 300, 4, 50, 600", "", "y = ConvTranspose(x, w)"),
        rewrites=1,
        atol=1e-3,
    )


def test_folded_weights_cannot_be_written_to() -> None:
    graph = text.parse(
        model(f"{CONV} <float[2,1,1,1] w = {{4, 3}}, float two = {{2}}> {{ c = Conv(x, w) y = Mul(c, two) }}")
    ).graph
    PASS.run(graph, default_context())
    assert not graph.nodes[0].inputs[1].values.flags.writeable
