"""The job file: every model folder's, all keys, paths, settings of plugins, and what the command line says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onnxq.config.job import CalibrationSection, DataSection, GateSection, Job, Source, ValidateSection, load_job
from onnxq.data import Preprocess, Side
from onnxq.errors import ConfigError, UsageError
from onnxq.validate.gate import Drop

MODELS = Path(__file__).parents[2] / "models"
JOBS = sorted(MODELS.glob("*/job*.yaml"))


@pytest.mark.parametrize("path", JOBS, ids=[str(p.relative_to(MODELS)) for p in JOBS])
def test_the_jobs_of_all_models_load(path: Path) -> None:
    job = load_job(path)
    assert job.model.suffix == ".onnx"
    assert job.model.parent.is_relative_to(path.parent)
    assert job.base == path.parent
    assert job.data.calib is not None
    assert job.data.eval is not None
    assert job.data.calib.path != job.data.eval.path
    assert job.validate.metric is not None


def test_there_are_jobs_to_load() -> None:
    assert {p.parent.name for p in JOBS} >= {"fashion-res8", "fashion-mobilenet", "fashion-vit", "efficientnet-lite0"}


def written(folder: Path, text: str) -> Path:
    path = folder / "job.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_key(tmp_path: Path) -> None:
    job = load_job(
        written(
            tmp_path,
            """
model: build/m.onnx
output: out/q.onnx
target: tensorrt
reduce_range: true
float_type: float16
data:
  calib: {path: calib/, limit: 100, preprocess: {resize: {height: 48}}}
  eval: {path: data.py:evaluation}
  preprocess: {mean: [0.5], crop: 224}
  skip_bad: true
calibration: {method: percentile, settings: {percentile: 99.9}, weights: mse, limit: 64, threads: 2}
keep_float: ["Conv_*", Softmax]
keep_overridable: true
pipeline:
  - deduplicate-names
  - fold-constants: {limit: 4096}
validate: {enabled: true, metric: metric.py:Mine, limit: 10, threads: 1, speed: false, runs: 20, warmup: 0}
gate:
  max_drop: 0.5%
  min_sqnr_db: 20
  min_cosine: 0.99
  min_agreement: 0.9
  min_speedup: 1.2
  max_latency_ms: 8
  max_size_ratio: 0.4
strict: true
""",
        )
    )
    assert job == Job(
        model=tmp_path / "build/m.onnx",
        output=tmp_path / "out/q.onnx",
        target="tensorrt",
        reduce_range=True,
        float_type="float16",
        data=DataSection(
            calib=Source(path="calib/", limit=100, preprocess=Preprocess(resize=Side(height=48))),
            eval=Source(path="data.py:evaluation"),
            preprocess=Preprocess(mean=(0.5,), crop=224),
            skip_bad=True,
        ),
        calibration=CalibrationSection(
            method="percentile", settings={"percentile": 99.9}, weights="mse", limit=64, threads=2
        ),
        keep_float=("Conv_*", "Softmax"),
        keep_overridable=True,
        pipeline=("deduplicate-names", {"fold-constants": {"limit": 4096}}),
        validate=ValidateSection(metric="metric.py:Mine", limit=10, threads=1, speed=False, runs=20, warmup=0),
        gate=GateSection(
            max_drop="0.5%",
            min_sqnr_db=20,
            min_cosine=0.99,
            min_agreement=0.9,
            min_speedup=1.2,
            max_latency_ms=8,
            max_size_ratio=0.4,
        ),
        strict=True,
        base=tmp_path,
    )
    assert job.data.calib is not None
    assert job.data.eval is not None
    assert job.data.preprocess_of(job.data.calib).resize == Side(height=48)
    assert job.data.preprocess_of(job.data.eval).crop == 224


def test_defaults(tmp_path: Path) -> None:
    job = load_job(written(tmp_path, "model: m.onnx"))
    assert job == Job(model=tmp_path / "m.onnx", base=tmp_path)
    assert (job.output, job.target, job.pipeline, job.data.calib) == (None, "cpu", None, None)
    assert not job.gate.demands


def test_limits_of_the_gate() -> None:
    assert GateSection(max_drop=0.01).drop == Drop(0.01)
    assert GateSection(max_drop="0.5%").drop == Drop(0.005, True)
    assert GateSection(max_drop=0).demands
    assert GateSection().drop is None


def test_faults_of_a_job_all_at_once(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """model: m.onnx
base: x
data:
  calib: calib/
  eval: {path: "", limit: 0}
calibration:
  method: percentile
  settings: {percentil: 99}
  threads: 0
