"""Runs that begin near their switch give the bits of whole runs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tiny
from bodies import GATE, Kind, wrapped
from switched import RESIDUAL, bits, planned, res8
from whole import Arrays, normal

from onnxq.ir.model import Model
from onnxq.plan.plan import Plan
from onnxq.runtime.session import Session
from onnxq.sensitivity import forward
from onnxq.sensitivity.forward import Forward
from onnxq.sensitivity.instrument import instrument


def _same(model: Model, plan: Plan, samples: list[Arrays]) -> Forward:
    made = instrument(model, plan)
    cut, whole = Forward(made, threads=1, parts=4), Forward(made, threads=1, parts=1)
    for inputs in samples:
        exact = cut.off(inputs)
        assert {n: bits(v) for n, v in exact.items()} == {n: bits(v) for n, v in whole.off(inputs).items()}
        for trial in [(i,) for i in range(len(made.switches))] + [tuple(range(len(made.switches))), (0, 2)]:
            one, other = cut.on(trial), whole.on(trial)
            assert list(one) == list(made.outputs)
            assert {n: bits(v) for n, v in one.items()} == {n: bits(v) for n, v in other.items()}
    return cut


def test_fashion_res8_to_the_bit() -> None:
    model, plan, data, _ = res8()
    found = _same(model, plan, [sample.inputs for sample, _ in zip(data, range(2), strict=False)])
    assert len(found._sessions) == 4


def test_outputs_made_before_the_cut_are_those_of_the_float_run() -> None:
    samples = normal(4, x=(2, 4, 6, 6))
    model, plan = planned(RESIDUAL, samples)
    made = _same(model, plan, samples[:2]).instrumented
    late = Forward(made, threads=1, parts=len(made.switches))
    exact = late.off(samples[0])
    last = len(made.switches) - 1
    got = late.on((last,))
    where = made.switches[last].position
    early = [
        n for n, at in made.outputs.items() if at in {t.name for x in made.model.graph.nodes[:where] for t in x.outputs}
    ]
    assert early
    assert all(bits(exact[n]) == bits(got[n]) for n in early)


@pytest.mark.parametrize("kind", ["If", "Loop", "Scan"])
def test_bodies_to_the_bit(kind: Kind) -> None:
    samples = [{**s, GATE: np.array(True)} if kind == "If" else s for s in normal(2, image=(1, 3, 8, 8))]
    model, plan = planned(wrapped(tiny.classifier(), kind, 2, "body"), samples)
    assert any(use.path for use in plan.uses)
    assert len(_same(model, plan, samples)._cuts) > 1


def test_part_runs_take_fewer_nodes() -> None:
    model, plan, _, _ = res8()
    made = instrument(model, plan)
    cuts = Forward(made, parts=4)._cuts
    assert len(cuts) == 4 and cuts[0].position == 0
    assert all(1 <= len(c.live) <= 3 for c in cuts[1:])


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_large_models_are_not_cut(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(forward, "CUT_BELOW", limit)
    model, plan, _, _ = res8()
    assert len(Forward(instrument(model, plan))._cuts) == (4 if limit else 1)


def test_no_switch_at_all() -> None:
    samples = normal(2, image=(1, 3, 8, 8))
    model, plan = planned(tiny.classifier(), samples)
    found = Forward(instrument(model, dataclasses.replace(plan, uses={}, values={})), threads=1)
    np.testing.assert_array_equal(found.off(samples[0])["scores"], found.on(())["scores"])


def test_each_session_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []

    class Counted(Session):
        def __init__(self, *args: object, **more: object) -> None:
            opened.append(args)
            super().__init__(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(forward, "Session", Counted)
    samples = normal(2, image=(1, 3, 8, 8))
    made = instrument(*planned(tiny.classifier(), samples))
    found = Forward(made, threads=1, parts=2)
    for inputs in samples:
        found.off(inputs)
        for index in range(len(made.switches)):
            found.on((index,))
    assert len(opened) == 2
