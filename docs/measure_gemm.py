"""Facts: which forms of Gemm, of weights and of float16 graphs keep their integer kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from measure_graph import Enc, Net, verdict
from measure_table import FLOAT16, OPS, WHY, Fact, Rows
from onnx import TensorProto

STEP = 0.1
"""Scale of the output."""


def _gemm(bias: tuple[int, ...] | None, **attributes: Any) -> Net:
    """DQ -> Gemm -> Q with an int32 bias of this shape: x [4, 8], weight [8, 6] (transposed where asked)."""
    net = Net()
    transposed = attributes.get("transB", 0)
    one = bias is not None and bias[-1:] != (6,)  # one bias for all columns asks for one weight scale
    scale = np.full(6, 0.01) if one else np.linspace(0.005, 0.03, 6)
    x = net.pair(net.input(*(8, 4) if attributes.get("transA") else (4, 8)))
    w = net.weight(*(6, 8) if transposed else (8, 6), axis=0 if transposed else 1, scale=scale)
    operands = [x, w]
    if bias is not None:
        axis = None if one else len(bias) - 1
        operands.append(net.bias32(*bias, scale=0.0003 if one else scale * 0.03, axis=axis))
    return net.out(net.pair(net.node("Gemm", *operands, **attributes), Enc(scale=STEP)))


def _gemms() -> Rows:
    rows = [["attributes", "bias (DQ of int32)", "kernels at ALL", "largest difference", "greatest output", ""]]
    cases: list[tuple[tuple[int, ...] | None, dict[str, Any]]] = [
        ((6,), {}),
        ((6,), {"transB": 1}),
        ((6,), {"transA": 1}),
        ((6,), {"alpha": 0.5}),
        (None, {"alpha": 0.5}),
        ((6,), {"beta": 2.0}),
        ((1, 6), {}),
        ((4, 6), {}),
        ((1,), {}),
    ]
    for bias, attributes in cases:
        label = ", ".join(f"{k}={v}" for k, v in attributes.items()) or "-"
        rows.append([label, str(list(bias)) if bias else "none", *verdict(_gemm(bias, **attributes), step=STEP)])
    return rows


def _weights() -> Rows:
    rows = [["MatMul of x", "weight", "scales", "kernels at ALL", "largest difference", "greatest output", ""]]
    cases: list[tuple[tuple[int, ...], tuple[int, ...], int | None]] = [
        ((2, 4, 6), (6, 5), 1),
        ((2, 4, 6), (2, 6, 5), None),
        ((2, 4, 6), (2, 6, 5), 2),
        ((4, 6), (6,), None),
    ]
    for shape, weight, axis in cases:
        net = Net()
        y = net.node("MatMul", net.pair(net.input(*shape)), net.weight(*weight, axis=axis))
        net.out(net.pair(y, Enc(scale=STEP)))
        scales = "one" if axis is None else f"axis {axis}"
        rows.append([str(list(shape)), str(list(weight)), scales, *verdict(net, step=STEP)])
    return rows


def _half() -> Rows:
    rows = [["float16 graph", "kernels at ALL"]]
    for label, quantized in (("MatMul", False), ("DQ -> MatMul -> Q, scales in float16", True)):
        net = Net()
        x = net.node("Cast", net.input(4, 8), to=TensorProto.FLOAT16)
        if quantized:
            zero, data, weight = net.const(np.uint8(128)), net.const(np.float16(0.03)), net.const(np.float16(0.01))
            x = net.node("DequantizeLinear", net.node("QuantizeLinear", x, data, zero), data, zero)
            values = net.const(net.rng.integers(-63, 64, (8, 6)).astype(np.int8))
            w = net.node("DequantizeLinear", values, weight, net.const(np.int8(0)))
            y = net.node("MatMul", x, w)
            y = net.node("DequantizeLinear", net.node("QuantizeLinear", y, data, zero), data, zero)
        else:
            y = net.node("MatMul", x, net.const(np.ones((8, 6), np.float16)))
        net.out(net.node("Cast", y, to=TensorProto.FLOAT))
        rows.append([label, net.kernels()])
    return rows


FACTS = (
    Fact(
        name="gemm",
        says="Which Gemms have an integer kernel: with a bias alpha and beta must be 1, its shape is free.",
        rows=_gemms,
        used=(WHY,),
        near=True,
    ),
    Fact(
        name="weight-rank",
        says="MatMul with constants of other ranks: one scale is fine; scales per column of a batch of them are not.",
        rows=_weights,
        used=(OPS, WHY),
        near=True,
    ),
    Fact(
        name="float16",
        says="float16 has no kernels of its own: ORT casts to float and back, and nothing fuses to integers.",
        rows=_half,
        used=(FLOAT16,),
    ),
)
