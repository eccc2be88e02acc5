"""Quantize a model in memory through the same door as the command, and run what comes out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from onnxq.data.sample import Sample
from onnxq.ir import load, save
from onnxq.options import Options
from onnxq.pipeline.spec import load_pipeline
from onnxq.quantization import Quantized, quantize_model
from onnxq.runtime.session import Level, Session
from onnxq.stats.calibrator import make_calibrators
from onnxq.targets.target import load_target

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Samples:
    """A data set in memory."""

    inputs: Sequence[Arrays]
    description: str = "samples in memory"
    preprocess_summary: str = "arrays as stored"
    labelled: bool = False
    skipped: list[str] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        return len(self.inputs)

    def __iter__(self) -> Iterator[Sample]:
        for index, arrays in enumerate(self.inputs):
            yield Sample(index=index, name=f"sample {index}", inputs=arrays)


def copy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Loading empties a ModelProto of its weights: give it a copy."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    return out


def normal(count: int, seed: int = 0, **shapes: Sequence[int]) -> list[Arrays]:
    """`normal(4, x=(1, 3, 8, 8))`: seeded normal samples."""
    random = np.random.default_rng(seed)
    return [{k: random.standard_normal(s).astype(np.float32) for k, s in shapes.items()} for _ in range(count)]


def quantized(
    model: onnx.ModelProto,
    samples: Sequence[Arrays],
    target: str = "cpu",
    *,
    method: str = "minmax",
    keep_float: Sequence[str] = (),
    reduce_range: bool | None = None,
    float_type: str | None = None,
) -> Quantized:
    """Everything that `onnxq quantize` does between opening files and saving."""
    options = Options(
        target=load_target(target, reduce_range=reduce_range, float_type=float_type),
        pipeline=load_pipeline(target),
        calibrators=make_calibrators(method, {}),
        keep_float=tuple(keep_float),
        threads=1,
    )
    return quantize_model(load.from_proto(copy(model)), Samples(samples), options)


def file(made: Quantized) -> bytes:
    """The bytes that would be saved, checked by onnx."""
    out = save.to_bytes(made.model)
    onnx.checker.check_model(onnx.load_from_string(out), full_check=True)
    return out


def run(model: bytes | onnx.ModelProto, samples: Sequence[Arrays], level: Level = Level.OFF) -> list[Arrays]:
    """The outputs of each sample."""
    source = model if isinstance(model, bytes) else model.SerializeToString()
    session = Session(source, level=level, threads=1)
    return [session.run(s) for s in samples]


def sqnr(exact: Sequence[Arrays], other: Sequence[Arrays], output: str) -> float:
    """Signal over noise energy in dB, over all samples."""
    a = np.concatenate([s[output].reshape(-1) for s in exact]).astype(np.float64)
    b = np.concatenate([s[output].reshape(-1) for s in other]).astype(np.float64)
    noise = float(((a - b) ** 2).sum())
    return float("inf") if noise == 0 else 10 * float(np.log10(max(float((a**2).sum()), 1e-30) / noise))


def model(text: str, weights: Mapping[str, NDArray[Any]] | None = None, opset: int = 17) -> onnx.ModelProto:
    """`model("(float[1,4] x) => (float[1,4] y) { y = MatMul(x, w) }", {"w": ...})`: weights become initializers."""
    ir = 7 if opset < 15 else 8
    parsed = onnx.parser.parse_model(f'<ir_version: {ir}, opset_import: ["": {opset}, "com.microsoft": 1]> g {text}')
    parsed.graph.initializer.extend(onnx.numpy_helper.from_array(v, k) for k, v in (weights or {}).items())
    return parsed


def info(name: str, shape: Sequence[int | str | None], kind: int = onnx.TensorProto.FLOAT) -> onnx.ValueInfoProto:
    """A typed name."""
    return helper.make_tensor_value_info(name, kind, shape)
