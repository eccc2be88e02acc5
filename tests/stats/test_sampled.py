"""What is left out by counting a choice of samples and elements is not missed."""

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
from onnxq.stats.sampling import DISTRIBUTION, rank
from onnxq.stats.statistics import Statistics, TensorStatistics
from onnxq.stats.taps import produced
from onnxq_calibration.mse import Mse
from onnxq_calibration.percentile import Percentile

MODELS = Path(__file__).resolve().parents[2] / "models"
LIMIT = 1.26
"""1 dB: the noise with the range of a choice of samples, over the noise with the range of all."""
SCHEME = Scheme(type="uint8", symmetric=False)


def collected(keep: int, subset: int | None) -> Statistics:
    """With the distribution of so many of 256 samples and of so many elements of each array."""
    path = MODELS / "fashion-res8" / "model.onnx"
    model = load(path)
    inputs = Session(path, level=Level.OFF, threads=1).inputs
    data = open_dataset(str(MODELS / "fashion-mnist" / "calib.npz"), inputs, None, limit=256)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onnxq.stats.collect.DISTRIBUTION", keep)
        patch.setattr("onnxq.stats.collect.rank", lambda position, length: rank(position, length, keep))
        return collect(model, produced(model.graph), data, threads=1, subset=subset)


@pytest.fixture(scope="module")
def full() -> Statistics:
    return collected(256, None)


@pytest.fixture(scope="module")
def elements() -> Statistics:
    return collected(256, SUBSET)


@pytest.fixture(scope="module")
def samples() -> Statistics:
    return collected(DISTRIBUTION, SUBSET)


def noise(seen: TensorStatistics, low: float, high: float) -> float:
    """Mean square error of 8 bits from low to high on the whole distribution."""
    values, counts = seen.histogram.centers(), seen.histogram.bins()[2]
    outside = values - np.clip(values, low, high)
    return float((counts * np.where(outside == 0, (high - low) ** 2 / 255**2 / 12, outside**2)).sum() / counts.sum())


def test_the_choice_leaves_something_out(full: Statistics, samples: Statistics) -> None:
    assert len(full.tensors) > 15
    assert full.tensors.keys() == samples.tensors.keys()
    for name, seen in full.tensors.items():
        assert samples.tensors[name].count == seen.count == seen.histogram.total
        assert samples.tensors[name].histogram.total <= seen.count / 4
        bounds = (samples.tensors[name].min, samples.tensors[name].max)
        assert bounds == pytest.approx((seen.min, seen.max), rel=1e-4, abs=1e-5)


def test_a_choice_of_elements_moves_the_range_by_less_than_one_percent(full: Statistics, elements: Statistics) -> None:
    for name, seen in full.tensors.items():
        low, high = Percentile().range(seen, SCHEME)
        other = Percentile().range(elements.tensors[name], SCHEME)
        assert other == pytest.approx((low, high), abs=0.01 * (high - low)), name


@pytest.mark.parametrize("calibrator", [Percentile(), Mse()], ids=lambda c: type(c).__name__)
def test_a_choice_of_samples_adds_little_noise(
    calibrator: Percentile | Mse, full: Statistics, samples: Statistics
) -> None:
    """The best range is a flat optimum, so the range itself may move by more than its worth."""
    for name, seen in full.tensors.items():
        best = noise(seen, *calibrator.range(seen, SCHEME))
        chosen = noise(seen, *calibrator.range(samples.tensors[name], SCHEME))
        assert chosen < LIMIT * best, name
