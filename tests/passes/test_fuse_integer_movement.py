from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fusing import OUT, Qdq
from rewriting import bitwise, keep

from onnxq.optable import OP_TABLE
from onnxq.testing import check_pass
from onnxq_passes.fuse_integer_movement import FuseIntegerMovement

PASS = FuseIntegerMovement()
HEAD = "(float[2,3] x) => (float[3,2] y) <float s = {0.02}, uint8 z = {120}, float u = {0.03}, uint8 w = {121}> { q = QuantizeLinear(x, s, z) "
GRAPH = (
    HEAD
    + "d = DequantizeLinear(q, s, z) [t] c = Transpose(d) r = QuantizeLinear(c, s, z) y = DequantizeLinear(r, s, z) }"
)


def test_contract() -> None:
    check_pass(FuseIntegerMovement)


def test_the_op_stays_and_reads_integers() -> None:
    bitwise(PASS, GRAPH, HEAD + "[t] r = Transpose(q) y = DequantizeLinear(r, s, z) }", rewrites=1)


INTS = "int64"
# op: constant inputs behind the data, attributes, outputs
FORMS: dict[str, tuple[list[tuple[Any, str]], dict[str, Any], int]] = {
    "Transpose": ([], {"perm": [0, 2, 3, 1]}, 1),
    "Reshape": ([([0, -1, 4], INTS)], {}, 1),
    "Flatten": ([], {"axis": 2}, 1),
    "Squeeze": ([([0], INTS)], {}, 1),
    "Unsqueeze": ([([1, 3], INTS)], {}, 1),
    "Slice": ([([0, -1], INTS), ([2, -9], INTS), ([2, 3], INTS), ([1, -2], INTS)], {}, 1),
    "Gather": ([([[2, 0], [1, 1]], INTS)], {"axis": 2}, 1),
    "GatherElements": ([(np.ones((1, 8, 2, 4)), INTS)], {"axis": 2}, 1),
    "Expand": ([([3, 8, 4, 4], INTS)], {}, 1),
    "Tile": ([([1, 2, 1, 3], INTS)], {}, 1),
    "Split": ([([3, 5], INTS)], {"axis": 1}, 2),
    "DepthToSpace": ([], {"blocksize": 2, "mode": "CRD"}, 1),
    "SpaceToDepth": ([], {"blocksize": 2}, 1),
    "MaxPool": ([], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, 1),
    "ReduceMax": ([([1], INTS)], {"keepdims": 0}, 1),
    "ReduceMin": ([([2, 3], INTS)], {}, 1),
    "Identity": ([], {}, 1),
    "ReverseSequence": ([([5], INTS)], {"batch_axis": 0, "time_axis": 1}, 1),
    "GatherND": ([([[0, 3], [0, 7]], INTS)], {}, 1),
    "Compress": ([([True, False, True, True], "bool")], {"axis": 2}, 1),
    "Resize": ([([], "float32"), ([1, 1, 2, 1.5], "float32")], {"mode": "nearest"}, 1),
}


def build(op: str, kind: str = "uint8") -> Qdq:
    constants, attributes, outs = FORMS[op]
    g = Qdq()
    zero = 5 if kind == "int8" else 120
    x = g.data(1, 8, 4, 4, scale=OUT, zero=zero, kind=kind)
    made = g.op(op, x, *(g.constant(v, k) for v, k in constants), outs=outs, **attributes)
    for tensor in [made] if outs == 1 else made:
        g.out(tensor, OUT, zero, kind)
    return g


@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize("op", FORMS)
def test_case_2_bit_for_bit(op: str, kind: str) -> None:
    made = build(op, kind).fuse(PASS)
    assert made.ops == {"QuantizeLinear": 1, op: 1}
    assert made.gap == 0
    assert made.spread() >= 5


def test_every_op_that_moves_has_a_test() -> None:
    assert set(FuseIntegerMovement.ops) == {*FORMS, *SEVERAL, "Where", "Pad", "TopK"}
    assert set(FuseIntegerMovement.ops) == {op for op, row in OP_TABLE.items() if row.moves is not None}


def several(op: str, other: float) -> Qdq:
    """Two data inputs, the second one with its own scale."""
    g = Qdq()
    parts = [g.data(3, 20, scale=OUT, zero=100), g.data(3, 20, scale=other, zero=100)]
    if op == "Where":
        parts.insert(0, g.constant(np.arange(20) % 3 == 0, "bool"))
    elif op.startswith("Scatter"):
        rows = [[[2]], [[0]], [[1]]] if op == "ScatterND" else np.arange(60).reshape(3, 20) % 3
        parts.insert(1, g.constant(np.asarray(rows).reshape(3, -1), INTS))
    g.out(g.op(op, *parts, **({"axis": 0} if op == "Concat" else {})))
    return g


