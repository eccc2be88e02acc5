"""`--report x.html`, `--report x.json` and `onnxq report`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tiny.save_classifier(tmp_path / "model.onnx")
    tiny.save_samples(tmp_path / "calib.npz")
    return tmp_path


QUANTIZE = (
    "quantize",
    "model.onnx",
    "--calib",
    "calib.npz",
    "--method",
    "percentile",
    "--placement",
    "rules",
    "--no-validate",
)


def test_the_suffix_decides_and_the_saved_result_gives_the_same_page(folder: Path, onnxq: Any) -> None:
    assert onnxq(*QUANTIZE, "--report", "a.json").code == 0
    assert onnxq("report", "a.json", "-o", "b.html").out == "wrote b.html\n"
    assert onnxq("report", "a.json").out == "wrote a.html\n"
    assert Path("a.html").read_bytes() == Path("b.html").read_bytes()
    found = json.loads(Path("a.json").read_text())
    assert found["run"]["command"] == [*QUANTIZE, "--report", "a.json"]
    assert [i["role"] for i in found["run"]["inputs"]] == ["float model", "quantized model", "calibration samples"]
    assert found["run"]["inputs"][1]["path"] == "model.int8.onnx"
    assert "- insert-qdq" in found["run"]["pipeline"]
    tensors = {t["tensor"]: t["sqnr_db"] for t in found["layers"]["tensors"]}
    assert {"image", "r"} <= set(tensors) and all(20 < float(db) < 80 for db in tensors.values())
    assert {h["source"] for h in found["layers"]["histograms"]} == {"calibration"}


def test_validate_writes_a_page_at_once(folder: Path, onnxq: Any) -> None:
    assert onnxq(*QUANTIZE).code == 0
    done = onnxq("validate", "model.onnx", "model.int8.onnx", "--data", "calib.npz", "--report", "page.html")
    assert done.code == 0 and "onnxq validate" in done.out
    page = Path("page.html").read_text(encoding="utf-8")
    assert "onnxq validate: model.int8.onnx" in page and "Layer by layer" in page and "Worst tensors" in page
    assert "the samples compared here" in page


def test_details_cost_nothing_where_nobody_asks(folder: Path, onnxq: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxq.driver.with_details", lambda *_, **__: pytest.fail("nobody asked for it"))
    assert onnxq(*QUANTIZE).code == 0


def test_the_missing_library_is_said_before_the_work(folder: Path, onnxq: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    done = onnxq(*QUANTIZE, "--report", "page.html")
    assert done.code == 2 and "onnxq[report]" in done.sentence
    assert not Path("model.int8.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("missing.json",), "missing.json cannot be read (No such file or directory): name a file that --report wrote"),
        (("model.onnx",), "model.onnx is no JSON"),
        (("a.json", "-o", "a.txt"), "a.txt does not end in .html: onnxq report makes pages, give such a name with -o"),
        (("a.json", "-o", "nowhere/a.html"), "nowhere"),
    ],
)
def test_bad_input_is_one_sentence(folder: Path, onnxq: Any, arguments: tuple[str, ...], sentence: str) -> None:
    Path("a.json").write_text('{"schema": "onnxq.result/1", "command": "validate"}')
    done = onnxq("report", *arguments)
    assert done.code == 2 and sentence in done.sentence
    assert not list(folder.glob("*.html"))
