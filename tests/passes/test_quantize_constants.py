from __future__ import annotations

import numpy as np
import pytest
from fusing import Qdq
from rewriting import bitwise, keep, together

from onnxq.testing import check_pass
from onnxq_passes.quantize_constants import QuantizeConstants

PASS = QuantizeConstants()
K = "float s = {0.1}, int8 z = {0}, float[2] k = {0.25, -0.5}"
HEAD = "(float[2] x) => (float[2] y) "


def test_contract() -> None:
    check_pass(QuantizeConstants)


def test_case_1_the_integers_are_stored() -> None:
    bitwise(
        PASS,
        f"{HEAD}<{K}> {{ [q] w = QuantizeLinear(k, s, z) [d] d = DequantizeLinear(w, s, z) [m] y = Mul(x, d) }}",
        f"{HEAD}<{K.partition(', float[2]')[0]}, int8[2] k_quantized = {{2, -5}}> {{ [d] d = DequantizeLinear(k_quantized, s, z) [m] y = Mul(x, d) }}",
        rewrites=1,
    )


@pytest.mark.parametrize("kind", ["int8", "uint8", "uint16"])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_case_1_bit_for_bit(axis: int | None, kind: str) -> None:
    """Ties, infinities, negative zeros and saturation among them."""
    g = Qdq()
    random = np.random.default_rng(4)
    values = random.normal(0, 1, (16, 16)).astype(np.float32)
    values[:2] = np.array([[0.5, -0.5], [1.5, -1.5], [np.inf, -np.inf], [-0.0, 0.0]] * 2).reshape(1, -1)[
        :, :16
    ] * np.float32(0.125)
    scale = np.float32(0.125) if axis is None else np.linspace(0.05, 0.25, 16).astype(np.float32)
    zero = np.broadcast_to(3, np.shape(scale))
    made = {} if axis is None else {"axis": axis}
    numbers = [g.constant(scale), g.constant(zero, kind)]
    weight = g.op("DequantizeLinear", g.op("QuantizeLinear", g.constant(values), *numbers, **made), *numbers, **made)
    g.raw(g.op("Add", g.data(1, 16), weight))
    done = g.fuse(PASS)
    assert done.reports[0].rewrites == 1
    assert done.ops["QuantizeLinear"] == 1
    assert done.gap == 0


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (f"{HEAD}<float[2] k = {{nan, 1}}, float s = {{0.1}}, int8 z = {{0}}> {{ [q] w = QuantizeLinear(k, s, z) [d] d = DequantizeLinear(w, s, z) [m] y = Mul(x, d) }}", "NaN"),
        (f"(float[2] x, float e) => (float[2] y) <{K}> {{ [q] w = QuantizeLinear(k, e, z) [d] d = DequantizeLinear(w, s, z) [m] y = Mul(x, d) }}", "computed"),
        (f"(float[2] x) => (int8[2] w, float[2] y) <{K}> {{ [q] w = QuantizeLinear(k, s, z) [d] d = DequantizeLinear(w, s, z) [m] y = Mul(x, d) }}", "output of the graph"),
    ],
)  # fmt: skip
def test_what_stays(graph: str, reason: str) -> None:
    keep(PASS, graph, reason)


def test_a_q_of_data_is_no_site() -> None:
    keep(
        PASS,
        f"{HEAD}<float s = {{0.1}}, int8 z = {{0}}> {{ [q] w = QuantizeLinear(x, s, z) [d] y = DequantizeLinear(w, s, z) }}",
    )


def test_many_sites() -> None:
    numbers = K.partition(", float[2]")[0]
    end = "[d] d = DequantizeLinear({0}, s, z) [m] y = Mul(x, d)"
    together(
        PASS,
        changed=[
            (
                f"{HEAD}<{K}> {{ [q] w = QuantizeLinear(k, s, z) {end.format('w')} }}",
                f"{HEAD}<{numbers}, int8[2] k_quantized = {{2, -5}}> {{ {end.format('k_quantized')} }}",
                1,
            )
        ],
        kept=[
            (
                f"{HEAD}<{numbers}, float[2] k = {{nan, 1}}> {{ [q] w = QuantizeLinear(k, s, z) {end.format('w')} }}",
                "NaN",
            )
        ],
        quiet=[f"{HEAD}<{numbers}> {{ [q] w = QuantizeLinear(x, s, z) [d] y = DequantizeLinear(w, s, z) }}"],
    )
