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
