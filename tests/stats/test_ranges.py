"""Ranges as a file: exact, readable, read back strictly, compared."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from onnxq.encoding import Scheme
from onnxq.errors import CalibrationError, ConfigError, OutputError, UsageError
from onnxq.stats.observers import Histogram, MinMax
from onnxq.stats.ranges import Bounds, GivenRanges, RangeTable, differences, make_ranges
from onnxq.stats.statistics import Statistics, TensorStatistics
from onnxq.stats.summary import ridden, tensors, widest
from onnxq_calibration.minmax import MinMax as MinMaxMethod
from onnxq_calibration.percentile import Percentile

SCHEME = Scheme(type="uint8", symmetric=False)


def seen(name: str, values: np.ndarray, *, distribution: bool = True) -> TensorStatistics:
    observers: dict[str, MinMax | Histogram] = {"minmax": MinMax()}
    if distribution:
        observers["histogram"] = Histogram(None)
    for observer in observers.values():
        observer.update(values.astype(np.float32))
    return TensorStatistics(name, observers)


def statistics() -> Statistics:
    random = np.random.default_rng(0)
    spiky = random.normal(0, 1, 20_000)
    spiky[7] = 80.0
    found = {"calm": random.normal(0, 1, 20_000), "spiky": spiky, "wide": random.uniform(-100, 100, 20_000)}
    return Statistics(
        model_hash="f" * 64,
        samples=5,
        tensors={n: seen(n, v) for n, v in found.items()},
        shapes={"calm": (1, 20_000), "wide": (1, "?")},
        unreached=("rare",),
    )


def table() -> RangeTable:
    return make_ranges(statistics(), "percentile", {"percentile": 99.9}, Percentile(percentile=99.9), SCHEME)


def test_what_is_written_reads_back_to_the_bit(tmp_path: Path) -> None:
    made = table()
    made.save(tmp_path / "r.json")
    read = RangeTable.load(tmp_path / "r.json")
    assert read == made
    assert read.to_json() == made.to_json()
    assert read.shapes == {"calm": (1, 20_000), "wide": (1, "?")}
    plain = json.loads((tmp_path / "r.json").read_text())
    assert plain["ranges"]["rare"] is None
    assert plain["ranges"]["calm"]["max"] == made.ranges["calm"].max  # type: ignore[union-attr]


@pytest.mark.parametrize("value", [0.1, 1e-05, 1e22, float(np.float32(1) / 3), 5e-324, 1.7976931348623157e308, -0.0])
def test_every_float_survives(value: float, tmp_path: Path) -> None:
    made = RangeTable(
        schema=1, model_hash="0", method="minmax", type="int8", symmetric=True, samples=1,
        ranges={'a "quoted" name: {x}': Bounds(min=-abs(value), max=abs(value))},
    )  # fmt: skip
    made.save(tmp_path / "r.json")
    (bounds,) = RangeTable.load(tmp_path / "r.json").ranges.values()
    assert bounds is not None
    assert (bounds.min.hex(), bounds.max.hex()) == ((-abs(value)).hex(), abs(value).hex())


def test_faults_of_an_edited_file_come_all_at_once_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    table().save(path)
    lines = path.read_text().splitlines()
    where = {name: next(i for i, line in enumerate(lines) if f'"{name}": {{"min"' in line) for name in ("calm", "wide")}
    lines[where["calm"]] = '  "calm": {"min": 3.0, "max": 1.0},'
    lines[where["wide"]] = '  "wide": {"min": -1.0, "maxx": wide},'
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigError) as caught:
        RangeTable.load(path)
    first, *rest = str(caught.value).split("\n")
    assert first.startswith(f"{path}:{where['calm'] + 1}:")
    assert "ranges.calm: min is 3.0, which is more than max, 1.0: exchange them" in first
    assert all(line.startswith(f"{path}:{where['wide'] + 1}:") for line in rest)
    assert 'has no key "maxx": did you mean "max"?' in rest[0]


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"schema": 1', '"schema": 2', "schema is 2, but this onnxq reads 1"),
        ('"samples": 5', '"samples": "5"', "samples takes"),
        ('"method"', '"metod"', 'has no key "metod": did you mean "method"?'),
        ('"rare": null', '"rare": {"min": 0, "max": 1e999}', "max must be a finite number"),
    ],
)
def test_other_faults(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    text = table().to_json()
    assert old in text
    (tmp_path / "r.json").write_text(text.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        RangeTable.load(tmp_path / "r.json")
    assert complaint in str(caught.value)


def test_statistics_are_no_ranges(tmp_path: Path) -> None:
    statistics().save(tmp_path / "s.npz")
    with pytest.raises(ConfigError, match="holds statistics, not ranges"):
        RangeTable.load(tmp_path / "s.npz")


def test_ranges_of_another_model_are_refused() -> None:
    table().check("f" * 64)
    with pytest.raises(CalibrationError, match="the ranges belong to another model"):
        table().check("0" * 64)


def test_a_place_that_takes_no_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="the ranges cannot be written"):
        table().save(tmp_path / "nowhere" / "r.json")


def test_the_planner_gets_them_as_they_stand() -> None:
    made = table()
    given = GivenRanges(made, "max")
    calm = made.ranges["calm"]
    assert calm is not None
    assert given.range("calm", SCHEME) == (calm.min, calm.max)
    assert given.range("rare", SCHEME) is None
    assert given.range("unknown", SCHEME) is None
    assert made.unreached == ("rare",)
    low, high = given.weight_range(np.array([-3.0, 1.0], np.float32), Scheme(type="int8", symmetric=True))
    assert (float(low), float(high)) == (-3.0, 3.0)


def test_differences_come_largest_first() -> None:
    one = {
        "same": Bounds(min=0, max=1),
        "little": Bounds(min=0, max=100),
        "much": Bounds(min=-1, max=1),
        "flat": Bounds(min=2, max=2),
        "gone": Bounds(min=0, max=1),
        "never": None,
    }
    other = {
        "same": Bounds(min=0, max=1),
        "little": Bounds(min=0, max=99),
        "much": Bounds(min=-1, max=3),
        "flat": Bounds(min=3, max=3),
        "never": None,
    }
    found = differences(one, other)
    assert [(d.tensor, d.relative) for d in found] == [
        ("flat", math.inf), ("gone", math.inf), ("much", 0.5), ("little", 0.01),
    ]  # fmt: skip
    assert found[1].other is None
    assert differences(one, one) == []


def test_a_range_whose_ends_are_exchanged_is_refused() -> None:
    assert Bounds(min=1, max=1).width == 0
    with pytest.raises(UsageError, match="min is 2, which is more than max, 1"):
        Bounds(min=2, max=1)


def test_the_summary_names_the_widest_and_the_outlier_ridden() -> None:
    found = tensors(statistics())
    assert [t.name for t in widest(found)] == ["wide", "spiky", "calm"]
    most = ridden(found)
    assert most[0].name == "spiky"
    body = float(np.quantile(np.abs(np.delete(np.random.default_rng(0).normal(0, 1, 20_000), 7)), 0.999))
    spiky = next(t for t in found if t.name == "spiky")
    assert spiky.body == pytest.approx(body, rel=0.2)
    assert most[0].outliers == max(abs(spiky.min), spiky.max) / spiky.body
    assert next(t for t in most if t.name == "wide").outliers == pytest.approx(1.0, abs=0.01)


def test_tensors_without_a_distribution_or_with_nothing_but_zeros() -> None:
    plain = Statistics(
        model_hash="0",
        samples=1,
        tensors={
            "extremes": seen("extremes", np.array([1.0, 9.0]), distribution=False),
            "zero": seen("zero", np.zeros(9)),
            "lone": seen("lone", np.array([0.0] * 9_999 + [1.0])),
        },
    )
    found = {t.name: t for t in tensors(plain)}
    assert math.isnan(found["extremes"].outliers)
    assert found["zero"].outliers == 1.0
    assert found["lone"].outliers == math.inf
    assert [t.name for t in ridden(list(found.values()))] == ["lone", "zero"]


def test_a_method_without_its_statistics_is_an_error() -> None:
    short = Statistics(model_hash="0", samples=1, tensors={"x": seen("x", np.ones(3), distribution=False)})
    assert make_ranges(short, "minmax", {}, MinMaxMethod(), SCHEME).ranges["x"] == Bounds(min=1, max=1)
    with pytest.raises(CalibrationError, match="hold no histogram"):
        make_ranges(short, "percentile", {}, Percentile(), SCHEME)
