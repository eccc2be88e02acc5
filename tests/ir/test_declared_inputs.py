"""What a file says of its inputs is what ONNX Runtime says of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import TensorProto, helper, parser, save

from onnxq.errors import ModelError
from onnxq.ir.load import declared_inputs
from onnxq.jobs import input_specs
from onnxq.runtime.session import Level, Session

ROOT = Path(__file__).resolve().parents[2]
HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
FILES = sorted((ROOT / "models").glob("fashion-*/*.onnx"))


def written(source: str, folder: Path) -> Path:
    save(parser.parse_model(HEAD + source), folder / "m.onnx")
    return folder / "m.onnx"


def assert_as_ort_says(path: Path) -> None:
    assert declared_inputs(path) is not None
    assert input_specs(path) == Session(path, level=Level.OFF, threads=1).inputs


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.parent.name)
def test_of_committed_models(path: Path) -> None:
    assert_as_ort_says(path)


@pytest.mark.parametrize(
    "source",
    [
        "g (float[N,3,?,8] x, float b) => (float[N,3,M,8] y) { y = Add(x, b) }",
        "g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 2}> { y = Add(x, w) }",
        "g (string[N] x) => (string[N] y) { y = Identity(x) }",
        "g (float16[0,2] x) => (float16[0,2] y) { y = Identity(x) }",
        "g (bool[2] c, double[2] x) => (double[2] y) { y = Where(c, x, x) }",
        "g (float[-1,4] x) => (float[-1,4] y) { y = Neg(x) }",
        "g () => (float y) { y = Constant <value = float {1}> () }",
    ],
)
def test_of_all_that_a_type_may_say(source: str, tmp_path: Path) -> None:
    assert_as_ort_says(written(source, tmp_path))


def test_of_what_is_no_tensor_onnx_runtime_is_asked(tmp_path: Path) -> None:
    sequence = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None)
    length = helper.make_tensor_value_info("y", TensorProto.INT64, [])
    graph = helper.make_graph([helper.make_node("SequenceLength", ["x"], ["y"])], "g", [sequence], [length])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    save(model, tmp_path / "m.onnx")
    assert declared_inputs(tmp_path / "m.onnx") is None
    assert input_specs(tmp_path / "m.onnx") == Session(tmp_path / "m.onnx", level=Level.OFF).inputs


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        input_specs(tmp_path / "m.onnx")
