"""Which repairs are tried: what a job says, and what each effort means."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxq.config.job import Job, load_job
from onnxq.config.repair import REPAIRS, Repairing, RepairSection
from onnxq.errors import ConfigError, OnnxqError


def test_by_effort() -> None:
    auto = RepairSection()
    assert auto.repairing("fast", by_cost=True) == Repairing(names=("bias",), effort="fast")
    assert auto.repairing("default", by_cost=True) == Repairing(
        names=("weights", "bias"), later=("equalize", "smooth"), effort="default"
    )
    assert auto.repairing("max", by_cost=True) == Repairing(names=REPAIRS, effort="max")


def test_without_placement_by_cost_nothing_is_tried_that_was_not_asked_for() -> None:
    assert RepairSection().repairing("default", by_cost=False) is None
    assert RepairSection(use="none").repairing("max", by_cost=True) is None
    assert RepairSection(use="bias").repairing("default", by_cost=False) == Repairing(names=("bias",))


def test_names_in_the_order_they_are_made() -> None:
    asked = RepairSection(use="bias, smooth").repairing("fast", by_cost=True)
    assert asked == Repairing(names=("smooth", "bias"), effort="fast")
    assert RepairSection(use=("weights", "equalize")).repairing("max", by_cost=True) == Repairing(
        names=("equalize", "weights"), effort="max"
    )


@pytest.mark.parametrize(
    ("use", "said"),
    [
        ("biass", 'there is no repair "biass": did you mean "bias"?'),
        ("none,bias", "auto and none stand alone: write one of them, or names"),
        ("", "no repair is named: write none, auto or some of equalize, smooth, weights, bias"),
    ],
)
def test_what_makes_no_sense(use: str, said: str) -> None:
    with pytest.raises(OnnxqError) as error:
        RepairSection(use=use)
    assert said in str(error.value)


def test_in_a_job_file(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("model: m.onnx\nrepair: {use: [bias, weights]}\n")
    assert load_job(path).repair == RepairSection(use=("bias", "weights"))
    path.write_text("model: m.onnx\nrepair: {use: smoth}\n")
    with pytest.raises(ConfigError, match=r'job.yaml:2:9: .*there is no repair "smoth": did you mean "smooth"'):
        load_job(path)
    path.write_text("model: m.onnx\nrepair: {used: bias}\n")
    with pytest.raises(ConfigError, match=r"did you mean"):
        load_job(path)


def test_the_command_line_stands_above(tmp_path: Path) -> None:
    job = Job(model=tmp_path / "m.onnx", repair=RepairSection(use="bias"))
    assert job.with_overrides().repair.use == "bias"
    assert job.with_overrides(repair="none").repair.use == "none"
