from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from rewriting import keep, model, rewrite

from onnxq.blocks import in_blocks
from onnxq.errors import ConfigError
from onnxq.ir import save, text
from onnxq.pipeline.base import Stage
from onnxq.plan.plan import Plan
from onnxq.runtime.session import Level, Session
from onnxq.testing import check_pass, default_context
from onnxq_passes.quantize_weights import QuantizeWeights

PASS = QuantizeWeights()
EXACT = QuantizeWeights(bits=8, accuracy_level=0)
X = "(float[2,3] x) => (float[2,2] y) <float[3,2] w = {1, -0.5, 0.25, 1, -0.5, 0.75}"


def test_contract() -> None:
    check_pass(QuantizeWeights)
    assert set(QuantizeWeights.stages()) == set(Stage) == {s for s in Stage if QuantizeWeights.behind(s) is s}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 2}, "bits must be 4 or 8, not 2"),
        ({"block_size": 8}, "a power of 2 from 16 on, not 8"),
        ({"block_size": 48}, "a power of 2 from 16 on, not 48"),
        ({"accuracy_level": 5}, "accuracy_level must be 0 to 4, not 5"),
    ],
)
def test_settings_that_no_kernel_has(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        QuantizeWeights(**settings)


def graph(op: str, rows: int, columns: int, *, bias: bool = False, seed: int = 0, **attrs: Any) -> gs.Graph:
    """y = op(x, w) with normal weights; MatMul and Gemm read [rows, columns], Gather rows of it."""
    rng = np.random.default_rng(seed)
    shape = (columns, rows) if attrs.get("transB") else (rows, columns)
    w = gs.Constant("w", rng.normal(0, 1, shape).astype(np.float32))
    if op == "Gather":
        x: gs.Variable = gs.Variable("x", np.int64, ("n",))
        inputs: list[Any] = [w, x]
    else:
        x = gs.Variable("x", np.float32, ("n", rows))
        inputs = [x, w]
    y = gs.Variable("y", np.float32, ("n", columns))
    if bias:
        inputs.append(gs.Constant("b", rng.normal(0, 1, columns).astype(np.float32)))
    return gs.Graph([gs.Node(op, "op", attrs, inputs, [y])], [x], [y], name="g", opset=21)


def constant(made: gs.Graph, name: str) -> Any:
    tensor = made.tensors()[name]
    assert isinstance(tensor, gs.Constant)
    return tensor.values


def run(made: gs.Graph, x: Any) -> Any:
    source = text.parse(model("(float[1] a) => (float[1] b) { b = Neg(a) }"))
    source.graph = made
    return Session(save.to_bytes(source), level=Level.OFF, threads=1).run({"x": x})["y"]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("op", "attrs"), [("MatMul", {}), ("Gemm", {}), ("Gemm", {"transB": 1})])
def test_products_multiply_with_the_blocks(bits: int, symmetric: bool, op: str, attrs: dict[str, int]) -> None:
    made = graph(op, 50, 24, bias=op == "Gemm", **attrs)  # 50 is no multiple of a block
    w = constant(made, "w")
    w = w.T if attrs else w
    b = constant(made, "b") if op == "Gemm" else np.zeros(24)
    pass_ = QuantizeWeights(bits=bits, symmetric=symmetric, block_size=16, accuracy_level=0)
    assert pass_.run(made, default_context()).rewrites == 1
    x = np.random.default_rng(5).normal(0, 1, (7, 50)).astype(np.float32)
    real = in_blocks(w.T, bits=bits, size=16, symmetric=symmetric, search=bits == 4).real.astype(np.float64)
    want = x.astype(np.float64) @ real.T + b
    np.testing.assert_allclose(run(made, x), want, rtol=0, atol=2e-6 * float(np.abs(want).max()))
    assert abs(want - (x @ w + b)).max() > 1e-3  # far above that tolerance


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [False, True])
def test_gathered_rows_are_those_of_the_blocks(bits: int, symmetric: bool) -> None:
    made = graph("Gather", 30, 50)
    table = constant(made, "w")
    pass_ = QuantizeWeights(bits=bits, symmetric=symmetric, block_size=32)
    assert pass_.run(made, default_context()).rewrites == 1
    x = np.array([0, 29, 7, -1, 7], np.int64)
    real = in_blocks(table, bits=bits, size=32, symmetric=symmetric, search=bits == 4).real
    assert np.array_equal(run(made, x), real[x])


