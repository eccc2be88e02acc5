"""The run over the data: exact extremes, any shapes, flat memory, and sentences that name tensor and sample."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from onnxq.data.sample import Sample
from onnxq.errors import CalibrationError, ModelError, UnknownNameError
from onnxq.ir.hash import model_hash
from onnxq.ir.load import from_proto
from onnxq.ir.save import to_bytes
from onnxq.ir.text import parse, text
from onnxq.runtime.session import Level, Session
from onnxq.stats import Histogram, MinMax
from onnxq.stats.collect import collect, observe_shapes
from onnxq.stats.statistics import merge_all

HEAD = '<ir_version: 10, opset_import: ["": 21]>\n'
CONV = (
    HEAD
    + """g (float[1,2,H,W] x) => (float[1,3,H,W] z) <float[3,2,3,3] K = {KERNEL}> {
  y = Conv <pads=[1,1,1,1]> (x, K)
  r = Relu(y)
  z = Sigmoid(r)
}"""
)


class Data:
    """Samples made on demand from their index."""

    labelled = False

    def __init__(self, make: Callable[[int], dict[str, NDArray[Any]]], number: int) -> None:
        self.make, self.number, self.read = make, number, 0
        self.skipped: list[str] = []
        self.description = f"{number} samples of nothing"

    def __len__(self) -> int:
        return self.number

    def __iter__(self) -> Iterator[Sample]:
        for index in range(self.number):
            self.read += 1
            yield self.sample(index)

    def sample(self, index: int) -> Sample:
        return Sample(index=index, name=f"img_{index}.png", inputs=self.make(index))


class Part(Data):
    """Every second sample."""

    def __init__(self, whole: Data, start: int) -> None:
        super().__init__(whole.make, len(range(start, whole.number, 2)))
        self.indices = range(start, whole.number, 2)

    def __iter__(self) -> Iterator[Sample]:
        return (self.sample(i) for i in self.indices)


def image(index: int, height: int = 8, width: int = 8) -> dict[str, NDArray[Any]]:
    return {"x": np.random.default_rng(index).standard_normal((1, 2, height, width)).astype(np.float32)}


def conv(height: str = "H", width: str = "W") -> Any:
    kernel = np.random.default_rng(9).normal(0, 0.3, 54).astype(np.float32)
    source = CONV.replace("KERNEL", ", ".join(map(str, kernel.tolist())))
    return parse(source.replace("H,W]", f"{height},{width}]"))


def reference(model: Any, data: Data, name: str) -> NDArray[np.float32]:
    """All values of an output, at ORT's reference level."""
    session = Session(to_bytes(model), level=Level.OFF, threads=1)
    return np.concatenate([session.run(s.inputs)[name].reshape(-1) for s in data])


def test_extremes_and_distribution_are_those_of_the_values() -> None:
    model, data = conv(), Data(image, 5)
    before = text(model)
    found = collect(model, ["x", "y", "z"], data, threads=1)
    assert found.samples == 5
    assert found.model_hash == model_hash(model)
    values = reference(model, data, "z")
    z = found.tensors["z"]
    assert z.count == values.size
    assert (z.min, z.max) == pytest.approx((values.min(), values.max()), abs=1e-6)  # fused kernels round differently
    x = np.concatenate([s.inputs["x"].reshape(-1) for s in data])
    expected = Histogram(None)
    expected.update(x)
    assert (found.tensors["x"].min, found.tensors["x"].max) == (x.min(), x.max())
    assert np.array_equal(found.tensors["x"].histogram.counts, expected.counts)
    assert found.tensors["y"].min < 0  # tapped before the Relu that ORT would fuse
    assert found.unreached == ()
    assert text(model) == before


def test_parts_merge_to_the_whole_bit_for_bit() -> None:
    model, data = conv(), Data(lambda i: image(i, 6 + i % 3), 7)
    names = ["x", "y", "r", "z"]
    whole = collect(model, names, data, threads=1)
    odd, even = (collect(model, names, Part(data, s), threads=1) for s in (1, 0))
    assert odd.merge(even) == whole == even.merge(odd)
    assert collect(model, names, data, threads=2) == whole


