"""The part of the outputs that counts for a budget."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxq.faintest import BEST, WORST, Parts, decibels_of, faintest

RNG = np.random.default_rng(0)


def normal(*shape: int, scale: float = 1.0) -> NDArray[np.float64]:
    return RNG.normal(0, scale, shape)


def with_noise(array: NDArray[np.float64], decibels: float) -> NDArray[np.float64]:
    return array * (1.0 + 10 ** (-decibels / 20))


def test_the_worst_output_counts_not_the_mean() -> None:
    """Six caches that are exact beside logits that are lost."""
    exact = {f"cache{i}": normal(1, 4, 8, 8) for i in range(6)} | {"logits": normal(1, 4, 100)}
    lost = exact | {"logits": normal(1, 4, 100)}
    found = faintest([exact], [lost])
    assert found.decibels < 0 and found.where == ' of output "logits"'


@pytest.mark.parametrize(("shape", "axis"), [((1, 6, 50), 1), ((1, 50, 6), 2), ((20, 6), 1), ((1, 2, 5, 5, 6), 4)])
def test_scores_beside_boxes_are_a_part_of_their_own(shape: tuple[int, ...], axis: int) -> None:
    scale = np.where(np.arange(6) < 4, 300.0, 0.5).reshape([6 if i == axis else 1 for i in range(len(shape))])
    exact = [normal(*shape) * scale for _ in range(3)]
    made = [with_noise(x, 40) if k < 3 else x for k, x in enumerate(exact)]
    found = faintest([{"y": x} for x in exact], [{"y": x} for x in made])
    assert found.decibels == pytest.approx(40, abs=0.01)
    lost = [np.where(scale > 1, x, 0.0) for x in exact]
    found = faintest([{"y": x} for x in exact], [{"y": x} for x in lost])
    assert found.decibels == pytest.approx(0, abs=0.01)
    assert found.where == f' of the quiet part of output "y" (2 of 6 slices along axis {axis})'
    whole = Parts([{"y": x} for x in exact], whole=True)
    levels = whole.levels([{"y": x} for x in exact], [{"y": x} for x in lost])
    assert levels.shape == (3, 1)
    assert (levels > 50).all()
    assert not whole.faintest(levels).where


def test_objectness_beside_boxes_of_a_few_cells_is_a_part() -> None:
    """Where most cells are empty, it is some 18 times quieter; without it no box is found, at 20 dB of the whole."""
    exact = normal(1, 50, 6) * [1.3, 1.3, 0.6, 0.5, 0.07, 0.4]
    lost = exact * [1, 1, 1, 1, 0, 1]
    assert decibels_of(exact, lost) > 20
    found = faintest([{"y": exact}], [{"y": lost}])
    assert found.decibels == pytest.approx(0, abs=0.01)
    assert "(1 of 6 slices along axis 2)" in found.where


def test_near_misses_are_one_part() -> None:
    """Slices that are not 10 times quieter, single scores, probabilities, and the sides of a picture."""
    near = normal(1, 6, 50) * np.where(np.arange(6) < 4, 8.0, 1.0)[:, None]
    single = np.array([[1e-9, 5.0, 3.0]])
    softmax = np.tile([[0.9899999], [0.01], [1e-7]], (1, 1, 50)).reshape(1, 3, 50)
    empty_rows = normal(1, 1, 40, 40) * np.where(np.arange(40) < 20, 1.0, 1e-6)[:, None]
    for exact in (near, single, softmax, empty_rows):
        found = faintest([{"y": exact}], [{"y": with_noise(exact, 30)}])
        assert found.decibels == pytest.approx(30, abs=0.01)
        assert not found.where


def test_what_is_not_comparable_is_lost_and_what_is_equal_is_best() -> None:
    exact = {"y": normal(1, 6, 50), "n": np.arange(3)}
    for other, expected in (({"y": exact["y"]}, BEST), ({"y": normal(1, 6, 49)}, WORST)):
        found = faintest([exact], [other | {"n": exact["n"]}])
        assert found.decibels == expected


def test_lost_outputs_count_as_worst() -> None:
    exact = np.ones(3)
    assert decibels_of(exact, np.array([1.0, np.nan, 1.0])) == WORST
    assert decibels_of(exact, np.ones(2)) == WORST
    assert decibels_of(np.zeros(3), np.zeros(3)) == decibels_of(np.ones(0), np.ones(0)) == BEST  # nothing was lost
    assert decibels_of(np.zeros(3), np.full(3, 1e-3)) == WORST


def test_without_float_outputs_equal_elements_are_counted() -> None:
    exact, other = [{"y": np.array([1, 2, 3, 4])}], [{"y": np.array([1, 2, 0, 4])}]
    assert not Parts(exact).floats
    assert (faintest(exact, other).decibels, faintest(exact, other).where) == (75.0, "")


def test_parts_are_those_of_the_first_samples() -> None:
    """What is asked on later samples is asked of the same slices, whatever is quiet there; an axis of another length
    is not taken apart."""
    scale = np.where(np.arange(6) < 4, 300.0, 0.5)[:, None]
    parts = Parts([{"y": normal(1, 6, 50) * scale}])
    loud = normal(1, 6, 50)
    lost = loud * (np.arange(6) < 4)[:, None]
    np.testing.assert_allclose(parts.levels([{"y": loud}], [{"y": lost}]), [[BEST, 0.0]])
    longer = normal(1, 7, 50)
    (both,) = parts.levels([{"y": longer}], [{"y": with_noise(longer, 30)}])
    np.testing.assert_allclose(both, [30.0, 30.0])


def test_the_part_that_is_worst_on_the_mean_decides_for_all_samples() -> None:
    exact = [{"a": normal(1, 100), "b": normal(1, 100)} for _ in range(3)]
    made = [{"a": with_noise(x["a"], 20), "b": with_noise(x["b"], b)} for x, b in zip(exact, (40, 10, 40), strict=True)]
    found = faintest(exact, made)
    assert found.where == ' of output "a"'
    np.testing.assert_allclose(found.levels, [20.0, 20.0, 20.0])


def test_each_sample_counts_alike() -> None:
    """One flipped decision must not decide about the method."""
    exact = [{"y": np.array([10.0, 0.0], np.float32)}, {"y": np.array([1.0, 0.0], np.float32)}]
    flipped = [{"y": np.array([0.0, 10.0], np.float32)}, {"y": np.array([1.0, 0.001], np.float32)}]
    found = faintest(exact, flipped)
    assert found.decibels == pytest.approx((10 * np.log10(0.5) + 60) / 2, abs=0.01)
    assert found.decibels == np.mean(found.levels)
    assert faintest(exact, exact).decibels == BEST
