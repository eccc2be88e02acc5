"""Pages under docs/ are followed to the letter."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pages
import pytest
import tiny

from onnxq.report.elements import MOST_ROWS
from onnxq.validate import gate as verdicts
from onnxq.validate import layers, result
from onnxq.workbench import doctor

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def classifier(folder: Path) -> Path:
    tiny.save_classifier(folder / "model.onnx")
    tiny.save_samples(folder / "calib.npz")
    return folder


def test_the_python_api(classifier: Path, onnxq: Any) -> None:
    names = pages.follow(pages.page("api.md"), onnxq)
    assert names["judged"].verdict.passed
    assert {p.name for p in classifier.iterdir()} >= {
        "model.int8.onnx",
        "from-python.onnx",
        "from-job.onnx",
        "result.html",
    }
    listed = re.findall(r"`onnxq\.(\w+)[(`]", pages.page("api.md").partition("## Quantize")[0])
    import onnxq as package

    assert set(listed) == set(package.__all__)


def test_the_command_line(folder: Path, onnxq: Any) -> None:
    text = pages.page("command-line.md")
    pages.follow(text, onnxq)
    assert doctor.SCHEMA in text
    assert all(f"{shell}_source" in text for shell in ("bash", "zsh", "fish"))


def test_reports(classifier: Path, onnxq: Any) -> None:
    pages.follow(pages.page("report.md"), onnxq)
    assert Path("again.html").is_file() and "onnxq validate" in Path("page.html").read_text(encoding="utf-8")
    saved = json.loads(Path("result.json").read_text(encoding="utf-8"))
    rows = re.findall(r"^\| ((?:`[^`]+`(?:, )?)+) \|", pages.page("report.md"), flags=re.MULTILINE)
    listed = [name for row in rows for name in re.findall(r"`([\w.]+)", row)]
    assert set(saved) == {name for name in listed if "." not in name}


def _shape() -> list[str]:
    """The keys that tests/report/test_json.py holds stable."""
    text = (ROOT / "tests" / "report" / "test_json.py").read_text(encoding="utf-8")
    return text.partition('SHAPE = """\\\n')[2].partition('"""')[0].split()


NAMES = ("domains", "kernels", "nodes", "packages", "refusals", "seconds", "seeds")
"""Keys whose own keys are names of a model or a machine."""


def test_every_key_of_a_result_is_documented() -> None:
    """The other way round: what the page calls a key is one."""
    page = pages.page("report.md")
    rows = dict(re.findall(r"^\| `([\w.\[\]]+)` \| (.*) \|$", page, flags=re.MULTILINE))
    known: dict[str, set[str]] = {}
    for path in _shape():
        parts = path.split(".")
        for depth in range(1, len(parts)):
            above = ".".join(parts[:depth])
            if not {p.removesuffix("[]") for p in parts[:depth]} & set(NAMES):
                known.setdefault(above, set()).add(parts[depth].removesuffix("[]"))
    for above, keys in known.items():
        row = above
        while row not in rows:  # small values stand in the row above theirs
            row = row.rpartition(".")[0]
        if above.startswith(("model.coverage", "verdict.checks[].interval")):
            continue
        said = set(re.findall(r"`(\w+)`", rows[row]))
        assert keys <= said, (above, keys - said)
    every = {key for keys in known.values() for key in keys}
    words = {w for text in rows.values() for w in re.findall(r"`(\w+)`", text)}
    assert words - every <= {"quantize", "validate", "gate", "inspect", "coverage"}
    for name in (result.SCHEMA, verdicts.SCHEMA, f"{MOST_ROWS:,} rows", f"{layers.GROUP} tensors"):
        assert name in page


@pytest.mark.parametrize("name", sorted(p.name for p in pages.DOCS.glob("*.md")))
def test_links_lead_somewhere(name: str) -> None:
    assert pages.links(name) == []


def test_following_a_page_notices_what_is_wrong(folder: Path, onnxq: Any) -> None:
    def block(language: str, text: str) -> str:
        return f"```{language}\n{text}\n```\n"

    said = block("python", "print('one   two 3')")
    pages.follow(said + block("text", "one two ..."), onnxq)
    with pytest.raises(AssertionError, match="is not in"):
        pages.follow(said + block("text", "one 3"), onnxq)
    with pytest.raises(AssertionError):
        pages.follow(block("sh", "onnxq inspect missing.onnx"), onnxq)
    with pytest.raises(AssertionError, match="only onnxq is run"):
        pages.follow(block("sh", "rm -r x"), onnxq)
    with pytest.raises(AssertionError, match="neither run nor checked"):
        pages.follow(block("toml", "a = 1"), onnxq)
