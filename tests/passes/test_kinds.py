"""What quantize-dynamic and quantize-weights share, on quantize-dynamic."""

from __future__ import annotations

import dataclasses

import pytest
from rewriting import keep, model, rewrite, together

from onnxq.ir import text
from onnxq.plan.plan import Plan
from onnxq.testing import default_context
from onnxq_passes.quantize_dynamic import QuantizeDynamic

PASS = QuantizeDynamic()
W = "float[2,2] w = {127, -127, 5, 6}"
MADE = "int8[2,2] w_quantized = {127, -127, 5, 6}, float[2] w_scale = {1, 1}, int8[2] w_zero_point = {0, 0}"
NEW = "[mm] {0} = com.microsoft.DynamicQuantizeMatMul(x, w_quantized, w_scale, w_zero_point{1})"


def graph(nodes: str, *constants: str, outputs: str = "") -> str:
    return f"(float[2,2] x) => (float[2,2] y{outputs}) <{', '.join(constants)}> {{ {nodes} }}"


def test_many_sites_some_of_them_refused() -> None:
    together(
        PASS,
        changed=[
            (graph("[mm] y = MatMul(x, w)", W), graph(NEW.format("y", ""), MADE), 1),
            (
                graph("[mm] m = MatMul(x, w) [add] y = Add(m, b)", W, "float[2] b = {3, -4}"),
                graph(NEW.format("y", ", b"), MADE, "float[2] b = {3, -4}"),
                1,
            ),
        ],
        kept=[(graph("[mm] y = Gemm<transA = 1>(x, w)", W), "it transposes its data")],
        quiet=[graph("[n] n = Neg(x) [add] y = Add(n, n)")],
        atol=50,
    )


@pytest.mark.parametrize(
    ("bias", "made", "name"),
    [
        ("float[1,2] b = {3, -4}", "float[2] b_vector = {3, -4}", "b_vector"),
        ("float[2] b = {3, -4}", "float[2] b = {3, -4}", "b"),
    ],
)
def test_the_bias_of_a_gemm_becomes_a_vector(bias: str, made: str, name: str) -> None:
    before = graph("[mm] y = Gemm(x, w, b)", W, bias)
    rewrite(PASS, before, graph(NEW.format("y", f", {name}"), MADE, made), rewrites=1, atol=5)


@pytest.mark.parametrize(
    ("last", "constants", "outputs"),
    [
        ("[add] y = Sub({0}, b)", ["float[2] b = {3, -4}"], ""),
        ("[add] y = Add({0}, b)", ["float[1] b = {3}"], ""),
        ("[add] y = Add({0}, b)", ["float b = {3}"], ""),
        ("[add] y = Add({0}, b)", ["float[1,2] b = {3, 4}"], ""),
        ("[v] b = Neg(c) [add] y = Add({0}, b)", ["float[2] c = {3, 4}"], ""),
        ("[add] y = Add({0}, b) [n] z = Neg({0})", ["float[2] b = {3, -4}"], ", float[2,2] z"),
    ],
)
def test_near_miss_what_is_no_bias_stays(last: str, constants: list[str], outputs: str) -> None:
    before = graph("[mm] m = MatMul(x, w) " + last.format("m"), W, *constants, outputs=outputs)
    after = graph(NEW.format("m", "") + " " + last.format("m"), MADE, *constants, outputs=outputs)
    rewrite(PASS, before, after, rewrites=1, atol=5)


def test_near_miss_an_add_behind_a_gemm_stays() -> None:
    constants = "float[2] b = {3, -4}"
    before = graph("[mm] m = Gemm(x, w) [add] y = Add(m, b)", W, constants)
    rewrite(PASS, before, graph(NEW.format("m", "") + " [add] y = Add(m, b)", MADE, constants), rewrites=1, atol=5)


def test_near_miss_an_add_in_a_body_stays_there() -> None:
    body = (
        " [if] y = If(c) <then_branch = t () => (float[2,2] p) { [add] p = Add(m, b) }, "
        "else_branch = e () => (float[2,2] q) { [n] q = Neg(x) }>"
    )
    constants = "bool c = {1}", "float[2] b = {3, -4}"
    before = graph("[mm] m = MatMul(x, w)" + body, W, *constants)
    rewrite(PASS, before, graph(NEW.format("m", "") + body, MADE, *constants), rewrites=1, atol=5)


def test_near_miss_an_add_of_another_domain() -> None:
    parsed = text.parse(model(graph("[mm] m = MatMul(x, w) [add] y = Add(m, b)", W, "float[2] b = {3, -4}")))
    parsed.graph.nodes[1].domain = "com.example"
    assert PASS.run(parsed.graph, default_context()).rewrites == 1
    assert [(n.name, n.op, len(n.inputs)) for n in parsed.graph.nodes] == [
        ("mm", "DynamicQuantizeMatMul", 4),
        ("add", "Add", 2),
    ]


def test_a_pattern_keeps_one_of_two() -> None:
    outputs = ", float[2,2] z"
    rewrite(
        PASS,
        graph("[keep] z = MatMul(x, w) [mm] y = MatMul(x, w)", W, outputs=outputs),
        graph("[keep] z = MatMul(x, w) " + NEW.format("y", ""), W, MADE, outputs=outputs),
        rewrites=1,
        refused=['kept float by the pattern "keep"'],
        atol=5,
        context=dataclasses.replace(default_context(), keep_float=("keep",)),
    )


def test_a_plan_gives_kinds_to_some() -> None:
    """Nodes without a kind, and with a kind of another pass, are not even refused."""
    plan = Plan(values={}, uses={}, decisions={}, kinds={"b": "weights4", "mm": "dynamic", "t": "dynamic"})
    nodes = "[a] z = MatMul(x, w) [b] o = MatMul(x, w) {0} [t] k = Gemm<transA = 1>(x, u)"
    outputs = ", float[2,2] z, float[2,2] o, float[2,2] k"
    u = "float[2,2] u = {1, 2, 3, 4}"
    rewrite(
        PASS,
        graph(nodes.format("[mm] y = MatMul(x, w)"), W, u, outputs=outputs),
        graph(nodes.format(NEW.format("y", "")), W, u, MADE, outputs=outputs),
        rewrites=1,
        refused=["it transposes its data"],
        atol=5,
        context=dataclasses.replace(default_context(), plan=plan),
    )


def test_of_another_domain_is_no_site() -> None:
    parsed = text.parse(model(graph("[mm] y = MatMul(x, w)", W)))
    parsed.graph.nodes[0].domain = "com.example"
    report = PASS.run(parsed.graph, default_context())
    assert (report.rewrites, report.refusals) == (0, [])


def test_near_miss_nothing_to_do() -> None:
    keep(PASS, graph("[n] y = Neg(x)"))
