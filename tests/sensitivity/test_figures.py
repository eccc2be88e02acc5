"""What each tensor does to the outputs: the figures and their order."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
from sensing import FEW, coarse, measured_res8
from switched import RESIDUAL, open_off, planned, res8, used_tensors
from whole import Samples, normal

from onnxq.plan.plan import Use
from onnxq.sensitivity.engine import Options, sensitivity
from onnxq.sensitivity.instrument import instrument
from onnxq.sensitivity.result import Sensitivity, noise, predict, tensor_noise
from onnxq.sensitivity.switches import Rounded
from onnxq.sensitivity.work import Scoring
from onnxq.validate.metrics import load_metric


def test_the_noises_of_single_tensors_add_up_to_the_noise_of_all() -> None:
    found = measured_res8()
    assert len(found.tensors) == 35 and found.samples == 4
    assert found.measured > 0
    assert found.measured / 1.5 < found.predicted < found.measured * 1.5
    assert math.fsum(t.share for t in found.tensors) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["activation", "weight"])
def test_a_bad_scale_is_ranked_first_and_was_not_before(kind: str) -> None:
    model, plan, data, _ = res8()
    before = measured_res8()
    bad = [t for t in before.ranked if t.kind == kind][-1].tensor
    assert before.ranked[0].tensor != bad
    bad_plan = coarse(plan, used_tensors(model), bad, 64.0)
    found = sensitivity(model, bad_plan, data, dataclasses.replace(FEW, rest=True), threads=1)
    assert found.ranked[0].tensor == bad
    rests = {t.tensor: t.rest.noise for t in found.tensors if t.rest is not None}
    assert min(rests, key=rests.__getitem__) == bad and rests[bad] < found.measured / 2
    assert found.ranked[0].share > 0.5
    others = {t.tensor: t.noise for t in before.tensors if t.tensor != bad}
    assert {t.tensor: t.noise for t in found.tensors if t.tensor != bad} == others


def test_figures_are_those_of_the_definition() -> None:
    samples = normal(4, x=(2, 4, 6, 6))
    model, plan = planned(RESIDUAL, samples)
    found = sensitivity(model, plan, Samples(samples), Options(samples=None), threads=1)

    made = instrument(model, plan)
    session, values = open_off(made.model), Rounded(made, keep=True)
    for index, tensor in enumerate(found.tensors):
        relative = {}
        for name, at in made.outputs.items():
            pairs = [
                tuple(session.run({**s, **made.feed(on, values)}, [at])[at].astype(np.float64) for on in ((), (index,)))
                for s in samples
            ]
            signal, error = (
                sum(float((x**2).sum()) for x, _ in pairs),
                sum(float(((x - y) ** 2).sum()) for x, y in pairs),
            )
            relative[name] = error / signal
            if name == "best":
                relative[name] = sum(int((x != y).sum()) for x, y in pairs) / sum(x.size for x, _ in pairs)
        assert {o.name: pytest.approx(o.relative, rel=1e-12) for o in tensor.alone.outputs} == relative
        assert tensor.noise == pytest.approx((relative["y"] + relative["s"]) / 2, rel=1e-12)


def test_integer_outputs_only_count_the_elements_that_differ() -> None:
    model = onnx.parser.parse_model(RESIDUAL)
    del model.graph.output[:2]
    samples = normal(6, x=(2, 4, 6, 6))
    normalised, plan = planned(model, samples)
    found = sensitivity(normalised, plan, Samples(samples), threads=1)
    (output,) = found.total.outputs
    assert not output.floating and 0 < output.equal < output.elements == 6 * 2 * 36
    assert found.measured == 1 - output.equal / output.elements
    assert any("share of elements that differ" in note for note in found.notes)
    both = sensitivity(*planned(RESIDUAL, samples), Samples(samples), threads=1)
    assert not any("share of elements" in note for note in both.notes)


def test_what_is_left_without_a_tensor_and_what_a_unit_does_together() -> None:
    found, plain = measured_res8(rest=True, units=True), measured_res8()
    assert [t.alone for t in found.tensors] == [t.alone for t in plain.tensors]
    rests = [t.rest.noise for t in found.tensors if t.rest is not None]
    assert len(rests) == len(found.tensors) and min(rests) < found.measured
    assert all(t.rest is None for t in plain.tensors)
    for unit in found.units:
        assert unit.together is not None and unit.noise == unit.together.noise
        if len(unit.tensors) == 1:
            assert unit.noise == unit.summed
        assert unit.noise / 2 < unit.summed < unit.noise * 2
    assert noise(plain) == {u.node: u.summed for u in plain.units} != noise(found)


def test_noise_by_op_and_by_tensor_for_a_budget() -> None:
    found = measured_res8()
    model, plan, _, _ = res8()
    names = [n.name for n in model.graph.nodes if n.name in noise(found)]
    assert list(noise(found)) == names
    assert set(names) <= {n for n, d in plan.decisions.items() if d.integer}
    assert math.fsum(noise(found, owned=True).values()) == pytest.approx(found.predicted)
    owned, whole = noise(found, owned=True), noise(found)
    assert owned.keys() == whole.keys() and all(owned[n] <= whole[n] for n in owned)
    assert list(tensor_noise(found)) == [t.tensor for t in found.tensors]
    conv = next(u for u in found.units if u.op == "Conv")
    assert conv.summed == pytest.approx(sum(tensor_noise(found)[t] for t in conv.tensors))


class Flat:
    """A float output that is always zero beside one that is not."""

    TEXT = """<ir_version: 8, opset_import: ["": 17]>
    g (float[1,4,6,6] x) => (float[1,4,6,6] y, float[1,4,6,6] zero)
    <float[4,4,1,1] w = {1,-0.5,0.25,0.1,0.3,1,-0.7,0.2,0.6,0.1,1,0.4,-0.2,0.5,0.8,1}, float z = {0.0}> {
        [conv] y = Conv(x, w)
        [zero] zero = Mul(x, z)
    }"""


def test_an_output_without_signal_does_not_count() -> None:
    samples = normal(3, x=(1, 4, 6, 6))
    found = sensitivity(*planned(Flat.TEXT, samples), Samples(samples), threads=1)
    silent = next(o for o in found.total.outputs if o.name == "zero")
    assert silent.signal == silent.noise == 0.0
    assert 0 < found.measured < math.inf
    assert any("zero on all samples" in n for n in found.notes)


OVERFLOW = """<ir_version: 8, opset_import: ["": 17]>
g (float[1,4] x) => (float[1,4] y)
<float[4,4] w = {1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1}, float big = {100.0}> {
    [product] p = MatMul(x, w)
    [scaled] s = Mul(p, big)
    [exp] y = Exp(s)
}"""


def test_elements_that_become_infinite_are_lost_with_all_their_energy() -> None:
    samples = [
        {"x": np.array([[0.85, 0.1, 0.2, 0.3]], np.float32)},
        {"x": np.array([[-1.0, 0.1, 0.2, 0.3]], np.float32)},
    ]
    model, plan = planned(OVERFLOW, samples)
    bad_plan = coarse(plan, used_tensors(model), "x", 65.0)
    found = sensitivity(model, bad_plan, Samples(samples), threads=1)
    worst = found.ranked[0].alone.outputs[0]
    assert found.ranked[0].tensor == "x" and worst.lost > 0 and math.isfinite(worst.noise)
    assert any("NaN or infinite" in n for n in found.notes)
    fine = sensitivity(model, plan, Samples(samples), threads=1)
    assert not any(o.lost for o in fine.total.outputs) and not any("NaN" in n for n in fine.notes)


def test_nothing_to_quantize_is_said() -> None:
    samples = normal(2, image=(1, 3, 8, 8))
    model, plan = planned(tiny.classifier(), samples)
    found = sensitivity(model, dataclasses.replace(plan, uses={}, values={}), Samples(samples), threads=1)
    assert not found.tensors and found.measured == 0.0 == found.predicted
    assert any("nothing to measure" in n for n in found.notes)


def test_samples_are_spread_and_few() -> None:
    samples = normal(9, x=(1, 4, 6, 6))
    model, plan = planned(RESIDUAL, samples)
    some = sensitivity(model, plan, Samples(samples), Options(samples=3), threads=1)
    same = sensitivity(model, plan, Samples([samples[i] for i in (0, 3, 6)]), threads=1)
    assert some.samples == 3 and some.tensors == same.tensors


def test_a_tensor_that_is_moved_as_it_is_counts_once() -> None:
    model, plan, data, _ = res8()
    found = measured_res8()
    following = {t.tensor: t for t in found.tensors if t.follows}
    (flat,) = following.values()
    (pooled,) = (t for t in found.tensors if t.tensor in flat.follows)
    assert (flat.op, pooled.op) == ("Flatten", "GlobalAveragePool")
    assert flat.noise == pooled.noise > 0 == flat.share
    assert predict([flat, pooled]) == pooled.noise and predict([flat]) == flat.noise
    unit = next(u for u in found.units if u.op == "Flatten")
    assert unit.summed == pooled.noise
    # with another scale it has an error of its own
    other = sensitivity(model, coarse(plan, used_tensors(model), flat.tensor, 1.5), data, FEW, threads=1)
    assert not any(t.follows for t in other.tensors)
    assert next(u for u in other.units if u.op == "Flatten").summed > 1.5 * pooled.noise


SQUASHED = """<ir_version: 8, opset_import: ["": 17]>
g (float[1,4,6,6] x) => (float[1,4,36] y)
<float[4,4,1,1] w = {1,-0.5,0.25,0.1,0.3,1,-0.7,0.2,0.6,0.1,1,0.4,-0.2,0.5,0.8,1}, int64[3] shape = {1,4,36}> {
    [conv] c = Conv(x, w)
    [last] s = Softmax<axis = 1>(c)
    [reshape] y = Reshape(s, shape)
}"""


def _squashed(text: str) -> Sensitivity:
    samples = normal(6, x=(1, 4, 6, 6))
    cosine = Scoring(metric=load_metric("cosine", Path()), name="cosine")
    return sensitivity(*planned(text, samples), Samples(samples), scoring=cosine, threads=1)


def test_noise_is_measured_in_front_of_a_last_softmax() -> None:
    found = _squashed(SQUASHED)
    (output,) = found.total.outputs
    assert output.name == "y" and output.head is not None and output.head.name == "c"
    assert output.head.elements == output.elements == 6 * 144
    assert found.measured == output.head.relative != output.relative > 0
    assert any("at c for y" in n for n in found.notes)
    # the metric sees the outputs alone: a cosine with the logits among them would be another
    logits = _squashed(SQUASHED.replace("y)\n<", "y, float[1,4,6,6] c)\n<"))
    assert [o.name for o in logits.total.outputs] == ["y", "c"]
    assert logits.total.outputs[0].head == dataclasses.replace(logits.total.outputs[1], name="c")
    assert found.tensors[0].alone.score != logits.tensors[0].alone.score


@pytest.mark.parametrize(
    "text",
    [
        SQUASHED.replace("Softmax<axis = 1>", "LogSoftmax<axis = 1>"),
        SQUASHED.replace("Softmax<axis = 1>", "Relu"),
        SQUASHED.replace("[last]", "[sum] m = Add(c, mask)\n    [last]")
        .replace("(c)", "(m)")
        .replace("int64[3] shape", "float[1,1,1,6] mask = {0,0,0,0,0,-1e9}, int64[3] shape"),
    ],
)
def test_other_ends_are_measured_as_they_are(text: str) -> None:
    found = _squashed(text)
    (output,) = found.total.outputs
    assert output.head is None and found.measured == output.relative
    assert not any("in front of" in n for n in found.notes)


def test_a_squashed_output_that_is_quantized_itself_is_measured_as_it_is() -> None:
    samples = normal(2, x=(1, 4, 6, 6))
    model, plan = planned(SQUASHED, samples)
    assert instrument(model, plan).heads == {"y": "c"}
    image = next(e for u, e in plan.uses.items() if u.node == "conv" and u.slot == 0)
    ended = dataclasses.replace(plan, uses={**plan.uses, Use((), "", 0): image})
    assert not instrument(model, ended).heads


def test_a_reshape_in_front_of_a_last_softmax_does_not_hide_the_name_of_what_it_reads() -> None:
    """The pipeline puts one there; one that is quantized keeps its own name, since its rounding would not count."""
    samples = normal(2, x=(1, 4, 6, 6))
    model, plan = planned(SQUASHED, samples)
    softmax = next(n for n in model.graph.nodes if n.op == "Softmax")
    reshape = softmax.inputs[0].inputs[0]
    assert reshape.op == "Reshape" and instrument(model, plan).heads == {"y": "c"}
    image = next(e for u, e in plan.uses.items() if u.node == "conv" and u.slot == 0)
    rounded = dataclasses.replace(plan, uses={**plan.uses, Use((), softmax.name, 0): image})
    assert instrument(model, rounded).heads == {"y": reshape.outputs[0].name}
