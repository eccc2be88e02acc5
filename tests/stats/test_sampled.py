"""What is left out by counting a choice of the elements is not missed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxq.data.open import open_dataset
from onnxq.encoding import Scheme
from onnxq.ir.load import load
from onnxq.runtime.session import Level, Session
from onnxq.stats.calibrator import Calibrator
from onnxq.stats.collect import collect
from onnxq.stats.observers import SUBSET
from onnxq.stats.statistics import Statistics, TensorStatistics
from onnxq.stats.taps import produced
from onnxq_calibration.entropy import Entropy
from onnxq_calibration.mixed import Mixed
from onnxq_calibration.mse import Mse
from onnxq_calibration.percentile import Percentile

MODELS = Path(__file__).resolve().parents[2] / "models"
LIMIT = 1.05
"""0.2 dB: the noise with the range of a choice of elements, over the noise with the range of all."""
SCHEME = Scheme(type="uint8", symmetric=False)


def collected(name: str, subset: int | None) -> Statistics:
    """With the distribution of so many elements of each array."""
    path = MODELS / name / "model.onnx"
    model = load(path)
    inputs = Session(path, level=Level.OFF, threads=1).inputs
    data = open_dataset(str(MODELS / "fashion-mnist" / "calib.npz"), inputs, None, limit=256)
    observers = ("minmax", "histogram", "heldout")
    return collect(model, produced(model.graph), data, observers, threads=1, subset=subset)


NAMES = ["fashion-res8", "fashion-mobilenet"]
SCARCE = 2048
"""Elements of an array with which no tensor of these small models but the smallest is counted whole."""


@pytest.fixture(scope="module", params=NAMES)
def pair(request: pytest.FixtureRequest) -> tuple[Statistics, Statistics]:
    return collected(request.param, None), collected(request.param, SUBSET)


@pytest.fixture(scope="module", params=NAMES)
def scarce(request: pytest.FixtureRequest) -> tuple[Statistics, Statistics]:
    """Large tensors are to their choice what those of these models are to a small one."""
    full, chosen = collected(request.param, None), collected(request.param, SCARCE)
    return without_pictures_of_relu(full), without_pictures_of_relu(chosen)


def without_pictures_of_relu(statistics: Statistics) -> Statistics:
    """Their tails are not counted exactly."""
    left = {n: seen for n, seen in statistics.tensors.items() if "Relu" not in n and "Clip" not in n}
    return replace(statistics, tensors=left)


def noise(seen: TensorStatistics, low: float, high: float) -> float:
    """Mean square error of 8 bits from low to high on the whole distribution."""
    values, counts = seen.histogram.centers(), seen.histogram.bins()[2]
    outside = values - np.clip(values, low, high)
    return float((counts * np.where(outside == 0, (high - low) ** 2 / 255**2 / 12, outside**2)).sum() / counts.sum())


def test_the_choice_leaves_something_out(scarce: tuple[Statistics, Statistics]) -> None:
    full, chosen = scarce
    assert len(full.tensors) > 10
    assert full.tensors.keys() == chosen.tensors.keys()
    fewer = [len(chosen.tensors[n].histogram.keys) < len(seen.histogram.keys) for n, seen in full.tensors.items()]
    assert sum(fewer) > 5
    for name, seen in full.tensors.items():
        assert chosen.tensors[name].count == seen.count == seen.histogram.total
        assert chosen.tensors[name].histogram.total == pytest.approx(seen.count, rel=2e-3)  # each stands for so many
        bounds = (chosen.tensors[name].min, chosen.tensors[name].max)
        assert bounds == pytest.approx((seen.min, seen.max), rel=1e-4, abs=1e-5)


def moved(full: Statistics, chosen: Statistics, calibrator: Calibrator) -> NDArray[np.float64]:
    """By how much of the range of all elements a bound moves, [tensors]."""
    out = []
    for name, seen in full.tensors.items():
        low, high = calibrator.range(seen, SCHEME)
        other = calibrator.range(chosen.tensors[name], SCHEME)
        out.append(max(abs(other[0] - low), abs(other[1] - high)) / max(high - low, 1e-30))
    return np.array(out)


@pytest.mark.parametrize("calibrator", [Percentile(), Mse(), Mixed()], ids=lambda c: type(c).__name__)
def test_a_range_moves_by_less_than_one_percent(calibrator: Calibrator, pair: tuple[Statistics, Statistics]) -> None:
    assert moved(*pair, calibrator).max() < 0.01


def test_a_range_of_entropy_moves_by_less_than_one_percent_for_nineteen_of_twenty(
    pair: tuple[Statistics, Statistics],
) -> None:
    """Its function has several minima that are nearly equal."""
    found = moved(*pair, Entropy())
    assert np.mean(found < 0.01) >= 0.95
    assert found.max() < 0.05


def test_a_percentile_of_few_elements_moves_by_less_than_one_percent(scarce: tuple[Statistics, Statistics]) -> None:
    """Because the tails are counted exactly."""
    assert moved(*scarce, Percentile()).max() < 0.01


@pytest.mark.parametrize("calibrator", [Mse(), Mixed()], ids=lambda c: type(c).__name__)
def test_the_least_error_of_few_elements_moves_by_less_than_one_percent_for_nearly_all(
    calibrator: Calibrator, scarce: tuple[Statistics, Statistics]
) -> None:
    """Because the middle of the ranges that are as good is taken, and not the least of a flat function."""
    found = moved(*scarce, calibrator)
    assert np.mean(found < 0.01) >= 0.98
    assert found.max() < 0.02


@pytest.mark.parametrize("calibrator", [Percentile(), Mse()], ids=lambda c: type(c).__name__)
def test_the_range_of_few_elements_adds_no_noise(
    calibrator: Percentile | Mse, scarce: tuple[Statistics, Statistics]
) -> None:
    """Where the range itself moves, it is because the optimum is flat."""
    full, chosen = scarce
    for name, seen in full.tensors.items():
        best = noise(seen, *calibrator.range(seen, SCHEME))
        assert noise(seen, *calibrator.range(chosen.tensors[name], SCHEME)) <= LIMIT * best, name
