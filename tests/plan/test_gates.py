"""SiLU and HardSwish: float by rules, integer where measured costs ask for it."""

from __future__ import annotations

import numpy as np
import pytest
from quantized import Result, quantize_text

from onnxq.plan.plan import Placement
from onnxq_passes.expand_gates import ExpandGates

HEAD = '<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]> g '
SILU, HARD = "com.microsoft.QuickGelu <alpha = 1.0> (a)", "HardSwish(a)"
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


@pytest.mark.parametrize("op", [SILU, HARD])
def test_by_rules_float(op: str) -> None:
    made = result(op)
    assert made.plan.gates == set()
    assert made.kernels()["QLinearMul"] == 0
    assert any("on some machines only" in d.reason for d in made.plan.decisions.values())


@pytest.mark.parametrize(("op", "table"), [(SILU, "QLinearSigmoid"), (HARD, "QLinearLeakyRelu")])
def test_as_measured_a_table_and_a_product(op: str, table: str) -> None:
    made = result(op, Placement(eager=True))
    (name,) = made.plan.gates
    kernels = made.kernels()
    assert (kernels[table], kernels["QLinearMul"], kernels["QLinearConv"]) == (1, 1, 2)
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
