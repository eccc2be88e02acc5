"""Inputs of moves on the grid of the result."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting import bitwise, keep, model, rewrite, together

from onnxq.ir import text
from onnxq.testing import default_context
from onnxq_passes.align_parameters import AlignParameters

K = "float s = {0.05}, int8 i = {-8}, uint8 z = {120}, float s2 = {0.04}, uint8 z2 = {121}"
MOVE = "[t] c = Transpose(b) [r] f = QuantizeLinear(c, s, z) [e] y = DequantizeLinear(f, s, z)"
HEAD = f"(float[2,3] x, uint8[2,3] p) => (float[3,2] y) <{K}>"


def _pair(scale: str, zero: str) -> str:
    return f"[q] a = QuantizeLinear(x, {scale}, {zero}) [d] b = DequantizeLinear(a, {scale}, {zero})"


def test_the_same_grid_in_another_type() -> None:
    before, after = (f"{HEAD} {{ {_pair('s', zero)} {MOVE} }}" for zero in ("i", "z"))
    bitwise(AlignParameters(), before, after, rewrites=1)


def test_another_scale_only_by_name() -> None:
    before, after = (f"{HEAD} {{ {_pair(*numbers)} {MOVE} }}" for numbers in (("s2", "z2"), ("s", "z")))
    keep(AlignParameters(), before, "only `inexact` aligns it")
    rewrite(AlignParameters(inexact=True), before, after, rewrites=1, atol=0.051)


def test_concat_of_two_scales() -> None:
    head = f"(float[2] x, float[2] w) => (float[4] y) <{K}>"
    other = "[u] g = QuantizeLinear(w, s2, z) [v] h = DequantizeLinear(g, s2, z)"
    rest = MOVE.replace("Transpose(b)", "Concat <axis = 0> (b, h)")
    before = f"{head} {{ {_pair('s', 'z2')} {other} {rest} }}"
    after = f"{head} {{ {_pair('s', 'z')} {other.replace('s2', 's')} {rest} }}"
    rewrite(AlignParameters(inexact=True), before, after, rewrites=2, atol=0.06)


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        (f"{_pair('s', 'i')} [n] n = Neg(b) [g] g = Transpose(n) {MOVE.replace('y =', 'j =')} [k] y = Add(g, j)", "other readers"),
        (f"[d] b = DequantizeLinear(p, s, z2) {MOVE}", "come from no Q"),
        (f"[o] o = DequantizeLinear(p, s, z) {_pair('s2', 'z').replace('(x,', '(o,')} {MOVE}", "requantization"),
    ],
)  # fmt: skip
def test_what_stays(nodes: str, reason: str) -> None:
    keep(AlignParameters(inexact=True), f"{HEAD} {{ {nodes} }}", reason)


def test_many_sites() -> None:
    before, after, kept = (f"{HEAD} {{ {_pair(*n)} {MOVE} }}" for n in (("s", "i"), ("s", "z"), ("s2", "z2")))
    quiet = [
        f"{HEAD} {{ {_pair('s', 'i')} {MOVE.replace('Transpose', 'Softmax').replace('b)', 'b)')} }}".replace(
            "float[3,2] y", "float[2,3] y"
        ),
        f"{HEAD} {{ {_pair('s', 'i')} [t] y = Transpose(b) }}",
    ]
    together(AlignParameters(), changed=[(before, after, 1)], kept=[(kept, "only `inexact`")], quiet=quiet)


@pytest.mark.parametrize(
    "nodes",
    [
        MOVE.replace("c = Transpose(b) [r]", 'c = Resize <mode = "linear"> (b, , r) [r]'),  # computes new values
        MOVE + " [o] u = Neg(c)",
        MOVE + " [o] u = QuantizeLinear(c, s2, z) ",
        MOVE.replace("c, s, z", "c, v, vz").replace("f, s, z", "f, v, vz"),
    ],
)
def test_readers_that_do_not_agree(nodes: str) -> None:
    more = ", float[2] v = {0.05, 0.05}, uint8[2] vz = {120, 120}, float[2] r = {1, 1}"
    out = (
        "float[3,2] y, float[3,2] u"
        if "u = Neg" in nodes
        else "float[3,2] y, uint8[3,2] u"
        if "u =" in nodes
        else "float[n,m] y"
    )
    head = HEAD.replace("float[3,2] y", out)[:-1] + more + ">"
    keep(AlignParameters(inexact=True), f"{head} {{ {_pair('s', 'i')} {nodes} }}")


def test_an_output_keeps_what_it_says() -> None:
    head = HEAD.replace("float[3,2] y", "float[3,2] y, float[3,2] c")
    keep(AlignParameters(inexact=True), f"{head} {{ {_pair('s', 'i')} {MOVE} }}")


def test_readers_that_agree_and_their_order() -> None:
    """The Q with the least name gives its numbers: lists of readers have no fixed order."""
    head = (
        HEAD.replace("float[3,2] y", "float[3,2] y, float[3,2] u")[:-1] + ", float first = {0.05}, uint8 zero = {120}>"
    )
    nodes = (
        MOVE.replace("[r]", "[r2]")
        + " [r1] g = QuantizeLinear(c, first, zero) [h] u = DequantizeLinear(g, first, zero)"
    )
    after = _pair("first", "zero")
    bitwise(AlignParameters(), f"{head} {{ {_pair('s', 'i')} {nodes} }}", f"{head} {{ {after} {nodes} }}", rewrites=1)


def test_what_said_it_otherwise_is_gone() -> None:
    """A pair per channel and with an `output_dtype` becomes one per tensor that has neither."""
    head = HEAD[:-1] + ", float[3] v = {0.04, 0.04, 0.04}, uint8[3] vz = {120, 120, 120}>"
    pair = (
        "[q] a = QuantizeLinear <axis = 1, output_dtype = 2> (x, v, vz) [d] b = DequantizeLinear <axis = 1> (a, v, vz)"
    )
    before, after = (f"{head} {{ {p} {MOVE} }}" for p in (pair, _pair("s", "z")))
    rewrite(AlignParameters(inexact=True), before, after, rewrites=1, atol=0.06)


@pytest.mark.parametrize("front", ["[q] a = Max(p)", "[q] a = QuantizeLinear(x, s2, z)"])
def test_integers_that_no_equal_q_made(front: str) -> None:
    graph = f"{HEAD} {{ {front} [d] b = DequantizeLinear(a, s, z2) {MOVE} }}"
    keep(AlignParameters(inexact=True), graph, "come from no Q with the same parameters")


def test_a_zero_point_that_is_not_written_is_written() -> None:
    head = f"(float[2,3] x) => (float[3,2] y) <{K}, int8 low = {{-128}}"
    move = MOVE.replace("(c, s, z)", "(c, s)").replace("(f, s, z)", "(f, s)")
    before = f"{head}> {{ {_pair('s', 'low')} {move} }}"
    after = f"{head}, uint8 r_zero_point = {{0}}> {{ {_pair('s', 'r_zero_point')} {move} }}"
    bitwise(AlignParameters(), before, after, rewrites=1)


def test_blocks_become_one_scale() -> None:
    head = HEAD[:-1] + ", float[2,1] v = {0.04, 0.04}, uint8[2,1] vz = {120, 120}>"
    pair = "[q] a = QuantizeLinear <axis = 1, block_size = 3> (x, v, vz) [d] b = DequantizeLinear <axis = 1, block_size = 3> (a, v, vz)"
    before, after = (f"{head} {{ {p} {MOVE} }}" for p in (pair, _pair("s", "z")))
    rewrite(AlignParameters(inexact=True), before, after, rewrites=1, atol=0.06)


def test_the_integers_have_the_type_of_the_result() -> None:
    graph = text.parse(model(f"{HEAD} {{ {_pair('s', 'i')} {MOVE} }}")).graph
    for node in graph.nodes:
        if node.op == "QuantizeLinear":
            node.outputs[0].dtype = np.dtype("int8" if node.name == "q" else "uint8")
    assert AlignParameters().run(graph, default_context()).rewrites == 1
    assert graph.nodes[0].outputs[0].dtype == np.uint8
