"""Least and greatest value found in the graph are those of the arrays, for any op, shape and type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxq.errors import CalibrationError
from onnxq.ir.save import to_bytes
from onnxq.ir.shapes import infer
from onnxq.ir.text import parse
from onnxq.runtime.session import Session
from onnxq.stats.collect import collect
from onnxq.stats.reductions import Found, Reductions
from onnxq.stats.taps import with_outputs
from tests.stats.test_collect import HEAD, Data, conv, image


def built(source: str, taps: list[str]) -> tuple[Any, Reductions]:
    model = parse(HEAD + source)
    return model, Reductions(model.graph, taps, infer(model, declared=False))


def found(source: str, taps: list[str], inputs: Mapping[str, NDArray[Any]]) -> Found:
    model, reductions = built(source, taps)
    session = Session(to_bytes(with_outputs(model, reductions.outputs, reductions.nodes)), threads=1)
    return reductions.read(inputs, session.run(inputs, reductions.outputs))


def ops(source: str, taps: list[str]) -> Counter[str]:
    return Counter(node.op for node in built(source, taps)[1].nodes)


X = {"x": np.random.default_rng(3).standard_normal((1, 4, 6, 5)).astype(np.float32)}
CHAIN = "g (float[N,4,6,5] x) => (float[N,4,6,5] z) { y = Neg(x) r = Relu(y) s = Sin(r) z = Neg(s) }"


def test_numbers_are_those_of_the_arrays() -> None:
    seen = found(CHAIN, ["y", "r", "s", "z"], X)
    y = -X["x"]
    arrays = [y, np.maximum(y, 0), np.sin(np.maximum(y, 0)), -np.sin(np.maximum(y, 0))]
    assert seen.low == pytest.approx([a.min() for a in arrays], abs=1e-6)
    assert seen.high == pytest.approx([a.max() for a in arrays], abs=1e-6)
    assert seen.shapes == ((1, 4, 6, 5),) * 4
    assert seen.count.tolist() == [120] * 4
    assert not seen.suspect


def test_relu_alone_is_pooled_and_its_least_value_is_zero() -> None:
    relu = "g (float[N,4,6,5] x) => (float[N,4,6,5] z) { r = Relu(x) z = Sin(r) }"
    assert ops(relu, ["r"])["GlobalMaxPool"] == 1
    assert ops(relu, ["r"])["ReduceMin"] == 0
    assert ops(relu, ["z"])["GlobalMaxPool"] == 0
    positive = {"x": np.full((2, 4, 6, 5), 3, np.float32)}
    seen = found(relu, ["r"], positive)
    assert (seen.low[0], seen.high[0]) == (0.0, 3.0)


@pytest.mark.parametrize(
    ("bounds", "low", "high", "pooled"),
    [("float lo = {0}, float hi = {6}", 0, 6, 1), ("float lo = {-1}, float hi = {6}", -1, 6, 0)],
)
def test_clip_from_zero_counts_as_relu_and_other_clips_do_not(bounds: str, low: int, high: int, pooled: int) -> None:
    source = f"g (float[1,4,6,5] x) => (float[1,4,6,5] z) <{bounds}> {{ r = Clip(x, lo, hi) z = Sin(r) }}"
    assert ops(source, ["r"])["GlobalMaxPool"] == pooled
    seen = found(source, ["r"], {"x": 100 * X["x"]})
    assert (seen.low[0], seen.high[0]) == (low, high)


def test_concat_and_relu_of_taps_need_no_nodes() -> None:
    source = """g (float[N,4,6,5] x) => (float[N,8,6,5] z) {
      a = Neg(x) b = Abs(x) c = Concat <axis=1> (a, b) r = Relu(a)
      d = Concat <axis=1> (r, b) e = Sin(c) z = Add(d, e) }"""
    assert ops(source, ["a", "b", "c", "r"])["ReduceMax"] == ops(source, ["a", "b"])["ReduceMax"] == 2
    assert ops(source, ["a", "c"])["ReduceMax"] == 2  # one operand is unknown
    seen = found(source, ["a", "b", "c", "r"], X)
    assert (seen.low[2], seen.high[2]) == (min(seen.low[0], seen.low[1]), max(seen.high[0], seen.high[1]))
    assert (seen.low[3], seen.high[3]) == (0, max(seen.high[0], 0))
    assert seen.shapes[2] == (1, 8, 6, 5)


def test_shapes_that_do_not_follow_from_the_inputs() -> None:
    source = """g (float[N] x, int64[R] s) => (float[A,B] z) <float zero = {0}> {
      m = Greater(x, zero) i = Compress(x, m) n = Neg(i) y = Reshape(x, s) q = Sin(y) t = Sum(q) z = Transpose(t) }"""
    seen = found(source, ["n", "q", "i"], {"x": np.array([1, -2, 3, 4], np.float32), "s": np.array([2, 2])})
    assert seen.shapes == ((3,), (2, 2), (3,))
    assert seen.low.tolist() == pytest.approx([-4, np.sin(-2), 1])
    seen = found(source, ["n", "q"], {"x": -np.ones(4, np.float32), "s": np.array([4, 1])})
    assert (seen.low[0], seen.high[0], seen.count[0]) == (np.inf, -np.inf, 0)
    assert not seen.suspect


def test_scalars() -> None:
    seen = found("g (float x) => (float z) { y = Neg(x) z = Sin(y) }", ["y"], {"x": np.array(2, np.float32)})
    assert (seen.low[0], seen.high[0], seen.shapes, seen.count[0]) == (-2, -2, ((),), 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 7, 64, 119])
def test_what_is_not_finite_raises_suspicion(bad: float, place: int) -> None:
    values = X["x"].copy()
    values.reshape(-1)[place] = bad
    assert found(CHAIN, ["y", "s"], {"x": values}).suspect
    pooled = (
        "g (float[1,4,6,5] x) => (float[1,4,3,2] z) { y = Neg(x) z = MaxPool <kernel_shape=[2,2], strides=[2,2]> (y) }"
    )
    assert found(pooled, ["y"], {"x": values}).suspect


def test_the_lean_form_agrees_with_the_full_form() -> None:
    model, data = conv(), Data(lambda i: image(i, 6 + i % 3), 9)
    lean = collect(model, ["x", "y", "r", "z"], data, ("minmax",), threads=1)
    full = collect(model, ["x", "y", "r", "z"], data, ("minmax", "histogram"), threads=1)
    assert lean.shapes == full.shapes
    for name, seen in lean.tensors.items():
        other = full.tensors[name]
        assert (seen.min, seen.max) == pytest.approx((other.min, other.max), abs=1e-6)
        assert seen.count == other.count


def test_sums_that_overflow_are_no_error() -> None:
    model = parse(HEAD + "g (float[4,64] x) => (float[4,64] z) { y = Neg(x) z = Sin(y) }")
    values = np.tile(np.array([3e38, -3e38], np.float32), 128).reshape(4, 64)
    order = np.argsort(-values.reshape(-1), kind="stable")  # all large ones first: the sum is inf - inf = NaN
    data = Data(lambda i: {"x": values.reshape(-1)[order].reshape(4, 64)}, 2)
    seen = collect(model, ["y"], data, ("minmax",), threads=1).tensors["y"]
    assert (seen.min, seen.max, seen.count) == (np.float32(-3e38), np.float32(3e38), 512)


def test_bad_samples_of_a_long_data_set_are_named() -> None:
    def make(index: int) -> dict[str, NDArray[Any]]:
        made = image(index)
        made["x"][0, 1, 3, 3] = np.nan if index == 90 else 1
        return made

    for observers in (("minmax",), ("minmax", "histogram")):
        with pytest.raises(CalibrationError, match=r'tensor "y" has NaN in sample 90 \(img_90.png\)'):
            collect(conv(), ["y", "z"], Data(make, 100), observers, threads=1)
