"""Canonical text is golden; the parser's errors are sentences."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_graphsurgeon as gs
import pytest

from onnxq.errors import ModelError
from onnxq.ir.model import Model
from onnxq.ir.text import parse, text

SOURCE = """<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]> net (float[N,4] x, bool c) => (float[N,4] y)
    <float[4] w = {1, 2.5, -3, 0.1}, float s = {0.1}> {
    h = Mul(x, w)
    z = com.microsoft.FastGelu(h)
    k = Clip(z, , s)
    y = If (c) <then_branch = a () => (float[N,4] p) { p = LeakyRelu<alpha=0.1>(k) },
                else_branch = b () => (float[N,4] q) { q = Transpose<perm=[0,1]>(k) }>
}"""


def test_golden():
    model = parse(SOURCE)
    model.meta.metadata["k"] = 'v"1'
    model.graph.nodes[0].name = "first mul"
    model.graph.nodes[0].metadata_props = {"from": "here"}
    assert text(model) == (
        """opset 17 ir 8
domain com.microsoft 1
metadata k = "v\\"1"
graph net(x: float32[N,4], c: bool[]) -> (y: float32[N,4])
  const w = float32[4] {1.0, 2.5, -3.0, 0.1}
  h = Mul(x, w) "first mul"
    metadata from = "here"
  z = com.microsoft.FastGelu(h)
  const s = float32[] 0.1
  k = Clip(z, _, s)
  y = If(c)
    else_branch() -> (q: float32[N,4])
      q = Transpose(k) {perm=[0, 1]}
    then_branch() -> (p: float32[N,4])
      p = LeakyRelu(k) {alpha=0.1}
"""
    )


def constant(array: np.ndarray, name: str = "c") -> str:
    node = gs.Node("Identity", inputs=[gs.Constant(name, array)], outputs=[gs.Variable("y")])
    return text(gs.Graph([node], [], [], name="g")).splitlines()[1].strip()


def test_four_bit_constants_stand_by_value():
    assert constant(np.array([-8, 7], dtype=ml_dtypes.int4)) == "const c = int4[2] {-8, 7}"


def test_large_constants_stand_by_hash():
    zeros, ones = constant(np.zeros((4, 5), np.int8)), constant(np.ones((4, 5), np.int8))
    assert zeros.startswith("const c = int8[4,5] sha256:")
    assert len(zeros) == len("const c = int8[4,5] sha256:") + 12
    assert zeros != ones
    assert constant(np.zeros(16, np.int8)).count("0") == 16


@pytest.mark.parametrize(
    ("name", "shown"), [("a/b.c:0", "a/b.c:0"), ("a b", '"a b"'), ("_", '"_"'), ('q"', '"q\\""'), ("ü", '"ü"')]
)
def test_names(name, shown):
    assert constant(np.array(1, np.int8), name) == f"const {shown} = int8[] 1"


def test_strings():
    assert constant(np.array(["a", 'b"'], dtype=object)) == 'const c = string[2] {"a", "b\\""}'


def test_parse_gives_a_model():
    model = parse(SOURCE)
    assert isinstance(model, Model)
    assert (model.opset, model.ir_version, len(model.graph.nodes)) == (17, 8, 4)


def test_parse_error_is_a_sentence():
    with pytest.raises(ModelError, match=r"does not follow the syntax of onnx\.parser") as caught:
        parse("<ir_version: 8> nonsense")
    assert "\n" not in str(caught.value)
