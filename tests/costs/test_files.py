from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.costs import files
from onnxq.costs.files import load, parse, save, to_json
from onnxq.costs.key import CostKey, Operand
from onnxq.costs.table import Cost, CostTable, Machine, this_machine
from onnxq.errors import ConfigError, OutputError, UsageError

ELSEWHERE = Machine(cpu="Ä CPU", family="aarch64", features=("asimddp",), onnxruntime="1.99")
KEY = CostKey(
    op="com.microsoft.nchwc.Conv",
    inputs=(Operand(dtype="float", shape=(1, 8, 4, 4)), Operand(dtype="float", shape=(16, 8, 3, 3), constant=True)),
    outputs=(Operand(dtype="float", shape=(1, 16, 4, 4)),),
    attributes=(("activation", "Relu"), ("group", 2), ("pads", (1, 1, 1, 1))),
    threads=2,
)
COST = Cost(context=(1.25e-05, 3.0000000000000004e-05), alone=(0.1,))
TABLE = CostTable(machine=ELSEWHERE, costs={KEY: COST})


def test_a_file_gives_the_table_back(tmp_path: Path) -> None:
    save(TABLE, tmp_path / "costs.json")
    assert load(tmp_path / "costs.json") == TABLE
    assert [p.name for p in tmp_path.iterdir()] == ["costs.json"]


@settings(deadline=None)
@given(st.frozensets(st.floats(5e-324, 1e6), min_size=1, max_size=4))
def test_every_float_comes_back_as_the_same(values: frozenset[float]) -> None:
    table = CostTable(machine=ELSEWHERE, costs={KEY: Cost(alone=tuple(sorted(values)))})
    assert parse(to_json(table), "x") == table


def test_equal_tables_are_equal_files() -> None:
    other = CostKey(op="Add", inputs=(), outputs=())
    one = CostTable(machine=ELSEWHERE, costs={KEY: COST, other: COST})
    two = CostTable(machine=ELSEWHERE, costs={other: COST, KEY: COST})
    assert to_json(one) == to_json(two)
    assert parse(to_json(CostTable(machine=ELSEWHERE)), "x") == CostTable(machine=ELSEWHERE)


def spoilt(change: Any) -> str:
    plain = json.loads(to_json(TABLE))
    change(plain)
    return json.dumps(plain)


def entry(**values: Any) -> Any:
    return lambda plain: plain["costs"][0].update(values)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda p: p.update(schema="other"), '"schema" must be "onnxq.costs"'),
        (lambda p: p.update(version=2), "it has version 2, and this onnxq reads version 1"),
        (lambda p: p.update(more=1), 'there is no "more" in version 1'),
        (lambda p: p.pop("machine"), '"machine" is missing'),
        (lambda p: p["machine"].update(cpu=3), '"cpu" must be a text'),
        (lambda p: p["machine"].update(features=[1]), '"features" must be a list of texts'),
        (lambda p: p.update(costs={}), '"costs" must be a list'),
        (lambda p: p["costs"].append(3), "entry 2: it must be an object"),
        (lambda p: p["costs"].append(p["costs"][0]), "entry 2: this key is there twice"),
        (entry(inputs=["float"]), 'entry 1: "float" is no tensor'),
        (entry(inputs=[3]), 'entry 1: "inputs" must be a list of texts'),
        (entry(threads=True), 'entry 1: "threads" must be an integer'),
        (entry(threads=0), 'entry 1: "threads" must be at least 1'),
        (entry(attributes={"axis": 0.5}), 'entry 1: the attribute "axis" must be'),
        (entry(attributes={"axis": [1, "a"]}), 'entry 1: the attribute "axis" must be'),
        (entry(alone=[0.0]), "entry 1: observations must be seconds above 0"),
        (entry(alone=["1"]), "entry 1: observations must be seconds above 0"),
        (entry(alone=[], context=[]), "entry 1: it has no observation"),
        (entry(kind="x"), 'entry 1: there is no "kind" in version 1'),
    ],
)
def test_faults_are_one_sentence(change: Any, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(spoilt(change), "costs.json")
    text = str(caught.value)
    assert fault in text
    assert text.startswith("costs.json is no cost file (")
    assert text.endswith("): make one with onnxq costs measure")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"schema": "onnxq.costs", "schema": "onnxq.costs"}', "[" * 100_000])
