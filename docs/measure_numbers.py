"""Facts: where ONNX Runtime's optimized graph computes something else than Q and DQ literally mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from measure_graph import U8, Enc, Net, difference, verdict
from measure_table import ACCURACY, CPU, OPS, PLANNER, PROTECT, Fact, Rows

from onnxq.runtime.session import Level

LEVELS = (Level.OFF, Level.BASIC, Level.EXTENDED, Level.ALL)


def _softmax() -> Rows:
    rows = [["type", "elements summed", "scale * 255 * elements", "elements off by more than one step"]]
    for kind, zero in (("uint8", 0), ("int8", -128)):
        for size in (2, 256):
            for times in (2.0, 1.73, 1.7, 1.0):
                net, scale = Net(), times / (255 * size)
                x = net.pair(net.input(400, size), Enc(kind, 0.02, zero + 128))
                net.out(net.pair(net.node("Softmax", x, axis=-1), Enc(kind, scale, zero)))
                off = np.abs(net.run(Level.EXTENDED) - net.run()) > 1.01 * scale
                rows.append([kind, str(size), f"{times:g}", "some" if off.any() else "none"])
    return rows


_HEAD = ["kernels at ALL", "largest difference", "greatest output", ""]


def _axis() -> Rows:
    rows = [["op", "weight", "scales along", "bias", *_HEAD]]
    six, step = np.linspace(0.005, 0.03, 6), 0.1
    for axis in (0, 1):
        for bias in ("none", "float", "int32"):
            net = Net()
            x = net.pair(net.input(1, 6, 8, 8))
            operands = [x, net.weight(6, 6, 3, 3, axis=axis, scale=six)]
            if bias == "float":
                operands.append(net.normal(6))
            elif bias == "int32":
                operands.append(net.bias32(6, scale=six * 0.03))
            net.out(net.pair(net.node("Conv", *operands), Enc(scale=step)))
            rows.append(["Conv", "[6, 6, 3, 3]", f"axis {axis}", bias, *verdict(net, step=step)])
    for k, n in ((6, 6), (5, 6)):
        for axis in (1, 0):
            for q in (True, False):
                net = Net()
                y = net.node("MatMul", net.pair(net.input(4, k)), net.weight(k, n, axis=axis))
                net.out(net.pair(y, Enc(scale=step)) if q else y)
                cells = verdict(net, step=step if q else None)
                rows.append(["MatMul + Q" if q else "MatMul", f"[{k}, {n}]", f"axis {axis}", "none", *cells])
    return rows


def _bias_scale() -> Rows:
    rows = [["op", "scale of the int32 bias", *_HEAD]]
    six, step = np.linspace(0.005, 0.03, 6), 0.1
    for op in ("Gemm", "Conv"):
        for label, factor in (("sx * sw", 1.0), ("10 * sx * sw", 10.0)):
            net = Net()
            if op == "Gemm":
                x, w = net.pair(net.input(4, 8)), net.weight(8, 6, axis=1, scale=six)
            else:
                x, w = net.pair(net.input(1, 4, 8, 8)), net.weight(6, 4, 1, 1, scale=six)
            net.out(net.pair(net.node(op, x, w, net.bias32(6, scale=six * 0.03 * factor)), Enc(scale=step)))
            rows.append([op, label, *verdict(net, step=step)])
    return rows


def _double_pairs() -> Rows:
    rows = [["second pair", "level", "conversions left", "elements that differ from optimizations off"]]
    for label, second in (("equal parameters", U8), ("scale 0.05", Enc(scale=0.05)), ("scale 0.02", Enc(scale=0.02))):
        for level, config in (
            (Level.BASIC, {}),
            (Level.ALL, {}),
            (Level.ALL, {"session.disable_double_qdq_remover": "1"}),
        ):
            net = Net()
            net.out(net.pair(net.pair(net.input(64, 64)), second))
            share = float(np.mean(net.run(level, config) != net.run()))
            name = f"{level.name}, disable_double_qdq_remover=1" if config else level.name
            rows.append([label, name, net.conversions(level, config), f"{100 * share:.0f} %"])
    return rows


def _float_weights() -> Rows:
    rows = [["op", "DQ of its input", *_HEAD]]

    def case(op: str, *, behind: bool, axis: bool, relu: bool = False) -> None:
        net = Net()
        shape = (4, 6) if op in ("Gemm", "MatMul") else (1, 6, 8, 8)
        x = net.input(*shape)
        wide = Enc(scale=np.full(6, 0.03), axis=1) if axis else U8
        x = net.dq(net.q(x), wide)
        size = (6, 6) if op in ("Gemm", "MatMul") else (6, 6, 3, 3)
        channels = np.logspace(-2, 0, 6).reshape(-1, *[1] * (len(size) - 1))
        w = net.const(net.rng.normal(0, 0.2, size) * channels)
        attributes: dict[str, Any] = {"transB": 1} if op == "Gemm" else {}
        y = net.node(op, x, w, **attributes)
        y = net.node("Relu", y) if relu else y
        step = 0.001
        net.out(net.pair(y, Enc(scale=step, zero=0 if relu else 128)) if behind else y)
        form = ("per channel, equal scales" if axis else "per tensor") + ("" if behind else "; no Q behind the op")
        form += "; Relu before the Q" if relu else ""
        rows.append([op, form, *verdict(net, step=step if behind else None)])

    for op in ("Conv", "ConvTranspose", "Gemm"):
        case(op, behind=True, axis=False)
        case(op, behind=True, axis=True)
        case(op, behind=True, axis=False, relu=True)
        case(op, behind=True, axis=True, relu=True)
        case(op, behind=False, axis=False)
    case("MatMul", behind=True, axis=False)
    return rows


def _overflow() -> Rows:
    rows = [["op", "bias", "weight scale", "bias / (sx * sw)", *(level.name for level in LEVELS)]]
    shape: tuple[int, ...]
    for op in ("Conv", "Gemm"):
        for scale in (1e-9, 1e-7):
            net = Net()
            if op == "Conv":
                x, shape = net.pair(net.input(1, 2, 2, 2)), (1, 2, 1, 1)
            else:
                x, shape = net.pair(net.input(1, 2)), (2, 1)
            w = net.dq(net.const(np.ones(shape, np.int8)), Enc("int8", scale, 0))
            net.out(net.pair(net.node(op, x, w, net.const(np.array([5.0], np.float32))), Enc(scale=0.05)))
            zeros = {"x0": np.zeros_like(net.feeds()["x0"])}
            got = [f"{net.run(level, feeds=zeros).flat[0]:.2f}" for level in LEVELS]
            rows.append([op, "5.0 (float)", f"{scale:g}", f"{5 / (0.03 * scale):.1e}", *got])
    return rows


def _weight_only() -> Rows:
    rows = [["op", "weight", "option", "kernels at ALL", "conversions left", "greatest difference / greatest output"]]

    def case(label: str, op: str, make: Callable[[Net], str], config: dict[str, str], shape: tuple[int, ...]) -> None:
        net = Net()
        net.out(net.node(op, net.input(*shape), make(net)))
        worst, largest = difference(net, Level.ALL, config)
        option = ", ".join(f"{k.removeprefix('session.')}={v}" for k, v in config.items())
        ratio = worst / largest
        error = "below 1e-5" if ratio < 1e-5 else f"{100 * ratio:.2g} %"
        kernels, left = net.kernels(Level.ALL, config), net.conversions(Level.ALL, config)
        rows.append([op, label, option or "-", kernels, left, error])

    def matrix(axis: int | None) -> Callable[[Net], str]:
        return lambda net: net.weight(64, 32, axis=axis)

    accurate = {"session.qdq_matmulnbits_accuracy_level": "0"}
    case("s8, per channel (axis 1)", "MatMul", matrix(1), {}, (8, 64))
    case("s8, per channel (axis 1)", "MatMul", matrix(1), accurate, (8, 64))
    case("s8, per tensor", "MatMul", matrix(None), {}, (8, 64))
    case("s8, per channel (axis 0)", "MatMul", matrix(0), {}, (8, 64))
    case("s8, per channel (axis 0)", "Conv", lambda n: n.weight(6, 4, 3, 3), {}, (1, 4, 8, 8))
    return rows


def _rounding() -> Rows:
    values = np.array([np.nan, np.inf, -np.inf, 0.5, 1.5, 2.5, -0.5, -1.5, 1e10, -1e10], np.float32)
    rows = [["type, zero point", *("NaN" if np.isnan(v) else f"{v:g}" for v in values)]]
    for type, zero in (("uint8", 0), ("uint8", 128), ("int8", 0), ("int8", -128)):
        net = Net()
        net.out(net.q(net.input(641), Enc(type, 1.0, zero)))
        got = net.run(feeds={"x0": np.resize(values, 641)})
        assert (got == np.resize(got[:10], 641)).all(), "the position of an element matters"
        rows.append([f"{type}, {zero}", *map(str, got[:10])])
    return rows


FACTS = (
    Fact(
        name="axis",
        says="The axis of per-channel weight scales is not checked. Along the wrong one the result is wrong without a "
        "word wherever the sizes happen to fit.",
        rows=_axis,
        used=(OPS,),
        near=True,
    ),
    Fact(
        name="bias-scale",
        says="Gemm takes an int32 bias of any scale and computes as if it were sx * sw; Conv checks it.",
        rows=_bias_scale,
        used=(PLANNER,),
        near=True,
    ),
    Fact(
        name="double-pairs",
        says="Two Q/DQ pairs in a row become one from BASIC on, with another scale: not the same numbers.",
        rows=_double_pairs,
        used=(ACCURACY,),
        near=True,
    ),
    Fact(
        name="float-weights",
        says="Between a per-tensor DQ and a Q, ORT quantizes float weights itself, with one scale per tensor. A "
        "per-channel DQ with equal scales has the same values and stops it.",
        rows=_float_weights,
        used=(CPU, PROTECT),
        near=True,
    ),
    Fact(
        name="bias-overflow",
        says="A float bias that does not fit into int32 with scale sx * sw is lost on load, from BASIC on. With wider "
        "weight scales it fits.",
        rows=_overflow,
        used=(PLANNER,),
    ),
    Fact(
        name="weight-only",
        says="DQ on the weight alone: MatMul becomes MatMulNBits, which by default quantizes the activations, too; "
        "Conv dequantizes its weights in every run.",
        rows=_weight_only,
        near=True,
    ),
    Fact(
        name="softmax",
        says="QLinearSoftmax gives 0 for the greatest values where the scale of its result times 255 times the number "
        "of summed elements is below e - 1.",
        rows=_softmax,
        used=("onnxq/plan/integers.py", "passes/onnxq_passes/fuse_qlinear_elementwise.py"),
    ),
    Fact(
        name="rounding",
        says="QuantizeLinear with scale 1: NaN becomes the type's minimum, ties go to the even "
        "neighbour (before the zero point is added), infinities saturate.",
        rows=_rounding,
        used=("onnxq/numerics.py",),
    ),
)
