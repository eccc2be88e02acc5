"""The pipeline `import` on files that others wrote: PyTorch, TensorFlow (committed) and ONNX Runtime's quantizer (made
here). Outputs are compared with those of the original file in ONNX Runtime without optimizations.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from onnxq.errors import ModelError
from onnxq.ir.load import load
from onnxq.pipeline.calibration import CalibrationSection
from onnxq.plan.check import check
from onnxq.runtime.session import Level, Session
from onnxq.targets.target import load_target
from onnxq.validate.coverage import coverage
from onnxq.workbench.run import Show, run
from onnxq.workbench.setup import Request

MODELS = Path(__file__).parents[2] / "models"
COMMITTED = Path(__file__).parent / "thirdparty"
PICTURES = np.load(MODELS / "fashion-mnist" / "eval.npz")["image"][:20]


KNOWN = ("Clip ",)
"""What an exporter's file may break behind the import: PyTorch cuts 7-bit data on the integers."""


class Imported(NamedTuple):
    """What came out.

    Attributes:
        file: the written model.
        gap: greatest difference of an output, in steps of the Q that makes it; of a float one relative to the largest.
        rewrites: by pass.
        floats: operators that run in float in ONNX Runtime before (None: it cannot load the file) and after.
        heavy: those of them that multiply and accumulate.
    """

    file: Path
    gap: float
    rewrites: collections.Counter[str]
    floats: tuple[int | None, int]
    heavy: tuple[int | None, int]


def step(path: Path) -> float:
    """Scale of the DequantizeLinear that writes the output; 0 if something else does."""
    graph = onnx.load(path).graph
    (maker,) = (n for n in graph.node if graph.output[0].name in n.output)
    values = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    return float(values[maker.input[1]].reshape(-1)[0]) if maker.op_type == "DequantizeLinear" else 0.0


def bring_in(path: Path, folder: Path, pipeline: str = "import", *, verify: bool = False) -> Imported:
    """Run the pipeline once, and again on what it wrote, which must change nothing."""
    file, again = folder / "imported.onnx", folder / "again.onnx"
    done = run(Request(pipeline=pipeline, model=path), file, Show(verify=verify), lambda _: None)
    if pipeline == "import":
        run(Request(pipeline=pipeline, model=file), again, Show(), lambda _: None)
        assert again.read_bytes() == file.read_bytes()
        broken = [v.sentence for v in check(load(file), load_target("cpu"))]
        assert all(sentence.startswith(KNOWN) for sentence in broken), broken
    one, other = (Session(p, level=Level.OFF, threads=1) for p in (path, file))
    assert (one.inputs, one.outputs) == (other.inputs, other.outputs)
    feed = {one.inputs[0].name: PICTURES if one.inputs[0].shape[1] == 1 else PICTURES.transpose(0, 2, 3, 1)}
    (a,), (b,) = one.run(feed).values(), other.run(feed).values()
    unit = step(path) or float(np.abs(a).max())
    rewrites: collections.Counter[str] = collections.Counter()
    for result in done.run.steps:
        rewrites[result.name] += result.report.rewrites
    gap = float(np.abs(a - b).max()) / unit
    after = coverage(file)
    try:
        before = coverage(path)
    except ModelError:
        return Imported(file, gap, rewrites, (None, len(after.float_ops)), (None, len(after.heavy_float)))
    floats = len(before.float_ops), len(after.float_ops)
    return Imported(file, gap, rewrites, floats, (len(before.heavy_float), len(after.heavy_float)))


def ops(path: Path) -> collections.Counter[str]:
    return collections.Counter(n.op_type for n in onnx.load(path).graph.node)


