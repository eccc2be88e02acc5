"""The page as text: what it holds, what it must not hold, and what it is made of."""

from __future__ import annotations

import functools
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onnxq.errors import UsageError
from onnxq.report import html
from onnxq.report.elements import MOST_ROWS
from onnxq.report.json import dumps
from onnxq.validate.result import Result

MEGABYTE = 1_000_000


@functools.cache
def _page(document: str) -> str:
    return html.page(json.loads(document))


def page(result: Result) -> str:
    """The page; drawn once for equal results."""
    return _page(dumps(result))


def sections(text: str) -> list[str]:
    return re.findall(r'<section id="([\w-]+)"', text)


PHRASES = [
    "onnxq quantize: out.onnx", ">fail<", "speed-up: below the limit", "253 kB", "2.47x", "0.9295", "30.2 dB", "equal",
    "75%", "95 % interval -0.0005 to 0.0025", "McNemar p = 0.25", "ONNX Runtime has no integer kernel for Tanh",
    "a [bold]note[/bold] of the run", "a note on coverage", "eval.npz[7] (14.0 dB)", "noisy: the machine was busy",
    "12.5 dB", "13.0 dB", "25.000%", "-1.1 to 4", "1.01 k elements", "all int8", "no integer kernel",
    "two consumers (2)", "- insert-qdq", "onnxq quantize model.onnx --calib &#x27;my calib&#x27;", "ab" * 32,
    "not hashed: a function made them", "seed of the bootstrap", "Some CPU (avx2), 2 cores", "version of onnx",
    "1.25 s", "60%", "0.600 ms of 1.00 ms, 60 % reached", "it has no integer kernel", "-5.0 %",
]  # fmt: skip


@pytest.mark.parametrize("phrase", PHRASES)
def test_the_page_says_everything(full: Result, phrase: str) -> None:
    assert phrase in page(full)


def test_sections_stand_in_their_order(full: Result) -> None:
    assert sections(page(full)) == [
        "verdict", "notes", "size-and-speed", "accuracy", "coverage", "layers", "account", "pareto", "placement",
        "repairs", "pipeline", "again", "times",
    ]  # fmt: skip


def test_what_was_not_done_has_no_section(full: Result) -> None:
    bare = Result(command="validate", reference=full.reference, candidate=full.candidate, sizes=full.sizes)
    assert sections(page(bare)) == ["size-and-speed"]
    text = page(replace(full, verdict=None, layers=None, pareto=(), placement=(), account=(), repairs=()))
    assert not {"verdict", "layers", "pareto", "placement", "account", "repairs"} & set(sections(text))
    assert 'class="badge' not in text


def test_the_same_result_gives_the_same_page(full: Result) -> None:
    assert html.page(json.loads(dumps(full))) == page(full)


def test_nothing_points_outside(full: Result) -> None:
    text = page(full)
    addresses = re.findall(r"""(?:https?:)?//[\w.-]+[\w/.-]*""", re.sub(r"(?m)^\s*//.*$", "", text))
    assert set(addresses) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names, never fetched
    assert not re.search(r"""\b(?:src|action|srcset|poster)=|@import|url\((?!#)""", text)
    assert "default-src 'none'" in text


def test_names_cannot_break_out(full: Result) -> None:
    evil = '"><script>alert(1)</script>'
    assert full.coverage is not None and full.layers is not None
    ops = tuple(replace(op, name=evil, op=evil, reason=evil) for op in full.coverage.ops)
    tensors = tuple(replace(t, tensor=evil, op=evil) for t in full.layers.tensors)
    histograms = tuple(replace(h, tensor=evil) for h in full.layers.histograms)
    text = page(
        replace(
            full,
            candidate=Path(evil),
            coverage=replace(full.coverage, ops=ops),
            layers=replace(full.layers, tensors=tensors, histograms=histograms),
            notes=(evil,),
            method=evil,
        )
    )
    assert text.count("<script") == 1
    assert "alert(1)" in text


def test_a_huge_model_gives_a_page_below_the_limit(full: Result) -> None:
    assert full.coverage is not None and full.layers is not None
    name = "/model/encoder/layer.11/attention/self/key/MatMul_with_a_long_name_{}"
    ops = tuple(
        replace(full.coverage.ops[i % 14], name=name.format(i), reason="its input is float: it comes from Erf")
        for i in range(20_000)
    )
    tensors = tuple(
        replace(full.layers.tensors[0], tensor=name.format(i), sqnr_db=20 + i % 30, own_sqnr_db=30 + i % 20)
        for i in range(20_000)
    )
    text = page(replace(full, coverage=replace(full.coverage, ops=ops), layers=replace(full.layers, tensors=tensors)))
    assert len(text.encode()) < 3 * MEGABYTE
    assert f"The first {MOST_ROWS} of 20000 rows; all are in the JSON report." in text


def test_a_usual_page_is_small(full: Result) -> None:
    assert len(page(full).encode()) < 0.2 * MEGABYTE


