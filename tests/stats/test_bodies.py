"""Tensors inside If, Loop and Scan: extremes and distributions come out, whatever is nested in what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from onnxq.errors import CalibrationError
from onnxq.ir.text import parse, text
from onnxq.stats.bodies import STEP, kept, step
from onnxq.stats.collect import collect
from onnxq.stats.observers import Histogram
from onnxq.stats.picks import scattered
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
    assert list(found.tensors["u"].observers) == list(observers)
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


def chosen(stream: NDArray[np.float32], room: int, index: int) -> Histogram:
    """What is counted of a stream: every s-th element of it."""
    every = step(stream.size, room)
    histogram = Histogram(room)
    histogram.update(stream[scattered(index) % every :: every])
    return histogram


def steps(x: NDArray[np.float32], number: int) -> NDArray[np.float32]:
    """All values of `s2` in LOOP, run after run."""
    return np.concatenate([x * (k + 2) for k in range(number)] or [x[:0]]).astype(np.float32)


SCAN = """g (float[2] x, float[N,2] w) => (float[2] y, float[N,2] z) {
  y, z = Scan <num_scan_inputs=1, body = b (float[2] s, float[2] e) => (float[2] s2, float[2] q) {
    s2 = Add(s, x) q = Add(s2, e) }> (x, w)
}"""


@pytest.mark.parametrize("room", [3, 16, 64, 8192])
@pytest.mark.parametrize("source", [LOOP, SCAN])
def test_of_many_iterations_every_sth_element_of_the_stream_is_counted(source: str, room: int) -> None:
    numbers = [0 if source == LOOP else 2, 1, 7, 40, 400]  # ONNX Runtime cannot scan nothing
    samples: list[Inputs] = [
        {"x": X + i, "n": np.array(n)} if source == LOOP else {"x": X + i, "w": np.zeros((n, 2), np.float32)}
        for i, n in enumerate(numbers)
    ]
    found = collect(parse(HEAD + source), ["s2"], Data(lambda i: samples[i], 5), threads=1, subset=room)
    expected = Histogram(room)
    for i, n in enumerate(numbers):
        expected = expected.merge(chosen(steps(X + i, n), room, i))
    assert found.tensors["s2"].histogram == expected
    assert found.tensors["s2"].count == 2 * sum(numbers)


@given(count=st.integers(1, 10**6), room=st.integers(1, 9000), place=st.integers(0, 2**31))
def test_kept_counts_the_places_of_the_choice(count: int, room: int, place: int) -> None:
    every = step(count, room)
    assert kept(count, room, place) == len(range(place % every, count, every))
    assert (room // STEP - 1 if every > 1 else count) <= kept(count, room, place) <= room


def test_distributions_of_nested_bodies() -> None:
    samples: list[Inputs] = [{"x": X, "n": np.array(4)}, {"x": 2 * X, "n": np.array(1)}, {"x": X, "n": np.array(0)}]
    names = ["u", "u0", "v", "r2"]
    found = collect(parse(HEAD + NESTED), names, Data(lambda i: samples[i], 3), threads=1, subset=8)
    doubled = [np.array([1, 4], np.float32) * 2 ** (k + 1) for k in range(2)]
    twice = np.array([16, 256], np.float32)
    inner = np.concatenate([*doubled, *(twice * 2 ** (k + 1) for k in range(3))])
    assert found.tensors["r2"].histogram == chosen(inner, 8, 0)
    assert found.tensors["u"].histogram == chosen(np.array([4, 16, 128, 2048], np.float32), 8, 0)
    # s is x, then -x: both before i exceeds 1
    assert found.tensors["v"].histogram == chosen(np.array([-1, 2, 1, -2], np.float32), 8, 0).merge(
        chosen(np.array([-2, 4], np.float32), 8, 1)
    )


@pytest.mark.parametrize("source", [BRANCH, LOOP])
def test_all_observers_see_bodies_and_parts_merge_to_the_whole(source: str) -> None:
    samples: list[Inputs] = [
        {"x": X + i, "c": np.array(i % 3 > 0)} if source == BRANCH else {"x": X + i, "n": np.array(i)}
        for i in range(12)
    ]
    data, model = Data(lambda i: samples[i], 12), parse(HEAD + source)
    names = ["u", "v"] if source == BRANCH else ["s", "s2", "q"]
    observers = ("minmax", "histogram", "heldout")
    whole = collect(model, names, data, observers, threads=1)
    parts = [collect(model, names, data, observers, threads=1, start=a, stop=a + 3) for a in (6, 0, 9, 3)]
    assert merge_all(parts) == whole
    for name in names:
        held, total = whole.tensors[name].observers["heldout"], whole.tensors[name].histogram
        assert isinstance(held, Histogram) and 0 < held.total < total.total == whole.tensors[name].count


def test_an_empty_tensor_in_a_body_is_unreached() -> None:
    source = BRANCH.replace("float[2]", "float[N]")
    samples: list[Inputs] = [{"x": X[:0], "c": np.array(True)}]
    found = seen(source, samples, ["u", "v"], ("minmax", "histogram"))
    assert (dict(found.tensors), found.unreached) == ({}, ("u", "v"))
    mixed = seen(source, [*samples, {"x": X, "c": np.array(True)}], ["u", "v"], ("minmax", "histogram"))
    assert ranges(mixed) == {"u": (0, 1, 2)} and mixed.unreached == ("v",)


def test_integers_in_bodies_are_left_out() -> None:
    found = seen(LOOP, [{"x": X, "n": np.array(2)}], ["i", "c2", "q"])
    assert (list(found.tensors), found.unreached) == (["q"], ())
