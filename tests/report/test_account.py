"""Where the time goes, as people see it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from onnxq.report import account, html, terminal
from onnxq.report.json import dumps
from onnxq.validate.result import Account, Cause, Result


def said(one: Account) -> str:
    return terminal.plain(Result(command="quantize", account=(one,)))


def page(*accounts: Account) -> str:
    return html.page(json.loads(dumps(Result(command="quantize", account=accounts))))


def document(one: Account) -> Any:
    """Its JSON form."""
    return json.loads(dumps(Result(command="quantize", account=(one,))))["account"]


def with_causes(one: Account, *sizes: float, rest: float = 0.0) -> Account:
    """Causes c0, c1 ... of so many milliseconds."""
    causes = [Cause(name=f"c{i}", ms=ms, parts=1, largest=(f"n{i}",)) for i, ms in enumerate(sizes)]
    return replace(one, causes=(*causes, replace(one.causes[-1], ms=rest)), lost=())


def test_the_terminal_names_the_largest_causes_and_sums_the_others(full: Result) -> None:
    (one,) = full.account
    text = said(with_causes(one, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, rest=-0.02))
    assert "c3 0.200 ms (n3), 0.150 ms for 2 other causes, not explained by the profile -0.020 ms" in text
    assert "c4" not in text
    assert "other causes" not in said(with_causes(one, 0.5, 0.4, 0.3, 0.2))


def test_what_was_not_predicted_or_not_timed_says_so(full: Result) -> None:
    (one,) = full.account
    assert "nothing; its profile adds up to 0.970 ms, 3.0 % less than measured" in said(replace(one, predicted_ms=None))
    assert "1.00 ms by the costs, not timed" in said(replace(one, timed=False))
    assert "Nothing was timed here" in page(replace(one, timed=False))
    assert "Nothing was timed here" not in page(one)
    assert "the short one" in page(one) and "the short one" not in page(replace(one, predicted_ms=None))
    assert "20.0 % more than measured: read the costs with care" in said(replace(one, predicted_ms=1.2))
    assert "with care" not in said(replace(one, predicted_ms=1.14))


def test_each_number_of_threads_has_its_lines_and_its_bar(full: Result) -> None:
    (one,) = full.account
    both = (one, replace(one, threads=2, limit_ms=0.3))
    text = terminal.plain(Result(command="quantize", account=both))
    assert re.findall(r"kernel limit, (.*?)  ", text) == ["1 thread", "2 threads"]
    assert "kernel limit: 0.300 ms, 2 threads" in page(*both) and "kernel limit: 0.300 ms, 2 threads" not in page(one)


def test_parts_of_the_bar_add_up_to_the_clock_and_few_have_colours(full: Result) -> None:
    (one,) = full.account
    bars = account._bars(document(with_causes(one, *[0.04] * 9, rest=0.04)))
    assert sum(bar["ms"] for bar in bars) == pytest.approx(1.0)
    assert [b["part"] for b in bars][:2] == ["kernel limit", "c0"]
    assert len(bars) == account.CAUSES_DRAWN + 3  # the limit, the others, and what is not explained


def test_a_profile_that_is_longer_than_the_run_has_no_part_for_what_is_not_explained(full: Result) -> None:
    (one,) = full.account
    assert [b["part"] for b in account._bars(document(with_causes(one, 0.5, rest=-0.1)))] == ["kernel limit", "c0"]
    assert "-0.100" in page(with_causes(one, 0.5, rest=-0.1))


def test_a_model_without_time_above_its_limit_is_a_page_too(full: Result) -> None:
    (one,) = full.account
    text = page(with_causes(one, rest=0.4))
    assert "Where the time goes" in text and "Node by node" not in text
