from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from onnxq.errors import ModelError
from onnxq.runtime.observe import NodeRun, node_runs, write_optimized
from onnxq.runtime.session import Level, Session, optimized

HEAD = '<ir_version: 10, opset_import: ["" : 21]>'
MLP = (
    f"{HEAD} g (float[n,16] x) => (float[n,16] y) "
    "{ [one] a = Gemm(x, w, b) [two] r = Relu(a) [three] y = Gemm(r, w, b) }"
)
LOOP = (
    f"{HEAD} g (float[2,4] x, int64 trips) => (float[2,4] y) {{ [turn] y = Loop(trips, , x) <body = b "
    "(int64 i, bool go, float[2,4] h) => (bool on, float[2,4] o) { on = Identity(go) [inner] o = Relu(h) }> }"
)


def model(text: str, **weights: Any) -> bytes:
    made = onnx.parser.parse_model(text)
    for name, value in weights.items():
        made.graph.initializer.append(numpy_helper.from_array(value, name))
    return bytes(made.SerializeToString())


@pytest.fixture
def mlp() -> bytes:
    return model(MLP, w=np.eye(16, dtype=np.float32) * 2, b=np.zeros(16, np.float32))


def test_shapes_of_each_node(mlp: bytes) -> None:
    runs = node_runs(mlp, {"x": np.ones((3, 16), np.float32)})
    assert runs["one"] == [NodeRun(((3, 16), (16, 16), (16,)), ((3, 16),))]
    assert runs["two"] == [NodeRun(((3, 16),), ((3, 16),))]


def test_a_body_runs_as_often_as_the_loop_turns() -> None:
    runs = node_runs(model(LOOP), {"x": np.ones((2, 4), np.float32), "trips": np.array(3)})
    assert len(runs["inner"]) == 3
    assert len(runs["turn"]) == 1


def test_inputs_that_do_not_fit(mlp: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="cannot run the model"):
        node_runs(mlp, {"x": np.ones((3, 5), np.float32)})
    assert not list(tmp_path.iterdir())


def test_optimized_graph_keeps_its_weights_outside(mlp: bytes, tmp_path: Path) -> None:
    out = tmp_path / "o.onnx"
    write_optimized(mlp, out)
    graph = onnx.load(out, load_external_data=False).graph
    assert [n.op_type for n in graph.node] == ["FusedGemm", "Gemm"]
    assert (tmp_path / "o.onnx.data").stat().st_size >= 16 * 16 * 4
    assert Session(out, level=Level.OFF).run({"x": np.ones((1, 16), np.float32)})["y"][0, 0] == 4.0


def test_level_and_disabled_optimizers_are_passed_on(mlp: bytes, tmp_path: Path) -> None:
    for i, how in enumerate(({"level": Level.OFF}, {"disabled_optimizers": ["GemmActivationFusion"]})):
        out = tmp_path / f"{i}.onnx"
        write_optimized(mlp, out, **how)  # type: ignore[arg-type]
        assert [n.op_type for n in onnx.load(out).graph.node] == ["Gemm", "Relu", "Gemm"]


def test_optimized_as_bytes(mlp: bytes) -> None:
    assert [n.op_type for n in onnx.load_from_string(optimized(mlp)).graph.node] == ["FusedGemm", "Gemm"]


def test_a_model_that_ort_refuses(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot load the model"):
        write_optimized(b"nonsense", tmp_path / "o.onnx")
