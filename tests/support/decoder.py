"""A small decoder language model with random weights: embedding, blocks of causal attention and Gelu, head."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

WORDS, WIDTH, HEADS = 512, 64, 4


def decoder(blocks: int = 2, *, length: int | str = "s", seed: int = 0) -> onnx.ModelProto:
    """ids [1, length] -> logits [1, length, WORDS]; opset 20."""
    rng = np.random.default_rng(seed)
    nodes: list[Any] = []
    constants: dict[str, NDArray[Any]] = {}

    def const(name: str, values: Any) -> str:
        constants[name] = np.asarray(values)
        return name

    def weight(name: str, *shape: int) -> str:
        return const(name, (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32))

    def op(kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, list(inputs), [name], f"n_{name}", **attributes))
        return name

    def norm(name: str, x: str) -> str:
        ones = const(f"{name}_scale", np.ones(WIDTH, np.float32))
        zeros = const(f"{name}_bias", np.zeros(WIDTH, np.float32))
        return op("LayerNormalization", name, x, ones, zeros, axis=-1)

    def linear(name: str, x: str, columns: int, rows: int = WIDTH) -> str:
        product = op("MatMul", f"{name}_product", x, weight(f"{name}_w", rows, columns))
        bias = const(f"{name}_b", (0.1 * rng.standard_normal(columns)).astype(np.float32))
        return op("Add", name, product, bias)

    size = WIDTH // HEADS
    shape = const("split", np.array([1, -1, HEADS, size], np.int64))
    flat = const("flat", np.array([1, -1, WIDTH], np.int64))
    const("mask", np.triu(np.full((64, 64), -1e4, np.float32), 1))
    table = const("table", rng.standard_normal((WORDS, WIDTH)).astype(np.float32))
    x = op("Gather", "embedded", table, "ids")
    for i in range(blocks):
        h = norm(f"norm{i}", x)
        parts = []
        for part, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
            made = op("Reshape", f"{part}r{i}", linear(f"{part}{i}", h, WIDTH), shape)
            parts.append(op("Transpose", f"{part}t{i}", made, perm=perm))
        scores = op(
            "Mul", f"scaled{i}", op("MatMul", f"scores{i}", parts[0], parts[1]), const(f"s{i}", np.float32(0.25))
        )
        sizes = op("Shape", f"shape{i}", scores)
        ends = op("Slice", f"ends{i}", sizes, const(f"two{i}", np.array([2])), const(f"four{i}", np.array([4])))
        starts, axes = const(f"starts{i}", np.array([0, 0])), const(f"axes{i}", np.array([0, 1]))
        masked = op("Add", f"masked{i}", scores, op("Slice", f"m{i}", "mask", starts, ends, axes))
        mixed = op("MatMul", f"mixed{i}", op("Softmax", f"soft{i}", masked, axis=-1), parts[2])
        back = op("Reshape", f"back{i}", op("Transpose", f"turned{i}", mixed, perm=[0, 2, 1, 3]), flat)
        x = op("Add", f"after{i}", x, linear(f"o{i}", back, WIDTH))
        up = op("Gelu", f"gelu{i}", linear(f"up{i}", norm(f"second{i}", x), 4 * WIDTH))
        x = op("Add", f"out{i}", x, linear(f"down{i}", up, WIDTH, 4 * WIDTH))
    op("MatMul", "logits", norm("last", x), weight("head", WIDTH, WORDS))
    graph = helper.make_graph(
        nodes,
        "decoder",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, length])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, length, WORDS])],
        [numpy_helper.from_array(v, n) for n, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def ids(count: int, length: int, seed: int = 0) -> list[dict[str, NDArray[Any]]]:
    """Samples."""
    rng = np.random.default_rng(seed)
    return [{"ids": rng.integers(0, WORDS, (1, length))} for _ in range(count)]
