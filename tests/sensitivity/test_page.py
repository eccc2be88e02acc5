"""docs/sensitivity.md is followed to the letter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pages
import pytest
import tiny


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, onnxq: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONNXQ_CACHE_DIR", str(tmp_path / "cache"))
    tiny.save_classifier(tmp_path / "model.onnx")
    tiny.save_samples(tmp_path / "calib.npz")
    tiny.save_samples(tmp_path / "labelled.npz", 8)
    names = pages.follow(pages.page("sensitivity.md"), onnxq)
    assert "<svg" in Path("worst.html").read_text(encoding="utf-8")
    assert names["again"].metric == "top1" and names["found"].samples == 8
    assert names["found"].units[0].together is not None
    assert pages.links("sensitivity.md") == []