SEVERAL = ("Concat", "ScatterND", "ScatterElements", "Max", "Min")


@pytest.mark.parametrize("op", [*SEVERAL, "Where"])
def test_case_2_several_inputs(op: str) -> None:
    made = several(op, OUT).fuse(PASS)
    assert made.ops == {"QuantizeLinear": 2, op: 1}
    assert made.gap == 0
    assert made.spread() > 20


@pytest.mark.parametrize("op", [*SEVERAL, "Where"])
def test_near_miss_several_scales(op: str) -> None:
    made = several(op, 0.0413).fuse(PASS)
    assert made.ops["DequantizeLinear"] == 2
    assert "different encodings" in made.reasons[0]


@pytest.mark.parametrize("read", [False, True])
def test_case_2_topk(read: bool) -> None:
    g = Qdq()
    values, indices = g.op("TopK", g.data(3, 20, scale=OUT, zero=100), g.constant([4], INTS), outs=2)
    g.out(values)
    if read:
        g.raw(g.op("Cast", indices, to=1))
    made = g.fuse(PASS)
    assert made.gap == 0
    if read:
        assert made.ops["DequantizeLinear"] == 1
        assert "depends on ties" in made.reasons[0]
    else:
        assert made.ops == {"QuantizeLinear": 1, "TopK": 1}


@pytest.mark.parametrize("fill", [None, 0.0, 1.33, -100.0])
def test_case_3_pad_with_the_quantized_value(fill: float | None) -> None:
    g = Qdq()
    constants = [g.constant([0, 1, 2, 1], INTS), *([] if fill is None else [g.constant(fill)])]
    g.out(g.op("Pad", g.data(3, 20, scale=OUT, zero=100), *constants))
    made = g.fuse(PASS)
    assert made.ops == {"QuantizeLinear": 1, "Pad": 1}
    assert made.gap == 0


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
def test_case_3_pad_that_copies(mode: str) -> None:
    g = Qdq()
    g.out(g.op("Pad", g.data(3, 20, scale=OUT, zero=100), g.constant([0, 1, 2, 1], INTS), mode=mode))
    made = g.fuse(PASS)
    assert made.ops == {"QuantizeLinear": 1, "Pad": 1}
    assert made.gap == 0


def test_case_3_pad_with_a_computed_value() -> None:
    g = Qdq()
    g.out(g.op("Pad", g.data(3, 20, scale=OUT, zero=100), g.constant([0, 1, 2, 1], INTS), g.op("Neg", g.constant(1.0))))
    made = g.fuse(PASS)
    assert made.ops["DequantizeLinear"] == 1
    assert "fill value is no constant" in made.reasons[0]


def test_case_4_16_bits() -> None:
    for op in ("Transpose", "Reshape", "Gather", "Split", "MaxPool", "Resize"):
        made = build(op, "uint16").fuse(PASS)
        if op in ("MaxPool", "Resize"):
            assert made.ops["DequantizeLinear"] == 1
            assert "is uint16" in made.reasons[0]
        else:
            assert made.ops == {"QuantizeLinear": 1, op: 1}
            assert made.gap == 0


def test_case_5_scales_at_the_end_of_float32() -> None:
    keep(PASS, GRAPH.replace("{0.02}", "{3e36}"), "end of float32")


def test_a_chain_runs_on_integers_and_other_readers_keep_their_float() -> None:
    g = Qdq()
    d = g.data(2, 3, 4, scale=OUT, zero=100)
    t = g.op("Transpose", d)
    t = g.dq(g.q(t, OUT, 100), OUT, 100)
    g.out(g.op("Flatten", t))
    g.raw(g.op("Neg", d))
    made = g.fuse(PASS)
    assert made.ops == {"QuantizeLinear": 1, "Transpose": 1, "Flatten": 1, "DequantizeLinear": 1, "Neg": 1}
    assert made.gap == 0


def test_in_bodies() -> None:
    source = """(bool b, float[2,3] x) => (float[3,2] y) <float s = {{0.02}}, uint8 z = {{120}}> {{ q = QuantizeLinear(x, s, z)
        y = If(b) <then_branch = p () => (float[3,2] t) {{ {0} t = DequantizeLinear(r, s, z) }},
        else_branch = o () => (float[3,2] e) {{ e = Transpose(x) }}> }}"""
    bitwise(
        PASS,
        source.format("d = DequantizeLinear(q, s, z) c = Transpose(d) r = QuantizeLinear(c, s, z)"),
        source.format("r = Transpose(q)"),
        rewrites=1,
    )


