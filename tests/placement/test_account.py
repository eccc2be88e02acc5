"""Where the time goes: on values, where every millisecond is known, and on graphs for what is heavy."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.budget import LOUD
from onnxq.ir import text
from onnxq.placement.account import CONVERSIONS, UNEXPLAINED, Run, account, always, kernel_limit
from onnxq.placement.cut import Crossing, Problem, Unit
from onnxq.placement.race import Timing
from onnxq.placement.record import from_text, to_text
from onnxq.placement.result import Always, Form, Placed, UnitChoice
from onnxq.plan.plan import Placement
from onnxq.validate.result import Account


def placed(
    units: Mapping[str, tuple[str, float, float]],
    crossings: tuple[Crossing, ...] = (),
    rest: tuple[Always, ...] = (),
    unnamed: float = 0.0,
) -> Placed:
    """Of units: name -> (op, float ms, int8 ms)."""
    problem = Problem(
        units=tuple(Unit(name=n, float_cost=f * 1e-3, integer_cost=i * 1e-3) for n, (_, f, i) in units.items()),
        crossings=crossings,
        fixed=sum(a.seconds[0] for a in rest) + unnamed,
    )
    choices = tuple(
        UnitChoice(
            nodes=(n, f"{n}/act"), ops=(op, "Relu"), placeable=(n,), integer=True, float_seconds=f * 1e-3,
            integer_seconds=i * 1e-3, conversion_seconds=0.0, why="as measured",
        )
        for n, (op, f, i) in units.items()
    )  # fmt: skip
    return Placed(
        placement=Placement(),
        chosen="placed 1",
        forms=(Form(name="float", integer_units=0, predicted=1, timing=Timing(seconds=1, ratio=1, low=1, high=1)),),
        units=choices,
        problem=problem,
        choice=problem,
        limit=kernel_limit(choices, problem, rest),
        threads=1,
        notes=(),
        always=rest,
    )  # fmt: skip


def crossing(tensor: str, producer: int | None, *readers: int, floats: bool = False) -> Crossing:
    """Quantizing takes 0.1 ms, dequantizing 0.2 ms."""
    return Crossing(
        tensor=tensor, producer=producer, readers=readers, float_readers=floats, quantize=1e-4, dequantize=2e-4
    )


def causes(found: Account) -> dict[str, Any]:
    return {c.name: pytest.approx(c.ms) for c in found.causes}


NET = placed(
    {"stem": ("Conv", 3.0, 1.0), "body": ("Conv", 2.0, 1.5), "join": ("Add", 0.5, 0.25), "head": ("Gemm", 1.0, 1.25)},
    crossings=(
        crossing("x", None, 0),  # the input: quantized for the stem
        crossing("a", 0, 1, 2),
        crossing("b", 1, 2),
        crossing("c", 2, 3, floats=True),
    ),
    rest=(
        Always(node="norm", op="LayerNormalization", seconds=(4e-4,), heavy=False),
        Always(node="memory", op="LSTM", seconds=(2e-3,), heavy=True),
    ),
)


def test_the_limit_is_the_faster_kernel_of_each_heavy_op_and_nothing_else() -> None:
    assert NET.limit * 1e3 == pytest.approx(1.0 + 1.5 + 1.0 + 2.0)
    light = placed({"join": ("Add", 0.5, 0.25)}, rest=(Always(node="n", op="Gelu", seconds=(1.0,), heavy=False),))
    assert light.limit == 0.0


def test_every_millisecond_has_a_name() -> None:
    reasons = {"body": f"{LOUD}: 40 % of the noise", "norm": "cpu has no integer kernel for LayerNormalization"}
    found = account(
        NET, (True, False, True, False), Run(measured=9e-3, predicted=8.1e-3), form="placed 1", reasons=reasons
    )
    assert causes(found) == {
        "Conv in float, its slower form": 0.5,  # the body
        CONVERSIONS: 0.1 + 0.2 + 0.1 + 0.2,  # Q of x, DQ of a, Q of b, DQ of c
        "float LayerNormalization": 0.4,
        "int8 Add": 0.25,
        UNEXPLAINED: 9.0 - 5.5 - 1.75,
    }
    assert [c.name for c in found.causes][-1] == UNEXPLAINED
    assert found.causes[0].name == CONVERSIONS and set(found.causes[0].largest) == {"a", "b", "c"}
    assert found.nearness == pytest.approx(5.5 / 9)
    assert found.deviation == pytest.approx(-0.1)
    slow = next(one for one in found.lost if one.name == "body")
    assert (slow.op, slow.why) == ("Conv", reasons["body"])
    assert next(one for one in found.lost if one.name == "norm").why == reasons["norm"]
    assert not [one for one in found.lost if one.name in {"stem", "head", "memory"}]  # they are the limit


def why(net: Placed, at: int = 0) -> str:
    """Why the head is int8 where all is."""
    found = account(net, (True,) * 4, Run(measured=8e-3), form="all int8", at=at)
    assert causes(found)["Gemm in int8, its slower form"] == 0.25
    (head,) = (one for one in found.lost if one.op == "Gemm")
    assert head.name == "head"
    return head.why


def test_what_is_int8_for_the_sake_of_its_neighbours_is_lost_and_says_why() -> None:
    found = account(NET, (True, True, True, True), Run(measured=8e-3), form="all int8")
    assert found.predicted_ms is None
    assert found.deviation == pytest.approx(found.profiled_ms / 8 - 1)  # the profile stands in
    alone = dataclasses.replace(NET.problem, crossings=(crossing("d", 3, 2),))  # a reader that is int8 wants it
    assert why(dataclasses.replace(NET, problem=alone)).startswith("by cost it would be float")
    dear = dataclasses.replace(alone, crossings=(dataclasses.replace(alone.crossings[0], quantize=3e-4),))
    assert why(dataclasses.replace(NET, problem=dear)) == "conversions around it would cost more"
    rest = tuple(dataclasses.replace(a, seconds=a.seconds * 2) for a in NET.always)
    both = dataclasses.replace(NET, problem=alone, beyond=(dear,), choice=dear, others=(2,), always=rest)
    assert why(both) == "it pays over all numbers of threads"
    assert why(both, at=1) == "conversions around it would cost more"


def test_a_run_that_is_faster_than_its_profile_is_said_with_its_sign() -> None:
    found = account(NET, (False,) * 4, Run(measured=5e-3, timed=False), form="float")
    assert found.causes[-1].ms < 0
    assert not found.timed


def test_a_kernel_that_no_profile_saw_is_not_in_the_limit() -> None:
    net = placed({"a": ("Conv", 2.0, 0.0), "b": ("Conv", 0.0, 0.0)})
    assert net.limit * 1e3 == pytest.approx(2.0)
    seen = account(net, (False, False), Run(measured=3e-3), form="float")
    lost = account(net, (True, False), Run(measured=3e-3), form="int8")
    assert seen.limit_ms == pytest.approx(2.0)
    assert lost.limit_ms == 0.0
    assert not seen.lost and not lost.lost


def test_fixed_time_without_nodes_is_a_cause_of_its_own() -> None:
    found = account(placed({"a": ("Conv", 2.0, 1.0)}, unnamed=3e-4), (True,), Run(measured=2e-3), form="f")
    assert causes(found) == {"float operators without a name": 0.3, UNEXPLAINED: 0.7}


def test_the_call_itself_is_a_cause() -> None:
    net = dataclasses.replace(placed({"a": ("Conv", 2.0, 1.0)}, unnamed=3e-4), calls=(3e-4,))
    assert causes(account(net, (True,), Run(measured=2e-3), form="f")) == {"the call itself": 0.3, UNEXPLAINED: 0.7}
    assert from_text(to_text(net)) == net


def test_each_number_of_threads_has_its_own_costs() -> None:
    half = Problem(units=tuple(dataclasses.replace(u, integer_cost=u.integer_cost / 2) for u in NET.problem.units),
                   crossings=(), fixed=1e-3)  # fmt: skip
    rest = tuple(dataclasses.replace(a, seconds=(*a.seconds, a.seconds[0] / 4)) for a in NET.always)
    both = dataclasses.replace(NET, beyond=(half,), others=(2,), always=rest)
    one, two = (account(both, (True,) * 4, Run(measured=7e-3), form="f", at=at) for at in (0, 1))
    assert (one.threads, two.threads) == (1, 2)
    assert two.limit_ms == pytest.approx(0.5 + 0.75 + 0.625 + 0.5)
    assert causes(two)["float LayerNormalization"] == 0.1 and CONVERSIONS not in causes(two)
    assert from_text(to_text(both)) == both


costs = st.floats(0, 10, allow_subnormal=False)


@given(
    units=st.lists(st.tuples(st.sampled_from(["Conv", "Add", "MatMul"]), costs, costs), min_size=1, max_size=6),
    labels=st.lists(st.booleans(), min_size=6, max_size=6),
    measured=st.floats(0.01, 100),
    fixed=st.lists(costs, max_size=3),
)
def test_limit_and_causes_add_up_to_what_was_measured(
    units: list[tuple[str, float, float]], labels: list[bool], measured: float, fixed: list[float]
) -> None:
    rest = tuple(
        Always(node=f"r{i}", op="Gelu" if i % 2 else "LSTM", seconds=(s * 1e-3,), heavy=not i % 2)
        for i, s in enumerate(fixed)
    )
    last = len(units) - 1
    net = placed(
        {f"u{i}": u for i, u in enumerate(units)},
        (crossing("t", 0, last), crossing("u", None, last, floats=True)),
        rest,
    )
    found = account(net, labels[: len(units)], Run(measured=measured * 1e-3), form="f")
    total = math.fsum([found.limit_ms, *(c.ms for c in found.causes)])
    assert total == pytest.approx(found.measured_ms, rel=1e-12, abs=1e-12)
    assert math.fsum([found.limit_ms, *(one.ms for one in found.lost)]) == pytest.approx(found.profiled_ms)
    assert found.profiled_ms == pytest.approx(net.problem.cost(labels[: len(units)]) * 1e3)
    assert all(one.ms > 0 for one in found.lost)
    for cause in found.causes[:-1]:
        assert cause.ms == pytest.approx(sum(one.ms for one in found.lost if one.cause == cause.name))


@pytest.mark.parametrize(("inner", "counts"), [("Conv(x, w)", True), ("Relu(x)", False)])
def test_bodies_with_heavy_ops_make_their_node_heavy(inner: str, counts: bool) -> None:
    model = text.parse(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        m (bool c, float[1,1,4,4] x, float[1,1,1,1] w) => (float z, float r) {{
            y = If (c) <
                then_branch = t () => (float[1,1,4,4] a) {{ a = {inner} }},
                else_branch = e () => (float[1,1,4,4] b) {{ b = Neg(x) }}
            >
            z = Conv (y, w)
            r = Tanh (x)
        }}"""
    )
    branch, conv, tanh = names = ("branch", "conv", "tanh")
    for node, name in zip(model.graph.nodes, names, strict=True):
        node.name = name
    found = always(model.graph, {conv}, [{branch: 0.5, conv: 2.0}, {branch: 0.25}])
    assert found == (Always(node=branch, op="If", seconds=(0.5, 0.25), heavy=counts),)
    assert [a.node for a in always(model.graph, {conv}, [{tanh: 0.5}])] == [tanh]
