"""docs/ort.md is what the installed ONNX Runtime does: every structural fact is measured again and compared."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from onnxq.ir.load import IR_VERSIONS, OPSETS
from onnxq.optable import GATED
from onnxq.targets.target import load_target
from onnxq.validate.kernels import DROPS, NO_OUTPUT_Q, QUANTIZABLE

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs"))
ort: Any = importlib.import_module("measure_ort")
table: Any = importlib.import_module("measure_table")
PAGE = (ROOT / "docs" / "ort.md").read_text(encoding="utf-8")
BLOCKS: dict[str, str] = table.blocks(PAGE)


def rows(name: str) -> list[list[str]]:
    """The body of a committed table."""
    lines = [li for li in BLOCKS[name].splitlines() if li.startswith("| ")]
    return [[cell.strip() for cell in li.strip("|").split(" | ")] for li in lines[2:]]


@pytest.mark.parametrize("fact", ort.STRUCTURAL, ids=lambda fact: fact.name)
def test_committed_tables_are_what_this_onnxruntime_does(fact: Any) -> None:
    apart = table.changes(BLOCKS[fact.name], table.markdown(fact, fact.rows()), near=fact.near)
    assert not apart, (
        f"ONNX Runtime {ort.VERSION} behaves differently in the fact '{fact.name}' (- docs/ort.md, + measured): "
        "look at what relies on it, then run python docs/measure_ort.py --write\n" + "\n".join(apart)
    )


def test_every_fact_has_one_block_and_every_block_is_a_fact() -> None:
    names = [f.name for f in (ort.SETUP, *ort.STRUCTURAL, ort.SPEED_SETUP, *ort.TIMED)]
    found = [name for name, _ in table.BLOCK.findall(PAGE)]
    assert sorted(found) == sorted(names)
    assert len(set(names)) == len(names)
    assert PAGE.count("<!-- measured:") == PAGE.count("<!-- /measured -->") == len(names)
    assert all("| --- |" in block for block in BLOCKS.values())


@pytest.mark.parametrize("fact", (*ort.STRUCTURAL, *ort.TIMED), ids=lambda fact: fact.name)
def test_what_relies_on_a_fact_exists(fact: Any) -> None:
    assert [path for path in fact.used if not (ROOT / path).is_file()] == []


def test_sentences_of_timed_facts_are_those_of_the_code() -> None:
    assert [f.name for f in ort.TIMED if not BLOCKS[f.name].startswith(f.says)] == []


# the code against the tables


def _integer(name: str, column: int) -> set[str]:
    """Ops (first word of a row) with an integer kernel in every row's cell `column`."""
    return {row[0].split()[0] for row in rows(name) if "(float)" not in row[column]}


def test_the_cpu_target_gives_integer_kernels_to_ops_that_have_them_only() -> None:
    target = load_target("cpu", reduce_range=False)
    have = _integer("weighted", 1) | _integer("compute", 1) | _integer("moves", 1)
    assert set(target.kernels) - have == set(GATED)
    assert {"Sigmoid", "LeakyRelu", "Mul"} <= have  # what gates are made of
    float_only = {row[0].split()[0] for n in ("weighted", "compute", "moves") for row in rows(n)} - have
    assert {"ConvTranspose", "SpaceToDepth"} <= float_only & set(target.no_kernel)
    for op, kernel in target.kernels.items():
        if kernel.kind == "weighted":
            assert (kernel.output == "optional") == (op in _integer("weighted", 3))


def test_the_coverage_report_knows_the_same_kernels() -> None:
    assert set(QUANTIZABLE) == _integer("weighted", 1) | _integer("compute", 1)
    assert _integer("weighted", 3) == NO_OUTPUT_Q
    assert _integer("moves", 1) == DROPS


def test_versions_that_are_read_are_those_that_load() -> None:
    loads = [(int(row[0]), int(row[1])) for row in rows("versions") if row[2] != "does not load"]
    refused = [(int(row[0]), int(row[1])) for row in rows("versions") if row[2] == "does not load"]
    assert max(opset for opset, _ in loads) == OPSETS[-1]
    assert max(ir for _, ir in loads) == IR_VERSIONS[-1]
    assert refused == [(OPSETS[-1] + 1, IR_VERSIONS[-1]), (21, IR_VERSIONS[-1] + 1)]


# the comparison itself


@pytest.mark.parametrize(
    ("committed", "measured", "near", "same"),
    [
        ("| Conv | QLinearConv |", "| Conv | QLinearConv |", False, True),
        ("| Conv | QLinearConv |", "| Conv | Conv (float) |", True, False),
        ("| Add | 0.52 % |", "| Add | 0.7 % |", True, True),
        ("| Add | 0.52 % |", "| Add | 0.7 % |", False, False),
        ("| Add | 0.52 % |", "| Add | 1.7 % |", True, False),
        ("| Add | 0 % |", "| Add | 0.001 % |", True, False),
        ("| Add | 1 LSB |", "| Add | 3 LSB |", True, False),
        ("| one row |", "| one row |\n| two rows |", True, False),
    ],
)
def test_comparison(committed: str, measured: str, near: bool, same: bool) -> None:
    assert (table.changes(committed, measured, near=near) == []) == same


def test_a_block_is_replaced_and_the_others_stay() -> None:
    page = "a\n<!-- measured: one -->\nold\n<!-- /measured -->\nb\n<!-- measured: two -->\nx\n<!-- /measured -->\n"
    new = table.replace(page, "one", "new\\1\n")
    assert table.blocks(new) == {"one": "new\\1\n", "two": "x\n"}
    assert new.startswith("a\n<!--") and "\nb\n" in new
    with pytest.raises(KeyError, match="no block"):
        table.replace(page, "three", "")


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    before = ort.PAGE.read_bytes()
    assert ort.main(["--only", "rounding", "versions"]) == 0
    printed = capsys.readouterr().out
    assert re.findall(r"^### (.*)$", printed, re.MULTILINE) == ["versions", "rounding"]
    assert ort.PAGE.read_bytes() == before
    with pytest.raises(SystemExit) as stop:
        ort.main(["--only", "nonsense"])
    assert stop.value.code == 2
    assert "no fact is named nonsense" in capsys.readouterr().err


def test_timed_facts_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert ort.main(["--speed", "--only", "saturation"]) == 0
    assert "| 8 bits |" in capsys.readouterr().out
