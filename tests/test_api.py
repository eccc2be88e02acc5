"""The Python API: light to import, typed, the same results as the commands, samples out of Python."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

import onnxq
from onnxq.config.job import Job, ValidateSection
from onnxq.data.held import hold
from onnxq.errors import ConfigError, DataError, UsageError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tiny.save_classifier(tmp_path / "model.onnx")
    tiny.save_samples(tmp_path / "calib.npz")
    (tmp_path / "rules.yaml").write_text("model: model.onnx\nplacement: {by: rules}\n")
    return tmp_path


def images(count: int = 16) -> list[dict[str, Any]]:
    return [{"image": image[None]} for image in np.load("calib.npz")["image"][:count]]


def quantize(**settings: Any) -> onnxq.Result:
    """The tiny model is faster in float: rules put it into int8 all the same."""
    return onnxq.quantize(job="rules.yaml", method="minmax", validate=False, **settings)


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, onnxq; dir(onnxq); print(sorted(m for m in sys.modules if m.partition('.')[0] in %r))"
    names = {"onnxq", "numpy", "onnx", "onnxruntime", "yaml", "click", "scipy", "PIL", "rich"}
    done = subprocess.run([sys.executable, "-c", code % names], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.strip() == "['onnxq']"


def test_every_name_is_there_and_documented() -> None:
    for name in onnxq.__all__:
        assert name in dir(onnxq)
        assert inspect.getdoc(getattr(onnxq, name)), name
    with pytest.raises(AttributeError, match="no attribute nonsense"):
        _ = onnxq.nonsense  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["quantize", "validate", "gate", "write_report", "read_report"])
def test_docstrings_name_every_argument(name: str) -> None:
    from onnxq import api

    function = getattr(api, name)
    parameters = inspect.signature(function).parameters
    assert all(p.annotation is not inspect.Parameter.empty for p in parameters.values())
    text = inspect.getdoc(function) or ""
    assert "Raises:" in text
    if len(parameters) > 2:
        arguments = text.partition("Args:")[2].partition("Returns:")[0]
        assert [p for p in parameters if p not in arguments] == []


def test_validate_is_a_package_that_can_be_called() -> None:
    import onnxq.validate.accuracy

    assert onnxq.validate.accuracy is sys.modules["onnxq.validate.accuracy"]
    assert callable(onnxq.validate)


def test_the_command_and_the_function_do_the_same(folder: Path, onnxq: Any) -> None:
    result = quantize(calib="calib.npz", output="api.onnx")
    arguments = ("quantize", "--config", "rules.yaml", "--calib", "calib.npz", "--method", "minmax", "--no-validate")
    done = onnxq(*arguments, "-o", "command.onnx", "--json")
    assert Path("api.onnx").read_bytes() == Path("command.onnx").read_bytes()
    told = json.loads(done.out)
    assert result.layers is not None
    assert [t["sqnr_db"] for t in told["layers"]["tensors"]] == [t.sqnr_db for t in result.layers.tensors]
    assert result.candidate == Path("api.onnx") and result.run is not None and result.run.command == ()


def test_samples_may_come_out_of_python(folder: Path) -> None:
    files = quantize(calib="calib.npz", output="files.onnx")
    listed = quantize(calib=images(), output="list.onnx")
    called = quantize(calib=lambda: iter(images()), output="function.onnx")
    stacked = quantize(calib=np.load("calib.npz")["image"][:, None], output="array.onnx")
    assert len({Path(f"{n}.onnx").read_bytes() for n in ("files", "list", "function", "array")}) == 1
    assert listed.calibration == "16 samples of onnxq.data.held:calib"
    assert stacked.run is not None and files.run is not None and called.run is not None
    assert called.run.inputs[2].note == "a function made them"
    assert files.run.inputs[2].sha256


@pytest.mark.parametrize(
    ("calib", "error", "sentence"),
    [
        ({"image": np.zeros((4, 3, 8, 8))}, UsageError, "calib is a mapping: give a list of them"),
        (5, UsageError, "calib is of type int: give a path, a function that yields samples, or a list"),
        (iter([]), DataError, "is an iterator, which can be read only once"),
        ([], DataError, "no sample"),
        ([{"picture": np.zeros((1, 3, 8, 8), np.float32)}], DataError, "no input of the model"),
        (None, UsageError, "there is nothing to calibrate with"),
    ],
)
def test_samples_that_are_none(folder: Path, calib: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        quantize(calib=calib)
    assert not list(folder.glob("*.int8.onnx"))


def test_what_is_held_is_let_go() -> None:
    from onnxq.data import held

    with hold([1], "x") as one, hold([2], "x") as two:
        assert (one, two) == ("onnxq.data.held:x", "onnxq.data.held:x_2")
        assert held.x == [1] and held.x_2 == [2]
    with pytest.raises(AttributeError, match="no attribute x"):
        _ = held.x
    with hold(Path("a/b"), "x") as path, hold(None, "x") as none:
        assert (path, none) == ("a/b", None)


def test_validate_compares_two_files(folder: Path) -> None:
    made = quantize(calib="calib.npz")
    assert made.candidate is not None
    labels = np.load("calib.npz")["labels"]
    pairs = [(image, int(label)) for image, label in zip(images(), labels, strict=True)]
    result = onnxq.validate("model.onnx", made.candidate, pairs, metric="top1", samples=12, speed=False, threads=1)
    assert result.accuracy is not None and result.accuracy.metric is not None
    assert result.accuracy.samples == 12 and result.latency == ()
    assert result.layers is not None and len(result.layers.tensors) > 2
    plain = onnxq.validate("model.onnx", made.candidate, images(), speed=False, detail=False)
    assert plain.layers is None and plain.run is None


def test_a_job_may_be_a_value(folder: Path) -> None:
    job = Job(model=Path("model.onnx"), validate=ValidateSection(enabled=False))
    result = onnxq.quantize(job=job, calib=images(), method="minmax", detail=False, output="job.onnx")
    assert result.candidate == Path("job.onnx")
    with pytest.raises(UsageError, match="no model is named"):
        onnxq.quantize(calib=images())


def test_the_gate_judges(folder: Path) -> None:
    made = quantize(calib="calib.npz")
    assert made.candidate is not None
    small = onnxq.gate("model.onnx", made.candidate, images(), limits={"max_size_ratio": 9}, detail=False)
    assert small.verdict is not None and small.verdict.passed
    (folder / "gate.yaml").write_text("min_sqnr_db: 999\n")
    for limits in ("gate.yaml", {"min_sqnr_db": 999}):
        judged = onnxq.gate("model.onnx", made.candidate, images(), limits=limits)
        assert judged.verdict is not None and judged.verdict.exit_code == 1
        assert judged.layers is not None
    with pytest.raises(UsageError, match="no limit to check"):
        onnxq.gate("model.onnx", made.candidate, images())
    with pytest.raises(ConfigError, match=r'^limits:1:1: .*did you mean "min_sqnr_db"'):
        onnxq.gate("model.onnx", made.candidate, images(), limits={"min_sqnr": 1})


def test_reports_are_written_and_read(folder: Path) -> None:
    result = quantize(calib=images())
    onnxq.write_report(result, "result.json")
    onnxq.write_report(result, Path("result.html"))
    assert onnxq.read_report("result.json")["command"] == "quantize"
    assert Path("result.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(onnxq.OnnxqError, match="is no JSON"):
        onnxq.read_report("result.html")
