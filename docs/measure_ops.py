"""The ops that the facts are about, by kind: how each is put into a net."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from measure_graph import Enc, Net

Build = Callable[[Net, Callable[[], str]], Any]
"""Adds the op to a net; the second argument makes one more DQ'd input [1, 4, 8, 8]."""


def simple(op: str, *constants: Any, inputs: int = 1, outs: int = 1, **attributes: Any) -> Build:
    def build(net: Net, data: Callable[[], str]) -> Any:
        operands = [data() for _ in range(inputs)]
        return net.node(op, *operands, *("" if c is None else net.const(c) for c in constants), outs=outs, **attributes)

    return build


def _conv(net: Net, data: Callable[[], str]) -> str:
    return str(net.node("Conv", data(), net.weight(6, 4, 3, 3)))


def _conv_transpose(net: Net, data: Callable[[], str]) -> str:
    return str(net.node("ConvTranspose", data(), net.weight(4, 6, 3, 3, axis=1)))


def _matmul(net: Net, data: Callable[[], str]) -> str:
    return str(net.node("MatMul", data(), net.weight(8, 6, axis=1)))


def _gemm(net: Net, data: Callable[[], str]) -> str:
    flat = net.node("Reshape", data(), net.const([4, 64], np.int64))
    return str(net.node("Gemm", net.pair(flat), net.weight(6, 64, axis=0), transB=1))


def _where(net: Net, data: Callable[[], str]) -> str:
    return str(net.node("Where", net.const(np.arange(8) % 2 == 0), data(), data()))


def _einsum(net: Net, data: Callable[[], str]) -> str:
    return str(net.node("Einsum", data(), net.weight(8, 6, axis=1), equation="bchw,wk->bchk"))


I64 = np.int64
_ONE = np.ones(4, np.float32)

WEIGHTED: dict[str, Build] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "MatMul of two activations": simple("MatMul", inputs=2),
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
}
COMPUTE: dict[str, Build] = {
    "Add": simple("Add", inputs=2),
    "Mul": simple("Mul", inputs=2),
    "Concat": simple("Concat", inputs=2, axis=1),
    "Where": _where,
    "AveragePool": simple("AveragePool", kernel_shape=[2, 2]),
    "GlobalAveragePool": simple("GlobalAveragePool"),
    "LeakyRelu": simple("LeakyRelu", alpha=0.1),
    "Sigmoid": simple("Sigmoid"),
    "Softmax": simple("Softmax"),
    "Sub": simple("Sub", inputs=2),
    "Div": simple("Div", inputs=2),
    "Max": simple("Max", inputs=2),
    "Min": simple("Min", inputs=2),
    "Relu": simple("Relu"),
    "Clip": simple("Clip", np.float32(-1), np.float32(1)),
    "Tanh": simple("Tanh"),
    "Erf": simple("Erf"),
    "Gelu": simple("Gelu"),
    "HardSwish": simple("HardSwish"),
    "HardSigmoid": simple("HardSigmoid"),
    "PRelu": simple("PRelu", np.array([0.1], np.float32)),
    "LayerNormalization": simple("LayerNormalization", np.ones(8, np.float32)),
    "InstanceNormalization": simple("InstanceNormalization", _ONE, _ONE),
    "BatchNormalization": simple("BatchNormalization", _ONE, _ONE, _ONE, _ONE),
    "ReduceMean": simple("ReduceMean", np.array([2, 3], I64)),
    "ReduceSum": simple("ReduceSum", np.array([2, 3], I64)),
    "GlobalMaxPool": simple("GlobalMaxPool"),
}
MOVES: dict[str, Build] = {
    "Transpose": simple("Transpose", perm=[0, 2, 3, 1]),
    "Reshape": simple("Reshape", np.array([4, 64], I64)),
    "Flatten": simple("Flatten"),
    "Squeeze": simple("Squeeze", np.array([0], I64)),
    "Unsqueeze": simple("Unsqueeze", np.array([0], I64)),
    "Slice": simple("Slice", np.array([1], I64), np.array([3], I64), np.array([1], I64)),
    "Gather": simple("Gather", np.array([2, 0], I64), axis=1),
    "GatherElements": simple("GatherElements", np.zeros((1, 4, 8, 2), I64), axis=3),
    "Expand": simple("Expand", np.array([3, 4, 8, 8], I64)),
    "Tile": simple("Tile", np.array([1, 2, 1, 1], I64)),
    "Split": simple("Split", outs=2, axis=1, num_outputs=2),
    "DepthToSpace": simple("DepthToSpace", blocksize=2),
    "MaxPool": simple("MaxPool", kernel_shape=[2, 2]),
    "ReduceMax": simple("ReduceMax", np.array([2, 3], I64)),
    "ReduceMin": simple("ReduceMin", np.array([2, 3], I64)),
    "Resize nearest": simple("Resize", None, np.array([1, 1, 2, 2], np.float32), mode="nearest"),
    "Resize linear": simple("Resize", None, np.array([1, 1, 2, 2], np.float32), mode="linear"),
    "SpaceToDepth": simple("SpaceToDepth", blocksize=2),
    "GatherND": simple("GatherND", np.array([[0, 1], [0, 3]], I64)),
    "Pad": simple("Pad", np.array([0, 0, 1, 1, 0, 0, 1, 1], I64)),
}


def fate(build: Build, e: Enc, *, output: bool = True) -> str:
    """The kernel at ALL of DQ -> op -> Q -> DQ, or of DQ -> op."""
    net = Net()
    made = build(net, lambda: net.pair(net.input(1, 4, 8, 8), e))
    made = made if isinstance(made, tuple) else (made,)
    net.out(*(net.pair(t, e) if output else t for t in made))
    hide = ["QuantizeLinear", "DequantizeLinear"]
    return net.kernels(hide=hide if build is MOVES["Transpose"] else [*hide, "Transpose"])
