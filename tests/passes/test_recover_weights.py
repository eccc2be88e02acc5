from __future__ import annotations

import numpy as np
import onnx
import pytest
from fusing import Qdq
from onnx import numpy_helper
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


@pytest.mark.parametrize(
    ("levels", "scale"),
    [
        ([1, -1, 0, 1], 0.25),
        ([1, 11, -21, 0], 0.25),
        ([21, -2, 0, 0], 2 * 0.4959554970264435),
        ([-10, -20, -1, 0], 1.6084494590759277),
        ([29, 14, -25, 0], 0.7441606521606445),
        ([1, -122, -5, 0], 1.6624921560287476),
    ],
    ids=[
        "one size",
        "gaps above the first size",
        "rounded up",
        "rounded up above 1",
        "rounded down",
        "rounded down above 1",
    ],
)
def test_case_2_steps_that_are_hard_to_find(levels: list[int], scale: float) -> None:
    """Where the sums of floats give the float32 next to the scale."""
    g = Qdq()
    weight = np.array(levels, np.float32).reshape(2, 2) * np.float32(scale)
    g.raw(g.op("MatMul", g.data(3, 2), g.constant(weight)))
    made = g.fuse(PASS)
    assert (made.reports[0].rewrites, made.gap) == (1, 0)
    stored = {i.name: numpy_helper.to_array(i) for i in onnx.load_from_string(made.file).graph.initializer}
    (integers,) = (v for n, v in stored.items() if n.endswith("_quantized"))
    assert integers.ravel().tolist() == levels


def test_case_2_all_levels_at_once() -> None:
    g = Qdq()
    weight = np.arange(1, 128).reshape(127, 1).astype(np.float32) * np.float32(0.37)
    g.raw(g.op("MatMul", g.data(3, 127), g.constant(weight)))
    assert g.fuse(PASS).reports[0].rewrites == 1


@pytest.mark.parametrize("sign", [1, -1])
def test_case_2_near_miss_levels_that_would_leave_int8(sign: int) -> None:
    g = Qdq()
    weight = sign * np.array([[86.1578369140625, 88.5622329711914, 102.10319519042969]], np.float32).T
    g.raw(g.op("MatMul", g.data(3, 3), g.constant(weight)))
    assert "no multiple of one step" in g.fuse(PASS).reasons[0]


def test_case_1_many_sites() -> None:
    g = Qdq()
    near, far = np.array([[0.5, -0.25], [31.75, 0]]), np.array([[0.5, -0.25], [31.75, 0.1]])
    for weight in (far, near, far, near):
        d = g.data(3, 2)
        g.raw(g.op("MatMul", g.op("Neg", d), g.constant(weight)))
        g.raw(g.op("MatMul", d, g.constant(weight)))
        g.raw(g.op("Add", d, g.constant([0.5, 0.25])))
    made = g.fuse(PASS)
    assert made.reports[0].rewrites == 2
    assert len(made.reasons) == 2


def test_case_1_a_transposed_convolution() -> None:
    g = Qdq()
    weight = np.random.default_rng(3).integers(-127, 128, (4, 2, 3, 3)).astype(np.float32) * np.float32(0.01)
    g.raw(g.op("ConvTranspose", g.data(1, 4, 6, 6), g.constant(weight)))
    made = g.fuse(PASS)
    assert (made.reports[0].rewrites, made.gap) == (1, 0)
