from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fusing import DATA, Qdq
from rewriting import bitwise, keep
from unfusing import unfuse

from onnxq.testing import check_pass
from onnxq_passes.fuse_integer_movement import FuseIntegerMovement
from onnxq_passes.unfuse_integer_movement import UnfuseIntegerMovement

PASS = UnfuseIntegerMovement()
K = "float s = {0.02}, uint8 z = {120}, float t = {0.03}"
HEAD = f"(float[2,3] x) => (float[3,2] y) <{K}> "
START = "{ [q] a = QuantizeLinear(x, s, z) "


def test_contract() -> None:
    check_pass(UnfuseIntegerMovement)


def test_case_1_the_q_in_front_tells() -> None:
    after = (
        f"(float[2,3] x) => (float[3,2] y) <{K}, float a_scale = {{0.02}}, uint8 a_zero_point = {{120}}> "
        "{ [q] a = QuantizeLinear(x, s, z) [a_DequantizeLinear] a_dequantized = DequantizeLinear(a, a_scale, a_zero_point) "
        "[t] b_float = Transpose(a_dequantized) [b_QuantizeLinear] b = QuantizeLinear(b_float, a_scale, a_zero_point) [d] y = DequantizeLinear(b, s, z) }"
    )
    bitwise(PASS, HEAD + START + "[t] b = Transpose(a) [d] y = DequantizeLinear(b, s, z) }", after, rewrites=1)


MOVES: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "MaxPool": ([], {"kernel_shape": [2, 2], "pads": [1, 1, 0, 0]}),
    "Transpose": ([], {"perm": [0, 2, 3, 1]}),
    "Reshape": ([[2, -1]], {}),
    "Flatten": ([], {}),
    "Unsqueeze": ([[0]], {}),
    "Gather": ([[2, 0, 2]], {"axis": 1}),
    "Tile": ([[1, 2, 1, 1]], {}),
    "Expand": ([[3, 2, 3, 4, 4]], {}),
    "ReduceMax": ([[2]], {}),
    "DepthToSpace": ([], {"blocksize": 1}),
}


@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize("op", MOVES)
def test_every_op_bit_for_bit(op: str, kind: str) -> None:
    extra, attributes = MOVES[op]
    g = Qdq()
    slots = [g.constant(np.asarray(e), "int64") for e in extra]
    g.out(g.op(op, g.data(2, 3, 4, 4, kind=kind, zero=7), *slots, **attributes), DATA, 7, kind)
    made = unfuse(g, PASS, fused=[FuseIntegerMovement()])
    assert made.rewrites == 1
    assert made.ops["DequantizeLinear"] == 1 and made.ops["QuantizeLinear"] == 2
    assert made.gap == 0


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_chains_pads_and_several_inputs(kind: str) -> None:
    g = Qdq()

    def again(tensor: str) -> str:
        return g.dq(g.q(tensor, DATA, 120, kind), DATA, 120, kind)

    pads = g.constant([0, 1, 0, 2], "int64")
    one, other = g.data(2, 3, kind=kind), g.data(2, 3, kind=kind)
    joined = again(g.op("Concat", again(g.op("Pad", one, pads, g.constant(np.float32(0.2)))), other, axis=1))
    g.out(g.op("Transpose", joined), DATA, 120, kind)
    made = unfuse(g, PASS, fused=[FuseIntegerMovement()])
    assert made.rewrites == 3
    assert made.gap == 0
    assert made.spread > 4


