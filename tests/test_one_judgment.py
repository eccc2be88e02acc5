"""Without labels, one figure decides everywhere: about the method, about repairs, and about the accuracy budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from onnxq import nearness, trial
from onnxq.config.placing import Budget
from onnxq.data.sample import Sample
from onnxq.faintest import Parts, decibels_of, worst_part
from onnxq.ir.model import Model
from onnxq.pipeline.base import Context
from onnxq.plan.plan import Plan
from onnxq.repair import held

RNG = np.random.default_rng(0)
SAMPLES = 20
SCALE = np.where(np.arange(6) < 4, 300.0, 0.5)[:, None]
BOXES = SCALE > 1
Outputs = list[dict[str, Any]]


def noisy(exact: Outputs, boxes: float, scores: float) -> Outputs:
    """The outputs with noise so many dB below them."""
    level = 10 ** (-np.where(BOXES, boxes, scores) / 20)
    return [{"y": x["y"] * (1 + level)} for x in exact]


EXACT: Outputs = [{"y": RNG.normal(size=(1, 6, 50)) * SCALE} for _ in range(SAMPLES)]
WIDE, NARROW = noisy(EXACT, 30.0, 20.0), noisy(EXACT, 40.0, 5.0)
"""The second is 10 dB nearer over the whole, and its scores are 15 dB worse."""


class Data:
    """Samples by number."""

    description, preprocess_summary, labelled = "numbers", "as they are", False

    def __len__(self) -> int:
        return SAMPLES

    def __iter__(self) -> Any:
        return iter(Sample(index=i, name=str(i), inputs={"x": np.array([i])}) for i in range(SAMPLES))


class Forms(dict[str, Outputs]):
    """What each form of a model gives, as `outputs_of` does."""

    def __call__(self, form: object, samples: Sequence[Mapping[str, NDArray[Any]]], threads: object) -> Outputs:
        return [self[str(form)][int(inputs["x"][0])] for inputs in samples]


def chosen(monkeypatch: pytest.MonkeyPatch, forms: Forms) -> tuple[str, str]:
    """What `auto` takes of minmax and mse, and what it says."""

    def exact(model: object, samples: Sequence[Sample], threads: object) -> tuple[Outputs, list[Sample]]:
        return forms("float", [s.inputs for s in samples], threads), list(samples)

    monkeypatch.setattr(trial, "outputs_of", forms)
    monkeypatch.setattr(trial, "_exact", exact)
    monkeypatch.setattr(trial, "weight_bytes", lambda model: 0)
    monkeypatch.setattr(trial, "inserted", lambda model, context, plan: plan.key)
    plans = {name: cast(Plan, SimpleNamespace(uses=True, key=name)) for name in ("minmax", "mse")}
    method, (note,) = trial.choose(cast(Model, None), plans, cast(Context, None), cast(Any, Data()), 1)
    return method, note


def test_auto_goes_by_the_part_that_suffers_most(monkeypatch: pytest.MonkeyPatch) -> None:
    method, note = chosen(monkeypatch, Forms({"float": EXACT, "minmax": NARROW, "mse": WIDE}))
    assert method == "mse"
    assert "the quiet part of output" in note
    assert "minmax 5.0 dB, mse 20.0 dB" in note
    lost_boxes = noisy(EXACT, 3.0, 40.0)
    method, note = chosen(monkeypatch, Forms({"float": EXACT, "minmax": WIDE, "mse": lost_boxes}))
    assert method == "minmax"
    assert "the output part that suffers most" in note  # scores of the one, boxes of the other
    assert "minmax 20.0 dB, mse 3.0 dB" in note


def test_of_one_part_the_whole_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """The near miss: the same noise on slices that are alike."""
    alike = [{"y": x["y"] / SCALE} for x in EXACT]
    forms = Forms({"float": alike, "minmax": noisy(alike, 30.0, 29.0), "mse": noisy(alike, 40.0, 32.0)})
    method, note = chosen(monkeypatch, forms)
    assert method == "mse"
    whole = np.mean([decibels_of(a["y"], b["y"]) for a, b in zip(alike, forms["mse"], strict=True)])
    assert f"by the outputs' SQNR on 16 calibration samples: minmax 29.7 dB, mse {whole:.1f} dB." in note


def test_auto_repairs_and_budget_have_the_same_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    forms = Forms({"float": EXACT, "minmax": WIDE, "mse": NARROW})
    monkeypatch.setattr(held, "outputs_of", forms)
    monkeypatch.setattr(nearness, "outputs_of", forms)
    samples = [s.inputs for s in Data()]
    judged = nearness.by_outputs(cast(Model, "float"), samples, Budget(min_sqnr_db=10.0), 1)
    before, after = (held.Held(cast(Model, "float"), samples, 1).levels(cast(Model, f)) for f in ("mse", "minmax"))
    assert judged(cast(Model, "mse")).sqnr_db == pytest.approx(worst_part(before).mean()) == pytest.approx(5.0)
    assert judged(cast(Model, "minmax")).sqnr_db == pytest.approx(worst_part(after).mean()) == pytest.approx(20.0)
    assert (judged(cast(Model, "mse")).holds, judged(cast(Model, "minmax")).holds) == (False, True)
    assert "minmax 20.0 dB, mse 5.0 dB" in chosen(monkeypatch, forms)[1]
    assert held.verdict(before, after) == ""  # a repair that brings back the scores and costs boxes pays
    assert held.verdict(after, before).startswith("-15.00 dB")


def test_outputs_of_another_shape_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A detector that hands out the boxes it keeps: one more in int8 is no noise of 120 dB, and no judgment at all."""
    kept = [{"y": np.ones((3, 4), np.float32)} for _ in range(4)]
    more = [{"y": np.ones((3 + (at == 2), 4), np.float32)} for at in range(4)]
    monkeypatch.setattr(nearness, "outputs_of", Forms({"float": kept, "int8": more}))
    judged = nearness.by_outputs(cast(Model, "float"), [s.inputs for s in Data()][:4], Budget(min_sqnr_db=10.0), 1)
    said = " (1 with outputs of another shape, which count as lost: labels would tell), at least 10 asked"
    assert judged(cast(Model, "int8")).sentence == f"40.0 dB SQNR on 4 calibration samples{said}"
    assert judged(cast(Model, "float")).sentence == "60.0 dB SQNR on 4 calibration samples, at least 10 asked"


