"""Pieces of the HTML report: text that is escaped, tables that sort and filter, figures with their text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

FILTER_FROM = 14
"""Rows from which a table gets a filter."""

MOST_ROWS = 1500
"""Rows of one table: 100,000 operators do not fit into a page that opens at once."""


@dataclass(frozen=True)
class Number:
    """A cell that is sorted by its value and shown as text."""

    value: float
    text: str


@dataclass(frozen=True)
class Marked:
    """A cell with a CSS class: good, bad, unsure, int8, float, hash or name."""

    text: str
    mark: str


Cell = str | Number | Marked


def number(value: Any) -> float:
    """A number of the JSON form, which writes what is not finite as text; None is NaN.

    >>> number("Infinity"), number(2)
    (inf, 2.0)
    """
    return math.nan if value is None else float(value)


def table(name: str, heads: Sequence[str], rows: Sequence[Sequence[Cell]], *, caption: str, total: int = 0) -> str:
    """A table that sorts by each column, with a filter if it is long.

    Args:
        name: its id, behind "t-" (sections have ids of their own).
        heads: of the columns.
        rows: cells; a column of Numbers is set right.
        caption: what it shows, in a few words.
        total: rows that there are, if not all are given.
    """
    name = f"t-{name}"
    numeric = [bool(rows) and any(isinstance(r[i], Number) for r in rows) for i in range(len(heads))]
    shown = rows[:MOST_ROWS]
    count = max(total, len(rows))
    parts = []
    if count > len(shown):
        parts.append(f'<p class="soft">The first {len(shown)} of {count} rows; all are in the JSON report.</p>')
    if len(shown) >= FILTER_FROM:
        parts.append(
            f'<div class="tools"><label>Filter <input type="search" data-table="{name}" '
            f'aria-controls="{name}" placeholder="words that a row holds"></label>'
            f'<span class="soft" id="{name}-count" aria-live="polite">{len(shown)} of {len(shown)} rows</span></div>'
        )
    heading = "".join(
        f'<th scope="col"{" class=n" if n else ""} aria-sort="none"><button type="button">{escape(h)}</button></th>'
        for h, n in zip(heads, numeric, strict=True)
    )
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in shown)
    parts.append(
        f'<div class="wrap" tabindex="0" role="region" aria-label="{escape(caption)}"><table class="sortable" '
        f'id="{name}"><caption hidden>{escape(caption)}</caption>'
        f"<thead><tr>{heading}</tr></thead><tbody>{body}</tbody></table></div>"
    )
    return "".join(parts)


def _cell(cell: Cell) -> str:
    if isinstance(cell, Number):
        value = "NaN" if math.isnan(cell.value) else f"{cell.value:.9g}".replace("inf", "Infinity")
        return f'<td class=n data-v="{value}">{escape(cell.text)}</td>'
    if isinstance(cell, Marked):
        return f'<td class="{cell.mark}">{escape(cell.text)}</td>'
    return f"<td>{escape(cell)}</td>"


def facts(rows: Sequence[tuple[str, Cell]]) -> str:
    """Names and values, two columns, nothing to sort."""
    body = "".join(f'<tr><th scope="row">{escape(k)}</th>{_cell(v)}</tr>' for k, v in rows)
    return f'<div class="wrap"><table><tbody>{body}</tbody></table></div>'


def figure(svg: str, alternative: str, caption: str = "") -> str:
    """A plot; `alternative` says what one sees, for those who do not see it.

    The caption (default: the alternative) stands below.
    """
    drawn = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alternative)}" ', 1)
    return f"<figure>{drawn}<figcaption>{escape(caption or alternative)}</figcaption></figure>"


def paragraphs(texts: Sequence[str]) -> str:
    """One paragraph each."""
    return "".join(f"<p>{escape(text)}</p>" for text in texts)


def items(texts: Sequence[str]) -> str:
    """A list."""
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>"
