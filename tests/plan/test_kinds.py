from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from onnxq.encoding import Kind, Scheme
from onnxq.plan.kinds import BITS, OPS, SAID, possible, refusal, weight_of, with_kinds
from onnxq.plan.plan import Decision, Placement, Plan
from onnxq.plan.planner import make_plan
from onnxq.stats.weights import weight_range
from onnxq.targets.target import load_target

CPU = load_target("cpu")
KINDS: tuple[Kind, ...] = ("dynamic", "weights8", "weights4")


def constant(name: str, *shape: int) -> gs.Constant:
    return gs.Constant(name, np.random.default_rng(len(name)).normal(0, 1, shape).astype(np.float32))


def net() -> gs.Graph:
    """MatMul "product" -> Relu "relu" -> MatMul "small"; Gather "rows"."""
    x, i = gs.Variable("x", np.float32, (4, 64)), gs.Variable("i", np.int64, (2,))
    h, r, y, z = (gs.Variable(n, np.float32) for n in "hryz")
    nodes = [
        gs.Node("MatMul", "product", {}, [x, constant("w", 64, 32)], [h]),
        gs.Node("Relu", "relu", {}, [h], [r]),
        gs.Node("MatMul", "small", {}, [r, constant("v", 32, 2)], [y]),
        gs.Node("Gather", "rows", {}, [constant("table", 100, 33), i], [z]),
    ]
    return gs.Graph(nodes, [x, i], [y, z], name="net", opset=21)


def test_each_kind_has_a_name_and_ops() -> None:
    assert set(SAID) == set(OPS) == set(KINDS) == set(CPU.kinds)
    assert set(BITS) == {k for k in KINDS if k != "dynamic"}
    assert load_target("tensorrt").kinds == ()


def test_what_is_possible() -> None:
    found = possible(net(), CPU)
    few = "its weight has fewer than 1024 elements"
    odd = "its rows have an odd number of elements, and two share a byte"
    assert found == {
        "product": dict.fromkeys(KINDS, ""),
        "small": dict.fromkeys(KINDS, few),
        "rows": {"weights8": "", "weights4": odd},
    }
    assert possible(net(), load_target("tensorrt")) == {}


def test_what_is_kept_float_has_none() -> None:
    found = possible(net(), CPU, ["prod*"])
    assert set(found["product"].values()) == {'kept float by the pattern "prod*"'}
    assert found["rows"]["weights8"] == ""


def body(target: Any) -> dict[str, dict[Kind, str]]:
    inner_out, outer_out = gs.Variable("a", np.float32), gs.Variable("y", np.float32)
    x, c = gs.Variable("x", np.float32, (4, 64)), gs.Variable("c", np.bool_, ())
    then = gs.Graph([gs.Node("MatMul", "inside", {}, [x, constant("w", 64, 32)], [inner_out])], [], [inner_out])
    other = gs.Variable("b", np.float32)
    otherwise = gs.Graph([gs.Node("MatMul", "also", {}, [x, constant("v", 64, 32)], [other])], [], [other])
    node = gs.Node("If", "if", {"then_branch": then, "else_branch": otherwise}, [c], [outer_out])
    return possible(gs.Graph([node], [x, c], [outer_out], opset=21), target)


def test_bodies_count_where_the_target_runs_int8_in_them() -> None:
    assert body(CPU) == {n: dict.fromkeys(KINDS, "") for n in ("inside", "also")}
    without = body(dataclasses.replace(CPU, bodies=False))
    assert without["inside"]["dynamic"] == "it stands in a body of If, Loop or Scan"


@pytest.mark.parametrize("kind", KINDS)
def test_ops_without_such_a_kernel(kind: Kind) -> None:
    x, y = gs.Variable("x", np.float32), gs.Variable("y", np.float32)
    said = f"there is no kernel with {SAID[kind]} for Conv"
    assert refusal(gs.Node("Conv", "c", {}, [x, constant("w", 4, 4, 3, 3)], [y]), kind) == said
    foreign = gs.Node("MatMul", "m", {}, [x, constant("w", 64, 64)], [y], domain="custom")
    assert refusal(foreign, kind).startswith("there is no kernel")


def test_weights_as_inputs_and_outputs() -> None:
    x, y, w = gs.Variable("x", np.float32), gs.Variable("y", np.float32), constant("w", 3, 5)
    assert weight_of(gs.Node("Gemm", "g", {"transB": 1}, [x, w], [y])).shape == (5, 3)  # type: ignore[union-attr]
    assert weight_of(gs.Node("Gemm", "g", {}, [x, w], [y])).shape == (3, 5)  # type: ignore[union-attr]
    assert weight_of(gs.Node("Gather", "g", {}, [w, x], [y])).shape == (3, 5)  # type: ignore[union-attr]
    assert weight_of(gs.Node("MatMul", "m", {}, [x, y], [y])) is None
    assert weight_of(gs.Node("LSTM", "l", {}, [x, w, w], [y])) is None


def test_a_plan_gets_kinds_where_they_are_possible() -> None:
    decisions = {
        "product": Decision(op="MatMul", integer=False, reason="slow", heavy=True),
        "small": Decision(op="MatMul", integer=False, reason="slow", heavy=True),
    }
    plan = Plan(values={}, uses={}, decisions=decisions)
    made = with_kinds(
        plan, net(), CPU, {"product": "dynamic", "small": "dynamic", "rows": "weights8", "none": "dynamic"}
    )
    assert made.kinds == {"product": "dynamic", "rows": "weights8"}
    assert made.decisions["product"] == Decision(op="MatMul", integer=False, kind="dynamic", heavy=True)
    assert made.decisions["small"] == decisions["small"]
    assert made.key != plan.key
    assert json.loads(made.to_json())["kinds"] == {"product": "dynamic", "rows": "weights8"}
    assert "kinds" not in json.loads(plan.to_json())


class Ranges:
    """Everything lies between -1 and 1."""

    def range(self, tensor: str, scheme: Scheme) -> tuple[float, float] | None:
        return -1.0, 1.0

    def spread(self, tensor: str) -> None:
        return None

    def weight_range(self, weight: Any, scheme: Scheme) -> Any:
        return weight_range(weight, scheme, "max")


def test_the_planner_takes_them_from_a_placement() -> None:
    shapes = dict.fromkeys("xhry", (4, 64))
    everything = make_plan(net(), CPU, Ranges(), shapes, placement=Placement(kinds={"product": "dynamic"}))
    assert everything.decisions["product"].integer and everything.kinds == {}  # static int8 comes first
    placement = Placement(floats={"product": "measured here"}, kinds={"product": "dynamic", "rows": "weights4"})
    made = make_plan(net(), CPU, Ranges(), shapes, placement=placement)
    assert made.kinds == {"product": "dynamic"}
    assert not made.decisions["product"].integer and made.decisions["product"].reason == ""
    assert make_plan(net(), CPU, Ranges(), shapes, ["product"], placement).kinds == {}


def test_a_weight_is_looked_through_once_and_another_in_its_place_again() -> None:
    some = net()
    node = some.nodes[0]
    assert refusal(node, "dynamic") == ""
    first = node.inputs[1].values
    first[0, 0] = np.nan  # nobody does so; what was seen is not looked at again
    assert refusal(node, "dynamic") == ""
    node.inputs[1].values = first.copy()
    assert refusal(node, "dynamic") == "its weight holds NaN or Inf"
