from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.costs.key import CostKey, Operand
from onnxq.costs.table import Cost, CostTable, Machine, table_of, this_machine
from onnxq.errors import UsageError

HERE = Machine(cpu="A", family="x86_64", features=("avx2",), onnxruntime="1.31.1")
THERE = Machine(cpu="B", family="x86_64", features=("avx2",), onnxruntime="1.31.1")

SECONDS = st.frozensets(st.floats(1e-9, 10.0), max_size=3)


def add(size: int) -> CostKey:
    whole = Operand(dtype="float", shape=(size,))
    return CostKey(op="Add", inputs=(whole, whole), outputs=(whole,))


@st.composite
def tables(draw: st.DrawFn) -> CostTable:
    costs = {}
    for size in draw(st.frozensets(st.integers(1, 4))):
        context, alone = draw(SECONDS), draw(SECONDS)
        if context or alone:
            costs[add(size)] = Cost(context=tuple(sorted(context)), alone=tuple(sorted(alone)))
    return CostTable(machine=HERE, costs=costs)


@settings(deadline=None)
@given(tables(), tables(), tables())
def test_merging_has_no_order_and_no_grouping_and_twice_is_once(a: CostTable, b: CostTable, c: CostTable) -> None:
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c)) == a.merge(b, c)
    assert a.merge(a) == a
    assert a.merge(CostTable(machine=HERE)) == a


def test_median_and_spread() -> None:
    cost = Cost(alone=(1.0, 2.0, 7.0))
    assert (cost.seconds, cost.spread) == (2.0, 6.0)


def test_what_was_seen_in_a_model_counts_before_what_was_seen_alone() -> None:
    both = Cost(alone=(1.0,)).union(Cost(context=(3.0, 5.0)))
    assert both.observations == (3.0, 5.0)
    assert both.seconds == 4.0


def test_thinning_keeps_the_ends_and_the_middle() -> None:
    many = Cost(alone=tuple(float(i) for i in range(101)))
    few = many.thinned(5)
    assert few.alone == (0.0, 25.0, 50.0, 75.0, 100.0)
    assert many.thinned(101) == many
    assert few.seconds == many.seconds


def test_with_more_observations() -> None:
    table = CostTable(machine=HERE).with_(add(1), Cost(alone=(2.0,))).with_(add(1), Cost(alone=(1.0,)))
    found = table.lookup(add(1))
    assert found is not None
    assert found.alone == (1.0, 2.0)
    assert table.lookup(add(2)) is None
    assert len(table) == 1


def test_a_cost_without_observation() -> None:
    with pytest.raises(UsageError, match="the cost of Add has no observation"):
        CostTable(machine=HERE).with_(add(1), Cost())


def test_tables_of_two_machines() -> None:
    with pytest.raises(UsageError, match=r"different machines \(A, ONNX Runtime 1.31.1; B, .*\) cannot be merged"):
        CostTable(machine=HERE).merge(CostTable(machine=THERE))


def test_a_table_of_another_machine_says_so() -> None:
    assert CostTable(machine=HERE).foreign(HERE) == ""
    assert "measured elsewhere (A, ONNX Runtime 1.31.1); this is B" in CostTable(machine=HERE).foreign(THERE)


def test_observations_of_one_key_come_together() -> None:
    found = table_of([(add(1), 2.0), (add(2), 9.0), (add(1), 1.0)], alone=False)
    assert found.machine == this_machine()
    assert found.costs == {add(1): Cost(context=(1.0, 2.0)), add(2): Cost(context=(9.0,))}


def test_this_machine_names_what_decides() -> None:
    here = this_machine()
    assert here.cpu
    assert list(here.features) == sorted(here.features)
    assert "cx8" not in here.features  # a feature without kernels of its own
