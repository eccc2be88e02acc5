from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper
from rewriting import bitwise, keep, model, together

from onnxq.ir import load, text, walk
from onnxq.testing import check_pass, default_context
from onnxq_passes.constants_to_initializers import ConstantsToInitializers


def test_contract() -> None:
    check_pass(ConstantsToInitializers)


@pytest.mark.parametrize(
    ("attribute", "constant"),
    [
        ("value = float[2] {1.5, 2.5}", "float[2] c = {1.5, 2.5}"),
        ("value_float = 1.5", "float c = {1.5}"),
        ("value_floats = [1.5, 2.5]", "float[2] c = {1.5, 2.5}"),
    ],
)
def test_cases_1_and_2(attribute: str, constant: str) -> None:
    bitwise(
        ConstantsToInitializers(),
        f"(float[2] x) => (float[2] y) {{ [k] c = Constant<{attribute}>() y = Add(x, c) }}",
        f"(float[2] x) => (float[2] y) <{constant}> {{ y = Add(x, c) }}",
        rewrites=1,
    )


@pytest.mark.parametrize(
    ("attribute", "constant"),
    [("value_int = 3", "int64 c = {3}"), ("value_ints = [3, 4]", "int64[2] c = {3, 4}")],
)
def test_case_2_integers(attribute: str, constant: str) -> None:
    bitwise(
        ConstantsToInitializers(),
        f"(int64[2] x) => (int64[2] y) {{ c = Constant<{attribute}>() y = Add(x, c) }}",
        f"(int64[2] x) => (int64[2] y) <{constant}> {{ y = Add(x, c) }}",
        rewrites=1,
    )


def test_in_bodies() -> None:
    parsed = text.parse(
        model("""(bool c, float[2] x) => (float[2] y) { y = If(c) <
            then_branch = p () => (float[2] t) { k = Constant<value_float = 2.0>() t = Add(x, k) },
            else_branch = q () => (float[2] e) { e = Neg(x) }> }""")
    )
    assert ConstantsToInitializers().run(parsed.graph, default_context()).rewrites == 1
    assert [n.op for _, g in walk.graphs(parsed.graph) for n in g.nodes] == ["If", "Add", "Neg"]
    assert "const k = float32[] 2.0" in text.text(parsed.graph)


def test_case_3_sparse() -> None:
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("v", TensorProto.FLOAT, [1], [3.0]),
        helper.make_tensor("i", TensorProto.INT64, [1], [1]),
        [2],
    )
    inputs, outputs = ([helper.make_tensor_value_info(n, TensorProto.FLOAT, [2])] for n in "xy")
    nodes = [helper.make_node("Constant", [], ["c"], sparse_value=sparse), helper.make_node("Add", ["x", "c"], ["y"])]
    proto = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs), opset_imports=[helper.make_opsetid("", 21)]
    )
    proto.ir_version = 10
    graph = load.from_proto(proto).graph
    assert ConstantsToInitializers().run(graph, default_context()).rewrites == 1
    assert "const c = float32[2] {0.0, 3.0}" in text.text(graph)


def test_case_4_strings_stay() -> None:
    keep(
        ConstantsToInitializers(),
        '(string[1] x) => (string[1] y) { [k] c = Constant<value_string = "a">() y = StringConcat(x, c) }',
        "string constants stay nodes",
    )


def test_case_5_an_output_stays() -> None:
    keep(
        ConstantsToInitializers(), "() => (float[1] y) { y = Constant<value_floats = [1.0]>() }", "output of the graph"
    )


def test_many_sites() -> None:
    before = "(float[2] x) => (float[2] y) { [k] c = Constant<value_float = 1.5>() [a] y = Add(x, c) }"
    after = "(float[2] x) => (float[2] y) <float c = {1.5}> { [a] y = Add(x, c) }"
    strings = (
        '(string[1] x) => (string[1] y) { [k] c = Constant<value = string[1] {"a"}>() [s] y = StringConcat(x, c) }'
    )
    kept = [
        (strings, "string constants"),
        ("(float[2] x) => (float y) { [k] y = Constant<value_float = 1.5>() }", "output of the graph"),
    ]
    inputs = {f"{turn}_keep0_x": np.array(["t"], object) for turn in ("first", "second")}
    together(ConstantsToInitializers(), changed=[(before, after, 1)], kept=kept, inputs=inputs)
