"""Whose time it is, on real optimized graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxq.ir import load, save, text
from onnxq.ir.model import Model
from onnxq.placement.attribute import Attribution, attribute, conversion_of
from onnxq.runtime.profile import profile
from onnxq.testing import default_context
from onnxq_passes.expand_gates import ExpandGates

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


@pytest.mark.parametrize("op", ["com.microsoft.QuickGelu <alpha = 1.0>", "HardSwish"])
def test_the_gate_of_an_op_is_its_time(op: str) -> None:
    model = text.parse(f"""<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>
    main (uint8[1,4,64,64] x) => (uint8[1,4,64,64] y) <float s = {{0.1}}, uint8 z = {{128}}> {{
      [d] d = DequantizeLinear(x, s, z)
      [silu] m = {op} (d)
      [q] y = QuantizeLinear(m, s, z)
    }}""")
    ExpandGates().run(model.graph, default_context())
    inputs = {"x": np.random.default_rng(0).integers(0, 256, (1, 4, 64, 64), dtype=np.uint8)}
    seen = profile(save.to_bytes(model), [inputs], runs=5)
    got = attribute(seen, model.graph)
    assert len(seen.kernels) == 2
    assert (set(got.nodes), got.quantize, got.dequantize, got.lost) == ({"silu"}, {}, {}, 0.0)


def test_a_constant_that_is_dequantized_in_each_run_is_its_readers_time() -> None:
    model = text.parse("""<ir_version: 8, opset_import: ["" : 17]>
    main (float[n,4,8] x) => (float[n,4,8] y) <int32[8] b = {1, 2, 3, 4, 5, 6, 7, 8}, float s = {0.1}> {
      [bias] d = DequantizeLinear(b, s)
      [sum] t = Add(x, d)
      [erf] y = Erf(t)
    }""")
    got = found(model, (1, 4, 8))
    assert not got.dequantize and set(got.nodes) == {"sum", "erf"}


BRANCHES = {
    "blocked layout": "[conv] k = Conv(x, w) [sm] l = Softmax(k) [add] {p} = Add(l, x)",
    "layout around": "[tr] k = Transpose<perm = [0, 2, 3, 1]>(x) [sm] l = Softmax(k) "
    "[back] {p} = Transpose<perm = [0, 3, 1, 2]>(l)",
    "a residual in the convolution": "[one] k = Conv(x, w) [two] l = Conv(k, w) [add] m = Add(l, k) [erf] {p} = Erf(m)",
    "fused under another name": "[sig] k = Sigmoid(x) [mul] l = Mul(x, k) [conv] {p} = Conv(l, w)",
    "int8": "[q1] k = QuantizeLinear(x, s, z) [d1] l = DequantizeLinear(k, s, z) [sm] m = Softmax(l) "
    "[q2] i = QuantizeLinear(m, s, z) [d2] o = DequantizeLinear(i, s, z) [erf] {p} = Erf(o)",
    "one in another": "[in] {p} = If(c) <then_branch = t2 () => (float[1,4,8,8] p2) {{ {a} }}, "
    "else_branch = e2 () => (float[1,4,8,8] q2) {{ {b} }}>",
}
INNER = "[conv] k = Conv(x, w) [sm] l = Softmax(k) [e2] {} = Erf(l)", "[neg2] {} = Neg(x)"


def _if(condition: str, first: str, second: str, inputs: str = "") -> Model:
    weights = ", ".join(str(i % 5) for i in range(16))
    return text.parse(f"""<ir_version: 8, opset_import: ["" : 17]>
    main (float[1,4,8,8] x{inputs}) => (float[1,4,8,8] y)
    <float[4,4,1,1] w = {{{weights}}}, float s = {{0.1}}, uint8 z = {{128}}, int64 one = {{1}}, int64 zero = {{0}}> {{
      [erf0] v = Erf(x) {condition}
      [if] r = If(c) <then_branch = t () => (float[1,4,8,8] p) {{ {first} }},
                      else_branch = e () => (float[1,4,8,8] q) {{ {second} }}>
      [last] _if_then_branch_u = Sin(r) [sum] y = Max(_if_then_branch_u, v) }}""")


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("then", [True, False])
def test_a_body_that_is_put_in_the_place_of_its_if_is_the_ifs_time(branch: str, then: bool) -> None:
    known = "[shape] n = Shape(x) [dim] d1 = Gather(n, one) [more] c = " + (
        "Greater(d1, zero)" if then else "Less(d1, zero)"
    )
    taken, left, *inner = ("p", "q", "p2", "q2") if then else ("q", "p", "q2", "p2")
    taken_inside, left_inside = (words.format(name) for words, name in zip(INNER, inner, strict=True))
    a, b = (taken_inside, left_inside) if then else (left_inside, taken_inside)
    body, other = BRANCHES[branch].format(p=taken, a=a, b=b), f"[neg] {left} = Neg(x)"
    model = _if(known, *((body, other) if then else (other, body)))
    inputs = {"x": np.random.default_rng(0).standard_normal((1, 4, 8, 8)).astype(np.float32)}
    seen = profile(save.to_bytes(model), [inputs], runs=5)
    assert not any(kernel.path or kernel.op == "If" for kernel in seen.kernels)  # there is none any more
    got = attribute(seen, model.graph)
    assert got.lost == 0.0 and not got.quantize and not got.dequantize
    assert set(got.nodes) == {"erf0", "if", "last", "sum"}


def test_a_body_that_stays_is_the_ifs_time_too() -> None:
    model = _if("", BRANCHES["blocked layout"].format(p="p"), "[neg] q = Neg(x)", ", bool c")
    inputs = {"x": np.ones((1, 4, 8, 8), np.float32), "c": np.array(True)}
    seen = profile(save.to_bytes(model), [inputs], runs=5)
    assert any(kernel.path for kernel in seen.kernels)
    got = attribute(seen, model.graph)
    assert got.lost == 0.0 and set(got.nodes) == {"erf0", "if", "last", "sum"}
