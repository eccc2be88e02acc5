"""The file reads back to the bit, and nothing else is taken for it."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from onnxq.errors import ConfigError, OutputError
from onnxq.sensitivity.result import (
    SCHEMA,
    Effect,
    OutputNoise,
    Sensitivity,
    TensorSensitivity,
    UnitSensitivity,
    mean_noise,
    noise,
    predict,
    tensor_noise,
)


def output(relative: float = 0.1, *, floating: bool = True, signal: float = 3.0, name: str = "y") -> OutputNoise:
    return OutputNoise(
        name=name, floating=floating, signal=signal, noise=relative * signal, elements=10, equal=7, lost=0
    )


def effect(noise: float, drop: float | None = None) -> Effect:
    return Effect(outputs=(output(noise),), noise=noise, score=None if drop is None else 0.9 - drop, drop=drop)


def tensor(name: str, noise: float, *, follows: tuple[str, ...] = (), rest: float | None = None) -> TensorSensitivity:
    return TensorSensitivity(
        tensor=name,
        kind="activation",
        type="uint8",
        node=f"{name}-node",
        op="Relu",
        units=("a", "b"),
        follows=follows,
        alone=effect(noise, 0.1),
        rest=None if rest is None else effect(rest),
        share=0.5,
    )


def example() -> Sensitivity:
    return Sensitivity(
        model_hash="m",
        plan_hash="p",
        samples=3,
        data="3 samples of x.npz",
        tensors=(tensor("x", 0.1, rest=math.inf), tensor("y", 1 / 3), tensor("z", 0.1, follows=("x",))),
        units=(
            UnitSensitivity(node="a", op="Conv", tensors=("x", "y"), summed=0.1 + 1 / 3, owned=0.2),
            UnitSensitivity(node="b", op="Conv", tensors=("y",), summed=1 / 3, owned=0.2, together=effect(math.nan)),
        ),
        total=Effect(outputs=(dataclasses.replace(output(), head=output(math.inf, name="logits")),), noise=5e-324),
        metric="top1",
        score=0.1 + 0.2,
        notes=("One, “two”.",),
    )


def test_the_file_reads_back_to_the_bit(tmp_path: Path) -> None:
    found = example()
    found.save(tmp_path / "s.json")
    again = Sensitivity.load(tmp_path / "s.json")
    assert again.to_json() == found.to_json() == (tmp_path / "s.json").read_text(encoding="utf-8")
    assert dataclasses.replace(again, units=()) == dataclasses.replace(found, units=())  # NaN is no equal of itself
    assert again.tensors[0].rest is not None and again.tensors[0].rest.noise == math.inf
    assert again.units[1].together is not None and math.isnan(again.units[1].together.noise)


def test_the_file_is_json_without_extensions() -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    raw = json.loads(example().to_json(), parse_constant=refuse)
    assert raw["units"][1]["together"]["noise"] == "NaN"
    assert raw["schema"] == SCHEMA and raw["tensors"][0]["rest"]["noise"] == "Infinity"


def test_a_field_of_a_later_version_is_passed_over() -> None:
    raw = json.loads(example().to_json())
    raw["tensors"][0]["more"] = raw["more"] = 1
    assert Sensitivity.from_json(json.dumps(raw), "x").tensors == example().tensors


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "holds no sensitivities"),
        ("[]", "holds no sensitivities"),
        ('{"schema": 2}', "holds no sensitivities .'tensors'"),
        ('{"schema": 7}', f"has schema 7, this onnxq reads {SCHEMA}"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "s.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"s\.json {said}"):
        Sensitivity.load(path)


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Sensitivity.load(tmp_path / "none.json")
    with pytest.raises(OutputError, match="give another path with -o"):
        example().save(tmp_path / "none" / "s.json")


def test_relative_noise() -> None:
    assert output(0.25).relative == 0.25 and output(0.1).sqnr_db == pytest.approx(10.0)
    assert output(0.0).sqnr_db == math.inf
    assert output(0.0, signal=0.0).relative == 0.0
    silent = OutputNoise(name="y", floating=True, signal=0.0, noise=1.0, elements=10, equal=7, lost=0)
    assert silent.relative == math.inf
    assert output(floating=False).relative == pytest.approx(0.3)
    assert OutputNoise(name="e", floating=False, signal=0, noise=0, elements=0, equal=0, lost=0).relative == 0.0


def test_the_mean_over_outputs() -> None:
    whole = output(floating=False)
    silent = OutputNoise(name="y", floating=True, signal=0.0, noise=1.0, elements=10, equal=7, lost=0)
    assert mean_noise([output(0.1), output(0.3)]) == pytest.approx(0.2)
    assert mean_noise([output(0.1), whole]) == pytest.approx(0.1)  # integers count where nothing is float
    assert mean_noise([whole, whole]) == pytest.approx(0.3)
    assert mean_noise([output(0.1), silent]) == pytest.approx(0.1)
    assert mean_noise([silent]) == math.inf
    assert mean_noise([dataclasses.replace(output(0.1), head=output(0.4)), output(0.2)]) == pytest.approx(0.3)
    assert mean_noise([]) == 0.0


def test_sums_leave_out_what_follows() -> None:
    x, y, z = example().tensors
    assert predict([x, y, z]) == predict([x, y]) == example().predicted == math.fsum([0.1, 1 / 3])
    assert predict([y, z]) == math.fsum([1 / 3, 0.1])
    assert predict([]) == 0.0


def test_views_for_a_budget() -> None:
    found = example()
    assert [t.tensor for t in found.ranked] == ["y", "x", "z"]
    assert noise(dataclasses.replace(found, units=found.units[:1])) == {"a": 0.1 + 1 / 3}
    assert noise(found, owned=True) == {"a": 0.2, "b": 0.2}
    assert tensor_noise(found) == {"x": 0.1, "y": 1 / 3, "z": 0.1}
    assert found.measured == 5e-324
