"""One model with switches gives, to the bit, what each of the models gives that it stands for."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import numpy as np
import onnx_graphsurgeon as gs
import pytest
import tiny
from bodies import Kind, wrapped
from switched import RESIDUAL, bits, inserted, only, open_off, planned, res8, used_tensors
from whole import Arrays, normal

from onnxq.errors import PassError
from onnxq.ir.model import Model
from onnxq.plan.plan import Plan
from onnxq.sensitivity.instrument import instrument
from onnxq.sensitivity.switches import ENABLE, Instrumented, Rounded

TIED = """<ir_version: 8, opset_import: ["": 17]>
g (int64["N",3] ids) => (float["N",3,6] y)
<float[6,4] table = {1,2,3,4,-1,0.5,0.25,2,0.1,0.2,0.3,0.4,-2,-3,1,1,0.7,0.6,0.5,0.4,0.3,0.2,0.1,1},
 float[4,6] w = {1,2,3,4,5,6,-1,-2,-3,-4,-5,-6,0.5,0.25,0.125,1,1,1,0.3,0.2,0.1,2,2,2}> {
    [embed] h = Gather(table, ids)
    [one] p = MatMul(h, w)
    [float] q = Sin(w)
    [two] y = Add(p, p)
}"""

BODY = """<ir_version: 8, opset_import: ["": 17]>
g (float[1,4,6,6] x, bool[1] choose) => (float[1,4,6,6] y)
<float[4,4,1,1] w = {1,-0.5,0.25,0.1,0.3,1,-0.7,0.2,0.6,0.1,1,0.4,-0.2,0.5,0.8,1},
 float[4,4,1,1] v = {1,-0.5,0.25,0.1,0.3,1,-0.7,0.2,0.6,0.1,1,0.4,-0.2,0.5,0.8,1}> {
    [first] c = Conv(x, w)
    [if] y = If (choose) <
        then_branch = yes () => (float[1,4,6,6] t) { [inner] t = Conv(c, v) },
        else_branch = no () => (float[1,4,6,6] f) { [other] f = Relu(c) }
    >
}"""


def _run(made: Instrumented, inputs: Arrays, on: Collection[int]) -> dict[str, bytes]:
    found = open_off(made.model).run({**inputs, **made.feed(on, Rounded(made, keep=True))}, list(made.outputs.values()))
    return {name: bits(found[at]) for name, at in made.outputs.items()}


def _plain(model: Model, inputs: Arrays) -> dict[str, bytes]:
    return {name: bits(value) for name, value in open_off(model).run(inputs).items()}


def _check(model: Model, plan: Plan, inputs: Arrays, *, singles: bool = True) -> Instrumented:
    """Off: the float model. On: the Q/DQ model. One on: a Q/DQ model of this tensor alone."""
    made = instrument(model, plan)
    everything = range(len(made.switches))
    assert made.switches
    assert _run(made, inputs, ()) == _plain(model, inputs)
    assert _run(made, inputs, everything) == _plain(inserted(model, plan), inputs)
    assert _run(made, inputs, everything) != _plain(model, inputs)
    tensors = used_tensors(model)
    for index in everything if singles else ():
        alone = only(plan, tensors, made.switches[index].tensor)
        assert _run(made, inputs, [index]) == _plain(inserted(model, alone), inputs)
    return made


def test_fashion_res8() -> None:
    model, plan, data, _ = res8()
    made = _check(model, plan, next(iter(data)).inputs, singles=False)
    assert {s.kind for s in made.switches} == {"activation", "weight", "bias"}
    assert [s.position for s in made.switches] == sorted(s.position for s in made.switches)


def test_a_classifier_each_switch_alone() -> None:
    samples = normal(4, image=(1, 3, 8, 8))
    made = _check(*planned(tiny.classifier(), samples), samples[0])
    image = next(s for s in made.switches if s.tensor == "image")
    assert (image.kind, image.node, image.type, image.units) == ("activation", "", "uint8", ("conv",))
    weight = next(s for s in made.switches if s.kind == "weight")
    assert (weight.node, weight.op, weight.type) == ("conv", "Conv", "int8")


def test_several_outputs_of_which_one_is_quantized_and_one_is_integer() -> None:
    samples = normal(4, x=(2, 4, 6, 6))
    made = _check(*planned(RESIDUAL, samples), samples[0])
    assert made.outputs.keys() == {"y", "s", "best"}


def test_a_size_that_differs_between_samples() -> None:
    model, plan = planned(RESIDUAL, normal(4, x=(2, 4, 6, 6)))
    made = instrument(model, plan)
    (other,) = normal(1, seed=5, x=(3, 4, 6, 6))
    assert _run(made, other, ()) == _plain(model, other)


def test_a_weight_that_something_else_reads_in_float_stays_float_there() -> None:
    ids = [{"ids": np.array([[0, 1, 2]], np.int64) + i} for i in range(3)]
    model, plan = planned(TIED, ids)
    made = _check(model, plan, ids[0])
    assert any(s.kind == "weight" for s in made.switches)


def test_values_that_are_not_finite_and_zeros_with_a_sign_pass_an_open_switch() -> None:
    model, plan = planned(tiny.classifier(), normal(4, image=(1, 3, 8, 8)))
    image = np.full((1, 3, 8, 8), -0.0, np.float32)
    image[0, 0, :2, 0] = np.inf, np.nan
    made = instrument(model, plan)
    assert _run(made, {"image": image}, ()) == _plain(model, {"image": image})


@pytest.mark.parametrize("opset", [13, 17, 21])
def test_opsets_whose_split_differs(opset: int) -> None:
    samples = normal(4, image=(1, 3, 8, 8))
    model, plan = planned(tiny.classifier(), samples)
    model = dataclasses.replace(model, opset=opset)
    _check(model, plan, samples[0], singles=False)


LINEAR = """<ir_version: 8, opset_import: ["": 17]>
g (float["N",4] x) => (float["N",6] y)
<float[4,6] w = {1,2,3,4,5,6,-1,-2,-3,-4,-5,-6,0.5,0.25,0.125,1,1,1,0.3,0.2,0.1,2,2,2}, float[6] b = {1,2,3,4,5,6}> {
    [product] p = MatMul(x, w)
    [bias] y = Add(p, b)
}"""


def test_a_bias_that_a_float_add_reads_belongs_to_the_op_in_front() -> None:
    samples = normal(4, x=(2, 4))
    made = _check(*planned(LINEAR, samples), samples[0])
    assert {s.kind: s.units for s in made.switches} == dict.fromkeys(["activation", "weight", "bias"], ("product",))
    model, plan = planned(LINEAR, samples)
    floats = {n: dataclasses.replace(d, integer=False) for n, d in plan.decisions.items()}
    alone = instrument(model, dataclasses.replace(plan, decisions=floats))
    assert {s.kind: s.units for s in alone.switches}["bias"] == ("bias",)


def test_the_model_itself_does_not_change() -> None:
    samples = normal(4, image=(1, 3, 8, 8))
    model, plan = planned(tiny.classifier(), samples)
    before = _plain(model, samples[0])
    instrument(model, plan)
    assert [t.name for t in model.graph.inputs] == ["image"]
    assert not any(node.op == "If" for node in model.graph.nodes)
    assert _plain(model, samples[0]) == before


@pytest.mark.parametrize("taken", [True, False])
def test_bodies_have_switches(taken: bool) -> None:
    samples = [{**s, "choose": np.array([i % 2 == 0])} for i, s in enumerate(normal(4, x=(1, 4, 6, 6)))]
    model, plan = planned(BODY, samples)
    assert any(use.path for use in plan.uses)
    inputs = samples[0 if taken else 1]
    made = _check(model, plan, inputs)
    v = next(s for s in made.switches if s.tensor == "v")
    assert (v.kind, v.constants, v.flag is None, v.units) == ("weight", (), False, ("inner",))
    alone = _run(made, inputs, [made.switches.index(v)])
    assert (alone == _plain(model, inputs)) == (not taken)  # the other branch does not read it


@pytest.mark.parametrize("kind", ["Loop", "Scan"])
def test_loops_have_switches(kind: Kind) -> None:
    samples = normal(4, image=(1, 3, 8, 8))
    model, plan = planned(wrapped(tiny.classifier(), kind, 1, "body"), samples)
    assert any(use.path for use in plan.uses)
    made = _check(model, plan, samples[0])
    assert {s.kind for s in made.switches} == {"activation", "weight", "bias"}


def test_a_plan_that_quantizes_nothing_makes_no_switch() -> None:
    model, plan = planned(tiny.classifier(), normal(4, image=(1, 3, 8, 8)))
    made = instrument(model, dataclasses.replace(plan, uses={}, values={}))
    assert not made.switches and ENABLE not in [t.name for t in made.model.graph.inputs]


def test_the_plan_of_another_graph_is_an_error() -> None:
    _, plan = planned(tiny.classifier(), normal(4, image=(1, 3, 8, 8)))
    other, _ = planned(RESIDUAL, normal(4, x=(2, 4, 6, 6)))
    with pytest.raises(PassError, match="it was made for another graph"):
        instrument(other, plan)


def test_a_weight_costs_no_node() -> None:
    model, plan = planned(tiny.classifier(), normal(4, image=(1, 3, 8, 8)))
    made = instrument(model, plan)
    activations = sum(s.kind == "activation" for s in made.switches)
    more = [n for n in made.model.graph.nodes if n.op in ("If", "Split")]
    assert len(made.model.graph.nodes) == len(model.graph.nodes) + len(more)
    assert len([n for n in more if n.op == "If"]) == activations == made.flags
    names = {t.name for n in made.model.graph.nodes for t in n.inputs if isinstance(t, gs.Constant)}
    assert {name for s in made.switches for name, _ in s.constants} <= names
