"""Pages under docs/ are followed to the letter."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pages
import pytest
import tiny
from PIL import Image

from onnxq.config.placing import PlacementSection
from onnxq.report.elements import MOST_ROWS
from onnxq.validate import gate as verdicts
from onnxq.validate import layers, result
from onnxq.validate.latency import measure
from onnxq.workbench import doctor

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speed is measured for a moment only, and decides nothing: it is not what these pages are about."""
    monkeypatch.setitem(measure.__kwdefaults__, "budget_seconds", 0.05)  # type: ignore[index]
    monkeypatch.setattr(PlacementSection, "placing", lambda *_: None)


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


@pytest.fixture
def project(folder: Path) -> Path:
    """The embedded models and their samples, where a clone has them."""
    for name in (
        "fashion-res8/model.onnx",
        "fashion-vit/model.onnx",
        "fashion-mnist/calib.npz",
        "fashion-mnist/eval.npz",
    ):
        (folder / "models" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "models" / name, folder / "models" / name)
    return folder


def test_the_tutorial(project: Path, onnxq: Any) -> None:
    pages.follow(pages.page("tutorial.md"), onnxq)
    assert {p.name for p in project.iterdir()} >= {"small.onnx", "report.html", "other.onnx", "from-python.onnx"}


def test_the_explanation_of_q_and_dq(project: Path, onnxq: Any) -> None:
    pages.follow(pages.page("qdq.md"), onnxq)
    assert (project / "bare.onnx").is_file()


def _pictures(folder: Path, count: int = 8, classes: int = 0) -> None:
    random = np.random.default_rng(5)
    for index in range(count):
        path = folder / f"{index % classes}" / f"{index}.png" if classes else folder / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 12, 3), dtype=np.uint8)).save(path)


def test_how_to_pictures(classifier: Path, onnxq: Any) -> None:
    _pictures(classifier / "pictures")
    _pictures(classifier / "labelled", classes=4)
    pages.follow(pages.page("howto-images.md"), onnxq)
    assert (classifier / "mine.onnx").is_file()


TEXT = """<ir_version: 10, opset_import: ["": 21]>
g (int64[N, L] input_ids, int64[N, L] attention_mask) => (float[N, 4] scores)
<float[8, 16] words = {WORDS}, float[16, 4] weight = {WEIGHT}, int64[1] along = {1}, int64[1] last = {2}> {
    [lookup] found = Gather(words, input_ids)
    [mask] mask = Cast<to = 1>(attention_mask) [wide] wide = Unsqueeze(mask, last)
    [masked] masked = Mul(found, wide) [mean] mean = ReduceMean<keepdims = 0>(masked, along)
    [head] scores = MatMul(mean, weight)
}"""


def test_how_to_texts(folder: Path, onnxq: Any) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    random = np.random.default_rng(6)

    def numbers(count: int) -> str:
        return ", ".join(f"{v:.4f}" for v in random.standard_normal(count))

    source = TEXT.replace("WORDS", numbers(128)).replace("WEIGHT", numbers(64))
    onnx.save(onnx.parser.parse_model(source), folder / "model.onnx")
    words = {"[UNK]": 0, "[PAD]": 3, **{word: i for i, word in enumerate(["red", "green", "blue", "dark"], start=4)}}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(folder / "tokenizer.json"))
    lines = [" ".join(random.choice(list(words)[2:], size=n)) for n in (2, 3, 5, 8)]
    (folder / "lines.txt").write_text("\n".join(lines))
    for name in ("texts", "labelled"):
        (folder / name).mkdir()
        for index, line in enumerate(lines):
            (folder / name / f"{index}.txt").write_text(line)
    (folder / "labelled" / "labels.csv").write_text("file,label\n" + "".join(f"{i}.txt,{i}\n" for i in range(4)))
    pages.follow(pages.page("howto-text.md"), onnxq)
    assert (folder / "pairs.onnx").is_file()


DETECTOR = """<ir_version: 10, opset_import: ["": 21]>
g (float[1, 3, 32, 32] image) => (float[4, 4] boxes, float[4] scores, int64[4] labels)
<float[6, 3, 3, 3] w = {WEIGHT}, int64[2] four = {4, 4}, int64[1] flat = {4}, int64[4] kinds = {0, 1, 0, 1},
 float[1, 4, 1, 1] size = {20.0, 20.0, 30.0, 30.0}, int64[1] zero = {0}, int64[1] one = {1}, int64[1] five = {5},
 int64[1] start = {4}, int64[1] axis = {1}> {
    [stem] found = Conv<kernel_shape = [3, 3], strides = [16, 16], pads = [0, 0, 0, 0]>(image, w)
    [act] act = Sigmoid(found)
    [cut] part = Slice(act, zero, start, axis) [score] score = Slice(act, start, five, axis)
    [head] scaled = Mul(part, size) [rows] rows = Reshape(scaled, four) boxes = Relu(rows)
    scores = Reshape(score, flat) labels = Identity(kinds)
}"""


def test_how_to_detectors(folder: Path, onnxq: Any) -> None:
    weights = ", ".join(f"{v:.4f}" for v in np.random.default_rng(7).standard_normal(162) / 4)
    onnx.save(onnx.parser.parse_model(DETECTOR.replace("WEIGHT", weights)), folder / "model.onnx")
    _pictures(folder / "pictures")
    for path in (folder / "pictures").glob("*.png"):
        path.with_suffix(".txt").write_text("1 1 6 6 0\n2 2 10 7 1\n")
    pages.follow(pages.page("howto-detector.md"), onnxq)
    assert (folder / "careful.onnx").is_file()


def test_how_to_metrics(classifier: Path, onnxq: Any) -> None:
    tiny.save_classifier(classifier / "other.onnx", seed=9)
    text = pages.page("howto-metric.md")
    pages.follow(text, onnxq)
    assert json.loads(Path("compared.json").read_text())["accuracy"]["metric"]["higher_is_better"] is False
    from onnxq import registry

    named = text.partition("Built in: ")[2].partition("Anything else")[0]
    assert set(re.findall(r"`([\w-]+)`", named)) == set(registry.names(registry.METRICS)) - {"plugin-metric"}


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
        pages.follow(block("rust", "let a = 1;"), onnxq)