pipeline: [fold-constant, {fold-constants: {limit: a}}]
validate: {warmup: -1, threds: 3}
gate: {max_drop: x%, min_speedup: -1}
""",
    )
    with pytest.raises(ConfigError) as caught:
        load_job(path)
    assert str(caught.value).split("\n") == [
        f'{path}:2:1: the file has no key "base": known are calibration, data, float_type, gate, keep_float, '
        f"keep_overridable, model, output, pipeline, placement, ranges, reduce_range, repair, statistics, strict, "
        f"target, validate",
        f"{path}:4:10: data.calib takes a mapping with keys out of path, preprocess, limit or nothing, "
        f'not the text "calib/": write {{path: calib/}}',
        f"{path}:5:16: data.eval: path must name a folder, a file or a function, and is empty",
        f'{path}:8:14: calibration.settings has no key "percentil": did you mean "percentile"?',
        f"{path}:9:12: calibration: threads must be at least 1, not 0",
        f'{path}:10:12: pipeline[0]: there is no pass "fold-constant": did you mean "fold-constants"?',
        f'{path}:10:52: fold-constants.limit takes a whole number, not the text "a"',
        f"{path}:11:20: validate: warmup must be at least 0, not -1",
        f'{path}:11:24: validate has no key "threds": did you mean "threads"?',
        f"{path}:12:35: gate: min_speedup must be at least 0, not -1",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "calibration: {method: percentil, settings: {percentile: 99}}",
            '2:23: calibration.method: there is no method "percentil": did you mean "percentile"?',
        ),
        (
            "calibration: {method: minmax, settings: {percentile: 99}}",
            '2:42: calibration.settings has no key "percentile": ',
        ),
        (
            "calibration: {settings: {percentile: 99}}",
            "2:25: calibration.settings: the method auto has none: name one with calibration.method",
        ),
        ("gate: {max_drop: x%}", '2:18: gate: max_drop cannot be read: the limit "x%" is not a number of 0 or more'),
        (
            "gate: {max_drop: -0.5}",
            '2:18: gate: max_drop cannot be read: the limit "-0.5" is not a number of 0 or more',
        ),
        ("data: {calib: {path: x, limit: 0}}", "2:32: data.calib: limit must be at least 1, not 0"),
        ("target: no", "2:9: target takes a text, not no, which YAML takes for true or false: write it in quotes"),
    ],
)
def test_one_fault(tmp_path: Path, text: str, fault: str) -> None:
    path = written(tmp_path, f"model: m.onnx\n{text}\n")
    with pytest.raises(ConfigError) as caught:
        load_job(path)
    assert str(caught.value).startswith(f"{path}:{fault}")
    assert "\n" not in str(caught.value)


def test_overrides_without_a_file() -> None:
    job = Job(model=Path("m.onnx")).with_overrides(
        output=Path("q.onnx"),
        target="tensorrt",
        calib="data/",
        eval="x.py:f",
        preprocess={"mean": [0.5]},
        skip_bad=True,
        method="entropy",
        settings={"bins": 4096},
        weights="mse",
        calib_limit=3,
        keep_float=["a*"],
        keep_overridable=True,
        pipeline="my.yaml",
        metric="top1",
        eval_limit=4,
        threads=1,
        speed=False,
        runs=5,
        warmup=1,
        validate=True,
        gate={"max_drop": "1%", "min_speedup": None},
        strict=True,
        reduce_range=False,
    )
    assert job == Job(
        model=Path("m.onnx"),
        output=Path("q.onnx"),
        target="tensorrt",
        reduce_range=False,
        data=DataSection(
            calib=Source(path="data/"), eval=Source(path="x.py:f"), preprocess=Preprocess(mean=(0.5,)), skip_bad=True
        ),
        calibration=CalibrationSection(method="entropy", settings={"bins": 4096}, weights="mse", limit=3, threads=1),
        keep_float=("a*",),
        keep_overridable=True,
        pipeline="my.yaml",
        validate=ValidateSection(metric="top1", limit=4, threads=1, speed=False, runs=5, warmup=1),
        gate=GateSection(max_drop="1%"),
        strict=True,
    )


def test_nothing_overridden_changes_nothing(tmp_path: Path) -> None:
    job = load_job(written(tmp_path, "model: m.onnx\ndata: {calib: {path: c, limit: 3}}\nkeep_float: [x]\n"))
    assert job.with_overrides() == job


def test_paths_of_the_command_line_start_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "calib").mkdir()
    path = written(tmp_path / "jobs", "model: m.onnx\ndata: {calib: {path: c, limit: 3}}\n")
    monkeypatch.chdir(tmp_path / "here")
    job = load_job(path).with_overrides(
        model=Path("n.onnx"), calib="calib", eval="package.module:f", metric="mine.py:M", pipeline="p.yaml"
    )
    assert job.model == Path("n.onnx")
    assert job.data.calib == Source(path="../here/calib")
    assert job.data.eval == Source(path="package.module:f")
    assert job.validate.metric == "../here/mine.py:M"
    assert job.pipeline == "../here/p.yaml"
    # a registered name stays a name, even if a file of that name lies around
    (tmp_path / "here" / "top1").touch()
    assert load_job(path).with_overrides(metric="top1").validate.metric == "top1"


def test_another_method_leaves_the_settings_of_the_first_behind(tmp_path: Path) -> None:
    job = load_job(written(tmp_path, "model: m\ncalibration: {method: percentile, settings: {percentile: 99}}\n"))
    assert job.with_overrides(method="percentile").calibration.settings == {"percentile": 99}
    assert job.with_overrides(method="minmax").calibration.settings == {}


def test_single_settings_are_overridden(tmp_path: Path) -> None:
    job = load_job(
        written(
            tmp_path, "model: m\ndata: {preprocess: {mean: [1.0], crop: 3}}\ngate: {max_drop: 1, min_cosine: 0.5}\n"
        )
    ).with_overrides(preprocess={"crop": 4}, gate={"max_drop": 2.0}, keep_float=["y"])
    assert job.data.preprocess == Preprocess(mean=(1.0,), crop=4)
    assert job.gate == GateSection(max_drop=2.0, min_cosine=0.5)
    assert job.keep_float == ("y",)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"preprocess": {"crpo": 3}}, 'preprocess has no setting "crpo": did you mean "crop"?'),
        ({"threads": 0}, "threads must be at least 1, not 0"),
        ({"calib": ""}, "path must name a folder, a file or a function, and is empty"),
        ({"gate": {"min_speedup": float("nan")}}, "min_speedup must be at least 0, not nan"),
    ],
)
def test_overrides_refused(overrides: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        Job(model=Path("m.onnx")).with_overrides(**overrides)
    assert str(caught.value) == sentence
