"""SiLU, HardSwish and GELU: float by rules, integer where measured costs ask for it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from quantized import Result, quantize_text
from scipy.special import expit, ndtr

from onnxq.encoding import Scheme
from onnxq.ir import text
from onnxq.plan.gates import USUAL, fitted, with_gates
from onnxq.plan.plan import Decision, Placement, Plan
from onnxq.plan.spread import Spread
from onnxq_passes.expand_gates import ExpandGates

HEAD = '<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]> g '
SILU, HARD, GELU = "com.microsoft.QuickGelu <alpha = 1.0> (a)", "HardSwish(a)", "Gelu(a)"
CONSTANTS = {k: np.random.default_rng(i).normal(0, 0.5, (4, 4, 1, 1)).astype(np.float32) for i, k in enumerate("WV")}


def result(
    op: str, placement: Placement | None = None, *, behind: str = "y = Conv(b, V)", target: str = "cpu"
) -> Result:
    """Conv, the op, Conv."""
    source = (
        f"{HEAD}(float[1,4,8,8] x) => (float[1,4,8,8] y) <float[4,4,1,1] W = {{0}}, float[4,4,1,1] V = {{0}}> "
        f"{{ [c] a = Conv(x, W) [op] b = {op} {behind} }}"
    )
    return quantize_text(source, placement=placement, target=target, constants=CONSTANTS, then=[ExpandGates()])


@pytest.mark.parametrize("op", [SILU, HARD, GELU])
def test_by_rules_float(op: str) -> None:
    made = result(op)
    assert made.plan.gates == set()
    assert made.kernels()["QLinearMul"] == 0
    assert any("on some machines only" in d.reason for d in made.plan.decisions.values())


@pytest.mark.parametrize(("op", "gate"), [(SILU, "QLinearSigmoid"), (GELU, "QLinearSigmoid"), (HARD, "QLinearAdd")])
def test_as_measured_a_gate_and_a_product(op: str, gate: str) -> None:
    made = result(op, Placement(eager=True))
    (name,) = made.plan.gates
    kernels = made.kernels()
    assert (kernels[gate], kernels["QLinearMul"], kernels["QLinearConv"]) == (1, 1, 2)
    assert result(op, Placement(integer=frozenset({name}))).plan.gates == {name}
    assert result(op, Placement(eager=True, floats={name: "measured"})).plan.gates == set()


def test_a_plan_with_a_gate_is_another_plan() -> None:
    """The same tensors have 8 bits in both."""
    some, other = result(SILU), result(SILU, Placement(eager=True))
    assert (some.plan.values, some.plan.uses.keys() >= other.plan.uses.keys()) == (other.plan.values, True)
    assert some.plan.key != other.plan.key


def test_not_where_its_result_is_read_in_float_alone() -> None:
    assert result(SILU, Placement(eager=True), behind="y = Tan(b)").plan.gates == set()


def test_tensorrt_has_none() -> None:
    assert result(HARD, Placement(eager=True), target="tensorrt").plan.gates == set()


def error(spread: Spread, alpha: float) -> float:
    """Of x * sigmoid(alpha * x), mean square."""
    x = spread.magnitudes
    return float((x * (expit(alpha * x) - ndtr(x))) ** 2 @ spread.counts)


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 0.3), (-0.4, 0.4), (0.0, 1.0), (0.2, 3.0)])
def test_the_alpha_of_a_gelu_fits_what_it_reads(mean: float, deviation: float) -> None:
    spread = Spread.of(np.random.default_rng(0).normal(mean, deviation, 10_000))
    alpha = fitted(spread)
    for other in np.arange(1.4, 2.0, 0.01):
        assert error(spread, alpha) <= 1.01 * error(spread, other)


def test_of_zeros_and_of_a_range_alone_nothing_is_fitted() -> None:
    assert fitted(Spread.of(np.zeros(4))) == USUAL
    guessed = dataclasses.replace(Spread.even(-0.3, 0.3), guessed=True)
    assert fitted(guessed) < 1.65
    assert Spread.even(-0.3, 0.3).guessed and not Spread.of(np.ones(4)).guessed


class Known:
    """Ranges of the test, and how what the GELU reads is spread."""

    def __init__(self, found: Spread | None) -> None:
        self.found = found

    def spread(self, tensor: str) -> Spread | None:
        return self.found if tensor == "a" else None

    def range(self, tensor: str, scheme: Scheme) -> tuple[float, float]:
        raise NotImplementedError

    weight_range = range


@pytest.mark.parametrize(
    ("found", "alpha"),
    [
        (Spread.of(np.random.default_rng(0).normal(0, 0.3, 5_000)), pytest.approx(1.625, abs=0.01)),
        (Spread.even(-0.3, 0.3), USUAL),
        (None, USUAL),
    ],
)
def test_a_plan_has_the_alpha_of_each_integer_gelu(found: Spread | None, alpha: float) -> None:
    graph = text.parse(f"{HEAD}(float[4] x) => (float[4] y) {{ a = Tan(x) [g] b = Gelu(a) [h] y = Gelu(b) }}").graph
    decisions = {"g": Decision(op="Gelu", integer=True), "h": Decision(op="Gelu", integer=False, reason="slow")}
    plan = Plan(values={}, uses={}, decisions=decisions)
    made = with_gates(plan, graph, Known(found))
    assert made.alphas == {"g": alpha}
    assert made.key != plan.key
    assert json.loads(made.to_json())["alphas"] == {"g": alpha}
    assert with_gates(Plan(values={}, uses={}, decisions={}), graph, Known(found)).alphas == {}
