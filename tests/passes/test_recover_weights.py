from __future__ import annotations

import numpy as np
import onnx
import pytest
from fusing import Qdq
from rewriting import bitwise, keep

from onnxq.testing import check_pass
from onnxq_passes.recover_weights import RecoverWeights

PASS = RecoverWeights()
K = "float s = {0.02}, uint8 z = {120}"
HEAD = "(float[1,2] x) => (float[1,2] y) "
BODY = "{ [q] q = QuantizeLinear(x, s, z) [d] d = DequantizeLinear(q, s, z) [m] y = MatMul(d, w) }"


def test_contract() -> None:
    check_pass(RecoverWeights)


def test_the_integers_are_stored() -> None:
    after = (
        f"{HEAD}<{K}, int8[2,2] w_quantized = {{2, -1, 127, 0}}, float w_scale = {{0.25}}, int8 w_zero_point = {{0}}> "
        "{ [q] q = QuantizeLinear(x, s, z) [d] d = DequantizeLinear(q, s, z) "
        "[w_DequantizeLinear] w_dequantized = DequantizeLinear(w_quantized, w_scale, w_zero_point) [m] y = MatMul(d, w_dequantized) }"
    )
    bitwise(PASS, f"{HEAD}<{K}, float[2,2] w = {{0.5, -0.25, 31.75, 0}}> {BODY}", after, rewrites=1)


@pytest.mark.parametrize("scale", [0.0070876, 0.00286545, 1e-5, 3.7, 0.1])
@pytest.mark.parametrize("op", ["Conv", "Gemm", "MatMul"])
def test_any_scale_bit_for_bit(op: str, scale: float) -> None:
    shape = (8, 4, 3, 3) if op == "Conv" else (30, 8)
    levels = np.random.default_rng(3).integers(-127, 128, shape)
    g = Qdq()
    weight = g.constant(levels.astype(np.float32) * np.float32(scale))
    g.raw(g.op(op, g.data(*((1, 4, 6, 6) if op == "Conv" else (2, 30))), weight))
    made = g.fuse(PASS)
    assert (made.reports[0].rewrites, made.gap) == (1, 0)
    assert made.ops["DequantizeLinear"] == 2


@pytest.mark.parametrize(
    "weights",
    [
        "0.5, -0.25, 31.75, 0.1",
        "0.5, -0.25, 32, 0",
        "0.25, -0.0, 0.5, 0",
        "0.25, 0.25000003, 1, 2",
        "inf, 1, 2, 3",
        "0, 0, 0, 0",
    ],
    ids=["off the grid", "beyond int8", "a negative zero", "one bit off", "infinite", "no step"],
)
def test_case_2_what_stays(weights: str) -> None:
    keep(PASS, f"{HEAD}<{K}, float[2,2] w = {{{weights}}}> {BODY}", "no multiple of one step")


def test_case_1_float_data_is_no_site() -> None:
    keep(PASS, f"{HEAD}<float[2,2] w = {{0.5, -0.25, 31.75, 0}}> {{ [m] y = MatMul(x, w) }}")


def test_case_3_shared_weights_are_stored_once() -> None:
    g = Qdq()
    weight = g.constant(np.array([[0.5, -0.25], [31.75, 0]]))
    g.raw(g.op("Add", g.op("MatMul", g.data(3, 2), weight), g.op("MatMul", g.data(3, 2), weight)))
    made = g.fuse(PASS)
    assert (made.reports[0].rewrites, made.gap) == (2, 0)
    graph = onnx.load_from_string(made.file).graph
    assert sum(i.data_type == onnx.TensorProto.INT8 and len(i.dims) == 2 for i in graph.initializer) == 1