def test_case_1_the_dq_behind_tells_of_an_input_and_of_a_table() -> None:
    head = f"(uint8[2,3] p, int64[2] at) => (float[3,2] y, float[2,3] v) <{K}, uint8[4,3] table = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}}> "
    before = (
        head
        + "{ [t] b = Transpose(p) [d] y = DequantizeLinear(b, s, z) [g] c = Gather(table, at) [e] v = DequantizeLinear(c, t, z) }"
    )
    after = (
        head[:-2] + ", float p_scale = {0.02}, uint8 p_zero_point = {120}, float table_scale = {0.03}> "
        "{ [p_DequantizeLinear] p_dequantized = DequantizeLinear(p, p_scale, p_zero_point) [t] b_float = Transpose(p_dequantized) "
        "[b_QuantizeLinear] b = QuantizeLinear(b_float, p_scale, p_zero_point) [d] y = DequantizeLinear(b, s, z) "
        "[table_DequantizeLinear] table_dequantized = DequantizeLinear(table, table_scale, p_zero_point) [g] c_float = Gather(table_dequantized, at) "
        "[c_QuantizeLinear] c = QuantizeLinear(c_float, table_scale, p_zero_point) [e] v = DequantizeLinear(c, t, z) }"
    )
    bitwise(PASS, before, after, rewrites=2)


def test_case_2_integers_of_different_meaning_stay() -> None:
    two = f"(float[2,3] x) => (float[4,3] y) <{K}> " + START + "[r] b = QuantizeLinear(x, t, z) "
    keep(
        PASS, two + "[c] c = Concat<axis = 0>(a, b) [d] y = DequantizeLinear(c, s, z) }", "stand for different numbers"
    )
    loose = f"(float[2,3] x, uint8[2,3] p) => (float[4,3] y) <{K}> " + START
    keep(
        PASS,
        loose + "[c] c = Concat<axis = 0>(a, p) [d] y = DequantizeLinear(c, s, z) }",
        "nothing tells what one of its inputs",
    )
    channels = f"(float[2,3] x) => (float[3,2] y) <{K}, float[3] m = {{0.1, 0.2, 0.3}}, uint8[3] n = {{1, 2, 3}}> "
    keep(
        PASS,
        channels
        + "{ [q] a = QuantizeLinear<axis = 1>(x, m, n) [t] b = Transpose(a) [d] y = DequantizeLinear<axis = 0>(b, m, n) }",
        "scale per channel",
    )
    pad = f"(float[2,3] x, uint8 e) => (float[4,3] y) <{K}, int64[4] pads = {{1, 0, 1, 0}}> " + START
    keep(PASS, pad + "[p] b = Pad(a, pads, e) [d] y = DequantizeLinear(b, s, z) }", "or with one that is computed")
    keep(PASS, pad + "[p] b = Pad(a, pads) [d] y = DequantizeLinear(b, s, z) }", "fills with the integer 0")


PAD = "float s = {0.5}, uint8 z = {120}, int64[4] pads = {1, 0, 1, 0}"
PAD_START = "{ [q] a = QuantizeLinear(x, s, z) "
PAD_NUMBERS = ", float a_scale = {0.5}, uint8 a_zero_point = {120}"
PAD_DQ = "[a_DequantizeLinear] a_dequantized = DequantizeLinear(a, a_scale, a_zero_point) "
PAD_END = " [b_QuantizeLinear] b = QuantizeLinear(b_float, a_scale, a_zero_point) [d] y = DequantizeLinear(b, s, z) }"


def test_case_2_the_number_that_pad_fills_with_becomes_a_real_one() -> None:
    head = f"(float[2,3] x) => (float[4,3] y) <{PAD}, uint8 e = {{7}}"
    before = head + "> " + PAD_START + "[p] b = Pad(a, pads, e) [d] y = DequantizeLinear(b, s, z) }"
    after = (
        head
        + PAD_NUMBERS
        + ", float e_float = {-56.5}> "
        + PAD_START
        + PAD_DQ
        + "[p] b_float = Pad(a_dequantized, pads, e_float)"
        + PAD_END
    )
    bitwise(PASS, before, after, rewrites=1)


