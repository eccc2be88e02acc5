"""Units with kinds, and what becomes of them: on a graph with a body, where every cost is made up."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from onnxq.costs.estimate import Line
from onnxq.encoding import Affine, Kind, PerTensor
from onnxq.placement.attribute import Attribution
from onnxq.placement.choices import placement_of, unit_choices, why_not_int8
from onnxq.placement.cut import Problem, cheapest, conversions
from onnxq.placement.search import flips
from onnxq.placement.units import Costs, Layout, layout, problem, settle, share
from onnxq.plan.plan import MEASURED, Decision, Plan, Use, Value

EIGHT = Affine(type="uint8", granularity=PerTensor(), scale=np.array(0.5, np.float32), zero_point=np.array(3, np.uint8))
DYNAMIC: dict[Kind, str] = {"dynamic": "", "weights8": "its rows are odd"}
ABLE = {"product": DYNAMIC, "inner": {"dynamic": ""}, "other": {"dynamic": "too small"}}


def graph() -> gs.Graph:
    """product -> relu -> if (inner: LSTM, conv) -> other."""
    x, h, r, y, z = (gs.Variable(n, np.float32) for n in "xhryz")
    c, a, b, d = gs.Variable("c", np.bool_), *(gs.Variable(n, np.float32) for n in "abd")
    then = gs.Graph([gs.Node("LSTM", "inner", {}, [r], [a]), gs.Node("Conv", "conv", {}, [a], [b])], [], [b])
    otherwise = gs.Graph([gs.Node("Neg", "neg", {}, [r], [d])], [], [d])
    nodes = [
        gs.Node("MatMul", "product", {}, [x], [h]),
        gs.Node("Relu", "relu", {}, [h], [r]),
        gs.Node("If", "if", {"then_branch": then, "else_branch": otherwise}, [c], [y]),
        gs.Node("MatMul", "other", {}, [y], [z]),
    ]
    return gs.Graph(nodes, [x, c], [z], opset=21)


def made(able: Any = ABLE) -> Layout:
    integer = {"product": False, "conv": True, "other": True, "inner": False}
    decisions = {n: Decision(op="", integer=i) for n, i in integer.items()}
    full = Plan(values={}, uses={}, decisions=decisions)
    seen = Attribution(nodes={}, quantize={}, dequantize={}, lost=0.0, into={"product": "relu"})
    return layout(graph(), full, seen, {}, able)


def costs(**kinds: dict[str, float]) -> Costs:
    found = Costs(quantize_line=Line(a=0.0, b=0.0), dequantize_line=Line(a=0.0, b=0.0))
    found.floats.update({"product": 5e-3, "relu": 1e-3, "if": 9e-3, "other": 4e-3})
    found.integers.update({"if": 8e-3, "other": 3e-3})
    found.kinds.update(kinds)  # type: ignore[arg-type]
    return found


def test_what_has_a_kind_is_a_unit_and_a_body_is_placed_with_its_holder() -> None:
    found = made()
    assert found.members == (("product", "relu"), ("if",), ("other",))
    assert found.kinds == ({"dynamic": ("product",)}, {"dynamic": ("inner",)}, {})
    assert [found.placeable(names) for names in found.members] == [(), ("conv",), ("other",)]


def test_without_kinds_only_int8_makes_units() -> None:
    found = made(None)
    assert (found.members, found.kinds, found.inside) == ((("other",),), ({},), {})


def solved(dynamic: dict[str, float]) -> Problem:
    return problem(made(), costs(dynamic=dynamic))


def test_costs_of_kinds_come_from_their_profile() -> None:
    first, second, third = solved({"product": 2e-3, "relu": 1e-3, "if": 2e-3}).units
    assert [a.cost for a in first.alternatives] == pytest.approx([3e-3])
    assert (first.float_cost, first.placeable) == (pytest.approx(6e-3), False)
    assert ([a.kind for a in second.alternatives], second.placeable) == (["dynamic"], True)
    assert (third.alternatives, third.placeable) == ((), True)


def test_a_kind_that_no_profile_saw_is_worth_as_much_as_float() -> None:
    assert [a.cost for a in solved({}).units[0].alternatives] == pytest.approx([6e-3])
    assert problem(made(), costs()).units[0].alternatives == ()


def test_the_share_of_units_with_a_kind() -> None:
    known = costs()  # 19 ms in all
    assert share(made(), known, ("dynamic", None, None)) == pytest.approx(6 / 19)
    assert share(made(), known, ("dynamic", "dynamic", None)) == 1.0  # a body may hide its time
    assert share(made(), known, (None, None, None)) == 0.0


def test_the_placement_names_nodes_and_kinds() -> None:
    some = solved({"product": 2e-3, "relu": 1e-3, "if": 2e-3})
    labels = cheapest(some)
    kinds = some.kinds(labels)
    assert (labels, kinds) == ((False, False, True), ("dynamic", "dynamic", None))
    placement = placement_of(made(), labels, kinds, lambda at: f"why {at}")
    assert placement.integer == {"other"}
    assert placement.floats == {"conv": "why 1"}
    assert placement.kinds == {"product": "dynamic", "inner": "dynamic"}
    full = placement_of(made(), (False, True, True), (None, None, None), str)
    assert (full.integer, full.floats, full.kinds) == ({"conv", "other"}, {}, {})


def test_a_body_can_be_int8_and_dynamic_where_it_cannot_be_int8() -> None:
    known = costs(dynamic={"product": 2e-3, "relu": 1e-3, "if": 7e-3})
    known.joined["dynamic"] = {"if": 1e-3, "other": 3e-3}
    found = made()
    assert [found.joint(at, "dynamic") for at in range(3)] == [False, True, False]
    assert [found.beside(at, "dynamic") for at in range(3)] == [True, True, False]
    some = problem(found, known)
    assert [[(a.kind, a.cost) for a in u.alternatives if a.integer] for u in some.units] == [
        [], [("dynamic", pytest.approx(1e-3))], []
    ]  # fmt: skip
    labels = cheapest(some)
    assert (labels, some.kinds(labels)) == ((False, True, True), ("dynamic", "dynamic", None))
    placement = placement_of(found, labels, some.kinds(labels), str)
    assert placement.integer == {"conv", "other"}
    assert placement.kinds == {"product": "dynamic", "inner": "dynamic"}


def test_what_is_told_of_each_unit() -> None:
    some = solved({"product": 2e-3, "relu": 1e-3, "if": 2e-3})
    first, second, third = unit_choices(
        graph(), made(), some, (False, False, True), ("dynamic", None, None), lambda at: f"why {at}"
    )
    assert (first.nodes, first.kind, first.able, first.why) == (
        ("product", "relu"),
        "dynamic",
        {"dynamic": ("product",)},
        "why 0",
    )
    assert (second.nodes, second.ops) == (("if", "inner", "conv", "neg"), ("If", "LSTM", "Conv", "Neg"))
    assert (second.placeable, second.kind) == (("conv",), None)
    assert (third.integer, third.why) == (True, "")


def test_the_reason_gives_the_time_of_all_forms() -> None:
    known = [costs(dynamic={"product": 2e-3, "relu": 1e-3}), costs(dynamic={"product": 7e-3})]
    said = why_not_int8(["product", "relu"], costs=known, counts=[1, 2], weights=[0.5, 0.5], placeable=False)
    assert said == (
        f"{MEASURED}: 6.000 ms in float, 3.000 ms with int8 (dynamic), "
        "6.000 ms in float, 7.000 ms with int8 (dynamic) with 2 threads"
    )
    said = why_not_int8(["other"], costs=known[:1], counts=[1], weights=[1.0], placeable=True)
    assert said == f"{MEASURED}: 4.000 ms in float, 3.000 ms in int8, less than the conversions around it cost"


def test_a_search_leaves_alone_what_cannot_be_int8() -> None:
    some = solved({"product": 2e-3, "relu": 1e-3, "if": 2e-3})
    found = list(flips(some, (False, False, True)))
    assert found and all(not labels[0] for labels in found)


def convolutions() -> Layout:
    """first (int8) -> erf (float) -> second (int8): the plan gives erf 8-bit values."""
    x, c, a, y = (gs.Variable(n, np.float32) for n in "xcay")
    nodes = [
        gs.Node("Conv", "first", {}, [x], [c]),
        gs.Node("Erf", "erf", {}, [c], [a]),
        gs.Node("Conv", "second", {}, [a], [y]),
    ]
    values = {Value((), t): EIGHT for t in "xca"}
    uses = {Use((), n, 0): EIGHT for n in ("first", "erf", "second")}
    full = Plan(values=values, uses=uses, decisions={n: Decision(op="Conv", integer=True) for n in ("first", "second")})
    seen = Attribution(nodes={}, quantize={}, dequantize={}, lost=0.0, into={})
    return layout(gs.Graph(nodes, [x], [y], opset=21), full, seen, {})


def test_what_always_computes_in_float_reads_through_a_conversion() -> None:
    found = problem(convolutions(), costs())
    assert [conversions(c, (True, True)) for c in found.crossings] == [(True, False), (False, True), (True, False)]


def test_conversions_cost_what_the_profile_of_the_form_saw() -> None:
    """c is dequantized for erf, which ORT fused away; it is quantized all the same, which is the convolution's time."""
    found, known = convolutions(), costs()
    known.integers.update({"first": 1e-3, "second": 2e-3})
    seen = Attribution(nodes={}, quantize={"x": 3e-4, "a": 4e-4, "c": 5e-4}, dequantize={}, lost=0.0, into={})
    settle(found, known, (True, True), (None, None), seen)
    assert known.quantize == {"x": 3e-4, "a": 4e-4} and known.dequantize == {"c": 0.0}
    assert known.integers["first"] == pytest.approx(1.5e-3) and known.integers["second"] == 2e-3
    before = dict(known.integers)
    settle(found, known, (False, True), (None, None), seen)  # all float before a
    assert known.integers == before and known.quantize["a"] == 4e-4


def test_all_costs_go_by_another_clock() -> None:
    found, known = convolutions(), costs(dynamic={"first": 1e-3})
    known.joined["dynamic"] = {"second": 2e-3}
    known.integers.update({"first": 1e-3, "second": 2e-3})
    known.quantize["x"], known.dequantize["c"], known.call = 3e-4, 2e-4, 4e-6
    known.quantize_line, known.dequantize_line = Line(a=1e-6, b=1e-9), Line(a=2e-6, b=2e-9)
    labels = ((True, True), (False, True), (False, False))
    before = [problem(found, known).cost(each) for each in labels]
    known.scale(1.5)
    assert [problem(found, known).cost(each) for each in labels] == pytest.approx([1.5 * cost for cost in before])
    assert (known.kinds["dynamic"]["first"], known.joined["dynamic"]["second"]) == pytest.approx((1.5e-3, 3e-3))