def test_data_in_8_bits_at_level_4() -> None:
    x = np.random.default_rng(6).normal(0, 1, (7, 256)).astype(np.float32)
    got = []
    for level in (0, 4):
        made = graph("MatMul", 256, 24)
        QuantizeWeights(accuracy_level=level).run(made, default_context())
        got.append(run(made, x).astype(np.float64))
    noise = np.square(got[1] - got[0]).sum() / np.square(got[0]).sum()
    assert 1e-6 < noise < 1e-3


def test_sizes_of_blocks() -> None:
    for bits, rows, size in (
        (8, 512, 128),
        (8, 100, 128),
        (8, 64, 64),
        (8, 40, 64),
        (4, 512, 32),
        (4, 20, 32),
        (4, 5, 16),
    ):
        made = graph("MatMul", rows, 4)
        QuantizeWeights(bits=bits).run(made, default_context())
        assert (made.nodes[0].attrs["bits"], made.nodes[0].attrs["block_size"]) == (bits, size)


def test_a_bias_goes_along() -> None:
    before = model(X + ", float[2] b = {3, -4}> { [mm] m = MatMul(x, w) [add] y = Add(b, m) }")
    parsed, plain = text.parse(before), text.parse(before)
    report = EXACT.run(parsed.graph, default_context())
    (node,) = parsed.graph.nodes
    assert (report.rewrites, node.op, node.name, node.domain) == (1, "MatMulNBits", "mm", "com.microsoft")
    assert [t.name for t in node.inputs] == ["x", "w_quantized", "w_scale", "w_zero_point", "", "b"]
    x = {"x": np.array([[1, 2, 3], [-1, 0.5, 0.25]], np.float32)}
    got, want = (Session(save.to_bytes(m), level=Level.OFF).run(x)["y"] for m in (parsed, plain))
    np.testing.assert_allclose(got, want, atol=0.02)


@pytest.mark.parametrize(
    "graph_",
    [
        X + ", float[2,2] b = {3, -4, 5, 6}> { [mm] m = MatMul(x, w) [add] y = Add(m, b) }",  # differs by row
        X + "> { [mm] m = MatMul(x, w) [add] y = Add(m, m) }",
        X + ", float[2] b = {3, -4}> { [mm] m = MatMul(x, w) [add] y = Sub(m, b) }",
        X.replace("y)", "y, float[2,2] m)") + ", float[2] b = {3, -4}> { [mm] m = MatMul(x, w) [add] y = Add(m, b) }",
    ],
)
def test_near_miss_what_is_no_bias_stays(graph_: str) -> None:
    parsed = text.parse(model(graph_))
    assert EXACT.run(parsed.graph, default_context()).rewrites == 1
    assert parsed.graph.nodes[0].op == "MatMulNBits"
    assert len(parsed.graph.nodes) == 2 and len(parsed.graph.nodes[0].inputs) == 4


def test_a_row_of_bias_becomes_a_vector() -> None:
    parsed = text.parse(model(X + ", float[1,2] b = {3, -4}> { [g] y = Gemm(x, w, b) }"))
    assert EXACT.run(parsed.graph, default_context()).rewrites == 1
    assert tuple(parsed.graph.nodes[0].inputs[5].shape) == (2,)