@pytest.mark.parametrize("number", ["none", "constant", "computed"])
def test_a_pad_that_copies_needs_no_number(number: str) -> None:
    """It must not keep one either, whose type would be that of the integers."""
    g = Qdq()
    q, pads = g.q(g.data(2, 3), DATA, 7), g.constant([1, 0, 1, 0], "int64")
    value = g.q(g.constant(0.5), DATA, 7) if number == "computed" else g.constant(7, "uint8")
    padded = g.op("Pad", q, pads, *([] if number == "none" else [value]), mode="edge")
    g.raw(g.dq(padded, DATA, 7))
    made = unfuse(g, PASS)
    assert (made.rewrites, made.gap) == (1, 0)


@pytest.mark.parametrize("told", ["front", "behind"])
def test_an_output_that_depends_on_ties(told: str) -> None:
    """Which of equal numbers TopK takes need not be the same; unread, the positions don't matter."""
    source = "(float[2,4] x)" if told == "front" else "(uint8[2,4] a)"
    start = "{ [q] a = QuantizeLinear(x, s, z) " if told == "front" else "{ "
    graph = (
        f"{source} => (float[2,2] y, int64[2,2] at) <{K}, int64[1] k = {{2}}> {start}"
        "[p] b, at = TopK(a, k) [d] y = DequantizeLinear(b, s, z) }"
    )
    keep(PASS, graph, "its output 1 is read")


@pytest.mark.parametrize("op", ["Split", "TopK"])
def test_outputs_that_nobody_reads_get_the_right_type(op: str) -> None:
    g = Qdq()
    numbers = g.constant([1, 1] if op == "Split" else [2], "int64")
    first, _ = g.op(op, g.q(g.data(2, 4), DATA, 7), numbers, outs=2, axis=0)
    g.raw(g.dq(first, DATA, 7))
    made = unfuse(g, PASS)  # which compares all types with those that onnx infers
    assert (made.rewrites, made.gap) == (1, 0)


def test_a_dq_behind_whose_scale_is_computed_tells_nothing() -> None:
    graph = (
        f"(uint8[2,3] p, float e) => (float[3,2] y) <{K}> {{ [t] a = Transpose(p) [d] y = DequantizeLinear(a, e, z) }}"
    )
    keep(PASS, graph)


def test_case_3_constants_and_other_integers_are_no_sites() -> None:
    head = f"(float[3,2] x) => (float[3,2] y) <{K}, uint8[2,3] w = {{1, 2, 3, 4, 5, 6}}> "
    keep(PASS, head + "{ [t] b = Transpose(w) [d] c = DequantizeLinear(b, s, z) [a] y = Add(x, c) }")
    keep(PASS, "(uint8[2,3] p) => (uint8[3,2] y) { [t] y = Transpose(p) }")
    keep(PASS, HEAD + START + "[d] b = DequantizeLinear(a, s, z) [t] y = Transpose(b) }")


def test_case_4_levels_that_do_not_survive() -> None:
    head = "(float[2,3] x) => (float[3,2] y) <float s = {3e37}, uint8 z = {120}> "
    keep(PASS, head + START + "[t] b = Transpose(a) [d] y = DequantizeLinear(b, s, z) }", "is not q for every q")


def test_one_run_takes_a_whole_chain_that_only_the_end_explains() -> None:
    """Found by random graphs: behind an integer op, all but the last of a chain waited for a second run."""
    g = Qdq()
    q = g.q(g.data(2, 3), DATA, 7)
    said = (g.constant(DATA), g.constant(7, "uint8"))
    weight = (g.constant(np.eye(3)[::-1] * 50 + 7, "uint8"), g.constant(0.01), g.constant(7, "uint8"))
    moved = g.op("QLinearMatMul", q, *said, *weight, *said)
    for order in ([1, 0], [0, 1], [1, 0]):
        moved = g.op("Transpose", moved, perm=order)
    g.raw(g.op("Neg", g.dq(moved, DATA, 7)))
    made = g.fuse(PASS)  # a second run must change nothing
    assert made.reports[0].rewrites == 3
    assert made.gap == 0