def test_chunks_of_a_long_data_set_merge_to_the_whole_bit_for_bit() -> None:
    model, data, observers = conv(), Data(image, 150), ("minmax", "histogram", "heldout")
    whole = collect(model, ["x", "z"], data, observers, threads=1)
    chunks = [collect(model, ["x", "z"], data, observers, threads=1, start=a, stop=a + 40) for a in (120, 0, 80, 40)]
    assert merge_all(chunks) == whole
    assert whole.samples == 150
    assert whole.tensors["x"].count == 150 * 128
    assert whole.tensors["x"].histogram.total == 150 * 128
    assert whole.tensors["x"].observers["heldout"].total == 37 * 128  # type: ignore[attr-defined]


def test_reading_stops_at_the_end_of_a_chunk() -> None:
    data = Data(image, 50)
    assert collect(conv("8", "8"), ["y"], data, threads=1, start=3, stop=5).samples == 2
    assert data.read == 5


def test_samples_of_different_shapes_make_symbolic_dimensions() -> None:
    found = collect(conv(), ["y"], Data(lambda i: image(i, 8, 8 + i), 3), threads=1)
    assert found.shapes["y"] == (1, 3, 8, "?")
    assert found.tensors["y"].count == 3 * 8 * (8 + 9 + 10)


def test_limit_stops_reading() -> None:
    data = Data(image, 50)
    assert collect(conv(), ["y"], data, limit=3, threads=1).samples == 3
    assert data.read <= 3 + 1  # the sizes of tensors with unknown shapes are measured on the first sample


def test_progress_is_told_of_every_sample() -> None:
    told: list[Any] = []

    class Recorder:
        @contextmanager
        def task(self, label: str, total: int | None) -> Iterator[Callable[[int], None]]:
            told.append((label, total))
            yield told.append

    collect(conv(), ["y"], Data(image, 4), limit=3, threads=1, progress=Recorder())
    assert told == [("calibrating", 3), 1, 1, 1]


def test_a_tight_budget_splits_whole_arrays_and_changes_nothing() -> None:
    """A mask may hold infinities; a NaN in sight makes the engine look at whole arrays."""
    for height in ("8", "H"):  # sizes known from the shapes, or from the first sample
        model = conv(height, "8")
        data = Data(lambda i: {"x": np.where(image(i)["x"] > 2, np.inf, image(i)["x"]).astype(np.float32)}, 4)
        names, allowed = ["x", "y", "r", "z"], ["x", "y", "r", "z"]
        with pytest.raises(CalibrationError, match="NaN"):
            collect(model, names, data, threads=1, allow_infinite=allowed, budget=800)
        data = Data(image, 4)
        whole = collect(model, names, data, threads=1)
        assert collect(model, names, data, threads=1, budget=800) == whole


def test_memory_does_not_grow_with_the_samples() -> None:
    model = conv()

    def peak(number: int) -> int:
        tracemalloc.start()
        collect(model, ["x", "y", "r", "z"], Data(lambda i: image(i, 32, 32), number), threads=1)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(2)
    assert peak(640) < peak(160) + 1_000_000  # 480 more samples have 15 MB of activations; by 160, all waited once


@pytest.mark.parametrize(
    ("bad", "what"), [(np.nan, "NaN"), (np.inf, "an infinite value"), (-np.inf, "an infinite value")]
)
def test_values_that_are_not_finite_name_tensor_and_sample(bad: float, what: str) -> None:
    def make(index: int) -> dict[str, NDArray[Any]]:
        made = image(index)
        if index == 2:
            made["x"][0, 1, 3, 3] = bad
        return made

    with pytest.raises(CalibrationError) as error:
        collect(conv(), ["x"], Data(make, 4), threads=1)
    assert str(error.value).startswith(f'tensor "x" has {what} in sample 2 (img_2.png): leave that sample out')
    assert collect(conv(), ["x"], Data(make, 2), threads=1).samples == 2