def test_no_json_of_ours(text: str) -> None:
    with pytest.raises(ConfigError, match="is no cost file"):
        parse(text, "costs.json")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.json does not exist"):
        load(tmp_path / "none.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="it is no text"):
        load(tmp_path / "binary")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="the costs cannot be written to"):
        save(TABLE, tmp_path / "none" / "costs.json")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONNXQ_CACHE_DIR", str(tmp_path))
    return tmp_path


def test_what_was_measured_here_is_kept_and_added_to(cache: Path) -> None:
    assert files.load_cached() is None
    one, two = (CostTable(machine=this_machine(), costs={KEY: Cost(context=(s,))}) for s in (1.0, 2.0))
    files.remember(one)
    files.remember(two)
    assert files.load_cached() == one.merge(two)
    assert files.cache_file().parent == cache / "costs"
    assert files.cache_file(ELSEWHERE) != files.cache_file()


def test_the_cache_does_not_grow_for_ever(cache: Path) -> None:
    for start in range(3):
        seconds = tuple(float(start + 3 * i + 1) for i in range(40))
        files.remember(CostTable(machine=this_machine(), costs={KEY: Cost(context=seconds)}))
    kept = files.load_cached()
    assert kept is not None
    assert len(kept.costs[KEY].context) == files.KEPT
    assert kept.costs[KEY].context[0] == 1.0
    assert kept.costs[KEY].context[-1] == 120.0
    assert abs(kept.costs[KEY].seconds - 60.5) < 5


def test_what_was_measured_elsewhere_is_not_kept(cache: Path) -> None:
    with pytest.raises(UsageError, match="cannot be merged"):
        files.remember(TABLE)


def test_a_damaged_cache_is_none(cache: Path) -> None:
    files.remember(CostTable(machine=this_machine(), costs={KEY: COST}))
    files.cache_file().write_text("{", encoding="utf-8")
    assert files.load_cached() is None


def test_a_cache_that_cannot_be_made(cache: Path) -> None:
    (cache / "costs").write_text("in the way", encoding="utf-8")
    with pytest.raises(OutputError, match="cannot be made"):
        files.remember(CostTable(machine=this_machine()))


def test_a_file_of_another_machine_is_used_and_said(cache: Path, tmp_path: Path) -> None:
    save(TABLE, tmp_path / "costs.json")
    costs, notes = files.open_costs(tmp_path / "costs.json")
    assert costs.seconds(KEY).seconds == COST.seconds
    assert len(notes) == 1
    assert "measured elsewhere (Ä CPU, ONNX Runtime 1.99)" in notes[0]


def test_without_a_file_the_cache_then_the_shipped_table(cache: Path) -> None:
    costs, notes = files.open_costs()
    assert costs.tables == files.shipped()
    assert "No costs were measured on this machine" in notes[0]
    files.remember(CostTable(machine=this_machine(), costs={KEY: COST}))
    costs, notes = files.open_costs()
    assert (costs.tables[0].lookup(KEY), notes) == (COST, ())


def test_the_shipped_table_has_the_common_ops_in_both_forms() -> None:
    (table, *_) = files.shipped()
    kinds = set(table.by_kind)
    assert kinds >= {
        "Conv", "QLinearConv", "MatMul", "QLinearMatMul", "MatMulIntegerToFloat", "Gemm", "QGemm", "Add", "QLinearAdd",
        "Mul", "QLinearMul", "Sigmoid", "QLinearSigmoid", "Concat", "QLinearConcat", "MaxPool", "AveragePool",
        "GlobalAveragePool", "Softmax", "QLinearSoftmax", "QuantizeLinear", "DequantizeLinear", "ReorderInput",
        "ReorderOutput", "Transpose", "LayerNormalization", "Gelu",
    }  # fmt: skip
    depthwise = [k for k, _ in table.by_kind["QLinearConv"] if dict(k.attributes).get("group", 1) not in (1, 16)]
    assert len(depthwise) >= 7
    assert all(len(cost.alone) >= 2 for cost in table.costs.values() if cost.seconds > 1e-4)
