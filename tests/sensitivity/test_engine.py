"""What each tensor does to the outputs: the figures, the order, and that no machinery around them changes a bit."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
import tiny
from numpy.typing import NDArray
from switched import RESIDUAL, open_off, planned, res8, used_tensors
from whole import Samples, normal

from onnxq.data.sample import Sample
from onnxq.encoding import Affine
from onnxq.errors import CalibrationError, DataError, MetricError, ModelError
from onnxq.plan.plan import Plan
from onnxq.sensitivity.engine import Options, sensitivity
from onnxq.sensitivity.instrument import Rounded, instrument
from onnxq.sensitivity.result import Sensitivity, noise, predict, tensor_noise
from onnxq.sensitivity.work import Scoring
from onnxq.stats.cache import Cache
from onnxq.stats.parallel import Pool
from onnxq.validate.metrics import load_metric

FEW = Options(samples=4, eval_samples=8)


@functools.cache
def _res8(rest: bool = False, units: bool = False) -> Sensitivity:
    model, plan, data, judged = res8()
    options = dataclasses.replace(FEW, rest=rest, units=units)
    return sensitivity(model, plan, data, options, evaluation=judged, scoring=_top1(), threads=1)


def _top1() -> Scoring:
    return Scoring(metric=load_metric("top1", Path()), name="top1")


def _coarse(plan: Plan, uses: dict[Any, str], tensor: str, factor: float) -> Plan:
    """The plan with a bad scale on one tensor."""

    def worse(encoding: Affine) -> Affine:
        return dataclasses.replace(encoding, scale=(encoding.scale * factor).astype(np.float32))

    changed = {u: worse(e) if uses.get(u) == tensor else e for u, e in plan.uses.items()}
    return dataclasses.replace(plan, uses=changed)


# what the figures say


def test_the_noises_of_single_tensors_add_up_to_the_noise_of_all() -> None:
    found = _res8()
    assert len(found.tensors) == 35 and found.samples == 4
    assert found.measured > 0
    assert found.measured / 1.5 < found.predicted < found.measured * 1.5
    assert math.fsum(t.share for t in found.tensors) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["activation", "weight"])
def test_a_bad_scale_is_ranked_first_and_was_not_before(kind: str) -> None:
    model, plan, data, _ = res8()
    before = _res8()
    bad = [t for t in before.ranked if t.kind == kind][-1].tensor
    assert before.ranked[0].tensor != bad
    coarse = _coarse(plan, used_tensors(model), bad, 64.0)
    found = sensitivity(model, coarse, data, dataclasses.replace(FEW, rest=True), threads=1)
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
    found, plain = _res8(rest=True, units=True), _res8()
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
    found = _res8()
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
    coarse = _coarse(plan, used_tensors(model), "x", 65.0)
    found = sensitivity(model, coarse, Samples(samples), threads=1)
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
    found = _res8()
    following = {t.tensor: t for t in found.tensors if t.follows}
    (flat,) = following.values()
    (pooled,) = (t for t in found.tensors if t.tensor in flat.follows)
    assert (flat.op, pooled.op) == ("Flatten", "GlobalAveragePool")
    assert flat.noise == pooled.noise > 0 == flat.share
    assert predict([flat, pooled]) == pooled.noise and predict([flat]) == flat.noise
    unit = next(u for u in found.units if u.op == "Flatten")
    assert unit.summed == pooled.noise
    # with another scale it has an error of its own
    other = sensitivity(model, _coarse(plan, used_tensors(model), flat.tensor, 1.5), data, FEW, threads=1)
    assert not any(t.follows for t in other.tensors)
    assert next(u for u in other.units if u.op == "Flatten").summed > 1.5 * pooled.noise


# the score


def test_the_score_of_each_tensor() -> None:
    found = _res8()
    assert found.metric == "top1" and found.eval_samples == 8 and found.score is not None
    for tensor in found.tensors:
        assert tensor.alone.score is not None
        assert tensor.alone.drop == pytest.approx(found.score - tensor.alone.score)


def test_a_ruined_tensor_costs_score() -> None:
    model, plan, data, judged = res8()
    bad = _res8().ranked[0].tensor
    ruined = _coarse(plan, used_tensors(model), bad, 4096.0)
    found = sensitivity(model, ruined, data, FEW, evaluation=judged, scoring=_top1(), threads=1)
    drops = {t.tensor: t.alone.drop for t in found.tensors}
    assert (drops[bad] or 0.0) > 0.3 and all((d or 0.0) <= 0.2 for n, d in drops.items() if n != bad)


class Wrong:
    """An error rate: less is better."""

    higher_is_better: ClassVar[bool] = False

    def record(self, outputs: Any, label: Any) -> Sequence[float]:
        if label == "bad":
            raise KeyError("no such class")
        return [float(int(np.argmax(outputs["scores"])) != label)]

    def score(self, records: NDArray[np.float64]) -> float:
        return float(records[:, 0].mean())


class Labelled(Samples):
    labels: ClassVar[Sequence[Any]] = (0, 1, 2, 3)

    def __iter__(self) -> Any:
        for sample in super().__iter__():
            yield dataclasses.replace(sample, label=self.labels[sample.index])


class Broken(Labelled):
    labels = (0, 1, "bad", 3)


def _classifier() -> tuple[Any, Plan, list[Any]]:
    samples = list(normal(4, image=(1, 3, 8, 8)))
    return *planned(tiny.classifier(), samples), samples


def test_a_drop_is_positive_when_an_error_rate_rises() -> None:
    model, plan, samples = _classifier()
    ruined = _coarse(plan, used_tensors(model), "image", 1000.0)
    scoring = Scoring(metric=Wrong(), name="wrong")
    found = sensitivity(model, ruined, Labelled(samples, labelled=True), scoring=scoring, threads=1)
    assert not found.higher_is_better and found.score is not None
    for tensor in found.tensors:
        assert tensor.alone.drop == pytest.approx((tensor.alone.score or 0.0) - found.score)
    assert any("flatters" in n for n in found.notes)


def test_a_metric_that_raises_names_the_sample() -> None:
    model, plan, samples = _classifier()
    scoring = Scoring(metric=Wrong(), name="wrong")
    with pytest.raises(MetricError, match=r'metric "wrong" fails on sample sample 2 \(index 2\)'):
        sensitivity(model, plan, Broken(samples, labelled=True), scoring=scoring, threads=1)


def test_a_metric_needs_labels_unless_it_compares_outputs() -> None:
    model, plan, samples = _classifier()
    with pytest.raises(MetricError, match="needs labels"):
        sensitivity(model, plan, Samples(samples), scoring=_top1(), threads=1)
    cosine = Scoring(metric=load_metric("cosine", Path()), name="cosine")
    found = sensitivity(model, plan, Samples(samples), scoring=cosine, threads=1)
    assert found.score == pytest.approx(1.0)
    assert all(0.9 < (t.alone.score or 0.0) <= 1.0 for t in found.tensors)


class Uneven(Wrong):
    def record(self, outputs: Any, label: Any) -> Sequence[float]:
        return [0.0] * (1 + label % 2)


class Scoreless(Wrong):
    def score(self, records: NDArray[np.float64]) -> float:
        raise ZeroDivisionError("nothing")


@pytest.mark.parametrize(("metric", "said"), [(Uneven(), "rows of different lengths"), (Scoreless(), "cannot score")])
def test_a_metric_that_cannot_be_summed_up(metric: Any, said: str) -> None:
    model, plan, samples = _classifier()
    with pytest.raises(MetricError, match=said):
        sensitivity(
            model, plan, Labelled(samples, labelled=True), scoring=Scoring(metric=metric, name="mine"), threads=1
        )


# state


STATE = """<ir_version: 8, opset_import: ["": 17]>
g (float[1,4] x, float[1,4] state) => (float[1,4] y, float[1,4] next)
<float[4,4] w = {1,-0.5,0.25,0.1,0.3,1,-0.7,0.2,0.6,0.1,1,0.4,-0.2,0.5,0.8,1}> {
    [sum] s = Add(x, state)
    [product] p = MatMul(s, w)
    [next] next = Tanh(p)
    [y] y = Neg(p)
}"""


def _fed() -> tuple[Any, Plan, list[Any]]:
    samples = [{**s, "state": np.zeros((1, 4), np.float32)} for s in normal(5, x=(1, 4))]
    return *planned(STATE, samples), samples


def test_each_trial_goes_on_with_its_own_state() -> None:
    model, plan, samples = _fed()
    options = Options(samples=None, feedback={"next": "state"})
    found = sensitivity(model, plan, Samples(samples), options, threads=1)

    made = instrument(model, plan)
    session, values, outputs = open_off(made.model), Rounded(made, keep=True), list(made.outputs.values())
    error = signal = 0.0
    trials: list[tuple[int, ...]] = [(), (0,)]
    states = dict.fromkeys(trials, samples[0]["state"])
    for sample in samples:
        got = {}
        for on in trials:
            found_now = session.run({**sample, "state": states[on], **made.feed(on, values)}, outputs)
            got[on], states[on] = found_now[made.outputs["y"]].astype(np.float64), found_now[made.outputs["next"]]
        signal, error = signal + float((got[()] ** 2).sum()), error + float(((got[()] - got[(0,)]) ** 2).sum())
    assert found.tensors[0].alone.outputs[0].relative == pytest.approx(error / signal, rel=1e-12)
    without = sensitivity(model, plan, Samples(samples), Options(samples=None), threads=1)
    assert without.tensors[0].alone != found.tensors[0].alone


@pytest.mark.parametrize("feedback", [{"nxt": "state"}, {"next": "stat"}])
def test_feedback_to_nowhere(feedback: dict[str, str]) -> None:
    model, plan, samples = _fed()
    with pytest.raises(CalibrationError, match=r"feedback names the .* which the model lacks: did you mean"):
        sensitivity(model, plan, Samples(samples), Options(feedback=feedback), threads=1)


# errors


def test_no_sample() -> None:
    model, plan, _ = _classifier()
    with pytest.raises(DataError, match="there is no sample to measure"):
        sensitivity(model, plan, Samples([]), threads=1)


def test_a_sample_that_does_not_fit_is_named() -> None:
    model, plan, samples = _classifier()
    bad = [*samples, {"image": np.zeros((1, 2, 8, 8), np.float32)}]
    with pytest.raises(ModelError, match=r"sample sample 4 \(index 4\): "):
        sensitivity(model, plan, Samples(bad), threads=1)


# the machinery


def test_workers_change_no_bit() -> None:
    model, plan, data, judged = res8()
    found = sensitivity(model, plan, data, FEW, evaluation=judged, scoring=_top1(), threads=2, executor=Pool(workers=2))
    assert found.to_json() == _res8().to_json()


def test_with_feedback_all_samples_stay_in_one_process() -> None:
    model, plan, samples = _fed()
    options = Options(feedback={"next": "state"})
    found = sensitivity(model, plan, Samples(samples), options, threads=1, executor=Pool(workers=2))
    assert any("one process" in n for n in found.notes)
    assert found.tensors == sensitivity(model, plan, Samples(samples), options, threads=1).tensors


def _never(*_: object, **__: object) -> None:
    raise AssertionError("it ran again")


def test_the_same_again_comes_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, plan, data, judged = res8()
    cache = Cache(tmp_path, environment="test")
    few = Options(samples=2, eval_samples=4)
    asked: Any = {"evaluation": judged, "scoring": _top1(), "threads": 1, "cache": cache}
    first = sensitivity(model, plan, data, few, **asked)
    monkeypatch.setattr("onnxq.sensitivity.engine.measure", _never)
    assert sensitivity(model, plan, data, few, **asked) == first
    changed = {
        "another plan": (_coarse(plan, used_tensors(model), first.tensors[0].tensor, 2.0), few, asked),
        "more samples": (plan, Options(samples=3, eval_samples=4), asked),
        "more trials": (plan, Options(samples=2, eval_samples=4, units=True), asked),
        "no score": (plan, few, {**asked, "scoring": None}),
        "another environment": (plan, few, {**asked, "cache": Cache(tmp_path, environment="other")}),
    }
    for other, options, more in changed.values():
        with pytest.raises(AssertionError, match="it ran again"):
            sensitivity(model, other, data, options, **more)


def test_a_damaged_entry_is_measured_again(tmp_path: Path) -> None:
    model, plan, data, _ = res8()
    cache = Cache(tmp_path)
    first = sensitivity(model, plan, data, Options(samples=1), threads=1, cache=cache)
    (entry,) = (tmp_path / "sensitivity").iterdir()
    entry.write_text('{"schema": 1')
    with pytest.warns(UserWarning, match="damaged"):
        again = sensitivity(model, plan, data, Options(samples=1), threads=1, cache=cache)
    assert again == first and entry.read_text() == first.to_json()


def test_samples_that_do_not_tell_what_they_are_are_not_cached(tmp_path: Path) -> None:
    model, plan, samples = _classifier()
    sensitivity(model, plan, Samples(samples), threads=1, cache=Cache(tmp_path))
    assert not list(tmp_path.rglob("*.json"))


def test_positions_are_those_in_the_data() -> None:
    from onnxq.sensitivity.measure import choose

    _, _, data, _ = res8()
    picked = list(choose(data, [1, 5, 9]))
    assert [s.index for s in picked] == [1, 5, 9]
    everything = {s.index: s for s, _ in zip(data, range(10), strict=False)}
    assert all(np.array_equal(s.inputs["image"], everything[s.index].inputs["image"]) for s in picked)
    plain: list[Sample] = list(choose(Samples(normal(6, x=(1,))), [0, 3]))
    assert [s.index for s in plain] == [0, 3]
