"""`--verify-each` finds what a pass broke, and leaves sound passes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from onnxq.errors import PassError
from onnxq.ir import walk
from onnxq.ir.text import parse
from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq.pipeline.manager import Pipeline, Step, run_pipeline
from onnxq.pipeline.verify import Verify, difference, violations
from onnxq.plan.integers import Violation
from onnxq.targets.target import load_target

FLOAT = """<ir_version: 8, opset_import: ["": 17]> g (float[1,4] x) => (float[1,4] y)
    <float[4] b = {1, 2, 3, 4}> { [add] a = Add(x, b) [relu] y = Relu(a) }"""
QDQ = """<ir_version: 8, opset_import: ["": 17]> g (float[1,4] x) => (float[1,4] y)
    <float s = {0.1}, uint8 z = {128}> {
    [q] i = QuantizeLinear(x, s, z) [dq] d = DequantizeLinear(i, s, z) [relu] y = Relu(d) }"""
MOVED = """<ir_version: 8, opset_import: ["": 17]> g (float[1,4] x) => (float[4,1] y)
    <float s = {0.1}, uint8 z = {128}> { [q] i = QuantizeLinear(x, s, z)
    [t] j = Transpose<perm = [1, 0]>(i) [dq] y = DequantizeLinear(j, s, z) }"""

FUSED = """<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]> g (float[1,4] x) => (float[1,4] y)
    <float s = {0.1}, float t = {0.2}, uint8 z = {128}> { [q] i = QuantizeLinear(x, s, z)
    [add] a = com.microsoft.QLinearAdd(i, s, z, i, s, z, t, z) [dq] y = DequantizeLinear(a, t, z) }"""

Edit = Callable[[gs.Graph], None]


@dataclass(frozen=True, kw_only=True)
class Edits(Pass):
    """Does what it is told."""

    edit: Edit

    def run(self, graph: gs.Graph, context: Context) -> Report:
        self.edit(graph)
        return Report(rewrites=1)


@dataclass(frozen=True, kw_only=True)
class EditsQdq(Edits):
    """The same on Q/DQ."""

    takes: ClassVar[Stage] = Stage.QDQ
    gives: ClassVar[Stage] = Stage.QDQ


@dataclass(frozen=True, kw_only=True)
class Fuses(Edits):
    """Makes integer operators, inexactly."""

    exact: ClassVar[bool] = False
    takes: ClassVar[Stage] = Stage.FUSED
    gives: ClassVar[Stage] = Stage.FUSED


@dataclass(frozen=True, kw_only=True)
class Inexact(EditsQdq):
    """Says that it changes numbers."""

    exact: ClassVar[bool] = False


def run(source: str, body: Pass) -> None:
    model = parse(source)
    sample = {"x": np.array([[-1.0, 0.5, 2.0, -5.0]], np.float32)}
    context = Context(target=load_target("cpu", reduce_range=False))
    run_pipeline(model.graph, Pipeline("p", (Step("p", body),)), context, [Verify(model, [sample])])


def constant(graph: gs.Graph, name: str) -> gs.Constant:
    return next(t for n in graph.nodes for t in n.inputs if t.name == name)


def scale(factor: float, name: str) -> Edit:
    def edit(graph: gs.Graph) -> None:
        found = constant(graph, name)
        found.values = (found.values * np.float32(factor)).astype(found.values.dtype)

    return edit


def dangle(graph: gs.Graph) -> None:
    walk.set_input(graph.nodes[1], 0, gs.Variable("nowhere", np.float32, (1, 4)))


def same_name(graph: gs.Graph) -> None:
    graph.nodes[1].name = graph.nodes[0].name


def make_twice(graph: gs.Graph) -> None:
    extra = gs.Variable("a", np.float32, (1, 4))
    graph.nodes.append(gs.Node("Relu", "again", {}, [graph.inputs[0]], [extra]))


def two_constants(graph: gs.Graph) -> None:
    walk.set_input(graph.nodes[1], 0, gs.Constant("b", np.ones((1, 4), np.float32)))


def insert_q(graph: gs.Graph) -> None:
    integers = gs.Variable("i", np.uint8, (1, 4))
    parameters = [gs.Constant("s", np.array(1, np.float32)), gs.Constant("z", np.array(0, np.uint8))]
    graph.nodes.append(gs.Node("QuantizeLinear", "q", {}, [graph.inputs[0], *parameters], [integers]))


def unknown_op(graph: gs.Graph) -> None:
    graph.nodes[1].op = "Rleu"


def to_abs(graph: gs.Graph) -> None:
    graph.nodes[-1].op = "Abs"


def rename(node: int) -> Edit:
    def edit(graph: gs.Graph) -> None:
        graph.nodes[node].name = "another"

    return edit


def said(found: Iterable[Violation]) -> list[str]:
    return [violation.sentence for violation in found]


def without_zero(graph: gs.Graph) -> None:
    list.pop(graph.nodes[0].inputs)


def bypass(graph: gs.Graph) -> None:
    integers = graph.nodes[0].outputs[0]
    graph.nodes.append(gs.Node("Abs", "abs", {}, [integers], [gs.Variable("f", np.uint8, (1, 4))]))


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (scale(1.1, "b"), r"it changes the numbers: output y moves by 0\.3 \(largest value 5\), on sample 0"),
        (to_abs, "it changes the numbers: output y moves by"),
        (dangle, "behind it, nothing makes the tensor nowhere, an input of Relu relu"),
        (same_name, "behind it, the node name add stands twice"),
        (make_twice, "behind it, the tensor a is made twice"),
        (two_constants, "behind it, the name b stands for two tensors"),
        (insert_q, "behind it, QuantizeLinear q stands in a float graph"),
        (unknown_op, "onnx.checker refuses the result"),
    ],
)
def test_what_a_float_pass_may_break(edit: Edit, what: str) -> None:
    with pytest.raises(PassError, match=what):
        run(FLOAT, Edits(edit=edit))


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (scale(1.0001, "s"), "2 of 4 elements of output y are not the same bit for bit"),
        (without_zero, "behind it, QuantizeLinear q has no zero point"),
        (bypass, "behind it, Abs abs reads the integers that QuantizeLinear q makes"),
    ],
)
def test_what_a_qdq_pass_may_break(edit: Edit, what: str) -> None:
    with pytest.raises(PassError, match=what):
        run(QDQ, EditsQdq(edit=edit))


def swap(slot: int, node: int, other: int) -> Edit:
    """Input `slot` of a node becomes another of its inputs."""

    def edit(graph: gs.Graph) -> None:
        walk.set_input(graph.nodes[node], slot, graph.nodes[node].inputs[other])

    return edit


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (swap(1, 1, 6), "behind it, QLinearAdd add reads the integers that QuantizeLinear q makes in another encoding"),
        (swap(6, 1, 1), "DequantizeLinear dq reads the integers that QLinearAdd add makes in another encoding"),
        (to_abs, "behind it, Abs dq reads the integers that QLinearAdd add makes"),
        (scale(-1.0, "t"), "the scale of a is no finite float32 above 0"),
    ],
)
def test_what_a_fusion_may_break(edit: Edit, what: str) -> None:
    """None of it is an error for onnx.checker, and an inexact pass may change numbers."""
    with pytest.raises(PassError, match=what):
        run(FUSED, Fuses(edit=edit))


def test_sound_passes_go_through() -> None:
    run(FUSED, Fuses(edit=rename(1)))
    run(FUSED, Fuses(edit=scale(1.5, "t")))
    run(FLOAT, Edits(edit=rename(-1)))
    run(FLOAT, Edits(edit=scale(1.00001, "b")))
    run(QDQ, EditsQdq(edit=rename(-1)))
    run(QDQ, Inexact(edit=scale(1.0001, "s")))


def test_what_was_wrong_before_is_no_fault_of_the_pass() -> None:
    for node in (0, -1):
        run(MOVED, EditsQdq(edit=rename(node)))
    with pytest.raises(PassError, match="Abs abs reads the integers"):
        run(MOVED, EditsQdq(edit=bypass))


@pytest.mark.parametrize(
    ("source", "sentences"),
    [
        ("[dq] y = DequantizeLinear(w, s, z)", []),
        ("[dq] y = DequantizeLinear(w, s, t)", ["DequantizeLinear dq has a zero point of another type than its input"]),
        ("[dq] y = DequantizeLinear(w, s)", ["DequantizeLinear dq has no zero point"]),
        (
            "[id] r = Identity(s) [dq] y = DequantizeLinear(w, r, z)",
            ["DequantizeLinear dq has a scale or zero point that is computed at run time"],
        ),
    ],
)
def test_parameters(source: str, sentences: list[str]) -> None:
    text = f"""<ir_version: 8, opset_import: ["": 17]> g () => (float[2] y)
        <float s = {{0.1}}, uint8 z = {{128}}, int8 t = {{0}}, uint8[2] w = {{1, 2}}> {{ {source} }}"""
    assert said(violations(parse(text).graph, Stage.QDQ)) == sentences


@pytest.mark.parametrize("stage", [Stage.QDQ, Stage.PLACED])
def test_between_q_and_dq_integers_may_move(stage: Stage) -> None:
    assert said(violations(parse(MOVED).graph, stage)) == []
    absolute = parse(MOVED.replace("Transpose<perm = [1, 0]>", "Abs").replace("[4,1] y", "[1,4] y")).graph
    assert said(violations(absolute, stage)) == ["Abs t reads the integers that QuantizeLinear q makes"]


def test_names_in_bodies_are_seen() -> None:
    source = """<ir_version: 8, opset_import: ["": 17]> g (bool c, float[2] x) => (float[2] y) {
        [if] y = If(c) <then_branch = t () => (float[2] p) { [a] p = Relu(x) },
                        else_branch = e () => (float[2] q) { [b] q = Neg(x) }> }"""
    graph = parse(source).graph
    assert said(violations(graph, Stage.FLOAT)) == []
    inner = graph.nodes[0].attrs["then_branch"]
    walk.set_input(inner.nodes[0], 0, gs.Variable("gone", np.float32, (2,)))
    assert said(violations(graph, Stage.FLOAT)) == ["nothing makes the tensor gone, an input of Relu a"]


@pytest.mark.parametrize(
    ("old", "new", "bitwise", "what"),
    [
        ([1.0, np.nan], [1.0, np.nan], True, ""),
        ([0.0], [-0.0], True, "1 of 1 elements"),
        ([0.0], [-0.0], False, ""),
        ([1.0, np.inf], [1.0, 2.0], False, "NaN or infinities at other places"),
        ([np.inf], [np.inf], False, ""),
        ([1.0], [1.0009], False, ""),
        ([1.0], [1.002], False, "moves by 0.002"),
        ([1.0], [1.0, 2.0], False, "of another type or shape"),
    ],
)
def test_differences(old: list[float], new: list[float], bitwise: bool, what: str) -> None:
    found = difference({"y": np.array(old, np.float32)}, {"y": np.array(new, np.float32)}, bitwise=bitwise)
    assert what in found and bool(found) == bool(what)


def test_differences_of_other_types() -> None:
    assert difference({"y": np.array([1, 2])}, {"y": np.array([1, 3])}, bitwise=False).startswith("1 of 2 elements")
    assert difference({"y": [np.array([1])]}, {"y": [np.array([2])]}, bitwise=False) == "output y is another"
    half = {"y": np.array([1.0], np.float16)}
    assert difference(half, {"y": np.array([1.01], np.float16)}, bitwise=False, coarse=30.0) == ""
