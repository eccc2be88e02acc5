"""Walking, sorting, removing: by identity and in linear time."""

from __future__ import annotations

import time

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import parser

from onnxq.ir import walk
from onnxq.ir.load import from_proto
from onnxq.ir.save import to_bytes

NESTED = """<ir_version: 8, opset_import: ["": 17]> g (float[4] x, bool c) => (float[4] y)
    <float[4] w = {1, 2, 3, 4}> {
    t = Abs(x)
    y = If (c) <
        then_branch = a () => (float[4] p) {
            u = Neg(t)
            p = If (c) <then_branch = aa () => (float[4] q) { q = Add(u, t) },
                        else_branch = ab () => (float[4] r) { r = Add(u, w) }>
        },
        else_branch = b () => (float[4] s) { s = Sub(t, w) }>
}"""


@pytest.fixture
def nested() -> gs.Graph:
    return from_proto(parser.parse_model(NESTED)).graph


def chain(n: int) -> gs.Graph:
    tensors = [gs.Variable(f"t{i}", np.float32, (1,)) for i in range(n + 1)]
    nodes = [gs.Node("Relu", inputs=[tensors[i]], outputs=[tensors[i + 1]]) for i in range(n)]
    return gs.Graph(nodes, [tensors[0]], [tensors[-1]])


def test_graphs_outermost_first(nested):
    assert [path for path, _ in walk.graphs(nested)] == [
        (),
        ("If#1/then_branch",),
        ("If#1/then_branch", "If#1/then_branch"),
        ("If#1/then_branch", "If#1/else_branch"),
        ("If#1/else_branch",),
    ]
    nested.nodes[1].name = "branch"
    assert [path for path, _ in walk.graphs(nested)][1] == ("branch/then_branch",)


def test_consumers_see_inner_graphs(nested):
    uses = walk.consumers(nested)
    assert [(u.path, u.node.op, u.slot) for u in uses["t"]] == [
        (("If#1/then_branch",), "Neg", 0),
        (("If#1/then_branch", "If#1/then_branch"), "Add", 1),
        (("If#1/else_branch",), "Sub", 0),
    ]
    assert [u.node.op for u in uses["w"]] == ["Add", "Sub"]
    assert "y" not in uses


def test_producers(nested):
    made = walk.producers(nested)
    assert made["u"].path == ("If#1/then_branch",)
    assert made["t"].node is nested.nodes[0]
    assert "x" not in made
    assert "w" not in made


def test_outer_names(nested):
    inner = dict(walk.graphs(nested))
    assert walk.outer_names(nested) == set()
    assert walk.outer_names(inner[("If#1/then_branch",)]) == {"t", "c"}
    assert walk.outer_names(inner[("If#1/then_branch", "If#1/then_branch")]) == {"u", "t"}


class TestRemoveNodes:
    def test_cuts_connections(self):
        graph = chain(4)
        gone = graph.nodes[1]
        before, after = gone.inputs[0], gone.outputs[0]
        walk.remove_nodes(graph, {id(gone)})
        assert len(graph.nodes) == 3
        assert before.outputs == []
        assert after.inputs == []
        assert len(graph.nodes[1].inputs) == 1

    def test_takes_the_one_that_was_meant_among_equals(self):
        x, y = gs.Variable("x"), gs.Variable("y")
        twins = [gs.Node("Relu", inputs=[x], outputs=[y]) for _ in range(3)]
        graph = gs.Graph(twins, [x], [y])
        walk.remove_nodes(graph, {id(twins[1])})
        assert [id(n) for n in graph.nodes] == [id(twins[0]), id(twins[2])]
        assert [id(n) for n in x.outputs] == [id(twins[0]), id(twins[2])]

    def test_nothing(self):
        graph = chain(2)
        nodes = graph.nodes
        walk.remove_nodes(graph, set())
        assert graph.nodes is nodes

    def test_linear(self):
        graph = chain(20_000)
        start = time.process_time()
        walk.remove_nodes(graph, {id(n) for n in graph.nodes[::2]})
        assert time.process_time() - start < 5  # graphsurgeon's list.remove takes minutes
        assert len(graph.nodes) == 10_000


class TestSetInput:
    def test_other_consumers_stay(self):
        x, y = gs.Variable("x"), gs.Variable("y")
        nodes = [gs.Node("Add", inputs=[x, x], outputs=[gs.Variable(f"o{i}")]) for i in range(2)]
        walk.set_input(nodes[1], 1, y)
        assert [t.name for t in nodes[1].inputs] == ["x", "y"]
        assert [id(n) for n in x.outputs] == [id(nodes[0]), id(nodes[0]), id(nodes[1])]
        assert y.outputs[0] is nodes[1]


