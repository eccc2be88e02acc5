"""Plans for the bodies of If, Loop and Scan, written into them, and what ONNX Runtime makes of that."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from numpy.typing import NDArray
from quantized import Result, quantize_text

from onnxq.ir import load, walk
from onnxq.plan.check import check
from onnxq.plan.plan import Use, Value
from onnxq.runtime.session import Level
from onnxq.targets.target import load_target

HEAD = '<ir_version: 10, opset_import: ["": 21]>\n'
INPUTS = "float[1,4,8,8] x"
WEIGHTS = "float[4,4,3,3] W = {0}, float[4,4,3,3] V = {0}"
PADS = "<pads=[1,1,1,1]>"
CONSTANTS = {n: np.random.default_rng(i).normal(0, 0.1, (4, 4, 3, 3)).astype(np.float32) for i, n in enumerate("WV")}


def quantized(
    body: str, *, ins: str = INPUTS, outs: str = "float[1,4,8,8] y", inits: str = "", **options: Any
) -> Result:
    source = f"{HEAD}g ({ins}) => ({outs}) <{WEIGHTS}{inits}> {{ {body} }}"
    constants = {n: v for n, v in CONSTANTS.items() if f", {n})" in source}
    return quantize_text(source, constants=constants, **options)


def branches(then: str, otherwise: str) -> str:
    return (
        f"y = If (c) <then_branch = t () => (float[1,4,8,8] p) {{ {then} }}, "
        f"else_branch = e () => (float[1,4,8,8] q) {{ {otherwise} }}>"
    )


def integer(result: Result, *ops: str) -> list[bool]:
    return [d.integer for d in result.plan.decisions.values() if d.op in ops]


def near(result: Result, *, decibels: float = 25) -> None:
    """The file is near the float model, and ORT's optimizer does not change what it means."""
    exact, literal = result.run(original=True), result.run(Level.OFF)
    for name, value in exact.items():
        noise = float(((value.astype(np.float64) - literal[name]) ** 2).sum())
        assert noise and 10 * np.log10(float((value.astype(np.float64) ** 2).sum()) / noise) > decibels
    for level in (Level.BASIC, Level.EXTENDED, Level.ALL):
        for name, value in result.run(level).items():
            np.testing.assert_allclose(value, literal[name], rtol=0, atol=1e-5)


