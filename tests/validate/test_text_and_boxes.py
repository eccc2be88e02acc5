"""Metrics of text and of detectors, by hand-made cases; each has a near-miss."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxq.errors import UsageError
from onnxq.validate.metrics import load_metric
from onnxq.validate.metrics.detection import MeanAveragePrecision, overlaps
from onnxq.validate.metrics.fidelity import Agreement, Sqnr, VectorCosine
from onnxq.validate.metrics.text import Cer, ExactMatch, Perplexity, Wer, edits, read_output

HERE = Path()


def said(value: Any) -> dict[str, Any]:
    return {"y": np.asarray(value)}


def steps(*classes: int, count: int = 4) -> dict[str, Any]:
    return said(np.eye(count, dtype=np.float32)[list(classes)][None])


def scored(metric: Any, *pairs: tuple[dict[str, Any], Any]) -> float:
    return float(metric.score(np.array([metric.record(o, label) for o, label in pairs])))


@pytest.mark.parametrize("name", ["exact-match", "cer", "wer", "perplexity", "map", "agreement"])
def test_names_are_registered(name: str) -> None:
    metric = load_metric(name, HERE)
    assert metric.higher_is_better == (name not in {"cer", "wer", "perplexity"})


def test_settings_reach_the_metric_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    assert load_metric("cer", HERE, {"alphabet": "abc"}) == Cer(alphabet="abc")
    with pytest.raises(UsageError, match=r'metric "cer" cannot be made with the settings alfabet: .*alfabet'):
        load_metric("cer", HERE, {"alfabet": "abc"})
    (tmp_path / "plain.py").write_text("def one(outputs, label): return 1.0\n")
    with pytest.raises(UsageError, match="is no class, so it has no settings: leave k out"):
        load_metric("plain.py:one", tmp_path, {"k": 3})


def test_text_is_read_from_strings_tokens_and_ctc_steps() -> None:
    assert read_output(said(np.array(["a b"], object))) == "a b"
    assert read_output(said([[3, 1, -1]])) == (3, 1)
    assert read_output(said([[0, 1, 2]]), alphabet="abc") == "abc"
    # blank between the two 2s: both count; without it they are one
    assert read_output(steps(2, 2, 0, 2, 1)) == (2, 2, 1)
    assert read_output(steps(2, 2, 2, 1)) == (2, 1)
    assert read_output(steps(1, 0, 3), alphabet="xyz") == "xz"
    with pytest.raises(ValueError, match="token 3 lies outside the alphabet of 2 characters"):
        read_output(steps(1, 0, 3), alphabet="xy")
    with pytest.raises(ValueError, match=r"float32 \[3\] is neither text, tokens nor scores"):
        read_output(said(np.zeros(3, np.float32)))
    with pytest.raises(ValueError, match='no output "z", it has y'):
        read_output(said([1]), "z")


def test_exact_match() -> None:
    assert scored(ExactMatch(), (said([1, 2]), [1, 2]), (said([1, 2]), [1, 3])) == 0.5
    assert (
        scored(ExactMatch(), (said(np.array(["yes"], object)), "yes"), (said(np.array(["no"], object)), "yes")) == 0.5
    )
    with pytest.raises(ValueError, match="is text and the output is token numbers"):
        ExactMatch().record(said([1]), "a")
    with pytest.raises(ValueError, match="is no text, as the output is"):
        ExactMatch().record(said(np.array(["a"], object)), 3)
    with pytest.raises(ValueError, match="has no label"):
        ExactMatch().record(said([1]), None)


def test_edits() -> None:
    assert [edits(a, b) for a, b in (("", "abc"), ("abc", ""), ("abc", "abc"), ("flaw", "lawn"))] == [3, 3, 0, 2]


def test_error_rates_sum_over_all_samples() -> None:
    """1 edit of 4 characters and 0 of 12: 1/16, not the mean of 1/4 and 0."""
    pairs = [(said(np.array([s], object)), label) for s, label in (("abcx", "abcd"), ("one two five", "one two five"))]
    assert scored(Cer(), *pairs) == 1 / 16
    assert scored(Wer(), *pairs) == 1 / 4
    assert scored(Cer(), (said([1, 2, 3]), [1, 3])) == 0.5
    assert scored(Cer(), (said(np.array([""], object)), "")) == 0.0
    assert scored(Cer(), (said(np.array(["a"], object)), "")) == math.inf
    with pytest.raises(ValueError, match="wer needs text"):
        Wer().record(said([1]), [1])


def test_perplexity_of_even_scores_is_the_size_of_the_vocabulary() -> None:
    even = said(np.zeros((1, 3, 7), np.float32))
    assert scored(Perplexity(), (even, [0, 3, 6])) == pytest.approx(7)
    assert scored(Perplexity(), (even, [0, 3, -100])) == pytest.approx(7)
    sure = said(np.log(np.array([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]], np.float32)))
    assert scored(Perplexity(), (sure, [0, 2])) == pytest.approx(1 / math.sqrt(0.5 * 0.8))
    assert scored(Perplexity(shift=True), (sure, [1, 0])) == pytest.approx(2)
    for label, sentence in (
        ([0], "2 steps of scores but 1 tokens"),
        ([0, 9], "token 9 is not among the 3"),
        ("ab", "no seq"),
    ):
        with pytest.raises(ValueError, match=sentence):
            Perplexity().record(sure, label)
    with pytest.raises(ValueError, match=r"needs scores \[steps, vocabulary\]"):
        Perplexity().record(said([1, 2]), [1, 2])


BOX = [0.0, 0.0, 10.0, 10.0]
FAR = [50.0, 50.0, 60.0, 60.0]


def boxes(*rows: list[float]) -> dict[str, Any]:
    """Rows of box, score, class."""
    return said(np.array([rows], np.float32).reshape(1, -1, 6))


def test_overlaps() -> None:
    found = overlaps(np.array([BOX, FAR]), np.array([[5.0, 0, 15, 10], BOX, [3.0, 3, 3, 3]]))
    assert found.round(4).tolist() == [[0.3333, 1.0, 0.0], [0.0, 0.0, 0.0]]


def test_map_of_perfect_wrong_and_half_right() -> None:
    truth = [[*BOX, 1], [*FAR, 2], [0, 0, 0, 0, -1]]
    perfect = boxes([*BOX, 0.9, 1], [*FAR, 0.8, 2])
    assert scored(MeanAveragePrecision(), (perfect, truth)) == pytest.approx(1)
    assert scored(MeanAveragePrecision(), (boxes([*BOX, 0.9, 2]), truth)) == 0
    assert scored(MeanAveragePrecision(), (boxes([*BOX, 0.9, 1]), truth)) == pytest.approx(0.5)
    assert scored(MeanAveragePrecision(), (boxes(), truth)) == 0
    assert scored(MeanAveragePrecision(), (perfect, [])) == 0


def test_map_counts_a_second_box_on_one_object_as_wrong() -> None:
    truth = [[*BOX, 1], [*FAR, 1]]
    before = boxes([*BOX, 0.9, 1], [*BOX, 0.8, 1], [*FAR, 0.7, 1])
    behind = boxes([*BOX, 0.9, 1], [*FAR, 0.8, 1], [*BOX, 0.7, 1])
    # recall 0.5 at precision 1 (51 points), recall 1 at precision 2/3 (50 points)
    assert scored(MeanAveragePrecision(), (before, truth)) == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert scored(MeanAveragePrecision(), (behind, truth)) == pytest.approx(1)


def test_map_looks_at_the_overlap() -> None:
    """An overlap of 0.6 is a hit at 0.5, 0.55 and 0.6 of ten thresholds."""
    wide = [0.0, 0.0, 10.0, 10.0 / 0.6 + 1e-9]
    near = [0.0, 0.0, 10.0, 10.0]
    got = scored(MeanAveragePrecision(), (boxes([*near, 0.9, 0]), [[0.0, 0.0, 10.0, 16.66, 0]]))
    assert got == pytest.approx(0.3), wide


def test_map_takes_three_outputs_and_says_what_it_misses() -> None:
    three = {"boxes": np.array([BOX]), "scores": np.array([0.9]), "labels": np.array([1])}
    assert scored(MeanAveragePrecision(), (three, [[*BOX, 1]])) == pytest.approx(1)
    with pytest.raises(ValueError, match="1 boxes, 2 scores and 1 classes do not fit"):
        MeanAveragePrecision().record({**three, "scores": np.zeros(2)}, [[*BOX, 1]])
    with pytest.raises(ValueError, match=r"map needs the outputs boxes, scores, labels or one \[n, 6\]"):
        MeanAveragePrecision().record(said(np.zeros((1, 3, 5))), [[*BOX, 1]])
    with pytest.raises(ValueError, match=r"is not \[objects, 5\]"):
        MeanAveragePrecision().record(three, [1, 2])


def test_label_free_metrics_of_one_output() -> None:
    exact = {"a": np.array([[1.0, 2.0]]), "b": np.array([[3.0, 1.0]])}
    other = {"a": np.array([[2.0, 1.0]]), "b": np.array([[3.0, 1.0]])}
    assert Agreement(output="a").record(other, exact) == [0.0]
    assert Agreement(output="b").record(other, exact) == [1.0]
    assert Sqnr(output="b").record(other, exact) == [10.0, 0.0]
    assert scored(VectorCosine(output="a"), (other, exact)) == pytest.approx(0.8)
    assert scored(VectorCosine(), ({"a": np.zeros((1, 2))}, {"a": np.zeros((1, 2))})) == 1.0
    with pytest.raises(ValueError, match='no output "c"'):
        Sqnr(output="c").record(other, exact)
    with pytest.raises(ValueError, match=r"\[1, 3\] scores, but \[1, 2\] in the float model"):
        Agreement(output="a").record({"a": np.zeros((1, 3))}, exact)
