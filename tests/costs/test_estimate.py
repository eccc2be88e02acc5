from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.costs.estimate import CLASS, LINE, MEASURED, NEAR, NONE, Costs, fit
from onnxq.costs.key import CostKey, Operand
from onnxq.costs.table import Cost, CostTable, Machine

HERE = Machine(cpu="A", family="x86_64", features=(), onnxruntime="1.31.1")


def light(op: str, size: int, dtype: str = "float", threads: int = 1) -> CostKey:
    whole = Operand(dtype=dtype, shape=(size,))
    return CostKey(op=op, inputs=(whole,), outputs=(whole,), threads=threads)


def conv(channels: int, side: int, op: str = "Conv", dtype: str = "float", threads: int = 1) -> CostKey:
    data = Operand(dtype=dtype, shape=(1, channels, side, side))
    weights = Operand(dtype="float", shape=(channels, channels, 3, 3), constant=True)
    return CostKey(op=op, inputs=(data, weights), outputs=(data,), threads=threads)


def costs(*entries: tuple[CostKey, float]) -> Costs:
    return Costs((CostTable(machine=HERE, costs={key: Cost(context=(s,)) for key, s in entries}),))


def test_what_is_measured_is_taken_as_it_is() -> None:
    found = costs((conv(8, 8), 5e-6), (conv(8, 16), 9e-6)).seconds(conv(8, 8))
    assert (found.seconds, found.how, found.measured) == (5e-6, MEASURED, True)


@settings(deadline=None)
@given(st.floats(1e-8, 1e-5), st.floats(1e-12, 1e-8), st.integers(1, 10_000_000))
def test_light_ops_of_three_sizes_lie_on_a_line(a: float, b: float, size: int) -> None:
    known = costs(*((light("Sin", n), a + b * n) for n in (10, 1000, 100_000)))
    found = known.seconds(light("Sin", size))
    if size not in (10, 1000, 100_000):
        assert found.how == LINE
    assert found.seconds == pytest.approx(a + b * size, rel=1e-3)


def test_a_line_has_no_negative_part() -> None:
    falling = fit([(10, 3e-6), (100, 2e-6), (1000, 1e-6)])
    assert falling.b == 0
    steep = fit([(1000, 1e-6), (2000, 4e-6), (3000, 9e-6)])
    assert steep.a == 0


def test_two_sizes_make_no_line() -> None:
    known = costs((light("Sin", 10), 1e-6), (light("Sin", 100_000), 1e-4))
    assert known.seconds(light("Sin", 1000)).how == NEAR


@settings(deadline=None)
@given(st.integers(4, 256), st.integers(4, 64))
def test_more_work_of_the_same_kind_takes_no_less(channels: int, side: int) -> None:
    known = costs((conv(32, 16), 1e-4))  # one entry: only its size is scaled
    assert known.seconds(conv(channels, side)).seconds <= known.seconds(conv(channels, side + 1)).seconds


def test_the_nearest_shape_counts_most() -> None:
    slow, fast = (conv(8, 64), 1e-3), (conv(256, 8), 1e-5)
    near_slow, near_fast = (costs(slow, fast).seconds(k) for k in (conv(8, 60), conv(256, 9)))
    only_slow, only_fast = (costs(e).seconds(conv(8, 60)).seconds for e in (slow, fast))
    assert abs(near_slow.seconds - only_slow) < abs(near_slow.seconds - only_fast)
    assert near_fast.seconds < near_slow.seconds


def test_groups_from_narrow_to_wide() -> None:
    wanted = conv(16, 16)
    narrow = [
        (conv(16, 17), 1e-5),
        (conv(16, 17, threads=2), 2e-5),
        (conv(16, 17, dtype="float16"), 3e-5),
        (conv(16, 17, op="com.microsoft.FusedConv"), 4e-5),
    ]
    for number, (_, seconds) in enumerate(narrow):
        found = costs(*narrow[number:]).seconds(wanted)
        assert found.how == NEAR
        assert found.seconds == pytest.approx(seconds, rel=0.2)


def test_ops_of_its_kind_are_better_than_nothing() -> None:
    assert costs((light("Sin", 100), 1e-6), (conv(8, 8), 1e-3)).seconds(light("Foo", 100)).how == CLASS
    assert costs((light("Sin", 100), 1e-6), (conv(8, 8), 1e-3)).seconds(light("Foo", 100)).seconds == pytest.approx(
        1e-6
    )
    assert costs((conv(8, 8), 1e-3)).seconds(light("Foo", 100)).how == NONE
    assert costs().seconds(conv(8, 8)).seconds == 0


def test_a_measurement_in_a_later_table_goes_before_an_estimate_from_the_first() -> None:
    first, second = (costs(e).tables[0] for e in ((conv(8, 9), 1e-6), (conv(8, 8), 7e-6)))
    assert Costs((first, second)).seconds(conv(8, 8)).seconds == 7e-6
    assert Costs((first, second)).seconds(conv(8, 10)).seconds < 7e-6


@pytest.mark.parametrize("op", ["QuantizeLinear", "DequantizeLinear"])
def test_conversions_by_their_size(op: str) -> None:
    def key(size: int) -> CostKey:
        whole, small = Operand(dtype="float", shape=(1, size)), Operand(dtype="uint8", shape=(1, size))
        data, made = (whole, small) if op == "QuantizeLinear" else (small, whole)
        scale, zero = (Operand(dtype=t, constant=True) for t in ("float", "uint8"))
        return CostKey(op=op, inputs=(data, scale, zero), outputs=(made,))

    known = costs(*((key(n), 2e-6 + n * 1e-10) for n in (100, 10_000, 1_000_000)))
    found = known.conversion(op, 50_000)
    assert found.how == LINE
    assert found.seconds == pytest.approx(7e-6, rel=1e-3)
    assert known.conversion(op, 100_000).seconds > found.seconds


def test_what_has_the_same_activation_is_nearer() -> None:
    def clipped(side: int) -> CostKey:
        return dataclasses.replace(conv(16, side), attributes=(("activation", "Clip"),))

    known = costs((conv(16, 20), 1e-5), (clipped(21), 9e-5))
    plain, other = (known.seconds(k).seconds for k in (conv(16, 21), clipped(20)))
    assert plain < other
