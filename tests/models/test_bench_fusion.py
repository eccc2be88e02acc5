"""The fusion bench: what it counts, its tables, the page it writes, and one tiny run from end to end."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from fusing import Qdq

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "models"))
bench = importlib.import_module("bench_fusion")


def test_what_is_counted() -> None:
    g = Qdq()
    product = g.op("MatMul", g.data(2, 3, 8), g.weight(8, 4))
    g.raw(product)
    moved = g.op("Transpose", g.q(g.op("Neg", g.data(2, 3, 8)), 0.02, 120), perm=[1, 0, 2])
    g.raw(moved, "uint8")
    found = bench.counts(g.model().SerializeToString(), g.feeds)
    assert found == bench.Counts(
        heavy=1, integer_heavy=0, qlinear=0, moves=1, q=3, dq=3, converted=3 * 48 + 2 * 48 + 8 * 4
    )


def _found(**latency: Any) -> dict[str, Any]:
    counts = {"heavy": 1, "integer_heavy": 2, "qlinear": 3, "moves": 4, "q": 5, "dq": 6, "converted": 7000}
    one = dict.fromkeys(("ours", "extended", "all"), counts)
    tensorrt = {"q": 8, "dq": 9, "broken": 0}
    return {
        "settings": {"samples": 4},
        "machine": {"cpu": "a CPU", "cores": 2},
        "versions": {"onnx": "1"},
        "commit": "abc",
        "conv_integer": {"ConvInteger": latency} if latency else {},
        "models": {
            "m": {**one, "tensorrt": tensorrt, "latency": latency or None},
            "n": {"error": "it does not load"},
        },
    }


def test_tables() -> None:
    text = bench.markdown(_found(speedup=1.25, speedup_low=1.0, speedup_high=2.0, noisy=True))
    assert "| m | ours | 2 | 1 | 3 | 4 | 5 | 6 | 7.0 k | 0.800 (0.500–1.000), noisy |" in text
    assert "|  | ORT, all | 2 | 1 | 3 | 4 | 5 | 6 | 7.0 k |  |" in text
    assert "| n | it does not load |" in text
    assert "| m | 8 | 9 | 0 |" in text
    assert "| ConvInteger | 0.800 (0.500–1.000), noisy |" in text
    assert "| m | ours | 2 | 1 | 3 | 4 | 5 | 6 | 7.0 k |  |" in bench.markdown(_found())


def test_what_conv_integer_costs_is_measured() -> None:
    found = bench.conv_integer(0.01)
    assert list(found) == ["Q/DQ", "ConvInteger"]
    assert all(one["pairs"] >= 5 and one["speedup"] > 0 for one in found.values())


def test_the_page_takes_the_tables(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"above\n{bench.BEGIN}\nold\n{bench.END}\nbelow\n")
    bench.publish("new\n", page)
    assert page.read_text() == f"above\n{bench.BEGIN}\nnew\n{bench.END}\nbelow\n"
    page.write_text("nothing\n")
    with pytest.raises(bench.BlockError, match=r"page\.md needs the lines"):
        bench.publish("new\n", page)


def test_the_real_page_has_its_place() -> None:
    text = (ROOT / "docs" / "fusion.md").read_text(encoding="utf-8")
    assert text.count(bench.BEGIN) == text.count(bench.END) == 1


def test_a_small_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = bench.main(["--models", "fashion-res8", "--samples", "2", "--seconds", "0", "--out", str(tmp_path)])
    assert code == 0, capsys.readouterr().err
    found = json.loads((tmp_path / "fusion.json").read_text())["models"]["fashion-res8"]
    assert found["ours"] == found["extended"]
    assert (found["ours"]["heavy"], found["ours"]["integer_heavy"], found["tensorrt"]["broken"]) == (0, 10, 0)
    assert "| fashion-res8 | ours | 10 | 0 |" in capsys.readouterr().out


def test_unknown_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--models", "fashion-res9"]) == 2
    assert 'did you mean "fashion-res8"?' in capsys.readouterr().err
