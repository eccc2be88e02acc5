from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from onnxq.errors import ModelError
from onnxq.runtime.session import Level, Session
from onnxq.validate.coverage import coverage

ROOT = Path(__file__).parents[2]
MODELS = sorted((ROOT / "models").glob("*/*.onnx")) + sorted((ROOT / "models").glob("*/build/**/*.onnx"))


class OneSample(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, inputs: dict[str, Any]) -> None:
        self.left = [inputs]

    def get_next(self) -> dict[str, Any] | None:
        return self.left.pop() if self.left else None


def quantized(path: Path, inputs: dict[str, Any]) -> Path:
    """By ORT's own tool, as a second opinion on what Q/DQ models look like."""
    out = path.with_name(f"{path.stem}-int8.onnx")
    quantize_static(
        path, out, OneSample(inputs), per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8
    )
    return out


def zoo_residual(n: Any) -> None:
    a = n.op("Relu", n.op("Conv", "x", n.weight(8, 4, 3, 3, name="w1"), out="c1", pads=[1] * 4), out="r1")
    b = n.op("Conv", a, n.weight(8, 1, 3, 3, name="w2"), out="c2", pads=[1] * 4, group=8)
    c = n.op("Clip", b, n.const(0, "lo"), n.const(6, "hi"), out="clip")
    d = n.op("Relu", n.op("Add", a, c, out="sum"), out="r2")
    e = n.op("MaxPool", d, out="mp", kernel_shape=[2, 2], strides=[2, 2])
    f = n.op("Flatten", n.op("GlobalAveragePool", e, out="gap"), out="flat")
    n.result(n.op("Gemm", f, n.weight(10, 8, name="w3"), n.weight(10, name="b3"), out="fc", transB=1))


def zoo_attention(n: Any) -> None:
    x = n.op("Reshape", "x", n.const([1, 8, 8], "to", "int64"), out="tokens")
    heads = {}
    for h in "qkv":
        heads[h] = n.op(
            "Add", n.op("MatMul", x, n.weight(8, 8, name=f"w{h}"), out=f"mm_{h}"), n.weight(8, name=f"b{h}"), out=h
        )
    scores = n.op("MatMul", heads["q"], n.op("Transpose", heads["k"], out="kt", perm=[0, 2, 1]), out="scores")
    soft = n.op("Softmax", n.op("Mul", scores, n.const(0.35, "root"), out="scaled"), out="soft")
    y = n.op("Add", x, n.op("MatMul", soft, heads["v"], out="mixed"), out="skip")
    z = n.op("LayerNormalization", y, n.const(np.ones(8), "g"), n.const(np.zeros(8), "b"), out="ln")
    m = n.op("MatMul", z, n.weight(8, 16, name="up"), out="mm_up")
    g = n.op("Gelu", n.op("Add", m, n.weight(16, name="bup"), out="biased"), out="gelu")
    n.result(n.op("MatMul", g, n.weight(16, 8, name="down"), out="mm_down"))


def zoo_mixed(n: Any) -> None:
    a = n.op("ConvTranspose", "x", n.weight(4, 4, 2, 2, name="w1"), out="ct", strides=[2, 2])
    s = n.op("Mul", a, n.op("Sigmoid", a, out="sig"), out="silu")
    p = n.op("Split", s, out="part", outputs=2, axis=1, num_outputs=2)
    c = n.op("Concat", p, "part1", n.op("Resize", "x", "", n.const([1, 1, 2, 2], "rs"), out="rz"), out="cat", axis=1)
    t = n.op("Conv", c, n.weight(4, 8, 1, 1, name="w2"), n.weight(4, name="b2"), out="c2")
    q = n.op(
        "Reshape", n.op("Transpose", t, out="tr", perm=[2, 0, 3, 1]), n.const([8, 1, 32], "to", "int64"), out="seq"
    )
    n.op("LSTM", q, n.weight(1, 16, 32, name="lw"), n.weight(1, 16, 4, name="lr"), out="lstm", outputs=3, hidden_size=4)
    flat = n.op("Reshape", "lstm0", n.const([8, 4], "to2", "int64"), out="flat")
    n.result(n.op("Einsum", flat, n.weight(4, 3, name="we"), out="es", equation="ab,bc->ac"))


