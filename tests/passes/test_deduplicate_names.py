from __future__ import annotations

from rewriting import bitwise, keep, model

from onnxq.ir import text, walk
from onnxq.testing import check_pass, default_context
from onnxq_passes.deduplicate_names import DeduplicateNames


def test_contract() -> None:
    check_pass(DeduplicateNames)


def test_case_1_unnamed_nodes_are_called_after_operator_and_place() -> None:
    bitwise(
        DeduplicateNames(),
        "(float[2] x) => (float[2] y) { a = Relu(x) [mine] b = Exp(a) y = Relu(b) }",
        "(float[2] x) => (float[2] y) { [Relu_0] a = Relu(x) [mine] b = Exp(a) [Relu_2] y = Relu(b) }",
        rewrites=2,
    )


def test_case_1_a_taken_name_is_not_used() -> None:
    bitwise(
        DeduplicateNames(),
        "(float[2] x) => (float[2] y) { a = Relu(x) [Relu_0] y = Relu(a) }",
        "(float[2] x) => (float[2] y) { [Relu_0_1] a = Relu(x) [Relu_0] y = Relu(a) }",
        rewrites=1,
    )


def test_case_2_later_duplicates_get_numbers() -> None:
    # ONNX Runtime refuses to load two nodes of one name, so only the texts are compared
    before = text.parse(model(NAMED.format("n", "n_1", "n", "n"))).graph
    report = DeduplicateNames().run(before, default_context())
    assert text.text(before) == text.text(text.parse(model(NAMED.format("n", "n_1", "n_2", "n_3"))).graph)
    assert report.renamed == {"n_2": "n", "n_3": "n"}
    assert report.rewrites == 2
    assert DeduplicateNames().run(before, default_context()).rewrites == 0


NAMED = "(float[2] x) => (float[2] y) {{ [{}] a = Relu(x) [{}] b = Exp(a) [{}] c = Neg(b) [{}] y = Abs(c) }}"


def test_unique_names_stay() -> None:
    keep(DeduplicateNames(), "(float[2] x) => (float[2] y) { [b] a = Relu(x) [a] y = Relu(a) }")


BRANCHES = """(bool c, float[2] x) => (float[2] y) {{ [if] y = If(c) <
    then_branch = p () => (float[2] t) {{ [first] m = Relu(x) [last] t = Exp(m) }},
    else_branch = q () => (float[2] {t}) {{ [{first}] {m} = Neg(x) [{last}] {t} = Abs({m}) }}> }}"""


def test_case_3_tensors_of_two_branches() -> None:
    report = bitwise(
        DeduplicateNames(),
        BRANCHES.format(t="t", m="m", first="first", last="last"),
        BRANCHES.format(t="t_1", m="m_1", first="first_1", last="last_1"),
        rewrites=4,
    )
    assert report.renamed == {"first_1": "first", "last_1": "last"}


def test_case_3_near_miss_one_tensor_seen_in_two_graphs_keeps_its_name() -> None:
    keep(DeduplicateNames(), BRANCHES.format(t="t2", m="m2", first="f2", last="l2"))


def test_case_4_outputs_of_the_main_graph_keep_their_names() -> None:
    source = model("""(bool c, float[2] x) => (float[2] y) { [if] z = If(c) <
        then_branch = p () => (float[2] y) { [a] y = Relu(x) }, else_branch = q () => (float[2] e) { [b] e = Neg(x) }>
        [last] y = Exp(z) }""")
    parsed = text.parse(source)
    DeduplicateNames().run(parsed.graph, default_context())
    assert [t.name for t in parsed.graph.outputs] == ["y"]
    inner = next(body for path, body in walk.graphs(parsed.graph) if path)
    assert [t.name for t in inner.outputs] == ["y_1"]


def _names(nodes: str) -> list[str]:
    parsed = text.parse(model(f"(float[2] x) => (float[2] y) {{ {nodes} }}"))
    DeduplicateNames().run(parsed.graph, default_context())
    return [n.name for n in parsed.graph.nodes]


def test_new_names_are_taken_at_once() -> None:
    assert _names("[Relu] a = Relu(x) b = Relu(a) [Relu] y = Relu(b)") == ["Relu", "Relu_1", "Relu_2"]
    nodes = "[Relu] a = Relu(x) [Relu] b = Relu(a) c = Relu(b) [Relu_1] y = Relu(c)"
    assert _names(nodes) == ["Relu", "Relu_2", "Relu_2_1", "Relu_1"]
