"""The structural checker: every rule has a file that keeps it and one that breaks it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from quantized import quantize_text

from onnxq.cli.check import command
from onnxq.errors import UnknownNameError
from onnxq.ir.load import from_proto, load
from onnxq.ir.save import save
from onnxq.ir.text import parse
from onnxq.plan.check import RULES, check
from onnxq.targets.target import load_target

HEAD = '<ir_version: 10, opset_import: ["": 21]> g '
PAIR = "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)"


def found(text: str, target: str = "cpu") -> list[str]:
    return [f"{v.rule}: {v.sentence}" for v in check(parse(HEAD + text), load_target(target, reduce_range=False))]


def pair(scale: str = "float s = {0.5}", zero: str = "int8 z = {0}", body: str = PAIR) -> str:
    return f"(float[2,3] x) => (float[2,3] y) <{scale}, {zero}> {{ {body} }}"


def test_a_plain_pair_breaks_nothing() -> None:
    assert found(pair(), "cpu") == []
    assert found(pair(), "tensorrt") == []


WEIGHT = (
    "(float[2,4] x) => (float[2,4] y) <float s = {{0.5}}, uint8 z = {{0}}, float[4] sw = {{1, 2, 3, 4}}, "
    "int8[4] zw = {{0, 0, 0, 0}}, "
    "int8[4,4] W = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7}}, int32[4] b = {{1, 2, 3, 4}}, "
    "float[4] sb = {{{bias}}}, "
    "int32[4] zb = {{0, 0, 0, 0}}> {{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) "
    "w = DequantizeLinear{axis}(W, sw, zw) c = DequantizeLinear<axis = 0>(b, sb, zb) [gemm] y = Gemm(d, w, c) }}"
)


BATCHED = (
    "(float[1,2,2] x) => (float[1,2,2] y) <float s = {{0.5}}, uint8 z = {{0}}, {scale}, "
    "int8[1,2,2] W = {{1, 2, 3, 4}}> {{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) "
    "w = DequantizeLinear{axis}(W, sw, zw) [mul] y = MatMul(d, w) }}"
)


PRODUCT = (
    "(float[2,2] x) => (float[2,2] y) <float s = {{0.5}}, int8 z = {{0}}, int8[2,2] W = {{1, 2, 3, 4}}, "
    "float[2,2] V = {{1, 2, 3, 4}}> {{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) "
    "w = DequantizeLinear(W, s, z) [mul] y = MatMul({}) }}"
)


RESIDUAL = (
    "(float[2,2] x) => (float[2,2] y) <float s = {{0.5}}, int8 z = {{0}}, int8[2,2] W = {{1, 2, 3, 4}}> "
    "{{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) w = DequantizeLinear(W, s, z) "
    "[mul] c = MatMul(d, w) {} }}"
)
"""A product on quantized data, `c`, and what stands behind it."""
AGAIN = "r = QuantizeLinear(c, s, z) e = DequantizeLinear(r, s, z) "


@pytest.mark.parametrize(
    ("text", "target", "says"),
    [
        (pair(scale="float s = {-1.0}"), "cpu", "parameters: its scale is not above 0"),
        (
            pair(scale="float[1] s = {0.5}", zero="int8[1] z = {0}"),
            "cpu",
            "parameters: its scale of one element has rank 1",
        ),
        (
            pair(body="q = QuantizeLinear(x, s) y = DequantizeLinear(q, s)"),
            "cpu",
            "parameters: it has no constant zero point",
        ),
        (pair(zero="uint8 z = {0}"), "tensorrt", "symmetric-int8: its type is uint8"),
        (pair(zero="int8 z = {1}"), "tensorrt", "symmetric-int8: its zero point is not 0"),
        (
            pair(
                "float[3] s = {1, 2, 3}",
                "int8[3] z = {0, 0, 0}",
                "q = QuantizeLinear<axis = 1>(x, s, z) y = DequantizeLinear<axis = 1>(q, s, z)",
            ),
            "tensorrt",
            "activations-per-tensor: it quantizes an activation with a scale per channel",
        ),
        (
            pair("float[3] s = {1, 2, 3}", "int8[3] z = {0, 0, 0}"),
            "cpu",
            "axis: it has a scale per channel and does not say",
        ),
        (
            pair(
                "float[3] s = {1, 2, 3}",
                "int8[3] z = {0, 0, 0}",
                "q = QuantizeLinear<axis = 0>(x, s, z) y = DequantizeLinear<axis = 0>(q, s, z)",
            ),
            "cpu",
            "axis: it has 3 scales for 2 channels on axis 0",
        ),
        (
            pair(
                "float s = {0.5}, float t = {0.7}",
                "int8 z = {0}",
                f"{PAIR.replace('y =', 'a =')} r = QuantizeLinear(a, t, z) y = DequantizeLinear(r, t, z)",
            ),
            "cpu",
            "double-pairs: it quantizes again what",
        ),
        (
            WEIGHT.format(axis="<axis = 1>", bias="9, 9, 9, 9"),
            "cpu",
            "bias-scale: the scale of its bias is not the product",
        ),
        (
            WEIGHT.format(axis="<axis = 0>", bias="0.5, 1, 1.5, 2"),
            "cpu",
            "axis: its weight is scaled along axis 0, Gemm wants 1",
        ),
        (
            WEIGHT.format(axis="<axis = 1>", bias="0.5, 1, 1.5, 2").replace("zb = {0,", "zb = {1,"),
            "cpu",
            "bias-scale: the zero point of its bias is not 0",
        ),
        (
            WEIGHT.format(axis="<axis = 1>", bias="0.5, 1, 1.5, 2").replace("int32[4]", "int8[4]"),
            "cpu",
            "bias-scale: its bias is int8, not int32",
        ),
        (
            WEIGHT.format(axis="<axis = 1>", bias="0.5, 1, 1.5, 2")
            .replace("W, sw, zw", "W, sw, uw")
            .replace("int32[4] b =", "uint8[4] uw = {0, 0, 0, 0}, int32[4] b ="),
            "cpu",
            "parameters: it reads int8, and its zero point is uint8",
        ),
        (
            BATCHED.format(scale="float[2] sw = {1, 1}, int8[2] zw = {0, 0}", axis="<axis = 2>"),
            "cpu",
            "axis: its weight is scaled along axis 2, MatMul wants one scale for all",
        ),
        (
            "(uint8[2] x) => (uint8[2] y) <float s = {1}, float t = {2}, uint8 z = {0}>"
            " { [add] y = com.microsoft.QLinearAdd(x, s, z, x, s, z, t) }",
            "cpu",
            "integer-operators: QLinearAdd add has 7 inputs instead of 8 (inputs)",
        ),
        (WEIGHT.format(axis="<axis = 1>", bias="0.5, 1, 1.5, 2"), "tensorrt", "float-bias: its bias is quantized"),
        (
            "(uint8[3,3] x) => (uint8[3,3] y) <float s = {1}, uint8 z = {0}>"
            " { a = QLinearMatMul(x, s, z, x, s, z, s, z) y = Identity(a) }",
            "tensorrt",
            "no-integer-ops: tensorrt does not read QLinearMatMul",
        ),
        (
            "(uint8[3,3] x) => (float[3,3] y) <float s = {1}, uint8 z = {0}>"
            " { y = com.microsoft.QGemm(x, s, z, x, s, z) }",
            "tensorrt",
            "no-integer-ops: tensorrt does not read QGemm",
        ),
        (
            "(float[2,3] x) => (uint8[2,3] y) { y, s, z = DynamicQuantizeLinear(x) }",
            "tensorrt",
            "no-integer-ops: tensorrt does not read DynamicQuantizeLinear",
        ),
        (PRODUCT.format("d, V"), "tensorrt", "weighted-inputs: its data is quantized, and its weight is not"),
        (
            RESIDUAL.format("[add] y = Add(c, x)"),
            "tensorrt",
            "residual: its operand beside the result of MatMul mul is not quantized",
        ),
        (
            RESIDUAL.format("t = Relu(d) [add] y = Add(t, c)"),
            "tensorrt",
            "residual: its operand beside the result of MatMul mul is not quantized",
        ),
        (
            RESIDUAL.format(AGAIN + "[add] y = Add(e, d)"),
            "tensorrt",
            "residual: the result of MatMul mul is quantized in front of it: quantize the other operand only",
        ),
        (PRODUCT.format("x, w"), "tensorrt", "weighted-inputs: its weight is quantized, and its data is not"),
        (
            BATCHED.format(scale="float[1,1,2] sw = {1, 1}, int8[1,1,2] zw = {0, 0}", axis="<axis=1, block_size=2>"),
            "tensorrt",
            "weight-blocks: its weight has a scale per block, and its data is quantized",
        ),
        (
            pair(body="q = QuantizeLinear(x, s, z) m = Identity(q) y = DequantizeLinear(m, s, z)"),
            "tensorrt",
            "which only a DequantizeLinear may",
        ),
    ],
)
def test_each_rule_is_broken_once(text: str, target: str, says: str) -> None:
    assert any(says in one for one in found(text, target)), found(text, target)


def test_bias_and_axis_that_fit_break_nothing() -> None:
    assert found(WEIGHT.format(axis="<axis = 1>", bias="0.5, 1, 1.5, 2")) == []
    assert found(BATCHED.format(scale="float sw = {1}, int8 zw = {0}", axis="")) == []
    for inputs in ("d, w", "x, V", "x, x"):
        assert found(PRODUCT.format(inputs), "tensorrt") == []
    add = "(uint8[2] x) => (uint8[2] y) <float s = {1}, uint8 z = {0}> "
    add += "{ y = com.microsoft.QLinearAdd(x, s, z, x, s, z, s, z) }"
    assert found(add) == []
    assert [v.partition(":")[0] for v in found(add, "tensorrt")] == ["no-integer-ops"]


@pytest.mark.parametrize(
    "behind",
    [
        "[add] y = Add(c, d)",
        "t = Transpose(d) [add] y = Add(c, t)",  # TensorRT moves the DQ over it
        "[add] y = Add(c, w)",
        "n = Neg(c) [add] y = Add(n, x)",  # the Add is not next to the product
        "[add] a = Add(c, x) y = Mul(a, c)",  # the product has another reader: nothing is fused into it
        AGAIN + "[add] a = Add(e, d) y = Mul(a, e)",  # its 8 bits are wanted elsewhere, too
        "p = MatMul(d, w) r = QuantizeLinear(p, s, z) e = DequantizeLinear(r, s, z) [add] y = Add(c, e)",
    ],
)
def test_residuals_that_break_nothing(behind: str) -> None:
    """The fifth one has a float operand, but no product that the Add could be fused into; of two products one is the
    shortcut."""
    assert found(RESIDUAL.format(behind), "tensorrt") == []


def test_an_add_of_floats_and_of_constants_is_no_residual() -> None:
    head, _, body = RESIDUAL.format("[add] y = Add(c, k)").partition("int8[2,2] W")
    assert found(f"{head}float[2,2] k = {{1, 2, 3, 4}}, int8[2,2] W{body}", "tensorrt") == []
    assert (
        found(
            "(float[2,2] x) => (float[2,2] y) <float[2,2] W = {1, 2, 3, 4}> { c = MatMul(x, W) y = Add(c, x) }",
            "tensorrt",
        )
        == []
    )


def test_scales_at_run_time_and_versions() -> None:
    text = "(float[2,3] x, float s) => (float[2,3] y) <int8 z = {0}> { " + PAIR + " }"
    assert "parameters: its scale is computed at run time" in found(text)
    model = parse(HEAD + pair())
    target = replace(load_target("cpu"), max_opset=20, max_ir_version=9)
    assert [v.rule for v in check(model, target)] == ["versions", "versions"]


def test_rules_that_do_not_exist_are_named() -> None:
    with pytest.raises(UnknownNameError, match='names the rule "axes": did you mean "axis"'):
        check(parse(HEAD + pair()), replace(load_target("cpu"), rules=("axes",)))


def test_every_rule_binds_some_target() -> None:
    assert set(RULES) == {r for t in ("cpu", "tensorrt") for r in load_target(t).rules}


def test_files_of_both_targets_keep_their_rules() -> None:
    text = """<ir_version: 10, opset_import: ["": 21]> g (float[1,4,8,8] x) => (float[1,4,8,8] y)
        <float[4,4,3,3] W = {0}, float[4] b = {1, 2, 3, 4}> {
        a = Conv <pads=[1,1,1,1]> (x, W, b) r = Relu(a) c = Conv <pads=[1,1,1,1]> (r, W, b) y = Add(c, r) }"""
    import onnx

    for target in ("cpu", "tensorrt"):
        model = from_proto(onnx.load_from_string(quantize_text(text, target=target).file))
        assert check(model, load_target(target)) == []
    model = from_proto(onnx.load_from_string(quantize_text(text, target="cpu").file))
    assert {v.rule for v in check(model, load_target("tensorrt"))} >= {"symmetric-int8", "float-bias"}


def test_the_command_prints_sentences_and_exits_with_1(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    save(parse(HEAD + pair(zero="int8 z = {1}")), path)
    assert load(path).opset == 21
    done = CliRunner().invoke(command, [str(path), "--target", "tensorrt"], standalone_mode=False)
    assert done.return_value == 1
    assert "its zero point is not 0" in done.output and done.output.endswith("2 broken rules\n")
    done = CliRunner().invoke(command, [str(path), "--json"], standalone_mode=False)
    assert (done.return_value, done.output) == (0, "[]\n")