@pytest.mark.parametrize("observers", [("minmax",), ("minmax", "histogram")])
def test_a_nan_that_the_model_makes_is_found(observers: tuple[str, ...]) -> None:
    model = parse(HEAD + "g (float[1,2,8,8] x) => (float[1,2,8,8] z) { y = Log(x) z = Relu(y) }")
    data = Data(lambda i: {"x": np.abs(image(i)["x"]) + 0.1 if i != 1 else -np.ones((1, 2, 8, 8), np.float32)}, 3)
    with pytest.raises(CalibrationError, match=r'tensor "y" has NaN in sample 1 \(img_1\.png\)'):
        collect(model, ["y"], data, observers, threads=1)


MASK = (
    HEAD
    + """g (float[1,4] x, bool[1,4] keep) => (float[1,4] p) <float low = {-inf}> {
  m = Where(keep, x, low)
  p = Softmax(m)
}"""
)


def masked(index: int) -> dict[str, NDArray[Any]]:
    return {"x": np.array([[index, 1, -2, 3]], np.float32), "keep": np.array([[True, True, True, False]])}


@pytest.mark.parametrize("observers", [("minmax",), ("minmax", "histogram")])
def test_infinite_mask_is_tolerated_only_where_it_is_allowed(observers: tuple[str, ...]) -> None:
    model = parse(MASK)
    found = collect(model, ["m", "p"], Data(masked, 3), observers, threads=1, allow_infinite={"m"})
    m = found.tensors["m"]
    assert (m.min, m.max, m.count, m.infinite) == (-2.0, 2.0, 9, 3)
    assert len(observers) == 1 or m.histogram.total == 9
    with pytest.raises(CalibrationError, match='tensor "m" has an infinite value in sample 0'):
        collect(model, ["m", "p"], Data(masked, 3), observers, threads=1, allow_infinite={"p"})


def test_a_copy_of_a_mask_is_tolerated_by_its_own_name() -> None:
    model = parse(
        MASK.replace("p = Softmax(m)", "t = Transpose(m) p = Softmax(t)").replace("float[1,4] p", "float[4,1] p")
    )
    found = collect(model, ["t"], Data(masked, 3), threads=1, allow_infinite={"t"})
    assert found.tensors["t"].infinite == 3


def test_nan_is_never_tolerated() -> None:
    data = Data(lambda i: {"x": np.full((1, 4), np.nan, np.float32), "keep": np.ones((1, 4), bool)}, 1)
    with pytest.raises(CalibrationError, match='tensor "m" has NaN'):
        collect(parse(MASK), ["m"], data, threads=1, allow_infinite={"m"})


def test_a_tensor_that_is_all_mask_is_unreached() -> None:
    data = Data(lambda i: {**masked(i), "keep": np.zeros((1, 4), bool)}, 2)
    model = parse(MASK.replace("p = Softmax(m)", "p = Identity(m)"))
    found = collect(model, ["m", "x"], data, threads=1, allow_infinite={"m"})
    assert found.unreached == ("m",)
    assert list(found.tensors) == ["x"]


@pytest.mark.parametrize("observers", [("minmax",), ("minmax", "histogram")])
def test_empty_tensors_are_unreached_until_a_sample_fills_them(observers: tuple[str, ...]) -> None:
    model = parse(HEAD + "g (float[N] x) => (float[N] y) { y = Relu(x) }")
    nothing = Data(lambda i: {"x": np.ones(0, np.float32)}, 2)
    found = collect(model, ["y"], nothing, observers, threads=1)
    assert (found.unreached, dict(found.tensors)) == (("y",), {})
    filled = collect(model, ["y"], Data(lambda i: {"x": np.ones(i, np.float32)}, 3), observers, threads=1)
    assert (filled.unreached, filled.tensors["y"].count) == ((), 3)
    assert found.merge(filled).unreached == ()


def test_integers_and_constants_are_left_out() -> None:
    model = parse(
        HEAD
        + """g (float[2,3] x, int64[2] i) => (float[2,3] y, int64[2] j) <float[3] c = {1, 2, 3}> {
      j = Add(i, i)
      s = Shape(x)
      y = Mul(x, c)
    }"""
    )
    data = Data(lambda i: {"x": np.ones((2, 3), np.float32), "i": np.arange(2)}, 1)
    found = collect(model, ["x", "i", "j", "s", "c", "y"], data, threads=1)
    assert list(found.tensors) == ["x", "y"]
    assert found.unreached == ()


