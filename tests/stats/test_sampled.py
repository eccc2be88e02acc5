"""What is left out by counting a choice of the elements is not missed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxq.data.open import open_dataset
from onnxq.encoding import Scheme
from onnxq.ir.load import load
from onnxq.runtime.session import Level, Session
from onnxq.stats.collect import collect
from onnxq.stats.observers import SUBSET
from onnxq.stats.statistics import Statistics, TensorStatistics
from onnxq.stats.taps import produced
from onnxq_calibration.mse import Mse
from onnxq_calibration.percentile import Percentile

MODELS = Path(__file__).resolve().parents[2] / "models"
LIMIT = 1.26
"""1 dB: the noise with the range of a choice of elements, over the noise with the range of all."""
SCHEME = Scheme(type="uint8", symmetric=False)


def collected(name: str, subset: int | None) -> Statistics:
    """With the distribution of so many elements of each array."""
    path = MODELS / name / "model.onnx"
    model = load(path)
    inputs = Session(path, level=Level.OFF, threads=1).inputs
    data = open_dataset(str(MODELS / "fashion-mnist" / "calib.npz"), inputs, None, limit=256)
    observers = ("minmax", "histogram", "heldout")
    return collect(model, produced(model.graph), data, observers, threads=1, subset=subset)


@pytest.fixture(scope="module", params=["fashion-res8", "fashion-mobilenet"])
def pair(request: pytest.FixtureRequest) -> tuple[Statistics, Statistics]:
    return collected(request.param, None), collected(request.param, SUBSET)


def noise(seen: TensorStatistics, low: float, high: float) -> float:
    """Mean square error of 8 bits from low to high on the whole distribution."""
    values, counts = seen.histogram.centers(), seen.histogram.bins()[2]
    outside = values - np.clip(values, low, high)
    return float((counts * np.where(outside == 0, (high - low) ** 2 / 255**2 / 12, outside**2)).sum() / counts.sum())


def test_the_choice_leaves_something_out(pair: tuple[Statistics, Statistics]) -> None:
    full, chosen = pair
    assert len(full.tensors) > 15
    assert full.tensors.keys() == chosen.tensors.keys()
    assert any(chosen.tensors[n].histogram.total <= seen.count / 2 for n, seen in full.tensors.items())
    for name, seen in full.tensors.items():
        assert chosen.tensors[name].count == seen.count == seen.histogram.total
        bounds = (chosen.tensors[name].min, chosen.tensors[name].max)
        assert bounds == pytest.approx((seen.min, seen.max), rel=1e-4, abs=1e-5)


def test_a_percentile_moves_by_less_than_one_percent_of_the_range(pair: tuple[Statistics, Statistics]) -> None:
    """For all but the longest tails: one value in 10,000 is a few hundred of those that were counted."""
    full, chosen = pair
    moved = []
    for name, seen in full.tensors.items():
        low, high = Percentile().range(seen, SCHEME)
        other = Percentile().range(chosen.tensors[name], SCHEME)
        moved.append(max(abs(other[0] - low), abs(other[1] - high)) / max(high - low, 1e-30))
    assert np.median(moved) < 0.01
    assert np.mean(np.array(moved) < 0.01) > 0.75
    assert max(moved) < 0.05


@pytest.mark.parametrize("calibrator", [Percentile(), Mse()], ids=lambda c: type(c).__name__)
def test_the_range_of_the_choice_adds_little_noise(
    calibrator: Percentile | Mse, pair: tuple[Statistics, Statistics]
) -> None:
    """The best range is a flat optimum, so the range itself may move by more than its worth."""
    full, chosen = pair
    for name, seen in full.tensors.items():
        best = noise(seen, *calibrator.range(seen, SCHEME))
        assert noise(seen, *calibrator.range(chosen.tensors[name], SCHEME)) <= LIMIT * best, name
