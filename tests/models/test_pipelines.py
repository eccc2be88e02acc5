"""`onnxq run` with each built-in pipeline on each model: the file loads, keeps its target's rules, and computes nearly
what the float model computes, or the file of the pipeline cpu. `import` gets the file of qoperator and takes all of it
back. The committed models always, the fetched ones in `make test-slow`.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections import Counter
from pathlib import Path

import onnx
import pytest
import whole

from onnxq import registry
from onnxq.config.job import Job, load_job
from onnxq.data.open import open_dataset
from onnxq.data.preprocess import Preprocess
from onnxq.errors import ModelError
from onnxq.ir import load, walk
from onnxq.ir.load import is_quantized
from onnxq.pipeline.calibration import CalibrationSection
from onnxq.pipeline.spec import load_pipeline
from onnxq.plan.check import check
from onnxq.plan.integers import INTEGER_OPS
from onnxq.runtime.session import Level, Session
from onnxq.targets.target import load_target
from onnxq.validate.coverage import coverage
from onnxq.workbench.run import Show, run
from onnxq.workbench.setup import Request

MODELS = Path(__file__).parents[2] / "models"
COMMITTED = sorted(MODELS.glob("fashion-*/job*.yaml"))
FETCHED = [j for j in sorted(MODELS.glob("*/job*.yaml")) if j not in COMMITTED and load_job(j).model.is_file()]
SAMPLES = 4
CARRYING = tuple(op for op in INTEGER_OPS if op.startswith(("QLinear", "QGemm", "MatMulIntegerToFloat")))
"""Integer operators that carry their scales."""

LEAST_DB = {"cpu": 4.0, "tensorrt": 4.0, "qoperator": 35.0, "import": 35.0}
"""Least SQNR (dB) of an output, without optimizations.

cpu, tensorrt: against the float model, with ranges from four samples; a wrong scale or axis gives 0 dB or less.
qoperator, import: against the file of the pipeline cpu. The encodings are the same, but QLinearAdd, QLinearMul and
pools are one step off now and then, a float bias is rounded to int32, integer sums replace float ones, and later ops
see it. Where ONNX Runtime's own fusion of the Q/DQ file is as far off, that is the measure: at most ROOM dB worse.
"""
ROOM = 6.0


def ids(path: Path) -> str:
    """Folder and job."""
    return f"{path.parent.name}-{path.stem}"


def request(job: Job, pipeline: str, model: Path | None = None) -> Request:
    """What `onnxq run PIPELINE MODEL --calib ...` makes of its flags.

    Args:
        model: the quantized file that `import` gets.
    """
    source = job.data.calib
    assert source is not None
    given = job.data.preprocess_of(source)
    settings = {
        f.name: getattr(given, f.name)
        for f in dataclasses.fields(Preprocess)
        if getattr(given, f.name) != getattr(Preprocess(), f.name)
    }
    if pipeline == "import":
        assert model is not None
        return Request(pipeline=pipeline, model=model)
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
        before = _made(folder, known, path, "qoperator") if pipeline == "import" else None
        run(request(load_job(path), pipeline, before), known[key], Show(), print)
    return known[key]


@pytest.mark.parametrize("pipeline", LEAST_DB)
@pytest.mark.parametrize("path", [*COMMITTED, *(pytest.param(j, marks=pytest.mark.slow) for j in FETCHED)], ids=ids)
def test_run(path: Path, pipeline: str, made: functools.partial[Path]) -> None:
    job = load_job(path)
    if pipeline == "import" and not is_quantized(load.load(made(path, "qoperator")).graph):
        with pytest.raises(ModelError, match="is a float model"):  # nothing in it has an integer kernel
            made(path, pipeline)
        return
    file, cpu = made(path, pipeline), made(path, "cpu")
    onnx.checker.check_model(file)
    assert check(load.load(file), load_target(load_pipeline(pipeline).target or "cpu")) == []
    ours, reference = (
        Session(f, level=Level.OFF, threads=1)
        for f in (file, cpu if pipeline in ("qoperator", "import") else job.model)
    )
    plain = Session(cpu, level=Level.OFF, threads=1)
    assert (ours.inputs, ours.output_specs) == (plain.inputs, plain.output_specs)
    assert [(s.name, s.dtype) for s in plain.output_specs] == [(s.name, s.dtype) for s in reference.output_specs]
    samples = inputs(job, ours)
    fused = [Session(cpu, threads=1).run(s) for s in samples]
    exact, got = [reference.run(s) for s in samples], [ours.run(s) for s in samples]
    for name, first in exact[0].items():
        if first.dtype.kind != "f":
            continue
        least = LEAST_DB[pipeline]
        if pipeline in ("qoperator", "import"):
            least = min(least, whole.sqnr(exact, fused, name) - ROOM)
        print(f"{ids(path)} {pipeline} {name}: {whole.sqnr(exact, got, name):.1f} dB, at least {least:.1f}")
        assert whole.sqnr(exact, got, name) >= least
    if pipeline == "import":
        takes_all_back(made(path, "qoperator"), file)


def takes_all_back(fused: Path, file: Path) -> None:
    """No integer operator that carries its scales is left, and ONNX Runtime runs as many products on integers."""
    before, after = (ops(f) for f in (fused, file))
    assert sum(before[op] for op in CARRYING) > 0
    assert not [op for op in CARRYING if after[op]]
    assert len(coverage(file).heavy_float) <= len(coverage(fused).heavy_float)


def ops(path: Path) -> Counter[str]:
    """Operators of a file, bodies included."""
    return Counter(n.op for _, graph in walk.graphs(load.load(path).graph) for n in graph.nodes)


def inputs(job: Job, session: Session) -> list[whole.Arrays]:
    """Two calibration samples."""
    source = job.data.calib
    assert source is not None
    preprocess, skip_bad = job.data.preprocess_of(source), job.data.skip_bad
    data = open_dataset(source.path, session.inputs, preprocess, base=job.base, skip_bad=skip_bad, limit=2)
    return [s.inputs for s in itertools.islice(iter(data), 2)]


def test_every_built_in_pipeline_is_run() -> None:
    assert sorted(LEAST_DB) == registry.names(registry.PIPELINES)
