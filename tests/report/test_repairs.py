"""The table of repairs: on a terminal and on a page."""

from __future__ import annotations

import json
from dataclasses import replace

from onnxq.report import html, repairs, terminal
from onnxq.report.json import dumps
from onnxq.validate.result import Result


def test_the_terminal_says_what_was_kept_and_why_the_rest_was_not(full: Result) -> None:
    text = terminal.plain(Result(command="quantize", repairs=full.repairs), width=200)
    assert "Repairs, mean SQNR of the outputs on 32 held-out calibration samples" in text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "bias kept 22.5 dB 26.8 dB 1.5 s 9 ops, on 64 samples" in lines
    assert "smooth not kept - - 0.0 s no site in this model" in lines


def test_the_page_has_the_same(full: Result) -> None:
    text = html.page(json.loads(dumps(Result(command="quantize", repairs=full.repairs))))
    assert 'id="repairs"' in text and "on 32 held-out calibration samples" in text
    assert "9 ops, on 64 samples" in text and "no site in this model" in text


def test_nothing_tried_is_nothing_said(full: Result) -> None:
    assert list(repairs.sections(())) == []
    assert repairs.part(json.loads(dumps(replace(full, repairs=())))) == ""


def test_the_gain_is_known_where_both_ends_are(full: Result) -> None:
    assert [r.gain_db for r in full.repairs] == [4.25, None]
