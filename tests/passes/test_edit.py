"""Edits of a graph: what is asked before `commit` is answered for the graph as it will be, and `commit` makes it so."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from rewriting import model

from onnxq.ir import text
from onnxq.pipeline.base import Report
from onnxq_passes._edit import Editor

CHAIN = "(float[2] x) => (float[2] y) { [first] a = Relu(x) [second] b = Neg(a) [third] y = Abs(b) }"
FORK = "(float[2] x) => (float[2] y, float[2] z) { [top] a = Relu(x) [twice] y = Add(a, a) [once] z = Neg(a) }"
BRANCHES = (
    "(bool c, float[2] x) => (float[2] y) { [top] a = Relu(x) [if] y = If(c) "
    "<then_branch = then () => (float[2] t) { [then] t = Neg(a) }, "
    "else_branch = otherwise () => (float[2] e) { [else] e = Abs(a) }> }"
)


class Graph:
    """An editor, and the nodes and tensors of its graph by name."""

    def __init__(self, graph: str) -> None:
        self.editor = Editor(text.parse(model(graph)).graph)
        self.nodes = {n.name: n for n in self.editor.live()}
        self.tensors = {t.name: t for n in self.nodes.values() for t in [*n.inputs, *n.outputs]}

    def uses(self, tensor: str) -> list[tuple[str, int]]:
        return [(n.name, slot) for n, slot in self.editor.uses(self.tensors[tensor])]

    def maker(self, tensor: str) -> str | None:
        node = self.editor.producer(self.tensors[tensor])
        return None if node is None else node.name

    def committed(self) -> list[str]:
        """Commit; every tensor must know who makes and reads it. Names of the nodes of the main graph, in order."""
        self.editor.commit()
        nodes = list(self.editor.live())
        tensors = {id(t): t for n in nodes for t in [*n.inputs, *n.outputs]}
        for tensor in [*tensors.values(), *self.tensors.values()]:
            makers = [n.name for n in nodes for t in n.outputs if t is tensor]
            readers = sorted(n.name for n in nodes for t in n.inputs if t is tensor)
            assert [n.name for n in tensor.inputs] == makers, tensor.name
            assert sorted(n.name for n in tensor.outputs) == readers, tensor.name
        return [n.name for n in self.editor.main.nodes]


# Questions


def test_live_nodes_by_body_and_operator() -> None:
    g = Graph(BRANCHES)
    _, then, _ = g.editor.bodies
    assert [n.name for n in g.editor.live()] == ["top", "if", "then", "else"]
    assert [n.name for n in g.editor.live(then)] == ["then"]
    assert [n.name for n in g.editor.live(ops=["Abs", "Relu"])] == ["top", "else"]
    assert [n.name for n in g.editor.live(then, ["Abs", "Relu"])] == []
    g.editor.remove(g.nodes["top"])
    assert [n.name for n in g.editor.live()] == ["if", "then", "else"]
    assert (g.editor.alive(g.nodes["top"]), g.editor.alive(g.nodes["if"])) == (False, True)


def test_live_operators_are_those_of_the_standard() -> None:
    g = Graph("(float[2] x) => (float[2] y) { [a] a = com.microsoft.Relu(x) [b] b = ai.onnx.Relu(a) [c] y = Relu(b) }")
    assert [n.name for n in g.editor.live(ops=["Relu"])] == ["b", "c"]


def test_a_new_node_is_not_live_before_commit() -> None:
    g = Graph(CHAIN)
    g.editor.insert(g.editor.node("Neg", [g.tensors["x"]], [gs.Variable("n")], name="new"), before=g.nodes["first"])
    assert [n.name for n in g.editor.live()] == ["first", "second", "third"]
    assert g.committed() == ["new", "first", "second", "third"]


def test_the_body_of_a_node() -> None:
    g = Graph(BRANCHES)
    assert [g.editor.bodies.index(g.editor.body(g.nodes[n])) for n in ("top", "if", "then", "else")] == [0, 0, 1, 2]
    g.editor.insert(new := g.editor.node("Neg", [g.tensors["a"]], [gs.Variable("n")], name="n"), after=g.nodes["else"])
    assert g.editor.body(new) is g.editor.bodies[2]


def test_producers() -> None:
    g = Graph(
        "(float[2] x) => (float[2] y) <float[2] k = {1, 2}> { [f] a, b = Split<num_outputs = 2>(x) [s] y = Add(b, k) }"
    )
    assert [g.maker(t) for t in ("x", "k", "a", "b", "y")] == [None, None, "f", "f", "s"]
    g.editor.remove(g.nodes["f"])
    assert g.maker("b") is None


def test_a_tensor_has_another_producer_before_commit() -> None:
    g = Graph(CHAIN)
    g.editor.remove(g.nodes["second"])
    g.editor.set_output(g.nodes["first"], 0, g.tensors["b"])
    assert (g.maker("a"), g.maker("b")) == (None, "first")
    assert g.committed() == ["first", "third"]


def test_uses_tell_node_and_slot_in_every_body() -> None:
    assert Graph(FORK).uses("a") == [("twice", 0), ("twice", 1), ("once", 0)]
    g = Graph(BRANCHES)
    assert g.uses("a") == [("then", 0), ("else", 0)]
    assert g.uses("y") == []


@pytest.mark.parametrize("asked", [True, False])
def test_uses_follow_each_edit(asked: bool) -> None:
    """Whether the readers were looked up before the edit or not."""
    g = Graph(FORK)
    if asked:
        assert len(g.uses("a")) == 3 and g.uses("x") == [("top", 0)]
    g.editor.set_input(g.nodes["twice"], 1, g.tensors["x"])
    assert sorted(g.uses("a")) == [("once", 0), ("twice", 0)]
    assert g.uses("x") == [("top", 0), ("twice", 1)]
    g.editor.remove(g.nodes["once"])
    assert g.uses("a") == [("twice", 0)]
    g.editor.node("Neg", [g.tensors["a"]], [gs.Variable("n")], name="new")
    assert g.uses("a") == [("twice", 0), ("new", 0)]
    g.editor.set_inputs(g.nodes["twice"], [g.tensors["x"], g.tensors["x"]])
    assert g.uses("a") == [("new", 0)]
    assert g.uses("x") == [("top", 0), ("twice", 0), ("twice", 1)]


def test_outputs_of_the_graph_and_of_bodies() -> None:
    g = Graph(BRANCHES)
    assert [t for t in g.tensors if g.editor.is_output(g.tensors[t])] == ["y", "t", "e"]


def test_the_only_use() -> None:
    g = Graph(
        "(float[2] x) => (float[2] a, float[2] y) { [f] a = Relu(x) [g] b = Neg(a) [h] y = Add(b, x) [i] d = Abs(y) }"
    )
    assert [g.editor.only_use(g.tensors[t]) for t in ("a", "x", "d")] == [None, None, None]  # output, two uses, none
    assert g.editor.only_use(g.tensors["b"]) == (g.nodes["h"], 0)
    assert Graph(FORK).editor.only_use(Graph(FORK).tensors["a"]) is None


def test_what_is_private_to_nodes() -> None:
    g = Graph(FORK)
    twice, once = g.nodes["twice"], g.nodes["once"]
    a, y = g.tensors["a"], g.tensors["y"]
    assert [g.editor.private(a, nodes) for nodes in ([twice, once], [once], [twice], [])] == [True, False, False, False]
    assert not g.editor.private(y, [twice, once])  # an output
    assert g.editor.private(gs.Variable("nobody reads it"), [])


# Edits


def test_remove_takes_the_bodies_too() -> None:
    g = Graph(BRANCHES)
    top, gone, inside = g.nodes["top"], g.nodes["if"], g.nodes["then"]
    assert g.uses("a") == [("then", 0), ("else", 0)]
    g.editor.remove(gone)
    assert (g.editor.alive(inside), g.uses("a")) == (False, [])
    g.editor.commit()
    assert g.editor.main.nodes == [top]
    assert [len(list(t)) for n in (gone, inside) for t in (n.inputs, n.outputs)] == [0, 0, 0, 0]
    assert (g.tensors["a"].outputs, g.tensors["c"].outputs, g.tensors["y"].inputs) == ([], [], [])


def test_what_is_no_longer_read_or_made_forgets_it() -> None:
    g = Graph(CHAIN)
    g.editor.set_inputs(g.nodes["third"], [g.tensors["x"]])
    g.editor.set_output(g.nodes["second"], 0, gs.Variable("new"))
    assert g.committed() == ["first", "second", "third"]
    assert (g.tensors["b"].inputs, g.tensors["b"].outputs) == ([], [])


@pytest.mark.parametrize("slot", [0, 1])
def test_one_input_is_set(slot: int) -> None:
    g = Graph("(float[2] x, float[2] k) => (float[2] y) { [f] a = Sum(x, x, x) [g] y = Add(a, k) }")
    g.editor.set_input(g.nodes["f"], slot, g.tensors["k"])
    assert [t.name for t in g.nodes["f"].inputs] == ["x"] * slot + ["k"] + ["x"] * (2 - slot)
    assert g.committed() == ["f", "g"]


def test_uses_are_replaced_but_not_outputs() -> None:
    g = Graph("(float[2] x) => (float[2] a, float[2] y) { [f] a = Relu(x) [g] b = Neg(x) [h] y = Sum(a, b, a) }")
    g.editor.replace_uses(g.tensors["a"], g.tensors["b"])
    assert g.uses("a") == []
    assert g.uses("b") == [("h", 0), ("h", 1), ("h", 2)]
    assert g.committed() == ["f", "g", "h"]
    assert [t.name for t in g.editor.main.outputs] == ["a", "y"]


def test_bypass_inside_a_graph() -> None:
    g = Graph(
        "(float[2] x) => (float[2] y, float[2] z) { [f] a = Relu(x) [g] b = Identity(a) [h] y = Neg(b) [i] z = Abs(b) }"
    )
    assert g.editor.bypass(g.nodes["g"]) is None
    assert g.uses("a") == [("h", 0), ("i", 0)]
    assert g.committed() == ["f", "h", "i"]


def test_bypass_of_the_last_node_keeps_the_name_of_the_output() -> None:
    graph = "(float[2] x) => (float[2] y, float[2] z) { [f] u, a = Split<num_outputs = 2>(x) [g] y = Sum(u, a) [h] z = Neg(a) }"
    g = Graph(graph)
    assert g.editor.bypass(g.nodes["g"], 1) is None
    assert [t.name for t in g.nodes["f"].outputs] == ["u", "y"]
    assert (g.maker("y"), g.uses("y"), g.uses("u")) == ("f", [("h", 0)], [])
    assert g.committed() == ["f", "h"]


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        ("(float[2] x) => (float[2] y) { [g] y = Identity(x) }", "an input or a constant to an output"),
        (
            "(bool c) => (float[2] y) <float[2] k = {1, 2}> { [g] y = Identity(k) }",
            "an input or a constant to an output",
        ),
        ("(float[2] x) => (float[2] a, float[2] y) { [f] a = Relu(x) [g] y = Identity(a) }", "two outputs"),
        (
            "(bool c, float[2] x) => (float[2] y) { [f] a = Relu(x) [if] y = If(c) "
            "<then_branch = then () => (float[2] t) { [g] t = Identity(a) }, "
            "else_branch = otherwise () => (float[2] e) { [e] e = Abs(a) }> }",
            "an input or a constant to an output",
        ),
    ],
)
def test_bypass_that_would_lose_a_name(graph: str, reason: str) -> None:
    g = Graph(graph)
    names = [n.name for n in g.editor.main.nodes]
    assert reason in str(g.editor.bypass(g.nodes["g"]))
    assert g.committed() == names


def test_places_of_new_nodes() -> None:
    g = Graph(CHAIN)

    def new(name: str) -> gs.Node:
        return g.editor.node("Neg", [g.tensors["x"]], [gs.Variable(name)], name=name)

    for name in ("b1", "b2"):
        g.editor.insert(new(name), before=g.nodes["second"])
    for name in ("a1", "a2"):
        g.editor.insert(new(name), after=g.nodes["second"])
    for name in ("t1", "t2"):
        g.editor.insert(new(name), top=g.editor.main)
    assert g.committed() == ["t1", "t2", "first", "b1", "b2", "second", "a1", "a2", "third"]


def test_places_in_bodies() -> None:
    g = Graph(BRANCHES)
    then = g.editor.bodies[1]
    new = [g.editor.node("Neg", [g.tensors["a"]], [gs.Variable(n)], name=n) for n in ("n", "m", "o")]
    g.editor.insert(new[0], before=g.nodes["then"])
    g.editor.insert(new[1], top=then)
    g.editor.insert(new[2], after=g.nodes["then"])
    assert [g.editor.body(n) is then for n in new] == [True, True, True]
    assert g.committed() == ["top", "if"]
    assert [n.name for n in then.nodes] == ["m", "n", "then", "o"]


def test_new_nodes_stand_where_a_removed_one_stood() -> None:
    g = Graph(CHAIN)
    g.editor.remove(g.nodes["second"])
    new = g.editor.node("Abs", [g.tensors["a"]], [g.tensors["b"]], name="new", attrs={"k": 1}, domain="com.microsoft")
    g.editor.insert(new, before=g.nodes["second"])
    assert (new.op, new.attrs, new.domain) == ("Abs", {"k": 1}, "com.microsoft")
    assert (g.maker("b"), g.uses("a")) == ("new", [("new", 0)])
    assert g.committed() == ["first", "new", "third"]


def test_a_node_does_not_share_its_attributes() -> None:
    g = Graph(CHAIN)
    attrs = {"k": 1}
    new = g.editor.node("Abs", [], [], name="new", attrs=attrs)
    attrs["k"] = 2
    assert (new.attrs, new.domain) == ({"k": 1}, None)
    assert g.editor.node("Abs", [], [], name="other").attrs == {}


def test_fuse() -> None:
    g = Graph(CHAIN)
    report = Report()
    matched = [g.nodes["second"], g.nodes["third"]]
    new = g.editor.fuse(matched[1], matched, "Op", [g.tensors["a"]], report, attrs={"k": 1}, domain="com.microsoft")
    assert (new.op, new.name, new.attrs, new.domain) == ("Op", "third_Op", {"k": 1}, "com.microsoft")
    assert (report.renamed, report.rewrites) == ({"third_Op": "third"}, 1)
    assert (g.maker("y"), g.uses("a")) == ("third_Op", [("third_Op", 0)])
    assert g.committed() == ["first", "third_Op"]
    g.editor.fuse(new, [new], "Op", [g.tensors["a"]], report)
    assert (report.renamed, report.rewrites) == ({"third_Op": "third", "third_Op_Op": "third_Op"}, 2)
    assert g.committed() == ["first", "third_Op_Op"]


def test_a_second_round_of_edits() -> None:
    """After commit nothing of the first round is left over."""
    g = Graph(CHAIN)
    g.editor.insert(g.editor.node("Neg", [g.tensors["x"]], [gs.Variable("n")], name="n"), before=g.nodes["first"])
    g.editor.insert(g.editor.node("Neg", [g.tensors["x"]], [gs.Variable("m")], name="m"), after=g.nodes["first"])
    g.editor.insert(g.editor.node("Neg", [g.tensors["x"]], [gs.Variable("o")], name="o"), top=g.editor.main)
    g.editor.bypass(g.nodes["second"])
    assert g.committed() == ["o", "n", "first", "m", "third"]
    assert g.committed() == ["o", "n", "first", "m", "third"]
    assert (g.uses("a"), g.uses("x")) == ([("third", 0)], [("first", 0), ("n", 0), ("m", 0), ("o", 0)])
    g.editor.bypass(g.nodes["third"])
    assert g.committed() == ["o", "n", "first", "m"]


def test_only_touched_tensors_are_rebuilt() -> None:
    g = Graph(CHAIN)
    list.append(g.tensors["b"].outputs, g.nodes["first"])  # a wrong entry that nobody asked to mend
    g.editor.set_input(g.nodes["second"], 0, g.tensors["x"])
    g.editor.commit()
    assert [n.name for n in g.tensors["b"].outputs] == ["third", "first"]
    assert g.uses("b") == [("third", 0)]


# New tensors and names


def test_constants_are_contiguous_and_keep_their_rank() -> None:
    editor = Graph(CHAIN).editor
    turned = editor.constant("k", np.arange(6, dtype=np.float32).reshape(2, 3).T)
    assert turned.values.flags["C_CONTIGUOUS"] and turned.values.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert editor.constant("k", np.asarray(3.0)).values.shape == ()
    assert [editor.constant("k", np.zeros(1)).name, turned.name] == ["k_2", "k"]


def test_variables_are_like_another_one() -> None:
    g = Graph(CHAIN)
    made = g.editor.variable("a", g.tensors["x"])
    assert (made.name, made.dtype, made.shape) == ("a_1", np.float32, (2,))


def test_fresh_names() -> None:
    g = Graph(
        "(float[2] x, float[2] unused) => (float[2] y) <float[2] k = {1, 2}> { [f] a = Add(x, k) [g] y = Relu(a) }"
    )
    tensors = [g.editor.fresh_tensor(n) for n in ("x", "unused", "y", "k", "a", "a", "new", "new", "f", "")]
    assert tensors == ["x_1", "unused_1", "y_1", "k_1", "a_1", "a_2", "new", "new_1", "f", "_1"]
    nodes = [g.editor.fresh_node(n) for n in ("f", "g", "f", "f_1", "a", "", "")]
    assert nodes == ["f_1", "g_1", "f_2", "f_1_1", "a", "_2", "_3"]  # after the "_1" of the tensors


def test_names_in_bodies_are_taken() -> None:
    g = Graph(BRANCHES)
    assert [g.editor.fresh_tensor(n) for n in ("t", "e")] == ["t_1", "e_1"]
    assert [g.editor.fresh_node(n) for n in ("then", "if")] == ["then_1", "if_1"]


def test_names_of_inputs_of_bodies_are_taken() -> None:
    graph = (
        "(int64 n, bool c, float[2] x) => (float[2] y) { [loop] y = Loop(n, c, x) <body = b "
        "(int64 i, bool go, float[2] v) => (bool on, float[2] w) { [on] on = Identity(go) [w] w = Neg(x) }> }"
    )
    g = Graph(graph)
    assert [g.editor.fresh_tensor(n) for n in ("i", "v", "go", "w")] == ["i_1", "v_1", "go_1", "w_1"]
