"""ONNX Runtime merges double pairs from BASIC on; after this pass it computes what is written, at every level."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting import bitwise, keep, model, together

from onnxq.ir import save, text
from onnxq.pipeline.base import Context
from onnxq.runtime.session import Level, Session
from onnxq.targets.target import load_target
from onnxq_passes.requantize import Requantize

K = "float s = {0.05}, uint8 z = {128}, float s2 = {0.021}, uint8 z2 = {100}, int8 i = {3}"
HEAD = "(float[2,4] x) => (float[2,4] y) <"
PAIRS = "[q] a = QuantizeLinear(x, s, z) [d] b = DequantizeLinear(a, s, z) [r] c = QuantizeLinear(b, s2, z2) [e] f = DequantizeLinear(c, s2, z2) [m] y = Softmax(f)"
DOUBLE = f"{HEAD}{K}> {{ {PAIRS} }}"
X = {"x": np.random.default_rng(0).normal(0, 4, (2, 4)).astype(np.float32)}


def _at_every_level(source: str) -> list[bool]:
    data = save.to_bytes(text.parse(source))
    results = [Session(data, level=level, threads=1).run(X)["y"] for level in Level]
    return [np.array_equal(results[0], r) for r in results]


def test_the_dq_in_the_middle_gets_a_form_that_stays() -> None:
    after = DOUBLE.replace("> {", ", float[2] s_vector = {0.05, 0.05}, uint8[2] d_zero_points = {128, 128}> {")
    after = after.replace("DequantizeLinear(a, s, z)", "DequantizeLinear <axis = 0> (a, s_vector, d_zero_points)")
    bitwise(Requantize(), DOUBLE, after, rewrites=1)
    assert _at_every_level(model(DOUBLE)) == [True, False, False, False]
    assert _at_every_level(model(after)) == [True, True, True, True]


@pytest.mark.parametrize(
    "nodes",
    [
        PAIRS.replace("(b, s2, z2)", "(b, s2, i)").replace("(c, s2, z2)", "(c, s2, i)"),
        PAIRS.replace("[m]", "[n] w = Neg(b) [o] v = Add(w, f) [m]").replace("Softmax(f)", "Softmax(v)"),
    ],
)
def test_what_ort_leaves_alone_stays(nodes: str) -> None:
    graph = f"{HEAD}{K}> {{ {nodes} }}"
    keep(Requantize(), graph)
    assert _at_every_level(model(graph)) == [True, True, True, True]


def test_without_a_known_axis_it_is_reported() -> None:
    graph = DOUBLE.replace("float[2,4]", "float[n,m]")
    keep(Requantize(), graph, "ONNX Runtime will merge this double pair")


def test_other_targets_keep_what_is_written() -> None:
    keep(Requantize(), DOUBLE, context=Context(target=load_target("tensorrt")))


NUMBERS = ", float[4] s_vector = {0.05, 0.05, 0.05, 0.05}, uint8[4] d_zero_points = {128, 128, 128, 128}> {"
MIDDLE = ("DequantizeLinear(a, s, z)", "DequantizeLinear <axis = 1> (a, s_vector, d_zero_points)")
ONE = DOUBLE.replace("float[2,4]", "float[1,4]")


def test_many_sites() -> None:
    other = [text.replace("128", "127") for text in (ONE, ONE.replace("> {", NUMBERS).replace(*MIDDLE))]
    together(
        Requantize(),
        changed=[(ONE, ONE.replace("> {", NUMBERS).replace(*MIDDLE), 1), (other[0], other[1], 1)],
        kept=[(ONE.replace("float[1,4]", "float[n,m]"), "no axis has a known size")],
        quiet=[ONE.replace("s2, z2", "s2, i")],
        turns=1,
    )


def test_pairs_of_one_scale_share_the_numbers() -> None:
    more = " [q2] a2 = QuantizeLinear(x, s, z) [d2] b2 = DequantizeLinear(a2, s, z) [r2] c2 = QuantizeLinear(b2, s2, z2) [e2] w = DequantizeLinear(c2, s2, z2) }"
    before = ONE.replace("float[1,4] y", "float[1,4] y, float[1,4] w").replace(" }", more)
    after = before.replace("> {", NUMBERS).replace(*MIDDLE)
    after = after.replace("DequantizeLinear(a2, s, z)", "DequantizeLinear <axis = 1> (a2, s_vector, d_zero_points)")
    bitwise(Requantize(), before, after, rewrites=2)


PER_CHANNEL = ", float[2] v = {0.05, 0.04}, uint8[2] vz = {128, 128}> {"


@pytest.mark.parametrize(
    "graph",
    [
        DOUBLE.replace("> {", PER_CHANNEL)
        .replace("(x, s, z)", "<axis = 0> (x, v, vz)")
        .replace("(a, s, z)", "<axis = 0> (a, v, vz)"),
        DOUBLE.replace("> {", PER_CHANNEL)
        .replace("(b, s2, z2)", "<axis = 0> (b, v, vz)")
        .replace("(c, s2, z2)", "<axis = 0> (c, v, vz)"),
        DOUBLE.replace("[q] a = QuantizeLinear(x, s, z)", "[g] g = Cast <to = 2> (x) [q] a = Max(g)"),
        DOUBLE.replace("[q] a = QuantizeLinear(x, s, z) ", "").replace("float[2,4] x", "uint8[2,4] a"),
        DOUBLE.replace("(a, s, z)", "(a, s2, z)"),
        DOUBLE.replace("(b, s2, z2)", "(b, s, z)"),
        DOUBLE.replace("=> (float[2,4] y)", "=> (float[2,4] y, uint8[2,4] a)"),
        DOUBLE.replace("=> (float[2,4] y)", "=> (float[2,4] y, float[2,4] b)"),
        DOUBLE.replace("[m] y = Softmax(f)", "[m] h = Identity(f) [n] y = Softmax(h)").replace(
            "[e] f = DequantizeLinear(c, s2, z2)", "[e] f = Cast <to = 1> (c)"
        ),
        DOUBLE.replace("[r] c = QuantizeLinear(b, s2, z2) [e] f = DequantizeLinear(c, s2, z2)", "[r] f = Neg(b)"),
        "(float x, float[2,4] k) => (float[2,4] y) <float s = {0.05}, uint8 z = {0}, float t = {0.05}> { [q] a = QuantizeLinear(x, s, z) [d] b = DequantizeLinear(a, s, z) [r] c = QuantizeLinear(k, b, z) [e] y = DequantizeLinear(c, t, z) }",
    ],
)
def test_what_is_no_double_pair(graph: str) -> None:
    keep(Requantize(), graph)


def test_the_first_axis_that_is_known_and_longer_than_one() -> None:
    """Whichever tensor of the chain tells it."""
    graph = DOUBLE.replace("float[2,4]", "float[1,n,2]")
    after = graph.replace("> {", ", float[2] s_vector = {0.05, 0.05}, uint8[2] d_zero_points = {128, 128}> {")
    after = after.replace("DequantizeLinear(a, s, z)", "DequantizeLinear <axis = 2> (a, s_vector, d_zero_points)")
    bitwise(Requantize(), graph, after, rewrites=1)
    for known in ("uint8[1,2,2] a", "float[1,2,2] b"):
        told = graph.replace("float s =", f"{known}, float s =").replace("float[1,n,2]", "float[k,n,m]")
        after = told.replace("> {", ", float[2] s_vector = {0.05, 0.05}, uint8[2] d_zero_points = {128, 128}> {")
        after = after.replace("DequantizeLinear(a, s, z)", "DequantizeLinear <axis = 1> (a, s_vector, d_zero_points)")
        shaped = {"x": X["x"].reshape(1, 2, 4)[..., :2].copy()}
        bitwise(Requantize(), told, after, rewrites=1, inputs=shaped)