def conversions(result: Result) -> dict[str, list[tuple[str, str, str]]]:
    """Graph -> (op, what it reads, what it makes) of each Q and DQ that is no constant's."""
    found: dict[str, list[tuple[str, str, str]]] = {}

    def visit(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.input[0][0] not in "WV":
                found.setdefault(graph.name, []).append((node.op_type[0], node.input[0], node.output[0]))
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    visit(attribute.g)

    visit(onnx.load_from_string(result.file).graph)
    return found


@pytest.mark.parametrize("taken", [True, False])
def test_both_branches_of_if_are_integer(taken: bool) -> None:
    source = branches(f"p0 = Conv {PADS} (x, W) p = Relu(p0)", f"q = Conv {PADS} (x, V)")
    other = quantized(source, ins=INPUTS + ", bool c", inputs={"c": np.array(not taken)})
    assert sorted(integer(other, "Conv")) == [False, True]  # no sample reached the other
    result = quantized(source, ins=INPUTS + ", bool c", inputs={"c": np.array(taken)})
    near(result)
    assert result.kernels()["QLinearConv"] == 1
    assert {v.path[0].split("/")[1] for v in result.plan.values} == {"then_branch" if taken else "else_branch"}
    reasons = [d.reason for d in result.plan.decisions.values() if d.op == "Conv" and not d.integer]
    assert reasons == [f"no sample reached {'q' if taken else 'p'}, so its range is unknown"]


def test_what_has_8_bits_around_a_body_is_read_as_such_in_it() -> None:
    """One Q in the main graph; the DQ stands in the branch, where ONNX Runtime fuses it."""
    then = f"p = Conv {PADS} (a, V)"
    result = quantized(
        f"a = Conv {PADS} (x, W) " + branches(then, "q = Neg(a)"),
        ins=INPUTS + ", bool c",
        inputs={"c": np.array(True)},
    )
    assert conversions(result) == {
        "g": [
            ("Q", "x", "x_quantized"),
            ("D", "x_quantized", "x_dequantized"),
            ("Q", "a", "a_quantized"),
            ("D", "a_quantized", "a_dequantized"),
        ],
        "t": [("D", "a_quantized", "a_dequantized_1"), ("Q", "p_float", "p_quantized"), ("D", "p_quantized", "p")],
    }
    near(result)
    assert result.kernels()["QLinearConv"] == 2
    assert result.kernels()["QuantizeLinear"] == 1


def test_what_is_float_around_a_body_is_quantized_in_it() -> None:
    result = quantized(
        "a = Exp(x) " + branches(f"p = Conv {PADS} (a, V)", "q = Neg(a)"),
        ins=INPUTS + ", bool c",
        inputs={"c": np.array(True)},
    )
    assert "g" not in conversions(result)
    assert Value(("If_1/then_branch",), "a") in result.plan.values
    near(result)


LOOP = (
    "y = Loop (n, k, x) <body = b (int64 i, bool m, float[1,4,8,8] s) => (bool m2, float[1,4,8,8] s2) "
    "{{ m2 = Identity(m) {} }}>"
)


def test_the_body_of_a_loop() -> None:
    result = quantized(
        LOOP.format(f"a = Conv {PADS} (s, W) r = Relu(a) e = Add(r, s) s2 = Conv {PADS} (e, V)"),
        ins=INPUTS + ", int64 n",
        inits=", bool k = {1}",
        inputs={"n": np.array(3)},
    )
    assert integer(result, "Conv", "Relu", "Add") == [True, True, True, True]
    assert [v.path for v in result.plan.values if v.tensor == "s"] == [("Loop_0/body",)]
    near(result, decibels=20)
    kernels = result.kernels()
    assert (kernels["QLinearConv"], kernels["QLinearAdd"]) == (2, 1)


def test_the_body_of_a_scan() -> None:
    scan = (
        "y, z = Scan <num_scan_inputs=1, body = b (float[1,4,8,8] s, float[1,4,8,8] e) => "
        f"(float[1,4,8,8] s2, float[1,4,8,8] u) {{ a = Conv {PADS} (e, W) s2 = Add(a, s) u = Conv {PADS} (s2, V) }}> "
        "(x, w)"
    )
    result = quantized(scan, ins=INPUTS + ", float[3,1,4,8,8] w", outs="float[1,4,8,8] y, float[3,1,4,8,8] z")
    assert integer(result, "Conv") == [True, True]
    near(result, decibels=20)
    assert result.kernels()["QLinearConv"] == 2


def test_an_if_in_a_loop_takes_from_both_graphs_around_it() -> None:
    inner = (
        f"a = Conv {PADS} (s, W) f = Greater(i, one) s2 = If (f) <"
        f"then_branch = t () => (float[1,4,8,8] p) {{ p0 = Conv {PADS} (a, V) p1 = Conv {PADS} (z, W) p2 = Add(p0, p1) "
        f"p = Conv {PADS} (p2, W) }}, "
        f"else_branch = e () => (float[1,4,8,8] q) {{ q = Conv {PADS} (a, W) }}>"
    )
    result = quantized(
        f"z = Conv {PADS} (x, V) " + LOOP.format(inner),
        ins=INPUTS + ", int64 n",
        inits=", bool k = {1}, int64 one = {1}",
        inputs={"n": np.array(4)},
    )
    assert all(integer(result, "Conv", "Add"))
    near(result, decibels=15)
    found = conversions(result)
    assert {read for op, read, _ in found["t"] if op == "D"} >= {"z_quantized", "a_quantized"}
    assert [name for name, made in found.items() for op, read, _ in made if op == "Q" and read == "a"] == ["b"]
    assert result.kernels()["QLinearConv"] == 6


def test_a_float_reader_beside_an_integer_one_reads_the_body_s_own_dq() -> None:
    """A MaxPool that stays float in front of a body within the body: ONNX Runtime would push the DQ through it."""
    then = f"h = MaxPool <kernel_shape=[1,1]> (a) o = Conv {PADS} (a, V) b = If (c) <then_branch = tt () => "
    then += "(float[1,4,8,8] u) { u = Exp(h) }, else_branch = ee () => (float[1,4,8,8] v) { v = Neg(h) }> p = Add(b, o)"
    result = quantized(
        f"a = Conv {PADS} (x, W) " + branches(then, "q = Neg(a)"),
        ins=INPUTS + ", bool c",
        inputs={"c": np.array(True)},
        keep_float=["MaxPool*"],
    )
    near(result)


@pytest.mark.parametrize(
    ("before", "kept"),
    [(f"z = Conv {PADS} (x, V)", True), (f"z0 = Conv {PADS} (x, V) z = Tanh(z0)", False)],
)
def test_an_operand_that_has_8_bits_around_the_body_is_one_of_8_bits(before: str, kept: bool) -> None:
    then = f"r = Relu(x) a = Conv {PADS} (r, W) b = Add(a, z) p = Conv {PADS} (b, V)"
    result = quantized(
        f"{before} {branches(then, 'q = Neg(z)')}", ins=INPUTS + ", bool c", inputs={"c": np.array(True)}
    )
    (decision,) = (d for d in result.plan.decisions.values() if d.op == "Add")
    assert decision.integer == kept
    assert decision.reason == ("" if kept else "its input is float: it comes from the graph around (z)")
    near(result)


def test_an_op_on_what_a_body_is_given_says_so() -> None:
    body = LOOP.format(f"h = Transpose(s) s2 = Conv {PADS} (x, W)")
    result = quantized(
        body, ins=INPUTS + ", int64 n", inits=", bool k = {1}", inputs={"n": np.array(2)}, outs="float[1,4,8,8] y"
    )
    reasons = {d.op: d.reason for d in result.plan.decisions.values()}
    assert reasons["Transpose"] == "its input is float: it comes from an input of the body"


def test_a_target_may_leave_bodies_float() -> None:
    result = quantized(
        f"a = Conv {PADS} (x, W) " + branches(f"p = Conv {PADS} (a, V)", "q = Neg(a)"),
        ins=INPUTS + ", bool c",
        inputs={"c": np.array(True)},
        target="tensorrt",
    )
    reasons = {d.op: d.reason for d in result.plan.decisions.values() if not d.integer and d.op == "Conv"}
    assert reasons == {"Conv": "it stands in a body of If, Loop or Scan, where tensorrt is not known to run int8"}
    assert {u.path for u in result.plan.uses} == {()}


def test_a_mask_that_a_body_takes_stays_float_in_it() -> None:
    """Minus infinity comes in as the state of a loop: it must not set a range."""
    step = "s2 = Add(s, s) t = MatMul(s2, U)"
    source = (
        "h = Mul(x, low) y, z = Loop (n, k, h) <body = b (int64 i, bool m, float[4,4] s) => "
        f"(bool m2, float[4,4] s2, float[4,4] t) {{ m2 = Identity(m) {step} }}>"
    )
    text = (
        f"{HEAD}g (float[4,4] x, int64 n) => (float[4,4] y, float[K,4,4] z) "
        f"<float[4,4] U = {{0}}, float low = {{-1000000000.0}}, bool k = {{1}}> {{ {source} }}"
    )
    masked = quantize_text(text, inputs={"n": np.array(2)})
    assert not any(integer(masked, "MatMul"))
    mended = quantize_text(text.replace("-1000000000.0", "-1.0"), inputs={"n": np.array(2)})
    assert all(integer(mended, "MatMul"))


def test_uses_of_bodies_stand_in_the_plan() -> None:
    result = quantized(
        branches(f"p = Conv {PADS} (x, W)", "q = Neg(x)"), ins=INPUTS + ", bool c", inputs={"c": np.array(True)}
    )
    path = ("If_0/then_branch",)
    uses: set[NDArray[Any] | Use] = set(result.plan.uses)
    assert uses == {Use(path, "Conv_0", 0), Use(path, "Conv_0", 1), Use(path, "", 0)}
    assert '"If_0/then_branch"' in result.plan.to_json()


def test_the_rules_of_finished_files_hold_in_bodies() -> None:
    result = quantized(
        branches(f"p = Conv {PADS} (x, W, b)", "q = Neg(x)"),
        ins=INPUTS + ", bool c",
        inits=", float[4] b = {1, 2, 3, 4}",
        inputs={"c": np.array(True)},
    )
    target, model = load_target("cpu"), load.from_proto(onnx.load_from_string(result.file))
    assert check(model, target) == []
    (body,) = (inner for path, inner in walk.graphs(model.graph) if path and "then" in path[0])
    bias = next(n for n in body.nodes if n.op == "DequantizeLinear" and n.inputs[0].name.startswith("b_"))
    bias.inputs[1] = gs.Constant("other", 2 * bias.inputs[1].values)
    assert [v.sentence for v in check(model, target)] == [
        "the scale of its bias is not the product of its other scales"
    ]
