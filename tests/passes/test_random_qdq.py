"""Random Q/DQ graphs through all exact passes of Q and DQ, in random order: the same bits, nothing left for a second
run, the same text on every run; each pass fires often and refuses often.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from rewriting import model

from onnxq.ir import save, text
from onnxq.ir.hash import structural
from onnxq.pipeline.base import Pass
from onnxq.runtime.session import Level, Session
from onnxq.testing import default_context
from onnxq_passes.absorb_activation import AbsorbActivation
from onnxq_passes.align_parameters import AlignParameters
from onnxq_passes.cancel_dq_q import CancelDqQ
from onnxq_passes.hoist_quantize import HoistQuantize
from onnxq_passes.merge_quantize import MergeQuantize
from onnxq_passes.requantize import Requantize
from onnxq_passes.sink_dequantize import SinkDequantize
from onnxq_passes.split_dequantize import SplitDequantize

PASSES: dict[str, Pass] = {
    "hoist, pair": HoistQuantize(),
    "hoist, bare": HoistQuantize(form="bare"),
    "sink, pair": SinkDequantize(),
    "sink, bare": SinkDequantize(form="bare"),
    "merge": MergeQuantize(),
    "cancel": CancelDqQ(),
    "requantize": Requantize(),
    "split": SplitDequantize(),
    "absorb": AbsorbActivation(),
    "align": AlignParameters(),
}
NEVER_REFUSES = {"split"}
CONSTANTS = (
    "float s1 = {0.05}, uint8 z1 = {120}, float s2 = {0.025}, uint8 z2 = {0}, int8 i1 = {-8}, int8 i2 = {-128}, "
    "float[3] sv = {0.05, 0.02, 0.1}, uint8[3] zv = {120, 0, 128}, float zero = {0}, float six = {6}, float off = {0.33}, "
    "int64[3] same = {2, 3, 4}, int64[2] flat = {6, 4}, int64[1] first = {0}, int64[1] two = {2}, int64[1] four = {4}, int64[1] last = {2}, "
    "int64[4] order = {3, 1, 0, 2}, int64[6] shift = {0, 0, 1, 0, 0, -1}, bool[4] mask = {1, 0, 1, 1}, float[1,1,4] row = {0.5, 0, -1, 1.5}, int64[1] ends = {-1}"
)
PARAMETERS = (("", "s1, z1"), ("", "s2, z2"), ("", "s1, i1"), ("", "s2, i2"), ("<axis = 1>", "sv, zv"), ("", "e, z1"))
# {o}: output, {a}, {b}: earlier tensors of shape [2,3,4], {n}: a prefix for inner names, {p}, {q}: attributes and numbers
PAIR = "{n}q = QuantizeLinear {p}({a}, {q}) {o} = DequantizeLinear {p}({n}q, {q})"
MOVES = (
    "{n}t = Transpose<perm = [0, 2, 1]>({a}) {o} = Transpose<perm = [0, 2, 1]>({n}t)",
    "{n}t = Reshape({a}, flat) {o} = Reshape({n}t, same)",
    "{o} = Identity({a})",
    "{n}l = Slice({a}, first, two, last) {n}r = Slice({b}, two, four, last) {o} = Concat<axis = 2>({n}r, {n}l)",
    "{n}l, {n}r = Split<axis = -1, num_outputs = 2>({a}) {o} = Concat<axis = 2>({n}r, {n}l)",
    "{o} = Gather<axis = 2>({a}, order)",
    "{o} = Max({a}, {b})",
    "{o} = Where(mask, {a}, {b})",
    "{o} = Where(mask, {a}, row)",
    "{o} = Pad({a}, shift)",
    "{o} = Pad({a}, shift, off)",
    "{o} = MaxPool<kernel_shape = [3], pads = [1, 1]>({a})",
    "{o}, {n}i = TopK({a}, four)",
    "{n}m = ReduceMax({a}, ends) {o} = Expand({n}m, same)",
)
OTHERS = ("{o} = Neg({a})", "{o} = Add({a}, {b})", "{o} = Relu({a})", "{o} = Clip({a}, zero, six)")
TYPICAL = (
    "{n}q = QuantizeLinear {p}({a}, {q}) {n}r = QuantizeLinear {p}({a}, {q}) {n}s = DequantizeLinear {p}({n}q, {q}) "
    "{n}u = DequantizeLinear {p}({n}r, {q}) {o} = Add({n}s, {n}u)",
    "{n}q = QuantizeLinear {p}({a}, {q}) {n}r = QuantizeLinear({a}, s2, z2) {n}s = DequantizeLinear {p}({n}q, {q}) "
    "{n}u = DequantizeLinear({n}r, s2, z2) {o} = Add({n}s, {n}u)",
    "{n}r = Relu({a}) {n}q = QuantizeLinear({n}r, s2, z2) {o} = DequantizeLinear({n}q, s2, z2)",
    "{n}r = Clip({a}, zero, six) {n}q = QuantizeLinear {p}({n}r, {q}) {o} = DequantizeLinear {p}({n}q, {q})",
    "{n}q = QuantizeLinear({a}, s1, i1) {n}d = DequantizeLinear({n}q, s1, i1) {n}g = Gather<axis = 2>({n}d, order) "
    "{n}r = QuantizeLinear({n}g, s1, z1) {o} = DequantizeLinear({n}r, s1, z1)",
    "{n}q = QuantizeLinear({a}, s1, i1) {n}d = DequantizeLinear({n}q, s1, i1) {n}g = Gather<axis = 2>({n}d, order) "
    "{n}r = QuantizeLinear({n}g, s2, i2) {o} = DequantizeLinear({n}r, s2, i2)",
    *[
        "{n}q = QuantizeLinear({a}, s1, z1) {n}d = DequantizeLinear({n}q, s1, z1) {n}r = QuantizeLinear({n}d, s2, z2) "
        "{o} = DequantizeLinear({n}r, s2, z2)"
    ]
    * 3,
)
KINDS = (*[PAIR] * 8, *TYPICAL, *MOVES, *OTHERS)


def build(steps: Sequence[tuple[int, ...]], outputs: int, typed: bool) -> str:
    """A graph whose step i makes tensor t<i>; it reads tensors up to three steps back."""
    names, lines = ["x"], []
    for index, (kind, back_a, back_b, numbers) in enumerate(steps):
        a, b = (names[max(0, len(names) - 1 - back)] for back in (back_a, back_b))
        attributes, values = PARAMETERS[numbers]
        lines.append(KINDS[kind].format(o=f"t{index}", n=f"n{index}_", a=a, b=b, p=attributes, q=values))
        names.append(f"t{index}")
    shapes = ", ".join(f"float[2,3,4] {r}" for r in names[1:][-outputs:])
    inner = "".join(f", float[2,3,4] {n}" for n in names[1:][:-outputs]) if typed else ""
    return model(f"(float[2,3,4] x, float e) => ({shapes}) <{CONSTANTS}{inner}> {{ {' '.join(lines)} }}")


@pytest.mark.parametrize(
    ("examples", "least"), [(100, 1), pytest.param(2000, 50, marks=pytest.mark.slow)], ids=["quick", "slow"]
)
def test_any_order_of_the_passes_keeps_every_bit(examples: int, least: int) -> None:
    fired: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    values = np.random.default_rng(0).normal(0, 3, 24).astype(np.float32)
    values[:6] = [-0.0, 0.025, 0.075, 1e9, -1e9, 0.0125]
    inputs = {"x": values.reshape(2, 3, 4), "e": np.array(0.05, np.float32)}

    for seed in range(examples):
        chance = random.Random(seed)
        length = chance.randint(3, 12)
        steps = [tuple(chance.randrange(n) for n in (len(KINDS), 3, 4, len(PARAMETERS))) for _ in range(length)]
        outputs, typed = chance.randint(1, 2), chance.random() < 0.4
        order = chance.sample(sorted(PASSES), 5)
        source = build(steps, outputs, typed)
        one, twin = text.parse(source), text.parse(source)
        original = Session(save.to_bytes(one), level=Level.OFF, threads=1)
        for name in order:
            before = structural(one.graph)
            report = PASSES[name].run(one.graph, default_context())
            assert (structural(one.graph) != before) == (report.rewrites > 0), (seed, name)
            fired[name] += report.rewrites > 0
            refused[name] += bool(report.refusals)
            assert PASSES[name].run(one.graph, default_context()).rewrites == 0, f"seed {seed}: {name} has more to do"
            PASSES[name].run(twin.graph, default_context())
            assert text.text(one.graph) == text.text(twin.graph), f"seed {seed}: {name} differs between runs"
            twin = one.copy()
        rewritten = Session(save.to_bytes(one), level=Level.OFF, threads=1)
        assert (rewritten.inputs, rewritten.outputs) == (original.inputs, original.outputs)
        expected, got = original.run(inputs), rewritten.run(inputs)
        for name, array in expected.items():
            assert array.tobytes() == got[name].tobytes(), (seed, order, array, got[name])

    print("fired", sorted(fired.items()), "refused", sorted(refused.items()))
    assert all(fired[name] >= least for name in PASSES), fired
    assert all(refused[name] >= least for name in PASSES if name not in NEVER_REFUSES), refused
