"""Facts: how exactly the integer kernels compute what Q and DQ literally mean, and how ORT names what it fuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from measure_graph import S8, U8_RELU, Enc, Net
from measure_ops import COMPUTE
from measure_table import ACCURACY, MAPPING, PIPELINE, Fact, Rows

from onnxq.runtime.session import Level

ODD = Enc(scale=0.0317)
"""Scales whose ratios are no round numbers: ties are rare."""
OUT = Enc(scale=0.0457)


def _conv(weight: str = "int8", bias: str = "", x: Enc = ODD, out: Enc = OUT) -> Net:
    net = Net()
    scale: Any = np.linspace(0.00213, 0.0107, 32) if weight == "int8" else 0.01
    w = net.weight(32, 16, 3, 3, type=weight, scale=scale, axis=0 if weight == "int8" else None)
    b = []
    if bias:
        b = [net.normal(32) if bias == "float" else net.bias32(32, scale=scale * np.float64(0.0317))]
    return net.out(net.dq(net.q(net.node("Conv", net.pair(net.input(2, 16, 24, 24), x), w, *b), out), out))


def _matmul(weight: str = "int8", *, q: bool = True) -> Net:
    net = Net()
    scale: Any = np.linspace(0.00513, 0.0307, 80) if weight == "int8" else 0.0113
    w = net.weight(96, 80, axis=1 if weight == "int8" else None, type=weight, scale=scale)
    y = net.node("MatMul", net.pair(net.input(256, 96), ODD), w)
    return net.out(net.pair(y, Enc(scale=0.213)) if q else y)


def _gemm(*, q: bool = True) -> Net:
    net = Net()
    scale = np.linspace(0.00513, 0.0307, 80)
    b = net.bias32(80, scale=scale * 0.0317)
    y = net.node("Gemm", net.pair(net.input(256, 96), ODD), net.weight(96, 80, axis=1, scale=scale), b)
    return net.out(net.pair(y, Enc(scale=0.213)) if q else y)


def _compute(op: str, out: Enc = OUT, e: Enc = ODD) -> Net:
    net = Net()
    y = COMPUTE[op](net, lambda: net.pair(net.input(1, 4, 8, 8), e))
    # the same op on tensors that are large enough to count in tenths of a percent
    net.inputs = [(name, type, (8, 64, 16, 16)) for name, type, _ in net.inputs]
    return net.out(net.pair(y, out))


def _exactness() -> Rows:
    unit = Enc(scale=1 / 255, zero=0)
    even = Enc(scale=0.01)
    cases: list[tuple[str, Enc | None, Net]] = [
        ("s8 weights", OUT, _conv()),
        ("s8 weights, int32 bias", OUT, _conv(bias="int32")),
        ("s8 weights, float bias", OUT, _conv(bias="float")),
        ("u8 weights", OUT, _conv("uint8")),
        ("s8 (rewritten to u8), s8 weights", S8, _conv(x=S8, out=S8)),
        (
            "u8 weights, many ties: scales 0.01, 0.01 and 0.05",
            Enc(scale=0.05),
            _conv("uint8", x=even, out=Enc(scale=0.05)),
        ),
        ("s8 weights", Enc(scale=0.213), _matmul()),
        ("u8 weights", Enc(scale=0.213), _matmul("uint8")),
        ("s8 weights, float output", None, _matmul(q=False)),
        ("s8 weights, int32 bias", Enc(scale=0.213), _gemm()),
        ("s8 weights, int32 bias, float output", None, _gemm(q=False)),
        ("", OUT, _compute("Add")),
        ("many ties: scales 0.02 and 0.04", Enc(scale=0.04), _compute("Add", Enc(scale=0.04), Enc(scale=0.02))),
        ("", OUT, _compute("Mul")),
        ("", OUT, _compute("Concat")),
        ("", OUT, _compute("AveragePool")),
        ("many ties: equal scales", ODD, _compute("AveragePool", ODD)),
        ("", Enc(scale=0.00113), _compute("GlobalAveragePool", Enc(scale=0.00113))),
        ("", Enc(scale=0.0213, zero=20), _compute("LeakyRelu", Enc(scale=0.0213, zero=20))),
        ("", unit, _compute("Sigmoid", unit)),
        ("over 16 elements", unit, _compute("Softmax", unit)),
    ]
    rows = [["kernel", "operands (u8 unless said)", "elements", "that differ", "by at most"]]
    for label, out, net in cases:
        exact, fused = net.run().astype(np.float64), net.run(Level.ALL).astype(np.float64)
        apart = np.abs(exact - fused)
        share = 100 * np.count_nonzero(apart) / apart.size
        if out is None:
            relative = apart.max() / np.abs(exact).max()
            differ, most = (
                "float rounding",
                "1e-6 of the greatest" if relative < 1e-6 else f"{relative:.1e} of the greatest",
            )
        else:
            differ, most = f"{share:.2g} %" if share else "0 %", f"{apart.max() / float(np.asarray(out.scale)):.0f} LSB"
        rows.append([net.kernels(), label or "-", str(exact.size), differ, most if share else "-"])
    return rows


def _names() -> Rows:
    rows = [["in the file", "the kernel's name", "name of its output"]]

    def case(label: str, make: Callable[[Net], str]) -> None:
        net = Net()
        net.out(net.pair(make(net), U8_RELU))
        quantized = {n.op_type: n for n in net.nodes}
        op = label.split(maxsplit=1)[0].removesuffix(",")
        graph = net.optimized(Level.ALL, disabled=("NchwcTransformer", "NhwcTransformer"))
        kernel = next(n for n in graph.node if n.op_type.startswith("Q") and n.op_type != "QuantizeLinear")
        name = f"that of the {op}" if kernel.name == quantized[op].name else "another"
        last = next(n for n in net.nodes[::-1] if n.op_type == "QuantizeLinear").output[0]
        rows.append([label, f"{name} ({kernel.op_type})", "that of the Q" if kernel.output[0] == last else "another"])

    case("Conv, Q", lambda n: str(n.node("Conv", n.pair(n.input(1, 4, 8, 8)), n.weight(6, 4, 3, 3))))
    case("Conv, Relu, Q", _relu)
    case("Gemm, Q", lambda n: str(n.node("Gemm", n.pair(n.input(3, 8)), n.weight(8, 6, axis=1))))
    case(
        "MatMul, Add, Q",
        lambda n: str(n.node("Add", n.node("MatMul", n.pair(n.input(3, 8)), n.weight(8, 6, axis=1)), n.normal(6))),
    )
    return rows


def _relu(net: Net) -> str:
    return str(net.node("Relu", net.node("Conv", net.pair(net.input(1, 4, 8, 8)), net.weight(6, 4, 3, 3))))


def _float_patterns() -> Rows:
    rows = [["pattern", "float graph", "MatMul and Add in 8 bits before it"]]

    def gelu(net: Net, x: str) -> str:
        half = net.node("Div", x, net.const(np.float32(np.sqrt(2))))
        one = net.node("Add", net.node("Erf", half), net.const(np.float32(1)))
        return str(net.node("Mul", net.node("Mul", x, one), net.const(np.float32(0.5))))

    def silu(net: Net, x: str) -> str:
        return str(net.node("Mul", x, net.node("Sigmoid", x)))

    for label, pattern in (("Div, Erf, Add, Mul, Mul (GELU)", gelu), ("Sigmoid, Mul (SiLU)", silu)):
        plain, quantized = Net(), Net()
        plain.out(pattern(plain, plain.input(4, 8)))
        x = quantized.pair(quantized.input(4, 8))
        quantized.out(quantized.pair(pattern(quantized, x)))
        rows.append([label, plain.kernels(), quantized.kernels()])
    rows[0][2] = "between DQ and Q"
    return rows


FACTS = (
    Fact(
        name="exactness",
        says="What the kernels compute against the literal Q/DQ graph, random inputs, 7-bit weights (so that nothing "
        "saturates on any CPU). Between CPUs the shares may differ a little.",
        rows=_exactness,
        used=(ACCURACY,),
        near=True,
    ),
    Fact(
        name="names",
        says="A fused kernel keeps the name of the node it replaces and that of the last output.",
        rows=_names,
        used=(MAPPING,),
    ),
    Fact(
        name="patterns",
        says="ORT recognizes GELU and SiLU made of single ops in float graphs, not between DQ and Q: every "
        "reader gets a DQ of its own, and the pattern is gone. So they are recomposed before Q/DQ goes in.",
        rows=_float_patterns,
        used=("passes/onnxq_passes/recompose_gelu.py", "passes/onnxq_passes/recompose_silu.py", PIPELINE),
    ),
)