@pytest.mark.parametrize(
    ("name", "moves", "conversions", "floats", "heavy"),
    [
        ("pytorch-qat", 4, (20, 24), (None, 1), (None, 0)),
        ("pytorch-qat-narrow", 4, (20, 24), (None, 1), (None, 0)),
        ("pytorch-pt2e", 3, (14, 20), (7, 7), (3, 3)),
        ("tensorflow-qat", 4, (10, 21), (1, 0), (1, 0)),
    ],
)
def test_exporters(name: str, moves: int, conversions: Any, floats: Any, heavy: Any, tmp_path: Path) -> None:
    """`None`: ONNX Runtime 1.31.1 does not load PyTorch's file at its default level (scales of shape [1] in front of an
    Add), but does so behind the import. What stays float has no Q in the exporter's file.
    """
    path = COMMITTED / f"{name}.onnx"
    made = bring_in(path, tmp_path, verify=True)
    assert made.gap == 0
    assert made.rewrites["hoist-quantize"] + made.rewrites["sink-dequantize"] == moves
    counts = [ops(p)["QuantizeLinear"] + ops(p)["DequantizeLinear"] for p in (path, made.file)]
    assert tuple(counts) == conversions
    assert (made.floats, made.heavy) == (floats, heavy)
    weights = [n for n in onnx.load(made.file).graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
    makers = {o: n for n in onnx.load(made.file).graph.node for o in n.output}
    integers = [makers[n.input[1]].op_type == "DequantizeLinear" for n in weights if n.input[1] in makers]
    assert integers and all(integers)


class Pictures(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self.left: Iterator[dict[str, Any]] = iter([{"image": picture[None]} for picture in PICTURES[:4]])

    def get_next(self) -> dict[str, Any] | None:
        return next(self.left, None)


@pytest.fixture(autouse=True)
def silent() -> Iterator[None]:
    """ONNX Runtime's quantizer warns of models that were not preprocessed."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def quantized(folder: Path, model: str, form: str, data: str, *, channels: bool) -> Path:
    """A file of ONNX Runtime's quantizer."""
    source, path = MODELS / model, folder / "quantized.onnx"
    if form == "dynamic":
        quantize_dynamic(source, path, per_channel=channels, weight_type=QuantType.QInt8)
    else:
        kinds = {"activation_type": QuantType[data], "weight_type": QuantType.QInt8}
        quantize_static(source, path, Pictures(), quant_format=QuantFormat[form], per_channel=channels, **kinds)
    return path


RES8, MOBILE, VIT = "fashion-res8/model.onnx", "fashion-mobilenet/model.onnx", "fashion-vit/model-ts.onnx"


@pytest.mark.parametrize(
    ("model", "form", "data", "channels", "steps"),
    [
        (RES8, "QDQ", "QUInt8", True, 0),
        (RES8, "QDQ", "QInt8", False, 0),
        (MOBILE, "QDQ", "QInt8", True, 0),
        (VIT, "QDQ", "QInt8", False, 0),
        (RES8, "QOperator", "QUInt8", True, 2),
        (RES8, "QOperator", "QInt8", False, 2),
        (MOBILE, "QOperator", "QUInt8", False, 2),
        (VIT, "QOperator", "QInt8", False, 2),
    ],
)
def test_the_quantizer_of_ort(model: str, form: str, data: str, channels: bool, steps: int, tmp_path: Path) -> None:
    """QOperator: some kernels round on another way (at most one step each), and steps add up from layer to layer."""
    path = quantized(tmp_path, model, form, data, channels=channels)
    made = bring_in(path, tmp_path)
    assert made.gap <= steps + 1e-3
    assert made.heavy[0] is not None and made.floats[0] is not None
    assert made.heavy[1] == 0 and made.floats[1] <= made.floats[0]
    if form == "QDQ" and data == "QInt8":
        assert made.heavy[0] > 0  # branches keep ONNX Runtime from making uint8 of it
    if form == "QOperator":
        unfused = made.rewrites["unfuse-qlinear"]
        assert unfused == sum(n for op, n in ops(path).items() if op.startswith(("QLinear", "QGemm")))
        assert not any(op.startswith(("QLinear", "QGemm")) for op in ops(made.file))
    if form == "QOperator" and model == VIT:
        assert made.rewrites["unfuse-integer-movement"] > 10


@pytest.mark.parametrize("model", [RES8, VIT])
def test_dynamically_quantized_models_stay_as_fast(model: str, tmp_path: Path) -> None:
    made = bring_in(quantized(tmp_path, model, "dynamic", "", channels=False), tmp_path)
    assert made.gap == 0
    assert made.heavy[0] == made.heavy[1] and made.floats[0] == made.floats[1]


FUSED = """
target: cpu
passes:
  - include: import
  - fuse-qlinear-conv
  - fuse-qgemm
  - fuse-qlinear-matmul
  - fuse-matmul-integer-to-float
  - fuse-integer-movement
  - fuse-qlinear-elementwise
  - fuse-qlinear-concat
  - fuse-qlinear-where
  - fuse-qlinear-pool
"""


@pytest.mark.parametrize("model", [RES8, MOBILE, VIT])
def test_there_and_back(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """QOperator -> Q/DQ -> QOperator: the same integer kernels, bit for bit."""
    monkeypatch.chdir(tmp_path)
    Path("fused.yaml").write_text(FUSED)
    path = quantized(tmp_path, model, "QOperator", "QUInt8", channels=model == RES8)
    made = bring_in(path, tmp_path, "fused.yaml")
    assert made.gap == 0
    for op in ("QLinearConv", "QLinearMatMul", "QGemm", "QLinearAdd", "QLinearMul", "QLinearGlobalAveragePool"):
        assert ops(made.file)[op] == ops(path)[op], op


STANDARD = "{target: cpu, passes: [{include: cpu}, fuse-conv-integer, fuse-matmul-integer]}"


def test_integer_products_with_an_int32_bias(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MatMulInteger -> Add of int32 -> Cast -> Mul, which fuse-matmul-integer writes: every one of them comes back, and
    in ONNX Runtime they are the integer ops that the Q/DQ file gave before."""
    monkeypatch.chdir(tmp_path)
    Path("standard.yaml").write_text(STANDARD)
    calibration = CalibrationSection(method="minmax", limit=4, threads=1)
    request = Request(
        pipeline="cpu",
        model=MODELS / VIT,
        calib=str(MODELS / "fashion-mnist" / "calib.npz"),
        calibration=calibration,
    )
    qdq, path = tmp_path / "qdq.onnx", tmp_path / "standard.onnx"
    run(request, qdq, Show(), lambda _: None)
    run(dataclasses.replace(request, pipeline="standard.yaml"), path, Show(), lambda _: None)
    graph = onnx.load(path).graph
    readers = {name: n.op_type for n in graph.node for name in n.input}
    biased = [n for n in graph.node if n.op_type == "MatMulInteger" and readers[n.output[0]] == "Add"]
    assert len(biased) == ops(path)["MatMulInteger"] == 16
    made = bring_in(path, tmp_path, verify=True)
    assert made.rewrites["unfuse-integer-product"] == 16
    assert not {"MatMulInteger", "Cast"} & set(ops(made.file))
    assert made.gap < 1e-2
    assert made.heavy[1] == len(coverage(qdq).heavy_float)
