"""The blocks of docs/pipelines.md are run as they stand."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import tiny

PAGE = (Path(__file__).parents[2] / "docs/pipelines.md").read_text(encoding="utf-8")


def blocks() -> list[tuple[str, str]]:
    return re.findall(r"^```(\w+)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, onnxq: Any) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.save_classifier(Path("model.onnx"))
    tiny.save_samples(Path("calib.npz"))
    seen: list[str] = []
    for language, block in blocks():
        if language == "yaml":
            name = block.splitlines()[0].removeprefix("# ")
            Path(name).write_text(block)
            continue
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            target = words.pop() if ">" in words else None
            arguments = [w for w in words[1:] if w != ">"]
            outcome = onnxq(*arguments)
            assert outcome.code == 0, (line, outcome.err)
            if target is not None:
                Path(target).write_text(outcome.out)
            seen.append(arguments[0])
    assert sorted(set(seen)) == ["bisect", "explain", "passes", "quantize", "run", "show"]
    assert json.loads(Path("explained.json").read_text())["conversions"]
    assert Path("tidy.onnx").is_file()
    assert b"onnxq.disabled_optimizers" in Path("half.onnx").read_bytes()


def test_no_two_passes_share_a_line_in_the_list(onnxq: Any) -> None:
    lines = onnxq("passes").out.splitlines()
    assert len({line.split()[0] for line in lines}) == len(lines)
    assert all(re.search(r"\S  .*\(\S+\)$", line) for line in lines)
