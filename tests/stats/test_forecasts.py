"""Sizes that inference leaves open are forecast, and a forecast that is wrong does no harm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxq.ir.model import Model
from onnxq.ir.shapes import infer, infer_at
from onnxq.ir.text import parse
from onnxq.stats import collect as collect_module
from onnxq.stats import groups
from onnxq.stats.collect import collect
from onnxq.stats.forecasts import forecasts
from onnxq.stats.observers import SUBSET
from onnxq.stats.reductions import Reductions
from onnxq.stats.statistics import Statistics
from tests.stats.test_collect import HEAD, Data
from tests.stats.test_tails import assert_ends_agree, heavy

POOL = "AveragePool <kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>"
HALF = "AveragePool <kernel_shape=[2,2], strides=[2,2]>"
CHAIN = f"g (float[N,32,64,W] x) => (float[N,32,16,V] z) {{ y = {POOL} (x) z = {HALF} (y) }}"
SLICED = """g (float[1,16,32,W] x) => (float[1,16,32,V] y)
  <int64[1] a = {0}, int64[1] b = {50}, int64[1] c = {3}> { y = Slice(x, a, b, c) }"""
TWO_WAYS = f"""g (float[1,32,64,W] x) => (float[1,32,16,V] z, float[1,32,16,U] r) {{
  y = {POOL} (x) z = {HALF} (y) p = {HALF} (x) r = {POOL} (p) }}"""
FOLDED = """g (float[N,4,W] x) => (float[V,4] y)
  <int64[2] s = {-1, 4}> { t = Transpose <perm=[0,2,1]> (x) q = Reshape(t, s) y = Neg(q) }"""


def model(source: str) -> Model:
    return parse(HEAD + source)


def forecast(source: str, *names: str) -> dict[str, Any]:
    made = model(source)
    known = infer(made, declared=False)
    return dict(forecasts(made, names, {t.name: known[t.name][1] for t in made.graph.inputs}))


def taken(source: str, arrays: list[NDArray[np.float32]], names: list[str], subset: int | None) -> Statistics:
    data = Data(lambda i: {"x": arrays[i]}, len(arrays))
    return collect(model(source), names, data, threads=1, subset=subset)  # type: ignore[arg-type]


@pytest.fixture
def _always_sliced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tensors of these tests are small: none is so small that all of it is counted."""
    for module in (collect_module, groups):
        monkeypatch.setattr(module, "EVERY", 0)


def test_inference_at_some_sizes_of_the_symbols() -> None:
    first, second, open_ = infer_at(model(CHAIN), [{"N": 1, "W": 9}, {"N": 2, "W": 64}, {"N": 3}])
    assert (first["z"][1], second["z"][1]) == ((1, 32, 16, 2), (2, 32, 16, 16))
    assert open_["z"][1] == (3, 32, 16, None)
    assert infer(model(CHAIN), declared=False)["z"][1] == ("N", 32, 16, None)


