"""State, errors, and that no machinery around the runs changes a bit."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sensing import FEW, Wrong, classifier, coarse, top1
from switched import open_off, planned, res8, used_tensors
from whole import Samples, normal

from onnxq.data.sample import Sample
from onnxq.errors import CalibrationError, DataError, ModelError, UsageError
from onnxq.plan.plan import Plan
from onnxq.sensitivity.engine import Options, sensitivity
from onnxq.sensitivity.instrument import instrument
from onnxq.sensitivity.switches import Rounded
from onnxq.sensitivity.work import Scoring
from onnxq.stats.cache import Cache
from onnxq.stats.parallel import Pool
from onnxq.validate.metrics import load_metric

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
    model, plan, _ = classifier()
    with pytest.raises(DataError, match="there is no sample to measure"):
        sensitivity(model, plan, Samples([]), threads=1)


def test_a_sample_that_does_not_fit_is_named() -> None:
    model, plan, samples = classifier()
    bad = [*samples, {"image": np.zeros((1, 2, 8, 8), np.float32)}]
    with pytest.raises(ModelError, match=r"sample sample 4 \(index 4\): "):
        sensitivity(model, plan, Samples(bad), threads=1)


# the machinery


def test_workers_change_no_bit() -> None:
    model, plan, data, judged = res8()
    few = Options(samples=5, eval_samples=3)
    asked: Any = {"evaluation": judged, "scoring": top1(), "threads": 2}
    found = sensitivity(model, plan, data, few, executor=Pool(workers=2), **asked)
    assert found.to_json() == sensitivity(model, plan, data, few, **asked).to_json()


def test_with_feedback_all_samples_stay_in_one_process() -> None:
    model, plan, samples = _fed()
    options = Options(feedback={"next": "state"})
    found = sensitivity(model, plan, Samples(samples), options, threads=1, executor=Pool(workers=2))
    assert any("one process" in n for n in found.notes)
    assert found.tensors == sensitivity(model, plan, Samples(samples), options, threads=1).tensors


METRIC = """
class Right:
    higher_is_better = True

    def record(self, outputs, label):
        return [float(outputs["logits"].argmax() == label)]

    def score(self, records):
        return float(records.mean())
"""


def test_workers_load_a_metric_of_a_file_and_any_executor_will_do(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(METRIC)
    model, plan, data, judged = res8()
    scoring = Scoring(metric=load_metric("mine.py:Right", tmp_path), name="mine.py:Right", base=tmp_path)
    asked: Any = {"evaluation": judged, "scoring": scoring, "threads": 1}
    few = Options(samples=2, eval_samples=3)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        found = sensitivity(model, plan, data, few, executor=executor, **asked)
    assert found.to_json() == sensitivity(model, plan, data, few, **asked).to_json()


def test_a_metric_that_cannot_be_sent(tmp_path: Path) -> None:
    class Local(Wrong):
        pass

    model, plan, data, judged = res8()
    scoring = Scoring(metric=Local(), name="local")
    with pytest.raises(UsageError, match="cannot be used by other processes"):
        sensitivity(model, plan, data, FEW, evaluation=judged, scoring=scoring, executor=Pool(workers=2), threads=1)


def test_a_dask_cluster(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    model, plan, data, _ = res8()
    few = Options(samples=2)
    cluster = distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None, scheduler_port=0
    )
    with cluster:
        pool = Pool(cluster=cluster.scheduler_address)
        found = sensitivity(model, plan, data, few, threads=1, executor=pool, cache=Cache(tmp_path))
    assert found == sensitivity(model, plan, data, few, threads=1)
    assert not list((tmp_path / "models").iterdir())


def _never(*_: object, **__: object) -> None:
    raise AssertionError("it ran again")


def test_the_same_again_comes_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, plan, data, judged = res8()
    cache = Cache(tmp_path, environment="test")
    few = Options(samples=2, eval_samples=4)
    asked: Any = {"evaluation": judged, "scoring": top1(), "threads": 1, "cache": cache}
    first = sensitivity(model, plan, data, few, **asked)
    monkeypatch.setattr("onnxq.sensitivity.engine.measure", _never)
    assert sensitivity(model, plan, data, few, **asked) == first
    changed = {
        "another plan": (coarse(plan, used_tensors(model), first.tensors[0].tensor, 2.0), few, asked),
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
    model, plan, samples = classifier()
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
