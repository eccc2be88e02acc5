"""Small models and a way to run them for the tests of the IR."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, parser

from onnxq.ir.model import Model
from onnxq.ir.save import runnable
from onnxq.runtime.session import Level, Session

Run = Callable[[Model, Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]]


@pytest.fixture
def run() -> Run:
    """Runs a Model with optimizations off."""

    def run_model(model: Model, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        with runnable(model) as source:
            return Session(source, level=Level.OFF, threads=1).run(inputs)

    return run_model


@pytest.fixture
def run_file() -> Callable[[Path, Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]]:
    """Runs a file with optimizations off."""

    def run_path(path: Path, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return Session(path, level=Level.OFF, threads=1).run(inputs)

    return run_path


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Writes onnx.parser text to a file."""

    def write_text(source: str) -> Path:
        path = tmp_path / "model.onnx"
        path.write_bytes(parser.parse_model(source).SerializeToString())
        return path

    return write_text


@pytest.fixture
def external(tmp_path: Path) -> Iterator[Path]:
    """x[2,512] @ w[512,1024] + b[1024]: w (2 MB) and b (4 KB) in weights.bin, w at offset 4096."""
    rng = np.random.default_rng(1)
    w = rng.standard_normal((512, 1024)).astype(np.float32)
    b = rng.standard_normal(1024).astype(np.float32)
    (tmp_path / "weights.bin").write_bytes(b.tobytes() + w.tobytes())
    tensors = [reference("w", w, "weights.bin", b.nbytes), reference("b", b, "weights.bin", 0)]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Add", ["h", "b"], ["y"])],
        "main",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 512])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 1024])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "external.onnx"
    path.write_bytes(model.SerializeToString())
    yield path


def reference(name: str, array: NDArray[Any], location: str, offset: int) -> onnx.TensorProto:
    """A tensor whose values lie in another file."""
    tensor = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(array.dtype))
    tensor.dims.extend(array.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(array.nbytes))):
        tensor.external_data.add(key=key, value=value)
    return tensor
