from __future__ import annotations

import onnx
import pytest
from rewriting import bitwise, keep, model, rewrite, together

from onnxq.ir import save, text
from onnxq.runtime.session import optimized
from onnxq.testing import check_pass, default_context
from onnxq_passes.part_skip_layernorm import PartSkipLayernorm

PASS = PartSkipLayernorm()
HEAD = "(float[2,3,4] x, float[2,3,4] r) => (float[2,3,4] y) <float[4] g = {{1,2,1,2}}, float[4] h = {{0,1,0,1}}> {{ {0} }}"
NORM = "[n] y = LayerNormalization(s, g, h)"
FUSED = "SkipLayerNormalization"
PARTS = "[m_Sum] {sum} = Sum({added}) [m_LayerNormalization] y = LayerNormalization<axis = -1, epsilon = {epsilon}>({sum}, {scales})"
ROUNDING = 1e-5


def test_contract() -> None:
    check_pass(PartSkipLayernorm)


def test_an_add_becomes_a_sum() -> None:
    report = bitwise(
        PASS, HEAD.format(f"[a] s = Add(x, r) {NORM}"), HEAD.format(f"[a_Sum] s = Sum(x, r) {NORM}"), rewrites=1
    )
    assert report.renamed == {"a_Sum": "a"}


def test_a_constant_of_rank_3() -> None:
    """ONNX Runtime fuses that, too."""
    head = "(float[1,2,4] x) => (float[1,2,4] y) <float[4] g = {{1,2,1,2}}, float[1,2,4] r = {{1,2,3,4,5,6,7,8}}> {{ {0} }}"
    before = head.format("[a] s = Add(x, r) [n] y = LayerNormalization(s, g)")
    assert FUSED in _made(save.to_bytes(text.parse(model(before))))
    bitwise(PASS, before, head.format("[a_Sum] s = Sum(x, r) [n] y = LayerNormalization(s, g)"), rewrites=1)


@pytest.mark.parametrize("axis", [-1, 2])
def test_the_last_axis(axis: int) -> None:
    norm = f"[n] y = LayerNormalization<axis = {axis}>(s, g)"
    bitwise(PASS, HEAD.format(f"[a] s = Add(x, r) {norm}"), HEAD.format(f"[a_Sum] s = Sum(x, r) {norm}"), rewrites=1)


def test_of_unknown_rank() -> None:
    source = text.parse(model("(float[2,3,4] x, float[2,3,4] r) => (float[2,3,4] y) <float[4] g = {1,1,1,1}> "
                              "{ s = Add(x, r) y = LayerNormalization(s, g) }"))  # fmt: skip
    for tensor in source.graph.inputs:
        tensor.shape = None
    report = PASS.run(source.graph, default_context())
    assert (report.rewrites, [n.op for n in source.graph.nodes]) == (1, ["Sum", "LayerNormalization"])


def test_refusals() -> None:
    also = "[a] s = Add(x, r) [n] t = LayerNormalization(s, g) [m] y = Add(s, t)"
    keep(PASS, HEAD.format(also), "also read elsewhere")
    keep(PASS, HEAD.format("[a] s = Add(x, r) [n] t = LayerNormalization(s, g) [k] k = LayerNormalization(s, h) "
                           "[m] y = Mul(k, t)"), "also read elsewhere")  # fmt: skip
    wide = "(float[2,3,4] x, float[2,3,4] r) => (float[2,3,4] y) <float[3,4] g = {{1,2,3,4,5,6,7,8,9,1,2,3}}> {{ {0} }}"
    for axis in (1, -2):
        source = wide.format(f"[a] s = Add(x, r) [n] y = LayerNormalization<axis = {axis}>(s, g)")
        keep(PASS, source, "more than the last axis")


@pytest.mark.parametrize(
    "source",
    [
        HEAD.format("[a] s = Add(x, g) [n] y = LayerNormalization(s, g)"),  # a bias
        HEAD.format("[a] s = Add(h, x) [n] y = LayerNormalization(s, g)"),
        HEAD.format("[a] s = Mul(x, r) [n] y = LayerNormalization(s, g)"),
        HEAD.format("[a] s = Add(x, r) [n] y = Relu(s)"),
        HEAD.format("[a] s = Sum(x, r) [n] y = LayerNormalization(s, g)"),
        "(float[3,4] x, float[3,4] r) => (float[3,4] y) <float[4] g = {1,2,1,2}> "
        "{ [a] s = Add(x, r) [n] y = LayerNormalization(s, g) }",
        "(float[2,3,4] x, float[4] r) => (float[2,3,4] y) <float[4] g = {1,2,1,2}> "
        "{ [a] s = Add(x, r) [n] y = LayerNormalization(s, g) }",
        # the sum is no data
        "(float[2,3,4] x, float[4] r, float[4] q) => (float[2,3,4] y) "
        "{ [a] s = Add(q, r) [n] y = LayerNormalization(x, s) }",
        "(float[2,4,4] x, float[2,4,4] r) => (float[2,4,4] y, float[2,4,4] s) <float[4] g = {1,2,1,2}> "
        "{ [a] s = Add(x, r) [k] y = Neg(s) }",
    ],
)
def test_near_misses(source: str) -> None:
    keep(PASS, source)


