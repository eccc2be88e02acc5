from __future__ import annotations

import numpy as np
import pytest
from quantized import quantize_text
from rewriting import bitwise, keep, model, together

from onnxq.errors import ModelError
from onnxq.ir import text
from onnxq.runtime.session import Level
from onnxq.testing import check_pass, default_context
from onnxq_passes.lift_matmul_bias import LiftMatmulBias

PASS = LiftMatmulBias()
WEIGHTS = "float[2,3] w = {1, -2, 3, -4, 5, -6}"


def test_contract() -> None:
    check_pass(LiftMatmulBias)


@pytest.mark.parametrize("terms", ["m, b", "b, m"])
def test_cases_1_and_2(terms: str) -> None:
    def graph(bias: str, terms: str) -> str:
        head = f"(float[B,4,2] x) => (float[B,4,3] y) <{WEIGHTS}, {bias} = {{1, 2, 3}}>"
        return head + f" {{ [m] m = MatMul(x, w) [y] y = Add({terms}) }}"

    bitwise(PASS, graph("float[3] b", terms), graph("float[1,3] b_row", terms.replace("b", "b_row")), rewrites=1)


@pytest.mark.parametrize(
    ("inputs", "output", "inits", "body"),
    [
        ("float[4,2] x", "float[4,3] y", "float[3] b = {1, 2, 3}", "m = MatMul(x, w) y = Add(m, b)"),
        ("float[2] x", "float[3] y", "float[3] b = {1, 2, 3}", "m = MatMul(x, w) y = Add(m, b)"),
        ("float[1,4,2] x", "float[1,4,3] y", "float[1,3] b = {1, 2, 3}", "m = MatMul(x, w) y = Add(m, b)"),
        ("float[1,4,3] x", "float[1,4,3] y", "float[3] b = {1, 2, 3}", "m = Neg(x) y = Add(m, b)"),
        ("float[1,4,2] x, float[2,3] v", "float[1,4,3] y", "float[3] b = {1, 2, 3}", "m = MatMul(x, v) y = Add(m, b)"),
    ],
)
def test_near_misses(inputs: str, output: str, inits: str, body: str) -> None:
    nodes = body.replace("m =", "[m] m =").replace("y =", "[y] y =")
    keep(PASS, f"({inputs}) => ({output}) <{WEIGHTS}, {inits}> {{ {nodes} }}")


def test_case_2_unknown_rank() -> None:
    source = "m = MatMul(x, w) [y] y = Add(m, b) n = Shape(y)"
    graph = f"(float x) => (int64[r] n) <{WEIGHTS}, float[3] b = {{1, 2, 3}}> {{ {source} }}"
    parsed = text.parse(model(graph))
    parsed.graph.inputs[0].shape = None
    report = PASS.run(parsed.graph, default_context())
    assert [r.reason for r in report.refusals] == ["the rank of the product is not known"]


def test_the_quantized_model_loads_at_every_level_only_with_it() -> None:
    def graph(bias: str) -> str:
        head = f"(float[1,4,2] x) => (float[1,4,3] y) <{WEIGHTS}, {bias} b = {{1, 2, 3}}>"
        return model(head + " { m = MatMul(x, w) y = Add(m, b) }")

    lifted = quantize_text(graph("float[1,3]"), target="tensorrt")
    for level in Level:
        np.testing.assert_allclose(lifted.run(level)["y"], lifted.run(Level.OFF)["y"], rtol=0, atol=1e-5)
    with pytest.raises(ModelError, match="output_dtype"):
        quantize_text(graph("float[3]"), target="tensorrt").run(Level.ALL)


def test_many_sites() -> None:
    graph = f"(float[B,4,2] x) => (float[B,4,3] y) <{WEIGHTS}, BIAS = {{1, 2, 3}}> {{ [m] m = MatMul(x, w) [y] y = Add(m, b) }}"
    before, after = (
        graph.replace("BIAS", "float[3] b"),
        graph.replace("BIAS", "float[1,3] b_row").replace("m, b)", "m, b_row)"),
    )
    flat = before.replace("[B,4,", "[4,")
    together(PASS, changed=[(before, after, 1)], quiet=[flat])


def test_case_2_a_rank_that_only_the_sum_tells() -> None:
    parsed = text.parse(
        model(
            f"(float x) => (float[1,4,3] y) <{WEIGHTS}, float[3] b = {{1, 2, 3}}> {{ m = MatMul(x, w) y = Add(m, b) }}"
        )
    )
    parsed.graph.inputs[0].shape = None
    assert PASS.run(parsed.graph, default_context()).rewrites == 1


def test_case_2_a_rank_that_only_the_product_tells() -> None:
    head = f"(float x) => (int64[r] n) <{WEIGHTS}, float[3] b = {{1, 2, 3}}, float[1,4,3] m>"
    parsed = text.parse(model(f"{head} {{ m = MatMul(x, w) y = Add(m, b) n = Shape(y) }}"))
    parsed.graph.inputs[0].shape = None
    assert PASS.run(parsed.graph, default_context()).rewrites == 1
