from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxq.errors import ModelError
from onnxq.report.json import dumps
from onnxq.validate.result import Result, environment, file_bytes
from onnxq.validate.summary import summarize

ROOT = Path(__file__).parents[2]
GRAPH = "g (float[n,8] x) => (float[n,4] y) { m = MatMul(x, w)  y = Relu(m) }"


@pytest.fixture
def external(tmp_path: Path, build: Callable[..., bytes]) -> Path:
    model = onnx.load_from_string(build(GRAPH, w=np.ones((8, 4), np.float32)))
    path = tmp_path / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, location="m.data", size_threshold=0)
    return path


def test_size_counts_external_data(external: Path, build: Any, saved: Any) -> None:
    data = external.with_name("m.data").stat().st_size
    assert data >= 8 * 4 * 4
    assert file_bytes(external) == external.stat().st_size + data
    inside = saved(build(GRAPH, w=np.ones((8, 4), np.float32)))
    assert file_bytes(inside) == inside.stat().st_size
    with pytest.raises(ModelError):
        file_bytes(external.with_name("none.onnx"))


def test_summary_of_a_float_model(external: Path) -> None:
    found = summarize(external)
    assert (found.external, found.bytes) == (("m.data",), file_bytes(external))
    assert (found.opset, found.ir_version, found.quantized) == (21, 10, False)
    assert (found.parameters, found.weight_bytes) == (32, 128)
    assert found.nodes == {"MatMul": 1, "Relu": 1}
    assert [(i.name, i.dtype, i.shape) for i in found.inputs] == [("x", "float32", ("n", 8))]
    assert [(o.name, o.dtype, o.shape) for o in found.outputs] == [("y", "float32", ("n", 4))]
    assert found.coverage is not None and found.coverage.macs == 32


def test_summary_of_a_quantized_model(net: Any, saved: Any) -> None:
    n = net(1, 4, 4, 4)
    n.op("Conv", n.pair("x", "xd"), n.int8(4, 4, 1, 1, name="w"), out="c")
    n.result(n.pair("c", "y"))
    found = summarize(saved(n.model()))
    assert found.quantized
    assert found.coverage is not None and found.coverage.mac_share == 1.0
    assert found.nodes == {"DequantizeLinear": 3, "QuantizeLinear": 2, "Conv": 1}


def test_summary_goes_into_json(external: Path) -> None:
    text = dumps(Result(command="inspect", model=summarize(external), environment=environment()))
    assert json.loads(text)["model"]["coverage"]["heavy_total"] == 1


def test_environment() -> None:
    found = environment()
    assert found.cpu
    assert found.packages["onnxruntime"] == version("onnxruntime")
    assert found.cores >= 1