@pytest.mark.parametrize("observers", [("minmax",), ("minmax", "histogram")])
@pytest.mark.parametrize("dtype", ["float16", "double"])
def test_other_floats_are_observed_as_float32(dtype: str, observers: tuple[str, ...]) -> None:
    model = parse(HEAD + f"g ({dtype}[4] x) => ({dtype}[4] y) {{ y = Neg(x) }}")
    values = np.array([0.1, -2, 3, 0], np.float16 if dtype == "float16" else np.float64)
    found = collect(model, ["y"], Data(lambda i: {"x": values}, 1), observers, threads=1)
    assert found.tensors["y"].max == 2.0
    assert found.tensors["y"].min == -3.0


@pytest.mark.parametrize("observers", [("minmax",), ("minmax", "histogram")])
def test_double_beyond_float32_is_an_infinite_value(observers: tuple[str, ...]) -> None:
    model = parse(HEAD + "g (double[1] x) => (double[1] y) { y = Neg(x) }")
    with pytest.raises(CalibrationError, match='tensor "y" has an infinite value'):
        collect(model, ["y"], Data(lambda i: {"x": np.array([1e300])}, 1), observers, threads=1)


def test_copies_share_the_statistics_of_their_origin() -> None:
    model = parse(
        HEAD
        + """g (float[1,6] x) => (float[3,2] z) <int64[2] s = {2, 3}> {
      y = Relu(x)
      a = Reshape(y, s)
      b = Transpose <perm=[1,0]> (a)
      z = Sigmoid(b)
    }"""
    )
    data = Data(lambda i: {"x": np.arange(6, dtype=np.float32)[None]}, 1)
    found = collect(model, ["y", "b"], data, threads=1)
    assert found.tensors["b"].observers is found.tensors["y"].observers
    assert found.tensors["b"].name == "b"
    assert found.shapes == {"y": (1, 6)}  # one tap for both


STATE = HEAD + "g (float[1] x, float[1] h) => (float[1] y, float[1] n) { n = Add(x, h) y = Neg(n) }"


def test_feedback_goes_through_samples_of_both_forms() -> None:
    data = Data(lambda i: {"x": np.ones(1, np.float32), "h": np.zeros(1, np.float32)}, 100)
    for budget in (100, 4):  # one part, or one per tensor
        found = collect(parse(STATE), ["n", "y"], data, threads=1, feedback={"n": "h"}, budget=budget)
        assert (found.tensors["n"].max, found.tensors["y"].min, found.samples) == (100.0, -100.0, 100)
        assert found.tensors["y"].histogram.total == 100


def test_feedback_carries_state_from_sample_to_sample() -> None:
    data = Data(lambda i: {"x": np.ones(1, np.float32), "h": np.zeros(1, np.float32)}, 5)
    found = collect(parse(STATE), ["n", "h"], data, threads=1, feedback={"n": "h"})
    assert (found.tensors["n"].max, found.tensors["h"].max) == (5.0, 4.0)
    assert collect(parse(STATE), ["n"], data, threads=1).tensors["n"].max == 1.0


@pytest.mark.parametrize(
    ("feedback", "message"),
    [
        ({"m": "h"}, 'feedback names the output "m", which the model lacks'),
        ({"n": "hh"}, 'the input "hh", which the model lacks: did you mean "h"'),
    ],
)
def test_feedback_of_names_that_are_not_there(feedback: dict[str, str], message: str) -> None:
    data = Data(lambda i: {"x": np.ones(1, np.float32), "h": np.zeros(1, np.float32)}, 1)
    with pytest.raises(CalibrationError, match=message):
        collect(parse(STATE), ["n"], data, threads=1, feedback=feedback)


def test_min_max_only() -> None:
    found = collect(conv(), ["y"], Data(image, 2), ("minmax",), threads=1)
    assert list(found.tensors["y"].observers) == [MinMax.name]


def test_nothing_to_observe_still_counts_samples() -> None:
    found = collect(conv(), [], Data(image, 2), threads=1)
    assert (found.samples, dict(found.tensors)) == (2, {})


