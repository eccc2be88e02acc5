from __future__ import annotations

import numpy as np
import pytest
from rewriting import bitwise, keep, model

from onnxq.ir import text
from onnxq.testing import check_pass, default_context
from onnxq_passes.move_weights import MoveWeights

PASS = MoveWeights()
INPUTS = {"at": np.array([3, 2])}
W = "int8[2,3] w = {1, 2, 3, 4, 5, 6}"
MANY = f"{W}, float[2] s = {{0.1, 0.2}}, int8[2] z = {{0, 0}}"
HEAD = "(float[4,3] x) => (float[4,2] y) "


def test_contract() -> None:
    check_pass(MoveWeights)


def test_case_2_the_axis_goes_with_the_channels() -> None:
    bitwise(
        PASS,
        f"{HEAD}<{MANY}> {{ [d] a = DequantizeLinear<axis = 0>(w, s, z) [t] b = Transpose<perm = [1, 0]>(a) [m] y = MatMul(x, b) }}",
        f"{HEAD}<{MANY}> {{ [t] q = Transpose<perm = [1, 0]>(w) [b_DequantizeLinear] b = DequantizeLinear<axis = 1>(q, s, z) [m] y = MatMul(x, b) }}".replace(
            " q = ", " b_quantized = "
        ).replace("(q,", "(b_quantized,"),
        rewrites=1,
    )


def test_case_3_chains_and_other_readers() -> None:
    one = f"{W}, float s = {{0.1}}, int8 z = {{0}}, int64[2] shape = {{3, 2}}"
    head = "(float[4,3] x) => (float[4,2] y, float[2,3] v) "
    bitwise(
        PASS,
        f"{head}<{one}> {{ [d] a = DequantizeLinear(w, s, z) [r] b = Reshape(a, shape) [u] c = Identity(b) [m] y = MatMul(x, c) [n] v = Neg(a) }}",
        f"{head}<{one}> {{ [d] a = DequantizeLinear(w, s, z) [r] b_quantized = Reshape(w, shape) [u] c_quantized = Identity(b_quantized) "
        "[c_DequantizeLinear] c = DequantizeLinear(c_quantized, s, z) [m] y = MatMul(x, c) [n] v = Neg(a) }",
        rewrites=2,
    )


@pytest.mark.parametrize(
    ("body", "reasons"),
    [
        ("[d] a = DequantizeLinear<axis = 0>(w, s, z) [r] b = Reshape(a, shape) [m] y = MatMul(x, b)", ["scales are per channel"]),
        ("[d] a = DequantizeLinear<axis = 0>(w, s, z) [r] b = Reshape(a, at) [m] y = MatMul(x, b)", []),
        ("[q] p = QuantizeLinear(x, t, v) [d] a = DequantizeLinear(p, t, v) [r] b = Transpose(a) [f] c = Transpose(b) [m] y = MatMul(c, k)", []),
    ],
    ids=["channels are split", "a computed shape", "data"],
)  # fmt: skip
def test_what_stays(body: str, reasons: list[str]) -> None:
    head = "(float[4,3] x, int64[2] at) => (float[4,2] y) "
    keep(
        PASS,
        f"{head}<{MANY}, float t = {{0.1}}, int8 v = {{0}}, int64[2] shape = {{3, 2}}, float[3,2] k = {{1, 2, 3, 4, 5, 6}}> {{ {body} }}",
        *reasons,
        inputs=INPUTS,
    )


def test_the_type_between_and_a_zero_point_that_is_left_out() -> None:
    source = (
        f"{HEAD}<{W}, float s = {{0.1}}> {{ [d] a = DequantizeLinear(w, s) [t] b = Transpose(a) [m] y = MatMul(x, b) }}"
    )
    after = (
        f"{HEAD}<{W}, float s = {{0.1}}, int8 d_zero_point = {{0}}> {{ [t] b_quantized = Transpose(w) "
        "[b_DequantizeLinear] b = DequantizeLinear(b_quantized, s, d_zero_point) [m] y = MatMul(x, b) }"
    )
    bitwise(PASS, source, after, rewrites=1)
    graph = text.parse(model(source)).graph
    PASS.run(graph, default_context())
    assert np.dtype(graph.nodes[0].outputs[0].dtype) == np.int8


def test_integers_of_16_bits_stay() -> None:
    graph = f"{HEAD}<{W.replace('int8', 'int16')}, float s = {{0.1}}, int16 z = {{0}}> {{ [d] a = DequantizeLinear(w, s, z) [t] b = Transpose(a) [m] y = MatMul(x, b) }}"
    keep(PASS, graph, "was not checked for int16")


@pytest.mark.parametrize(
    "body",
    [
        "[c] b = Concat<axis = 0>(a, k) [m] y = MatMul(x, b)",
        "[c] b, c = Split<axis = 0, num_outputs = 2>(a) [f] f = Add(b, c) [t] t = Transpose(f) [m] y = MatMul(x, t)",
        "[n] b = Neg(a) [t] t = Transpose(b) [m] y = MatMul(x, t)",
    ],
    ids=["another float constant", "several results", "another op"],
)
def test_ops_that_stay_without_a_word(body: str) -> None:
    head = "(float[4,3] x) => (float[n,m] y) "
    constants = "int8[2,3] w = {1, 2, 3, 4, 5, 6}, float s = {0.1}, int8 z = {0}, float[1,3] k = {0.1, 0.2, 0.3}"
    if "Concat" in body:
        body = body.replace("MatMul(x, b)", "Gemm<transB = 1>(x, b)")
    keep(PASS, f"{head}<{constants}> {{ [d] a = DequantizeLinear(w, s, z) {body} }}")
