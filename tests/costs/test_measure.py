from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from onnxq.costs.common import cases
from onnxq.costs.key import CostKey, Operand
from onnxq.costs.measure import Case, measure, measure_cases, one_node, tiny
from onnxq.costs.table import this_machine
from onnxq.errors import UsageError
from onnxq.ir.save import to_bytes
from onnxq.runtime.profile import Distortion, Profile, profile
from onnxq.runtime.session import Session

NONE = Distortion(inside=0.0, between=0.0, call=0.0)
CONV = Case(
    op="Conv",
    shapes=((1, 4, 8, 8),),
    weights=((16, 4, 3, 3), (16,)),
    out=(1, 16, 6, 6),
    attributes=(("kernel_shape", [3, 3]),),
    channel=0,
)


def key(op: str, inputs: str, outputs: str, **attributes: Any) -> CostKey:
    given, made = (tuple(map(Operand.parse, text.split())) for text in (inputs, outputs))
    return CostKey(op=op, inputs=given, outputs=made, attributes=tuple(sorted(attributes.items())))


def fake(*arguments: Any, **settings: Any) -> Profile:
    """ORT's profiler on next to no runs: what is looked at is what ran, not how long."""
    return profile(*arguments, **{**settings, "runs": 1, "warmup": 0, "distortion": NONE})


KERNELS = [
    key("Add", "float[2,3] float[2,3]", "float[2,3]"),
    key("Gemm", "float[2,3] =float[4,3] =float[4]", "float[2,4]", transB=1),
    key("Reshape", "float[2,3] =int64[1]", "float[6]"),
    key("QuantizeLinear", "float[2,3] =float[] =uint8[]", "uint8[2,3]"),
    key("DequantizeLinear", "uint8[2,3] =float[] =uint8[]", "float[2,3]"),
    key("Clip", "float[6] - =float[]", "float[6]"),
    key(
        "com.microsoft.QLinearConv",
        "uint8[1,8,8,4] =float[] =uint8[] =int8[8,4,3,3] =float[8] =int8[8] =float[] =uint8[] =int32[8]",
        "uint8[1,6,6,8]",
        channels_last=1,
        kernel_shape=(3, 3),
    ),
    key("com.microsoft.nchwc.ReorderInput", "float[1,16,4,4]", "float[1,16,4,4]"),
    key(
        "com.microsoft.FusedConv",
        "float[1,1,4,4] =float[3,1,3,3]",
        "float[1,3,2,2]",
        activation="Clip",
        kernel_shape=(3, 3),
    ),
]


@pytest.mark.parametrize("wanted", KERNELS, ids=lambda k: k.op)
def test_a_kernel_runs_by_itself_and_has_its_key(wanted: CostKey) -> None:
    found = measure([wanted], rounds=2, runs=1, profiler=fake)
    assert found.refused == {}
    assert list(found.table.costs) == [wanted]
    assert found.table.machine == this_machine()
    assert 1 <= len(found.table.costs[wanted].alone) <= 2
    assert found.table.costs[wanted].context == ()


def test_the_model_depends_on_the_key_only() -> None:
    one, two = (one_node(KERNELS[6]) for _ in range(2))
    assert to_bytes(one[0]) == to_bytes(two[0])
    assert all((one[1][name] == two[1][name]).all() for name in one[1])


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (
            key("Slice", "float[8] =int64[1] =int64[1]", "float[4]"),
            "takes indices or axes that its cost key does not tell",
        ),
        (key("Foo", "float[8]", "float[8]"), "cannot load"),
        (key("Add", "complex64[8] complex64[8]", "complex64[8]"), "tensors of complex64 cannot be made up"),
    ],
)
def test_a_kernel_that_cannot_run_by_itself(wanted: CostKey, why: str) -> None:
    found = measure([wanted, KERNELS[0]], rounds=2, runs=1, profiler=fake)
    assert list(found.refused) == [wanted]
    assert why in found.refused[wanted]
    assert list(found.table.costs) == [KERNELS[0]]


def test_another_kernel_than_the_one_that_was_asked_for() -> None:
    wanted = key("Add", "float[2,3] float[2,3]", "float[2,3]")
    other = fake(to_bytes(one_node(KERNELS[1])[0]), [one_node(KERNELS[1])[1]])
    found = measure([wanted], rounds=1, runs=1, profiler=lambda *_, **__: other)
    assert found.refused == {wanted: "ONNX Runtime ran another kernel in its place"}
    assert len(found.table) == 0


def test_float_and_integer_form_of_one_op() -> None:
    found = measure_cases([CONV], rounds=1, runs=1, profiler=fake)
    kinds = set(found.by_kind)
    assert kinds >= {"Conv", "QuantizeLinear", "QLinearConv", "DequantizeLinear"}
    (integer,) = [k for k, _ in found.by_kind["QLinearConv"]]
    assert integer.inputs[0].dtype == "uint8"
    assert integer.inputs[3] == Operand(dtype="int8", shape=(16, 4, 3, 3), constant=True)
    assert integer.inputs[4].shape == (16,)
    (float_form,) = [k for k, _ in found.by_kind["Conv"]]
    assert float_form.macs == integer.macs


def test_a_product_that_gives_floats() -> None:
    def kinds(closed: bool) -> set[str]:
        case = Case(op="MatMul", shapes=((1, 4, 8),), weights=((8, 6),), out=(1, 4, 6), channel=1, closed=closed)
        return set(measure_cases([case], rounds=1, runs=1, profiler=fake).by_kind)

    assert "MatMulIntegerToFloat" in kinds(closed=False)
    assert "QLinearMatMul" in kinds(closed=True)


def test_only_float() -> None:
    case = Case(op="Tanh", shapes=((4,),), out=(4,), integer=False)
    told: list[str] = []
    found = measure_cases([case], rounds=2, runs=1, profiler=fake, told=told.append)
    assert set(found.by_kind) == {"Tanh"}
    assert len(told) == 2


def test_nothing_to_measure_with() -> None:
    with pytest.raises(UsageError, match="at least one round"):
        measure([], rounds=0)
    with pytest.raises(UsageError, match="at least one round"):
        measure_cases([], threads=0)


def test_the_common_ops_are_valid_and_all_different() -> None:
    wanted = list(cases())
    assert len(set(map(repr, wanted))) == len(wanted)
    assert {c.op for c in wanted} >= {"Conv", "MatMul", "Gemm", "Add", "Mul", "Sigmoid", "Concat", "MaxPool", "Softmax"}
    small = {}
    for case in wanted:  # the smallest of each op: ORT takes both forms, and the output has the shape that is said
        size = sum(int.__mul__(*(s[-1], s[-2])) for s in case.shapes)
        if case.op not in small or size < small[case.op][0]:
            small[case.op] = (size, case)
    for _, case in small.values():
        for integer in (False, True):
            model, inputs = tiny(case, integer=integer)
            made = Session(to_bytes(model), threads=1).run(inputs)
            assert [v.shape for v in made.values()] == [case.out]


def test_an_activation_is_fused_in_float() -> None:
    case = dataclasses.replace(CONV, activation="Clip", integer=False)
    found = measure_cases([case], rounds=1, runs=1, profiler=fake)
    ((only, _),) = found.by_kind["Conv"]
    assert dict(only.attributes)["activation"] == "Clip"
    assert "Clip" not in found.by_kind
