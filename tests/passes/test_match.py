"""What the recompose passes share, on small graphs of its own."""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np
import onnx_graphsurgeon as gs
import pytest
from rewriting import model

from onnxq.ir import text
from onnxq.pipeline.base import Context, Report
from onnxq.testing import default_context
from onnxq_passes._edit import Editor
from onnxq_passes._match import close, dimensions, made_by, plus, polynomial, reader, rewrite_each, times

NUMBERS = "float two = {2}, float three = {3}, float four = {4}, float zero = {0}, float[2] both = {2, 3}"


def parsed(nodes: str) -> tuple[gs.Graph, Editor, dict[str, gs.Tensor]]:
    """A graph, its editor, and its tensors by name."""
    graph = text.parse(model(f"(float[2] x, float[2] w) => (float[2] y) <{NUMBERS}> {{ {nodes} }}")).graph
    return (
        graph,
        Editor(graph),
        {t.name: t for n in graph.nodes for t in (*n.inputs, *n.outputs)} | {"x": graph.inputs[0]},
    )


@pytest.mark.parametrize("target", [0.70710678, 0.16666667, 0.044715, 3.0])
def test_close_is_a_rounding_of_the_number_or_of_its_reciprocal(target: float) -> None:
    for kind in (np.float32, np.float16, ml_dtypes.bfloat16):
        stored, inverse = float(kind(target)), 1 / float(kind(1 / target))
        for value in (stored, inverse):
            assert close(value, target)
            assert close(value * (1 + 2e-7), target) and close(value * (1 - 2e-7), target)
    assert not close(target * 1.02, target) and not close(-target, target) and not close(1 / target + 0.5, target)
    assert not close(float(np.float32(target)) * (1 + 2e-6), target)


@pytest.mark.parametrize(
    ("node", "sum_", "product"),
    [
        ("y = Add(x, two)", 2, None),
        ("y = Add(two, x)", 2, None),
        ("y = Sub(x, two)", -2, None),
        ("y = Sub(two, x)", None, None),
        ("y = Mul(x, two)", None, 2),
        ("y = Mul(two, x)", None, 2),
        ("y = Div(x, two)", None, 0.5),
        ("y = Div(two, x)", None, None),
        ("y = Div(x, zero)", None, None),
        ("y = Mul(x, zero)", None, 0),
        ("y = Add(x, both)", None, None),
        ("y = Mul(x, w)", None, None),
        ("y = com.example.Add(x, two)", None, None),
        ("y = com.example.Mul(x, two)", None, None),
        ("y = Pow(x, two)", None, None),
    ],
)
def test_sums_and_products_with_one_number(node: str, sum_: float | None, product: float | None) -> None:
    graph, _, tensors = parsed(node)
    for found, wanted in ((plus(graph.nodes[0]), sum_), (times(graph.nodes[0]), product)):
        assert (None if found is None else found[1]) == wanted
        assert found is None or found[0] is tensors["x"]
    assert plus(None) is None and times(None) is None


def test_a_producer_or_reader_is_named_in_full() -> None:
    """Mean is a part of the word ReduceMean, and another operator."""
    graph, editor, tensors = parsed("a = Mean(x) y = Neg(a)")
    mean, neg = graph.nodes
    assert made_by(editor, tensors["a"], "ReduceMean") is None and made_by(editor, tensors["a"], "Mean") is mean
    assert made_by(editor, tensors["a"], ("Sum", "Mean")) is mean and made_by(editor, tensors["x"], "Mean") is None
    assert reader(editor, tensors["a"], "Negative") is None and reader(editor, tensors["a"], "Neg") is neg
    assert reader(editor, tensors["x"], ("Mean", "Sum")) is mean and reader(editor, tensors["y"], "Neg") is None


