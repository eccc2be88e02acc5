"""Whose time it is, on real optimized graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxq.ir import load, save, text
from onnxq.ir.model import Model
from onnxq.placement.attribute import Attribution, attribute, conversion_of
from onnxq.runtime.profile import profile

ROOT = Path(__file__).parents[2]
MODELS = {
    "residual": ROOT / "models/fashion-res8/model.onnx",
    "mobile": ROOT / "models/fashion-mobilenet/model.onnx",
    "transformer": ROOT / "models/fashion-vit/model.onnx",
}


def found(model: Model, shape: tuple[int, ...]) -> Attribution:
    inputs = {model.graph.inputs[0].name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    return attribute(profile(save.to_bytes(model), [inputs], runs=5), model.graph)


@pytest.mark.parametrize("name", MODELS)
def test_every_kernel_has_an_owner(name: str) -> None:
    model = load.load(MODELS[name])
    got = found(model, (1, 1, 28, 28))
    nodes = {n.name for n in model.graph.nodes}
    assert got.lost == 0.0
    assert set(got.nodes) <= nodes
    heavy = {n.name for n in model.graph.nodes if n.op in ("Conv", "Gemm")}
    assert all(name in got.nodes or got.into.get(name) in got.nodes for name in heavy)


def test_a_fused_activation_is_the_work_of_the_same_kernel() -> None:
    model = load.load(MODELS["mobile"])
    got = found(model, (1, 1, 28, 28))
    producer = {t.name: n for n in model.graph.nodes for t in n.outputs}
    clips = [n for n in model.graph.nodes if n.op == "Clip"]
    assert clips
    for clip in clips:
        conv = producer[clip.inputs[0].name]
        assert got.into[conv.name] == clip.name  # the fused kernel bears the name of the last output


def test_a_residual_add_is_the_work_of_the_convolution_that_adds_it() -> None:
    weight = ", ".join(["0.1"] * (16 * 16))
    model = text.parse(f"""<ir_version: 8, opset_import: ["" : 17]>
    main (float[1,16,8,8] x) => (float[1,16,8,8] y) <float[16,16,1,1] w = {{{weight}}}> {{
      a = Conv(x, w)
      b = Conv(a, w)
      s = Add(b, a)
      y = Conv(s, w)
    }}""")
    for index, node in enumerate(model.graph.nodes):
        node.name = f"n{index}"
    got = found(model, (1, 16, 8, 8))
    assert got.into == {"n2": "n1"}


def test_conversions_belong_to_the_tensor() -> None:
    model = text.parse("""<ir_version: 8, opset_import: ["" : 17]>
    main (float[1,4,8,8] x) => (float[1,4,8,8] y) <float s = {0.1}, uint8 z = {128}> {
      q = QuantizeLinear(x, s, z)
      t = Transpose <perm=[0,1,3,2]> (q)
      d = DequantizeLinear(t, s, z)
      y = Relu(d)
    }""")
    for index, node in enumerate(model.graph.nodes):
        node.name = f"n{index}"
    quantize, _, dequantize, relu = model.graph.nodes
    assert conversion_of(quantize) == ("quantize", "x")
    assert conversion_of(dequantize) == ("dequantize", "x")
    assert conversion_of(relu) is None
    got = found(model, (1, 4, 8, 8))
    assert set(got.quantize) == {"x"}
    assert set(got.dequantize) == {"x"}
    assert set(got.nodes) == {"n1", "n3"}