NEAR_MISSES = {
    "computed at run time": "(float[2,3] x, float[3,2] w) => (float[2,2] y) { y = MatMul(x, w) }",
    "it transposes its data": X.replace("[2,3]", "[3,2]") + "> { y = Gemm<transA = 1>(x, w) }",
    "its alpha is not 1": X + "> { y = Gemm<alpha = 0.5>(x, w) }",
    "its beta is not 1": X + ", float[2] b = {3, -4}> { y = Gemm<beta = 2.0>(x, w, b) }",
    "its bias is computed": X.replace("x)", "x, float[2] b)") + "> { y = Gemm(x, w, b) }",
    "its bias has shape [1]": X + ", float[1] b = {3}> { y = Gemm(x, w, b) }",
    "its bias has shape [2, 1]": X + ", float[2,1] b = {3, 4}> { y = Gemm(x, w, b) }",
    "has rank 1": "(float[2,3] x) => (float[2] y) <float[3] w = {1, 2, 3}> { y = MatMul(x, w) }",
    "has rank 3": "(float[1,1,2] x) => (float[1,1,1] y) <float[1,2,1] w = {1, 2}> { y = MatMul(x, w) }",
    "its data operand is constant": "(float[2] a) => (float[1,1] y, float[2] z) <float[1,2] x = {1, 2}, "
    "float[2,1] w = {1, 2}> { y = MatMul(x, w) z = Neg(a) }",
    "it does not gather rows": "(int64[1] x) => (float[2,1] y) <float[2,2] w = {1, 2, 3, 4}> "
    "{ y = Gather<axis = 1>(w, x) }",
    "an odd number": "(int64[1] x) => (float[1,3] y) <float[2,3] w = {1, 2, 3, 4, 5, 6}> { y = Gather(w, x) }",
    "not float32": "(double[2,3] x) => (double[2,1] y) <double[3,1] w = {1, 2, 3}> { y = MatMul(x, w) }",
}


@pytest.mark.parametrize("reason", NEAR_MISSES)
def test_near_misses(reason: str) -> None:
    keep(PASS, NEAR_MISSES[reason], reason)


def test_near_miss_a_weight_that_is_not_finite() -> None:
    made = graph("MatMul", 3, 2)
    constant(made, "w")[1, 1] = np.inf
    report = PASS.run(made, default_context())
    assert list(report.reasons) == ["its weight holds NaN or Inf"]


def test_near_miss_an_empty_weight() -> None:
    report = PASS.run(graph("MatMul", 3, 0), default_context())
    assert list(report.reasons) == ["its weight is empty"]


def test_an_odd_number_of_columns_is_fine_in_8_bits() -> None:
    made = graph("Gather", 5, 33)
    table = constant(made, "w")
    assert QuantizeWeights(bits=8).run(made, default_context()).rewrites == 1
    np.testing.assert_allclose(run(made, np.array([4])), table[[4]], atol=0.02)


def test_a_weight_read_twice_alike_is_written_once() -> None:
    parsed = text.parse(
        model(X.replace("y)", "y, float[2,2] z)") + "> { [a] y = MatMul(x, w) n = Neg(x) [b] z = MatMul(n, w) }")
    )
    assert EXACT.run(parsed.graph, default_context()).rewrites == 2
    first, second = (n for n in parsed.graph.nodes if n.op == "MatMulNBits")
    assert first.inputs[1] is second.inputs[1]


@pytest.mark.parametrize(
    "nodes", ["[a] y = MatMul(x, w) [b] z = MatMul(x, u)", "[a] y = Gather(w, i) [b] z = Gather(u, i)"]
)
def test_each_weight_has_its_own_integers(nodes: str) -> None:
    head = "(float[2,2] x, int64[2] i) => (float[2,2] y, float[2,2] z) <float[2,2] w = {1, 2, 3, 4}, float[2,2] u = {4, 3, 2, 1}> "
    parsed = text.parse(model(f"{head} {{ {nodes} }}"))
    assert EXACT.run(parsed.graph, default_context()).rewrites == 2
    read = [[t.name for t in n.inputs if isinstance(t, gs.Constant)] for n in parsed.graph.nodes]
    assert read == [[f"{w}_quantized", f"{w}_scale", f"{w}_zero_point"] for w in "wu"]


