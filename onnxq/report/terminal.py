"""Results for people: tables on a terminal, aligned plain lines anywhere else."""

from __future__ import annotations

import io
import os
import sys
import textwrap
from collections.abc import Iterable
from typing import TextIO

from onnxq.report.content import sections
from onnxq.report.section import Section
from onnxq.validate.result import Result

_STYLE = {"good": "bold green", "bad": "bold red", "open": "bold yellow", "plain": "bold"}
_CELLS = {
    "FAIL": "bold red", "open": "bold yellow", "warn": "yellow", "slow": "yellow", "ok": "green", "int8": "green",
    "float": "yellow",
}  # fmt: skip
_LEAST_WIDTH = 40


def show(result: Result, file: TextIO | None = None) -> None:
    """Print a result: tables and colours if `file` is a terminal (colours off with NO_COLOR), else plain lines."""
    show_sections(sections(result), file)


def show_sections(parts: Iterable[Section], file: TextIO | None = None) -> None:
    """Print tables, as `show` does."""
    out = file if file is not None else sys.stdout
    if out.isatty():
        from rich.console import Console

        out.write(_render(parts, width=Console(file=out).width, color=not os.environ.get("NO_COLOR")))
    else:
        out.write(_plain(parts))
    out.flush()


def render(result: Result, *, width: int, color: bool = False) -> str:
    """The report as rich tables, `width` columns wide."""
    return _render(sections(result), width=width, color=color)


def _render(parts: Iterable[Section], *, width: int, color: bool = False) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out = io.StringIO()
    console = Console(
        file=out,
        width=max(width, _LEAST_WIDTH),
        force_terminal=color,
        no_color=not color,
        color_system="standard" if color else None,
        highlight=False,
    )
    for section in parts:
        console.print(Text(section.title, style=_STYLE[section.mood]))
        table = Table(
            show_header=bool(section.columns), box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim"
        )
        for i in range(len(section.rows[0])):
            head = section.columns[i] if section.columns else ""
            table.add_column(Text(head), justify="right" if i in section.numbers else "left", overflow="fold")
        for row in section.rows:
            table.add_row(*(Text(cell, style=_cell_style(cell)) for cell in row))
        console.print(table)
        console.print()
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def plain(result: Result, *, width: int = 100) -> str:
    """The report as lines of text: no frames, no colours; long cells of the last columns go on in the next line."""
    return _plain(sections(result), width=width)


def _plain(parts: Iterable[Section], *, width: int = 100) -> str:
    return "\n".join(line for section in parts for line in (*_lines(section, width), ""))


def _lines(section: Section, width: int) -> list[str]:
    rows = [section.columns, *section.rows] if section.columns else list(section.rows)
    if len(rows[0]) == 1:
        body = [line for row in rows for line in textwrap.wrap(row[0], width - 2, break_long_words=False) or [""]]
        return [section.title, *(f"  {line}" for line in body)]
    count = len(rows[0])
    widest = [max(len(row[i]) for row in rows) for i in range(count)]
    lines = [section.title]
    for row in rows:
        cells = [c.rjust(widest[i]) if i in section.numbers else c.ljust(widest[i]) for i, c in enumerate(row)]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return lines


def _cell_style(cell: str) -> str:
    return _CELLS.get(cell, "")
