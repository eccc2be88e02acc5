"""The invariants of the stage FUSED: each has a graph that breaks it and a near-miss that does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import defs
from onnxruntime.capi import onnxruntime_pybind11_state as ort

from onnxq.ir.text import parse
from onnxq.pipeline.base import Stage
from onnxq.pipeline.verify import violations
from onnxq.plan.integers import FORMS, INTEGER_OPS, MICROSOFT, OUT, form, integer_violations

MODELS = Path(__file__).parents[2] / "models"

CONV = "[conv] c = QLinearConv(i, s, z, W, sw, zw, s, z, b)"
ADD = "[add] a = com.microsoft.QLinearAdd(i, s, z, i, s, z, t, z)"
GEMM = "[gemm] g = com.microsoft.QGemm(m, s, z, V, sv, zv, v)"
PRODUCT = "[product] p = com.microsoft.MatMulIntegerToFloat(m, V, s, sv, z, zv, f)"
FLOATS = "float s = {0.5}, float t = {0.25}, float neg = {-1}, float[2] sw = {1, 2}, float[3] sv = {1, 2, 3}, "
FLOATS += "float[2] two = {0.5, 0.5}, float[3] f = {1, 2, 3}, float[1,2,2,2] K = {1, 2, 3, 4, 5, 6, 7, 8}, "
INTEGERS = "uint8 z = {3}, int8 n = {0}, uint8[2] zz = {3, 3}, int8[2] zw = {0, 0}, int8[3] zv = {0, 0, 0}, "
INTEGERS += "int8[2,2,1,1] W = {1, 2, 3, 4}, uint8[2,2,1,1] U = {1, 2, 3, 4}, int8[2,3] V = {1, 2, 3, 4, 5, 6}, "
INTEGERS += "uint8[2] uw = {0, 0}, int32[2] b = {1, 2}, int32[3] v = {1, 2, 3}, int64[2] rows = {-1, 2}"
MATRIX = " m = Reshape(i, rows) "


def broken(body: str, rule: str | None = None) -> list[str]:
    """Sentences about a graph; x float, i its uint8 form, j an int8 one."""
    start = "[q] i = QuantizeLinear(x, s, z) [q8] j = QuantizeLinear(x, s, n) "
    # outputs do not matter to the rules
    source = f"g (float[1,2,2,2] x) => (float[1,2,2,2] y) <{FLOATS}{INTEGERS}> {{ {start} {body} y = Relu(x) }}"
    model = parse('<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]> ' + source)
    found = list(integer_violations(model.graph))
    assert list(violations(model.graph, Stage.FUSED)) == found
    assert rule is None or all(v.rule == rule for v in found), found
    return [v.sentence for v in found]


@pytest.mark.parametrize(
    "body",
    [
        CONV,
        CONV.replace(", b)", ")"),
        CONV.replace("sw, zw", "s, n"),
        ADD,
        MATRIX + GEMM,
        MATRIX + GEMM.replace(", v)", ", , t, z)"),
        MATRIX + PRODUCT,
        MATRIX + PRODUCT.replace(", f)", ")"),
        MATRIX + "[w] r = com.microsoft.DynamicQuantizeMatMul(x, V, sv, zv)",
        "[ci] r = ConvInteger(i, W, z)",
        "[qc] r = com.microsoft.QLinearConcat(t, z, i, s, z, i, s, z)",
        "[s] r = com.microsoft.QLinearSigmoid(i, s, z, t, z)",
    ],
)
def test_sound_operators(body: str) -> None:
    assert broken(body) == []


@pytest.mark.parametrize(
    ("body", "rule", "sentence"),
    [
        (
            ADD.replace("com.microsoft.QLinearAdd", "QLinearAdd"),
            "domain",
            "QLinearAdd add stands in the domain ai.onnx instead of com.microsoft",
        ),
        (ADD.replace(", t, z)", ", t)"), "inputs", "QLinearAdd add has 7 inputs instead of 8"),
        (ADD.replace(", t, z)", ", t, )"), "inputs", "QLinearAdd add has 7 inputs instead of 8"),
        (CONV.replace(", b)", ", b, b)"), "inputs", "QLinearConv conv has 10 inputs instead of 8 to 9"),
        (
            "[qc] r = com.microsoft.QLinearConcat(t, z, i, s, z, i)",
            "inputs",
            "QLinearConcat qc has 6 inputs instead of 5",
        ),
        (MATRIX + GEMM.replace(", v)", ", v, , z)"), "inputs", "QGemm gemm: the scale of g is missing"),
        (ADD.replace("t, z)", "neg, z)"), "scales", "QLinearAdd add: the scale of a is no finite float32 above 0"),
        (
            CONV.replace("W, sw, zw", "W, sv, zv"),
            "scales",
            "QLinearConv conv: the scale of W has 3 elements instead of 1 or 2",
        ),
        (
            ADD.replace("t, z)", "two, zz)"),
            "scales",
            "QLinearAdd add: the scale of a has 2 elements instead of 1",
        ),
        (
            "r = ReduceMax<keepdims = 0>(x) " + ADD.replace("t, z)", "r, z)"),
            "scales",
            "QLinearAdd add: the scale of a is computed at run time",
        ),
        (
            ADD.replace("(i, s, z, i, s, z,", "(i, s, , i, s, z,"),
            "zero points",
            "QLinearAdd add: the zero point of i is missing",
        ),
        (
            CONV.replace("W, sw, zw", "W, sw, uw"),
            "zero points",
            "QLinearConv conv: the zero point of W is uint8, the tensor int8",
        ),
        (
            CONV.replace("W, sw, zw", "W, sw, n"),
            "zero points",
            "QLinearConv conv: the zero point of W has 1 elements, its scale 2",
        ),
        (
            "k = Identity(z) " + ADD.replace("t, z)", "t, k)"),
            "zero points",
            "QLinearAdd add: the zero point of a is computed at run time",
        ),
        (
            ADD.replace("t, z)", "t, n)"),
            "types",
            "QLinearAdd add has tensors of different types: uint8, uint8, int8",
        ),
        (
            "[conv] c = QLinearConv(j, s, n, U, sw, uw, s, n)",
            "types",
            "QLinearConv conv has int8 data and a uint8 weight, for which there is no kernel",
        ),
        ("[conv] c = QLinearConv(i, s, z, W, sw, zw, s, n)", "types", "QLinearConv conv reads uint8 and writes int8"),
        (CONV.replace(", b)", ", two)"), "bias", "the bias of QLinearConv conv is float32 instead of int32"),
        (CONV.replace(", b)", ", v)"), "bias", "the bias of QLinearConv conv has 3 elements for 2 channels"),
        (
            MATRIX + PRODUCT.replace(", f)", ", v)"),
            "bias",
            "the bias of MatMulIntegerToFloat product is int32 instead of float32",
        ),
        (
            "k = Neg(b) " + CONV.replace(", b)", ", k)"),
            "bias",
            "the bias of QLinearConv conv is computed at run time",
        ),
        (
            CONV.replace("(i, s, z", "(i, t, z"),
            "encodings",
            "QLinearConv conv reads the integers that QuantizeLinear q makes in another encoding",
        ),
        (
            "h = Transpose<perm = [0, 1, 3, 2]>(i) [dq] d = DequantizeLinear(h, t, z)",
            "encodings",
            "DequantizeLinear dq reads the integers that QuantizeLinear q makes in another encoding",
        ),
        ("[abs] h = Abs(i)", "readers", "Abs abs reads the integers that QuantizeLinear q makes"),
        (CONV + " [relu] h = Relu(c)", "readers", "Relu relu reads the integers that QLinearConv conv makes"),
        (
            CONV
            + " [d] h = DequantizeLinear(c, s, z) [e] k = QuantizeLinear(h, s, z) "
            + ADD.replace("(i, s, z,", "(k, s, z,"),
            "round trips",
            "DequantizeLinear d and QuantizeLinear e between QLinearConv conv and QLinearAdd add do nothing",
        ),
    ],
)
def test_each_rule_is_broken_once(body: str, rule: str, sentence: str) -> None:
    assert broken(body, rule) == [sentence]


TRIP = "[d] h = DequantizeLinear(c, s, z) [e] k = QuantizeLinear(h, t, z) "


@pytest.mark.parametrize(
    "body",
    [
        CONV + TRIP + ADD.replace("(i, s, z,", "(k, t, z,"),  # another scale: requantized
        CONV + TRIP.replace("t, z", "s, z") + "[f] l = DequantizeLinear(k, s, z)",  # no integer op reads it
        TRIP.replace("(c, s", "(i, s").replace("t, z", "s, z") + ADD.replace("(i, s, z,", "(k, s, z,"),  # nor makes it
        "h = Transpose<perm = [0, 1, 3, 2]>(i) [dq] d = DequantizeLinear(h, s, z)",
        "h = Gather(x, i) ",  # indices are no numbers to be decoded: the slot is no data
    ],
)
def test_near_misses(body: str) -> None:
    assert broken(body) == []


def test_a_round_trip_that_changes_numbers_stays() -> None:
    """At the largest scales Q(DQ(q)) is not q: the product is infinite."""
    huge = "3e37"
    body = CONV.replace("s, z, b)", "s, z)") + TRIP.replace("t, z", "s, z") + ADD.replace("(i, s, z,", "(k, s, z,")
    source = f"g (float[1,2,2,2] x) => (float[1,2,2,2] y) <{FLOATS.replace('{0.5}', '{' + huge + '}')}{INTEGERS}> {{"
    for text, count in ((source, 0), (source.replace(huge, "0.5"), 1)):
        graph = parse(
            '<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]> '
            + text
            + f" i = QuantizeLinear(x, s, z) {body} y = Relu(x) }}"
        ).graph
        assert [v.rule for v in integer_violations(graph)] == ["round trips"] * count


def test_the_forms_are_those_of_the_schemas() -> None:
    theirs = {s.name: s for s in ort.get_all_operator_schema() if s.domain == MICROSOFT}
    for op in sorted(INTEGER_OPS - {"QLinearConcat"}):
        one = FORMS[op]
        schema = defs.get_schema(op, 21) if one.domain == "" else theirs[op]
        names = [i.name.lower() for i in schema.inputs]
        assert len(names) == one.most, op
        required = sum("Optional" not in str(i.option) for i in schema.inputs)
        assert required <= one.least, op
        for group in one.groups:
            prefix = "" if group.tensor == OUT else names[group.tensor][0]
            for slot, word in ((group.scale, "scale"), (group.zero, "zero_point")):
                if slot is not None:
                    assert word in names[slot] and names[slot].startswith(prefix), (op, names, slot)
        if one.bias is not None:
            assert names[one.bias] in ("b", "c", "bias")
    node = parse(
        '<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]> g (uint8[2] i) => (uint8[4] y) '
        "<float s = {1}, uint8 z = {0}> { y = com.microsoft.QLinearConcat <axis = 0> (s, z, i, s, z, i, s, z) }"
    ).graph.nodes[0]
    concat = form(node)
    assert concat is not None and [g.tensor for g in concat.groups] == [2, 5, OUT] and concat.most == 8
