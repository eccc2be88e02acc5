from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from onnxq.costs.key import CostKey, Operand, attributes_of, key_of
from onnxq.runtime.profile import KernelRun


def tensor(text: str) -> Operand:
    return Operand.parse(text)


def key(op: str, inputs: str, outputs: str, **attributes: int | str | tuple[int, ...]) -> CostKey:
    given, made = (tuple(map(tensor, text.split())) for text in (inputs, outputs))
    return CostKey(op=op, inputs=given, outputs=made, attributes=tuple(sorted(attributes.items())))


@pytest.mark.parametrize("text", ["float[1,3,224,224]", "=uint8[]", "int64[0]", "-"])
def test_operands_read_what_they_write(text: str) -> None:
    assert str(Operand.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "float", "float[1, 3]", "float[-1]", "==float[3]", "float[3]x", "Float[3]", "float[,]"]
)
def test_no_operand(text: str) -> None:
    with pytest.raises(ValueError, match="is no tensor: write"):
        Operand.parse(text)


@pytest.mark.parametrize(
    ("made", "macs"),
    [
        (key("com.microsoft.nchwc.Conv", "float[1,8,4,4] =float[16,8,3,3]", "float[1,16,4,4]"), 256 * 72),
        (
            key("com.microsoft.QLinearConv", "uint8[1,4,4,8] =float[] =uint8[] =int8[16,8,3,3]", "uint8[1,4,4,16]"),
            256 * 72,
        ),
        (key("MatMul", "float[2,5,7] =float[7,3]", "float[2,5,3]"), 30 * 7),
        (key("Gemm", "float[7,5] =float[7,3]", "float[5,3]", transA=1), 15 * 7),
        (key("Add", "float[9] float[9]", "float[9]"), 0),
    ],
)
def test_multiply_accumulates(made: CostKey, macs: int) -> None:
    assert made.macs == macs


def test_elements_are_those_of_the_largest_computed_tensor() -> None:
    assert key("Gather", "=float[1000,8] int64[4]", "float[4,8]").elements == 32
    assert key("GlobalAveragePool", "float[1,8,4,4]", "float[1,8,1,1]").elements == 128


def test_attributes_that_change_the_work() -> None:
    node = gs.Node(
        "Conv",
        "c",
        {
            "strides": [2, 2],
            "dilations": [1, 1],
            "group": 4,
            "auto_pad": "NOTSET",
            "alpha": 0.5,
            "activation": "Relu",
            "activation_params": [0.0, 6.0],
            "kernel_shape": [3, 3],
        },
    )
    assert attributes_of(node) == (("activation", "Relu"), ("group", 4), ("kernel_shape", (3, 3)), ("strides", (2, 2)))


def test_defaults_and_idle_attributes_are_one_key() -> None:
    plain = gs.Node("Conv", "c", {"kernel_shape": [3, 3]})
    full = gs.Node("Conv", "c", {"kernel_shape": [3, 3], "group": 1, "strides": [1, 1], "auto_pad": "VALID"})
    assert attributes_of(plain) == attributes_of(full)
    other = gs.Node("Conv", "c", {"kernel_shape": [3, 3], "group": 2})
    assert attributes_of(plain) != attributes_of(other)


def test_tensors_and_bodies_are_no_settings() -> None:
    body = gs.Graph([], [], [])
    node = gs.Node("ConstantOfShape", "c", {"value": gs.Constant("v", np.zeros(1, np.float32)), "body": body, "k": 2})
    assert attributes_of(node) == (("k", 2),)


def test_axis_of_a_conversion_counts_only_with_several_scales() -> None:
    def quantize(scales: list[float] | float) -> gs.Node:
        return gs.Node("QuantizeLinear", "q", {"axis": 1}, [gs.Variable("x"), gs.Constant("s", np.array(scales))])

    assert attributes_of(quantize(0.5)) == ()
    assert attributes_of(quantize([0.5, 0.25])) == (("axis", 1),)


def test_key_of_a_kernel_tells_constants_and_cuts_what_is_left_out_at_the_end() -> None:
    node = gs.Node(
        "Clip",
        "c",
        {},
        [gs.Variable("x"), gs.Constant("low", np.zeros((), np.float32)), gs.Variable("")],
        [gs.Variable("y")],
        None,
    )
    kernel = KernelRun(
        name="c", op="Clip", seconds=1e-6, inputs=(("float", (4,)), ("float", ()), ("", ())), outputs=(("float", (4,)),)
    )
    found = key_of(kernel, node, threads=2)
    assert found == CostKey(
        op="Clip", inputs=(tensor("float[4]"), tensor("=float[]")), outputs=(tensor("float[4]"),), threads=2
    )
    assert str(found) == "Clip(float[4] =float[]) -> float[4]"


def test_work_of_a_pool_is_that_of_its_windows() -> None:
    pool = key("com.microsoft.nchwc.MaxPool", "float[1,8,6,6]", "float[1,8,4,4]", kernel_shape=(3, 3))
    assert pool.work == 8 * 4 * 4 * 9
    assert key("GlobalAveragePool", "float[1,8,6,6]", "float[1,8,1,1]").work == 8 * 6 * 6
    assert key("Gemm", "float[5,7] =float[7,3]", "float[5,3]").work == 5 * 7 * 3
