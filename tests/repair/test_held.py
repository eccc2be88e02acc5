"""What counts as a gain, and on which samples it is looked for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tiny
from scipy.stats import rankdata
from switched import inserted, planned
from whole import Samples

from onnxq.data.sample import Sample
from onnxq.repair.held import BYTES, GAIN, LEAST, SAMPLES, Held, Levels, chance, split, verdict

BASE = np.linspace(20, 30, 12)[:, None]
"""Samples of one part."""


def steady(gain: float) -> Levels:
    return np.asarray(BASE + gain)


def test_a_steady_gain_pays() -> None:
    assert verdict(BASE, steady(GAIN * 1.01)) == ""


def test_a_small_one_does_not() -> None:
    assert verdict(BASE, steady(GAIN * 0.9)) == "+0.09 dB, at least 0.1 asked"
    assert verdict(BASE, steady(-1)).startswith("-1.00 dB")


def test_a_large_mean_of_a_few_samples_may_be_chance() -> None:
    lucky = BASE.copy()
    lucky[:2] += 20
    lucky[2:5] -= 1
    assert verdict(BASE, lucky) == "+3.08 dB, but better on 2 and worse on 3 samples, which may be chance"


def test_losses_that_are_small_beside_the_gains_are_no_reason() -> None:
    mixed = BASE + np.where(np.arange(12) < 8, 3.0, -0.2)[:, None]
    assert verdict(BASE, mixed) == ""


def test_a_part_that_was_not_the_worst_may_be_so_afterwards() -> None:
    """The samples of two parts are no pairs: a gain on every sample is no chance because of that."""
    apart = np.where(np.arange(12) % 2, 6.0, -6.0)[:, None]
    before = np.hstack([BASE, BASE + 1 + apart])
    after = np.hstack([BASE + 5, BASE + 2 + apart])
    found = after.min(axis=1) - before.min(axis=1)
    assert (found > 0).all()
    assert verdict(before, after) == ""
    assert verdict(after, before) == "-2.00 dB, at least 0.1 asked"


def test_a_gain_of_the_better_part_is_none() -> None:
    before = np.hstack([BASE, BASE + 10])
    assert verdict(before, before + np.array([0, 10])) == "+0.00 dB, at least 0.1 asked"
    assert verdict(before, before + np.array([2, -5])) == ""


@pytest.mark.parametrize("seed", range(6))
def test_the_signed_rank_test_counts_all_signs(seed: int) -> None:
    """Held against all choices of signs, ties included."""
    change = np.random.default_rng(seed).integers(-4, 6, 9).astype(np.float64)
    ranks = rankdata(np.abs(change[change != 0]))
    seen = ranks[change[change != 0] > 0].sum()
    sums = [np.dot(signs, ranks) for signs in itertools.product((0, 1), repeat=len(ranks))]
    assert chance(change) == pytest.approx(np.mean([total >= seen - 1e-9 for total in sums]))


def test_no_change_at_all_is_chance() -> None:
    assert chance(np.zeros(5)) == 1.0


def data(count: int, size: int = 4) -> tuple[Samples, Sample]:
    some = Samples([{"x": np.full(size, i, np.float32)} for i in range(count)])
    return some, next(iter(some))


@pytest.mark.parametrize("effort", ["fast", "default", "max"])
def test_every_third_sample_is_held_out_and_the_two_parts_share_none(effort: str) -> None:
    some, first = data(300)
    fit, held = split(some, effort, first)
    seen = [int(s["x"][0]) for s in (*fit, *held)]
    assert len(seen) == len(set(seen)) == SAMPLES[effort]
    assert len(held) == SAMPLES[effort] // 3
    assert max(seen) > 280


def test_too_few_samples_are_none() -> None:
    assert split(*_with(LEAST - 1)) == ([], [])
    assert len(split(*_with(LEAST))[1]) == 4


def test_large_inputs_are_fewer_samples() -> None:
    some, _ = data(200)
    large = Sample(index=0, name="large", inputs={"x": np.broadcast_to(np.float32(0), (BYTES // 4 // 30,))})
    fit, held = split(some, "default", large)
    assert len(fit) + len(held) == 30


def _with(count: int) -> tuple[Samples, str, Sample]:
    some, first = data(count)
    return some, "default", first


def test_the_float_model_is_remembered() -> None:
    images = [{"image": np.random.default_rng(i).uniform(0, 3, (1, *tiny.SHAPE)).astype(np.float32)} for i in range(4)]
    model, plan = planned(tiny.classifier(), images)
    held = Held(model, images, 1)
    assert held.measurable and len(held) == 4
    assert (held.levels(model) == 60).all()  # as near as is told apart
    found = held.levels(inserted(model, plan))
    assert found.shape == (4, 1) and (found < 60).all() and (found > 10).all()
