"""One result with something in every field, made of values (nothing is run)."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from onnxq.validate.accuracy import Accuracy, FusionCheck, MetricResult
from onnxq.validate.coverage import Coverage, OpCoverage
from onnxq.validate.gate import Check, GateVerdict, Sizes
from onnxq.validate.latency import Latency
from onnxq.validate.layers import LayerAccuracy, Layers, TensorHistogram
from onnxq.validate.outputs import OutputAccuracy
from onnxq.validate.provenance import Hashed, Provenance
from onnxq.validate.repaired import Repair
from onnxq.validate.result import Account, Cause, Environment, Lost, ParetoPoint, Placed, Result
from onnxq.validate.statistics import Interval
from onnxq.validate.summary import ModelSummary, TensorSummary

NO_KERNEL = "ONNX Runtime has no integer kernel for Tanh"


def op(name: str, kind: str, *, integer: bool, macs: int | None, reason: str = "") -> OpCoverage:
    return OpCoverage(
        name=name, op=kind, path=(), heavy=macs is not None, integer=integer, kernel=kind, macs=macs, reason=reason
    )


COVERAGE = Coverage(
    ops=(
        op("stem", "Conv", integer=True, macs=3_000_000),
        op("head", "ConvTranspose", integer=False, macs=1_000_000, reason="it was asked for"),
        *(op(f"act{i}", "Tanh", integer=False, macs=None, reason=NO_KERNEL) for i in range(12)),
    ),
    kernels={"QLinearConv": 1, "QuantizeLinear": 2},
    notes=("a note on coverage",),
)


LAYERS = Layers(
    samples=4,
    tensors=(
        LayerAccuracy(
            tensor="act", node="stem", op="Conv", type="uint8", low=-1.0, high=1.55, least=-1.1, greatest=4.0,
            clipped=0.25, sqnr_db=12.5, own_sqnr_db=13.0, elements=1000,
        ),
        LayerAccuracy(
            tensor="flat", node="flatten", op="Flatten", type="uint8", low=0.0, high=2.55, least=0.0, greatest=2.0,
            clipped=0.0, sqnr_db=30.0, own_sqnr_db=math.inf, elements=10,
        ),
    ),
    histograms=(
        TensorHistogram(
            tensor="act", low=-1.0, high=1.55, edges=(-1.5, 0.0, 1.5, 4.0), counts=(10, 1000, 3), source="calibration"
        ),
    ),
    seconds=0.5,
)  # fmt: skip


@pytest.fixture
def full() -> Result:
    metric = MetricResult(
        name="top1", higher_is_better=True, samples=2000, reference=0.9305, candidate=0.9295, drop=0.001,
        interval=Interval(low=-0.0005, high=0.0025), resamples=2000, mcnemar_p=0.25, only_reference=5, only_candidate=3,
    )  # fmt: skip
    outputs = (
        OutputAccuracy(
            name="logits", dtype="float32", elements=20000, sqnr_db=30.25, cosine=0.9995, max_abs=1.5, absmax=8.0,
            worst_sample="eval.npz[7]", worst_sqnr_db=14.0, top1_agreement=0.995,
        ),
        OutputAccuracy(name="index", dtype="int64", elements=2000, agreement=0.99),
        OutputAccuracy(name="same", dtype="float32", elements=2, sqnr_db=math.inf, cosine=1.0, max_abs=0.0, absmax=1.0),
    )  # fmt: skip
    latency = Latency(
        threads=1, pairs=99, inner=2, reference_ms=1.234,
        candidate_ms=0.5, speedup=2.47, speedup_low=2.4, speedup_high=2.5,
        noisy=False, seconds=1.0,
    )  # fmt: skip
    model = ModelSummary(
        path=Path("out.onnx"), bytes=253_000, external=("out.data",), opset=21, ir_version=10,
        domains={"com.microsoft": 1}, producer="onnxq 0.1.0",
        inputs=(TensorSummary(name="x", dtype="float32", shape=("n", 3, None)),),
        outputs=(TensorSummary(name="y", dtype="float32", shape=()),), parameters=222_000, weight_bytes=250_000,
        nodes={"Conv": 3, "Relu": 1}, quantized=True, coverage=COVERAGE, notes=("one local function inlined",),
    )  # fmt: skip
    return Result(
        command="quantize",
        reference=Path("model.onnx"),
        candidate=Path("out.onnx"),
        target="cpu",
        method="entropy",
        calibration="256 samples of calib.npz",
        sizes=Sizes(reference=892_000, candidate=253_000),
        accuracy=Accuracy(
            samples=2000,
            data="2000 samples of eval.npz",
            outputs=outputs,
            metric=metric,
            notes=("a note on accuracy",),
            fusion=FusionCheck(
                samples=4, max_abs=0.0, sqnr_db=math.inf, literal_sqnr_db=37.0, worse=0, suspicious=False
            ),
        ),
        latency=(latency, replace(latency, threads=2, noisy=True)),
        coverage=COVERAGE,
        verdict=GateVerdict(
            passed=False,
            checks=(
                Check(name="drop of top1", passed=True, measured=0.001, limit=0.01, sentence="top1: within the limit"),
                Check(name="speed-up", passed=False, measured=2.47, limit=3.0, sentence="speed-up: below the limit"),
            ),
        ),
        model=model,
        layers=LAYERS,
        pareto=(
            ParetoPoint(label="all int8", chosen=True, speedup=2.5, seconds=0.001, drop=0.01, sqnr_db=30.0),
            ParetoPoint(label="all float", speedup=1.0, seconds=0.0025, drop=0.0, sqnr_db=math.inf),
        ),
        placement=(
            Placed(unit="stem", form="int8", float_ms=1.0, int8_ms=0.25, saving_ms=0.75, why="it is faster"),
            Placed(unit="head", form="float", float_ms=0.5, int8_ms=None, why="no integer kernel"),
        ),
        account=(
            Account(
                form="all int8",
                threads=1,
                timed=True,
                limit_ms=0.6,
                measured_ms=1.0,
                predicted_ms=0.95,
                profiled_ms=0.97,
                causes=(
                    Cause(name="conversions", ms=0.25, parts=2, largest=("x", "y_0")),
                    Cause(name="float Tanh", ms=0.12, parts=1, largest=("act0",)),
                    Cause(name="not explained by the profile", ms=0.03),
                ),
                lost=(
                    Lost(cause="conversions", name="x", op="QuantizeLinear", ms=0.2),
                    Lost(cause="float Tanh", name="act0", op="Tanh", ms=0.12, why="it has no integer kernel"),
                    Lost(cause="conversions", name="y_0", op="DequantizeLinear", ms=0.05),
                ),
            ),
        ),
        repairs=(
            Repair(
                name="bias",
                kept=True,
                told="9 ops, on 64 samples",
                before_db=22.5,
                after_db=26.75,
                samples=32,
                seconds=1.5,
            ),
            Repair(name="smooth", kept=False, told="no site in this model"),
        ),
        run=Provenance(
            command=("quantize", "model.onnx", "--calib", "my calib"),
            pipeline="passes:\n  - insert-qdq\n",
            inputs=(
                Hashed(role="float model", path="model.onnx", files=1, bytes=892_000, sha256="ab" * 32),
                Hashed(role="calibration samples", path="file.py:make", note="a function made them"),
            ),
            seeds={"bootstrap": 0},
        ),
        notes=("a [bold]note[/bold] of the run",),
        passes=(("fold-batchnorm", 3, {}), ("hoist", 0, {"two consumers": 2})),
        seconds={"calibrate": 1.25, "save": 0.25},
        environment=Environment(
            cpu="Some CPU",
            features=("avx2",),
            cores=2,
            platform="Linux x86_64",
            python="3.11.7",
            packages={"onnx": "1.0"},
        ),
    )
