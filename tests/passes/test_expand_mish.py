from __future__ import annotations

import pytest
from rewriting import keep, model, rewrite, together

from onnxq.ir import text
from onnxq.testing import check_pass, default_context
from onnxq_passes.expand_mish import ExpandMish

PASS = ExpandMish()
HEAD = "(float[2,3] x) => (float[2,3] y) {{ {0} }}"
AFTER = (
    "(float[2,3] x) => (float[2,3] y) <float m_one = {1}> { [m_Neg] y_Neg = Neg(x) [m_Sigmoid] y_Sigmoid = Sigmoid(y_Neg) "
    "[m_Mul] y_Mul = Mul(y_Sigmoid, y_Sigmoid) [m_Sub] y_Sub = Sub(m_one, y_Mul) [m_Add] y_Add = Add(m_one, y_Mul) "
    "[m_Div] y_Div = Div(y_Sub, y_Add) [m_Mul_1] y = Mul(x, y_Div) }"
)
ATOL = 2e-6


def test_contract() -> None:
    check_pass(ExpandMish)


@pytest.mark.parametrize(
    "ops",
    [
        "s = Softplus(x) t = Tanh(s) [m] y = Mul(x, t)",
        "s = Softplus(x) t = Tanh(s) [m] y = Mul(t, x)",
        "[m] y = Mish(x)",
    ],
)
def test_every_form(ops: str) -> None:
    report = rewrite(PASS, HEAD.format(ops), AFTER, rewrites=1, atol=ATOL)
    assert set(report.renamed.values()) == {"m"}


@pytest.mark.parametrize(
    "ops",
    [
        "s = Softplus(x) t = Tanh(s) n = Neg(x) y = Mul(n, t)",  # something else is multiplied
        "s = Softplus(x) t = Sigmoid(s) y = Mul(x, t)",
        "s = Softplus(x) t = Tanh(s) y = Add(x, t)",
        "t = Tanh(x) y = Mul(x, t)",
        "s = Relu(x) t = Tanh(s) y = Mul(x, t)",
    ],
)
def test_near_misses(ops: str) -> None:
    keep(PASS, HEAD.format(ops))


def test_near_miss_a_tanh_of_another_domain() -> None:
    graph = text.parse(model(HEAD.format("s = Softplus(x) t = Tanh(s) y = Mul(x, t)"))).graph
    graph.nodes[1].domain = "com.example"
    report = PASS.run(graph, default_context())
    assert (report.rewrites, [n.op for n in graph.nodes]) == (0, ["Softplus", "Tanh", "Mul"])


def test_parts_that_are_read_elsewhere() -> None:
    keep(
        PASS, HEAD.format("s = Softplus(x) t = Tanh(s) m = Mul(x, t) y = Add(m, s)"), "Softplus is also read elsewhere"
    )
    keep(PASS, HEAD.format("s = Softplus(x) t = Tanh(s) m = Mul(x, t) y = Add(m, t)"))


def test_other_types() -> None:
    """ONNX Runtime has no Softplus of doubles, so that this graph cannot run."""
    graph = text.parse(model("(double[2] x) => (double[2] y) { s = Softplus(x) t = Tanh(s) y = Mul(x, t) }")).graph
    report = PASS.run(graph, default_context())
    assert [r.reason for r in report.refusals] == ["only float tensors gain from it"]
    assert report.rewrites == 0 and [n.op for n in graph.nodes] == ["Softplus", "Tanh", "Mul"]


def test_many_sites() -> None:
    together(
        PASS,
        changed=[(HEAD.format("[m] y = Mish(x)"), AFTER, 1)],
        kept=[(HEAD.format("s = Softplus(x) t = Tanh(s) m = Mul(x, t) y = Add(m, s)"), "also read elsewhere")],
        quiet=[HEAD.format("y = Softplus(x)")],
        atol=ATOL,
    )
