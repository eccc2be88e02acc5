"""Tensors inside If, Loop and Scan: their least and greatest values come out, whatever is nested in what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxq.errors import CalibrationError
from onnxq.ir.text import parse, text
from onnxq.stats.collect import collect
from onnxq.stats.statistics import Statistics, merge_all
from tests.stats.test_collect import HEAD, Data

Inputs = dict[str, NDArray[Any]]
X = np.array([1, -2], np.float32)


def seen(source: str, samples: list[Inputs], names: list[str], observers: tuple[str, ...] = ("minmax",)) -> Statistics:
    model = parse(HEAD + source)
    before = text(model)
    found = collect(model, names, Data(lambda i: samples[i], len(samples)), observers, threads=1)
    assert text(model) == before
    return found


def ranges(found: Statistics) -> dict[str, tuple[float, float, int]]:
    return {n: (t.min, t.max, t.count) for n, t in found.tensors.items()}


BRANCH = """g (float[2] x, bool c) => (float[2] y) {
  y = If (c) <then_branch = t () => (float[2] u) { u = Relu(x) }, else_branch = e () => (float[2] v) { v = Neg(x) }>
}"""


@pytest.mark.parametrize("observers", [("minmax",), ("minmax", "histogram")])
def test_both_branches_of_if(observers: tuple[str, ...]) -> None:
    samples = [{"x": X, "c": np.array(True)}, {"x": 3 * X, "c": np.array(False)}]
    found = seen(BRANCH, samples, ["y", "u", "v"], observers)
    assert ranges(found) == {"u": (0, 1, 2), "v": (-3, 6, 2), "y": (-3, 6, 4)}
    assert list(found.tensors["u"].observers) == ["minmax"]
    assert found.unreached == ()


def test_a_branch_that_is_never_taken_is_unreached() -> None:
    samples = [{"x": X, "c": np.array(True)}] * 2
    assert seen(BRANCH, samples, ["u", "v"]).unreached == ("v",)


LOOP = """g (float[2] x, int64 n) => (float[2] y, float[K,2] z) <bool t = {1}> {
  y, z = Loop (n, t, x) <body = b (int64 i, bool c, float[2] s) => (bool c2, float[2] s2, float[2] q) {
    c2 = Identity(c) s2 = Add(s, x) q = Neg(s2) }>
}"""


def test_loop_with_state_and_scan_output() -> None:
    found = seen(LOOP, [{"x": X, "n": np.array(3)}, {"x": X, "n": np.array(0)}], ["s", "s2", "q", "i", "y", "z"])
    expected = {"s": (-6, 3, 6), "s2": (-8, 4, 6), "q": (-4, 8, 6), "y": (-8, 4, 4), "z": (-4, 8, 6)}
    assert ranges(found) == expected
    assert seen(LOOP, [{"x": X, "n": np.array(0)}], ["s2"]).unreached == ("s2",)


def test_loop_without_state() -> None:
    source = """g (float[2] x, int64 n) => (float[K,2] z) <bool t = {1}> {
      z = Loop (n, t) <body = b (int64 i, bool c) => (bool c2, float[2] q) {
        c2 = Identity(c) f = Cast <to=1> (i) q = Mul(x, f) }>
    }"""
    assert ranges(seen(source, [{"x": X, "n": np.array(4)}], ["f", "q"])) == {"f": (0, 3, 4), "q": (-6, 3, 8)}


def test_scan() -> None:
    source = """g (float[2] x, float[N,2] w) => (float[2] y, float[N,2] z) {
      y, z = Scan <num_scan_inputs=1, body = b (float[2] s, float[2] e) => (float[2] s2, float[2] q) {
        s2 = Add(s, e) q = Neg(s2) }> (x, w)
    }"""
    samples: list[Inputs] = [{"x": X, "w": np.arange(6, dtype=np.float32).reshape(3, 2)}]
    expected = {"e": (0, 5, 6), "q": (-7, 1, 6), "s": (-2, 3, 6), "s2": (-1, 7, 6)}
    assert ranges(seen(source, samples, ["s", "s2", "q", "e"])) == expected


NESTED = """g (float[2] x, int64 n) => (float[2] y) <bool t = {1}, int64 one = {1}> {
  y = Loop (n, t, x) <body = b (int64 i, bool c, float[2] s) => (bool c2, float[2] s2) {
    c2 = Identity(c) f = Greater(i, one)
    s2 = If (f) <
      then_branch = tt () => (float[2] u) {
        u0 = Mul(s, s)
        u = Loop (i, t, u0) <body = b2 (int64 j, bool d, float[2] r) => (bool d2, float[2] r2) {
          d2 = Identity(d) r2 = Add(r, r) }> },
      else_branch = ee () => (float[2] v) { v = Neg(s) }> }>
}"""


def test_a_loop_in_an_if_in_a_loop() -> None:
    found = seen(NESTED, [{"x": X, "n": np.array(4)}], ["u", "u0", "v", "r2"])
    # s: x, -x, x; then squared and doubled twice (4, 16), squared and doubled three times (128, 2048)
    assert ranges(found) == {"u": (4, 2048, 4), "u0": (1, 256, 4), "v": (-2, 2, 4), "r2": (2, 2048, 10)}
    assert seen(NESTED, [{"x": X, "n": np.array(1)}], ["u", "v"]).unreached == ("u",)


def test_chunks_merge_to_the_whole() -> None:
    model = parse(HEAD + NESTED)
    data = Data(lambda i: {"x": X + i, "n": np.array(i % 5)}, 9)
    names = ["u", "u0", "v", "r2", "y"]
    parts = [collect(model, names, data, threads=1, start=a, stop=a + 3) for a in (3, 0, 6)]
    assert merge_all(parts) == collect(model, names, data, threads=1)


@pytest.mark.parametrize(("bad", "what"), [(np.nan, "NaN"), (np.inf, "an infinite value")])
def test_what_is_not_finite_names_tensor_and_sample(bad: float, what: str) -> None:
    samples: list[Inputs] = [{"x": X, "n": np.array(2)}, {"x": np.array([1, bad], np.float32), "n": np.array(2)}]
    with pytest.raises(CalibrationError, match=rf'tensor "q" has {what} in sample 1 \(img_1\.png\)'):
        seen(LOOP, samples, ["q"])
    assert seen(LOOP, samples[:1], ["q"]).samples == 1


def test_infinities_in_a_body_are_left_out_where_they_are_allowed() -> None:
    samples: list[Inputs] = [{"x": np.array([1, -np.inf], np.float32), "n": np.array(2)}]
    found = collect(
        parse(HEAD + LOOP), ["s2", "q"], Data(lambda i: samples[i], 1), threads=1, allow_infinite={"s2", "q"}
    )
    assert found.unreached == ("q", "s2")


def test_integers_in_bodies_are_left_out() -> None:
    found = seen(LOOP, [{"x": X, "n": np.array(2)}], ["i", "c2", "q"])
    assert (list(found.tensors), found.unreached) == (["q"], ())
