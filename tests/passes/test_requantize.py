"""ONNX Runtime merges double pairs from BASIC on; after this pass it computes what is written, at every level."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting import bitwise, keep, model

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
