"""The rules about what ONNX Runtime's optimizer does, against that optimizer: a rule is broken exactly where the
numbers at level BASIC are others than those without optimizations, or where the file does not run.
"""

from __future__ import annotations

import numpy as np
import pytest

from onnxq.errors import ModelError
from onnxq.ir.save import to_bytes
from onnxq.ir.text import parse
from onnxq.plan.check import check
from onnxq.runtime.session import Level, Session
from onnxq.targets.target import load_target

HEAD = '<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]> g '
VALUES = "float s = {0.1}, float t = {0.037}, uint8 z = {128}, uint8 w = {100}, int8 n = {0}, float same = {0.1}, "
VALUES += "int16 a = {0}, int16 b = {100}, float u = {0.001}, float v = {0.0037}, int64[1] axes = {0}, float[64] "
VALUES += "vs = {" + ", ".join(["0.1"] * 64) + "}, uint8[64] vz = {" + ", ".join(["128"] * 64) + "}"
FIRST = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) "
SECOND = "r = QuantizeLinear(d, t, w) y = DequantizeLinear(r, t, w) "


def told(source: str, rule: str) -> bool:
    return rule in {v.rule for v in check(parse(source), load_target("cpu", reduce_range=False))}


def changed(source: str) -> bool:
    """ONNX Runtime's optimizer changes the numbers, or makes a model that does not run."""
    model = to_bytes(parse(source))
    shape = [d for d in Session(model, level=Level.OFF).inputs[0].shape if isinstance(d, int)]
    most = 9 if len(shape) == 1 else 2  # little saturates
    feeds = {"x": np.linspace(-most, most, 64, dtype=np.float32).reshape(shape)}
    exact = Session(model, level=Level.OFF, threads=1).run(feeds)
    for level in (Level.BASIC, Level.ALL):
        try:
            found = Session(model, level=level, threads=1).run(feeds)
        except ModelError:
            return True
        # a tenth of the finest step here: what float sums differ by is far less
        if any(np.abs(found[k].astype(np.float64) - exact[k]).max() > 1e-4 for k in exact):
            return True
    return False


@pytest.mark.parametrize(
    ("body", "outputs", "wrong"),
    [
        (FIRST + SECOND, "float[64] y", True),
        (FIRST + SECOND.replace("t, w", "s, w"), "float[64] y", True),
        (FIRST + SECOND + "k = DequantizeLinear(r, t, w)", "float[64] y, float[64] k", True),
        (FIRST.replace("s, z", "u, a") + SECOND.replace("t, w", "v, b"), "float[64] y", True),
        (FIRST + SECOND.replace("y =", "e =") + "o = QuantizeLinear(e, s, z) y = DequantizeLinear(o, s, z)", "", True),
        # near-misses
        (FIRST + SECOND.replace("t, w", "s, z"), "float[64] y", False),  # equal
        (FIRST + SECOND.replace("t, w", "same, z"), "float[64] y", False),
        (FIRST + SECOND.replace("t, w", "t, n"), "float[64] y", False),  # another type
        (FIRST + SECOND + "k = Abs(d)", "float[64] y, float[64] k", False),
        (FIRST + SECOND, "float[64] y, float[64] d", False),
        (FIRST + SECOND + "k = DequantizeLinear(q, s, z)", "float[64] y, float[64] k", False),
        (FIRST + SECOND, "float[64] y, uint8[64] q", False),
        (FIRST + SECOND, "float[64] y, uint8[64] r", False),
        (FIRST + SECOND + "k = DequantizeLinear(r, s, w)", "float[64] y, float[64] k", False),
        (FIRST + SECOND + "k = com.microsoft.QLinearSigmoid(r, t, w, s, z)", "float[64] y, uint8[64] k", False),
        (FIRST + "y = QuantizeLinear(d, t, w)", "uint8[64] y", False),
        (FIRST.replace("d = DequantizeLinear(q, s, z)", "d = DequantizeLinear(q, t, z)") + SECOND, "", False),
        (FIRST + SECOND.replace("y = DequantizeLinear(r, t, w)", "y = DequantizeLinear(r, s, w)"), "", False),
        (FIRST.replace("q, s, z", "q, s") + SECOND.replace("t, w", "t"), "", False),  # no zero points
        (
            FIRST.replace("d = DequantizeLinear(q, s, z)", "d = DequantizeLinear<axis = 0>(q, vs, vz)") + SECOND,
            "",
            False,
        ),
        (FIRST + "e = Unsqueeze(d, axes) " + SECOND.replace("(d,", "(e,"), "float[1,64] y", False),
    ],
)
def test_double_pairs(body: str, outputs: str, wrong: bool) -> None:
    source = f"{HEAD} (float[64] x) => ({outputs or 'float[64] y'}) <{VALUES}> {{ {body} }}"
    assert changed(source) == wrong
    assert told(source, "double-pairs") == wrong


