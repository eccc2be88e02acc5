"""Which kernels for dynamic and for weight-only quantization ONNX Runtime's CPU has, how exact and how fast they are:
`python docs/measure_kinds.py` prints the tables of docs/kinds.md.

Times are processor times of one thread, the forms in turns, as ratios to the float MatMul. `--quick` takes fewer
shapes and less time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from measure_graph import Enc, Net
from measure_table import Fact, markdown

from onnxq.blocks import in_blocks
from onnxq.encoding import Granularity, PerChannel, PerTensor, Scheme
from onnxq.errors import ModelError
from onnxq.numerics import affine, quantize
from onnxq.placement.race import race
from onnxq.runtime.session import Level, Session

SHAPES = ((384, 384), (384, 1536), (1536, 384), (1024, 1024), (4096, 1024), (4096, 4096))
"""K, N of the weight."""
ROWS = (1, 16, 128, 512)
Array = np.ndarray[Any, Any]


def matmul(net: Net, x: str, w: Array) -> str:
    return str(net.node("MatMul", x, net.const(w)))


def static(net: Net, x: str, w: Array) -> str:
    """Q, DQ in front of data, weights in int8 per column: the form of insert-qdq."""
    scale = np.abs(w).max(axis=0) / 127
    levels = np.rint(w / scale).astype(np.int8)
    data = net.pair(x, Enc("uint8", 9 / 255, 128))
    return str(net.node("MatMul", data, net.dq(net.const(levels), Enc("int8", scale, 0, 1))))


def dynamic(kind: Any, *, per_column: bool = True) -> Callable[[Net, str, Array], str]:
    def form(net: Net, x: str, w: Array) -> str:
        bounds = (w.min(axis=0), w.max(axis=0)) if per_column else (w.min(), w.max())
        granularity: Granularity = PerChannel(1) if per_column else PerTensor()
        encoding = affine(*bounds, Scheme(type=kind, symmetric=kind == "int8", granularity=granularity))
        inputs = [net.const(quantize(w, encoding)), net.const(encoding.scale), net.const(encoding.zero_point)]
        return str(net.node("DynamicQuantizeMatMul", x, *inputs, domain="com.microsoft"))

    return form


def blocks(bits: int, size: int, accuracy: int, *, symmetric: bool = True) -> Callable[[Net, str, Array], str]:
    def form(net: Net, x: str, w: Array) -> str:
        made = in_blocks(w.T, bits=bits, size=size, symmetric=symmetric, search=False)
        zero = [] if made.packed_zero is None else [net.const(made.packed_zero)]
        inputs = [net.const(made.packed), net.const(made.scale), *zero]
        said = {"K": w.shape[0], "N": w.shape[1], "bits": bits, "block_size": size, "accuracy_level": accuracy}
        return str(net.node("MatMulNBits", x, *inputs, domain="com.microsoft", **said))

    return form


FORMS: dict[str, Callable[[Net, str, Array], str]] = {
    "float": matmul,
    "static int8": static,
    "dynamic s8": dynamic("int8"),
    "dynamic u8": dynamic("uint8"),
    "8 bits, 32, level 4": blocks(8, 32, 4),
    "8 bits, 128, level 4": blocks(8, 128, 4),
    "8 bits, 32, level 0": blocks(8, 32, 0),
    "8 bits, 128, level 4, zero points": blocks(8, 128, 4, symmetric=False),
    "4 bits, 32, level 4": blocks(4, 32, 4),
    "4 bits, 128, level 4": blocks(4, 128, 4),
    "4 bits, 32, level 4, zero points": blocks(4, 32, 4, symmetric=False),
    "4 bits, 32, level 0": blocks(4, 32, 0),
}


def _net(form: Callable[[Net, str, Array], str], w: Array) -> bytes:
    net = Net()
    return bytes(net.out(form(net, net.input("m", w.shape[0]), w)).bytes())


def speed(shapes: Sequence[tuple[int, int]], rows: Sequence[int], seconds: float) -> Iterator[list[str]]:
    """Time of each form over that of the float MatMul."""
    yield ["K x N", "M", "float, ms", *list(FORMS)[1:]]
    rng = np.random.default_rng(0)
    for k, n in shapes:
        w = rng.standard_normal((k, n)).astype(np.float32) / np.float32(np.sqrt(k))
        sessions = [Session(_net(form, w), threads=1) for form in FORMS.values()]
        for m in rows:
            x = {"x0": rng.standard_normal((m, k)).astype(np.float32)}
            times = race(sessions, [x], threads=1, budget_seconds=seconds)
            ratios = [f"{1 / t.ratio:.2f}" for t in times[1:]]
            yield [f"{k} x {n}", str(m), f"{times[0].seconds * 1e3:.3f}", *ratios]


def exact() -> Iterator[list[str]]:
    """How far each form is from the float product, optimizations off and on."""
    yield ["form", "SQNR, dB (optimizations off)", "(default)"]
    rng = np.random.default_rng(1)
    w = rng.standard_normal((768, 256)).astype(np.float32) / np.float32(np.sqrt(768))
    x = {"x0": rng.standard_normal((64, 768)).astype(np.float32)}
    want = (x["x0"].astype(np.float64)) @ w.astype(np.float64)
    for name, form in FORMS.items():
        cells = [name]
        for level in (Level.OFF, Level.ALL):
            (got,) = Session(_net(form, w), threads=1, level=level).run(x).values()
            cells.append(f"{10 * np.log10(np.square(want).sum() / max(np.square(got - want).sum(), 1e-30)):.1f}")
        yield cells


def _lstm(dynamic_form: bool, hidden: int, columns: int) -> bytes:
    net, rng = Net(), np.random.default_rng(2)
    x = net.input("steps", 1, columns)
    gates = [rng.uniform(-1, 1, (1, 4 * hidden, k)).astype(np.float32) / np.float32(8) for k in (columns, hidden)]
    bias = net.const(np.zeros((1, 8 * hidden), np.float32))
    if not dynamic_form:
        return bytes(net.out(net.node("LSTM", x, *(net.const(w) for w in gates), bias, hidden_size=hidden)).bytes())
    levels, parameters = [], []
    for w in gates:  # transposed, one scale per gate and unit
        scheme = Scheme(type="int8", symmetric=True, granularity=PerChannel(2))
        encoding = affine(w.min(axis=2)[0], w.max(axis=2)[0], scheme)
        levels.append(net.const(quantize(w.transpose(0, 2, 1), encoding)))
        parameters += [net.const(encoding.scale[None]), net.const(encoding.zero_point[None])]
    inputs = [x, *levels, bias, "", "", "", "", *parameters]
    return bytes(net.out(net.node("DynamicQuantizeLSTM", *inputs, domain="com.microsoft", hidden_size=hidden)).bytes())


def lstm() -> Iterator[list[str]]:
    """DynamicQuantizeLSTM, weights s8 per gate and unit, beside LSTM: batch 1, as many inputs as hidden units."""
    yield ["hidden", "steps", "LSTM, ms", "dynamic", "SQNR, dB"]
    rng = np.random.default_rng(3)
    for hidden in (64, 128, 512):
        sessions = [Session(_lstm(form, hidden, hidden), threads=1) for form in (False, True)]
        for steps in (1, 64):
            x = {"x0": rng.standard_normal((steps, 1, hidden)).astype(np.float32)}
            times = race(sessions, [x], threads=1, budget_seconds=0.5)
            (want,), (got,) = (s.run(x).values() for s in sessions)
            sqnr = 10 * np.log10(np.square(want).sum() / np.square(got - want).sum())
            yield [str(hidden), str(steps), f"{times[0].seconds * 1e3:.3f}", f"{1 / times[1].ratio:.2f}", f"{sqnr:.1f}"]


def _gather(bits: int, rows: int, columns: int) -> bytes:
    net, rng = Net(), np.random.default_rng(4)
    table, x = rng.standard_normal((rows, columns)).astype(np.float32), net.input("m", type="int64")
    if not bits:
        return bytes(net.out(net.node("Gather", net.const(table), x)).bytes())
    made = in_blocks(table, bits=bits, size=32, symmetric=True, search=False)
    said = {"bits": bits, "block_size": 32, "gather_axis": 0, "quantize_axis": 1}
    inputs = [net.const(made.packed.reshape(rows, -1)), x, net.const(made.scale)]
    return bytes(net.out(net.node("GatherBlockQuantized", *inputs, domain="com.microsoft", **said)).bytes())


def gather() -> Iterator[list[str]]:
    """GatherBlockQuantized, blocks of 32, beside Gather: a table of 30,000 x 384."""
    yield ["rows read", "Gather, ms", "8 bits", "4 bits"]
    sessions = [Session(_gather(bits, 30000, 384), threads=1) for bits in (0, 8, 4)]
    for count in (1, 128):
        x = {"x0": np.random.default_rng(5).integers(0, 30000, count)}
        times = race(sessions, [x], threads=1, budget_seconds=0.5)
        yield [str(count), f"{times[0].seconds * 1e3:.3f}", *(f"{1 / t.ratio:.2f}" for t in times[1:])]


def _wide(op: str, kind: str) -> Net:
    """An integer operator with 16-bit data and int8 weights."""
    net = Net()
    shape = (1, 8, 4, 4) if op == "QLinearConv" else (4, 8)
    x, s, z = net.input(*shape, type=kind), net.const(np.float32(0.01)), net.const(np.zeros((), kind))
    w = net.const(np.ones((8, 8, 1, 1) if op == "QLinearConv" else (8, 8), np.int8))
    none, standard = net.const(np.int8(0)), op in ("QLinearConv", "QLinearMatMul", "MatMulInteger")
    inputs = {
        "QLinearConv": [x, s, z, w, s, none, s, z],
        "QLinearMatMul": [x, s, z, w, s, none, s, z],
        "QGemm": [x, s, z, w, s, none],
        "QLinearAdd": [x, s, z, x, s, z, s, z],
        "MatMulInteger": [x, w],
        "MatMulIntegerToFloat": [x, w, s, s],
    }[op]
    return net.out(net.node(op, *inputs, domain="" if standard else "com.microsoft"))


def _fused(op: str, kind: str) -> Net:
    """Q and DQ of 16 bits around an op with int8 weights: does it become an integer operator?"""
    net = Net()
    x = net.pair(net.input(*(1, 8, 4, 4) if op == "Conv" else (4, 8)), Enc(kind, 0.001, 0))
    w = net.weight(8, 8, 1, 1) if op == "Conv" else net.weight(8, 8, axis=1)
    return net.out(net.pair(net.node(op, x, w), Enc(kind, 0.001, 0)))


def wide() -> Iterator[list[str]]:
    """Do integer operators take 16-bit data?"""
    yield ["operator", "uint16 data", "int16 data"]
    for op in ("QLinearConv", "QLinearMatMul", "QGemm", "QLinearAdd", "MatMulInteger", "MatMulIntegerToFloat"):
        cells = [op]
        for kind in ("uint16", "int16"):
            net = _wide(op, kind)
            try:
                net.run()
                cells.append("runs")
            except ModelError:
                cells.append("refused")
        yield cells
    for op in ("Conv", "MatMul"):
        yield [f"Q, DQ around {op}", *(_fused(op, kind).kernels() for kind in ("uint16", "int16"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer shapes, less time")
    quick = parser.parse_args().quick
    shapes, rows, seconds = (SHAPES[:2], ROWS[:2], 0.3) if quick else (SHAPES, ROWS, 2.0)
    tables: dict[str, Iterator[list[str]]] = {
        "wide": wide(),
        "exact": exact(),
        "lstm": lstm(),
        "gather": gather(),
        "speed": speed(shapes, rows, seconds),
    }
    for name, found in tables.items():
        print(markdown(Fact(name=name, says=(globals()[name].__doc__ or ""), rows=list), list(found)), flush=True)


if __name__ == "__main__":
    main()
