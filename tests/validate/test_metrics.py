from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxq.errors import UnknownNameError, UsageError
from onnxq.validate.metrics import MeanOf, Metric, load_metric
from onnxq.validate.metrics.base import is_label_free
from onnxq.validate.metrics.classification import CountsF1, MacroF1, Top1, Top5, class_scores
from onnxq.validate.metrics.correlation import Pearson, Spearman
from onnxq.validate.metrics.fidelity import Cosine, Sqnr

HERE = Path()


def scores(*values: float) -> dict[str, Any]:
    return {"y": np.array([values], np.float32)}


@pytest.mark.parametrize("name", ["top1", "top5", "f1", "pearson", "spearman", "cosine", "sqnr"])
def test_every_built_in_name_is_a_metric(name: str) -> None:
    metric = load_metric(name, HERE)
    assert isinstance(metric, Metric)
    assert metric.higher_is_better is True
    assert is_label_free(metric) == (name in {"cosine", "sqnr"})


def test_unknown_name_proposes_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r'no metric "cosin": did you mean "cosine"\?'):
        load_metric("cosin", HERE)


def test_metric_from_a_file_class_and_function(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(
        "class Errors:\n"
        "    higher_is_better = False\n"
        "    def record(self, outputs, label): return [1.0]\n"
        "    def score(self, records): return 2.0\n"
        "def exact(outputs, label): return outputs['y'].sum() == label\n"
        "class Needy:\n"
        "    def __init__(self, x): pass\n"
        "number = 3\n"
    )
    assert load_metric("m.py:Errors", tmp_path).higher_is_better is False
    exact = load_metric("m.py:exact", tmp_path)
    assert isinstance(exact, MeanOf)
    assert exact.record(scores(1, 2), 3) == [1.0]
    assert exact.score(np.array([[1.0], [0.0]])) == 0.5
    with pytest.raises(UsageError, match=r'"m.py:Needy" cannot be made without arguments'):
        load_metric("m.py:Needy", tmp_path)
    with pytest.raises(UsageError, match=r'"m.py:number" is neither a class'):
        load_metric("m.py:number", tmp_path)
    with pytest.raises(UsageError, match='did you mean "exact"'):
        load_metric("m.py:exakt", tmp_path)
    for name in [n for n in sys.modules if n.startswith("onnxq_user_m_")]:
        del sys.modules[name]


def test_top1_and_top5() -> None:
    assert Top1().record(scores(0.1, 0.7, 0.2), 1) == [1.0]
    assert Top1().record(scores(0.1, 0.7, 0.2), 0) == [0.0]
    assert Top1().record(scores(0.1, 0.7, 0.2), "1") == [1.0]
    ten = scores(*range(10))
    assert Top5().record(ten, 5) == [1.0]
    assert Top5().record(ten, 4) == [0.0]


def test_top1_breaks_ties_like_argmax() -> None:
    assert Top1().record(scores(0.5, 0.5), 0) == [1.0]
    assert Top1().record(scores(0.5, 0.5), 1) == [0.0]


def test_nan_scores_are_never_right() -> None:
    assert Top1().record(scores(math.nan, math.nan), 0) == [0.0]


def test_top1_of_a_batch_is_its_mean() -> None:
    batch = {"y": np.array([[1, 0], [1, 0]], np.float32)}
    assert Top1().record(batch, np.array([0, 1])) == [0.5]


def test_class_scores_takes_the_output_that_looks_like_it() -> None:
    outputs = {
        "index": np.array([3], np.int64),
        "map": np.zeros((1, 3, 4, 4), np.float32),
        "logits": np.zeros((1, 7, 1, 1), np.float32),
        "other": np.zeros((1, 9), np.float32),
    }
    assert class_scores(outputs).shape == (1, 7)
    assert class_scores(outputs, "other").shape == (1, 9)
    with pytest.raises(ValueError, match="no output looks like class scores"):
        class_scores({"map": outputs["map"]})
    with pytest.raises(ValueError, match='no output "probs"'):
        class_scores(outputs, "probs")


@pytest.mark.parametrize(
    ("label", "sentence"),
    [
        ("cat", 'label "cat" is not a class number'),
        (1.5, "not a whole class number"),
        (None, "no label"),
        (3, "class 3 is not among the 3 classes"),
        ([0, 1], "1 rows of scores but 2 labels"),
    ],
)
def test_labels_that_make_no_sense(label: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Top1().record(scores(1, 2, 3), label)


def test_macro_f1_by_hand() -> None:
    # class 0: tp 1, fp 1, fn 0 -> 2/3; class 1: tp 1, fp 0, fn 1 -> 2/3; class 3: tp 1 -> 1; class 2 never occurs
    rows = np.array([[0, 0], [0, 1], [1, 1], [3, 3]], np.float64)
    assert MacroF1().score(rows) == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert MacroF1().record(scores(0, 5, 1), 2) == [1.0, 2.0]
    with pytest.raises(ValueError, match="one label per sample"):
        MacroF1().record({"y": np.eye(2, dtype=np.float32)}, [0, 1])


def test_counts_f1_sums_before_it_divides() -> None:
    class Boxes(CountsF1):
        def counts(self, outputs: Any, label: Any) -> tuple[int, int, int]:
            return 1, 2, 3

    assert Boxes().record({}, None) == [1.0, 2.0, 3.0]
    assert Boxes().score(np.array([[1.0, 2, 3], [3, 0, 1]])) == pytest.approx(8 / (8 + 2 + 4))
    assert Boxes().score(np.zeros((2, 3))) == 1.0


def test_correlations_against_scipy() -> None:
    from scipy import stats

    rows = np.array([[1.0, 2], [2, 2], [3, 5], [4, 4], [4, 9]])
    assert Pearson().score(rows) == pytest.approx(stats.pearsonr(*rows.T).statistic)
    assert Spearman().score(rows) == pytest.approx(stats.spearmanr(*rows.T).statistic)
    assert Pearson().score(np.ones((3, 2))) == 0.0
    assert Spearman().record({"y": np.array([[0.5]], np.float32)}, "2") == [0.5, 2.0]
    with pytest.raises(ValueError, match="not a number"):
        Pearson().record({"y": np.array([[0.5]], np.float32)}, "a")
    with pytest.raises(ValueError, match="one number per sample"):
        Pearson().record(scores(1, 2), 1)


def test_fidelity_by_hand() -> None:
    x, y = scores(3, 4), scores(3, 5)
    assert Sqnr().record(y, x) == [25.0, 1.0]
    assert Sqnr().score(np.array([[25.0, 1.0], [75.0, 0.0]])) == pytest.approx(20.0)
    assert Sqnr().score(np.array([[25.0, 0.0]])) == math.inf
    assert Sqnr().score(np.array([[0.0, 1.0]])) == -math.inf
    assert Cosine().record(y, x) == [pytest.approx(29 / (5 * math.sqrt(34)))]
    assert Cosine().record(scores(0, 0), scores(0, 0)) == [1.0]
    assert Cosine().record(scores(1, 0), scores(0, 0)) == [0.0]
    assert Cosine().score(np.array([[1.0], [0.0]])) == 0.5


def test_fidelity_leaves_out_what_is_not_finite_and_names_wrong_shapes() -> None:
    assert Sqnr().record(scores(math.nan, 1), scores(2, 2)) == [4.0, 1.0]
    with pytest.raises(ValueError, match=r'"y" has shape \[1, 2\] but \[1, 1\]'):
        Sqnr().record(scores(1, 2), scores(1))
    with pytest.raises(ValueError, match="no float output"):
        Cosine().record({"i": np.array([1])}, {"i": np.array([1])})
