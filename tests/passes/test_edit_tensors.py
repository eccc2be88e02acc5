"""Questions about single tensors and nodes."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx_graphsurgeon as gs

from onnxq_passes._edit import (
    BFLOAT16,
    DOUBLE,
    FLOAT,
    FLOAT16,
    float_type,
    input_at,
    ints,
    is_constant,
    rank,
    scalar,
    standard,
    static_shape,
)


def constant(values: Any, kind: Any = np.float32) -> gs.Constant:
    return gs.Constant("k", np.asarray(values, kind))


def test_the_standard_domain() -> None:
    assert [standard(gs.Node("Op", domain=d)) for d in (None, "", "ai.onnx", "com.microsoft")] == [
        True,
        True,
        True,
        False,
    ]


def test_constants() -> None:
    assert [is_constant(t) for t in (constant(1), gs.Variable("v"), gs.Variable.empty())] == [True, False, False]


def test_scalars() -> None:
    assert [scalar(constant(v, k)) for v, k in ((1.5, "float32"), ([[2]], "int8"), (1.5, np.float16))] == [
        1.5,
        2.0,
        1.5,
    ]
    assert scalar(constant(1.5, ml_dtypes.bfloat16)) == 1.5
    others = [constant([1, 2]), constant([]), gs.Variable("v"), *(constant("s", k) for k in ("S", "U", "O"))]
    assert [scalar(t) for t in others] == [None] * 6


def test_integers() -> None:
    assert ints(constant([[1, -2], [3, 4]], "int64")) == [1, -2, 3, 4]
    assert (ints(constant(7, "uint8")), ints(constant([], "int32"))) == ([7], [])
    assert [ints(t) for t in (constant([1.0]), constant([True], "bool"), gs.Variable("v"))] == [None] * 3


def test_static_shapes_and_ranks() -> None:
    shapes: list[Any] = [None, (), (2, 3), (2, "n"), (2, -1), (0,), (np.int64(2),)]
    tensors = [gs.Variable("v", shape=s) for s in shapes]
    assert [static_shape(t) for t in tensors] == [None, (), (2, 3), None, None, (0,), (2,)]
    assert [rank(t) for t in tensors] == [None, 0, 2, 2, 2, 1, 1]
    assert type((static_shape(tensors[-1]) or (None,))[0]) is int


def test_omitted_inputs() -> None:
    first, last = gs.Variable("a"), gs.Variable("b")
    node = gs.Node("Op", inputs=[first, gs.Variable.empty(), last])
    assert [input_at(node, slot) for slot in range(4)] == [first, None, last, None]


def test_float_types() -> None:
    kinds: list[Any] = [np.float32, np.float16, np.float64, ml_dtypes.bfloat16, 1, 16, np.int64(11), 10]
    wanted = [FLOAT, FLOAT16, DOUBLE, BFLOAT16, FLOAT, BFLOAT16, DOUBLE, FLOAT16]
    assert [float_type(gs.Variable("v", dtype=k)) for k in kinds] == wanted
    assert [float_type(gs.Variable("v", dtype=k)) for k in (None, np.int8, 3, 17)] == [None] * 4
