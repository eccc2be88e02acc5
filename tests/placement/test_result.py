"""Which form is taken, and what is said about it."""

from __future__ import annotations

import math

import pytest

from onnxq.placement.race import Timing
from onnxq.placement.result import PAYS, Form, best
from onnxq.placement.told import told


def form(name: str, *ratios: float, predicted: float = math.nan) -> Form:
    """With the file's speed as 1 and a run of 10 ms."""
    first, *others = (Timing(seconds=0.01 / r, ratio=r, low=r, high=r) for r in ratios)
    return Form(name=name, integer_units=1, predicted=predicted, timing=first, others=tuple(others))


def test_the_fastest_over_all_numbers_of_threads_is_taken() -> None:
    forms = [form("float", 1.1, 1.1), form("a", 2.0, 1.2), form("b", 1.7, 1.6)]
    assert best(forms) == 2
    assert forms[1].gain == pytest.approx(math.sqrt(2.4))


@pytest.mark.parametrize(("ratios", "taken"), [((2.0, 1.7), 1), ((2.0, 1.61), 2), ((1.9, 1.9), 1), ((1.8, 1.81), 2)])
def test_of_forms_that_are_as_fast_over_all_one_thread_decides(ratios: tuple[float, float], taken: int) -> None:
    """What several threads take is another thing from one moment to the next."""
    assert best([form("float", 1.0, 1.0), form("a", *ratios), form("b", 1.85, 1.82)]) == taken


def test_what_is_even_must_pay_as_well() -> None:
    assert best([form("float", 1.0, 1.0), form("a", 1.02, 1.03), form("b", 1.03, 1.0)]) == 1


@pytest.mark.parametrize(("ratios", "taken"), [((3.0, 0.99), 2), ((3.0, 1.0), 1)])
def test_a_form_that_is_slower_than_the_file_with_any_number_of_threads_is_not(
    ratios: tuple[float, float], taken: int
) -> None:
    assert best([form("float", 1.0, 1.0), form("a", *ratios), form("b", 1.2, 1.2)]) == taken


@pytest.mark.parametrize(("margin", "taken"), [(0.999, 0), (1.001, 1)])
def test_what_is_hardly_faster_than_float_is_not_worth_its_error(margin: float, taken: int) -> None:
    assert best([form("float", 1.3), form("a", 1.3 * PAYS * margin)]) == taken
    assert best([form("float", 0.9)]) == 0


def test_each_number_of_threads_is_named_and_what_was_left_out_for_one_of_them() -> None:
    forms = [form("float", 1.0, 1.0), form("a", 4.0, 0.9), form("b", 1.25, 1.25)]
    first, second = told(forms, best(forms), (1, 8), unknown=None)
    assert "chose b of 3 forms: 8.000 ms with 1 thread (float 10.000 ms), 8.000 ms with 8 threads" in first
    assert second.startswith(
        "The form a would be 1.52 times as fast over all, but is 10.0 % slower than the file with 8"
    )
    assert len(told([forms[0], forms[2]], 1, (1, 8), unknown=None)) == 1


@pytest.mark.parametrize(("predicted", "sentences"), [(0.0085, 1), (0.006, 2), (math.nan, 1)])
def test_a_prediction_that_missed_is_said(predicted: float, sentences: int) -> None:
    forms = [form("float", 1.0), form("a", 1.25, predicted=predicted)]
    notes = told(forms, 1, (1,), unknown=None)
    assert len(notes) == sentences
    assert sentences == 1 or notes[1].startswith("The costs predicted 6.000 ms for it, over 10 %")


def test_with_a_cost_file_nothing_was_timed() -> None:
    forms = [form("float", 1.0), form("a", 2.0)]
    (note,) = told(forms, 1, (1,), unknown=0.25)
    assert note == (
        "Placement by the cost file chose a: float 10.000 ms, a 5.000 ms (25 % of the time is estimated); "
        "nothing was timed here."
    )
