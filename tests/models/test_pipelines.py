"""`onnxq run` with each built-in pipeline on each model: the file loads, keeps its target's rules, and computes what
that of the pipeline cpu computes. The committed models always, the fetched ones in `make test-slow`.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from pathlib import Path

import onnx
import pytest
import whole

from onnxq import registry
from onnxq.config.job import Job, load_job
from onnxq.data.open import open_dataset
from onnxq.data.preprocess import Preprocess
from onnxq.ir import load
from onnxq.pipeline.base import Stage
from onnxq.pipeline.calibration import CalibrationSection
from onnxq.pipeline.spec import load_pipeline
from onnxq.plan.check import check
from onnxq.runtime.session import Level, Session
from onnxq.targets.target import load_target
from onnxq.workbench.run import Show, run
from onnxq.workbench.setup import Request

MODELS = Path(__file__).parents[2] / "models"
COMMITTED = sorted(MODELS.glob("fashion-*/job*.yaml"))
FETCHED = [j for j in sorted(MODELS.glob("*/job*.yaml")) if j not in COMMITTED and load_job(j).model.is_file()]
SAMPLES = 4

LEAST_DB = {"qoperator": 35.0, "tensorrt": 5.0}
"""Least SQNR (dB) of an output against that of the file of the pipeline cpu, both without optimizations.

qoperator: the encodings are the same, but QLinearAdd, QLinearMul and pools are one step off now and then, a float bias
is rounded to int32, integer sums replace float ones, and later ops see it. Where ONNX Runtime's own fusion of the Q/DQ
file is as far off, that is the measure: at most ROOM dB worse. tensorrt: other encodings (int8 around 0, half of whose
levels lie idle behind a Relu or SiLU) of ranges from four samples; a wrong scale or axis gives 0 dB or less.
"""
ROOM = 6.0


def ids(path: Path) -> str:
    """Folder and job."""
    return f"{path.parent.name}-{path.stem}"


def request(job: Job, pipeline: str) -> Request:
    """What `onnxq run PIPELINE MODEL --calib ...` makes of its flags."""
    source = job.data.calib
    assert source is not None
    given = job.data.preprocess_of(source)
    settings = {
        f.name: getattr(given, f.name)
        for f in dataclasses.fields(Preprocess)
        if getattr(given, f.name) != getattr(Preprocess(), f.name)
    }
    return Request(
        pipeline=pipeline,
        model=job.model,
        calib=str(job.base / source.path),
        calibration=CalibrationSection(method="minmax", limit=SAMPLES, threads=1),
        preprocess=settings,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> functools.partial[Path]:
    """A function of job file and pipeline: the file that comes out, made once."""
    return functools.partial(_made, tmp_path_factory.mktemp("pipelines"), {})


def _made(folder: Path, known: dict[tuple[Path, str], Path], path: Path, pipeline: str) -> Path:
    key = path, pipeline
    if key not in known:
        known[key] = folder / f"{ids(path)}-{pipeline}.onnx"
        run(request(load_job(path), pipeline), known[key], Show(), print)
    return known[key]


@pytest.mark.parametrize("pipeline", ["cpu", "qoperator", "tensorrt"])
@pytest.mark.parametrize("path", [*COMMITTED, *(pytest.param(j, marks=pytest.mark.slow) for j in FETCHED)], ids=ids)
def test_run(path: Path, pipeline: str, made: functools.partial[Path]) -> None:
    file, cpu = made(path, pipeline), made(path, "cpu")
    onnx.checker.check_model(file)
    assert check(load.load(file), load_target(load_pipeline(pipeline).target or "cpu")) == []
    job = load_job(path)
    ours, reference = (Session(f, level=Level.OFF, threads=1) for f in (file, cpu))
    assert (ours.inputs, ours.output_specs) == (reference.inputs, reference.output_specs)
    samples = inputs(job, ours)
    fused = [Session(cpu, threads=1).run(s) for s in samples]
    exact, got = [reference.run(s) for s in samples], [ours.run(s) for s in samples]
    for name, first in exact[0].items():
        if first.dtype.kind != "f" or pipeline == "cpu":
            continue
        least = LEAST_DB[pipeline]
        if pipeline == "qoperator":
            least = min(least, whole.sqnr(exact, fused, name) - ROOM)
        print(f"{ids(path)} {pipeline} {name}: {whole.sqnr(exact, got, name):.1f} dB, at least {least:.1f}")
        assert whole.sqnr(exact, got, name) >= least


def inputs(job: Job, session: Session) -> list[whole.Arrays]:
    """Two calibration samples."""
    source = job.data.calib
    assert source is not None
    preprocess, skip_bad = job.data.preprocess_of(source), job.data.skip_bad
    data = open_dataset(source.path, session.inputs, preprocess, base=job.base, skip_bad=skip_bad, limit=2)
    return [s.inputs for s in itertools.islice(iter(data), 2)]


def test_every_built_in_pipeline_is_run() -> None:
    """Those that begin with a float model; `import` takes files that others quantized."""
    names = registry.names(registry.PIPELINES)
    assert {"cpu", *LEAST_DB} == {n for n in names if load_pipeline(n).steps[0].body.takes is Stage.FLOAT} - {"import"}
    assert "import" in names