ZOO = {"residual": zoo_residual, "attention": zoo_attention, "mixed": zoo_mixed}


def check_mapping(path: Path, sample: dict[str, Any] | None = None) -> Any:
    found = coverage(path, sample=sample)
    heavy = Counter(o.op for o in found.ops if o.heavy)
    assert found.unmapped == ()
    assert heavy or found.ops
    for op in found.ops:
        assert op.kernel
        assert bool(op.reason) != op.integer
        assert not op.reason.startswith("ONNX Runtime kept it in float for a reason"), op
    # every integer kernel of ORT's graph is claimed by an operator of the file, and no other is
    claimed = Counter(o.kernel for o in found.ops if o.heavy and o.integer)
    there = Counter({k.rpartition(".")[2]: 0 for k in found.kernels})
    for kernel, count in found.kernels.items():
        there[kernel.rpartition(".")[2]] += count
    for kernel in ("QLinearConv", "QLinearMatMul", "QGemm", "MatMulIntegerToFloat"):
        assert claimed[kernel] == there[kernel], kernel
    return found


@pytest.mark.parametrize("path", MODELS, ids=lambda p: "-".join(p.relative_to(ROOT / "models").parts[::2]))
def test_every_heavy_op_of_the_real_models_is_mapped(path: Path) -> None:
    check_mapping(path)


def test_the_committed_models_are_there() -> None:
    assert {p.parent.name for p in MODELS} >= {"fashion-res8"}


@pytest.mark.parametrize("name", ZOO)
def test_float_zoo(net: Any, saved: Any, name: str) -> None:
    n = net(1, 4, 4, 4)
    ZOO[name](n)
    found = check_mapping(saved(n.model()))
    assert found.mac_share == 0.0
    assert found.integer_ops == 0


@pytest.mark.parametrize(("name", "share"), [("residual", 1.0), ("attention", 1.0), ("mixed", None)])
def test_zoo_quantized_by_ort(net: Any, saved: Any, name: str, share: float | None) -> None:
    n = net(1, 4, 4, 4)
    ZOO[name](n)
    path = saved(n.model())
    found = check_mapping(quantized(path, {"x": np.random.default_rng(0).normal(size=(1, 4, 4, 4)).astype(np.float32)}))
    if share is not None:
        assert found.mac_share == share
    else:
        assert 0 < found.mac_share < 1
        float_heavy = {o.op for o in found.float_ops if o.heavy}
        assert float_heavy == {"ConvTranspose", "LSTM", "Einsum"}


def test_real_model_quantized_by_ort(tmp_path: Path) -> None:
    source = ROOT / "models" / "fashion-res8" / "model.onnx"
    copy = tmp_path / "model.onnx"
    copy.write_bytes(source.read_bytes())
    (spec,) = Session(source, level=Level.OFF).inputs
    shape = [d if isinstance(d, int) else 1 for d in spec.shape]
    sample = {spec.name: np.random.default_rng(0).normal(size=shape).astype(np.float32)}
    found = check_mapping(quantized(copy, sample), sample)
    assert found.mac_share == 1.0
    assert found.macs == coverage(source, sample=sample).macs


def test_fused_operators_count_with_their_kernel(net: Any, saved: Any) -> None:
    n = net(1, 4, 4, 4)
    n.op("Conv", n.pair("x", "xd"), n.int8(4, 4, 1, 1, name="w"), out="c")
    n.op("Relu", "c", out="r")
    n.result(n.pair("r", "y", zero=0))
    conv, relu = coverage(saved(n.model())).ops
    assert (conv.kernel, conv.integer, relu.kernel, relu.integer) == ("QLinearConv", True, "QLinearConv", True)


def test_moves_on_integers_are_integer(net: Any, saved: Any) -> None:
    n = net(1, 4, 4, 4)
    n.op("Transpose", n.q("x", "xq"), out="t", perm=[0, 2, 3, 1])
    n.result(n.dq("t", "y"))
    (t,) = coverage(saved(n.model())).ops
    assert (t.integer, t.kernel) == (True, "Transpose")


