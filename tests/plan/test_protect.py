"""Forms of DequantizeLinear that ONNX Runtime leaves alone."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from quantized import Result, quantize_text

from onnxq.runtime.session import Level

HEAD = '<ir_version: 10, opset_import: ["": 21]>\n'
IF = (
    "y = If (c) <then_branch = t () => (float[K,L,M,N] p) {{ p = Abs({0}) }}, "
    "else_branch = e () => (float[K,L,M,N] q) {{ q = Neg({0}) }}>"
)
WEIGHTS = {"W": np.random.default_rng(1).normal(0, 0.1, (4, 4, 3, 3)).astype(np.float32)}
REASON = "a body of If, Loop or Scan reads the"


def captured(body: str, read: str, *, opset: int = 21) -> Result:
    source = (
        f'<ir_version: 10, opset_import: ["": {opset}]>\n'
        "g (float[1,4,8,8] x, bool c) => (float[K,L,M,N] y) "
        "<float[4,4,3,3] W = {0}, int64[4] s = {1, 2, 16, 8}, int64[4] k = {1, 8, 4, 8}> { "
        + body
        + IF.format(read)
        + " }"
    )
    return quantize_text(source, constants=WEIGHTS, inputs={"c": np.array(True)})


def loads_and_agrees(result: Result) -> None:
    """ORT 1.31 ends the whole process on what these tests avoid."""
    exact = result.run(Level.OFF)["y"]
    for level in Level:
        np.testing.assert_allclose(result.run(level)["y"], exact, rtol=0, atol=1e-5)


def axes(result: Result, tensor: str) -> list[int | None]:
    """The axis of each DQ that reads the quantized form of a tensor."""
    found = []
    for node in onnx.load_from_string(result.file).graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] == f"{tensor}_quantized":
            found.append(next((a.i for a in node.attribute if a.name == "axis"), None))
    return found


@pytest.mark.parametrize(
    "moves",
    [
        "b = MaxPool <kernel_shape=[2,2]> (a)",
        "b = Transpose(a)",
        "b = Reshape(a, s)",
        "d = Transpose(a) b = Reshape(d, k)",
    ],
)
def test_case_2_a_body_reads_moves_of_an_8_bit_tensor(moves: str) -> None:
    result = captured(f"a = Conv <pads=[1,1,1,1]> (x, W) {moves}", "b")
    assert axes(result, "a") == [1]
    loads_and_agrees(result)


def test_case_2_near_misses() -> None:
    direct = captured("a = Conv <pads=[1,1,1,1]> (x, W) ", "a")
    other = captured("a = Conv <pads=[1,1,1,1]> (x, W) b = Exp(a) ", "b")
    for result in (direct, other):
        assert axes(result, "a") == [None]
        loads_and_agrees(result)


def test_case_2_without_an_axis_of_fixed_size_the_tensor_stays_float() -> None:
    """The channels of a Concat follow from no weight: the integer Concat would leave nothing to hold on to."""
    body = "a = Conv <pads=[1,1,1,1]> (x, W) j = Concat <axis = 0> (a, a) z = Conv(j, W) "
    result = captured(body + "b = Transpose(j) n = ReduceSum(z) b2 = Add(b, n)", "b")
    decision = next(d for d in result.plan.decisions.values() if d.op == "Concat")
    assert not decision.integer and REASON in decision.reason
    loads_and_agrees(result)
    near = captured(body + "b = Exp(j) n = ReduceSum(z) b2 = Add(b, n)", "b2")
    assert next(d for d in near.plan.decisions.values() if d.op == "Concat").integer
    loads_and_agrees(near)


MOVED = "n = Neg(x) t = Transpose<perm = [0,1,3,2]>(n) u = Relu(t) y = Conv <pads=[1,1,1,1]> (u, W)"


def returned(body: str, outputs: str) -> Result:
    typed = ", ".join(f"float[1,4,8,8] {o}" for o in outputs.split())
    source = f"{HEAD} g (float[1,4,8,8] x) => ({typed}) <float[4,4,3,3] W = {{0}}> {{ {body} }}"
    return quantize_text(source, constants=WEIGHTS)


@pytest.mark.parametrize(
    ("body", "outputs"), [(MOVED, "n y"), (MOVED.replace("u = Relu(t)", "").replace("(u,", "(t,"), "n y")]
)
def test_case_3_an_output_that_moves_into_an_integer_op_stays_exact(body: str, outputs: str) -> None:
    result = returned(body, outputs)
    decision = next(d for d in result.plan.decisions.values() if d.op == "Conv")
    assert not decision.integer and "would quantize the model's output n, too" in decision.reason
    exact = result.run(Level.OFF, original=True)
    for level in Level:
        np.testing.assert_array_equal(result.run(level)["n"], exact["n"])


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        (MOVED, "y"),
        (MOVED, "t y"),  # no move behind it
        (MOVED, "u y"),
        (MOVED + " v = Exp(n)", "n v y"),  # another reader
        (MOVED.replace("Neg(x)", "Conv <pads=[1,1,1,1]> (x, W)"), "n y"),  # n has 8 bits itself
    ],
)
def test_case_3_near_misses(body: str, outputs: str) -> None:
    result = returned(body, outputs)
    assert all(d.integer for d in result.plan.decisions.values() if d.op == "Conv")
    literal = result.run(Level.OFF)
    for level in Level:
        for name, value in result.run(level).items():
            np.testing.assert_allclose(value, literal[name], rtol=0, atol=1e-6)


def test_case_1_a_float_op_in_front_of_moves_and_a_q() -> None:
    """The Q of the last Conv is pulled over the Transpose up to the ConvTranspose, whose weights ORT would take."""
    moves = "r = Clip(d, lo) t = Transpose<perm = [0,1,3,2]>(r)"
    pads = "<pads=[1,1,1,1]>"
    body = f"a = Conv {pads} (x, W) d = ConvTranspose {pads} (a, W) {moves} y = Conv {pads} (t, W)"
    inits = "float[4,4,3,3] W = {0}, float lo = {-3}"
    source = f"{HEAD} g (float[1,4,8,8] x) => (float[1,4,8,8] y) <{inits}> {{ {body} }}"
    result = quantize_text(source, constants=WEIGHTS)
    assert axes(result, "a") == [1]
    loads_and_agrees(result)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("moves", ["", "r = Transpose<perm = [0,1,3,2]>(a)"])
def test_one_channel_has_no_form_of_its_own(channels: int, moves: str) -> None:
    """One scale is a scalar for ORT whatever its rank is: what makes the tensor stays float. Found on a music model."""
    rng = np.random.default_rng(5)
    shapes = {"W": (channels, 4, 3, 3), "D": (channels, 4, 3, 3), "V": (4, 4, 3, 3)}
    weights = {n: rng.normal(0, 0.1, s).astype(np.float32) for n, s in shapes.items()}
    weights["D"][0, 0, 0, 0] = 5.0  # so that rounding D per tensor would be seen
    pads = "<pads=[1,1,1,1]>"
    body = (
        f"a = Conv {pads} (x, W) {moves} d = ConvTranspose {pads} ({'r' if moves else 'a'}, D) y = Conv {pads} (d, V)"
    )
    inits = ", ".join(f"float[{','.join(map(str, s))}] {n} = {{0}}" for n, s in shapes.items())
    result = quantize_text(
        f"{HEAD} g (float[1,4,8,8] x) => (float[1,4,8,8] y) <{inits}> {{ {body} }}", constants=weights
    )
    made = next(d for d in result.plan.decisions.values() if d.op == "Conv")
    assert made.integer is (channels > 1)
    if channels == 1:
        assert "ONNX Runtime would round the float weights" in made.reason
        assert axes(result, "a") == []
    else:
        assert axes(result, "a") == [1]
    loads_and_agrees(result)


@pytest.mark.parametrize(
    ("moves", "protected"),
    [
        ("t = Transpose<perm = [0,1,3,2]>(a)", True),
        ("s = Transpose<perm = [0,1,3,2]>(a) t = MaxPool<kernel_shape = [1,1]>(s)", True),
        ("t = Neg(a)", False),
        ("t = DepthToSpace<blocksize = 1>(a)", False),
    ],
)
def test_case_2_a_float_op_behind_moves_keeps_its_weights(moves: str, protected: bool) -> None:
    """The DQ is pushed over the moves up to the ConvTranspose, whose weights ORT would take: found by seed 710."""
    pads = "<pads=[1,1,1,1]>"
    body = f"a = Conv {pads} (x, W) {moves} d = ConvTranspose {pads} (t, W) y = Conv {pads} (d, W)"
    source = f"{HEAD} g (float[1,4,8,8] x) => (float[1,4,8,8] y) <float[4,4,3,3] W = {{0}}> {{ {body} }}"
    result = quantize_text(source, constants=WEIGHTS)
    assert axes(result, "a") == [1 if protected else None]
    loads_and_agrees(result)


def test_case_2_without_an_axis_of_fixed_size_the_reason_names_the_op_with_float_weights() -> None:
    pads = "<pads=[1,1,1,1]>"
    body = f"a = Conv {pads} (x, W) j = Concat <axis = 0> (a, a) z = Conv {pads} (j, W) "
    body += f"t = Transpose<perm = [0,1,3,2]>(j) d = ConvTranspose {pads} (t, W) y0 = Conv {pads} (d, W) y = Add(y0, z)"
    source = f"{HEAD} g (float[1,4,8,8] x) => (float[2,4,8,8] y) <float[4,4,3,3] W = {{0}}> {{ {body} }}"
    result = quantize_text(source, constants=WEIGHTS)
    decision = next(d for d in result.plan.decisions.values() if d.op == "Concat")
    assert not decision.integer and "would round the float weights" in decision.reason
    loads_and_agrees(result)


@pytest.mark.parametrize("op", ["MatMul", "Gemm"])
@pytest.mark.parametrize(
    ("tail", "outputs", "forced"),
    [
        ("r = Relu(m) y = Tanh(r)", "y", True),
        ("r = Clip(m, lo) y = Tanh(r)", "y", True),
        ("r = Relu(m) y = Tanh(r)", "m y", True),
        ("r = Relu(m) y = MatMul(r, W)", "m y", True),
        ("s = Relu(m) r = Relu(m) y = MatMul(r, W)", "s y", True),
        ("r = Clip(m, hi) y = MatMul(r, W)", "y", True),
        ("s = Tanh(m) r = Relu(m) t = MatMul(r, W) y = Mul(s, t)", "y", True),
        ("s = Tanh(x) r = Relu(m) t = MatMul(r, W) y = Mul(s, t)", "y", True),
        ("a = Add(m, b) r = Relu(a) y = Tanh(r)", "y", None),
        ("r = Tanh(x) y = Add(r, m)", "y", None),
        ("a = Add(m, b) y = MatMul(a, W)", "a y", None),
        ("a = Add(m, b) y = MatMul(a, W)", "y", None),
        ("y = Add(m, lo)", "y", False),
        ("r = Relu(m) y = Tanh(r)", "r y", False),
        ("r = Relu(m) s = Tanh(r) y = Add(r, s)", "y", False),
        ("y = Tanh(m)", "y", False),
        ("y = Relu(m)", "y", False),
    ],
)
def test_where_ort_wants_a_q_behind_a_matmul(op: str, tail: str, outputs: str, forced: bool | None) -> None:
    """ORT takes the reader of a Relu for the Q that it looks for, and gives up on the MatMul in front of it; it makes
    Gemm of MatMul and Add, and runs that in float with a bias that is no constant row or with two kinds of readers.
    """
    typed = ", ".join(f"float[2,8] {o}" for o in outputs.split())
    inits = "float[8,8] W = {0}, float lo = {-0.5}, float hi = {0.5}, float[8] b = {1,2,3,4,5,6,7,8}"
    result = quantize_text(f"{HEAD} g (float[2,8] x) => ({typed}) <{inits}> {{ m = {op}(x, W) {tail} }}")
    assert all(d.integer for d in result.plan.decisions.values() if d.op == op)
    assert not {"MatMul", "Gemm", "FusedGemm"} & set(result.kernels()), result.kernels()
    quantized = {v.tensor for v in result.plan.values} - {"x"}
    if forced is not None:
        assert bool(quantized) == forced
    loads_and_agrees(result)


@pytest.mark.parametrize(("op", "protected"), [("Conv", False), ("ConvTranspose", True)])
def test_case_2_an_integer_op_behind_a_float_move_has_no_float_weights(op: str, protected: bool) -> None:
    """A Q stands in front of it: found by a MaxPool of opset 10, which has no integer kernel."""
    pads = "<pads=[1,1,1,1]>"
    body = f"a = Conv {pads} (x, W) t = Transpose<perm = [0,1,3,2]>(a) d = {op} {pads} (t, W) y = Conv {pads} (d, W)"
    source = f"{HEAD} g (float[1,4,8,8] x) => (float[1,4,8,8] y) <float[4,4,3,3] W = {{0}}> {{ {body} }}"
    result = quantize_text(source, constants=WEIGHTS, keep_float=["Transpose*"])
    assert axes(result, "a") == [1 if protected else None]
    loads_and_agrees(result)


@pytest.mark.parametrize(
    ("product", "integer"), [("MatMul(a, b)", True), ("MatMul(a, c)", False)], ids=["both in 8 bits", "one in float"]
)
def test_a_product_of_two_activations_is_the_literal_one(product: str, integer: bool) -> None:
    """ORT multiplies the integers that other readers want of them, whatever the plan says: no 8-bit error is added."""
    body = f"a = MatMul(x, W) b = MatMul(x, W) c = Exp(x) p = MatMul(a, W) q = MatMul(b, W) y = {product}"
    source = f"{HEAD} g (float[8,8] x) => (float[8,8] y, float[8,8] p, float[8,8] q, float[8,8] c) "
    source += f"<float[8,8] W = {{0}}> {{ {body} }}"
    result = quantize_text(source, constants={"W": np.random.default_rng(1).normal(0, 0.3, (8, 8)).astype(np.float32)})
    decision = next(d for d in result.plan.decisions.values() if not d.integer and d.op == "MatMul")
    assert "both operands are computed at run time" in decision.reason
    assert result.kernels()["MatMulIntegerToFloat"] == (3 if integer else 2)
    assert result.kernels()["MatMul"] == (0 if integer else 1)
    loads_and_agrees(result)
