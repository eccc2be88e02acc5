"""What Q and DQ nodes say, read as values."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting import model

from onnxq.encoding import PerBlock, PerChannel, PerTensor
from onnxq.ir import text
from onnxq_passes._qdq import Parameters, attributes, is_dq, is_q, parameters


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


@pytest.mark.parametrize(
    ("node", "constants"),
    [
        ("Mul(q, s)", "float s = {1}"),
        ("QuantizeLinear(x)", ""),
        ("DequantizeLinear <output_dtype = 10> (q, s)", "float s = {1}"),
        ("QuantizeLinear <precision = 10> (x, s)", "float s = {1}"),
        ("QuantizeLinear(x, s, z)", "float s = {1}, float8e4m3fn z = {0}"),
        ("QuantizeLinear(x, s)", "float16 s = {1}"),
        ("QuantizeLinear(x, s)", "float[2] s = {1, inf}"),
        ("QuantizeLinear(x, s, q)", "float s = {1}"),
        ("QuantizeLinear <axis = 0> (x, s, z)", "float[2] s = {1, 2}, uint8 z = {0}"),
        ("DequantizeLinear(x, s)", "float s = {1}"),
    ],
)
def test_what_cannot_be_read_either(node: str, constants: str) -> None:
    """No Q, no scale, results of another precision, types that are no integers, numbers that are computed, odd shapes."""
    assert read(node, constants) is None


@pytest.mark.parametrize(
    "node",
    [
        "QuantizeLinear <precision = 0> (x, s)",
        "QuantizeLinear <precision = 1> (x, s)",
        "DequantizeLinear <output_dtype = 1> (q, s)",
    ],
)
def test_float32_by_name(node: str) -> None:
    said = read(node, "float s = {0.5}")
    assert said is not None and said.dtype == "uint8"


def test_type_of_a_dq_without_zero_point() -> None:
    """It is that of its input, from the file or from the Q in front of it."""
    head = "(float[2] x, {} q) => (y, w) <float s = {{1}}, int8 z = {{0}}> {{ a = {} y = DequantizeLinear(a, s) w = DequantizeLinear(q, s) }}"
    for kind, node, wanted in (
        ("int8[2]", "QuantizeLinear(x, s)", ("uint8", "int8")),
        ("int32[2]", "QuantizeLinear(x, s, z)", ("int8", "int32")),
        ("float8e4m3fn[2]", "Identity(x)", (None, None)),
    ):
        graph = text.parse(model(head.format(kind, node))).graph
        found = [parameters(n) for n in graph.nodes[1:]]
        assert tuple(None if f is None else f.dtype for f in found) == wanted


@pytest.mark.parametrize(
    ("scale", "zero", "kind", "wanted"),
    [
        ("1.342e36", 0, "uint8", False),  # 254 levels are too many for float32; 255 would saturate
        ("1.342e36", 1, "uint8", True),
        ("1.5e36", 127, "int8", False),
        ("1.5e36", 0, "int8", True),
    ],
)
def test_round_trips_look_at_the_first_and_the_last_level(scale: str, zero: int, kind: str, wanted: bool) -> None:
    said = read("QuantizeLinear(x, s, z)", f"float s = {{{scale}}}, {kind} z = {{{zero}}}")
    assert said is not None and said.round_trips is wanted


def test_every_scale_must_round_trip() -> None:
    said = read("QuantizeLinear <axis = 1> (x, s)", "float[4] s = {1, 1, 1, 1e38}")
    assert said is not None and not said.round_trips


@pytest.mark.parametrize(
    ("node", "constants", "wanted"),
    [
        ("QuantizeLinear(x, s)", "float s = {1}", {}),
        ("QuantizeLinear(x, s)", "float[4] s = {1, 2, 3, 4}", {"axis": 1}),
        (
            "QuantizeLinear <axis = 0, block_size = 2> (x, s)",
            "float[1,4] s = {1, 2, 3, 4}",
            {"axis": 0, "block_size": 2},
        ),
    ],
)
def test_what_is_said_is_written(node: str, constants: str, wanted: dict[str, int]) -> None:
    said = read(node, constants)
    assert said is not None and attributes(said) == wanted


@pytest.mark.parametrize("kind", [17, None])
def test_type_of_a_dq_whose_input_has_none_that_numpy_knows(kind: int | None) -> None:
    """graphsurgeon gives the number of such a type; a graph input may have none at all."""
    graph = text.parse(model("(uint8[2] q) => (y) <float s = {1}> { y = DequantizeLinear(q, s) }")).graph
    graph.inputs[0].dtype = kind
    assert parameters(graph.nodes[0]) is None