def test_integer_operators_in_the_file(build: Any, saved: Any) -> None:
    model = build(
        """g (float[2,4] x) => (float[2,3] y) { q, s, z = DynamicQuantizeLinear(x)
        i = MatMulInteger(q, w, z)  f = Cast<to = 1>(i)  m = Mul(s, ws)  y = Mul(f, m) }""",
        w=np.ones((4, 3), np.int8),
        ws=np.array(0.1, np.float32),
    )
    found = coverage(saved(model))
    heavy = next(o for o in found.ops if o.heavy)
    assert (heavy.op, heavy.kernel, heavy.integer, heavy.macs) == ("MatMulInteger", "DynamicQuantizeMatMul", True, 24)


@pytest.mark.parametrize(
    ("graph", "weights", "expected"),
    [
        ("g (float[1,4,6,6] x) => (float[1,8,4,4] y) { y = Conv(x, w) }", {"w": (8, 4, 3, 3)}, 8 * 16 * 36),
        ("g (float[1,4,6,6] x) => (float[1,4,6,6] y) { y = Conv<group=4, pads=[1,1,1,1]>(x, w) }",
         {"w": (4, 1, 3, 3)}, 4 * 36 * 9),
        ("g (float[1,4,6,6] x) => (float[1,2,7,7] y) { y = ConvTranspose(x, w) }", {"w": (4, 2, 2, 2)}, 144 * 8),
        ("g (float[5,7] x) => (float[5,3] y) { y = Gemm(x, w) }", {"w": (7, 3)}, 105),
        ("g (float[7,5] x) => (float[5,3] y) { y = Gemm<transA=1, transB=1>(x, w) }", {"w": (3, 7)}, 105),
        ("g (float[2,5,7] x) => (float[2,5,3] y) { y = MatMul(x, w) }", {"w": (7, 3)}, 210),
        ("g (float[2,5,7] x) => (float[2,5,5] y) { t = Transpose<perm=[0,2,1]>(x) y = MatMul(x, t) }", {}, 350),
        ('g (float[2,5,7] x) => (float[2,5,3] y) { y = Einsum<equation="abc,cd->abd">(x, w) }', {"w": (7, 3)}, 210),
        ("g (float[3,2,5] x) => (float[3,1,2,4] y) { y = LSTM<hidden_size=4>(x, w, r) }",
         {"w": (1, 16, 5), "r": (1, 16, 4)}, 6 * 144),
        ("g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }", {}, 0),
    ],
)  # fmt: skip
def test_macs_by_hand(build: Any, saved: Any, graph: str, weights: dict[str, Any], expected: int) -> None:
    values = {k: np.ones(s, np.float32) for k, s in weights.items()}
    assert coverage(saved(build(graph, **values))).macs == expected


def test_macs_need_shapes_or_a_sample(build: Any, saved: Any) -> None:
    path = saved(build("g (float[b,n] x) => (float[b,3] y) { y = Gemm(x, w) }", w=np.ones((4, 3), np.float32)))
    blind = coverage(path)
    assert math.isnan(blind.mac_share)
    assert "no sample was given" in blind.notes[0]
    assert coverage(path, sample={"x": np.ones((2, 4), np.float32)}).macs == 24
    with pytest.raises(ModelError):
        coverage(path, sample={"x": np.ones((2, 5), np.float32)})


def test_an_open_batch_counts_as_one(build: Any, saved: Any) -> None:
    path = saved(build("g (float[b,4] x) => (float[b,3] y) { y = Gemm(x, w) }", w=np.ones((4, 3), np.float32)))
    assert coverage(path).macs == 12


def test_a_loop_counts_each_turn(build: Any, saved: Any) -> None:
    graph = """g (float[2,4] x) => (float[2,4] y) {
      y = Loop(trips, yes, x) <body = b (int64 i, bool go, float[2,4] h) => (bool on, float[2,4] o) {
        on = Identity(go)  o = MatMul(h, w) }> }"""
    values = {"trips": np.array(3, np.int64), "yes": np.array(True), "w": np.ones((4, 4), np.float32)}
    found = coverage(saved(build(graph, **values)))
    assert found.macs == 3 * 32
    assert [o.path for o in found.ops] == [("Loop_0/body",)]


