"""Shapes that kernels like: `python docs/measure_shapes.py` prints a table of docs/placement.md.

Small graphs before and behind the passes `align-channels`, `stack-rows`, `gather-resize`, `split-space-to-depth`,
`cascade-pools`. Times on the wall of one thread, whole graphs with the conversions at their ends, the median over runs
in turns; above 1, the form behind the pass is faster.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxq import registry
from onnxq.ir import load, save
from onnxq.runtime.session import Session
from onnxq.runtime.turns import IN_TURNS, medians
from onnxq.testing import default_context


class Maker:
    """A graph of 8-bit operators, written node by node."""

    def __init__(self, *shape: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.shape = (1, *shape)
        self.random = np.random.default_rng(0)

    def op(self, op: str, *inputs: str, **attrs: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=f"n{name}", **attrs))
        return name

    def constant(self, values: Any, dtype: str = "float32") -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def pair(self, tensor: str) -> str:
        numbers = self.constant(0.05), self.constant(60, "uint8")
        return self.op("DequantizeLinear", self.op("QuantizeLinear", tensor, *numbers), *numbers)

    def conv(self, data: str, inputs: int, outputs: int, kernel: int, **attrs: Any) -> str:
        levels = self.random.integers(-127, 128, (outputs, inputs // attrs.get("group", 1), kernel, kernel))
        scales = self.constant(np.full(outputs, 0.001)), self.constant(np.zeros(outputs), "int8")
        weights = self.op("DequantizeLinear", self.constant(levels, "int8"), *scales, axis=0)
        return self.pair(self.op("Conv", data, weights, pads=[kernel // 2] * 4, **attrs))

    def model(self, result: str) -> onnx.ModelProto:
        ends = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in (("x", self.shape), (result, None))
        ]
        graph = helper.make_graph(self.nodes, "g", ends[:1], ends[1:], self.constants)
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        return onnx.shape_inference.infer_shapes(made)


def first(inputs: int, outputs: int, size: int, kernel: int, stride: int) -> onnx.ModelProto:
    """The first convolution of a network."""
    g = Maker(inputs, size, size)
    return g.model(g.conv(g.pair("x"), inputs, outputs, kernel, strides=[stride] * 2))


def between(channels: int, size: int, kernel: int) -> onnx.ModelProto:
    """Two 1x1 convolutions with a number of channels between them."""
    g = Maker(32, size, size)
    wide = g.conv(g.pair("x"), 32, channels, 1)
    return g.model(g.conv(g.conv(wide, channels, 64, kernel), 64, 32, 1))


def deep(channels: int, size: int, kernel: int) -> onnx.ModelProto:
    """A depthwise convolution between two 1x1 ones."""
    g = Maker(16, size, size)
    wide = g.conv(g.pair("x"), 16, channels, 1)
    return g.model(g.conv(g.conv(wide, channels, channels, kernel, group=channels), channels, 16, 1))


def grown(channels: int, size: int) -> onnx.ModelProto:
    """A Resize between 1x1 convolutions."""
    g = Maker(channels, size, size)
    small = g.conv(g.pair("x"), channels, channels, 1)
    attrs = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return g.model(g.conv(g.pair(g.op("Resize", small, "", g.constant([1, 1, 2, 2]), **attrs)), channels, 16, 1))


def focus(channels: int, size: int) -> onnx.ModelProto:
    """SpaceToDepth in front of a convolution."""
    g = Maker(3, size, size)
    return g.model(g.conv(g.pair(g.op("SpaceToDepth", "x", blocksize=2)), 12, channels, 3))


def pyramid(channels: int, size: int) -> onnx.ModelProto:
    """Pools of 5, 9 and 13 side by side."""
    g = Maker(channels, size, size)
    pools = [g.op("MaxPool", "x", kernel_shape=[k, k], pads=[k // 2] * 4) for k in (5, 9, 13)]
    return g.model(g.op("Concat", "x", *pools, axis=1))


CASES: dict[str, list[tuple[str, Callable[[], onnx.ModelProto]]]] = {
    "align-channels": [
        *(
            (
                f"first convolution, {i} to {o} channels, {k}x{k}, stride {t}, on {n} x {n}",
                partial(first, i, o, n, k, t),
            )
            for i, o, n, k, t in ((3, 32, 224, 3, 2), (3, 64, 224, 7, 2), (3, 16, 48, 3, 1), (1, 16, 28, 3, 1))
        ),
        *((f"3x3 on {c} channels, {n} x {n}", partial(between, c, n, 3)) for c, n in ((18, 28), (30, 28), (42, 14))),
        *(
            (f"depthwise {k}x{k} on {c} channels, {n} x {n}", partial(deep, c, n, k))
            for c, n, k in ((24, 56, 3), (40, 28, 3), (72, 14, 3), (88, 14, 5), (200, 14, 3))
        ),
    ],
    "stack-rows": [
        (f"first convolution, {i} to {o} channels, {k}x{k}, stride {t}, on {n} x {n}", partial(first, i, o, n, k, t))
        for i, o, n, k, t in (
            (3, 64, 224, 7, 2),
            (3, 32, 64, 5, 1),
            (1, 64, 224, 7, 2),
            (1, 32, 64, 5, 1),
            (1, 32, 28, 3, 1),
        )
    ],
    "gather-resize": [
        (f"nearest, twice as large, {c} channels, {n} x {n}", partial(grown, c, n))
        for c, n in ((192, 13), (96, 26), (32, 80))
    ],
    "split-space-to-depth": [(f"3 channels, {n} x {n}", partial(focus, c, n)) for c, n in ((24, 416), (32, 640))],
    "cascade-pools": [
        (f"5, 9 and 13, {c} channels, {n} x {n}", partial(pyramid, c, n)) for c, n in ((192, 13), (256, 20))
    ],
}


INSTEAD = {"stack-rows": "align-channels"}
"""What is done without the pass."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Shapes that integer kernels like, and the passes that make them.")
    parser.add_argument("--turns", type=int, default=40, help="of each form")
    turns = parser.parse_args().turns
    print("| pass | graph | before, us | times as fast behind it |")
    print("|---|---|---|---|")
    for name, cases in CASES.items():
        for title, make in cases:
            before, ratio = measured(name, make(), turns)
            print(f"| `{name}` | {title} | {1e6 * before:.0f} | {ratio:.2f} |", flush=True)


def measured(name: str, proto: onnx.ModelProto, turns: int) -> tuple[float, float]:
    """Seconds before the pass, and how many times as fast the form behind it is."""
    shape = tuple(d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim)
    model = load.from_proto(proto)
    forms = [model.copy(), model]
    for form, which in zip(forms, (INSTEAD.get(name), name), strict=True):
        if which is not None:
            report = registry.load(registry.PASSES, which)().run(form.graph, default_context())
            assert report.rewrites, report.refusals
    sessions = [Session(save.to_bytes(form), threads=1, config=IN_TURNS) for form in forms]
    feeds = {"x": np.random.default_rng(0).normal(size=shape).astype(np.float32)}
    old, new = medians([partial(session.run, feeds) for session in sessions], turns)
    return old, old / new


if __name__ == "__main__":
    main()
