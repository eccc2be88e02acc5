"""NaN: ONNX Runtime's kernels hand it on where `guards` says so, and what `guards` leaves out is looked at."""

from __future__ import annotations

import numpy as np
import pytest

from onnxq.ir.save import to_bytes
from onnxq.ir.text import parse
from onnxq.runtime.session import Session
from onnxq.stats.guards import ANY_INPUT, FIRST_INPUT, MICROSOFT, guards, hands_on
from onnxq.stats.taps import COPIES

HEAD = '<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]>\n'
ONES = ", ".join(["1"] * 16)
KERNEL = ", ".join(["0.1"] * (16 * 16 * 9))
VECTORS = f"float[16] g = {{{ONES}}}, float[16] b = {{{ONES}}}, float[16,16] w = {{{', '.join(['0.1'] * 256)}}}"

CALLS = {
    "Gemm": "f = Flatten(x) t = Reshape(f, s) y = Gemm(t, w, b)",
    "LayerNormalization": "y = LayerNormalization(x, g)",
    "InstanceNormalization": "y = InstanceNormalization(x, g, b)",
    "BatchNormalization": "y = BatchNormalization(x, g, b, b, g)",
    "PRelu": "y = PRelu(x, k)",
    "Clip": "y = Clip(x, k, six)",
    "Cast": "h = Cast <to=10> (x) y = Cast <to=1> (h)",
    "MatMul": "y = MatMul(x, w)",
    "Concat": "y = Concat <axis=1> (x, x)",
    "BiasGelu": "y = com.microsoft.BiasGelu(x, b)",
    **{op: f"y = {op}(k, x)" for op in ("Add", "Sub", "Mul", "Div", "Sum")},
}
FUSED = {
    "conv": "c = Conv <pads=[1,1,1,1]> (x, c33) y = {}(c)",
    "residual": "c = Conv <pads=[1,1,1,1]> (x, c33) d = Add(c, x) y = {}(d)",
    "strided": "c = Conv <kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]> (x, c33) y = {}(c)",
}


def lost(body: str) -> int:
    """Of 112 places of a NaN, those where the output has none."""
    constants = (
        f"<{VECTORS}, float[16,16,3,3] c33 = {{{KERNEL}}}, float k = {{0}}, float six = {{6}}, int64[2] s = {{-1, 16}}>"
    )
    source = f"{HEAD}g (float[1,16,16,16] x) => (y) {constants} {{ {body} }}"
    session = Session(to_bytes(parse(source)), threads=1)
    rng, count = np.random.default_rng(0), 0
    for place in range(0, 4096, 37):
        values = rng.standard_normal((1, 16, 16, 16)).astype(np.float32)
        values.reshape(-1)[place] = np.nan
        count += not np.isnan(session.run({"x": values})["y"]).any()
    return count


@pytest.mark.parametrize("op", sorted((ANY_INPUT | FIRST_INPUT | MICROSOFT) - COPIES))
def test_ops_that_hand_on_nan(op: str) -> None:
    domain = "com.microsoft." if op in MICROSOFT and op not in FIRST_INPUT else ""
    assert lost(CALLS.get(op, f"y = {domain}{op}(x)")) == 0


@pytest.mark.parametrize("activation", ["Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid", "HardSwish"])
@pytest.mark.parametrize("kind", FUSED)
def test_convolutions_with_fused_activations_hand_it_on(kind: str, activation: str) -> None:
    assert lost(FUSED[kind].format(activation)) == 0


def test_reductions_and_pooling_do_not() -> None:
    assert lost("y = ReduceMax <keepdims=0> (x)") > 0
    assert lost("y = ReduceMin <keepdims=0> (x)") > 0
    assert lost("y = GlobalMaxPool(x)") > 0
    assert lost("y = ReduceSum <keepdims=0> (x)") == 0


def guarded(body: str, taps: list[str], size: int = 8) -> list[str]:
    constants = f"<float[4,4,1,1] w = {{{ONES}}}, float[4,4,2,2] w2 = {{{', '.join(['1'] * 64)}}}>"
    model = parse(f"{HEAD}g (float[1,4,{size},{size}] x) => (z) {constants} {{ {body} }}")
    return guards(model.graph, taps, dict.fromkeys(["x", *taps], (1, 4, size, size)))


def test_a_chain_needs_one_sum_at_its_end() -> None:
    assert guarded(
        "a = Relu(x) b = Add(a, x) c = Conv(b, w) z = MaxPool <kernel_shape=[2,2]> (c)", ["a", "b", "c"]
    ) == ["c"]


def test_a_reader_that_swallows_nan_ends_the_way() -> None:
    body = "a = Relu(x) b = MaxPool <kernel_shape=[2,2]> (a) c = Neg(b) z = Sin(c)"
    assert guarded(body, ["a", "c"]) == ["c", "a"]
    assert guarded(body.replace("MaxPool <kernel_shape=[2,2]>", "Neg"), ["a", "c"]) == ["c"]


def test_a_way_that_ends_in_nothing_looked_at_is_none() -> None:
    assert guarded("a = Relu(x) b = Neg(a) z = Sin(b)", ["a"]) == ["a"]


@pytest.mark.parametrize(
    ("attributes", "size", "expected"),
    [
        ("kernel_shape=[2,2], strides=[2,2]", 8, True),
        ("kernel_shape=[2,2], strides=[2,2]", 9, False),  # the last row is read by nobody
        ("kernel_shape=[2,2], strides=[3,3]", 8, False),
        ("kernel_shape=[2,2], dilations=[2,2]", 8, False),
        ("kernel_shape=[2,2], pads=[-1,0,0,0]", 8, False),
        ('kernel_shape=[2,2], strides=[2,2], auto_pad="VALID"', 8, False),
        ("strides=[2,2]", 8, False),
    ],
)
def test_convolutions_that_skip_elements(attributes: str, size: int, expected: bool) -> None:
    model = parse(f"{HEAD}g (float[1,4,{size},{size}] x, float[4,4,2,2] w) => (z) {{ z = Conv <{attributes}> (x, w) }}")
    node = model.graph.nodes[0]
    assert hands_on(node, 0, (1, 4, size, size)) is expected
    assert hands_on(node, 1, None) is False


def test_casts_to_integers_and_foreign_ops_are_not_trusted() -> None:
    model = parse(HEAD + "g (float[2] x) => (z) { a = Cast <to=7> (x) z = com.microsoft.Relu(x) }")
    assert [hands_on(n, 0, None) for n in model.graph.nodes] == [False, False]