def test_reasons_of_the_file_come_first(net: Any, saved: Any) -> None:
    def made(meta: dict[str, str]) -> str:
        n = net(1, 4, 4, 4)
        n.op("Tanh", n.pair("x", "xd"), out="it")
        n.result(n.pair("it", "y"))
        return str(coverage(saved(n.model(meta=meta))).ops[0].reason)

    assert made({"onnxq.decisions": json.dumps({"it": "you asked for it"})}) == "you asked for it"
    assert made({"onnxq.decisions": json.dumps({"other": "no"})}) == "ONNX Runtime has no integer kernel for Tanh"
    assert made({"onnxq.decisions": "{broken"}) == "ONNX Runtime has no integer kernel for Tanh"


def test_wrong_axis_that_ort_fuses_all_the_same_is_noted(net: Any, saved: Any) -> None:
    notes = {}
    for axis in (0, 1):
        n = net(1, 4, 4, 4)
        n.op("Conv", n.pair("x", "xd"), n.int8(4, 4, 1, 1, name="w", scale=[0.001] * 4, axis=axis), out="it")
        n.result(n.pair("it", "y"))
        notes[axis] = coverage(saved(n.model())).notes
    assert notes[0] == ()
    assert notes[1] == (
        "Conv it: its weight has its scales along axis 1, and ONNX Runtime wants axis 0; "
        "its integer kernel computes wrong numbers, or fails",
    )


def test_shape_arithmetic_and_constants_are_no_operators(build: Any, saved: Any) -> None:
    graph = """g (float[b,4] x) => (float[b,4] y) { s = Shape(x) f = Cast<to=1>(s) r = Sqrt(f) i = Cast<to=7>(r)
      k = Mul(c, c)  a = Add(x, k)  e = ConstantOfShape(s)  y = Add(a, e) }"""
    assert [o.op for o in coverage(saved(build(graph, c=np.ones(4, np.float32)))).ops] == ["Add", "Add"]


def test_unnamed_and_clashing_nodes_are_told_apart(net: Any, saved: Any) -> None:
    n = net(1, 4, 4, 4)
    n.op("Conv", "x", n.weight(4, 4, 1, 1, name="w1"), out="a")
    n.op("Conv", "a", n.weight(4, 4, 3, 3, name="w2"), out="b")
    n.op("Relu", "b", out="c")
    n.result("c")
    model = onnx.load_from_string(n.model())
    for node, name in zip(model.graph.node, ["same", "same", ""], strict=True):
        node.name = name
    found = coverage(saved(model.SerializeToString()))
    assert [o.name for o in found.ops] == ["Conv(a)", "same", "Relu(c)"]
    assert [o.kernel for o in found.ops] == ["Conv", "FusedConv", "FusedConv"]
    assert [o.macs for o in found.ops] == [256, 4 * 4 * 36, None]


def test_totals(net: Any, saved: Any) -> None:
    n = net(1, 4, 4, 4)
    n.op("Conv", n.pair("x", "xd"), n.int8(4, 4, 1, 1, name="w"), out="a")
    n.op("Conv", n.pair("a", "ad"), n.weight(4, 4, 1, 1, name="v"), out="b")
    n.result("b")
    found = coverage(saved(n.model()))
    assert (found.integer_macs, found.macs, found.mac_share) == (256, 512, 0.5)
    assert (found.integer_ops, len(found.float_ops), found.conversions) == (1, 1, 2)
    assert found.kernels["QuantizeLinear"] == 1


def test_kernels_that_ort_makes_of_several_nodes(net: Any, saved: Any) -> None:
    """Weight-only DQ, MatMul + Add, and GELU in pieces: each operator is found in the kernel that swallowed it."""
    n = net(4, 64)
    w = n.int8(64, 32, name="w4")
    a = n.op("MatMul", "x", w, out="weight_only")
    b = n.op("Add", n.op("MatMul", a, n.weight(32, 32, name="w5"), out="mm"), n.weight(32, name="b5"), out="sum")
    inner = n.op("Erf", n.op("Div", b, n.const(2**0.5, "root"), out="div"), out="erf")
    half = n.op("Mul", b, n.op("Add", inner, n.const(1.0, "one"), out="plus"), out="half")
    n.result(n.op("Mul", half, n.const(0.5, "point5"), out="gelu"))
    found = {o.name: (o.kernel, o.integer) for o in coverage(saved(n.model())).ops}
    assert found["weight_only"] == ("MatMulNBits", True)
    assert found["mm"] == found["sum"] == ("Gemm", False)
    assert {found[k][0] for k in ("div", "erf", "plus", "half", "gelu")} == {"Gelu"}