def test_empty_outputs_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    some = [{"y": np.ones((2 * (at == 0), 4), np.float32), "n": np.ones(2 * (at == 0), np.int64)} for at in range(4)]
    monkeypatch.setattr(nearness, "outputs_of", Forms({"float": some}))
    judged = nearness.by_outputs(cast(Model, "float"), [s.inputs for s in Data()][:4], Budget(min_sqnr_db=10.0), 1)
    said = "60.0 dB SQNR on 4 calibration samples (3 with empty outputs, which say nothing), at least 10 asked"
    assert judged(cast(Model, "float")).sentence == said


@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.floats(-3, 3))
def test_one_output_of_one_part_is_judged_by_its_whole_to_the_bit(seed: int, count: int, power: float) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(8, 12, rng.integers(1, 4)))
    exact: Outputs = [{"y": rng.normal(size=shape).astype(np.float32)} for _ in range(count)]
    other: Outputs = [{"y": x["y"] + np.float32(10**power) * rng.normal(size=shape).astype(np.float32)} for x in exact]
    parts = Parts(exact)
    plain = [decibels_of(a["y"].astype(float), b["y"].astype(float)) for a, b in zip(exact, other, strict=True)]
    found = parts.faintest(parts.levels(exact, other))
    assert list(found.levels) == plain
    assert found.decibels == np.mean(plain)
