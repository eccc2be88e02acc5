from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from rewriting import keep, model, rewrite

from onnxq.ir import save, text
from onnxq.pipeline.base import Stage
from onnxq.plan.plan import Plan
from onnxq.runtime.session import Level, Session
from onnxq.targets.target import load_target
from onnxq.testing import check_pass, default_context
from onnxq_passes.quantize_dynamic import QuantizeDynamic

PASS = QuantizeDynamic()
X = "(float[2,3] x) => (float[2,2] y) <float[3,2] w = {1, -0.5, 0.25, 1, -0.5, 0.75}"
MADE = (
    "(float[2,3] x) => (float[2,2] y) <int8[3,2] w_quantized = {127, -63, 32, 127, -63, 95}, "
    "float[2] w_scale = {0.007874016, 0.007874016}, int8[2] w_zero_point = {0, 0}"
)
SEVEN = dataclasses.replace(default_context(), target=load_target("cpu", reduce_range=True))


def test_contract() -> None:
    check_pass(QuantizeDynamic)
    assert set(QuantizeDynamic.stages()) == set(Stage)


def test_case_1() -> None:
    # w / scale: 127, -63.5 (to even: -64), 31.75, 127, -63.5, 95.25
    after = (
        MADE.replace("-63", "-64")
        + "> { [mm] y = com.microsoft.DynamicQuantizeMatMul(x, w_quantized, w_scale, w_zero_point) }"
    )
    rewrite(PASS, X + "> { [mm] y = MatMul(x, w) }", after, rewrites=1, atol=0.05)
    rewrite(PASS, X + "> { [mm] y = Gemm(x, w) }", after, rewrites=1, atol=0.05)


def test_case_1_with_a_bias() -> None:
    bias = ", float[2] b = {3, -4}> "
    after = (
        MADE.replace("-63", "-64")
        + bias
        + ("{ [mm] y = com.microsoft.DynamicQuantizeMatMul(x, w_quantized, w_scale, w_zero_point, b) }")
    )
    for nodes in (
        "[mm] m = MatMul(x, w) y = Add(m, b)",
        "[mm] m = MatMul(x, w) y = Add(b, m)",
        "[mm] y = Gemm(x, w, b)",
    ):
        rewrite(PASS, f"{X}{bias}{{ {nodes} }}", after, rewrites=1, atol=0.05)


def test_case_1_each_weight_has_its_own_integers() -> None:
    head = "(float[1,1] x) => (float[1,2] y, float[1,1] z) <"
    before = head + "float[1,2] w = {1, -2}, float[1,1] u = {4}> { [a] y = MatMul(x, w) [b] z = MatMul(x, u) }"
    after = head + (
        "int8[1,2] w_quantized = {127, -127}, float[2] w_scale = {0.007874016, 0.015748031}, int8[2] w_zero_point = {0, 0}, "
        "int8[1,1] u_quantized = {127}, float[1] u_scale = {0.031496063}, int8[1] u_zero_point = {0}> "
        "{ [a] y = com.microsoft.DynamicQuantizeMatMul(x, w_quantized, w_scale, w_zero_point) "
        "[b] z = com.microsoft.DynamicQuantizeMatMul(x, u_quantized, u_scale, u_zero_point) }"
    )
    rewrite(PASS, before, after, rewrites=2, atol=0.05)


def test_case_1_a_square_matrix_that_is_rounded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxq.numerics._CHUNK", 4)  # as with more than four million weights
    head = "(float[1,3] x) => (float[1,3] y) <"
    before = head + "float[3,3] w = {127, 0, 0, 0, 254, -50.8, 1, 2, 25.4}> { [mm] y = MatMul(x, w) }"
    after = head + (
        "int8[3,3] w_quantized = {127, 0, 0, 0, 127, -127, 1, 1, 64}, float[3] w_scale = {1, 2, 0.4}, "
        "int8[3] w_zero_point = {0, 0, 0}> "
        "{ [mm] y = com.microsoft.DynamicQuantizeMatMul(x, w_quantized, w_scale, w_zero_point) }"
    )
    rewrite(PASS, before, after, rewrites=1, atol=20)


