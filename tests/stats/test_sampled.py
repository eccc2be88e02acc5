"""What is left out by counting a choice of the elements is not missed."""

from __future__ import annotations

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
from onnxq_calibration._distribution import distribution
from onnxq_calibration.entropy import Entropy, divergence
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


def test_a_percentile_moves_by_less_than_one_percent_of_the_range(pair: tuple[Statistics, Statistics]) -> None:
    """Of every tensor, because the tails are counted exactly."""
    assert moved(*pair, Percentile()).max() < 0.01


def test_the_least_error_moves_by_less_than_one_percent_for_nine_tensors_of_ten(
    pair: tuple[Statistics, Statistics],
) -> None:
    """Its candidates lie 1.5 % apart, and the least of a flat function is one or the other of two of them."""
    found = moved(*pair, Mse())
    assert np.mean(found < 0.01) >= 0.9
    assert found.max() < 0.05


@pytest.mark.parametrize("calibrator", [Percentile(), Mse()], ids=lambda c: type(c).__name__)
def test_the_range_of_the_choice_adds_no_noise(
    calibrator: Percentile | Mse, pair: tuple[Statistics, Statistics]
) -> None:
    """Where the range itself moves, it is because the optimum is flat."""
    full, chosen = pair
    for name, seen in full.tensors.items():
        best = noise(seen, *calibrator.range(seen, SCHEME))
        assert noise(seen, *calibrator.range(chosen.tensors[name], SCHEME)) <= LIMIT * best, name


def kept(seen: TensorStatistics, low: float, high: float) -> float:
    """Divergence of the whole distribution from the quantized one, as entropy looks at it."""
    bins = Entropy().bins
    ends = min(seen.min, 0.0) if seen.min < 0 else 0.0, seen.max
    edges = np.linspace(*ends, bins + 1)
    counts = distribution(seen).without_zero().rebin(edges)
    start, end = (int(np.argmin(np.abs(edges - bound))) for bound in (min(low, 0.0), high))
    return float(divergence(counts, start, np.array([end]), 256)[0])


def test_entropy_of_the_choice_keeps_as_much(pair: tuple[Statistics, Statistics]) -> None:
    """Its function is flat, so that the range may move by a tenth; what it keeps must not."""
    full, chosen = pair
    for name, seen in full.tensors.items():
        if seen.max <= 0 or seen.max == seen.min:
            continue
        best, got = (kept(seen, *Entropy().range(s, SCHEME)) for s in (seen, chosen.tensors[name]))
        assert got <= best + 0.02, (name, best, got)
