"""What is left out by counting a choice of the elements is not missed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxq.data.open import open_dataset
from onnxq.data.sample import Sample
from onnxq.encoding import Scheme
from onnxq.ir.load import load
from onnxq.ir.text import parse
from onnxq.runtime.session import Level, Session
from onnxq.stats import collect as collect_module
from onnxq.stats import groups, picks
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


WEIGHTS = np.random.default_rng(2).standard_normal(32 * 9 + 40 * 32 * 9).astype(np.float32)
ANY_WIDTH = f"""<ir_version: 10, opset_import: ["": 21]> g (float[1,1,56,W] x) => (float[1,40,14,V] r)
  <float[32,1,3,3] a = {{{", ".join(map(str, WEIGHTS[:288]))}}},
   float[40,32,3,3] b = {{{", ".join(map(str, WEIGHTS[288:] / 17))}}}> {{
  c = Conv <pads=[1,1,1,1], strides=[2,2]> (x, a) s = Sigmoid(c) m = Mul(c, s)
  d = Conv <pads=[1,1,1,1], strides=[2,2]> (m, b) r = Relu(d) }}"""
"""Behind the first convolution, inference does not know the width."""


class Strips:
    """Pictures side by side in two rows, three to twelve of them in each."""

    labelled = False
    description = "strips of pictures"
    preprocess_summary = ""

    def __init__(self) -> None:
        with np.load(MODELS / "fashion-mnist" / "calib.npz") as found:
            self.pictures = next(iter(found.values()))[:512].reshape(-1, 28, 28).astype(np.float32)
        self.skipped: list[str] = []

    def __len__(self) -> int:
        return 64

    def __iter__(self) -> Iterator[Sample]:
        for index in range(len(self)):
            count = 3 + index * 7 % 10
            chosen = np.random.default_rng(index).integers(0, len(self.pictures), (2, count))
            strip = np.block([list(self.pictures[row]) for row in chosen])
            yield Sample(index=index, name=str(index), inputs={"x": strip[None, None]})


def strips(subset: int | None, *, forecast: bool) -> Statistics:
    """The tensors are small, so none is counted whole here: as if there were many more of them."""
    observers = ("minmax", "histogram", "heldout")
    with pytest.MonkeyPatch.context() as patch:
        for module in (collect_module, groups, picks):
            patch.setattr(module, "EVERY", 0)
        if not forecast:
            patch.setattr(collect_module, "forecasts", lambda *_: {})
        return collect(parse(ANY_WIDTH), ["c", "s", "m", "d", "r"], Strips(), observers, threads=1, subset=subset)


@pytest.fixture(scope="module")
def any_width() -> tuple[Statistics, Statistics, Statistics]:
    """All elements, the choice, and the choice of a few of what was fetched whole."""
    return strips(None, forecast=True), strips(SUBSET, forecast=True), strips(SUBSET, forecast=False)


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


@pytest.mark.parametrize("calibrator", [Percentile(), Mse(), Mixed(), Entropy()], ids=lambda c: type(c).__name__)
def test_a_range_moves_by_less_than_one_percent(calibrator: Calibrator, pair: tuple[Statistics, Statistics]) -> None:
    assert moved(*pair, calibrator).max() < 0.01


@pytest.mark.parametrize(
    ("calibrator", "limit"),
    [(Percentile(), 0.01), (Mse(), 0.01), (Mixed(), 0.01), (Entropy(), 0.02)],
    ids=lambda c: type(c).__name__,
)
def test_a_range_of_a_tensor_of_any_width_moves_by_less_than_one_percent(
    calibrator: Calibrator, limit: float, any_width: tuple[Statistics, Statistics, Statistics]
) -> None:
    full, chosen, _ = any_width
    found = moved(full, chosen, calibrator)
    assert np.any(found > 0)  # something was left out
    assert found.max() < limit


def test_without_a_forecast_of_the_width_it_moves_by_more(any_width: tuple[Statistics, Statistics, Statistics]) -> None:
    full, chosen, blind = any_width
    assert moved(full, blind, Percentile()).max() > 3 * moved(full, chosen, Percentile()).max()


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


def test_entropy_of_few_elements_moves_by_less_than_two_percent(scarce: tuple[Statistics, Statistics]) -> None:
    """Because counts are averaged over a step, and the middle of the ranges that are as good is taken."""
    found = moved(*scarce, Entropy())
    assert np.mean(found < 0.01) >= 0.9
    assert found.max() < 0.02