@pytest.mark.parametrize(
    ("verdict", "badge"),
    [
        ({"passed": True, "checks": []}, '<span class="badge good">pass</span>'),
        ({"outcome": "inconclusive", "passed": False, "checks": []}, '<span class="badge unsure">inconclusive</span>'),
        ({"outcome": "fail", "checks": [{"outcome": "fail", "name": "x"}]}, '<span class="badge bad">fail</span>'),
    ],
)
def test_verdicts(full: Result, verdict: dict[str, Any], badge: str) -> None:
    assert badge in html.page({**json.loads(dumps(full)), "verdict": verdict})


def test_a_failure_names_its_cause(full: Result) -> None:
    check = {"outcome": "fail", "group": "accuracy", "name": "top1", "sentence": "top1 fell", "details": ["on row 7"]}
    warned = {"outcome": "warn", "name": "opset", "sentence": "opset is old"}
    verdict = {"outcome": "fail", "checks": [check, warned], "causes": ["layer conv_3 clips 40 %"]}
    text = html.page({**json.loads(dumps(full)), "verdict": verdict})
    for phrase in ("top1 fell", "accuracy", "top1: on row 7", "layer conv_3 clips 40 %", '<td class="unsure">warn'):
        assert phrase in text


def picture(text: str, axis: str) -> str:
    """One of the plots of the models tried, by the title of its axis."""
    section = text[text.index('<section id="pareto"') :].partition("</section>")[0]
    return next(f for f in section.split("<figure>") if axis in f).partition("</figure>")[0]


def test_models_that_none_beats_are_the_front(full: Result) -> None:
    worse = replace(full.pareto[0], label="beaten", chosen=False, speedup=2.0, drop=0.02)
    text = page(replace(full, pareto=(*full.pareto, worse)))
    line = re.search(r'<g class="mark-line[^>]*>.*?d="([^"]+)"', text[text.index('<section id="pareto"') :], re.DOTALL)
    assert line is not None
    assert line[1].count("L") == 1  # two of the three points
    assert "beaten: 2 times as fast, drop 0.02 (measured)" in text


def test_the_axes_are_those_that_most_models_were_measured_on(full: Result) -> None:
    timed = tuple(replace(p, speedup=None, drop=None) for p in (*full.pareto, replace(full.pareto[0], sqnr_db=20.0)))
    text = page(replace(full, pareto=timed))
    assert "seconds for one run (left: faster)" in text and "SQNR of the outputs, dB (up: better)" in text
    assert "drop of top1 (down: better)" not in text
    both = page(full)
    assert "times as fast as float (right: faster)" in both and "drop of top1 (down: better)" in both
    assert "SQNR of the outputs, dB (up: better)" in both


def test_what_is_equal_to_float_stands_above_all_others(full: Result) -> None:
    drawn = picture(page(full), "SQNR of")
    marks = [re.search(rf'<path [^>]*aria-label="{name}: [^>]*', drawn) for name in ("all float", "all int8")]
    heights = [float(re.findall(r"translate\([\d.]+,([\d.]+)\)", mark[0])[0]) for mark in marks if mark]
    assert heights[0] < heights[1]  # y of SVG goes down
    assert ">as float</text>" in drawn


def test_judged_and_predicted_models_are_told_apart(full: Result) -> None:
    judged = replace(full.pareto[0], label="9 units", chosen=False, timed=False, drop=None, sqnr_db=35.0)
    foretold = replace(judged, label="5 units", sqnr_db=None, predicted_sqnr_db=40.0)
    text = page(replace(full, pareto=(*full.pareto, judged, foretold)))
    sqnr, drop = picture(text, "SQNR of"), picture(text, "drop of")
    assert "9 units: 2.5 times as fast, 35.0 dB (judged, time by costs)" in sqnr
    assert "5 units: 2.5 times as fast, 40.0 dB (predicted)" in sqnr
    assert "2 measured, 1 judged, time by costs, 1 predicted" in sqnr
    assert "5 units" not in drop and "9 units" not in drop  # no labels were looked at
    for phrase in ("costs and noise", "judged, time by costs", "clock, judged"):
        assert f"<td>{phrase}</td>" in text
    assert "chosen: all int8" in sqnr


def test_a_single_point_is_no_plot(full: Result) -> None:
    one = page(replace(full, pareto=(full.pareto[0], replace(full.pareto[1], speedup=None, seconds=None))))
    assert "pareto" in sections(one) and "all float" in one and "The line joins" not in one


def test_the_missing_library_is_one_sentence(full: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(UsageError, match=r"needs the package vl-convert-python.*install onnxq\[report\]"):
        html.page(json.loads(dumps(full)))


def test_saved_results_are_read(full: Result, tmp_path: Path) -> None:
    saved = tmp_path / "result.json"
    saved.write_text(dumps(full), encoding="utf-8")
    assert html.page(html.read(saved)) == page(full)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read"),
        ("{", "is no JSON"),
        ("[]", "is no result of onnxq"),
        ('{"schema": "other/1"}', "is no result of onnxq"),
        ('{"schema": "onnxq.result/99"}', "has the form onnxq.result/99, this onnxq reads onnxq.result/"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, content: str | None, sentence: str) -> None:
    path = tmp_path / "result.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=sentence):
        html.read(path)
