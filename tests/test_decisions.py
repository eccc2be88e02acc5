"""What decisions that turn over cost, by the float model's own probabilities."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from onnxq import nearness
from onnxq.config.placing import Budget, Judged, Placing
from onnxq.decisions import Decisions, by_decisions
from onnxq.ir import text
from onnxq.ir.model import Model
from onnxq.options import Options

HEAD = '<ir_version: 10, opset_import: ["" : 21]>'
PASSES = Judged(holds=True, sentence="12.0 dB", sqnr_db=12.0)


def rows(*values: list[float]) -> dict[str, Any]:
    return {"y": np.array(values, dtype=np.float32)}


def lost(exact: list[dict[str, Any]], other: list[dict[str, Any]]) -> list[float]:
    decisions = Decisions(exact)
    assert decisions
    return [round(float(decisions.lost(a, b).max()), 4) for a, b in zip(exact, other, strict=True)]


def test_of_classes_the_first_one_decides() -> None:
    exact = [rows([0.6, 0.3, 0.1]), rows([0.2, 0.3, 0.5])]
    other = [rows([0.3, 0.4, 0.3]), rows([0.1, 0.1, 0.8])]
    assert lost(exact, other) == [0.3, 0.0]


def test_classes_may_stand_on_axis_1() -> None:
    """As of a picture's points."""
    exact = {"y": np.array([[[[0.9, 0.6]], [[0.1, 0.4]]]], dtype=np.float32)}
    other = {"y": np.array([[[[0.2, 0.6]], [[0.8, 0.4]]]], dtype=np.float32)}
    assert lost([exact], [other]) == [0.4]  # mean of 0.8 and 0


def test_a_single_probability_is_decided_at_one_half() -> None:
    exact = [rows([0.9]), rows([0.45]), rows([0.2])]
    other = [rows([0.4]), rows([0.55]), rows([0.4])]
    assert lost(exact, other) == [0.8, 0.1, 0.0]


def test_an_output_that_is_lost_as_a_whole() -> None:
    exact = [rows([0.9, 0.1])] * 3
    broken = [rows([math.nan, 0.1]), {"y": np.ones((2, 2), np.float32)}, rows([0.9, 0.1])]
    assert lost(exact, broken) == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    "outputs",
    [
        rows([1.5, 0.2]),  # no probability
        rows([-0.1, 0.7]),
        rows([0.1, 0.2]),  # none is decided for
        rows([math.nan, 0.7]),
        {"y": np.array([0, 1])},
        {"y": np.zeros((0, 2), np.float32)},
    ],
)
def test_what_is_no_probability_is_not_judged(outputs: dict[str, Any]) -> None:
    assert not Decisions([outputs])


def test_the_output_that_suffers_most_counts() -> None:
    exact = {**rows([0.9], [0.2]), "z": [np.array([0.8, 0.2], np.float32)], "n": np.ones(3, np.float32) * 7}
    other = {**exact, "z": [np.array([0.1, 0.9], np.float32)]}
    found = Decisions([exact]).lost(exact, other)
    assert found.tolist() == [0.0, pytest.approx(0.6)]


def sigmoid(shift: float) -> Model:
    return text.parse(
        f"{HEAD} g (float[1] x) => (float[1] y) <float s = {{{shift}}}> {{ a = Add(x, s) y = Sigmoid(a) }}"
    )


SAMPLES = [{"x": np.array([at], np.float32)} for at in np.linspace(-4, 4, 64)]


@pytest.mark.parametrize(("shift", "holds", "chance"), [(0.0, True, False), (0.6, True, True), (2.0, False, False)])
def test_what_is_expected_to_be_lost_beyond_chance_does_not_hold(shift: float, holds: bool, chance: bool) -> None:
    judge = by_decisions(lambda _: PASSES, sigmoid(0.0), SAMPLES, 1)
    found = judge(sigmoid(shift))
    assert found.holds == holds and found.sqnr_db == 12.0
    p = 1 / (1 + np.exp(-np.array([float(s["x"][0]) for s in SAMPLES])))
    q = 1 / (1 + np.exp(-np.array([float(s["x"][0]) + shift for s in SAMPLES])))
    cost = 100 * float((np.abs(2 * p - 1) * ((p > 0.5) != (q > 0.5))).mean())
    said = f"12.0 dB; by its own probabilities, the float model loses {cost:.2g} % by decisions that turn over on 64"
    assert found.sentence == f"{said}, at most 0.5 % allowed{', which may be chance' if chance else ''}"


def test_what_is_too_loud_is_not_looked_at_again() -> None:
    failed = replace(PASSES, holds=False)
    assert by_decisions(lambda _: failed, sigmoid(0.0), SAMPLES, 1)(sigmoid(0.0)) is failed


def test_without_probabilities_nothing_changes() -> None:
    def judge(_: Model) -> Judged:
        return PASSES

    assert (
        by_decisions(judge, text.parse(f"{HEAD} g (float[1] x) => (float[1] y) {{ y = Neg(x) }}"), SAMPLES, 1) is judge
    )


class Data:
    """Numbered samples, of which it is remembered how many were asked for."""

    def __len__(self) -> int:
        return 400

    def __iter__(self) -> Any:
        raise AssertionError("samples are picked")

    def pick(self, wanted: list[int]) -> list[Any]:
        asked.append(len(wanted))
        return [type("Picked", (), {"inputs": {"x": np.array([at / 50 - 4], np.float32)}}) for at in wanted]


asked: list[int] = []


@pytest.mark.parametrize(
    ("placing", "stated", "seconds", "wanted"),
    [
        (Placing(), False, 1e-3, [16, 256]),
        (Placing(), False, 0.02, [16, 100]),
        (Placing(), False, 1.0, [16]),
        (Placing(), False, math.inf, [16]),
        (Placing(effort="max"), False, 0.1, [16, 100]),
        (Placing(effort="fast"), False, 1e-3, [16]),
        (Placing(), True, 1e-3, [16]),
    ],
)
def test_more_samples_are_taken_of_fast_models(
    placing: Placing, stated: bool, seconds: float, wanted: list[int]
) -> None:
    """And of a budget that the user stated none: it is in decibels."""
    asked.clear()
    limit = Budget(min_sqnr_db=-20.0, stated=stated)
    options = cast(Options, SimpleNamespace(judge=None, placing=placing, budget=limit, threads=1))
    judge = nearness.judge_of(sigmoid(0.0), cast(Any, Data()), options, seconds=seconds)
    assert asked == wanted
    assert judge(sigmoid(3.0)).holds == (stated or placing.effort == "fast")