@pytest.mark.parametrize("width", [7, 33, 34, 160, 481])
def test_strides_are_forecast_to_one_element(width: int) -> None:
    found = forecast(CHAIN, "y", "z")
    for name, exact in (("y", (width + 1) // 2), ("z", (width + 1) // 4)):
        *others, last = found[name].shape({"N": 2, "W": width})
        assert others == [2, 32, {"y": 32, "z": 16}[name]]
        assert abs(last - exact) <= 1


def test_what_is_no_line_is_not_forecast() -> None:
    assert forecast(FOLDED, "y") == {}  # N times W
    chosen = "g (float[W] x) => (float[V] y) { m = IsNaN(x) k = Not(m) y = Compress(x, k) }"
    assert forecast(chosen, "y") == {}  # it is the elements that say how many
    assert forecast("g (float[4] x) => (float[4] y) { y = Neg(x) }", "y") == {}


@pytest.mark.usefixtures("_always_sliced")
def test_the_ends_are_exact_where_the_size_is_a_forecast() -> None:
    source = "g (float[1,32,64,W] x) => (float[1,32,32,V] y) { y = MaxPool <kernel_shape=[2,2], strides=[2,2]> (x) }"
    arrays = [heavy(i, 1, 32, 64, width) for i, width in enumerate((64, 35, 101))]
    found = taken(source, arrays, ["y"], 2048).tensors["y"]
    full = taken(source, arrays, ["y"], None).tensors["y"]
    assert_ends_agree(found.histogram, full.histogram, 8)
    assert (found.min, found.max, found.count) == (full.min, full.max, full.count)


def test_nothing_is_fetched_whole_that_is_forecast() -> None:
    made, known = model(CHAIN), infer(model(CHAIN), declared=False)
    for foreseen, whole in ((forecast(CHAIN, "y", "z"), False), ({}, True)):
        reductions = Reductions(made.graph, ["y", "z"], known, SUBSET, foreseen)
        assert ("z" in reductions.outputs) is whole


@pytest.mark.usefixtures("_always_sliced")
def test_a_tensor_that_is_smaller_than_forecast() -> None:
    assert forecast(SLICED, "y")["y"].shape({"W": 2})[-1] == 50
    arrays = [heavy(i, 1, 16, 32, width) for i, width in enumerate((64, 20, 2, 0, 51))]
    found = taken(SLICED, arrays, ["y"], 2048).tensors["y"]
    cut = [a[..., :50] for a in arrays]
    assert (found.min, found.max) == (min(a.min() for a in cut if a.size), max(a.max() for a in cut if a.size))
    assert found.count == sum(a.size for a in cut)
    assert found.histogram.total == pytest.approx(found.count, rel=0.02)


@pytest.mark.usefixtures("_always_sliced")
@pytest.mark.parametrize(("width", "alike"), [(35, True), (34, False)])
def test_two_tensors_that_are_forecast_alike_and_differ(width: int, alike: bool) -> None:
    found = forecast(TWO_WAYS, "z", "r")
    assert found["z"] == found["r"]
    arrays = [heavy(1, 1, 32, 64, 64), heavy(0, 1, 32, 64, width)]
    seen = taken(TWO_WAYS, arrays, ["z", "r"], 2048)
    full = taken(TWO_WAYS, arrays, ["z", "r"], None)
    assert (seen.tensors["z"].count == seen.tensors["r"].count) is alike
    assert seen.shapes == full.shapes
    for name in ("z", "r"):
        some, all_ = seen.tensors[name], full.tensors[name]
        assert (some.min, some.max, some.count) == (all_.min, all_.max, all_.count)
        assert some.histogram.total == pytest.approx(some.count, rel=0.02)


@pytest.mark.usefixtures("_always_sliced")
def test_parts_of_the_samples_merge_to_the_whole() -> None:
    arrays = [every_width(i) for i in range(6)]
    data = Data(lambda i: {"x": arrays[i]}, 6)
    observers = ("minmax", "histogram", "heldout")
    whole, first, last = (
        collect(model(CHAIN), ["y", "z"], data, observers, threads=1, subset=2048, start=start, stop=stop)  # type: ignore[arg-type]
        for start, stop in ((0, 6), (0, 2), (2, 6))
    )
    assert first.merge(last) == whole


def every_width(index: int) -> NDArray[np.float32]:
    return heavy(index, 1, 32, 64, 30 + 17 * index)


def test_few_elements_are_all_counted_whichever_form_runs() -> None:
    """A sample that is small is fetched whole until one comes that is not, and then sliced like that one."""
    small, large = heavy(0, 1, 32, 64, 31), heavy(1, 1, 32, 64, 5000)
    data = Data(lambda i: {"x": (small, large, small)[i]}, 3)
    whole, *parts = (
        collect(model(CHAIN), ["y", "z"], data, threads=1, subset=2048, start=start, stop=stop)  # type: ignore[arg-type]
        for start, stop in ((0, 3), (0, 1), (1, 3), (1, 2), (2, 3))
    )
    assert parts[0].merge(parts[1]) == whole
    assert parts[2].merge(parts[3]) == parts[1]
    for seen in (parts[0], parts[3]):
        exact = taken(CHAIN, [small], ["y", "z"], None)
        for name in ("y", "z"):
            found, full = seen.tensors[name].histogram, exact.tensors[name].histogram
            assert (found.keys.tolist(), found.counts.tolist()) == (full.keys.tolist(), full.counts.tolist())
    large_one = parts[2].tensors["y"].histogram
    assert len(large_one.keys) < len(taken(CHAIN, [large], ["y"], None).tensors["y"].histogram.keys)