def test_a_sum_that_is_no_data_of_the_norm() -> None:
    source = (
        "(float[2,3,4] x, float[4] r, float[4] q) => (float[2,3,4] y) { s = Add(q, r) y = LayerNormalization(x, s) }"
    )
    graph = text.parse(model(source)).graph
    for tensor in graph.inputs[1:]:
        tensor.shape = None
    assert PASS.run(graph, default_context()).rewrites == 0


def test_a_sum_that_is_an_output_too() -> None:
    source = (
        "(float[2,3,4] x, float[2,3,4] r) => (float[2,3,4] y, float[2,3,4] s) <float[4] g = {1,2,1,2}> "
        "{ [a] s = Add(x, r) [n] y = LayerNormalization(s, g) }"
    )
    keep(PASS, source, "also read elsewhere")


@pytest.mark.parametrize("domain", ["com.example", "com.microsoft"])
def test_ops_of_other_domains(domain: str) -> None:
    for place in (0, 1):
        graph = text.parse(model(HEAD.format(f"s = Add(x, r) {NORM}"))).graph
        graph.nodes[place].domain = domain
        report = PASS.run(graph, default_context())
        assert (report.rewrites, [n.op for n in graph.nodes]) == (0, ["Add", "LayerNormalization"])


@pytest.mark.parametrize(
    ("fused", "added", "scales", "epsilon"),
    [
        ("<epsilon = 0.001>(x, r, g, h)", "x, r", "g, h", "0.001"),
        ("(x, r, g, h)", "x, r", "g, h", "1e-12"),
        ("(x, r, g)", "x, r", "g", "1e-12"),
        ("(x, r, g, h, b)", "x, r, b", "g, h", "1e-12"),
        ('(x, r, g, "", b)', "x, r, b", "g", "1e-12"),
    ],
)
def test_the_fused_op_is_taken_apart(fused: str, added: str, scales: str, epsilon: str) -> None:
    head = HEAD.replace("> {{", ", float[4] b = {{3,1,4,1}}> {{")
    before = head.format(f"[m] y = com.microsoft.{FUSED}{fused}")
    after = head.format(PARTS.format(sum="y_Sum", added=added, scales=scales, epsilon=epsilon))
    report = rewrite(PASS, before, after, rewrites=1, atol=ROUNDING)
    assert report.renamed == {"m_Sum": "m", "m_LayerNormalization": "m"}
    rewrite(PASS, before, after, rewrites=1, atol=ROUNDING, opset=17)


def test_results_that_are_named_but_empty() -> None:
    graph = text.parse(model(HEAD.format(f'[m] y, "", "" = com.microsoft.{FUSED}(x, r, g, h)'))).graph
    assert PASS.run(graph, default_context()).rewrites == 1
    assert [n.op for n in graph.nodes] == ["Sum", "LayerNormalization"]


def test_the_sum_as_a_result() -> None:
    head = HEAD.replace("(float[2,3,4] y)", "(float[2,3,4] y, float[2,3,4] t)")
    before = head.format(f'[m] y, "", "", t = com.microsoft.{FUSED}(x, r, g, h)')
    rewrite(
        PASS,
        before,
        head.format(PARTS.format(sum="t", added="x, r", scales="g, h", epsilon="1e-12")),
        rewrites=1,
        atol=ROUNDING,
    )


def test_the_fused_op_stays_where_its_parts_lack_something() -> None:
    keep(PASS, HEAD.format(f"[m] y = com.microsoft.{FUSED}(x, r, g, h)"), "needs opset 17", opset=16)
    for outputs in ("y, mean", 'y, "", deviation'):
        graph = text.parse(model(HEAD.format(f"{outputs} = com.microsoft.{FUSED}(x, r, g, h)"))).graph
        report = PASS.run(graph, default_context())
        assert [r.reason for r in report.refusals] == ["the mean or the deviation is a result"]
        assert [n.op for n in graph.nodes] == [FUSED]


def test_many_sites() -> None:
    after = HEAD.format(PARTS.format(sum="y_Sum", added="x, r", scales="g, h", epsilon="1e-12"))
    together(
        PASS,
        changed=[
            (HEAD.format(f"[a] s = Add(x, r) {NORM}"), HEAD.format(f"[a_Sum] s = Sum(x, r) {NORM}"), 1),
            (HEAD.format(f"[m] y = com.microsoft.{FUSED}(x, r, g, h)"), after, 1),
        ],
        kept=[(HEAD.format("[a] s = Add(x, r) [n] t = LayerNormalization(s, g) [k] y = Add(s, t)"), "read elsewhere")],
        quiet=[HEAD.format("[a] y = Add(x, r)")],
        atol=ROUNDING,
    )


def test_onnx_runtime_fuses_an_add_and_no_sum() -> None:
    """If this fails, ONNX Runtime has changed what it fuses: docs/measure_skip.py says whether the pass still pays."""
    source = text.parse(model(HEAD.format(f"s = Add(x, r) {NORM}")))
    assert FUSED in _made(save.to_bytes(source))
    PASS.run(source.graph, default_context())
    assert _made(save.to_bytes(source)) == ["Sum", "LayerNormalization"]


def _made(model: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(optimized(model)).graph.node]
