"""What Q and DQ nodes say, read as values."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting import model

from onnxq.encoding import PerBlock, PerChannel, PerTensor
from onnxq.ir import text
from onnxq_passes._qdq import Parameters, is_dq, is_q, parameters


def read(node: str, constants: str = "", opset: int = 21) -> Parameters | None:
    graph = text.parse(
        model(f"(float[2,4] x, uint8[2,4] q, float s_in) => (y) <{constants}> {{ y = {node} }}", opset)
    ).graph
    return parameters(graph.nodes[0])


def test_per_tensor_per_channel_per_block() -> None:
    said = read("QuantizeLinear(x, s, z)", "float s = {0.5}, int8 z = {3}")
    assert said is not None and (said.dtype, said.axis, said.block_size) == ("int8", None, 0)
    assert said.encoding().granularity == PerTensor() and int(said.zero_point) == 3
    said = read("DequantizeLinear <axis = 0> (q, s)", "float[2] s = {0.5, 1}")
    assert said is not None and said.dtype == "uint8" and said.encoding().granularity == PerChannel(0)
    said = read("QuantizeLinear <axis = 1, block_size = 2> (x, s)", "float[2,2] s = {1, 2, 3, 4}")
    assert said is not None and said.encoding().granularity == PerBlock(1, 2)


def test_type_of_a_q_without_zero_point() -> None:
    for node, kind in (("QuantizeLinear(x, s)", "uint8"), ("QuantizeLinear <output_dtype = 5> (x, s)", "int16")):
        said = read(node, "float s = {0.5}")
        assert said is not None and said.dtype == kind and said.zero_point.dtype == np.dtype(kind)


def test_one_element_counts_as_per_tensor() -> None:
    assert read("QuantizeLinear(x, s)", "float[1] s = {0.5}") == read("QuantizeLinear(x, s)", "float s = {0.5}")
    assert read("QuantizeLinear(x, s)", "float s = {0.5}") != read("QuantizeLinear(x, s)", "float s = {0.25}")


@pytest.mark.parametrize(
    ("node", "constants"),
    [
        ("QuantizeLinear(x, s_in)", ""),
        ("QuantizeLinear(x, s)", "float s = {0}"),
        ("QuantizeLinear(x, s)", "float s = {-1}"),
        ("QuantizeLinear <output_dtype = 17> (x, s)", "float s = {1}"),
        ("Relu(x)", ""),
    ],
)
def test_what_cannot_be_read(node: str, constants: str) -> None:
    assert read(node, constants) is None


def test_round_trips_fail_where_products_overflow_or_vanish() -> None:
    for scale, wanted in (("0.0371", True), ("1e37", False), ("1e38", False), ("1e-45", True)):
        said = read("QuantizeLinear(x, s, z)", f"float s = {{{scale}}}, uint8 z = {{7}}")
        assert said is not None and said.round_trips is wanted, scale
    assert not Parameters(
        scale=np.asarray(1, np.float32), zero_point=np.asarray(0, np.int32), axis=None, block_size=0, dtype="int32"
    ).round_trips


def test_kinds() -> None:
    graph = text.parse(
        model("(float[2] x) => (y) <float s = {1}> { q = QuantizeLinear(x, s) y = DequantizeLinear(q, s) }")
    ).graph
    assert [is_q(n) for n in graph.nodes] == [True, False] and [is_dq(n) for n in graph.nodes] == [False, True]
    assert not is_q(None) and not is_dq(None)
