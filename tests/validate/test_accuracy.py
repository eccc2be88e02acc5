from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from onnxq.errors import DataError, MetricError, ModelError
from onnxq.validate.accuracy import compare
from onnxq.validate.metrics.base import MeanOf
from onnxq.validate.metrics.classification import Top1
from onnxq.validate.metrics.fidelity import Cosine
from onnxq.validate.outputs import OutputSums, looks_like_scores

IDENTITY = "g (float[1,2] x) => (float[1,2] y) { y = Add(x, c) }"


def inputs(*values: float) -> dict[str, Any]:
    return {"x": np.array([values], np.float32)}


def offset(build: Any, *values: float) -> bytes:
    return build(IDENTITY, c=np.array([values], np.float32))


def test_known_values(build: Any, data: Any) -> None:
    result = compare(offset(build, 0, 0), offset(build, 0, 1), data([(inputs(3, 4), 1), (inputs(4, 3), 0)]), Top1())
    (y,) = result.outputs
    assert result.samples == 2
    assert (y.name, y.dtype, y.elements) == ("y", "float32", 4)
    assert y.sqnr_db == pytest.approx(10 * math.log10(50 / 2))
    assert y.cosine == pytest.approx((9 + 20 + 16 + 12) / math.sqrt(50 * (9 + 25 + 16 + 16)))
    assert (y.max_abs, y.absmax) == (1.0, 4.0)
    assert y.top1_agreement == 1.0  # (4, 4) is a tie, which argmax gives to the first
    assert y.worst_sqnr_db == pytest.approx(10 * math.log10(25))
    assert result.metric is not None
    assert (result.metric.reference, result.metric.candidate, result.metric.drop) == (1.0, 1.0, 0.0)
    assert result.metric.mcnemar_p == 1.0


def test_drop_interval_and_mcnemar(build: Any, data: Any) -> None:
    items = [(inputs(3, 4), 1), (inputs(4, 3), 0)] * 10
    result = compare(offset(build, 0, 0), offset(build, 0, 2), data(items), Top1(), metric_name="top1")
    metric = result.metric
    assert metric is not None
    assert (metric.name, metric.reference, metric.candidate, metric.drop) == ("top1", 1.0, 0.5, 0.5)
    assert (metric.only_reference, metric.only_candidate) == (10, 0)
    assert metric.mcnemar_p == pytest.approx(2 * 0.5**10)
    assert 0.2 < metric.interval.low < 0.5 < metric.interval.high < 0.8
    assert result.outputs[0].top1_agreement == 0.5


def test_equal_models_are_bit_equal(build: Any, data: Any) -> None:
    model = offset(build, 0, 0)
    (y,) = compare(model, model, data([(inputs(3, 4), None)], labelled=False)).outputs
    assert (y.sqnr_db, y.cosine, y.max_abs) == (math.inf, 1.0, 0.0)


def test_error_rates_turn_around(build: Any, data: Any) -> None:
    class Errors(MeanOf):
        higher_is_better = False  # type: ignore[misc]

    wrong = Errors(function=lambda o, label: float(o["y"].argmax() != label))
    items = [(inputs(3, 4), 1), (inputs(4, 3), 0)] * 10
    metric = compare(offset(build, 0, 0), offset(build, 0, 2), data(items), wrong).metric
    assert metric is not None
    assert (metric.reference, metric.candidate, metric.drop) == (0.0, 0.5, 0.5)
    assert 0 < metric.interval.low < metric.interval.high


def test_label_free_metric_needs_no_labels(build: Any, data: Any) -> None:
    unlabelled = data([(inputs(3, 4), None)], labelled=False)
    metric = compare(offset(build, 0, 0), offset(build, 0, 1), unlabelled, Cosine()).metric
    assert metric is not None
    assert metric.reference == pytest.approx(1.0)
    assert metric.drop == pytest.approx(1 - 29 / (5 * math.sqrt(34)))
    assert metric.mcnemar_p is None
    with pytest.raises(MetricError, match='metric "top1" needs labels'):
        compare(offset(build, 0, 0), offset(build, 0, 1), unlabelled, Top1(), metric_name="top1")


def test_nan_is_counted_and_said(build: Any, data: Any) -> None:
    graph = "g (float[1,2] x) => (float[1,2] y) { y = Div(x, c) }"
    good, bad = build(graph, c=np.ones((1, 2), np.float32)), build(graph, c=np.array([[0, 1]], np.float32))
    result = compare(good, bad, data([(inputs(0, 4), None)], labelled=False))
    (y,) = result.outputs
    assert (y.nonfinite, y.sqnr_db) == (1, math.inf)
    assert "1 elements are NaN or infinite" in result.notes[0]
    both = compare(bad, bad, data([(inputs(0, 4), None)], labelled=False))
    assert both.outputs[0].nonfinite == 0
    assert not both.notes


def test_integer_outputs_have_an_agreement(build: Any, data: Any) -> None:
    graph = "g (float[1,4] x) => (int64[1,4] y) { a = Add(x, c)\n y = Cast<to = 7>(a) }"
    one, two = build(graph, c=np.zeros((1, 4), np.float32)), build(graph, c=np.array([[0, 0, 0, 1]], np.float32))
    (y,) = compare(one, two, data([(inputs(1, 2, 3, 4), None)], labelled=False)).outputs
    assert (y.agreement, y.sqnr_db, y.top1_agreement) == (0.75, None, None)


