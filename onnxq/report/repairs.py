"""Repairs in reports: what was tried to win accuracy back, and what it bought."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from onnxq.report.elements import Cell, Marked, Number, number, paragraphs, table
from onnxq.report.section import Section
from onnxq.validate.repaired import Repair

HEADS = ("repair", "", "SQNR before", "after", "time", "what, or why not")


def sections(repairs: Sequence[Repair]) -> Iterator[Section]:
    """On a terminal; nothing where nothing was tried."""
    if not repairs:
        return
    rows = tuple(
        (r.name, "kept" if r.kept else "not kept", _db(r.before_db), _db(r.after_db), f"{r.seconds:.1f} s", r.told)
        for r in repairs
    )
    yield Section(title=f"Repairs{_where(repairs[0].samples)}", columns=HEADS, rows=rows, numbers=frozenset({2, 3, 4}))


def part(document: Mapping[str, Any]) -> str:
    """Of the page; empty where nothing was tried."""
    repairs = document.get("repairs") or ()
    if not repairs:
        return ""
    rows: list[tuple[Cell, ...]] = [
        (
            Marked(str(r["name"]), "name"),
            Marked("kept", "good") if r["kept"] else "not kept",
            Number(number(r["before_db"]), _db(r["before_db"])),
            Number(number(r["after_db"]), _db(r["after_db"])),
            Number(number(r["seconds"]), f"{r['seconds']:.1f} s"),
            str(r["told"]),
        )
        for r in repairs
    ]
    said = f"What was tried to win accuracy back at no cost in speed{_where(repairs[0]['samples'])}."
    return paragraphs([said]) + table("repairs", HEADS, rows, caption="repairs, and what each bought")


def _db(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} dB"


def _where(samples: int) -> str:
    return f", mean SQNR of the outputs on {samples} held-out calibration samples" if samples else ""
