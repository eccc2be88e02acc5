"""What only a Concat reads has the encoding of its result."""

from __future__ import annotations

import numpy as np
import pytest
from quantized import Result, quantize_text

from onnxq.plan.plan import Placement, Value

HEAD = '<ir_version: 10, opset_import: ["": 21]> g '
INITS = "float[4,4,1,1] W = {0}, float[4,4,1,1] V = {0}, float[4,8,1,1] U = {0}, float[4,12,1,1] T = {0}"
MADE = "a = Conv(x, W) b = Conv(x, V)"


def numbers(*shape: int, scale: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, scale, shape).astype(np.float32)


CONSTANTS = {
    "W": numbers(4, 4, 1, 1, scale=0.5), "V": numbers(4, 4, 1, 1, scale=0.2),
    "U": numbers(4, 8, 1, 1, scale=0.5), "T": numbers(4, 12, 1, 1, scale=0.5),
}  # fmt: skip


def made(body: str, placement: Placement | None = None, target: str = "cpu") -> Result:
    source = f"{HEAD}(float[1,4,8,8] x) => (float[1,4,8,8] y) <{INITS}> {{ {MADE} {body} }}"
    return quantize_text(source, constants=CONSTANTS, placement=placement, target=target)


def scale(result: Result, tensor: str) -> float:
    return float(result.plan.values[Value((), tensor)].scale)


def test_operands_that_nobody_else_reads() -> None:
    result = made("[j] c = Concat<axis = 1>(a, b) y = Conv(c, U)")
    assert scale(result, "a") == scale(result, "b") == scale(result, "c")
    assert result.kernels()["QLinearConcat"] == 1


def test_a_concat_of_a_concat() -> None:
    result = made("[i] c = Concat<axis = 1>(a, b) d = Conv(x, V) [j] e = Concat<axis = 1>(c, d) y = Conv(e, T)")
    assert len({scale(result, tensor) for tensor in "abcde"}) == 1


@pytest.mark.parametrize(
    "body",
    [
        "[j] c = Concat<axis = 1>(a, b) d = Conv(c, U) e = Conv(b, W) y = Add(d, e)",  # read elsewhere
        "r = Relu(b) [j] c = Concat<axis = 1>(a, r) y = Conv(c, U)",  # it vanishes into the range of its result
    ],
)
def test_others_keep_their_own(body: str) -> None:
    result = made(body)
    other = "r" if "Relu" in body else "b"
    assert scale(result, "a") == scale(result, "c") != scale(result, other)


def test_what_moves_data_keeps_the_encoding_of_what_it_moves() -> None:
    result = made("t = Transpose<perm = [0, 1, 3, 2]>(b) [j] c = Concat<axis = 1>(a, t) y = Conv(c, U)")
    assert scale(result, "t") == scale(result, "b") != scale(result, "c")


def test_in_front_of_a_float_concat_each_has_its_own() -> None:
    result = made("[j] c = Concat<axis = 1>(a, b) y = Conv(c, U)", Placement(floats={"j": "measured"}))
    assert scale(result, "a") != scale(result, "b")


def test_the_same_tensor_twice() -> None:
    result = made("[j] c = Concat<axis = 1>(a, b, b) y = Conv(c, T)")
    assert scale(result, "a") == scale(result, "c") != scale(result, "b")


def test_an_activation_that_vanishes_into_the_concat() -> None:
    """What the Concat itself yields has no encoding then."""
    result = made("[j] c = Concat<axis = 1>(a, b) r = Relu(c) y = Conv(r, U)")
    assert Value((), "c") not in result.plan.values
    assert scale(result, "a") != scale(result, "r")
    assert result.kernels()["QLinearConcat"] == 1
