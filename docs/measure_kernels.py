"""Facts: which integer kernels ONNX Runtime makes of DQ -> op -> Q on the CPU, and what it asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from measure_graph import S8, S8_RELU, U8, U8_RELU, Enc, Net, fails
from measure_ops import COMPUTE, I64, MOVES, WEIGHTED, Build, fate
from measure_table import CPU, INSERT, KERNELS, OPS, PLANNER, PROTECT, REASONS, SELECT, Fact, Rows
from onnx import TensorProto, helper

from onnxq.runtime.session import Level


def _op_rows(table: dict[str, Build], *, output: bool) -> Rows:
    rows = [["op", "u8 in, u8 out", "s8 in, s8 out"] + ["u8 in, float out"] * (not output)]
    for name, build in table.items():
        row = [name, fate(build, U8), fate(build, S8)]
        rows.append(row + [fate(build, U8, output=False)] * (not output))
    return rows


def _gemm_like(op: str, *, bias: str, q: bool, shape: tuple[int | str, ...] = (3, 8), relu: bool = False) -> Net:
    """DQ -> MatMul -> Add or Gemm (-> Relu) (-> Q -> DQ); the bias is `float`, `int32` (DQ) or "" (none)."""
    net = Net()
    x, w = net.pair(net.input(*shape)), net.weight(8, 6, axis=1)
    scale = np.float32(0.03) * np.linspace(0.005, 0.03, 6).astype(np.float32)
    b = {"": "", "float": net.normal(6), "int32": net.bias32(6, scale=scale)}[bias]
    if op == "Gemm":
        y = net.node("Gemm", x, w, *([b] if b else []))
    else:
        y = net.node("MatMul", x, w)
        y = net.node("Add", y, b) if b else y
    y = net.node("Relu", y) if relu else y
    return net.out(net.pair(y, U8_RELU if relu else U8) if q else y)


def _bias() -> Rows:
    rows = [["op", "bias", "float output", "Q behind it"]]
    cases: list[tuple[str, tuple[int | str, ...]]] = [
        ("Gemm", (3, 8)),
        ("MatMul + Add", (3, 8)),
        ("MatMul + Add", (2, 3, 8)),
        ("MatMul + Add", ("n", 8)),
        ("MatMul + Add", ("n", "m", 8)),
    ]
    for op, shape in cases:
        label = op if op == "Gemm" else f"{op}, x [{', '.join(map(str, shape))}]"
        for bias in ("", "float", "int32"):
            if bias == "" and op != "Gemm":
                continue
            found = [_gemm_like(op, bias=bias, q=q, shape=shape).kernels() for q in (False, True)]
            rows.append([label, {"": "none", "float": "float", "int32": "DQ of int32"}[bias], *found])
    for bias in ("float", "int32"):
        net = Net()
        y = net.node("Conv", net.pair(net.input(1, 4, 8, 8)), net.weight(6, 4, 3, 3), *_conv_bias(net, bias))
        behind = Net()
        z = behind.pair(
            behind.node(
                "Conv", behind.pair(behind.input(1, 4, 8, 8)), behind.weight(6, 4, 3, 3), *_conv_bias(behind, bias)
            )
        )
        rows.append(
            ["Conv", {"float": "float", "int32": "DQ of int32"}[bias], net.out(y).kernels(), behind.out(z).kernels()]
        )
    return rows


def _conv_bias(net: Net, bias: str) -> list[str]:
    scale = np.float32(0.03) * np.linspace(0.005, 0.03, 6).astype(np.float32)
    return [net.normal(6) if bias == "float" else net.bias32(6, scale=scale)]


def _types() -> Rows:
    rows = [["activation", "weight", "Conv", "MatMul", "Add"]]
    wide = Enc("uint16", 0.0002, 32768)
    for label, e, weight in [
        ("u8", U8, "int8"),
        ("u8", U8, "uint8"),
        ("s8", S8, "int8"),
        ("s8", S8, "uint8"),
        ("u16", wide, "int8"),
    ]:
        row = [label, {"int8": "s8", "uint8": "u8"}[weight]]
        for op in ("Conv", "MatMul"):
            net = Net()
            w = net.weight(6, 4, 3, 3, type=weight) if op == "Conv" else net.weight(8, 6, axis=1, type=weight)
            row.append(net.out(net.pair(net.node(op, net.pair(net.input(1, 4, 8, 8), e), w), e)).kernels())
        rows.append([*row, fate(COMPUTE["Add"], e)])
    return rows


def _int8() -> Rows:
    """int8 activations without the rewrite to uint8."""

    def conv(net: Net, x: str) -> str:
        return str(net.node("Conv", x, net.weight(4, 4, 1, 1)))

    def inner(e: Enc) -> Net:
        net = Net()
        return net.out(net.pair(conv(net, net.pair(net.input(1, 4, 8, 8), e)), e))

    def graph_input(e: Enc) -> Net:
        net = Net()
        return net.out(net.pair(conv(net, net.dq(net.input(1, 4, 8, 8, type=e.type), e)), e))

    def graph_output(e: Enc) -> Net:
        net = Net()
        return net.out(net.q(conv(net, net.pair(net.input(1, 4, 8, 8), e)), e))

    def branch(e: Enc) -> Net:
        net = Net()
        q = net.q(net.input(1, 4, 8, 8), e)
        return net.out(*(net.pair(conv(net, net.dq(q, e)), e) for _ in range(2)))

    def one_dq(e: Enc) -> Net:
        net = Net()
        x = net.pair(net.input(1, 4, 8, 8), e)
        return net.out(*(net.pair(conv(net, x), e) for _ in range(2)))

    def residual(e: Enc) -> Net:
        net = Net()
        x = net.pair(net.input(1, 4, 8, 8), e)
        return net.out(net.pair(net.node("Add", net.pair(conv(net, x), e), x), e))

    forms = {
        "one Conv between float tensors": inner,
        "Conv on an integer graph input": graph_input,
        "Conv makes an integer graph output": graph_output,
        "one Q, two DQ, two Convs": branch,
        "one Q, one DQ, two Convs": one_dq,
        "Conv and the shortcut of its Add": residual,
    }
    return [["form", "u8", "s8"]] + [[label, form(U8).kernels(), form(S8).kernels()] for label, form in forms.items()]


def _absorb() -> Rows:
    rows = [["Conv, then", "encoding of Q", "kernels"]]

    def case(label: str, e: Enc, says: str, *, shape1: bool = False) -> None:
        net = Net()
        y = WEIGHTED["Conv"](net, lambda: net.pair(net.input(1, 4, 8, 8)))
        match label:
            case "Relu":
                y = net.node("Relu", y)
            case "Clip(0, 6)":
                y = net.node("Clip", y, net.const(np.float32(0)), net.const(np.float32(6)))
            case "LeakyRelu":
                y = net.node("LeakyRelu", y)
        if shape1:
            e = Enc(e.type, np.reshape(e.scale, (1,)), e.zero)
        rows.append([label, says, net.out(net.pair(y, e)).kernels()])

    case("Relu", U8_RELU, "u8, zero point 0")
    case("Relu", U8, "u8, zero point 128")
    case("Relu", S8_RELU, "s8, zero point -128")
    case("Relu", S8, "s8, zero point 0")
    case("Relu", U8_RELU, "u8, zero point 0, scale of shape [1]", shape1=True)
    six = Enc(scale=np.float32(6 / 255), zero=0)
    case("Clip(0, 6)", six, "u8, zero point 0, scale 6/255")
    case("Clip(0, 6)", Enc(scale=0.01, zero=0), "u8, zero point 0, scale 0.01")
    case("Clip(0, 6)", Enc(scale=0.03, zero=0), "u8, zero point 0, scale 0.03 (reaches 7.65)")
    case("Clip(0, 6)", six, "u8, zero point 0, scale 6/255 of shape [1]", shape1=True)
    case("LeakyRelu", U8, "u8")
    for op in ("Gemm", "MatMul + Add"):
        rows.append(
            [f"({op} instead) Relu", "u8, zero point 0", _gemm_like(op, bias="float", q=True, relu=True).kernels()]
        )
    net = Net()
    y = net.node("Add", net.pair(net.input(1, 4, 8, 8)), net.pair(net.input(1, 4, 8, 8)))
    rows.append(["(Add instead) Relu", "u8, zero point 0", net.out(net.pair(net.node("Relu", y), U8_RELU)).kernels()])
    return rows


def _neighbours() -> Rows:
    rows = [["what stands around the Conv", "kernels", "conversions left"]]

    def case(label: str, behind: Callable[[Net, str], object]) -> None:
        net = Net()
        behind(net, WEIGHTED["Conv"](net, lambda: net.pair(net.input(1, 4, 8, 8))))
        rows.append([label, net.kernels(), net.conversions()])

    def equal_qs(net: Net, y: str, *, shared: bool) -> None:
        parameters = net.parameters(U8)
        net.out(*(net.pair(y, U8, shared=parameters if shared else None) for _ in range(2)))

    case("one Q behind it", lambda n, y: n.out(n.pair(y)))
    case("and a float op that reads its output", lambda n, y: n.out(n.pair(y), n.node("Sin", y)))
    case("and its output is a graph output", lambda n, y: n.out(n.pair(y), y))
    case("two Qs with different scales", lambda n, y: n.out(n.pair(y), n.pair(y, Enc(scale=0.02))))
    case("two equal Qs, each with its own initializers", lambda n, y: equal_qs(n, y, shared=False))
    case("two equal Qs that share their initializers", lambda n, y: equal_qs(n, y, shared=True))

    def batch_norm(net: Net, y: str) -> None:
        ones = [net.const(np.ones(6, np.float32)) for _ in range(4)]
        net.out(net.pair(net.node("BatchNormalization", y, *ones)))

    case("a BatchNormalization between it and the Q", batch_norm)
    return rows


def _on(op: str, data: Callable[[Net], str]) -> tuple[Net, Any]:
    """A net with one op on inputs that go through `data`, and what the op made."""
    net = Net()
    return net, {**WEIGHTED, **COMPUTE, **MOVES}[op](net, lambda: data(net))


def _per_channel() -> Rows:
    rows = [["DQ of the data per channel, then", "kernels", ""]]
    wide = Enc(scale=np.full(4, 0.03), axis=1)
    for op in ("Conv", "Add", "Sigmoid", "Softmax", "AveragePool", "GlobalAveragePool", "MaxPool", "ReduceMax"):
        net, made = _on(op, lambda n: n.dq(n.q(n.input(1, 4, 8, 8)), wide))
        kernels = net.out(net.pair(made)).kernels()
        rows.append([op, kernels, "" if kernels == "does not load" else fails(net) or "runs"])
    return rows


def _zero_point() -> Rows:
    header = [
        "u8, all given",
        *(f"{t}, that of the {of} left away" for t, of in (("u8", "data"), ("u8", "weight"), ("s8", "data"))),
    ]
    rows = [["op", *header]]
    bare, bare_s8 = Enc(zero=None), Enc("int8", 0.03, None)
    for op in ("Conv", "Gemm", "MatMul"):
        cases = ((U8, 0), (bare, 0), (U8, None), (bare_s8, 0))
        rows.append([op, *(_bare_weighted(op, e, weight_zero).kernels() for e, weight_zero in cases)])
    for op in ("Add", "Sigmoid", "MaxPool", "Reshape"):
        given, u8, s8 = (_bare_op(op, e).kernels() for e in (U8, bare, bare_s8))
        rows.append([op, given, u8, "", s8])
    return rows


def _bare_op(op: str, e: Enc) -> Net:
    net, made = _on(op, lambda n: _bare(n, n.input(1, 4, 8, 8), e))
    return net.out(_bare(net, made, e))


def _bare_weighted(op: str, e: Enc, weight_zero: int | None) -> Net:
    net = Net()
    x = _bare(net, net.input(*(1, 4, 8, 8) if op == "Conv" else (3, 8)), e)
    values = net.rng.integers(-63, 64, (6, 4, 3, 3) if op == "Conv" else (8, 6)).astype(np.int8)
    w = net.dq(net.const(values), Enc("int8", np.full(6, 0.01), weight_zero, 0 if op == "Conv" else 1))
    return net.out(_bare(net, net.node(op, x, w), e))


def _bare(net: Net, x: str, e: Enc) -> str:
    """As `Net.pair`; without a zero point only `output_dtype` makes int8."""
    made = net.q(x, e)
    if e.zero is None and e.type == "int8":
        net.nodes[-1].attribute.append(helper.make_attribute("output_dtype", TensorProto.INT8))
    return net.dq(made, e)


def _parameters() -> Rows:
    rows = [["form", "kernels", "conversions left"]]

    def case(label: str, make: Callable[[Net], str]) -> None:
        net = Net()
        net.out(make(net))
        rows.append([label, net.kernels(), net.conversions()])

    other = Enc(scale=0.02)

    def x(net: Net, e: Enc = U8) -> str:
        return net.pair(net.input(1, 4, 8, 8), e)

    case("Reshape, equal parameters", lambda n: n.pair(n.node("Reshape", x(n), n.const([4, 64], I64))))
    case("Reshape, other scale behind it", lambda n: n.pair(n.node("Reshape", x(n), n.const([4, 64], I64)), other))
    case("MaxPool, other scale behind it", lambda n: n.pair(n.node("MaxPool", x(n), kernel_shape=[2, 2]), other))
    case(
        "Concat, three different scales", lambda n: n.pair(n.node("Concat", x(n), x(n, other), axis=1), Enc(scale=0.05))
    )
    case("Concat, one float operand", lambda n: n.pair(n.node("Concat", x(n), n.input(1, 4, 8, 8), axis=1)))
    case("Add, three different scales", lambda n: n.pair(n.node("Add", x(n), x(n, other)), Enc(scale=0.05)))
    case("Add, float constant", lambda n: n.pair(n.node("Add", x(n), n.normal(1, 4, 1, 1))))

    def integer_constant(net: Net) -> str:
        constant = net.dq(net.const(np.arange(4, dtype=np.uint8).reshape(1, 4, 1, 1)))
        return net.pair(net.node("Add", x(net), constant))

    case("Add, DQ of an integer constant", integer_constant)
    case("Mul of a tensor with itself", lambda n: n.pair(n.node("Mul", *[x(n)] * 2)))
    return rows


def _levels() -> Rows:
    rows = [["graph", "BASIC", "EXTENDED", "ALL"]]

    def chain(pool: str, **attributes: Any) -> Net:
        net = Net()
        y = net.pair(net.node("Conv", net.pair(net.input(1, 4, 8, 8)), net.weight(4, 4, 1, 1)))
        y = net.pair(net.node(pool, y, **attributes))
        return net.out(net.pair(net.node("Conv", y, net.weight(4, 4, 1, 1))))

    def alone() -> Net:
        net = Net()
        return net.out(net.pair(net.node("MaxPool", net.pair(net.input(1, 4, 8, 8)), kernel_shape=[2, 2])))

    for label, net in [
        ("Conv, MaxPool, Conv", chain("MaxPool", kernel_shape=[2, 2])),
        ("MaxPool alone", alone()),
        ("Conv, AveragePool, Conv", chain("AveragePool", kernel_shape=[2, 2])),
    ]:
        rows.append([label, *(net.kernels(level) for level in (Level.BASIC, Level.EXTENDED, Level.ALL))])
    return rows


def _versions() -> Rows:
    def conv(opset: int, ir: int) -> str:
        net = Net(opset=opset, ir_version=ir)
        encoding = U8
        weight = net.weight(6, 4, 3, 3, axis=0 if opset >= 13 else None)
        return net.out(net.pair(net.node("Conv", net.pair(net.input(1, 4, 8, 8), encoding), weight))).kernels()

    rows = [["opset", "IR version", "DQ -> Conv -> Q"]]
    return rows + [
        [str(opset), str(ir), conv(opset, ir)]
        for opset, ir in [
            (10, 5),
            (13, 8),
            (17, 8),
            (19, 9),
            (21, 10),
            (23, 11),
            (24, 12),
            (25, 13),
            (26, 13),
            (27, 13),
            (21, 14),
        ]
    ]


FACTS = (
    Fact(
        name="weighted",
        says="Conv, Gemm and MatMul have integer kernels; Conv with a Q behind it only, Gemm and MatMul without, too.",
        rows=lambda: _op_rows(WEIGHTED, output=False),
        used=(CPU, OPS, KERNELS),
    ),
    Fact(
        name="compute",
        says="These compute new values. Those that are not QLinear... here run in float between a DQ and a Q.",
        rows=lambda: _op_rows(COMPUTE, output=True),
        used=(CPU, OPS, KERNELS),
    ),
    Fact(
        name="moves",
        says="These move or choose values: with equal parameters on both sides Q and DQ go away and the op runs on "
        "integers, with the exceptions at the end.",
        rows=lambda: _op_rows(MOVES, output=True),
        used=(CPU, OPS, KERNELS),
    ),
    Fact(
        name="parameters",
        says="A move keeps its Q and DQ where the parameters differ; Concat and Add may differ, but want every operand "
        "behind a DQ, constants included.",
        rows=_parameters,
        used=(SELECT, PLANNER),
    ),
    Fact(
        name="bias",
        says="A float bias becomes int32 on load if a Q follows. With a float output it must be a DQ of int32, or "
        "everything is float: BASIC first merges MatMul and Add into a Gemm where the dimensions are known.",
        rows=_bias,
        used=(CPU, PLANNER, REASONS),
    ),
    Fact(
        name="types",
        says="8-bit activations take s8 and u8 weights, 16-bit ones have no kernel. s8 activations only fuse because "
        "ORT rewrites them to u8 first (the default on x86).",
        rows=_types,
        used=(CPU, REASONS),
    ),
    Fact(
        name="int8-activations",
        says="The rewrite of s8 to u8 needs a Q whose only reader is one DQ. At graph inputs and outputs, and at every "
        "branch, s8 stays s8 and the op runs in float; u8 has no such limits.",
        rows=_int8,
        used=(CPU, REASONS),
    ),
    Fact(
        name="absorbed",
        says="A Relu or Clip between op and Q goes away if the range of the Q makes it redundant.",
        rows=_absorb,
        used=(CPU, SELECT, PLANNER),
    ),
    Fact(
        name="neighbours",
        says="All readers of the op's output must be one Q.",
        rows=_neighbours,
        used=(INSERT, SELECT, "passes/onnxq_passes/fold_batchnorm.py"),
    ),
    Fact(
        name="per-channel-activations",
        says="Activations with one scale per channel, even with equal ones: ORT fuses them like any other, and the "
        "result does not load or does not run. (Float weights prevent the fusion, see float-weights.)",
        rows=_per_channel,
        used=(CPU, PROTECT),
    ),
    Fact(
        name="zero-point",
        says="Where a zero-point input is left away, kernels are lost; with s8 the model may not even load.",
        rows=_zero_point,
        used=(INSERT,),
    ),
    Fact(
        name="levels",
        says="Integer kernels come with EXTENDED, the channels-last forms with ALL: MaxPool on integers is NhwcMaxPool "
        "only there, and only behind a QLinearConv.",
        rows=_levels,
        used=(CPU,),
    ),
    Fact(
        name="versions",
        says="Opset 26 and IR 13 are the newest that load; fusion works at all of them.",
        rows=_versions,
        used=(CPU, "onnxq/ir/load.py"),
    ),
)