def graph(op: str, inputs: list[Any], outputs: list[gs.Variable], **attrs: Any) -> gs.Graph:
    real = [t for t in inputs if isinstance(t, gs.Variable) and t.name]
    return gs.Graph([gs.Node(op, "op", attrs, inputs, outputs)], real, outputs, name="g", opset=21)


def run(made: gs.Graph, **x: Any) -> Any:
    source = text.parse(model("(float[1] a) => (float[1] b) { b = Neg(a) }"))
    source.graph = made
    return Session(save.to_bytes(source), level=Level.OFF, threads=1).run(x)


@pytest.mark.parametrize("context", [default_context(), SEVEN])
def test_products_are_those_of_integers(context: Any) -> None:
    rng = np.random.default_rng(0)
    w, b = (rng.normal(0, 1, s).astype(np.float32) for s in ((48, 20), (20,)))
    x = rng.normal(0.5, 1, (2, 5, 48)).astype(np.float32)
    made = graph(
        "MatMul",
        [gs.Variable("x", np.float32, (2, 5, 48)), gs.Constant("w", w)],
        [gs.Variable("m", np.float32, (2, 5, 20))],
    )
    y = gs.Variable("y", np.float32, (2, 5, 20))
    made.nodes.append(gs.Node("Add", "add", {}, [made.outputs[0], gs.Constant("b", b)], [y]))
    made.outputs = [y]
    assert PASS.run(made, context).rewrites == 1
    scale = (np.abs(w).max(axis=0).astype(np.float64) / (63 if context is SEVEN else 127)).astype(np.float32)
    levels = np.rint(w / scale).astype(np.int64)
    # DynamicQuantizeLinear by its definition in the ONNX specification
    low, high = min(x.min(), np.float32(0)), max(x.max(), np.float32(0))
    step = (high - low) / np.float32(255)
    zero = int(np.clip(np.rint(-low / step), 0, 255))
    data = np.clip(np.rint(x / step) + zero, 0, 255).astype(np.int64) - zero
    want = (data @ levels).astype(np.float32) * (step * scale) + b
    assert np.array_equal(run(made, x=x)["y"], want)


LSTM = {"forward": 1, "bidirectional": 2}


def lstm(directions: int, **attrs: Any) -> tuple[gs.Graph, gs.Graph]:
    """The same LSTM twice: 16 inputs, 8 hidden units, with bias, lengths, states and peepholes."""
    rng = np.random.default_rng(1)

    def one() -> gs.Graph:
        shapes = {"W": (directions, 32, 16), "R": (directions, 32, 8), "B": (directions, 64)}
        w, r, b = (gs.Constant(n, values[n]) for n in shapes)
        inputs: list[Any] = [
            gs.Variable("x", np.float32, (6, 3, 16)), w, r, b,
            gs.Variable("n", np.int32, (3,)),
            gs.Variable("h", np.float32, (directions, 3, 8)),
            gs.Variable("c", np.float32, (directions, 3, 8)),
            gs.Constant("P", values["P"]),
        ]  # fmt: skip
        outputs = [gs.Variable(n, np.float32) for n in ("y", "yh", "yc")]
        direction = "bidirectional" if directions == 2 else "forward"
        return graph("LSTM", inputs, outputs, hidden_size=8, direction=direction, **attrs)

    sizes = {"W": (directions, 32, 16), "R": (directions, 32, 8), "B": (directions, 64), "P": (directions, 24)}
    values = {n: rng.uniform(-0.5, 0.5, s).astype(np.float32) for n, s in sizes.items()}
    return one(), one()


@pytest.mark.parametrize("directions", [1, 2])
def test_case_2(directions: int) -> None:
    made, plain = lstm(directions, layout=0)
    assert PASS.run(made, default_context()).rewrites == 1
    (node,) = made.nodes
    assert [t.name for t in node.inputs] == [
        "x", "W_quantized", "R_quantized", "B", "n", "h", "c", "P",
        "W_scale", "W_zero_point", "R_scale", "R_zero_point",
    ]  # fmt: skip
    assert set(node.attrs) == {"hidden_size", "direction"}
    assert (node.op, node.name, len(node.inputs)) == ("DynamicQuantizeLSTM", "op", 12)
    rng = np.random.default_rng(2)
    states = {n: rng.normal(0, 0.3, (directions, 3, 8)).astype(np.float32) for n in "hc"}
    inputs = {"x": rng.normal(0, 1, (6, 3, 16)).astype(np.float32), "n": np.array([6, 4, 1], np.int32), **states}
    want, got = run(plain, **inputs), run(made, **inputs)
    for name, exact in want.items():
        noise = np.square(got[name] - exact).sum() / np.square(exact).sum()
        assert 0 < noise < 1e-3, name