def test_data_dependent_shapes_that_differ_are_counted(build: Any, data: Any) -> None:
    graph = "g (float[1,4] x) => (int64[2,n] y) { a = Add(x, c)\n y = NonZero(a) }"
    one, two = build(graph, c=np.zeros((1, 4), np.float32)), build(graph, c=np.array([[0, 0, 0, 1]], np.float32))
    result = compare(one, two, data([(inputs(1, 2, 3, -1), None)], labelled=False))
    assert result.outputs[0].mismatched == 1
    assert result.outputs[0].agreement is None
    assert "shape differs between the models on 1 samples" in result.notes[0]


def test_sequences_are_compared_for_equality() -> None:
    sums = OutputSums()
    sums.add([{0: 1.0}, {1: 2.0}], [{0: 1.0}, {1: 3.0}], "s", None)
    assert sums.result("y").agreement == 0.5


def test_a_metric_that_raises_names_the_sample(build: Any, data: Any) -> None:
    model = offset(build, 0, 0)
    with pytest.raises(
        MetricError, match=r'metric "Top1" fails on sample item 1 \(index 1\): the label "cat" is not a class number'
    ):
        compare(model, model, data([(inputs(3, 4), 1), (inputs(3, 4), "cat")]), Top1())


class Broken(Top1):
    def record(self, outputs: Any, label: Any) -> list[float]:
        return [1.0] * label

    def score(self, records: Any) -> float:
        raise ZeroDivisionError


def test_faults_of_a_metric_are_sentences(build: Any, data: Any) -> None:
    model = offset(build, 0, 0)
    with pytest.raises(MetricError, match=r"rows of different lengths \(\[1, 2\]\)"):
        compare(model, model, data([(inputs(3, 4), 1), (inputs(3, 4), 2)]), Broken())
    with pytest.raises(MetricError, match="cannot score its 1 records: ZeroDivisionError"):
        compare(model, model, data([(inputs(3, 4), 1)]), Broken())


def test_missing_output_input_and_empty_data(build: Any, data: Any) -> None:
    model = offset(build, 0, 0)
    renamed = build("g (float[1,2] x) => (float[1,2] z) { z = Relu(x) }")
    other = build("g (float[1,2] q) => (float[1,2] y) { y = Relu(q) }")
    with pytest.raises(ModelError, match='quantized model has no output "y" as the float one has'):
        compare(model, renamed, data([(inputs(3, 4), 1)]))
    with pytest.raises(ModelError, match='float model has no input "q"'):
        compare(model, other, data([(inputs(3, 4), 1)]))
    with pytest.raises(DataError, match="no sample"):
        compare(model, model, data([]))


def test_limit_and_progress(build: Any, data: Any) -> None:
    from contextlib import contextmanager

    seen: list[Any] = []

    class Recorder:
        @contextmanager
        def task(self, label: str, total: int | None) -> Any:
            seen.append((label, total))
            yield seen.append

    model = offset(build, 0, 0)
    result = compare(model, model, data([(inputs(3, 4), 1)] * 5), limit=3, progress=Recorder())
    assert result.samples == 3
    assert seen == [("validating", 3), 1, 1, 1]


QDQ = """g (float[1,4,4,4] x) => (float[1,4,4,4] y) {
  q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)
  w = DequantizeLinear<axis: int = AXIS>(wq, ws, wz)
  c = Conv(d, w)  p = QuantizeLinear(c, t, z)  y = DequantizeLinear(p, t, z) }"""


@pytest.mark.parametrize(("axis", "suspicious"), [(0, False), (1, True)])
def test_a_fusion_that_computes_something_else_is_reported(build: Any, data: Any, axis: int, suspicious: bool) -> None:
    """ORT fuses a Conv whose weight scales lie on axis 1 as if they lay on axis 0, without a word."""
    rng = np.random.default_rng(0)
    values = {
        "s": np.float32(1 / 128), "z": np.uint8(128), "t": np.float32(1 / 16), "wz": np.zeros(4, np.int8),
        "wq": rng.integers(-127, 128, (4, 4, 1, 1)).astype(np.int8),
        "ws": np.array([0.001, 0.004, 0.016, 0.03], np.float32),
    }  # fmt: skip
    weights = {k: np.asarray(v) for k, v in values.items()}
    candidate = build(QDQ.replace("AXIS", str(axis)), **weights)
    shape = [4, 1, 1, 1] if axis == 0 else [1, 4, 1, 1]
    floats = weights["wq"].astype(np.float32) * weights["ws"].reshape(shape)
    reference = build("g (float[1,4,4,4] x) => (float[1,4,4,4] y) { y = Conv(x, w) }", w=floats)
    items = [({"x": rng.uniform(-1, 1, (1, 4, 4, 4)).astype(np.float32)}, None) for _ in range(3)]
    result = compare(reference, candidate, data(items, labelled=False))
    assert result.fusion is not None
    assert result.fusion.samples == 3
    assert result.fusion.worse == (3 if suspicious else 0)
    assert result.fusion.suspicious == suspicious
    assert ("fused kernel does not compute" in " ".join(result.notes)) == suspicious


def test_what_looks_like_class_scores() -> None:
    softmax = np.full((1, 5, 4), 0.25, np.float32)
    assert looks_like_scores(softmax, 1)
    assert not looks_like_scores(softmax * 2, 1)
    assert looks_like_scores(np.zeros((3, 10), np.float32), 3)
    assert not looks_like_scores(np.zeros((3, 10), np.float32), 1)
    assert not looks_like_scores(np.zeros((3, 1), np.float32), 3)
    assert not looks_like_scores(np.zeros((3, 10), np.int64), 3)
