"""insert-qdq writes what the plan says, and nothing else."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from quantized import quantize_text

from onnxq.encoding import Affine, PerTensor
from onnxq.errors import PassError
from onnxq.plan.plan import Plan, Use, Value
from onnxq.testing import check_pass, default_context
from onnxq_passes.insert_qdq import InsertQdq

U8 = Affine(type="uint8", granularity=PerTensor(), scale=np.array(0.5, np.float32), zero_point=np.array(3, np.uint8))


def _graph() -> gs.Graph:
    x, y = gs.Variable("x", np.float32, (2,)), gs.Variable("y", np.float32, (2,))
    return gs.Graph([gs.Node("Sin", "sin", {}, [x], [y])], [x], [y], opset=21)


def _run(plan: Plan | None, graph: gs.Graph) -> None:
    context = default_context()
    context.plan = plan
    InsertQdq().run(graph, context)


def test_contract() -> None:
    check_pass(InsertQdq)


def test_without_a_plan_it_says_what_to_do() -> None:
    with pytest.raises(PassError, match="needs a plan: calibrate first"):
        _run(None, _graph())


def test_a_plan_for_another_graph_is_refused() -> None:
    plan = Plan(values={Value((), "z"): U8}, uses={Use((), "cos", 0): U8}, decisions={})
    with pytest.raises(PassError, match="made for another graph"):
        _run(plan, _graph())


def test_case_1_one_use_is_rewired_and_the_interface_stays() -> None:
    graph = _graph()
    _run(Plan(values={Value((), "x"): U8}, uses={Use((), "sin", 0): U8}, decisions={}), graph)
    assert [n.op for n in graph.nodes] == ["QuantizeLinear", "DequantizeLinear", "Sin"]
    assert [t.name for t in (*graph.inputs, *graph.outputs)] == ["x", "y"]
    assert graph.nodes[2].inputs[0].name == "x_dequantized"


def test_case_3_an_output_is_written_by_a_dq_under_its_own_name() -> None:
    graph = _graph()
    _run(Plan(values={Value((), "y"): U8}, uses={Use((), "", 0): U8}, decisions={}), graph)
    assert [n.op for n in graph.nodes] == ["Sin", "QuantizeLinear", "DequantizeLinear"]
    assert graph.nodes[0].outputs[0].name == "y_float"
    assert graph.nodes[2].outputs[0] is graph.outputs[0]


def test_names_that_are_taken_already_are_left_alone() -> None:
    """onnxruntime #17760: name clashes give models that do not load."""
    text = """<ir_version: 10, opset_import: ["": 21]> g (float[1,4,8,8] x_quantized) => (float[1,4,8,8] y)
        <float[4,4,3,3] W = {0}, float[4,4,3,3] W_quantized = {0}> {
        x_quantized_quantized = Relu(x_quantized)
        [x_dequantized] a = Conv <pads=[1,1,1,1]> (x_quantized_quantized, W)
        y = Conv <pads=[1,1,1,1]> (a, W_quantized) }"""
    result = quantize_text(text)
    names = [i.name for i in onnx.load_from_string(result.file).graph.initializer]
    assert len(names) == len(set(names))
    assert result.kernels()["QLinearConv"] == 2


def test_case_4_equal_encodings_share_their_parameters() -> None:
    text = """<ir_version: 10, opset_import: ["": 21]> g (float[1,4,8,8] x) => (float[1,4,4,4] y)
        <float[4,4,3,3] W = {0}> {
        a = Conv <pads=[1,1,1,1]> (x, W) p = MaxPool <kernel_shape=[2,2], strides=[2,2]> (a)
        y = Conv <pads=[1,1,1,1]> (p, W) }"""
    graph = onnx.load_from_string(quantize_text(text).file).graph
    scales = {
        n.input[1]
        for n in graph.node
        if n.op_type == "QuantizeLinear" and n.output[0] in ("a_quantized", "p_quantized")
    }
    assert len(scales) == 1
    weights = [n for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] == "W_quantized"]
    assert len(weights) == 1
