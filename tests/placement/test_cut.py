"""The cut against brute force on every small problem."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterator

import pytest

from onnxq.encoding import Kind
from onnxq.placement.cut import (
    Alternative,
    Crossing,
    Kinds,
    Labels,
    Problem,
    Unit,
    cheapest,
    combined,
    conversions,
    every,
    front,
    quietest,
)


def with_kinds(unit: Unit, rng: random.Random) -> Unit:
    """One to three of the kinds, or none; now and then a unit that cannot be int8."""
    names: tuple[Kind, ...] = ("dynamic", "weights8", "weights4")
    found = tuple(
        Alternative(kind=kind, cost=rng.uniform(0, 100) * 1e-6, noise=rng.choice([0.0, rng.uniform(0, 0.5)]))
        for kind in names[: rng.randint(0, 3)]
    )
    beside = tuple(
        Alternative(kind=a.kind, cost=rng.uniform(0, 100) * 1e-6, noise=unit.noise + a.noise, integer=True)
        for a in found
        if rng.random() < 0.4
    )
    return dataclasses.replace(unit, alternatives=(*found, *beside), placeable=rng.random() < 0.8)


def every_choice(some: Problem) -> Iterator[tuple[Labels, Kinds]]:
    """All labels with all kinds."""
    for labels in every(some):
        open_kinds: list[tuple[Kind | None, ...]] = [
            (None, *(a.kind for a in unit.alternatives if a.integer == integer))
            for unit, integer in zip(some.units, labels, strict=True)
        ]
        for kinds in itertools.product(*open_kinds):
            yield labels, kinds


def problem(seed: int, *, kinds: bool = False, most: int = 12) -> Problem:
    rng = random.Random(seed)
    count = rng.randint(1, most)
    units = tuple(
        Unit(
            name=f"u{i}",
            float_cost=rng.uniform(0, 100) * 1e-6,
            integer_cost=rng.uniform(0, 100) * 1e-6,
            noise=rng.choice([0.0, rng.uniform(0, 1), rng.uniform(0, 0.01)]),
        )
        for i in range(count)
    )
    if kinds:
        units = tuple(with_kinds(unit, rng) for unit in units)
    unplaced = {i for i, unit in enumerate(units) if not unit.placeable}
    able = [i for i in range(count) if i not in unplaced]
    crossings = []
    for i in range(rng.randint(0, 2 * count)):
        readers = tuple(sorted(rng.sample(able, rng.randint(0, min(3, len(able))))))
        crossings.append(
            Crossing(
                tensor=f"t{i}",
                producer=rng.choice([None, *able]),
                readers=readers,
                float_readers=rng.random() < 0.3,
                quantize=rng.uniform(0, 40) * 1e-6,
                dequantize=rng.choice([0.0, rng.uniform(0, 40) * 1e-6]),
            )
        )
    return Problem(units=units, crossings=tuple(crossings), fixed=rng.uniform(0, 1e-4))


@pytest.mark.parametrize("seed", range(60))
def test_no_assignment_is_cheaper(seed: int) -> None:
    some = problem(seed)
    least = min(some.cost(labels) for labels in every(some))
    assert some.cost(cheapest(some)) == pytest.approx(least, rel=1e-6)


@pytest.mark.parametrize("seed", range(30))
def test_with_a_price_on_noise_no_assignment_is_cheaper(seed: int) -> None:
    some = problem(seed)
    price = random.Random(seed).uniform(0, 1e-3)
    least = min(some.cost(labels) + price * some.noise(labels) for labels in every(some))
    labels = cheapest(some, price)
    assert some.cost(labels) + price * some.noise(labels) == pytest.approx(least, rel=1e-6)


@pytest.mark.parametrize("seed", range(40))
def test_under_a_limit_of_noise_no_assignment_is_cheaper(seed: int) -> None:
    some = problem(seed)
    limit = random.Random(seed).uniform(0, 1) * sum(u.noise for u in some.units)
    least = min(some.cost(labels) for labels in every(some) if some.noise(labels) <= limit)
    labels, kinds = quietest(some, limit)
    assert not any(kinds)
    assert some.noise(labels) <= limit * (1 + 1e-6)
    assert some.cost(labels) == pytest.approx(least, rel=1e-5)


def test_no_noise_at_all_leaves_what_makes_none() -> None:
    units = (
        Unit(name="a", float_cost=9e-6, integer_cost=1e-6, noise=0.1),
        Unit(name="b", float_cost=9e-6, integer_cost=1e-6),
    )
    assert quietest(Problem(units=units, crossings=()), 0.0) == ((False, True), (None, None))


def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="below 0"):
        quietest(problem(0), -1.0)


@pytest.mark.parametrize("seed", range(20))
def test_each_point_of_the_front_is_the_best_at_its_noise(seed: int) -> None:
    some = problem(seed)
    points = front(some, limit=200)
    assert points[0].seconds == pytest.approx(min(some.cost(labels) for labels in every(some)), rel=1e-6)
    assert points[-1].noise == 0.0 or not any(u.noise for u in some.units)
    for before, after in itertools.pairwise(points):
        assert before.seconds <= after.seconds
        assert before.noise >= after.noise
    for point in points[:-1]:
        least = min(some.cost(labels) for labels in every(some) if some.noise(labels) <= point.noise)
        assert point.seconds == pytest.approx(least, rel=1e-6)


def test_a_tensor_is_converted_once_for_all_readers() -> None:
    units = tuple(Unit(name=f"u{i}", float_cost=3e-6, integer_cost=1e-6) for i in range(3))
    shared = Crossing(tensor="x", producer=None, readers=(0, 1, 2), float_readers=False, quantize=5e-6, dequantize=0.0)
    assert cheapest(Problem(units=units, crossings=(shared,))) == (True, True, True)
    dear = Crossing(tensor="x", producer=None, readers=(0, 1, 2), float_readers=False, quantize=7e-6, dequantize=0.0)
    assert cheapest(Problem(units=units, crossings=(dear,))) == (False, False, False)


def test_conversions() -> None:
    crossing = Crossing(tensor="t", producer=0, readers=(1, 2), float_readers=False, quantize=1.0, dequantize=1.0)
    assert conversions(crossing, (False, False, False)) == (False, False)
    assert conversions(crossing, (False, True, False)) == (True, False)
    assert conversions(crossing, (True, True, True)) == (False, False)
    assert conversions(crossing, (True, True, False)) == (False, True)
    assert conversions(crossing, (True, False, False)) == (False, True)


def test_costs_of_any_size_survive_the_integers_of_the_flow() -> None:
    for factor in (1e-9, 1.0, 1e12):
        units = (
            Unit(name="a", float_cost=2 * factor, integer_cost=1 * factor),
            Unit(name="b", float_cost=1 * factor, integer_cost=2 * factor),
        )
        assert cheapest(Problem(units=units, crossings=())) == (True, False)


def test_equal_costs_stay_float() -> None:
    assert cheapest(Problem(units=(Unit(name="a", float_cost=1.0, integer_cost=1.0),), crossings=())) == (False,)
    assert cheapest(Problem(units=(), crossings=())) == ()


def test_combined_costs_are_weighted_sums() -> None:
    some, rng = problem(3), random.Random(0)
    other = Problem(
        units=tuple(dataclasses.replace(u, float_cost=rng.random(), integer_cost=rng.random()) for u in some.units),
        crossings=tuple(dataclasses.replace(c, quantize=rng.random()) for c in some.crossings),
        fixed=0.25,
    )
    both = combined([some, other], [0.5, 2.0])
    for labels in itertools.islice(every(some), 40):
        assert both.cost(labels) == pytest.approx(0.5 * some.cost(labels) + 2.0 * other.cost(labels))
        assert both.noise(labels) == some.noise(labels)


@pytest.mark.parametrize("seed", range(60))
def test_with_kinds_no_choice_is_cheaper(seed: int) -> None:
    some = problem(seed, kinds=True, most=6)
    for price in (0.0, random.Random(seed).uniform(0, 1e-3)):
        least = min(some.cost(*choice) + price * some.noise(*choice) for choice in every_choice(some))
        labels = cheapest(some, price)
        choice = labels, some.kinds(labels, price)
        assert some.cost(*choice) + price * some.noise(*choice) == pytest.approx(least, rel=1e-6, abs=1e-12)
        assert not any(label and not unit.placeable for label, unit in zip(labels, some.units, strict=True))


@pytest.mark.parametrize("seed", range(40))
def test_with_kinds_under_a_limit_of_noise(seed: int) -> None:
    some = problem(seed, kinds=True, most=6)
    limit = random.Random(seed).uniform(0, 1) * sum(u.noise for u in some.units)
    least = min(some.cost(*choice) for choice in every_choice(some) if some.noise(*choice) <= limit)
    choice = quietest(some, limit)
    assert some.noise(*choice) <= limit * (1 + 1e-6) + 1e-9
    assert some.cost(*choice) == pytest.approx(least, rel=1e-5, abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_with_kinds_each_point_of_the_front_is_the_best_at_its_noise(seed: int) -> None:
    some = problem(seed, kinds=True, most=5)
    points = front(some, limit=200)
    for before, after in itertools.pairwise(points):
        assert before.seconds <= after.seconds
        assert before.noise >= after.noise
    assert not any(points[-1].kinds) or points[-1].noise == 0
    for point in points[:-1]:
        least = min(some.cost(*c) for c in every_choice(some) if some.noise(*c) <= point.noise * (1 + 1e-9))
        assert point.seconds == pytest.approx(least, rel=1e-6, abs=1e-12)


def test_a_kind_needs_no_conversions() -> None:
    """int8 is the fastest for itself, but not with the conversions around it; the kind is faster than float."""
    unit = Unit(
        name="a", float_cost=9e-6, integer_cost=1e-6, alternatives=(Alternative(kind="dynamic", cost=2e-6, noise=0.1),)
    )
    crossing = Crossing(tensor="x", producer=None, readers=(0,), float_readers=False, quantize=2e-6, dequantize=0.0)
    some = Problem(units=(unit,), crossings=(crossing,))
    assert cheapest(some) == (False,)
    assert some.kinds((False,)) == ("dynamic",)
    assert some.kinds((True,)) == (None,)
    assert some.kinds((False,), price=1e-3) == (None,)  # too loud at that price
    assert some.cost((False,), ("dynamic",)) == 2e-6
    assert some.noise((False,), ("dynamic",)) == 0.1
    assert some.noise((True,), (None,)) == 0.0
    assert some.cost((False,), ("weights8",)) == some.cost((False,)) == 9e-6  # what it cannot have changes nothing


def test_combined_alternatives() -> None:
    one = problem(5, kinds=True, most=6)
    slow = [
        dataclasses.replace(u, alternatives=tuple(dataclasses.replace(a, cost=7.0) for a in u.alternatives))
        for u in one.units
    ]
    both = combined([one, dataclasses.replace(one, units=tuple(slow))], [0.5, 2.0])
    for unit, first in zip(both.units, one.units, strict=True):
        for a, b in zip(unit.alternatives, first.alternatives, strict=True):
            assert (a.kind, a.noise) == (b.kind, b.noise)
            assert a.cost == pytest.approx(0.5 * b.cost + 14.0)
    assert any(u.alternatives for u in both.units)
