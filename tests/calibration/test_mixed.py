"""The method `mixed`: per tensor the method that loses least on samples that it did not see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxq import registry
from onnxq.encoding import Scheme
from onnxq.errors import UsageError
from onnxq.numerics import affine, dequantize, quantize
from onnxq.stats.calibrator import FeelingCalibrator
from onnxq.stats.observers import Heldout, Histogram, MinMax
from onnxq.stats.statistics import TensorStatistics
from onnxq.stats.surroundings import linear
from onnxq_calibration.mixed import METHODS, Mixed

U8 = Scheme(type="uint8", symmetric=False)


def seen(samples: Sequence[NDArray[np.float32]]) -> TensorStatistics:
    """Statistics as the collector makes them: every fourth sample is held out."""
    ends, whole, aside = MinMax(), Histogram(None), Heldout(None)
    for position, sample in enumerate(samples):
        ends.update(sample)
        whole.update(sample)
        if position % 4 == 3:
            aside.update(sample)
    return TensorStatistics("t", {"minmax": ends, "histogram": whole, "heldout": aside})


def normal(count: int, size: int = 4000) -> list[NDArray[np.float32]]:
    random = np.random.default_rng(0)
    return [random.standard_normal(size).astype(np.float32) for _ in range(count)]


def noise(values: NDArray[np.float32], bounds: tuple[float, float]) -> float:
    encoding = affine(*bounds, U8)
    return float(((dequantize(quantize(values, encoding), encoding) - values).astype(np.float64) ** 2).sum())


def single(name: str, statistics: TensorStatistics) -> Any:
    return registry.load(registry.CALIBRATORS, name)().range(statistics, U8)


def test_freak_values_of_one_sample_do_not_set_the_range() -> None:
    samples = normal(16)
    samples[0][0] = 300.0
    low, high = Mixed().range(seen(samples), U8)
    assert high < 10
    assert low > -10


def test_large_values_that_come_again_are_kept() -> None:
    samples = normal(16)
    for sample in samples:
        sample[:40] = 30.0
    assert Mixed().range(seen(samples), U8)[1] == pytest.approx(30.0, rel=0.02)


@pytest.mark.parametrize("power", [1, 3, 5])
def test_it_loses_no_more_than_any_single_method_on_samples_nobody_saw(power: int) -> None:
    random = np.random.default_rng(power)
    draw = lambda: (random.standard_normal(4000) ** power).astype(np.float32)  # noqa: E731
    statistics = seen([draw() for _ in range(64)])
    fresh = np.concatenate([draw() for _ in range(64)])
    losses = {name: noise(fresh, single(name, statistics)) for name in METHODS}
    assert noise(fresh, Mixed().range(statistics, U8)) <= 1.05 * min(losses.values())


def test_what_the_next_op_does_not_feel_does_not_count() -> None:
    samples = [np.abs(8 * s) for s in normal(16)]

    def saturating(x: NDArray[np.float64], peak: float) -> NDArray[np.float64]:
        return np.minimum(x, 4.0)

    statistics = seen(samples)
    plain = Mixed().range_felt(statistics, U8, [linear])
    felt = Mixed().range_felt(statistics, U8, [saturating])
    assert felt[1] < 0.9 * plain[1]
    both = Mixed().range_felt(statistics, U8, [linear, saturating])
    assert both[1] >= felt[1]


def test_readers_unknown_is_as_one_linear_reader() -> None:
    statistics = seen(normal(8))
    assert Mixed().range(statistics, U8) == Mixed().range_felt(statistics, U8, [linear])
    assert isinstance(Mixed(), FeelingCalibrator)


@pytest.mark.parametrize("count", [1, 3])
def test_with_fewer_than_four_samples_they_judge_themselves(count: int) -> None:
    statistics = seen(normal(count))
    low, high = Mixed().range(statistics, U8)
    assert statistics.min <= low < 0 < high <= statistics.max


def test_the_chosen_range_is_that_of_the_method_on_all_samples() -> None:
    statistics = seen(normal(16))
    assert Mixed().range(statistics, U8) in [single(name, statistics) for name in METHODS]


def test_a_wide_margin_keeps_the_whole_range() -> None:
    samples = normal(16)
    samples[0][0] = 12.0
    statistics = seen(samples)
    assert Mixed(margin=0.999999).range(statistics, U8) == (statistics.min, statistics.max)
    assert Mixed(margin=0).range(statistics, U8) != (statistics.min, statistics.max)


@pytest.mark.parametrize("margin", [-0.1, float("nan")])
def test_a_margin_below_zero_is_refused(margin: float) -> None:
    with pytest.raises(UsageError, match="margin"):
        Mixed(margin=margin)