@pytest.mark.parametrize(
    ("nodes", "terms"),
    [
        ("y = Add(x, two)", {0: 2, 1: 1}),
        ("y = Sub(x, two)", {0: -2, 1: 1}),
        ("y = Sub(two, x)", {0: 2, 1: -1}),
        ("y = Mul(x, x)", {2: 1}),
        ("y = Pow(x, two)", {2: 1}),
        ("y = Pow(x, three)", {3: 1}),
        ("a = Add(x, two) y = Pow(a, two)", {0: 4, 1: 4, 2: 1}),
        ("a = Add(x, two) y = Mul(a, a)", {0: 4, 1: 4, 2: 1}),
        ("a = Add(x, two) y = Pow(a, three)", {0: 8, 1: 12, 2: 6, 3: 1}),
        ("a = Add(x, two) y = Div(a, four)", {0: 0.5, 1: 0.25}),
        ("y = Div(x, zero)", None),
        ("a = Add(x, two) y = Div(x, a)", None),
        ("y = Pow(x, four)", None),
        ("y = Pow(two, x)", None),
        ("y = Add(x, w)", None),
        ("y = Add(w, x)", None),
        ("a = Neg(x) y = Add(a, two)", None),
        ("y = com.example.Add(x, two)", None),
    ],
)
def test_polynomials_of_one_tensor(nodes: str, terms: dict[int, float] | None) -> None:
    graph, editor, tensors = parsed(nodes)
    found = polynomial(editor, tensors["y"], tensors["x"])
    if terms is None:
        assert found is None
        return
    assert found is not None and found.terms == terms
    assert found.nodes == {id(n): n for n in graph.nodes}


@pytest.mark.parametrize("form", ["Add({}, two)", "Add(two, {})"])
def test_a_polynomial_of_twelve_steps_is_deep_enough(form: str) -> None:
    """Deeper ones are not followed: a long chain of sums is no GELU, and would cost a long walk at each of its nodes."""
    for steps, wanted in ((12, {0: 24.0, 1: 1.0}), (13, None)):
        names = ["x", *(f"t{i}" for i in range(steps))]
        _, editor, tensors = parsed(
            " ".join(f"{b} = {form.format(a)}" for a, b in itertools.pairwise(names)) + f" y = Neg({names[-1]})"
        )
        found = polynomial(editor, tensors[names[-1]], tensors["x"])
        assert (None if found is None else found.terms) == wanted


def test_dimensions_of_the_graph_come_first() -> None:
    tensor = gs.Variable("x", np.float32, (2, "n", None))
    plain = default_context()
    assert dimensions(tensor, plain) == (2, "n", None)
    for seen, wanted in (((3, 4, 5), (2, 4, 5)), ((3, 4), (2, "n", None))):
        assert dimensions(tensor, Context(target=plain.target, observed_shapes={"x": seen})) == wanted
    assert dimensions(gs.Variable("x", np.float32), plain) is None
    assert dimensions(gs.Variable("x", np.float32), Context(target=plain.target, observed_shapes={"x": (7,)})) == (7,)


def test_each_node_is_asked_in_all_bodies_and_what_is_said_is_its_refusal() -> None:
    graph = text.parse(
        model(
            "(float[2] x, bool c) => (float[2] y) { [a] p = Relu(x) [b] q = Neg(p) [i] y = If(c) <then_branch = t () => "
            "(float[2] e) { [d] e = Relu(q) }, else_branch = f () => (float[2] g) { [h] g = Abs(q) }> }"
        )
    ).graph
    asked: list[str] = []

    def rewrite(node: gs.Node, editor: Editor, report: Report) -> str | None:
        asked.append(node.name)
        if node.name == "b":
            editor.fuse(node, [node], "Sin", [node.inputs[0]], report)
        return {"a": "why not", "h": ""}.get(node.name)

    report = rewrite_each(graph, ["Relu", "Neg", "Abs"], rewrite)
    assert sorted(asked) == ["a", "b", "d", "h"]
    assert report.rewrites == 1 and [(r.node, r.reason) for r in report.refusals] == [("a", "why not")]
    assert [n.op for n in graph.nodes] == ["Relu", "Sin", "If"]