def test_unread_outputs_become_integers_too() -> None:
    before = (
        "(float[2,4] x) => (float[2,2] y) <float s = {0.02}, uint8 z = {120}> { q = QuantizeLinear(x, s, z) "
        "d = DequantizeLinear(q, s, z) a, b = Split<axis = 1, num_outputs = 2>(d) r = QuantizeLinear(a, s, z) y = DequantizeLinear(r, s, z) }"
    )
    after = (
        "(float[2,4] x) => (float[2,2] y) <float s = {0.02}, uint8 z = {120}> { q = QuantizeLinear(x, s, z) "
        "r, b = Split<axis = 1, num_outputs = 2>(q) y = DequantizeLinear(r, s, z) }"
    )
    bitwise(PASS, before, after, rewrites=1)


NEAR = {
    "encodings differ": ("r = QuantizeLinear(c, s, z)", "r = QuantizeLinear(c, s, w)", "different encodings"),
    "scales differ": ("r = QuantizeLinear(c, s, z)", "r = QuantizeLinear(c, u, z)", "different encodings"),
    "read in float": ("r = Q", "n = Neg(c) r = Q", "reads its output in float"),
    "computed scale": ("r = QuantizeLinear(c, s, z)", "t = Abs(s) r = QuantizeLinear(c, t, z)", "is no constant"),
    "not quantized": (
        "r = QuantizeLinear(c, s, z) y = DequantizeLinear(r, s, z)",
        "y = Neg(c)",
        "reads its output in float",
    ),
}


@pytest.mark.parametrize("case", NEAR)
def test_near_misses(case: str) -> None:
    old, new, reason = NEAR[case]
    keep(PASS, GRAPH.replace(old, new), reason)


def test_near_miss_ops_that_compute() -> None:
    for attributes, reason in (({"mode": "linear"}, "computes new values"), ({"mode": "cubic"}, "computes new values")):
        g = Qdq()
        constants = [g.constant([]), g.constant([1, 1, 2, 2])]
        g.out(g.op("Resize", g.data(1, 1, 4, 4, scale=OUT, zero=100), *constants, **attributes))
        made = g.fuse(PASS)
        assert made.ops["DequantizeLinear"] == 1
        assert reason in made.reasons[0]


def test_near_miss_opset_without_the_integer_form() -> None:
    g = Qdq(opset=11)
    g.out(g.op("MaxPool", g.data(1, 1, 4, 4, scale=OUT, zero=100), kernel_shape=[2, 2]))
    made = g.fuse(PASS)
    assert made.ops["DequantizeLinear"] == 1
    assert "from opset 12 on" in made.reasons[0]


def _channels(perm: list[int], front: int, back: int, scale: float = 1.0) -> Qdq:
    """A Transpose between pairs with a scale per channel, along the axes `front` and `back`."""
    g = Qdq()
    steps, zeros = np.linspace(0.02, 0.03, 4).astype(np.float32), np.arange(4) + 100
    integers = g.q(g.data(2, 4, 4), 0.02, 120)
    moved = g.op("Transpose", g.dq(integers, steps, zeros, axis=front), perm=perm)
    end, zero = g.constant(steps * np.float32(scale)), g.constant(zeros, "uint8")
    q = g.op("QuantizeLinear", moved, end, zero, axis=back)
    g.raw(g.op("DequantizeLinear", q, end, zero, axis=back))
    return g


def test_case_1_a_scale_per_channel_that_is_carried_along() -> None:
    made = _channels([1, 0, 2], 1, 0).fuse(PASS)
    assert made.gap == 0
    assert made.spread() > 10
    assert made.ops["QuantizeLinear"] == 2  # those of the data
    assert made.reports[0].rewrites == 1


@pytest.mark.parametrize(("back", "scale"), [(2, 1.0), (0, 2.0)])
def test_case_1_near_miss_another_axis_or_scale(back: int, scale: float) -> None:
    perm = [1, 0, 2] if back == 0 else [0, 1, 2]
    made = _channels(perm, 1, back, scale).fuse(PASS)
    assert made.reports[0].rewrites == 0
    assert made.reasons == ["its inputs and outputs have different encodings"]


