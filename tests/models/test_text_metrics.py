"""The metrics of the OCR and letter models, on outputs made by hand."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

MODELS = Path(__file__).resolve().parents[2] / "models"


def load(name: str, file: str = "metric.py") -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        f"loaded_{name}_{file}".replace("-", "_").replace(".", "_"), MODELS / name / file
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


cls, rec, det, yolox = (load(name) for name in ("ppocr-cls", "ppocr-rec", "ppocr-det", "yolox-ddddocr"))
boxmatch = load(".", "boxmatch.py")


def test_direction_counts_the_larger_probability() -> None:
    metric = cls.Top1()
    outputs = {"p": np.array([[0.2, 0.8]], dtype=np.float32)}
    assert metric.record(outputs, "1") == [1.0]
    assert metric.record(outputs, "0") == [0.0]
    assert metric.score(np.array([[1.0], [0.0], [1.0], [1.0]])) == 0.75


@pytest.fixture
def letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rec, "alphabet", lambda: ("", "a", "b", " "))


def ctc(*classes: int) -> dict[str, np.ndarray]:
    return {"out": np.eye(4, dtype=np.float32)[list(classes)][None]}


@pytest.mark.usefixtures("letters")
def test_ctc_drops_repeats_and_blanks_but_keeps_a_repeat_after_a_blank() -> None:
    assert rec.read(ctc(1, 1, 0, 1, 2, 2, 0, 3, 1)) == "aab a"
    assert rec.read(ctc(0, 0)) == ""


@pytest.mark.usefixtures("letters")
def test_a_line_with_one_wrong_letter_is_no_match_and_one_edit() -> None:
    assert rec.LineExactMatch().record(ctc(1, 2), "ab") == [1.0]
    assert rec.LineExactMatch().record(ctc(1, 2), "aa") == [0.0]
    assert rec.CharacterAccuracy().record(ctc(1, 2), "aa") == [1.0, 2.0]
    assert rec.CharacterAccuracy().score(np.array([[1.0, 2.0], [0.0, 8.0]])) == pytest.approx(0.9, abs=1e-12)


@pytest.mark.parametrize(
    ("first", "second", "count"), [("kitten", "sitting", 3), ("", "abc", 3), ("same", "same", 0), ("ab", "ba", 2)]
)
def test_edit_distance(first: str, second: str, count: int) -> None:
    assert rec.edits(first, second) == rec.edits(second, first) == count


def test_overlap_is_the_shared_part_of_the_union() -> None:
    boxes = boxmatch.parse("0,0,10,10 10,0,20,10 0,0,5,10 3,3,3,9")
    table = boxmatch.overlaps(boxes[:1], boxes)
    assert table.tolist() == [[1.0, 0.0, 0.5, 0.0]]


def test_a_box_matches_once_and_only_above_the_limit() -> None:
    wanted = boxmatch.parse("0,0,10,10")
    assert boxmatch.matches(boxmatch.parse("0,0,10,10 0,0,10,9"), wanted, 0.5) == 1
    assert boxmatch.matches(boxmatch.parse("0,0,5,10"), wanted, 0.5) == 1
    assert boxmatch.matches(boxmatch.parse("0,0,4.9,10"), wanted, 0.5) == 0
    assert boxmatch.matches(boxmatch.parse(""), wanted, 0.5) == 0


def test_a_text_region_grows_by_the_unclip_distance() -> None:
    page = np.zeros((1, 1, 64, 64), dtype=np.float32)
    page[0, 0, 20:30, 10:50] = 0.9
    (box,) = det.BoxF1().boxes(page[0, 0])
    # The dilation with a 2x2 square makes the 10x40 region 11x41; area * 1.6 / perimeter = 6.94.
    grow = 11 * 41 * 1.6 / (2 * 52)
    assert box == pytest.approx([10 - 1 - grow, 20 - 1 - grow, 50 + grow, 30 + grow], abs=1e-9)


def test_faint_and_tiny_regions_are_no_text() -> None:
    page = np.zeros((64, 64), dtype=np.float32)
    page[5:15, 5:40] = 0.4  # above the pixel threshold, below the region's
    page[40, 40] = 1.0  # 2x2 after the dilation
    assert det.BoxF1().boxes(page).shape == (0, 4)


def test_page_record_counts_hits_false_boxes_and_missed_lines() -> None:
    page = np.zeros((1, 1, 64, 64), dtype=np.float32)
    page[0, 0, 20:30, 10:50] = 0.9
    metric = det.BoxF1()
    assert metric.record({"p": page}, "3,13,57,37") == [1.0, 0.0, 0.0]
    assert metric.record({"p": page}, "3,40,57,60") == [0.0, 1.0, 1.0]
    assert metric.record({"p": page}, "") == [0.0, 1.0, 0.0]
    assert metric.score(np.array([[3.0, 1.0, 0.0], [1.0, 0.0, 1.0]])) == pytest.approx(0.8, abs=1e-12)
    assert metric.score(np.zeros((2, 3))) == 0.0


def head(**rows: list[float]) -> np.ndarray:
    out = np.zeros((1, 3549, 6), dtype=np.float32)
    for name, values in rows.items():
        out[0, int(name[1:])] = values
    return out


def test_yolox_head_is_decoded_by_stride_and_cell() -> None:
    # Row 53 is cell (1, 1) of the 52x52 grid of stride 8; row 2704 the first of stride 16; 3380 the first of stride 32.
    boxes, scores = yolox.decode(
        head(r53=[0.5, 0.5, 0, 0, 1, 0.5], r2704=[1, 1, np.log(2), 0, 1, 1], r3380=[1, 2, 0, 0, 0.5, 0.5])[0]
    )
    assert boxes[53].tolist() == [8, 8, 16, 16]
    assert boxes[2704] == pytest.approx([0, 8, 32, 24], abs=1e-5)
    assert boxes[3380].tolist() == [16, 48, 48, 80]
    assert scores[[53, 2704, 3380, 0]].tolist() == [0.5, 1.0, 0.25, 0.0]


def test_an_absurd_size_does_not_overflow() -> None:
    boxes, _ = yolox.decode(head(r0=[0, 0, 1e6, 1e6, 1, 1])[0])
    assert np.isfinite(boxes).all()


def test_the_better_of_two_overlapping_letters_stays() -> None:
    boxes = boxmatch.parse("0,0,10,10 1,0,11,10 30,0,40,10")
    kept = yolox.suppress(boxes, np.array([0.5, 0.9, 0.2]), 0.45)
    assert kept.tolist() == [[1, 0, 11, 10], [30, 0, 40, 10]]
    assert len(yolox.suppress(boxes, np.array([0.5, 0.9, 0.2]), 0.9)) == 3


def test_letters_below_the_least_score_do_not_count() -> None:
    metric = yolox.LetterF1()
    sure = head(r53=[0.5, 0.5, 0, 0, 1, 1])
    assert metric.record({"o": sure}, "8,8,16,16") == [1.0, 0.0, 0.0]
    unsure = head(r53=[0.5, 0.5, 0, 0, 0.3, 0.3])
    assert metric.record({"o": unsure}, "8,8,16,16") == [0.0, 0.0, 1.0]