def test_near_miss_a_weight_that_is_read_in_another_form() -> None:
    tied = "(int64[2] i, float[2,2] x) => (float[2,2] y, float[2,2] z) <float[2,2] w = {1, 2, 3, 4}> "
    keep(
        PASS,
        tied + "{ [a] y = Gather(w, i) [b] z = Gemm<transB = 1>(x, w) }",
        "also read by b, so it would be in the file twice",
        "also read by a, so it would be in the file twice",
    )
    keep(
        PASS,
        tied.replace("int64[2] i, ", "") + "{ [a] y = Gemm(x, w) [b] z = Gemm<transB = 1>(x, w) }",
        "also read by b",
        "also read by a",
    )


def test_what_is_kept_float_stays() -> None:
    context = dataclasses.replace(default_context(), keep_float=("m*",))
    keep(PASS, X + "> { [mm] y = MatMul(x, w) }", 'kept float by the pattern "m*"', context=context)


def test_a_plan_decides() -> None:
    source = model(X.replace("y)", "y, float[2,2] z)") + "> { [a] y = MatMul(x, w) n = Neg(w) [b] z = MatMul(x, n) }")
    source = source.replace("n = Neg(w) [b] z = MatMul(x, n)", "n = Neg(x) [b] z = MatMul(n, w)")
    for kinds, made in (({"a": "weights8", "b": "weights4"}, [8, 4]), ({"a": "weights4"}, [4]), ({"b": "dynamic"}, [])):
        plan = Plan(values={}, uses={}, decisions={}, kinds=kinds)  # type: ignore[arg-type]
        parsed = text.parse(source)
        report = PASS.run(parsed.graph, dataclasses.replace(default_context(), plan=plan))
        assert (report.rewrites, report.refusals) == (len(made), [])
        assert [n.attrs["bits"] for n in parsed.graph.nodes if n.op == "MatMulNBits"] == made


def test_in_a_body() -> None:
    rewritten = text.parse(
        model(
            """(bool c, float[2,3] x) => (float[2,2] y) <float[3,2] w = {1, 2, 3, 4, 5, 6}> {
            [if] y = If(c) <then_branch = t () => (float[2,2] a) { [m] a = MatMul(x, w) },
                            else_branch = e () => (float[2,2] b) { [n] b = MatMul(x, w) }> }"""
        )
    )
    assert EXACT.run(rewritten.graph, default_context()).rewrites == 2
    for c in (True, False):
        x = np.ones((2, 3), np.float32)
        got = Session(save.to_bytes(rewritten), level=Level.OFF).run({"c": np.array(c), "x": x})["y"]
        np.testing.assert_allclose(got, [[9, 12]] * 2, atol=0.05)


def test_rewrites_once() -> None:
    zeros = "(float[1,2] x) => (float[1,1] y) <float[2,1] w = {0, 0}> { [mm] y = MatMul(x, w) }"
    after = (
        "(float[1,2] x) => (float[1,1] y) <uint8[1,1,8] q = {136, 136, 136, 136, 136, 136, 136, 136}, "
        "float[1,1] s = {7.8886090522101181e-31}> { [mm] y = com.microsoft.MatMulNBits"
        "<K = 2, N = 1, bits = 4, block_size = 16, accuracy_level = 4>(x, q, s) }"
    )
    rewrite(
        QuantizeWeights(symmetric=True), zeros, after.replace("q", "w_quantized").replace(" s ", " w_scale ")
        .replace(", s)", ", w_scale)"), rewrites=1, atol=0,
    )  # fmt: skip