def test_case_1_near_miss_the_channel_axis_is_cut() -> None:
    g = Qdq()
    steps, zeros = np.linspace(0.02, 0.03, 4).astype(np.float32), np.zeros(4)
    integers = g.q(g.data(2, 4, 4), 0.02, 120)
    starts, ends, axes = (g.constant([n], "int64") for n in (0, 4, 1))
    cut = g.op("Slice", g.dq(integers, steps, zeros, axis=1), starts, ends, axes)
    numbers = g.constant(steps), g.constant(zeros, "uint8")
    g.raw(g.op("DequantizeLinear", g.op("QuantizeLinear", cut, *numbers, axis=1), *numbers, axis=1))
    made = g.fuse(PASS)
    assert made.reports[0].rewrites == 0
    assert made.reasons == ["its scales are per channel, and it works along the channel axis"]


def test_case_2_the_least_opset_is_enough() -> None:
    g = Qdq(opset=12)
    g.out(g.op("MaxPool", g.data(1, 1, 4, 4, scale=OUT, zero=100), kernel_shape=[2, 2]))
    made = g.fuse(PASS)
    assert made.ops == {"QuantizeLinear": 1, "MaxPool": 1}
    assert made.gap == 0


def test_case_2_indices_that_are_an_output() -> None:
    source = """(float[3,4] x) => (float[2,4] y, int64[2,4] i) <float s = {0.02}, uint8 z = {120}, int64[1] k = {2}> { q = QuantizeLinear(x, s, z)
        d = DequantizeLinear(q, s, z) c, i = TopK<axis = 0>(d, k) r = QuantizeLinear(c, s, z) y = DequantizeLinear(r, s, z) }"""
    keep(PASS, source, "its output i depends on ties")


def test_a_relu_in_between_is_not_looked_through() -> None:
    graph = GRAPH.replace("{120}", "{0}").replace("r = QuantizeLinear(c,", "u = Relu(c) r = QuantizeLinear(u,")
    keep(PASS, graph.replace("float u = {0.03}, ", ""), "reads its output in float")


def test_nobody_reads_its_output() -> None:
    keep(
        PASS,
        GRAPH.replace("r = QuantizeLinear(c,", "e = Transpose(x) r = QuantizeLinear(e,"),
        "nobody reads its output",
    )


def test_case_3_pad_with_scales_per_channel() -> None:
    source = """(float[2,3] x) => (float[4,3] y) <float s = {0.02}, uint8 z = {120}, float[3] v = {0.02, 0.03, 0.04}, uint8[3] o = {1, 2, 3},
        int64[4] p = {1, 0, 1, 0}> { q = QuantizeLinear(x, s, z) d = DequantizeLinear<axis = 1>(q, v, o) c = Pad(d, p)
        r = QuantizeLinear<axis = 1>(c, v, o) y = DequantizeLinear<axis = 1>(r, v, o) }"""
    keep(PASS, source, "no rule for per-channel encodings")


PAD = "(float[2] x) => (float[4] y) <float s = {0.02}, uint8 z = {120}, int64[2] p = {1, 1}, int64[1] a = {0}, float f = {0.2}, float g = {0}"


@pytest.mark.parametrize(
    ("more", "before", "after"),
    [
        (", uint8 f_quantized = {130}", "c = Pad(d, p, f)", "r = Pad(q, p, f_quantized)"),
        (", uint8 n_fill_quantized = {120}", "[n] c = Pad(d, p)", "[n] r = Pad(q, p, n_fill_quantized)"),
        (", uint8 n_fill_quantized = {120}", "[n] c = Pad(d, p, , a)", "[n] r = Pad(q, p, n_fill_quantized, a)"),
        ("", 'c = Pad<mode = "edge">(d, p)', 'r = Pad<mode = "edge">(q, p)'),
        ("", 'c = Pad<mode = "edge">(d, p, f, a)', 'r = Pad<mode = "edge">(q, p, , a)'),
    ],
)
def test_case_3_what_is_written(more: str, before: str, after: str) -> None:
    head, end = "> { q = QuantizeLinear(x, s, z) ", " y = DequantizeLinear(r, s, z) }"
    bitwise(
        PASS,
        PAD + head + "d = DequantizeLinear(q, s, z) " + before + " r = QuantizeLinear(c, s, z)" + end,
        PAD + more + head + after + end,
        rewrites=1,
    )


def test_case_4_signed_16_bits() -> None:
    source = "(float[2,3] x) => (float[3,2] y) <float s = {{0.02}}, int16 z = {{120}}> {{ q = QuantizeLinear(x, s, z) {0} y = DequantizeLinear(r, s, z) }}"
    pair = "d = DequantizeLinear(q, s, z) c = Transpose(d) r = QuantizeLinear(c, s, z)"
    bitwise(PASS, source.format(pair), source.format("r = Transpose(q)"), rewrites=1)
