"""What each tensor does to a labelled score, and metrics that fail."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sensing import FEW, Labelled, Wrong, classifier, coarse, measured_res8, top1
from switched import res8, used_tensors
from whole import Samples

from onnxq.errors import MetricError
from onnxq.sensitivity.engine import sensitivity
from onnxq.sensitivity.work import Scoring
from onnxq.validate.metrics import load_metric


def test_the_score_of_each_tensor() -> None:
    found = measured_res8()
    assert found.metric == "top1" and found.eval_samples == 8 and found.score is not None
    for tensor in found.tensors:
        assert tensor.alone.score is not None
        assert tensor.alone.drop == pytest.approx(found.score - tensor.alone.score)


def test_a_ruined_tensor_costs_score() -> None:
    model, plan, data, judged = res8()
    bad = measured_res8().ranked[0].tensor
    ruined = coarse(plan, used_tensors(model), bad, 4096.0)
    found = sensitivity(model, ruined, data, FEW, evaluation=judged, scoring=top1(), threads=1)
    drops = {t.tensor: t.alone.drop for t in found.tensors}
    assert (drops[bad] or 0.0) > 0.3 and all((d or 0.0) <= 0.2 for n, d in drops.items() if n != bad)


class Broken(Labelled):
    labels = (0, 1, "bad", 3)


def test_a_drop_is_positive_when_an_error_rate_rises() -> None:
    model, plan, samples = classifier()
    ruined = coarse(plan, used_tensors(model), "image", 1000.0)
    scoring = Scoring(metric=Wrong(), name="wrong")
    found = sensitivity(model, ruined, Labelled(samples, labelled=True), scoring=scoring, threads=1)
    assert not found.higher_is_better and found.score is not None
    for tensor in found.tensors:
        assert tensor.alone.drop == pytest.approx((tensor.alone.score or 0.0) - found.score)
    assert any("flatters" in n for n in found.notes)


def test_a_metric_that_raises_names_the_sample() -> None:
    model, plan, samples = classifier()
    scoring = Scoring(metric=Wrong(), name="wrong")
    with pytest.raises(MetricError, match=r'metric "wrong" fails on sample sample 2 \(index 2\)'):
        sensitivity(model, plan, Broken(samples, labelled=True), scoring=scoring, threads=1)


def test_a_metric_needs_labels_unless_it_compares_outputs() -> None:
    model, plan, samples = classifier()
    with pytest.raises(MetricError, match="needs labels"):
        sensitivity(model, plan, Samples(samples), scoring=top1(), threads=1)
    cosine = Scoring(metric=load_metric("cosine", Path()), name="cosine")
    found = sensitivity(model, plan, Samples(samples), scoring=cosine, threads=1)
    assert found.score == pytest.approx(1.0)
    assert all(0.9 < (t.alone.score or 0.0) <= 1.0 for t in found.tensors)


class Uneven(Wrong):
    def record(self, outputs: Any, label: Any) -> Sequence[float]:
        return [0.0] * (1 + label % 2)


class Scoreless(Wrong):
    def score(self, records: NDArray[np.float64]) -> float:
        raise ZeroDivisionError("nothing")


@pytest.mark.parametrize(("metric", "said"), [(Uneven(), "rows of different lengths"), (Scoreless(), "cannot score")])
def test_a_metric_that_cannot_be_summed_up(metric: Any, said: str) -> None:
    model, plan, samples = classifier()
    with pytest.raises(MetricError, match=said):
        sensitivity(
            model, plan, Labelled(samples, labelled=True), scoring=Scoring(metric=metric, name="mine"), threads=1
        )
