"""A limit of time: the loudest tensors are measured as without one, the others are estimated and said to be."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sensing import FEW, classifier, measured_res8, top1
from switched import open_off, planned, res8
from whole import Samples, normal

from onnxq.numerics import dequantize, quantize
from onnxq.sensitivity.engine import Options, sensitivity
from onnxq.sensitivity.instrument import instrument
from onnxq.sensitivity.loudness import evenly, loudness
from onnxq.sensitivity.result import Sensitivity
from onnxq.stats.cache import Cache
from onnxq.stats.taps import with_outputs


class Ticking:
    """Progress, and a clock that moves on by one second in each trial."""

    def __init__(self) -> None:
        self.now, self.total = 0.0, 0

    @contextmanager
    def task(self, label: str, total: int | None) -> Iterator[Callable[[int], None]]:
        self.total = total or 0

        def step(done: int) -> None:
            self.now += done

        yield step

    def clock(self) -> float:
        return self.now


def _within(seconds: float, *, options: Options = FEW, scored: bool = False, **asked: Any) -> tuple[Sensitivity, float]:
    model, plan, data, judged = res8()
    if scored:
        asked |= {"evaluation": judged, "scoring": top1()}
    ticking = Ticking()
    options = dataclasses.replace(options, seconds=seconds)
    found = sensitivity(model, plan, data, options, threads=1, progress=ticking, clock=ticking.clock, **asked)
    assert ticking.now <= ticking.total  # no more is done than was said
    assert found.seconds is not None or ticking.now == ticking.total  # all of it, unless time was over
    return found, ticking.now


def test_the_quiet_tensors_are_estimated_when_the_time_is_over() -> None:
    whole = measured_res8()
    found, now = _within(100)  # 36 trials on 4 samples take 144 s
    assert now <= 100
    assert found.unmeasured == 13 and found.seconds == 100 and found.samples == 4
    pairs = list(zip(found.tensors, whole.tensors, strict=True))
    for some, other in pairs:
        assert some.tensor == other.tensor
        if some.alone is None:
            assert some.estimate is not None and some.estimate == some.noise
        else:
            assert other.alone is not None and some.estimate is None
            assert some.alone.outputs == other.alone.outputs and some.noise == other.noise
    assert found.total.outputs == whole.total.outputs
    assert 0.5 < found.predicted / whole.predicted < 2
    assert sum(b.noise for a, b in pairs if a.alone is not None) > 0.8 * whole.predicted  # the loud ones came first
    (said,) = [n for n in found.notes if "no more time" in n]
    assert said == (
        "There was no more time than 100 s: the noise of 13 of 35 tensors, those with the least rounding errors of "
        "their own, is an estimate."
    )


def test_the_file_says_what_is_an_estimate() -> None:
    found, _ = _within(100)
    raw = json.loads(found.to_json())
    blank = [t for t in raw["tensors"] if t["alone"] is None]
    assert len(blank) == 13 and all(t["estimate"] >= 0.0 for t in blank) and raw["seconds"] == 100.0
    assert Sensitivity.from_json(found.to_json(), "x") == found


def test_enough_time_changes_nothing() -> None:
    found, _ = _within(1e6, scored=True)
    assert found.to_json() == measured_res8().to_json()


def test_less_time_than_the_first_piece_takes_leaves_fewer_samples() -> None:
    found, _ = _within(60, scored=True)
    assert found.samples == 1 and found.eval_samples == 2
    (said,) = [n for n in found.notes if "no more time" in n]
    assert "noise was measured on 1 of 4 samples; the score was measured on 2 of 8 samples." in said
    assert [t.alone.drop is not None for t in found.tensors if t.alone is not None] == [True] * 7


def test_units_and_rests_come_behind_the_tensors() -> None:
    options = dataclasses.replace(FEW, samples=1, units=True, rest=True)
    found, _ = _within(50, options=options)
    assert not found.unmeasured
    measured = sum(u.together is not None for u in found.units)
    assert 0 < measured < len(found.units) and all(t.rest is None for t in found.tensors)
    (said,) = [n for n in found.notes if "no more time" in n]
    assert f"{len(found.units) - measured} of {len(found.units)} ops were not measured" in said
    assert f"{len(found.tensors)} of {len(found.tensors)} tensors were not left out" in said


def test_what_was_cut_is_cached_under_its_limit_and_the_whole_under_any(tmp_path: Path) -> None:
    cache = Cache(tmp_path, environment="test")
    first, _ = _within(100, cache=cache)
    again, now = _within(100, cache=cache)
    assert again == first and now == 0
    more, now = _within(1e6, cache=cache)
    assert now > 0 and not more.unmeasured
    assert _within(100, cache=cache) == (more, 0)


def test_the_loudness_of_a_tensor_is_its_own_rounding_error() -> None:
    model, plan, samples = classifier()
    made = instrument(model, plan)
    found = loudness(model, made.switches, samples[0], 1)
    assert {s.kind for s in made.switches} == {"activation", "weight", "bias"}
    constants = {t.name: t.values for n in model.graph.nodes for t in n.inputs if hasattr(t, "values")}
    names = [s.tensor for s in made.switches if s.kind == "activation"]
    values = {**samples[0], **open_off(with_outputs(model, names)).run(samples[0], [n for n in names if n != "image"])}
    for switch, own in zip(made.switches, found, strict=True):
        x = np.asarray(constants.get(switch.tensor, values.get(switch.tensor)))
        error = x.astype(np.float64) - dequantize(quantize(x, switch.encoding), switch.encoding)
        assert own == pytest.approx(np.sum(error**2) / np.sum(x.astype(np.float64) ** 2), rel=1e-5, abs=1e-12)


BODY = """<ir_version: 8, opset_import: ["": 17]>
g (float[1,4] x, bool c) => (float[1,4] y)
<float[4,4] w = {1,-0.5,0.25,0.1,0.3,1,-0.7,0.2,0.6,0.1,1,0.4,-0.2,0.5,0.8,1}> {
    [choose] y = If (c) <
        then_branch = then () => (float[1,4] t) { [one] p = MatMul(x, w) [soft] r = Relu(p) [two] t = MatMul(r, w) },
        else_branch = other () => (float[1,4] e) { [three] e = MatMul(x, w) }
    >
}"""


def test_where_no_output_reaches_values_are_taken_to_be_spread_evenly() -> None:
    samples = [{**s, "c": np.array(True)} for s in normal(3, x=(1, 4))]
    model, plan = planned(BODY, samples)
    made = instrument(model, plan)
    found = dict(zip((s.tensor for s in made.switches), loudness(model, made.switches, samples[0], 1), strict=True))
    inner = [s for s in made.switches if s.kind == "activation" and s.tensor not in ("x", "y")]
    assert inner and all(found[s.tensor] == evenly(s.encoding) for s in inner)
    assert found["x"] != evenly(next(s.encoding for s in made.switches if s.tensor == "x"))


def test_values_that_are_not_finite_are_no_loudness() -> None:
    model, plan, samples = classifier()
    made = instrument(model, plan)
    broken = {"image": np.full_like(samples[0]["image"], np.inf)}
    found = loudness(model, made.switches, broken, 1)
    assert all(np.isfinite(found)) and max(found) < 1


def test_nothing_to_measure_needs_no_time() -> None:
    model, plan, samples = classifier()
    empty = dataclasses.replace(plan, uses={}, values={})
    found = sensitivity(model, empty, Samples(samples), Options(seconds=1e-9), threads=1)
    assert found.tensors == () and found.samples == 4