def test_an_lstm_with_three_inputs() -> None:
    made, plain = lstm(1)
    for one in (made, plain):
        one.nodes[0].inputs = list(one.nodes[0].inputs)[:3]
        one.inputs = one.inputs[:1]
    assert PASS.run(made, default_context()).rewrites == 1
    x = np.random.default_rng(3).normal(0, 1, (6, 3, 16)).astype(np.float32)
    np.testing.assert_allclose(run(made, x=x)["y"], run(plain, x=x)["y"], atol=0.02)


def test_near_miss_an_lstm_with_batches_first() -> None:
    made, _ = lstm(1, layout=1)
    assert list(PASS.run(made, default_context()).reasons) == ["its layout is not that of the integer kernel"]


def test_near_miss_an_lstm_whose_weight_is_computed() -> None:
    for slot in (1, 2):
        made, _ = lstm(1)
        made.nodes[0].inputs[slot] = gs.Variable("fed", np.float32)
        assert list(PASS.run(made, default_context()).reasons) == ["its weight is computed at run time"]


NEAR_MISSES = {
    "computed at run time": "(float[2,3] x, float[3,2] w) => (float[2,2] y) { y = MatMul(x, w) }",
    "it transposes its data": X.replace("[2,3]", "[3,2]") + "> { y = Gemm<transA = 1>(x, w) }",
    "its alpha is not 1": X + "> { y = Gemm<alpha = 0.5>(x, w) }",
    "its beta is not 1": X + ", float[2] b = {3, -4}> { y = Gemm<beta = 2.0>(x, w, b) }",
    "has rank 1": "(float[2,3] x) => (float[2] y) <float[3] w = {1, 2, 3}> { y = MatMul(x, w) }",
    "has rank 3": "(float[1,1,2] x) => (float[1,1,1] y) <float[1,2,1] w = {1, 2}> { y = MatMul(x, w) }",
}


@pytest.mark.parametrize("reason", NEAR_MISSES)
def test_near_misses(reason: str) -> None:
    keep(PASS, NEAR_MISSES[reason], reason)


def test_a_gather_is_not_looked_at() -> None:
    keep(PASS, "(int64[1] x) => (float[1,2] y) <float[2,2] w = {1, 2, 3, 4}> { y = Gather(w, x) }")


def test_a_transposed_weight() -> None:
    turned = X.replace("float[3,2] w = {1, -0.5, 0.25, 1, -0.5, 0.75}", "float[2,3] w = {1, 0.25, -0.5, -0.5, 1, 0.75}")
    after = (
        MADE.replace("-63", "-64")
        + "> { [mm] y = com.microsoft.DynamicQuantizeMatMul(x, w_quantized, w_scale, w_zero_point) }"
    )
    rewrite(PASS, turned + "> { [mm] y = Gemm<transB = 1>(x, w) }", after, rewrites=1, atol=0.05)


def test_what_is_kept_float_stays() -> None:
    context = dataclasses.replace(default_context(), keep_float=("MatMul",))
    keep(PASS, X + "> { [mm] y = MatMul(x, w) }", 'kept float by the pattern "MatMul"', context=context)


def test_a_plan_decides() -> None:
    source = X.replace("y)", "y, float[2,2] z)") + "> { [a] y = MatMul(x, w) n = Neg(x) [b] z = MatMul(n, w) }"
    for kind, count in (("dynamic", 1), ("weights8", 0)):
        plan = Plan(values={}, uses={}, decisions={}, kinds={"b": kind})  # type: ignore[dict-item]
        parsed = text.parse(model(source))
        assert PASS.run(parsed.graph, dataclasses.replace(default_context(), plan=plan)).rewrites == count
        assert [n.op for n in parsed.graph.nodes if n.name == "b"] == ["DynamicQuantizeMatMul" if count else "MatMul"]
        assert [n.op for n in parsed.graph.nodes if n.name == "a"] == ["MatMul"]