def test_subset_can_be_switched_off() -> None:
    data = Data(lambda i: image(i, 100, 100), 1)
    assert collect(conv(), ["x"], data, threads=1, subset=None).tensors["x"].histogram.total == 20_000
    some = collect(conv(), ["x"], data, threads=1).tensors["x"].histogram
    assert some.counts.min() == 3  # every third counts for three
    assert some.total == pytest.approx(20_000, rel=1e-3)


def test_no_samples() -> None:
    with pytest.raises(CalibrationError, match="there are no samples in 0 samples of nothing"):
        collect(conv(), ["y"], Data(image, 0), threads=1)
    with pytest.raises(CalibrationError, match="there are no samples to observe shapes on"):
        observe_shapes(conv(), [])


def test_unknown_names() -> None:
    with pytest.raises(CalibrationError, match='the model has no tensor "zz" to calibrate: did you mean "z"'):
        collect(conv(), ["zz"], Data(image, 1), threads=1)
    with pytest.raises(UnknownNameError, match='there is no observer "minmaxx"'):
        collect(conv(), ["z"], Data(image, 1), ("minmaxx",), threads=1)


def test_a_sample_that_does_not_run_is_named() -> None:
    data = Data(lambda i: image(i) if i != 1 else {"x": np.zeros((1, 3, 8, 8), np.float32)}, 3)
    with pytest.raises(
        CalibrationError, match=r"sample 1 \(img_1\.png\): ONNX Runtime .* cannot run the model"
    ) as error:
        collect(conv(), ["y"], data, threads=1)
    assert isinstance(error.value.__cause__, ModelError)


def test_observe_shapes_of_all_tensors() -> None:
    data = Data(lambda i: image(i, 8, 8 + i), 3)
    model = conv()
    before = text(model)
    two = observe_shapes(model, list(data), threads=1)
    assert two == {"x": (1, 2, 8, "?"), "y": (1, 3, 8, "?"), "r": (1, 3, 8, "?"), "z": (1, 3, 8, "?")}
    assert observe_shapes(model, [data.sample(0)], threads=1)["y"] == (1, 3, 8, 8)
    assert text(model) == before
    assert len(model.graph.nodes[0].outputs[0].outputs) == 1  # no probe is left among the consumers


def test_observe_shapes_skips_what_is_no_tensor() -> None:
    model = parse(
        HEAD
        + """g (float[4] x) => (float[2] y) <int64 one = {1}> {
      s = SplitToSequence <axis=0> (x)
      n = SequenceLength(s)
      e = SequenceAt(s, one)
      y = Concat <axis=0> (e, e)
    }"""
    )
    found = observe_shapes(model, [Sample(index=0, name="a", inputs={"x": np.ones(4, np.float32)})], threads=1)
    assert found == {"x": (4,), "n": (), "e": (1,), "y": (2,)}
    data = Data(lambda i: {"x": np.ones(4, np.float32)}, 1)
    assert list(collect(model, ["x", "s", "e", "y"], data, threads=1).tensors) == ["e", "x", "y"]


MEMORY = """
import resource, sys
import numpy as np
from onnxq.data.sample import Sample
from onnxq.ir.text import parse
from onnxq.stats.collect import observe_shapes

def chain(length):
    ops = " ".join(f"t{i + 1} = Neg(t{i})" for i in range(length))
    text = f'<ir_version: 10, opset_import: ["": 21]> g (float[N] t0) => (float[N] t{length}) {{ {ops} }}'
    sample = Sample(index=0, name="s", inputs={"t0": np.ones(1 << 20, np.float32)})
    assert len(observe_shapes(parse(text), [sample], threads=1)) == length + 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

print(chain(3), chain(100))
"""


def test_observing_shapes_keeps_no_tensor_alive() -> None:
    found = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True).stdout.split()
    few, many = (int(kilobytes) for kilobytes in found)
    assert many < few + 100_000  # the 100 tensors of the chain are 400 MB


def test_an_open_size_that_is_written_as_minus_one() -> None:
    proto = onnx.load_from_string(to_bytes(conv()))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = -1
    found = collect(from_proto(proto), ["y", "z"], Data(image, 2), threads=1)
    plain = collect(conv(), ["y", "z"], Data(image, 2), threads=1)
    assert found.tensors == plain.tensors
    assert found.tensors["y"].count == found.tensors["y"].histogram.total > 0
