"""Options become a Job: what is given stands above the job file, what is not leaves it alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from onnxq.cli import gate, output, quantize, validate, values
from onnxq.config.job import Job, Source
from onnxq.config.placing import PlacementSection
from onnxq.config.repair import RepairSection
from onnxq.data import Preprocess, Side
from onnxq.progress import Progress


@pytest.mark.parametrize(
    ("text", "number"), [("0.25", 0.25), ("1/255", 1 / 255), ("-1e-3", -1e-3), ("127/255", 127 / 255)]
)
def test_numbers(text: str, number: float) -> None:
    assert values.read_number(text) == number
    assert values.read_numbers(f"{text},1") == (number, 1.0)


@pytest.mark.parametrize("text", ["", "a", "1/0", "nan", "inf", "1/2/3", "0.1,", "0.1 0.2"])
def test_no_numbers(text: str) -> None:
    with pytest.raises(ValueError, match=r"^\".*\" is no number: write it like 0\.25 or 1/255$"):
        values.read_numbers(text)


@pytest.mark.parametrize(
    ("text", "size"), [("256", 256), ("224x320", (224, 320)), ("48x", {"height": 48}), ("x320", {"width": 320})]
)
def test_sizes(text: str, size: Any) -> None:
    assert values.read_resize(text) == size


@pytest.mark.parametrize("text", ["", "x", "-1", "2x3x4", "1.5", "axb"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="is no size: write it like 256 or 224x320"):
        values.read_resize(text)


def test_one_side_is_no_crop() -> None:
    with pytest.raises(ValueError, match="is no size"):
        values.read_size("48x")


def test_every_preprocess_setting_is_an_option() -> None:
    settings = set(Preprocess.__dataclass_fields__)
    for command in (quantize.command, validate.command, gate.command):
        assert settings <= {p.name for p in command.params}


def test_every_option_says_what_it_does() -> None:
    for command in (quantize.command, validate.command, gate.command):
        assert [p.name for p in command.params if isinstance(p, click.Option) and not p.help] == []


@pytest.fixture
def job(onnxq: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """`job("MODEL", "--calib", ...)`: the Job that `quantize` hands to the driver."""
    from onnxq import driver

    jobs: list[Job] = []

    def remember(job: Job, *, detail: bool, progress: Progress) -> None:
        jobs.append(job)

    monkeypatch.setattr(driver, "quantize", remember)
    monkeypatch.setattr(output, "emit", lambda result, *, as_json, report: 0)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Job:
        outcome = onnxq("quantize", *arguments)
        assert outcome.code == 0, outcome.err
        return jobs[-1]

    return run


def test_only_what_is_given(job: Any) -> None:
    made = job("model.onnx")
    assert made == Job(model=Path("model.onnx"))


def test_everything(job: Any) -> None:
    made = job(
        *("model.onnx", "--calib", "calib", "-o", "out.onnx", "--target", "tensorrt", "--method", "entropy"),
        *("--eval", "eval", "--metric", "top1", "--keep-float", "/head/*", "--keep-float", "Softmax", "--strict"),
        *("--skip-bad", "--keep-overridable", "--calib-samples", "7", "--eval-samples", "8", "--threads", "2"),
        *("--no-validate", "--no-reduce-range", "--mean", "0.5,0.4,0.3", "--std", "1/2", "--scale", "1/128"),
        *("--color", "bgr", "--resize", "48x", "--crop", "48x320", "--interpolation", "bicubic", "--layout", "nhwc"),
        *("--max-length", "128", "--effort", "max", "--costs", "c.json", "--max-drop", "1%", "--min-sqnr", "20"),
        *("--keep-best", "--placement", "cost", "--optimize", "speed", "--repair", "bias,smooth"),
        *("--float-type", "float16"),
    )
    assert made.placement == PlacementSection(
        by="cost", effort="max", costs=Path("c.json"), optimize="speed", max_drop="1%", min_sqnr_db=20.0, keep_best=True
    )
    assert made.repair == RepairSection(use="bias,smooth")
    assert made.output == Path("out.onnx")
    assert (made.target, made.calibration.method, made.validate.metric) == ("tensorrt", "entropy", "top1")
    assert (made.data.calib, made.data.eval) == (Source(path="calib"), Source(path="eval"))
    assert made.keep_float == ("/head/*", "Softmax")
    assert made.strict and made.data.skip_bad and made.keep_overridable
    assert (made.calibration.limit, made.validate.limit) == (7, 8)
    assert (made.calibration.threads, made.validate.threads) == (2, 2)
    assert (made.validate.enabled, made.reduce_range, made.float_type) == (False, False, "float16")
    assert made.data.preprocess == Preprocess(
        mean=(0.5, 0.4, 0.3),
        std=(0.5,),
        scale=1 / 128,
        color="bgr",
        resize=Side(height=48),
        crop=(48, 320),
        interpolation="bicubic",
        layout="nhwc",
        max_length=128,
    )


def write_job(folder: Path) -> Path:
    folder.mkdir()
    path = folder / "job.yaml"
    path.write_text(
        "model: model.onnx\nstrict: true\ndata:\n  calib: {path: calib}\n  skip_bad: true\n"
        "  preprocess: {mean: [0.1], std: [0.2]}\nkeep_float: [Softmax]\nvalidate: {metric: top1}\n"
    )
    (folder / "calib").mkdir()
    return path


def test_a_job_file_alone(job: Any, tmp_path: Path) -> None:
    made = job("--config", str(write_job(tmp_path / "jobs")))
    assert made.model.resolve() == tmp_path / "jobs/model.onnx"
    assert (made.base / made.data.calib.path).resolve() == tmp_path / "jobs/calib"
    assert made.strict and made.data.skip_bad


def test_options_stand_above_the_job_file(job: Any, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    path = str(write_job(tmp_path / "jobs"))
    made = job("other.onnx", "--config", path, "--calib", "here", "--mean", "0.3", "--keep-float", "Gemm")
    assert made.model == Path("other.onnx")
    assert (made.base / made.data.calib.path).resolve() == tmp_path / "here"
    assert made.data.preprocess == Preprocess(mean=(0.3,), std=(0.2,))
    assert made.keep_float == ("Softmax", "Gemm")
    assert made.validate.metric == "top1"
