"""Timed facts: what the integer kernels cost beside the float ones. Ratios to the float model, lower is better.

Each ratio comes from `onnxq.validate.latency`: runs of both models in turn, in one process, one thread; the ratio
is the median over pairs, the brackets hold its quartiles.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from measure_graph import S8, U8, U8_RELU, Array, Enc, Net
from measure_table import CPU, SELECT, Fact, Rows

from onnxq.runtime.session import Level, Session
from onnxq.validate.latency import Latency, measure, summarize

BUDGET = 2.0
"""Seconds for each ratio."""
HARDWARE = "onnxq/targets/hardware.py"

Side = tuple[Session, dict[str, Array]]


class Form:
    """How one variant of a model is quantized. `None` encodings leave activations float."""

    def __init__(
        self,
        e: Enc | None,
        weight: str = "int8",
        *,
        per_channel: bool = True,
        reduced: bool = False,
        outputs: bool = True,
    ) -> None:
        self.e, self.weight, self.per_channel, self.reduced, self.outputs = e, weight, per_channel, reduced, outputs

    def x(self, net: Net, x: str) -> str:
        return x if self.e is None else net.pair(x, self.e)

    def y(self, net: Net, y: str) -> str:
        """Behind a weighted op or a pool."""
        return y if self.e is None or not self.outputs else net.pair(y, self.e)

    def w(self, net: Net, *shape: int, axis: int = 0) -> str:
        if self.e is None:
            return net.normal(*shape)
        zero, most = (128 if self.weight == "uint8" else 0), (63 if self.reduced else 127)
        values = (net.rng.integers(-most, most + 1, shape) + zero).astype(self.weight)
        scale: Any = np.linspace(0.001, 0.003, shape[axis]) if self.per_channel else 0.002
        return net.dq(net.const(values), Enc(self.weight, scale, zero, axis if self.per_channel else None))


FLOAT = Form(None)
BEST = Form(U8)


def _ratio(found: Latency) -> str:
    low, high = 1 / found.speedup_high, 1 / found.speedup_low
    return f"{1 / found.speedup:.2f} [{low:.2f}, {high:.2f}]" + (" noisy" if found.noisy else "")


def _time(reference: Net, candidate: Net) -> Latency:
    return measure(reference.bytes(), candidate.bytes(), [reference.feeds()], budget_seconds=BUDGET)


def _compare(reference: Net, candidates: Sequence[Net]) -> list[str]:
    """Milliseconds of the float model, then one ratio each."""
    found = [_time(reference, c) for c in candidates]
    return [f"{float(np.median([f.reference_ms for f in found])):.3g}", *map(_ratio, found)]


# models


def _conv(form: Form, channels: int, size: int, kernel: int, *, depthwise: bool = False, count: int = 3) -> Net:
    """A chain of equal Convs, float in and out, so that the conversions at both ends do not decide."""
    net = Net()
    x = form.x(net, net.input(1, channels, size, size))
    for _ in range(count):
        w = form.w(net, channels, 1 if depthwise else channels, kernel, kernel)
        pads = [kernel // 2] * 4
        x = form.y(net, net.node("Conv", x, w, pads=pads, group=channels if depthwise else 1))
    return net.out(x)


def _matmul(form: Form, m: int) -> Net:
    net = Net()
    x = form.x(net, net.input(m, 768))
    return net.out(form.y(net, net.node("MatMul", x, form.w(net, 768, 3072, axis=1))))


SHAPES: dict[str, Callable[[Form], Net]] = {
    "Conv 3x3, 64 channels, 56x56, 3 of them": lambda f: _conv(f, 64, 56, 3),
    "Conv 1x1, 256 channels, 28x28, 3 of them": lambda f: _conv(f, 256, 28, 1),
    "depthwise 3x3, 256 channels, 28x28, 3 of them": lambda f: _conv(f, 256, 28, 3, depthwise=True),
    "MatMul [128, 768] x [768, 3072]": lambda f: _matmul(f, 128),
    "MatMul [1, 768] x [768, 3072]": lambda f: _matmul(f, 1),
}


def _dtypes() -> Rows:
    rows = [["op", "float, ms", "u8 x s8", "u8 x u8", "s8 x s8 (ORT rewrites it to u8)", "s8 x s8 kernel"]]
    for label, build in SHAPES.items():
        forms = [build(f) for f in (BEST, Form(U8, "uint8"), Form(S8))]
        native = Session(build(Form(S8)).bytes(), threads=1, config={"session.qdqisint8allowed": "1"})
        plain = build(FLOAT)
        found = _pairs((Session(plain.bytes(), threads=1), plain.feeds()), (native, plain.feeds()))
        rows.append([label, *_compare(plain, forms), _ratio(found)])
    return rows


def _weights() -> Rows:
    rows = [["op", "float, ms", "per channel", "per tensor", "per channel, 7 bits"]]
    for label, build in SHAPES.items():
        forms = [BEST, Form(U8, per_channel=False), Form(U8, reduced=True)]
        rows.append([label, *_compare(build(FLOAT), [build(f) for f in forms])])
    return rows


def _saturation() -> Rows:
    """Not timed: what 8-bit weights lose on this CPU."""
    rows = [["weights", "elements that differ from optimizations off", "by at most (LSB)"]]
    for label, form in (("8 bits", Form(U8_RELU)), ("7 bits", Form(U8_RELU, reduced=True))):
        net = Net()
        x = net.pair(net.input(256, 256), Enc(scale=0.005, zero=0))
        out = Enc(scale=0.02)
        net.out(net.pair(net.node("MatMul", x, form.w(net, 256, 64, axis=1)), out))
        apart = np.abs(net.run() - net.run(Level.ALL)) / 0.02
        rows.append([label, f"{100 * np.count_nonzero(apart > 0.5) / apart.size:.2g} %", f"{apart.max():.0f}"])
    return rows


def _around(op: str, *, convs: bool, form: Form, **attributes: Any) -> Net:
    """The op alone, or between two Convs."""
    net = Net()
    x = form.x(net, net.input(1, 64, 56, 56))
    if convs:
        x = form.y(net, net.node("Conv", x, form.w(net, 64, 64, 1, 1)))
    x = form.y(net, net.node(op, x, **attributes))
    if convs:
        x = form.y(net, net.node("Conv", x, form.w(net, 64, 64, 1, 1)))
    return net.out(x)


def _integers(op: str, e: Enc, **attributes: Any) -> tuple[Net, Net]:
    """The op on a float tensor, and on integers with no conversion at either end."""
    plain, fused = Net(), Net()
    plain.out(plain.node(op, plain.input(1, 64, 56, 56), **attributes))
    fused.out(fused.q(fused.node(op, fused.dq(fused.input(1, 64, 56, 56, type=e.type), e), **attributes), e))
    return plain, fused


def _ops() -> Rows:
    rows = [
        ["op on [1, 64, 56, 56]", "integer kernel", "float op, ms", "alone, integers in and out", "between two Convs"]
    ]
    unit = Enc(scale=1 / 255, zero=0)
    cases: list[tuple[str, Enc, dict[str, Any]]] = [
        ("MaxPool", U8, {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("AveragePool", U8, {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("GlobalAveragePool", U8, {}),
        ("Softmax", unit, {}),
        ("Sigmoid", unit, {}),
        ("LeakyRelu", U8, {}),
    ]
    for op, e, attributes in cases:
        plain, fused = _integers(op, e, **attributes)
        alone = _pairs(
            (Session(plain.bytes(), threads=1), plain.feeds()), (Session(fused.bytes(), threads=1), fused.feeds())
        )
        between = "-"
        if op != "GlobalAveragePool":
            reference = _around(op, convs=True, form=FLOAT, **attributes)
            between = _ratio(_time(reference, _around(op, convs=True, form=BEST, **attributes)))
        rows.append([op, fused.kernels(), f"{alone.reference_ms:.3g}", _ratio(alone), between])
    return rows


def _pairs(reference: Side, candidate: Side, rounds: int = 31) -> Latency:
    """As `measure`, for sessions that it cannot make: other levels, other options, other types of inputs."""
    sides = (reference, candidate)

    def seconds(side: Side, runs: int) -> float:
        session, feeds = side
        start = time.perf_counter()
        for _ in range(runs):
            session.run(feeds)
        return (time.perf_counter() - start) / runs

    least = min(min(seconds(side, 1) for _ in range(3)) for side in sides)
    inner = max(1, math.ceil(1e-3 / least))
    times = np.array([[seconds(side, inner) for side in sides] for _ in range(rounds)])
    return summarize(times, threads=1, inner=inner, seconds=float(times.sum()) * inner)


def _block(form: Form, *, all_outputs: bool = True) -> Net:
    """Stem, max pool, residual block, global pool: Q everywhere, or only before the Convs and on the shortcut."""
    net = Net()
    relu = Enc("uint8", 0.03, 0) if form.e is not None and form.e.type == "uint8" else form.e

    def q(x: str, e: Enc | None) -> str:
        return x if form.e is None or e is None else net.pair(x, e)

    def conv(x: str, shape: tuple[int, ...], *, act: bool, **attributes: Any) -> str:
        x = x if all_outputs else q(x, relu)
        y = net.node("Conv", x, form.w(net, *shape), **attributes)
        y = net.node("Relu", y) if act else y
        return q(y, relu if act else form.e) if all_outputs else str(y)

    x = net.input(1, 3, 112, 112)
    x = q(x, form.e) if all_outputs else x
    x = conv(x, (64, 3, 7, 7), act=True, strides=[2, 2], pads=[3] * 4)
    x = net.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    x = q(x, relu) if all_outputs else x
    y = conv(conv(x, (64, 64, 3, 3), act=True, pads=[1] * 4), (64, 64, 3, 3), act=False, pads=[1] * 4)
    y = net.node("Relu", net.node("Add", y, x if all_outputs else q(x, relu)))
    y = q(y, relu) if all_outputs else y
    y = net.node("GlobalAveragePool", y)
    return net.out(q(y, relu) if all_outputs else y)


def _placement() -> Rows:
    rows = [["placement", "kernels at ALL", "float, ms", "ratio"]]
    reference = _block(FLOAT)
    for label, net in [
        ("Q on every activation, u8, Relu absorbed", _block(BEST)),
        ("Q on every activation, s8, zero point 0", _block(Form(S8))),
        ("Q in front of Convs and on the shortcut (TensorRT's way), u8", _block(BEST, all_outputs=False)),
        ("the same, s8, zero point 0", _block(Form(S8), all_outputs=False)),
    ]:
        rows.append([label, net.kernels(), *_compare(reference, [net])])
    return rows


def _levels() -> Rows:
    rows = [["model, u8", "time at EXTENDED / at ALL", "kernels at EXTENDED"]]
    for label, net in [
        ("residual block with MaxPool", _block(BEST)),
        ("Conv, MaxPool, Conv", _around("MaxPool", convs=True, form=BEST, kernel_shape=[2, 2], strides=[2, 2])),
        ("Conv 1x1, 256 channels, 3 of them", _conv(BEST, 256, 28, 1)),
    ]:
        best, less = (Session(net.bytes(), threads=1, level=level) for level in (Level.ALL, Level.EXTENDED))
        rows.append([label, _ratio(_pairs((best, net.feeds()), (less, net.feeds()))), net.kernels(Level.EXTENDED)])
    return rows


FACTS = (
    Fact(
        name="speed-types",
        says="Only u8 activations with s8 weights are fast. Ratios to float.",
        rows=_dtypes,
        used=(CPU,),
    ),
    Fact(
        name="speed-weights",
        says="Scales per channel cost nothing, and 7 bits gain nothing where products accumulate in int32.",
        rows=_weights,
        used=(CPU,),
    ),
    Fact(
        name="saturation",
        says="What 8-bit weights do to u8 x s8 products on this CPU (not timed).",
        rows=_saturation,
        used=(CPU, HARDWARE),
    ),
    Fact(
        name="speed-ops",
        says="Integer pools and Softmax alone, and between two integer Convs.",
        rows=_ops,
        used=(CPU, SELECT),
    ),
    Fact(
        name="speed-placement",
        says="A Conv with float output is a float Conv, so quantizing inputs only is slower than not quantizing.",
        rows=_placement,
        used=(CPU, "onnxq/targets/tensorrt.yaml"),
    ),
    Fact(
        name="speed-levels",
        says="The same u8 files at EXTENDED and at ALL.",
        rows=_levels,
        used=(CPU,),
    ),
)