class TestToposort:
    def test_sorted_stays(self):
        graph = chain(5)
        nodes = list(graph.nodes)
        assert walk.toposort(graph)
        assert [id(n) for n in graph.nodes] == [id(n) for n in nodes]

    def test_long_chain_reversed(self):
        graph = chain(20_000)
        wanted = [id(n) for n in graph.nodes]
        graph.nodes.reverse()
        assert not walk.toposort(graph)
        assert [id(n) for n in graph.nodes] == wanted

    def test_a_body_needs_its_captures_first(self, nested):
        nested.nodes.reverse()
        assert not walk.toposort(nested)
        assert [n.op for n in nested.nodes] == ["Abs", "If"]

    def test_inner_graphs_too(self, nested):
        inner = nested.nodes[1].attrs["then_branch"]
        inner.nodes.reverse()
        assert not walk.toposort(nested)
        assert [n.op for n in inner.nodes] == ["Neg", "If"]

    def test_cycle_ends(self):
        a, b = gs.Variable("a"), gs.Variable("b")
        graph = gs.Graph([gs.Node("Relu", inputs=[a], outputs=[b]), gs.Node("Neg", inputs=[b], outputs=[a])])
        assert not walk.toposort(graph)
        assert len(graph.nodes) == 2

    @given(st.integers(1, 30), st.randoms(use_true_random=False))
    def test_any_order(self, n, random):
        tensors = [gs.Variable("t0")]
        nodes = []
        for i in range(n):
            out = gs.Variable(f"t{i + 1}")
            nodes.append(gs.Node("Add", inputs=random.choices(tensors, k=2), outputs=[out]))
            tensors.append(out)
        random.shuffle(nodes)
        graph = gs.Graph(nodes, [tensors[0]], [tensors[-1]])
        walk.toposort(graph)
        seen = {"t0"}
        for node in graph.nodes:
            assert {t.name for t in node.inputs} <= seen
            seen.update(t.name for t in node.outputs)
        assert len(graph.nodes) == n


class TestCopy:
    def test_is_equal_and_independent(self):
        model = from_proto(parser.parse_model(NESTED))
        model.graph.nodes[0].doc_string = "doc"
        model.graph.nodes[0].metadata_props = {"a": "b"}
        model.meta.metadata["k"] = "v"
        before = to_bytes(model)
        twin = model.copy()
        assert to_bytes(twin) == before
        arrays = [t.values for m in (model, twin) for t in _constants(m.graph)]
        assert arrays[0] is arrays[-1]
        twin.graph.nodes[0].op = "Neg"
        inner = twin.graph.nodes[1].attrs["else_branch"]
        walk.set_input(inner.nodes[0], 0, twin.graph.inputs[0])
        twin.meta.metadata.clear()
        assert to_bytes(model) == before
        assert to_bytes(twin) != before

    def test_captures_point_into_the_copy(self, nested):
        twin = walk.copy(nested)
        inner = twin.nodes[1].attrs["else_branch"].nodes[0]
        assert inner.inputs[0] is twin.nodes[0].outputs[0]
        assert inner.inputs[0] is not nested.nodes[0].outputs[0]

    def test_a_sequence_keeps_its_type(self):
        source = """<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (seq(float[2]) s) {
            s = SequenceConstruct(x, x) }"""
        model = from_proto(parser.parse_model(source))
        assert to_bytes(model.copy()) == to_bytes(model)


def _constants(graph: gs.Graph) -> list[gs.Constant]:
    return [t for _, g in walk.graphs(graph) for n in g.nodes for t in n.inputs if isinstance(t, gs.Constant)]


def test_unique_name(nested):
    assert walk.unique_name(nested, "q") == "q_1"  # deep inside
    assert walk.unique_name(nested, "new") == "new"
    names = {"a"}
    assert [walk.unique_name(names, "a") for _ in range(2)] == ["a_1", "a_2"]


def test_constant_array(nested):
    node = next(n for _, g in walk.graphs(nested) for n in g.nodes if n.op == "Sub")
    array = walk.constant_array(node.inputs[1])
    assert array is not None
    assert array.tolist() == [1, 2, 3, 4]
    assert walk.constant_array(node.inputs[0]) is None


@pytest.mark.parametrize(
    ("op", "pairs"),
    [
        (
            "y = If (c) <then_branch = t () => (float[4] p) { p = Abs(x) }, "
            "else_branch = e () => (float[4] q) { q = Neg(x) }>",
            {("p", "y"), ("q", "y")},
        ),
        (
            "y, z = Loop (n, c, x) <body = b (int64 i, bool m, float[4] s) => (bool m2, float[4] s2, float[4] u) "
            "{ m2 = Identity(m) s2 = Neg(s) u = Abs(s) }>",
            {("x", "s"), ("s2", "s"), ("u", "z"), ("s2", "y")},
        ),
        (
            "y, z = Scan <num_scan_inputs = 1, body = b (float[4] s, float v) => (float[4] s2, float u) "
            "{ s2 = Add(s, v) u = Neg(v) }> (x, x)",
            {("x", "s"), ("x", "v"), ("s2", "s"), ("s2", "y"), ("u", "z")},
        ),
        ("y = Abs(x)", set()),
    ],
)
def test_what_is_passed_into_bodies_and_out_of_them(op: str, pairs: set[tuple[str, str]]) -> None:
    head = '<ir_version: 8, opset_import: ["": 17]> g (float[4] x, bool c, int64 n) => (float[4] y)'
    (node,) = from_proto(parser.parse_model(f"{head} {{ {op} }}")).graph.nodes
    assert {(source.name, target.name) for source, target in walk.passed(node)} == pairs
