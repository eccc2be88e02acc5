"""What a local search tries."""

from __future__ import annotations

from onnxq.placement.cut import Crossing, Problem, Unit
from onnxq.placement.search import flips, regions


def chain(*gains: float) -> Problem:
    """Units in a row; int8 saves `gains`, a conversion costs 1."""
    units = tuple(Unit(name=f"u{i}", float_cost=10.0, integer_cost=10.0 - g) for i, g in enumerate(gains))
    crossings = tuple(
        Crossing(tensor=f"t{i}", producer=i, readers=(i + 1,), float_readers=False, quantize=1.0, dequantize=1.0)
        for i in range(len(gains) - 1)
    )
    return Problem(units=units, crossings=crossings)


def test_regions_hang_together_and_have_one_label() -> None:
    problem = chain(1, 1, 1, 1, 1)
    assert regions(problem, (True, True, False, True, False)) == [(0, 1), (2,), (3,), (4,)]
    assert regions(problem, (True,) * 5) == [(0, 1, 2, 3, 4)]


def test_units_without_a_tensor_between_them_are_regions_of_their_own() -> None:
    problem = Problem(units=chain(1, 1).units, crossings=())
    assert regions(problem, (True, True)) == [(0,), (1,)]


def test_the_most_doubtful_flip_comes_first() -> None:
    problem = chain(5.0, 0.1, -5.0)
    found = list(flips(problem, (True, True, False)))
    costs = [problem.cost(labels) for labels in found]
    assert costs == sorted(costs)
    assert found[0] == (True, False, False)  # 0.1 lost
    assert (False, False, False) in found  # the whole region
    assert (True, True, True) in found


def test_a_region_that_is_everything_is_a_form_of_its_own_already() -> None:
    assert list(flips(chain(1, 1), (True, True))) == []
