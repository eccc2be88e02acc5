"""What Q saturates need not be clipped before."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting import bitwise, keep, together

from onnxq.ir import text
from onnxq.testing import default_context
from onnxq_passes.absorb_activation import AbsorbActivation

K = "float s = {0.023529412}, uint8 z = {0}, float lo = {0}, float hi = {6}, float inside = {5.9}, float wide = {7}, int8 n = {-128}, uint8 one = {1}, float neg = {-1}"
ODD = {"x": np.array([-np.inf, -1, -0.0, 0.0, 0.011764706, 5.98, 6.1, np.inf], np.float32)}


@pytest.mark.parametrize(
    ("activation", "q"),
    [
        ("Relu(x)", "s, z"),
        ("Relu(x)", "s"),
        ("Relu(x)", "s, n"),
        ("Clip(x, lo, hi)", "s, z"),
        ("Clip(x, , hi)", "s, z"),
        ("Clip(x, neg, wide)", "s, n"),
    ],
)
def test_redundant_activations_go(activation: str, q: str) -> None:
    kind = "int8" if q.endswith("n") else "uint8"
    head = f"(float[8] x) => ({kind}[8] y) <{K}>"
    before = f"{head} {{ [a] a = {activation} [q] y = QuantizeLinear(a, {q}) }}"
    bitwise(AbsorbActivation(), before, f"{head} {{ [q] y = QuantizeLinear(x, {q}) }}", rewrites=1, inputs=ODD)


def test_chains_and_readers_with_different_parameters() -> None:
    head = f"(float[8] x) => (uint8[8] y, int8[8] w) <{K}>"
    bitwise(
        AbsorbActivation(),
        f"{head} {{ [a] a = Relu(x) [b] b = Clip(a, lo, hi) [q] y = QuantizeLinear(b, s, z) [r] w = QuantizeLinear(b, s, n) }}",
        f"{head} {{ [q] y = QuantizeLinear(x, s, z) [r] w = QuantizeLinear(x, s, n) }}",
        rewrites=2,
        inputs=ODD,
    )


def test_per_channel_wants_every_channel() -> None:
    graph = "(float[2,4] x) => (uint8[2,4] y) <float[4] s = {1, 2, 3, 4}, uint8[4] z = {0, 0, 0, LAST}> { [a] a = Relu(x) [q] y = QuantizeLinear <axis = 1> (a, s, z) }"
    good = graph.replace("LAST", "0")
    bitwise(AbsorbActivation(), good, good.replace("[a] a = Relu(x) ", "").replace("(a,", "(x,"), rewrites=1)
    keep(AbsorbActivation(), graph.replace("LAST", "1"), "levels beyond its bounds")


@pytest.mark.parametrize(
    ("nodes", "outputs", "reason"),
    [
        ("[a] a = Relu(x) [q] y = QuantizeLinear(a, s, one)", "uint8[8] y", "levels beyond"),
        ("[a] a = Clip(x, lo, inside) [q] y = QuantizeLinear(a, s, z)", "uint8[8] y", "levels beyond"),
        ("[a] a = Clip(x, hi, lo) [q] y = QuantizeLinear(a, s, z)", "uint8[8] y", "wrong order"),
        ("[a] a = Clip(x, lo, e) [q] y = QuantizeLinear(a, s, z)", "uint8[8] y", "computed"),
        ("[a] a = Relu(x) [q] y = QuantizeLinear(a, s, z) [b] w = Neg(a)", "uint8[8] y, float[8] w", "b reads"),
        ("[a] a = Relu(x) [q] y = QuantizeLinear(a, s, z)", "uint8[8] y, float[8] a", "output of the graph"),
        ("[a] a = Relu(x) [q] y = QuantizeLinear(a, e, z)", "uint8[8] y", "not constant"),
    ],
)
def test_what_stays(nodes: str, outputs: str, reason: str) -> None:
    keep(AbsorbActivation(), f"(float[8] x, float e) => ({outputs}) <{K}> {{ {nodes} }}", reason, inputs=ODD)


def test_many_sites() -> None:
    head = f"(float[8] x) => (uint8[8] y) <{K}>"
    before = f"{head} {{ [a] a = Relu(x) [q] y = QuantizeLinear(a, s, z) }}"
    together(
        AbsorbActivation(),
        changed=[(before, f"{head} {{ [q] y = QuantizeLinear(x, s, z) }}", 1)],
        kept=[(before.replace("s, z) }", "s, one) }"), "levels beyond its bounds")],
        quiet=[f"(float[8] x) => (float[8] y) <{K}> {{ [a] a = Relu(x) [n] y = Neg(a) }}"],
    )


def test_other_ops_and_other_slots_are_not_looked_at() -> None:
    keep(AbsorbActivation(), f"(float[8] x) => (uint8[8] y) <{K}> {{ [a] a = Abs(x) [q] y = QuantizeLinear(a, s, z) }}")
    keep(
        AbsorbActivation(),
        f"(float x, float[8] v) => (uint8[8] y) <{K}> {{ [a] a = Relu(x) [q] y = QuantizeLinear(v, a, z) }}",
    )


@pytest.mark.parametrize(
    ("bounds", "stays"),
    [("min = 0.0, max = 6.0", False), ("min = 0.0, max = 5.9", True), ("min = 0.1, max = 6.0", True)],
)
def test_bounds_that_are_attributes(bounds: str, stays: bool) -> None:
    graph = f"(float[8] x) => (uint8[8] y) <{K}> {{ [a] a = Clip <{bounds}> (x) [q] y = QuantizeLinear(a, s, z) }}"
    head = '<ir_version: 10, opset_import: ["" : 10]> g '
    found = AbsorbActivation().run(text.parse(head + graph).graph, default_context())
    assert ([r.reason for r in found.refusals], found.rewrites) == (
        (["q has levels beyond its bounds"], 0) if stays else ([], 1)
    )


def test_blocks_and_equal_bounds() -> None:
    blocks = "(float[2,4] x) => (uint8[2,4] y) <float[2,2] s = {1, 1, 1, 1}, uint8[2,2] z = {0, 0, 0, 0}> { [a] a = Relu(x) [q] y = QuantizeLinear <axis = 1, block_size = 2> (a, s, z) }"
    keep(AbsorbActivation(), blocks, "levels beyond its bounds")
    keep(
        AbsorbActivation(),
        f"(float[8] x) => (uint8[8] y) <{K}> {{ [a] a = Clip(x, hi, hi) [q] y = QuantizeLinear(a, s, z) }}",
        "levels beyond",
    )
