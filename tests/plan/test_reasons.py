"""Each reason why an op stays float: removing the cause makes ONNX Runtime run the op in an integer kernel."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quantized import quantize_text
from sentences import sentences, unsaid

from onnxq.optable import OP_TABLE
from onnxq.plan import planner, reasons, select, vetoes
from onnxq.targets.target import load_target

HEAD = '<ir_version: 10, opset_import: ["": 21]>\n'


def _w(*shape: int, scale: float = 0.1) -> np.ndarray:
    return np.random.default_rng(1).normal(0, scale, shape).astype(np.float32)


CONV = HEAD + "g (float[1,4,8,8] x) => (float[1,4,8,8] y) <float[4,4,3,3] W = {0}> { y = Conv <pads=[1,1,1,1]> (x, W) }"


@dataclass
class Case:
    """`broken` has the cause, `mended` has not; `op` is the op that is looked at."""

    reason: str
    op: str
    kernel: str
    broken: str
    mended: str
    broken_options: dict[str, Any] = field(default_factory=dict)
    mended_options: dict[str, Any] = field(default_factory=dict)
    twin: str = ""  # no cure, since the op is the cause: its nearest relative that has an integer kernel


def graph(body: str, *, ins: str = "float[1,4,8,8] x", outs: str = "float[1,4,8,8] y", inits: str = "") -> str:
    values = f" <{inits}>" if inits else ""
    return f"{HEAD}g ({ins}) => ({outs}){values} {{ {body} }}"


W = {"W": _w(4, 4, 3, 3)}
W2 = {"W": _w(4, 4, 3, 3), "V": _w(4, 4, 3, 3)}
PADS = "<pads=[1,1,1,1]>"
INIT = "float[4,4,3,3] W = {0}"
INIT2 = "float[4,4,3,3] W = {0}, float[4,4,3,3] V = {0}"
VOLUME = "y = Conv <pads=[1,1,1,1,1,1]> (x, W)"
FIRST = ", int64[1] i = {0}"
POOL = f"a = Conv {PADS} (x, W) c = MaxPool <kernel_shape=[2,2]> (a) y = Conv {PADS} (c, W)"
POOLED = "r = Sigmoid(a) p = AveragePool <kernel_shape=[3,3], pads=[1,1,1,1]> (r)"
RESIZE = f"a = Conv {PADS} (x, W) c = Resize {{}} (a, {{}}, s) y = Conv {PADS} (c, W)"
DOUBLED = {
    "inits": INIT + ", float[4] s = {1,1,2,2}, float[8] roi = {0,0,0,0,1,1,1,1}",
    "outs": "float[1,4,16,16] y",
}
CLIPPED = f"a = Conv {PADS} (x, W) c = Add(a, k) r = Clip(c, , hi) y = Conv {PADS} (r, V)"
JOINED = "a = Conv <pads=[1,1,1,1]> (x, W) j = Concat <axis = 0> (a, a) z = Conv(j, W) {} {}"
IF = (
    "y = If (q) <then_branch = t () => (float[K,L,M,N] p) {{ p = Abs({0}) }}, "
    "else_branch = e () => (float[K,L,M,N] r) {{ r = Neg({0}) }}>"
)
CAPTURED = {"ins": "float[1,4,8,8] x, bool q", "outs": "float[K,L,M,N] y", "inits": INIT}
MOVED = f"n = Neg(x) t = Transpose <perm = [0,1,3,2]> (n) u = Relu(t) y = Conv {PADS} (u, W)"

CASES = [
    Case(
        'kept float by the pattern "Conv"',
        "Conv",
        "QLinearConv",
        graph(f"y = Conv {PADS} (x, W)", inits=INIT),
        graph(f"y = Conv {PADS} (x, W)", inits=INIT),
        {"keep_float": ["Conv"], "constants": W},
        {"constants": W},
    ),
    Case(
        "both operands are computed at run time: only products with constant weights are made integer, since uint8 x "
        "uint8 is slower than uint8 x int8",
        "MatMul",
        "MatMulIntegerToFloat",
        graph("V = Relu(W) y = MatMul(x, V)", ins="float[2,8] x, float[8,4] W", outs="float[2,4] y"),
        graph("y = MatMul(x, W)", ins="float[2,8] x", outs="float[2,4] y", inits="float[8,4] W = {0}"),
        {},
        {"constants": {"W": _w(8, 4)}},
    ),
    Case(
        "its weight is made of constants at run time, by Transpose: let fold-constants fold it, if need be with a "
        "higher limit",
        "MatMul",
        "MatMulIntegerToFloat",
        graph(
            "U = Abs(W) V = Transpose(U) y = MatMul(x, V)",
            ins="float[2,8] x",
            outs="float[2,4] y",
            inits="float[4,8] W = {0}",
        ),
        graph("y = MatMul(x, W)", ins="float[2,8] x", outs="float[2,4] y", inits="float[8,4] W = {0}"),
        {"constants": {"W": _w(4, 8)}},
        {"constants": {"W": _w(8, 4)}},
    ),
    Case(
        "its weight is computed at run time: only constant weights become integers",
        "Conv",
        "QLinearConv",
        graph(f"V = Relu(W) y = Conv {PADS} (x, V)", ins="float[1,4,8,8] x, float[4,4,3,3] W"),
        graph(f"y = Conv {PADS} (x, W)", inits=INIT),
        {},
        {"constants": W},
    ),
    Case(
        "its bias is computed at run time, not constant",
        "Conv",
        "QLinearConv",
        graph(f"b = Relu(a) y = Conv {PADS} (x, W, b)", ins="float[1,4,8,8] x, float[4] a", inits=INIT),
        graph(f"y = Conv {PADS} (x, W, b)", inits=INIT + ", float[4] b = {1, 2, 3, 4}"),
        {"constants": W},
        {"constants": W},
    ),
    Case(
        "no sample reached y, so its range is unknown",
        "Conv",
        "QLinearConv",
        graph(f"y = Conv {PADS} (x, W)", inits=INIT),
        graph(f"y = Conv {PADS} (x, W)", inits=INIT),
        {"constants": W, "unreached": ["y"]},
        {"constants": W},
    ),
    Case(
        "the integer Gemm with a bias wants alpha = beta = 1",
        "Gemm",
        "QGemm",
        graph(
            "y = Gemm <alpha = 0.5> (x, W, b)",
            ins="float[2,8] x",
            outs="float[2,4] y",
            inits="float[8,4] W = {0}, float[4] b = {1,2,3,4}",
        ),
        graph(
            "y = Gemm <alpha = 1.0> (x, W, b)",
            ins="float[2,8] x",
            outs="float[2,4] y",
            inits="float[8,4] W = {0}, float[4] b = {1,2,3,4}",
        ),
        {"constants": {"W": _w(8, 4)}},
        {"constants": {"W": _w(8, 4)}},
    ),
    Case(
        "its bias has shape [2, 4]: a scale per output channel needs [4]",
        "Gemm",
        "QGemm",
        graph(
            "y = Gemm (x, W, b)",
            ins="float[2,8] x",
            outs="float[2,4] y",
            inits="float[8,4] W = {0}, float[2,4] b = {1,2,3,4,5,6,7,8}",
        ),
        graph(
            "y = Gemm (x, W, b)",
            ins="float[2,8] x",
            outs="float[2,4] y",
            inits="float[8,4] W = {0}, float[4] b = {1,2,3,4}",
        ),
        {"constants": {"W": _w(8, 4)}},
        {"constants": {"W": _w(8, 4)}},
    ),
    Case(
        "its weight holds NaN or Inf",
        "Conv",
        "QLinearConv",
        graph(f"y = Conv {PADS} (x, W)", inits=INIT),
        graph(f"y = Conv {PADS} (x, W)", inits=INIT),
        {"constants": {"W": np.full_like(W["W"], np.inf)}},
        {"constants": W},
    ),
    Case(
        "its bias holds NaN or Inf",
        "Conv",
        "QLinearConv",
        graph(f"y = Conv {PADS} (x, W, b)", inits=INIT + ", float[4] b = {0}"),
        graph(f"y = Conv {PADS} (x, W, b)", inits=INIT + ", float[4] b = {0}"),
        {"constants": {**W, "b": np.array([1, np.nan, 3, 4], np.float32)}},
        {"constants": {**W, "b": np.array([1, 2, 3, 4], np.float32)}},
    ),
    Case(
        "its data operand is constant",
        "MatMul",
        "QLinearMatMul",
        graph("m = MatMul(W, x) y = Neg(m)", ins="float[8,2] x", outs="float[4,2] y", inits="float[4,8] W = {0}"),
        graph(
            "m = MatMul(x, W) y = MatMul(m, V)",
            ins="float[2,8] x",
            outs="float[2,4] y",
            inits="float[8,4] W = {0}, float[4,4] V = {0}",
        ),
        {"constants": {"W": _w(4, 8)}},
        {"constants": {"W": _w(8, 4), "V": _w(4, 4)}},
    ),
    Case(
        "its result is only used in float: 8 bits would add error and save nothing",
        "Add",
        "QLinearAdd",
        graph(f"a = Conv {PADS} (x, W) b = Conv {PADS} (x, V) y = Add(a, b)", inits=INIT2),
        graph(f"a = Conv {PADS} (x, W) b = Conv {PADS} (x, V) c = Add(a, b) y = Conv {PADS} (c, V)", inits=INIT2),
        {"constants": W2},
        {"constants": W2},
    ),
    Case(
        "its input is float: it comes from Sin",
        "Add",
        "QLinearAdd",
        graph(f"a = Conv {PADS} (x, W) b = Sin(x) c = Add(a, b) y = Conv {PADS} (c, V)", inits=INIT2),
        graph(f"a = Conv {PADS} (x, W) c = Add(a, x) y = Conv {PADS} (c, V)", inits=INIT2),
        {"constants": W2},
        {"constants": W2},
    ),
    Case(
        "a has a range of 1.3e+03 and x one of 3.11: in one 8-bit scale the narrow one would lose 9 of its 8 bits",
        "Concat",
        "QLinearConcat",
        graph(
            f"a = Conv {PADS} (x, W) c = Concat <axis=0> (a, x) y = Conv {PADS} (c, V)",
            inits=INIT2,
            outs="float[2,4,8,8] y",
        ),
        graph(
            f"a = Conv {PADS} (x, W) c = Concat <axis=0> (a, x) y = Conv {PADS} (c, V)",
            inits=INIT2,
            outs="float[2,4,8,8] y",
        ),
        {"constants": {"W": _w(4, 4, 3, 3, scale=100.0), "V": _w(4, 4, 3, 3)}},
        {"constants": W2},
    ),
    Case(
        "the factors in its constant k keep only 20 dB in one 8-bit scale",
        "Mul",
        "QLinearMul",
        graph(
            f"a = Conv {PADS} (x, W) c = Mul(a, k) y = Conv {PADS} (c, V)",
            inits=INIT2 + ", float[4,1,1] k = {1000.0, 0.5, 0.7, 0.1}",
        ),
        graph(
            f"a = Conv {PADS} (x, W) c = Mul(a, k) y = Conv {PADS} (c, V)",
            inits=INIT2 + ", float[4,1,1] k = {1.0, 0.5, 0.7, 0.1}",
        ),
        {
            "constants": {
                **W2,
                "k": np.array([30.0, 0.4, 0.4, 0.4], np.float32).reshape(4, 1, 1) * np.float32(np.pi / 3),
            }
        },
        {"constants": W2},
    ),
    Case(
        "the integer MaxPool is slower than the float one unless an integer Conv, QuickGelu, HardSwish, Gelu or "
        "MaxPool feeds it",
        "MaxPool",
        "NhwcMaxPool",
        graph(
            f"a = Sin(x) z = Conv {PADS} (a, W) c = MaxPool <kernel_shape=[2,2]> (a) y = Conv {PADS} (c, W)",
            inits=INIT,
            outs="float[1,4,7,7] y, float[1,4,8,8] z",
        ),
        graph(
            f"a = Conv {PADS} (x, W) c = MaxPool <kernel_shape=[2,2]> (a) y = Conv {PADS} (c, W)",
            inits=INIT,
            outs="float[1,4,7,7] y",
        ),
        {"constants": W},
        {"constants": W},
    ),
    Case(
        "Resize with mode linear computes new values, only nearest moves them",
        "Resize",
        "Resize",
        graph(
            f'a = Conv {PADS} (x, W) c = Resize <mode="linear"> (a, , s) y = Conv {PADS} (c, W)',
            inits=INIT + ", float[4] s = {1,1,2,2}",
            outs="float[1,4,16,16] y",
        ),
        graph(
            f'a = Conv {PADS} (x, W) c = Resize <mode="nearest"> (a, , s) y = Conv {PADS} (c, W)',
            inits=INIT + ", float[4] s = {1,1,2,2}",
            outs="float[1,4,16,16] y",
        ),
        {"constants": W},
        {"constants": W},
    ),
    Case(
        "the result of the op before it stays float or has other users, so Relu cannot vanish into it",
        "Relu",
        "QLinearConv",
        graph(f"a = Conv {PADS} (x, W) r = Relu(a) y = Add(a, r)", inits=INIT),
        graph(f"a = Conv {PADS} (x, W) y = Relu(a)", inits=INIT),
        {"constants": W},
        {"constants": W},
    ),
    Case(
        "its bounds are computed at run time",
        "Clip",
        "QLinearConv",
        graph(f"a = Conv {PADS} (x, W) y = Clip(a, lo)", ins="float[1,4,8,8] x, float lo", inits=INIT),
        graph(f"a = Conv {PADS} (x, W) y = Clip(a, lo)", inits=INIT + ", float lo = {0}"),
        {"constants": W, "inputs": {"lo": np.array(0.0, np.float32)}},
        {"constants": W},
    ),
    Case(
        "its bounds leave out 0, which every 8-bit range contains",
        "Clip",
        "QLinearConv",
        graph(f"a = Conv {PADS} (x, W) y = Clip(a, lo)", inits=INIT + ", float lo = {0.25}"),
        graph(f"a = Conv {PADS} (x, W) y = Clip(a, lo)", inits=INIT + ", float lo = {-0.25}"),
        {"constants": W},
        {"constants": W},
    ),
    Case(
        "over 3 axes, the integer Conv is slower than the float one with fewer than 32 channels in a run, and it has 4",
        "Conv",
        "QLinearConv",
        graph(VOLUME, ins="float[1,4,4,4,4] x", outs="float[1,4,4,4,4] y", inits="float[4,4,3,3,3] W = {0}"),
        graph(VOLUME, ins="float[1,32,4,4,4] x", outs="float[1,4,4,4,4] y", inits="float[4,32,3,3,3] W = {0}"),
        {"constants": {"W": _w(4, 4, 3, 3, 3)}},
        {"constants": {"W": _w(4, 32, 3, 3, 3)}},
    ),
    Case(
        "it works on an attention mask, whose large negative values must not set a range",
        "Add",
        "QLinearAdd",
        graph(
            f"a = Conv {PADS} (x, W) b = Conv {PADS} (x, V) p = Mul(m, k) c = Add(b, p)"
            f" d = Add(a, c) y = Conv {PADS} (d, W)",
            ins="float[1,4,8,8] x, float[1,1,1,8] m",
            inits=INIT2 + ", float k = {-1000000000.0}",
        ),
        graph(
            f"a = Conv {PADS} (x, W) b = Conv {PADS} (x, V) d = Add(a, b) y = Conv {PADS} (d, W)",
            inits=INIT2,
        ),
        {"constants": W2, "inputs": {"m": np.array([0, 0, 0, 0, 0, 0, 1, 1], np.float32).reshape(1, 1, 1, 8)}},
        {"constants": W2},
    ),
    Case(
        "no integer op stands before it that Relu could vanish into",
        "Relu",
        "QLinearConv",
        graph("a = Sin(x) y = Relu(a)"),
        graph(f"a = Conv {PADS} (x, W) y = Relu(a)", inits=INIT),
        {},
        {"constants": W},
    ),
    Case(
        "ONNX Runtime's CPU has no integer kernel for ConvTranspose",
        "ConvTranspose",
        "QLinearConv",
        graph(f"y = ConvTranspose {PADS} (x, W)", inits=INIT),
        graph(f"y = Conv {PADS} (x, W)", inits=INIT),
        {"constants": W},
        {"constants": W},
        twin="Conv",
    ),
    Case(
        "it reads a constant table: only weights of heavy ops are quantized",
        "Gather",
        "Gather",
        graph(
            f"b = Gather <axis=0> (table, i) y = Conv {PADS} (b, W)",
            ins="int64[1] i",
            inits=INIT + ", float[3,4,8,8] table = {0}",
        ),
        graph(f"a = Conv {PADS} (x, W) b = Gather <axis=0> (a, i) y = Conv {PADS} (b, W)", inits=INIT + FIRST),
        {"constants": W, "inputs": {"i": np.array([2])}},
        {"constants": W},
    ),
    Case(
        "cpu has no integer kernel for Tanh",
        "Tanh",
        "QLinearSigmoid",
        graph(f"a = Conv {PADS} (x, W) b = Tanh(a) y = Conv {PADS} (b, W)", inits=INIT),
        graph(f"a = Conv {PADS} (x, W) b = Sigmoid(a) y = Conv {PADS} (b, W)", inits=INIT),
        {"constants": W},
        {"constants": W},
        twin="Sigmoid",
    ),
    Case(
        "integers compute HardSwish faster on some machines only, and no measured cost asks for it",
        "HardSwish",
        "QLinearSigmoid",
        graph(f"a = Conv {PADS} (x, W) b = HardSwish(a) y = Conv {PADS} (b, W)", inits=INIT),
        graph(f"a = Conv {PADS} (x, W) b = Sigmoid(a) y = Conv {PADS} (b, W)", inits=INIT),
        {"constants": W},
        {"constants": W},
        twin="Sigmoid",
    ),
    Case(
        "its input is float: it comes from a graph input",
        "Add",
        "QLinearAdd",
        graph(
            f"a = Conv {PADS} (x, W) c = Add(a, u) y = Conv {PADS} (c, W)",
            ins="float[1,4,8,8] x, float[1,4,8,8] u",
            inits=INIT,
        ),
        graph(f"a = Conv {PADS} (x, W) c = Add(a, x) y = Conv {PADS} (c, W)", inits=INIT),
        {"constants": W},
        {"constants": W},
    ),
    Case(
        "its operand is int64, not float32",
        "Gather",
        "Gather",
        graph(
            f"i = Neg(k) b = Gather(n, i) d = Cast <to=1> (b) e = Add(x, d) y = Conv {PADS} (e, W)",
            ins="float[1,4,8,8] x, int64[1] n, int64[1] k",
            inits=INIT,
        ),
        graph(
            f"i = Neg(k) a = Conv {PADS} (x, W) b = Gather(a, i) y = Conv {PADS} (b, W)",
            ins="float[1,4,8,8] x, int64[1] k",
            inits=INIT,
        ),
        {"constants": W, "inputs": {"k": np.array([0])}},
        {"constants": W, "inputs": {"k": np.array([0])}},
    ),
    Case(
        "its input comes from a float op",
        "Add",
        "QLinearAdd",
        graph(f"a = Conv {PADS} (x, W) {POOLED} c = Add(p, a) y = Conv {PADS} (c, V)", inits=INIT2),
        graph(f"a = Conv {PADS} (x, W) r = Sigmoid(a) c = Add(r, a) y = Conv {PADS} (c, V)", inits=INIT2),
        {"constants": W2},
        {"constants": W2},
    ),
    Case(
        "tensorrt fuses it with its neighbours by itself",
        "Relu",
        "QLinearConv",
        graph(f"a = Conv {PADS} (x, W) y = Relu(a)", inits=INIT),
        graph(f"a = Conv {PADS} (x, W) y = Relu(a)", inits=INIT),
        {"constants": W, "target": "tensorrt"},
        {"constants": W},
    ),
    Case(
        "MaxPool takes 8-bit integers from opset 12 on, the model has 11",
        "MaxPool",
        "NhwcMaxPool",
        graph(POOL, inits=INIT, outs="float[1,4,7,7] y").replace("21", "11"),
        graph(POOL, inits=INIT, outs="float[1,4,7,7] y").replace("21", "13"),
        {"constants": W},
        {"constants": W},
    ),
    Case(
        "the Indices output of MaxPool depends on ties",
        "MaxPool",
        "NhwcMaxPool",
        graph(POOL.replace("c = ", "c, i = "), inits=INIT, outs="float[1,4,7,7] y, int64[1,4,7,7] i"),
        graph(POOL, inits=INIT, outs="float[1,4,7,7] y"),
        {"constants": W},
        {"constants": W},
    ),
    Case(
        "Resize with tf_crop_and_resize writes an extrapolation value",
        "Resize",
        "Resize",
        graph(RESIZE.format('<coordinate_transformation_mode="tf_crop_and_resize">', "roi"), **DOUBLED),
        graph(RESIZE.format('<coordinate_transformation_mode="asymmetric">', ""), **DOUBLED),
        {"constants": W},
        {"constants": W},
    ),
    Case(
        "its constant k is empty or not finite",
        "Add",
        "QLinearAdd",
        graph(CLIPPED, inits=INIT2 + ", float[1] k = {1}, float hi = {1}"),
        graph(CLIPPED, inits=INIT2 + ", float[1] k = {1}, float hi = {1}"),
        {"constants": {**W2, "k": np.array([np.inf], np.float32)}},
        {"constants": W2},
    ),
    Case(
        "a body of If, Loop or Scan reads the Transpose behind it: ONNX Runtime aborts on that when it is quantized",
        "Concat",
        "QLinearConcat",
        graph(JOINED.format("b = Transpose(j) n = ReduceSum(z) d = Add(b, n)", IF.format("b")), **CAPTURED),
        graph(JOINED.format("b = Exp(j) n = ReduceSum(z) d = Add(b, n)", IF.format("d")), **CAPTURED),
        {"constants": W, "inputs": {"q": np.array(True)}},
        {"constants": W, "inputs": {"q": np.array(True)}},
    ),
    Case(
        "ONNX Runtime would quantize the model's output n, too, which is moved into it",
        "Conv",
        "QLinearConv",
        graph(MOVED, inits=INIT, outs="float[1,4,8,8] n, float[1,4,8,8] y"),
        graph(MOVED, inits=INIT),
        {"constants": W},
        {"constants": W},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.reason[:40])
def test_removing_the_cause_makes_it_integer(case: Case) -> None:
    broken = quantize_text(case.broken, **case.broken_options)
    reasons = [d.reason for d in broken.plan.decisions.values() if d.op == case.op and not d.integer]
    assert case.reason in reasons, (reasons, broken.plan.decisions)
    mended = quantize_text(case.mended, **case.mended_options)
    decisions = [d for d in mended.plan.decisions.values() if d.op == (case.twin or case.op)]
    assert decisions and all(d.integer for d in decisions), mended.plan.decisions
    assert mended.kernels()[case.kernel] >= 1, mended.kernels()
    if case.kernel.startswith("Q") and case.kernel not in ("QLinearConv",):
        assert broken.kernels()[case.kernel] == 0, broken.kernels()
    heavy = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul"}
    assert not heavy & set(mended.kernels()), "a heavy op was left in float without a word"


def test_a_target_of_one_type_does_not_speak_of_speed() -> None:
    source = graph("V = Relu(W) y = MatMul(x, V)", ins="float[2,8] x, float[8,4] W", outs="float[2,4] y")
    (decision,) = (d for d in quantize_text(source, target="tensorrt").plan.decisions.values() if d.op == "MatMul")
    assert decision.reason == (
        "both operands are computed at run time: only products with constant weights are made integer"
    )


@pytest.mark.parametrize("body", ["V = Mul(W, k)", "V = Relu(W)" + "".join(f" V{i} = Relu(W)" for i in range(3))])
def test_a_weight_that_reads_an_input_is_not_made_of_constants(body: str) -> None:
    source = graph(
        f"{body} y = MatMul(x, V)", ins="float[2,8] x, float[8,4] W", outs="float[2,4] y", inits="float k = {2}"
    )
    decisions = quantize_text(source).plan.decisions.values()
    assert [d.reason.partition(":")[0] for d in decisions if d.op == "MatMul"] == [
        "both operands are computed at run time"
    ]


ELSEWHERE = {
    "it stands in a body of If, Loop or Scan, where tensorrt is not known to run int8": (
        "tests/plan/test_bodies.py",
        "def test_a_target_may_leave_bodies_float",
        "def test_both_branches_of_if_are_integer",
    ),
    "it reads an initializer that a caller may override (--keep-overridable)": (
        "tests/test_quantization.py",
        "def test_keep_overridable_keeps_them_and_their_consumers_float",
        "def test_overridable_initializers_become_constants_and_it_is_said",
    ),
}
"""Reason -> the file with its cause and its cure, which take a whole job."""
NO_REASONS = (
    "has\\ no\\ range\\ and",
    "The\\ weight\\ scales",
    "and\\ others",
    "an\\ input\\ of",
    "the\\ graph\\ around",
)
"""What else the planner says: an assertion, a note, and where an input comes from (tests/plan/test_bodies.py)."""


def test_every_reason_of_planning_has_a_case() -> None:
    """A reason that is added to these modules without a case above fails here."""
    moves = [OP_TABLE[op].moves for op, kernel in load_target("cpu").kernels.items() if kernel.kind == "movement"]
    sources = [reasons, select, planner, vetoes, *{m.__name__: m for m in moves if m is not None}.values()]
    said = [c.reason for c in CASES] + list(ELSEWHERE)
    wanted = [s for source in sources for s in sentences(source) if not any(n in s for n in NO_REASONS)]
    assert len(wanted) > 30
    assert unsaid(wanted, said) == []
    assert unsaid(wanted, said[1:]) == ['kept\\ float\\ by\\ the\\ pattern\\ ".*"']


def test_tests_that_stand_elsewhere_stand_there() -> None:
    root = Path(__file__).parents[2]
    for path, *tests in ELSEWHERE.values():
        assert all(test in (root / path).read_text(encoding="utf-8") for test in tests)