NET = (
    "float s = {0.02}, float t = {0.05}, float tiny = {1e-9}, uint8 z = {120}, int8 n = {0}, int64[2] rows = {32, 2}, "
)
NET += "float[2,2,1,1] W = {0.511, -0.213, 0.3, 0.7}, float[2,2] G = {0.511, -0.213, 0.3, 0.7}, float[2] B = {5, 0.1}, "
NET += "int8[2,2,1,1] I = {51, -21, 30, 70}, int8[2,2] J = {51, -21, 30, 70}, float[2] vs = {0.02, 0.02}, "
NET += "uint8[2] vz = {120, 120}, float[2,1,1,1] blocks = {0.01, 0.02}, int8[2,1,1,1] bz = {0, 0}"
PAIR = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) "
CHANNELS = "q = QuantizeLinear(x, s, z) d = DequantizeLinear<axis = 1>(q, vs, vz) "
END = "r = QuantizeLinear(a, t, z) y = DequantizeLinear(r, t, z) "
ROWS = PAIR + "f = Reshape(d, rows) e = QuantizeLinear(f, s, z) h = DequantizeLinear(e, s, z) "
SMALL = "i = DequantizeLinear(I, tiny, n) "
FITS = "i = DequantizeLinear(I, s, n) "
BLOCKS = "i = DequantizeLinear<axis = 1, block_size = 2>(I, blocks, bz) "


def net(body: str, outputs: str = "float[A,B,C,D] y") -> str:
    return f"{HEAD} (float[1,2,4,8] x) => ({outputs}) <{NET}> {{ {body} }}"


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        (net(PAIR + "a = Conv(d, W) " + END), True),
        (net(PAIR + "b = Conv(d, W) a = Relu(b) " + END), True),
        (net(PAIR + "b = Conv(d, W) a = Transpose(b) " + END), True),
        (net(PAIR + "a = ConvTranspose(d, W) " + END), True),
        (net(PAIR + "a = Conv(d, W) " + END, "float[A,B,C,D] y, float[A,B,C,D] a"), True),
        (net(ROWS + "a = Gemm(h, G) " + END, "float[A,B] y"), True),
        (net(ROWS + "a = MatMul(h, G) " + END, "float[A,B] y"), False),
        (net(PAIR + "b = Conv(d, W) a = Sigmoid(b) " + END), False),
        (net(PAIR + "y = Conv(d, W) "), False),
        (net(PAIR + "a = Conv(d, W) k = Abs(a) " + END, "float[A,B,C,D] y, float[A,B,C,D] k"), False),
        (net(PAIR + "a = Conv(d, W) u = QuantizeLinear(a, s, z) " + END, "float[A,B,C,D] y, uint8[A,B,C,D] u"), False),
        (net(CHANNELS + "a = Conv(d, W) " + END), False),
        (net("a = Conv(x, W) " + END), False),
        (net(PAIR + FITS + "a = Conv(d, i) " + END), False),
    ],
)
def test_float_weights(source: str, wrong: bool) -> None:
    assert changed(source) == wrong
    assert told(source, "float-weights") == wrong


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        (net(PAIR + SMALL + "a = Conv(d, i, B) " + END), True),
        (net(PAIR + SMALL + "b = Conv(d, i, B) a = Relu(b) " + END), True),
        (net(PAIR + FITS + "a = Conv(d, i, B) " + END), False),
        (net(PAIR + SMALL + "y = Conv(d, i, B) "), False),
        (net(SMALL + "a = Conv(x, i, B) " + END), False),
        (net(ROWS + "j = DequantizeLinear(J, tiny, n) a = Gemm(h, j, B) " + END, "float[A,B] y"), True),
        (net(ROWS + "j = DequantizeLinear(J, s, n) a = Gemm(h, j, B) " + END, "float[A,B] y"), False),
    ],
)
def test_bias_range(source: str, wrong: bool) -> None:
    assert changed(source) == wrong
    assert told(source, "bias-range") == wrong


@pytest.mark.parametrize(
    ("source", "rule", "wrong"),
    [
        (net(PAIR + BLOCKS + "a = Conv(d, i) " + END), "weight-blocks", True),
        (net(BLOCKS + "a = Conv(x, i) " + END), "weight-blocks", False),
        (net(CHANNELS + FITS + "a = Conv(d, i) " + END), "activations-per-tensor", True),
        (net(PAIR + FITS + "a = Conv(d, i) " + END), "activations-per-tensor", False),
    ],
)
def test_what_no_kernel_takes(source: str, rule: str, wrong: bool) -> None:
    assert changed(source) == wrong
    assert told(source, rule) == wrong
