"""The page in a headless Chromium: it draws, sorts, filters and links, says nothing in the console, and asks nobody."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser
import pytest

from onnxq.report import html
from onnxq.report.json import dumps
from onnxq.validate.result import Result

pytestmark = pytest.mark.skipif(bool(browser.missing()), reason=browser.missing() or "never")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser.browser() as running:
        yield running


@pytest.fixture
def path(full: Result, tmp_path: Path) -> Path:
    made = tmp_path / "report.html"
    made.write_text(html.page(json.loads(dumps(full))), encoding="utf-8")
    return made


@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_said_in_the_console_and_no_request_leaves_the_page(chromium: Any, path: Path, dark: bool) -> None:
    with browser.opened(chromium, path, dark=dark) as (page, seen):
        page.mouse.move(400, 300)
        for button in page.query_selector_all("th button"):
            button.click()
        assert seen.complaints == []
        assert seen.requests == [path.as_uri()]


def test_a_request_and_a_complaint_would_be_seen(chromium: Any, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text("<!doctype html><img src='https://example.invalid/x.png'><script>nothing()</script>")
    with browser.opened(chromium, bad) as (_, seen):
        assert "https://example.invalid/x.png" in seen.requests
        assert any("nothing is not defined" in line for line in seen.complaints)


def test_the_policy_of_the_page_forbids_requests_and_foreign_scripts(chromium: Any, path: Path) -> None:
    evil = '<img src="https://example.invalid/x.png"><script>document.title = "taken"</script></main>'
    path.write_text(path.read_text().replace("</main>", evil, 1))
    with browser.opened(chromium, path) as (page, seen):
        assert page.title() != "taken"
        assert sum("Content Security Policy" in line for line in seen.complaints) == 2
        assert seen.failed == {"https://example.invalid/x.png": "csp"}  # stopped by the page itself


def test_every_plot_is_drawn_and_has_a_text(chromium: Any, path: Path) -> None:
    with browser.opened(chromium, path) as (page, _):
        plots = page.query_selector_all("figure svg")
        assert (
            len(plots) == 8
        )  # latency, interval, coverage, layers, one histogram, where the time goes, two of models tried
        for plot in plots:
            marks = plot.query_selector_all("[role=graphics-symbol]")
            boxes = [box for mark in marks if (box := mark.bounding_box()) and box["width"] + box["height"] > 1]
            assert boxes, "a plot without marks"
            box = plot.bounding_box()
            assert box["width"] > 200 and box["height"] > 40
            assert len(plot.get_attribute("aria-label")) > 40
        captions = [c.inner_text() for c in page.query_selector_all("figcaption")]
        assert len(captions) == len(plots) and all(captions)


def test_the_range_is_drawn_into_the_histogram(chromium: Any, path: Path) -> None:
    with browser.opened(chromium, path) as (page, _):
        lines = page.query_selector_all('.plots svg [aria-label^="range "]')
        left, right = (line.bounding_box()["x"] for line in lines)
        bars = [bar.bounding_box() for bar in page.query_selector_all('.plots svg [aria-label*=" elements from "]')]
        assert len(bars) == 3
        assert min(b["x"] for b in bars) < left < right < max(b["x"] + b["width"] for b in bars)


def test_every_link_leads_somewhere_in_the_page(chromium: Any, path: Path) -> None:
    with browser.opened(chromium, path) as (page, _):
        links = [a.get_attribute("href") for a in page.query_selector_all("a")]
        assert len(links) == 14 and all(link.startswith("#") for link in links)
        for link in links[1:]:
            page.click(f'nav a[href="{link}"]')
            top = page.locator(link).bounding_box()["y"]
            at_the_end = page.evaluate("innerHeight + scrollY >= document.documentElement.scrollHeight - 2")
            assert 0 <= top < 300 or at_the_end, link
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
        assert len(ids) == len(set(ids))


def test_tables_sort_and_filter_from_the_keyboard(chromium: Any, path: Path) -> None:
    with browser.opened(chromium, path) as (page, _):

        def column(number: int) -> list[str]:
            rows = page.query_selector_all("#t-ops tbody tr")
            return [r.query_selector_all("td")[number].inner_text() for r in rows if r.is_visible()]

        file_order = column(2)
        head = page.locator("#t-ops th").nth(3)
        head.locator("button").focus()
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "ascending"
        assert column(3)[:3] == ["1.00 M", "3.00 M", "-"]  # by value; what is not known comes last
        page.keyboard.press("Enter")
        assert (head.get_attribute("aria-sort"), column(3)[0]) == ("descending", "3.00 M")
        page.keyboard.press("Enter")
        assert (head.get_attribute("aria-sort"), column(2)) == ("none", file_order)
        page.locator('input[data-table="t-ops"]').focus()
        page.keyboard.type("TANH act1")
        assert column(2) == ["act1", "act10", "act11"]
        assert page.locator("#t-ops-count").inner_text() == f"3 of {len(file_order)} rows"


def test_marks_tell_their_values_under_the_pointer(chromium: Any, path: Path) -> None:
    with browser.opened(chromium, path) as (page, _):
        tip = page.locator("#tip")
        assert not tip.is_visible()
        page.locator('svg [aria-label^="int8, 1 thread"]').first.hover()
        assert tip.inner_text() == "int8, 1 thread: 0.5 ms"
        page.locator("h1").hover()
        assert not tip.is_visible()


@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_is_no_wider_than_the_window(chromium: Any, path: Path, width: int) -> None:
    with browser.opened(chromium, path, width=width) as (page, _):
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_dark_is_dark_and_light_is_light_and_both_can_be_read(chromium: Any, path: Path) -> None:
    def lightness(colour: str) -> float:
        numbers = [int(v) / 255 for v in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in numbers]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]  # WCAG 2, relative luminance

    pairs = {"body": "body", ".tile span": ".tile", "figcaption": "section", "nav a": "body", "td.float": "section"}
    for dark in (False, True):
        with browser.opened(chromium, path, dark=dark) as (page, _):
            style = "([name, what]) => getComputedStyle(document.querySelector(name))[what]"
            ground = lightness(page.evaluate(style, ["body", "backgroundColor"]))
            assert ground < 0.05 if dark else ground > 0.9
            for front, back in pairs.items():
                one = lightness(page.evaluate(style, [front, "color"]))
                two = lightness(page.evaluate(style, [back, "backgroundColor"]))
                assert (max(one, two) + 0.05) / (min(one, two) + 0.05) >= 4.5, (front, dark)  # WCAG AA
            ink = page.evaluate("getComputedStyle(document.querySelector('svg .role-axis-label text')).fill")
            assert (lightness(ink) > ground) == dark
